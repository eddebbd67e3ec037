// The result for a photo: the verdict, the views side by side, and the regions.

import { announce, clamp, formatPercent, formatProbability, h, makeChoice, toggle } from "/static/dom.js";
import { findFalseAlarmRate, makeColours, toLevel, toLogOdds, toShare } from "/static/heat.js";
import { Panel } from "/static/panel.js";
import { Maps, Picture, findPhotoFile } from "/static/pictures.js";
import { getBlob } from "/static/api.js";
import { makeProgressBox } from "/static/tasks.js";
import { Camera, findArrow, makeZoomButtons, zoomByKey } from "/static/viewport.js";

const BLINK = 650; // milliseconds of each picture: less than one change from light to dark per second
const FEW = 8; // regions in the table before "show all"

const WORDS = {
  "strong trace": "Strong trace of inpainting",
  inconclusive: "Inconclusive",
  "no trace found": "No trace found",
};

/** The verdict's headline and style: {kind, words}. */
export function describeVerdict(result) {
  const kind = { "strong trace": "strong", inconclusive: "unsure", "no trace found": "none" }[result.band] ?? "no-verdict";
  return { kind, words: WORDS[result.band] ?? `No verdict: ${result.band}` };
}

/** The verdict and all views of one photo, with their shared camera, threshold and loupe. */
export class Detect {
  camera = new Camera();
  entry = null;
  pictures = new Map();
  maps = null;
  regions = [];
  boxes = true;
  loupe = false;
  at = null; // the loupe's point, pixels of the photo
  panels = [];
  #worker = new Maps();
  #layout = matchMedia("(max-width: 760px)").matches ? "1" : "2";
  #opacity = 0.55;
  #blink = 0; // the timer
  #swapped = false; // whether the photo is shown in place of the views, while they blink
  #frame = 0;
  #serial = 0; // of the photo that is shown, so that late answers for another photo are ignored
  #asked = null; // {busy, again}: whether regions of this photo are searched, and again after that

  /** root: the element to fill. actions: functions of the buttons, by name: report, remove, retry, off. */
  constructor(root, actions) {
    Object.assign(this, { root, actions });
    this.camera.addEventListener("change", () => this.draw());
    new ResizeObserver(() => {
      if (this.camera.fitted && this.panels[0]) this.camera.fit(this.size());
      this.draw();
    }).observe(root);
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => this.draw());
  }

  size = () => this.panels[0]?.size ?? { width: 1, height: 1 };

  /** A view's title and lines; they arrive after the verdict, together for all views. */
  view = (name) => this.entry.result.views.find((view) => view.name === name)
    ?? { name, title: name === "photo" ? "Photo" : "Heatmap", shows: "", look_for: "", ignore: "" };

  // The photo that is shown

  /** Show a photo in its current state. */
  show(entry) {
    const { job } = entry.detection;
    if (this.entry !== entry || !job) this.#close();
    this.entry = entry;
    if (!job) {
      this.root.replaceChildren(this.#makePending());
      return;
    }
    if (!this.shown) this.#open();
    else if (this.#numViews !== job.result.views.length) this.#arrange(); // they come after the verdict
    const focused = this.#said.contains(document.activeElement), unfolded = this.#said.querySelector("details")?.open;
    this.#said.replaceWith(this.#said = this.#makeVerdict());
    this.#said.querySelector("details").open = Boolean(unfolded);
    if (focused) this.#said.querySelector("a, button").focus();
  }

  #said = null; // the element with the verdict
  #numViews = 0;
  shown = false;

  /** Forget a photo whose result is gone. */
  leave(entry) {
    if (this.entry !== entry) return;
    this.#close();
    this.entry = null;
    this.root.replaceChildren();
  }

  #close() {
    this.#serial++;
    this.#asked = { busy: false, again: false };
    this.#setBlinking(false);
    for (const picture of this.pictures.values()) picture?.close();
    this.pictures = new Map();
    Object.assign(this, { maps: null, regions: [], panels: [], at: null, shown: false });
    this.camera.fitted = true;
  }

  #makePending() {
    const { entry, actions } = this, { state, error } = entry.detection;
    const head = h("h2", { class: "name" }, entry.name);
    if (state === "running") {
      return h("section", { class: "verdict", "aria-label": "Progress" }, head,
        makeProgressBox(entry.detection, "Looking for traces"), h("div", { class: "actions" },
          h("button", { type: "button", onclick: () => entry.detection.cancel() }, "Cancel")));
    }
    const failed = state === "failed";
    return h("section", { class: "verdict failed", "aria-label": "Result" }, head,
      h("p", { class: "word" }, failed ? "Could not be examined" : "Not examined"),
      h("p", {}, failed ? error.message : "It was cancelled before the end."),
      error?.remedy ? h("p", {}, error.remedy) : null,
      h("div", { class: "actions" },
        h("button", { type: "button", class: "first", onclick: () => actions.retry(entry) }, "Try again"),
        h("button", { type: "button", onclick: () => actions.off(entry) }, "Take off the list")));
  }

  #makeVerdict() {
    const { entry, actions } = this, { result } = entry, { kind, words } = describeVerdict(result);
    const notes = [...new Set([...result.notes, ...(result.edits_words ? [result.edits_words] : [])])];
    const facts = [
      ["Quality band", result.quality], ["Score", `${formatProbability(result.score)} of 1${result.calibrated ? "" : ", uncalibrated"}`],
      ["Size", `${result.width} x ${result.height} pixels`], ["Detector", `${result.model}, overpaint ${result.version}`],
      ["Threshold", result.threshold_words], ["Photo's SHA-256", result.sha256], ["Weights' SHA-256", result.weights_sha256],
      ["Calibration's SHA-256", result.calibration_sha256],
      ["Time in the detector", `${result.seconds} s`]];
    return h("section", { class: `verdict ${kind}`, "aria-label": "Verdict" },
      h("div", { class: "verdict-head" },
        h("div", {}, h("h2", { class: "name" }, entry.name), h("p", { class: "word" }, words)),
        h("div", { class: "actions" }, makeReportPart(entry, actions),
          h("button", { type: "button", onclick: () => actions.remove(entry) }, "Remove something from the photo"))),
      h("div", { class: "verdict-body" },
        h("p", {}, h("b", {}, makeSentence(describeExtent(result))), kind === "unsure" ? " Why inconclusive: " : " ", makeSentence(result.meaning)),
        h("p", {}, describeFalseAlarms(result)),
        notes.length ? h("ul", { class: "notes" }, notes.map(makeSentence).filter((note) => note !== result.meaning)
          .map((note) => h("li", {}, note))) : null),
      h("details", {}, h("summary", {}, "Figures and hashes"),
        h("table", { class: "facts-table" }, h("tbody", {}, facts.map(([name, value]) => (
          h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value ?? "none"))))))));
  }

  #open() {
    const { entry } = this, { result } = entry;
    this.shown = true;
    this.#default = toLogOdds(result.threshold);
    this.#setThreshold(null);
    this.regions = result.regions;
    this.count = result.num_regions;
    this.lut = makeColours(this.#opacity);
    this.#said = h("section");
    this.grid = h("div", { class: "grid" });
    this.list = h("section", { class: "regions", "aria-label": "Regions" });
    this.readout = h("p", { class: "readout quiet" }, "\u00a0");
    this.root.replaceChildren(this.#said, this.#makeTools(), this.grid, this.list);
    this.camera.photo = { width: result.width, height: result.height };
    this.#arrange();
    this.#describe();
    this.need("photo");
    this.#fetchMaps();
  }

  /** Put the layout's number of views side by side. */
  #arrange() {
    const { views } = this.entry.result;
    const names = views.length ? views.map((view) => view.name) : ["photo", "heatmap"];
    const before = this.panels.map((panel) => panel.name);
    const chosen = this.#layout === "all" ? names : ["heatmap", "photo"].slice(0, Number(this.#layout)).reverse();
    if (before.length === chosen.length) chosen.splice(0, chosen.length, ...before);
    this.#numViews = views.length;
    this.grid.className = `grid grid-${this.#layout}`;
    this.panels = chosen.map((name, i) => new Panel(this, i, name, this.#layout === "all" ? [name] : names));
    this.grid.replaceChildren(...this.panels.map((panel) => panel.figure));
    if (this.camera.fitted) this.camera.fit(this.size());
    else this.draw();
  }

  // Pictures and maps of the views

  /** Fetch a view's picture unless it was fetched or is being fetched. */
  async need(name) {
    if (name === "heatmap") name = "photo";
    if (this.pictures.has(name)) return;
    this.pictures.set(name, null);
    const serial = this.#serial, { result, detection: { job } } = this.entry, view = this.view(name);
    const file = name === "photo" ? findPhotoFile(job) : `${name}.png`;
    try {
      const picture = await Picture.of(await getBlob(job.files[file]));
      if (serial !== this.#serial) picture.close();
      else this.pictures.set(name, picture);
    } catch (error) {
      if (serial === this.#serial) this.#showFault(`The view "${view.title}" of ${result.width} x ${result.height} pixels cannot be shown`, error);
    }
    this.draw();
  }

  async #fetchMaps() {
    const serial = this.#serial;
    try {
      const maps = await this.#worker.open(this.entry.detection.job);
      if (serial === this.#serial) this.maps = maps;
    } catch (error) {
      if (serial === this.#serial) this.#showFault("The heatmap cannot be shown", error);
    }
    if (serial === this.#serial && this.maps) {
      this.slider.disabled = false;
      this.#showThreshold();
    }
  }

  #showFault(what, error) {
    this.grid.before(h("p", { class: "alert", role: "alert" }, `${what}: ${error.message} ${error.remedy ?? ""}`));
  }

  // Tools

  #makeTools() {
    const low = Math.min(-4, this.#default - 1), high = Math.max(9, this.#default + 1);
    this.slider = h("input", { type: "range", id: "threshold", min: low.toFixed(2), max: high.toFixed(2), step: "0.02",
      value: this.#default, disabled: !this.maps, "aria-describedby": "threshold-words",
      oninput: () => this.#setThreshold(Number(this.slider.value)) });
    this.value = h("output", { for: "threshold", class: "figure" });
    this.own = h("button", { type: "button", class: "link", onclick: () => {
      this.slider.value = this.#default;
      this.#setThreshold(null);
    } }, "detector's own");
    this.words = h("p", { id: "threshold-words", class: "quiet slider-words" });
    const opacityValue = h("output", { for: "opacity", class: "figure" }, formatPercent(this.#opacity));
    const opacity = h("input", { type: "range", id: "opacity", min: "0", max: "100", value: 100 * this.#opacity, oninput: () => {
      this.#opacity = Number(opacity.value) / 100;
      opacityValue.textContent = formatPercent(this.#opacity);
      this.lut = makeColours(this.#opacity);
      this.draw();
    } });
    this.switches = {
      boxes: toggle("Boxes", this.boxes, (on) => this.#switch("boxes", on), "Key X"),
      loupe: toggle("Loupe", this.loupe, (on) => this.#switch("loupe", on), "Key L"),
      blink: toggle("Blink", false, (on) => this.#switch("blink", on), "Key B; alternates between the views and the photo"),
    };
    return h("section", { class: "tools", "aria-label": "Tools" },
      h("div", { class: "tool-row" },
        makeChoice("Views side by side", "layout", [["1", "One"], ["2", "Two"], ["all", "All"]], this.#layout, (key) => {
          this.#layout = key;
          this.#arrange();
        }),
        makeZoomButtons(h, this.camera, this.size),
        h("div", { class: "bar", role: "group", "aria-label": "Show" }, Object.values(this.switches)), this.readout),
      h("div", { class: "tool-row sliders" },
        h("div", { class: "slider" }, h("label", { for: "threshold" }, "Threshold"), this.slider, this.value, this.own, this.words),
        h("div", { class: "slider" }, h("label", { for: "opacity" }, "Opacity of the heatmap"), opacity, opacityValue)));
  }

  #switch(name, on) {
    this.switches[name].setAttribute("aria-pressed", String(on));
    if (name === "blink") this.#setBlinking(on);
    else this[name] = on;
    if (name === "loupe" && on && !this.at) this.at = { x: this.camera.x, y: this.camera.y };
    announce(`${this.switches[name].textContent} ${on ? "on" : "off"}`);
    this.draw();
  }

  #setBlinking(on) {
    clearInterval(this.#blink);
    this.#swapped = false;
    this.#blink = on ? setInterval(() => {
      this.#swapped = !this.#swapped;
      this.draw();
    }, BLINK) : 0;
  }

  // Threshold

  #default = 0; // log odds
  #logit = 0;

  /** logit: in log odds; null for the detector's own threshold, at which whole regions are marked. */
  #setThreshold(logit) {
    const own = logit === null || Math.abs(logit - this.#default) < 0.011;
    this.#logit = own ? this.#default : logit;
    [this.marks, this.mark] = own ? ["mask", 128] : ["evidence", toLevel(logit)];
    this.isOwn = own;
    if (this.slider) this.#showThreshold();
  }

  #showThreshold() {
    const { result } = this.entry, { maps } = this;
    const share = !maps || this.isOwn ? result.fraction : maps.counts[this.mark] / Math.max(maps.counts[1], 1);
    const at = formatProbability(toShare(this.#logit));
    this.value.textContent = at;
    this.slider.setAttribute("aria-valuetext", `${at}, marks ${formatPercent(share)} of the photo`);
    this.own.disabled = this.isOwn;
    this.words.textContent = `Marks ${formatPercent(share)} of the photo. ${this.#describeFalseAlarms()}`;
    this.draw();
    this.#findRegions();
  }

  #describeFalseAlarms() {
    const { result } = this.entry;
    if (this.isOwn) return "The mask of the verdict uses this threshold.";
    const curve = result.false_alarm_curve;
    if (!curve) return "The share of untouched photos that reach it is not known.";
    const rate = findFalseAlarmRate(curve, this.#logit);
    if (rate === null) return "No untouched photo of this quality in the test had more than 1 % marked; the verdict does not change.";
    return `${formatPercent(rate)} of untouched photos of this quality have more than 1 % marked; the verdict does not change.`;
  }

  /** Find the regions at the current threshold. While a search runs, only the last threshold waits. */
  async #findRegions() {
    const { result } = this.entry, asked = this.#asked, serial = this.#serial;
    if (this.isOwn || !this.maps) {
      Object.assign(this, { regions: result.regions, count: result.num_regions });
      this.#describe();
      return;
    }
    if (asked.busy) {
      asked.again = true;
      return;
    }
    asked.busy = true;
    let found = { regions: [], count: 0 }, fault = null;
    try {
      found = await this.#worker.findRegions(this.mark);
    } catch (error) {
      fault = error;
    }
    asked.busy = false;
    if (serial !== this.#serial) return;
    if (!this.isOwn) {
      Object.assign(this, found);
      if (fault) this.#describeFault(fault);
      else this.#describe();
      this.draw();
    }
    if (asked.again) {
      asked.again = false;
      this.#findRegions();
    }
  }

  #describeFault(error) {
    this.list.replaceChildren(h("h3", {}, "Regions not known"), h("p", { class: "fault", role: "alert" },
      `The regions at this threshold could not be found: ${error.message}. Move the threshold to try again.`));
  }

  /** The table of regions, with the same content as the boxes. */
  #describe(all = false) {
    const { regions, count } = this;
    const rows = (all ? regions : regions.slice(0, FEW)).map((region, i) => h("tr", {},
      h("th", { scope: "row" }, i + 1), [region.x, region.y, region.width, region.height, region.area].map((value) => (
        h("td", {}, value.toLocaleString("en")))), h("td", {}, region.mean.toFixed(3)),
      h("td", {}, h("button", { type: "button", class: "link", "aria-label": `Show region ${i + 1}`, onclick: () => {
        this.at = { x: region.x + region.width / 2, y: region.y + region.height / 2 };
        this.camera.show(region, this.size());
        this.panels[0].box.focus();
      } }, "Show"))));
    this.list.replaceChildren(h("h3", {}, count === 1 ? "1 region" : `${count || "No"} regions`),
      ...(rows.length ? [h("div", { class: "table-box" }, h("table", { class: "region-table" },
        h("thead", {}, h("tr", {}, ["number", "left", "top", "width", "height", "pixels", "mean heat", "view"].map((name) => (
          h("th", { scope: "col" }, name))))),
        h("tbody", {}, rows)))] : [h("p", { class: "quiet" }, "No region of 16 pixels or more is marked at this threshold.")]),
      regions.length > FEW && !all
        ? h("button", { type: "button", class: "link", onclick: () => this.#describe(true) }, `Show all ${regions.length}`) : "");
  }

  // Drawing

  draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      for (const panel of this.panels) panel.draw(this.#swapped);
    });
  }

  /** Called with the position under the pointer, CSS pixels of a view, or null. */
  showPlace(at) {
    if (!at || !this.shown) return;
    this.at = this.camera.toPhoto(at, this.size());
    this.#read();
    if (this.loupe) this.draw();
  }

  #read() {
    const { width, height } = this.entry.result, x = Math.floor(this.at.x), y = Math.floor(this.at.y);
    if (x < 0 || y < 0 || x >= width || y >= height) {
      this.readout.textContent = "\u00a0";
      return;
    }
    let text = `x ${x}, y ${y}`;
    if (this.maps) {
      const value = (map) => (map.values[y * width + x] / 65535).toFixed(3);
      text += `   heat ${value(this.maps.heat[0])}   compared with the threshold ${value(this.maps.evidence[0])}`;
    }
    this.readout.textContent = text;
    return text;
  }

  takeKey(event) {
    const step = findArrow(event), size = this.size();
    if (event.ctrlKey || event.metaKey) return;
    if (step && event.altKey) {
      const by = event.shiftKey ? 1 : Math.max(8 / this.camera.scale, 1), { width, height } = this.entry.result;
      const from = this.at ?? { x: this.camera.x, y: this.camera.y };
      this.at = { x: clamp(from.x + step[0] * by, 0, width - 1), y: clamp(from.y + step[1] * by, 0, height - 1) };
      if (!this.loupe) this.#switch("loupe", true);
      announce(this.#read());
      this.draw();
    } else if (step) this.camera.pan(step[0] * size.width / 10, step[1] * size.height / 10);
    else if (!zoomByKey(event, this.camera, size)) {
      const name = { l: "loupe", b: "blink", x: "boxes" }[event.key.toLowerCase()];
      if (!name || event.altKey) return;
      this.#switch(name, this.switches[name].getAttribute("aria-pressed") !== "true");
    }
    event.preventDefault();
  }
}

function makeReportPart(entry, actions) {
  const { report } = entry;
  if (report.state === "done") {
    const { files } = report.job;
    return h("span", { class: "actions" },
      h("a", { class: "button first", href: files["report.html"], target: "_blank", rel: "noopener" }, "Open the report"),
      h("a", { class: "button", href: files["report.json"], download: "" }, "Report as JSON"));
  }
  if (report.state === "running") {
    return h("div", { class: "inline-job" }, makeProgressBox(report, "Making the report"),
      h("button", { type: "button", onclick: () => report.cancel() }, "Cancel the report"));
  }
  return [h("button", { type: "button", class: "first", onclick: () => actions.report(entry) }, "Make a report"),
    report.state === "failed"
      ? h("p", { class: "fault", role: "alert" }, `The report failed: ${report.error.message} ${report.error.remedy ?? ""}`) : null];
}

/** The marked share and regions at the detector's own threshold, as a sentence. */
function describeExtent({ fraction, num_regions: count }) {
  if (!fraction) return "Nothing is marked.";
  const regions = count ? `${count} region${count === 1 ? "" : "s"}` : "small spots";
  return `${formatPercent(fraction)} of the photo is marked, in ${regions}.`;
}

/** The false-alarm rate on untouched photos of the same quality, as a sentence. */
function describeFalseAlarms(result) {
  const { quality, false_alarm_rate: rate, false_alarm_bound: bound, num_photos: count } = result;
  if (rate === null) {
    return `How often untouched photos of this quality (${quality}) are marked is not known: ${result.false_alarm_note}.`;
  }
  const bounded = bound === null ? "" : ` (${count} photos were tested: at most ${formatPercent(bound)} with 95 % confidence)`;
  return `False alarms: of untouched photos of this quality (${quality}), ${formatPercent(rate)} have more than 1 % of their area marked${bounded}.`;
}

/** Words of a record as a sentence: "inconclusive: 3 %" -> "Inconclusive: 3 %." */
function makeSentence(text) {
  if (!text) return "";
  const said = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(said) ? said : `${said}.`;
}

// Remove something from a photo: draw a mask, choose an inpainter, compare, examine the result.

import { getBlob } from "/static/api.js";
import { announce, clamp, formatPercent, h, makeChoice } from "/static/dom.js";
import { Mask, apply, readMask } from "/static/mask.js";
import { Picture, findPhotoFile } from "/static/pictures.js";
import { makeProgressBox } from "/static/tasks.js";
import { Camera, findArrow, makeZoomButtons, steer, zoomByKey } from "/static/viewport.js";

const TOOLS = [["brush", "Brush"], ["eraser", "Eraser"], ["box", "Rectangle"], ["lasso", "Lasso"], ["move", "Move"]];
const STEP = 12; // CSS pixels by which an arrow key moves the cross
const GRIP = 16; // CSS pixels around the line between before and after in which it can be dragged
const MOST = 0.9; // share of a photo above which the server refuses a mask as inverted

/** The editor of one photo's mask, and the result of the removal. */
export class Remove {
  camera = new Camera();
  entry = null;
  tool = "brush";
  size = 40; // of the brush, pixels of the photo
  inpainter = "auto";
  #models = [];
  #picture = null;
  #after = null;
  #comparing = false;
  #wipe = 0.5; // of the view's width
  #encoding = new WeakSet(); // entries whose mask is being encoded, before their removal is running
  #told = null; // the state that the result section shows; when done, the job
  #live = null; // the step that is being drawn
  #cross = null; // position for drawing by keys, pixels of the photo
  #pointer = null; // CSS pixels
  #byKeys = false;
  #frame = 0;
  #serial = 0;
  #base = { canvas: document.createElement("canvas"), key: "" };
  #layer = document.createElement("canvas");

  /** root: the element to fill. actions: functions of the buttons, by name: remove, look. */
  constructor(root, actions) {
    Object.assign(this, { root, actions });
    this.camera.addEventListener("change", () => this.draw());
    new ResizeObserver(() => {
      if (this.camera.fitted && this.box) this.camera.fit(this.viewSize());
      this.draw();
    }).observe(root);
  }

  set models(models) {
    this.#models = models;
    this.inpainter = (models.find((model) => model.default) ?? models[0])?.name ?? "auto";
    if (this.picks) this.#fillPicks(); // the list arrived after the photo
  }

  viewSize = () => ({ width: this.box?.clientWidth ?? 1, height: this.box?.clientHeight ?? 1 });

  /** Show a photo, or update it when its removal has changed. */
  async show(entry) {
    if (this.entry === entry && this.#picture) {
      this.#tell();
      return;
    }
    this.#close();
    this.entry = entry;
    const serial = this.#serial;
    this.root.replaceChildren(h("p", { class: "quiet" }, "Opening the photo \u2026"));
    let picture;
    try {
      picture = await Picture.of(await readPhoto(entry));
    } catch (error) {
      if (serial === this.#serial) {
        this.root.replaceChildren(h("section", { class: "verdict failed", "aria-label": "Result" },
          h("h2", { class: "name" }, entry.name), h("p", {}, error.message)));
        this.entry = null; // so that choosing it again tries again
      }
      return;
    }
    if (serial !== this.#serial) {
      picture.close();
      return;
    }
    this.#picture = picture;
    this.size = Math.max(Math.round(Math.max(picture.width, picture.height) / 30), 8);
    if (!entry.mask) entry.mask = new Mask(picture.width, picture.height);
    this.#build();
  }

  /** Forget a photo that was taken off the list. */
  leave(entry) {
    if (this.entry !== entry) return;
    this.#close();
    this.entry = null;
    this.root.replaceChildren();
  }

  #close() {
    this.#serial++;
    this.#picture?.close();
    this.#after?.close();
    Object.assign(this, { box: null });
    this.#picture = this.#after = this.#told = this.#live = this.#cross = null;
    this.#comparing = false;
    this.#base.key = "";
    this.entry?.mask?.removeEventListener("change", this.#masked);
  }

  #masked = () => {
    const { mask } = this.entry, share = mask.measureShare();
    this.undo.disabled = !mask.steps.length;
    this.redo.disabled = !mask.undone.length;
    this.marked.textContent = share ? `About ${formatPercent(share)} of the photo is marked.` : "Nothing is marked yet.";
    this.go.disabled = !share || share > MOST || this.entry.removal.state === "running" || this.#encoding.has(this.entry);
    this.why.textContent = !share ? "First mark the part to remove."
      : share > MOST ? "Nearly the whole photo is marked; is the mask inverted? The marked part is removed." : "";
    announce(this.marked.textContent);
    this.draw();
  };

  // Elements

  #build() {
    const { entry } = this;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.context = this.canvas.getContext("2d");
    this.box = h("div", { class: "view draws", tabindex: "0", role: "application", "aria-describedby": "remove-help" }, this.canvas);
    this.wipe = h("input", { type: "range", min: "0", max: "100", value: 100 * this.#wipe, id: "wipe", oninput: () => {
      this.#wipe = Number(this.wipe.value) / 100;
      this.draw();
    } });
    this.wipeRow = h("div", { class: "slider wipe", hidden: true },
      h("label", { for: "wipe" }, "Line between before and after"), this.wipe);
    this.head = h("div");
    this.drawTools = this.#drawTools();
    this.result = h("section", { class: "result", "aria-label": "Result of the removal" });
    this.root.replaceChildren(h("div", { class: "remove" },
      h("div", { class: "remove-main" }, h("h2", { class: "name" }, entry.name), this.head, this.drawTools,
        this.box, this.wipeRow,
        this.help = h("p", { id: "remove-help", class: "quiet" }, "Mark the part to remove, with its shadow and a small margin. With the keyboard: arrow keys move the cross, Space draws; the button Keys lists all keys.")),
      h("div", { class: "remove-side" }, this.#makeSideTools(), this.result)));
    steer(this.box, this.camera, { take: (event, at) => this.#take(event, at), point: (at) => {
      this.#pointer = at;
      if (at) this.#byKeys = false;
      this.draw();
    } });
    this.box.addEventListener("keydown", (event) => this.#takeKey(event));
    this.box.addEventListener("focus", () => this.draw());
    this.box.addEventListener("blur", () => this.draw());
    entry.mask.addEventListener("change", this.#masked);
    this.camera.open(this.#picture, this.viewSize());
    this.#tell();
    this.#masked();
  }

  #drawTools() {
    const { entry } = this, button = (text, act, title = null) => h("button", { type: "button", onclick: act, title }, text);
    this.undo = button("Undo", () => entry.mask.undo(), "Ctrl + Z");
    this.redo = button("Redo", () => entry.mask.redo(), "Ctrl + Y");
    this.sizeValue = h("output", { for: "brush-size", class: "figure" });
    this.sizer = h("input", { type: "range", id: "brush-size", min: "2", max: String(Math.max(Math.round(Math.max(this.#picture.width, this.#picture.height) / 4), 64)),
      value: this.size, oninput: () => this.#setSize(Number(this.sizer.value)) });
    const files = h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "Mask", onchange: () => this.#load(files) });
    const tools = h("section", { class: "tools", "aria-label": "Tools for drawing" },
      h("div", { class: "tool-row" }, makeChoice("Tool", "tool", TOOLS, this.tool, (key) => {
        this.tool = key;
        this.#drop();
      }), h("div", { class: "bar", role: "group", "aria-label": "Steps" }, this.undo, this.redo),
      makeZoomButtons(h, this.camera, this.viewSize)),
      h("div", { class: "tool-row" },
        h("div", { class: "slider" }, h("label", { for: "brush-size" }, "Size of the brush"), this.sizer, this.sizeValue),
        h("div", { class: "bar", role: "group", "aria-label": "Mask" },
          button("Load a mask", () => files.click(), "A PNG of the photo's size; white is removed"),
          button("Invert", () => entry.mask.add({ kind: "invert" })),
          button("Clear", () => entry.mask.add({ kind: "clear" }))), files));
    this.loadFault = h("p", { class: "fault", role: "alert" });
    tools.append(this.loadFault);
    this.#setSize(this.size);
    return tools;
  }

  #setSize(size) {
    this.size = clamp(Math.round(size), Number(this.sizer.min), Number(this.sizer.max));
    this.sizer.value = this.size;
    this.sizer.setAttribute("aria-valuetext", `${this.size} pixels`);
    this.sizeValue.textContent = `${this.size} px`;
    this.draw();
  }

  async #load(input) {
    const [file] = input.files, { entry, loadFault } = this;
    input.value = "";
    loadFault.textContent = "";
    if (!file) return;
    try {
      entry.mask.add(await readMask(file, this.#picture));
    } catch (error) {
      loadFault.textContent = error.message;
    }
  }

  #makeSideTools() {
    this.marked = h("p", { class: "marked" });
    this.why = h("p", { class: "quiet", id: "why-not" });
    this.go = h("button", { type: "button", class: "first wide", "aria-describedby": "why-not", onclick: () => this.#remove() }, "Remove");
    this.picks = h("fieldset", { class: "picks" });
    this.#fillPicks();
    return h("section", { "aria-label": "Removal" }, this.picks, this.marked, this.go, this.why);
  }

  #fillPicks() {
    this.picks.replaceChildren(h("legend", {}, "Inpainter"), ...this.#models.map(({ name, summary }) => (
      h("label", { class: "pick" },
        h("input", { type: "radio", name: "inpainter", value: name, checked: name === this.inpainter, onchange: () => { this.inpainter = name; } }),
        h("span", {}, h("b", {}, name), h("span", { class: "quiet" }, summary))))));
  }

  async #remove() {
    const { entry, inpainter, result } = this;
    this.#encoding.add(entry);
    this.go.disabled = true; // a second click would send the mask twice
    try {
      const mask = new File([await entry.mask.encodePng()], "mask.png", { type: "image/png" });
      this.actions.remove(entry, mask, inpainter);
    } catch (error) {
      result.append(h("p", { class: "fault", role: "alert" }, `The mask cannot be sent: ${error.message}`));
    } finally {
      this.#encoding.delete(entry);
      if (this.entry === entry) this.#masked();
    }
  }

  /** Show the state of the removal. */
  #tell() {
    const { removal } = this.entry, { state, error, job } = removal;
    const before = this.#told, told = state === "done" ? job : state;
    this.#masked();
    if (before === told) return;
    this.#told = told;
    this.#after?.close();
    this.#after = null;
    this.#compare(false);
    this.head.replaceChildren();
    if (state === "done") {
      this.#done(job);
      return;
    }
    const parts = {
      running: () => [makeProgressBox(removal, "Filling"), h("button", { type: "button", onclick: () => removal.cancel() }, "Cancel")],
      failed: () => [h("p", { class: "fault", role: "alert" }, `${error.message} ${error.remedy ?? ""}`)],
      cancelled: () => [h("p", {}, "Cancelled; nothing was changed.")],
      idle: () => [],
    };
    this.result.replaceChildren(...parts[state]());
    if (state === "running" && before) this.result.querySelector("button").focus(); // it started while it was shown
  }

  async #done(job) {
    const { files, result } = job, focused = this.result.contains(document.activeElement), serial = this.#serial;
    const isLate = () => serial !== this.#serial || this.#told !== job; // another photo or removal is shown
    this.result.replaceChildren(
      h("h3", {}, "Result"), h("p", {}, `${result.words[0].toUpperCase()}${result.words.slice(1)}.`),
      result.notes?.length ? h("ul", { class: "notes" }, result.notes.map((note) => h("li", {}, note))) : "",
      h("div", { class: "stack" },
        h("button", { type: "button", class: "first wide", onclick: (event) => this.#look(event.target, job) }, "Examine the result"),
        h("a", { class: "button wide", href: files[result.picture], download: "" }, "Download the picture"),
        h("a", { class: "button wide", href: files["receipt.json"], download: "" }, "Download the receipt")),
      h("p", { class: "quiet" }, "The picture is marked as edited in its metadata. The receipt lists the edit and the hashes of both files: keep it beside the picture."));
    if (focused) this.result.querySelector("button").focus();
    let after;
    try {
      after = await Picture.of(await getBlob(files[result.shown]));
    } catch (error) {
      if (!isLate()) this.result.append(h("p", { class: "fault", role: "alert" }, `The result cannot be shown: ${error.message} ${error.remedy ?? ""}`));
      return;
    }
    if (isLate()) {
      after.close();
      return;
    }
    this.#after = after;
    this.head.replaceChildren(makeChoice("Mode", "remove-mode", [["compare", "Compare"], ["draw", "Change the mask"]], "compare",
      (key) => this.#compare(key === "compare")));
    this.#compare(true);
    announce(`Done: ${result.words}`);
  }

  async #look(button, { files, result }) {
    const stem = this.entry.name.replace(/\.[^.]*$/, ""), section = this.result; // another photo may be chosen meanwhile
    button.disabled = true;
    try {
      const blob = await getBlob(files[result.picture]);
      const name = `${stem}.overpaint${/\.[^.]*$/.exec(result.picture)[0]}`; // as the server names it
      this.actions.look(new File([blob], name, { type: blob.type }));
    } catch (error) {
      section.append(h("p", { class: "fault", role: "alert" }, `${error.message} ${error.remedy ?? ""}`));
    } finally {
      button.disabled = false;
    }
  }

  #compare(on) {
    this.#comparing = on;
    this.drawTools.hidden = on;
    this.wipeRow.hidden = !on;
    this.help.hidden = on;
    this.go.classList.toggle("first", !on);
    this.box.classList.toggle("draws", !on);
    this.box.setAttribute("aria-label", on ? `Before and after of ${this.entry.name}` : `Mask on ${this.entry.name}`);
    if (this.camera.fitted) this.camera.fit(this.viewSize());
    this.draw();
  }

  // Drawing by mouse, pen and finger

  #take(event, at) {
    if (this.#comparing) return this.#takeLine(at);
    if (this.tool === "move") return null;
    this.#byKeys = false;
    const place = (where) => this.camera.toPhoto(where, this.viewSize());
    this.#begin(place(at));
    return {
      move: (moved, where) => {
        const all = moved.getCoalescedEvents?.() ?? [], box = this.box.getBoundingClientRect();
        for (const each of all) {
          this.#extend(place({ x: each.clientX - box.left - this.box.clientLeft, y: each.clientY - box.top - this.box.clientTop }));
        }
        this.#extend(place(where));
      },
      up: () => this.#finish(),
      cancel: () => this.#drop(),
    };
  }

  #takeLine(at) {
    if (Math.abs(at.x - this.#wipe * this.viewSize().width) > GRIP) return null;
    return { move: (_, where) => {
      this.#wipe = clamp(where.x / this.viewSize().width, 0, 1);
      this.wipe.value = 100 * this.#wipe;
      this.draw();
    } };
  }

  #begin(at) {
    const { tool, size } = this;
    if (tool === "box") this.#live = { kind: "box", from: at, x: at.x, y: at.y, width: 0, height: 0 };
    else if (tool === "lasso") this.#live = { kind: "lasso", points: [at] };
    else this.#live = { kind: "stroke", points: [at], size, erase: tool === "eraser" };
    this.draw();
  }

  #extend(at) {
    const live = this.#live;
    if (!live) return;
    if (live.kind === "box") {
      const { from } = live, x = Math.round(Math.min(from.x, at.x)), y = Math.round(Math.min(from.y, at.y));
      Object.assign(live, { x, y, width: Math.round(Math.max(from.x, at.x)) - x, height: Math.round(Math.max(from.y, at.y)) - y });
    } else {
      const last = live.points.at(-1);
      if (last.x !== at.x || last.y !== at.y) live.points.push(at);
    }
    this.draw();
  }

  #finish() {
    const live = this.#live;
    this.#live = null;
    if (live && (live.kind === "stroke" || (live.kind === "box" ? live.width && live.height : live.points.length > 2))) {
      this.entry.mask.add(live);
    } else this.draw();
  }

  #drop() {
    this.#live = null;
    this.draw();
  }

  // Drawing by keys

  #takeKey(event) {
    const size = this.viewSize(), step = findArrow(event), key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && !this.#comparing) {
      if (key === "z" && !event.shiftKey) this.entry.mask.undo();
      else if (key === "y" || key === "z") this.entry.mask.redo();
      else return;
    } else if (step && (event.altKey || this.#comparing)) this.camera.pan(step[0] * size.width / 10, step[1] * size.height / 10);
    else if (zoomByKey(event, this.camera, size, this.#byKeys && this.#cross ? this.camera.toView(this.#cross, size) : undefined)) {
      // done there
    } else if (this.#comparing) return;
    else if (step) this.#moveCross(step, event.shiftKey);
    else if (key === " ") this.#pressSpace();
    else if (key === "enter") this.#finish();
    else if (key === "escape" && this.#live) this.#drop();
    else if (key === "[" || key === "]") this.#setSize(this.size * (key === "[" ? 0.8 : 1.25));
    else return;
    event.preventDefault();
  }

  #moveCross([right, down], fine) {
    const { width, height } = this.#picture, by = fine ? 1 : STEP / this.camera.scale, size = this.viewSize();
    this.#byKeys = true;
    const from = this.#cross ?? { x: clamp(this.camera.x, 0, width), y: clamp(this.camera.y, 0, height) };
    const at = this.#cross = { x: clamp(from.x + right * by, 0, width), y: clamp(from.y + down * by, 0, height) };
    if (this.#live && this.#live.kind !== "lasso") this.#extend(at);
    const seen = this.camera.toView(at, size), over = (value, length) => Math.min(value - 20, 0) + Math.max(value - length + 20, 0);
    if (over(seen.x, size.width) || over(seen.y, size.height)) this.camera.pan(over(seen.x, size.width), over(seen.y, size.height));
    announce(`x ${Math.round(at.x)}, y ${Math.round(at.y)}`);
    this.draw();
  }

  #pressSpace() {
    if (this.tool === "move") return;
    const at = this.#cross ??= { x: this.camera.x, y: this.camera.y };
    this.#byKeys = true;
    if (!this.#live) {
      this.#begin(at);
      announce(this.tool === "box" ? "First corner" : this.tool === "lasso" ? "First point" : "Brush down");
    } else if (this.#live.kind === "lasso") {
      this.#extend(at);
      announce(`Point ${this.#live.points.length}`);
    } else this.#finish();
  }

  // The canvas

  draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.box && this.#picture) this.#draw();
    });
  }

  #draw() {
    const { width, height } = this.viewSize(), { canvas, context, camera } = this;
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio, 2), w = Math.round(width * ratio), hgt = Math.round(height * ratio);
    for (const each of [canvas, this.#layer, this.#base.canvas]) {
      if (each.width !== w || each.height !== hgt) {
        [each.width, each.height] = [w, hgt];
        this.#base.key = "";
      }
    }
    const scale = camera.scale * ratio, left = camera.x - w / 2 / scale, top = camera.y - hgt / 2 / scale;
    this.box.classList.toggle("fitted", camera.fitted && this.#comparing);
    const key = [left, top, scale].join(), base = this.#base.canvas.getContext("2d");
    if (this.#base.key !== key) {
      base.clearRect(0, 0, w, hgt);
      this.#picture.draw(base, left, top, scale);
      this.#base.key = key;
    }
    context.clearRect(0, 0, w, hgt);
    context.drawImage(this.#base.canvas, 0, 0);
    if (this.#comparing) this.#drawCompared(left, top, scale, ratio);
    else this.#drawMask(left, top, scale, ratio);
  }

  #drawCompared(left, top, scale, ratio) {
    const { context } = this, { width, height } = this.canvas, x = Math.round(this.#wipe * width);
    context.save();
    context.beginPath();
    context.rect(x, 0, width - x, height);
    context.clip();
    context.clearRect(x, 0, width - x, height);
    this.#after.draw(context, left, top, scale);
    context.restore();
    context.fillStyle = "#000";
    context.fillRect(x - 2 * ratio, 0, 4 * ratio, height);
    context.fillStyle = "#fff";
    context.fillRect(x - ratio, 0, 2 * ratio, height);
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.textBaseline = "top";
    for (const [text, align, at] of [["before", "right", x - 10 * ratio], ["after", "left", x + 10 * ratio]]) {
      const wide = context.measureText(text).width + 12 * ratio;
      context.textAlign = align;
      context.fillStyle = "#000c";
      context.fillRect(align === "right" ? at - wide + 6 * ratio : at - 6 * ratio, 10 * ratio, wide, 22 * ratio);
      context.fillStyle = "#fff";
      context.fillText(text, at, 14 * ratio);
    }
  }

  #drawMask(left, top, scale, ratio) {
    const { context } = this, { mask } = this.entry, layer = this.#layer.getContext("2d");
    layer.setTransform(1, 0, 0, 1, 0, 0);
    layer.clearRect(0, 0, this.canvas.width, this.canvas.height);
    layer.setTransform(scale, 0, 0, scale, -left * scale, -top * scale);
    layer.beginPath();
    layer.save();
    layer.rect(0, 0, mask.width, mask.height);
    layer.clip();
    layer.imageSmoothingEnabled = scale < 1;
    layer.drawImage(mask.canvas, 0, 0);
    if (this.#live) apply(layer, this.#live, mask);
    layer.restore();
    context.globalAlpha = 0.55;
    context.drawImage(this.#layer, 0, 0);
    context.globalAlpha = 1;
    this.#drawTool(left, top, scale, ratio);
  }

  /** Draw the brush's outline at the pointer, or the cross of the keys. */
  #drawTool(left, top, scale, ratio) {
    const { context, tool } = this, live = this.#live;
    const at = this.#byKeys ? this.#cross && { x: (this.#cross.x - left) * scale, y: (this.#cross.y - top) * scale }
      : this.#pointer && { x: this.#pointer.x * ratio, y: this.#pointer.y * ratio };
    for (const [colour, line] of [["#000", 3 * ratio], ["#fff", ratio]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.beginPath();
      if (live?.kind === "box") context.rect((live.x - left) * scale, (live.y - top) * scale, live.width * scale, live.height * scale);
      if (live?.kind === "lasso") for (const point of live.points) context.lineTo((point.x - left) * scale, (point.y - top) * scale);
      if (at && (tool === "brush" || tool === "eraser")) {
        context.moveTo(at.x + this.size / 2 * scale, at.y);
        context.arc(at.x, at.y, this.size / 2 * scale, 0, 2 * Math.PI);
      }
      if (at && this.#byKeys) {
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          context.moveTo(at.x + 2 * ratio * dx, at.y + 2 * ratio * dy);
          context.lineTo(at.x + 10 * ratio * dx, at.y + 10 * ratio * dy);
        }
      }
      context.stroke();
    }
  }
}

/** The photo in a format that the browser can show: the server's copy, or until then the file itself. */
async function readPhoto(entry) {
  const { job } = entry.detection;
  if (job) return getBlob(job.files[findPhotoFile(job)]);
  try {
    (await createImageBitmap(entry.file)).close();
    return entry.file;
  } catch {
    throw new Error("The browser cannot show this photo. Wait until it has been examined, then choose Remove again.");
  }
}

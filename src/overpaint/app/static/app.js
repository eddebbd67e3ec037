// The page: the list of photos, the two tasks, and input from outside (files, keys, theme).

import { getBlob, getJson } from "/static/api.js";
import { Detect, describeVerdict } from "/static/detect.js";
import { $, announce, h, showAlert } from "/static/dom.js";
import { findPhotoFile } from "/static/pictures.js";
import { Remove } from "/static/remove.js";
import { Task } from "/static/tasks.js";

const SYMBOLS = { strong: "\u25cf", unsure: "\u25d0", none: "\u25cb", "no-verdict": "\u2013", failed: "!", running: "\u2026" };
const THUMB = 112; // pixels of a thumbnail's longer side

const entries = [];
let lastId = 0;
let current = null;
let tab = "detect";
let limits = null;

const detect = new Detect($("panel-detect"), {
  report: (entry) => entry.report.start({ file: entry.file, model: entry.model }),
  remove: (entry) => {
    select(entry);
    open("remove");
    $("tab-remove").focus();
  },
  retry: (entry) => examine(entry),
  off: (entry) => takeOff(entry),
});

const remove = new Remove($("panel-remove"), {
  remove: (entry, mask, inpainter) => {
    // The photo may have been taken off the list while its mask was made.
    if (entries.includes(entry)) entry.removal.start({ file: entry.file, mask, inpainter });
  },
  look: (file) => {
    add([file], true);
    open("detect");
    $("tab-detect").focus();
  },
});

// Photos

/** Put files on the list and examine them. chosen: show the first of them even if another is shown. */
function add(files, chosen = false) {
  const added = [];
  for (const file of files) {
    if (file.type && !file.type.startsWith("image/")) {
      showAlert(`${file.name} is no photo, but ${file.type}.`, "Give JPEG, PNG, WebP, TIFF, HEIC or AVIF.");
    } else if (file.size > limits?.max_bytes) {
      showAlert(`${file.name} has ${formatMegabytes(file.size)}, more than the server's limit of ${formatMegabytes(limits.max_bytes)}.`, "Give a smaller file.");
    } else added.push(makeEntry(file));
  }
  if (!added.length) return;
  entries.push(...added);
  for (const entry of added) examine(entry);
  if (chosen || !current) select(added[0]);
  arrange();
  announce(added.length === 1 ? `${added[0].name} added` : `${added.length} photos added`);
}

function makeEntry(file) {
  const entry = { id: ++lastId, file, name: file.name || "pasted picture", model: null, mask: null,
    detection: new Task("detect"), report: new Task("report"), removal: new Task("inpaint"),
    get result() {
      return this.detection.job?.result;
    } };
  entry.item = makeItem(entry);
  $("strip").append(entry.item.row);
  entry.detection.addEventListener("state", () => showDetected(entry));
  entry.report.addEventListener("state", () => {
    if (entry === current && tab === "detect") detect.show(entry);
    if (entry.report.state === "done") announce(`The report on ${entry.name} is ready`);
  });
  entry.removal.addEventListener("state", () => {
    if (entry === current && tab === "remove") remove.show(entry);
  });
  drawThumbnail(entry, file);
  return entry;
}

function examine(entry) {
  entry.model = $("detector").value || null;
  entry.detection.start({ file: entry.file, model: entry.model });
}

function showDetected(entry) {
  entry.item.tell();
  if (entry === current && tab === "detect") detect.show(entry);
  else if (!entry.result) detect.leave(entry); // kept from before the other task was chosen
  if (entry === current && tab === "remove" && remove.entry !== entry) remove.show(entry); // it can be shown now
  if (entry.detection.state === "done") {
    announce(`${entry.name}: ${describeVerdict(entry.result).words}`);
    const { job } = entry.detection;
    if (!entry.drawn) getBlob(job.files[findPhotoFile(job)]).then((blob) => drawThumbnail(entry, blob), () => {});
  } else if (entry.detection.state === "failed") announce(`${entry.name} could not be examined`);
}

/** A small picture for the list, where the browser can read the photo. */
async function drawThumbnail(entry, blob) {
  try {
    const full = await createImageBitmap(blob), scale = Math.min(1, THUMB / Math.max(full.width, full.height));
    const canvas = entry.item.thumb;
    [canvas.width, canvas.height] = [Math.max(full.width * scale, 1), Math.max(full.height * scale, 1)];
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(full, 0, 0, canvas.width, canvas.height);
    full.close();
    entry.drawn = true;
  } catch {
    // A format that the browser cannot read, such as HEIC; the server's copy comes with the result.
  }
}

/** A photo's row in the list. */
function makeItem(entry) {
  const thumb = h("canvas", { class: "thumb", width: "4", height: "3", "aria-hidden": "true" });
  const said = h("span", { class: "item-said" });
  const pick = h("button", { type: "button", class: "pick-photo", onclick: () => select(entry) },
    thumb, h("span", { class: "item-text" }, h("span", { class: "item-name", title: entry.name }, entry.name), said));
  const bar = h("progress", { max: "1", "aria-label": `Progress of ${entry.name}` });
  const end = h("button", { type: "button", class: "plain end" });
  end.addEventListener("click", () => (entry.detection.state === "running" ? entry.detection.cancel() : takeOff(entry)));
  const row = h("li", {}, pick, bar, end);
  entry.detection.addEventListener("progress", () => tell());
  function tell() {
    const { state, progress } = entry.detection;
    const kind = entry.result ? describeVerdict(entry.result).kind : state === "running" ? "running" : "failed";
    const words = { running: progress.state === "running" ? "being examined" : "waiting", cancelled: "cancelled", failed: "not examined", idle: "" };
    row.className = `item ${kind}`;
    const text = entry.result ? describeVerdict(entry.result).words : words[state];
    said.replaceChildren(h("span", { class: "symbol", "aria-hidden": "true" }, SYMBOLS[kind]), ` ${text}`);
    bar.hidden = state !== "running";
    if (progress.state === "running" && progress.share > 0) bar.value = progress.share;
    else bar.removeAttribute("value");
    end.textContent = state === "running" ? "Cancel" : "Take off";
    end.setAttribute("aria-label", `${end.textContent} ${entry.name}`);
  }
  return { row, thumb, pick, tell };
}

function select(entry) {
  current = entry;
  for (const each of entries) {
    if (each === entry) each.item.pick.setAttribute("aria-current", "true");
    else each.item.pick.removeAttribute("aria-current");
  }
  entry.item.row.scrollIntoView({ block: "nearest", inline: "nearest" });
  arrange();
}

function takeOff(entry) {
  for (const task of [entry.detection, entry.report, entry.removal]) task.stop();
  const at = entries.indexOf(entry);
  if (at < 0) return;
  entries.splice(at, 1);
  for (const panel of [detect, remove]) panel.leave(entry);
  entry.item.row.remove();
  if (entry === current) current = null;
  const next = current ?? entries[Math.min(at, entries.length - 1)];
  announce(`${entry.name} taken off the list`);
  if (next) {
    select(next);
    next.item.pick.focus();
  } else {
    arrange();
    $("choose").focus();
  }
}

/** Show the elements of the current photo and task. */
function arrange() {
  $("empty").hidden = entries.length > 0;
  $("side-note").hidden = entries.length > 0;
  $("panel-detect").hidden = !current || tab !== "detect";
  $("panel-remove").hidden = !current || tab !== "remove";
  document.body.classList.toggle("no-photo", !entries.length);
  document.title = current ? `${current.name} - overpaint` : "overpaint";
  if (!current) return;
  if (tab === "detect") detect.show(current);
  else remove.show(current);
}

// Tasks

const tabs = ["detect", "remove"];

function open(name) {
  tab = name;
  for (const each of tabs) {
    $(`tab-${each}`).setAttribute("aria-selected", String(each === name));
    $(`tab-${each}`).tabIndex = each === name ? 0 : -1;
  }
  arrange();
}

for (const name of tabs) {
  $(`tab-${name}`).addEventListener("click", () => open(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    const other = tabs.find((each) => each !== name);
    open(other);
    $(`tab-${other}`).focus();
  });
}

// From outside

for (const name of ["add", "choose"]) $(name).addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  add([...$("files").files]);
  $("files").value = "";
});

addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) add(files, true);
  else if (!event.target.closest?.("input, textarea, select")) showAlert("There is no picture in the clipboard.", "Copy a picture or its file, then paste again.");
});

let depth = 0; // of elements that a dragged file has entered and not left
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!carriesFiles(event)) return;
  depth++;
  $("drop-cover").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (carriesFiles(event) && --depth <= 0) $("drop-cover").hidden = true;
});
addEventListener("dragover", (event) => {
  if (carriesFiles(event)) event.preventDefault();
});
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth = 0;
  $("drop-cover").hidden = true;
  add([...event.dataTransfer.files]);
});

$("open-keys").addEventListener("click", () => $("keys").showModal());

$("theme").addEventListener("change", () => setTheme($("theme").value));

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // Storage is switched off; the theme is then kept until the page is closed.
  }
}

function formatMegabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

async function start() {
  try {
    $("theme").value = localStorage.getItem("theme") ?? "";
  } catch {
    // as above
  }
  setTheme($("theme").value);
  document.body.classList.add("no-photo");
  try {
    const [health, models] = await Promise.all([getJson("/api/health"), getJson("/api/models")]);
    limits = health;
    if (health.max_bytes) $("limits").textContent = `At most ${formatMegabytes(health.max_bytes)} and ${Math.round(health.max_pixels / 1e6)} million pixels each.`;
    remove.models = models.filter((model) => model.kind === "inpainter");
    const detectors = models.filter((model) => model.kind === "detector");
    $("detector").replaceChildren(...detectors.map((model) => h("option", { value: model.name, selected: model.default }, model.name)));
    $("detector-field").hidden = detectors.length < 2;
  } catch (error) {
    showAlert(error.message, error.remedy);
  }
}

start();

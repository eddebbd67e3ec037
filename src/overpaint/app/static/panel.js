// One view of a photo on a canvas, with its three lines: picture, heat, boxes, loupe.

import { clamp, h } from "/static/dom.js";
import { paint } from "/static/heat.js";
import { steer } from "/static/viewport.js";

const LOUPE = 190; // CSS pixels of a side

/** One view of the photo with its three lines. */
export class Panel {
  #bases = new Map(); // drawn pictures by name, kept until the camera moves
  #overlay = document.createElement("canvas");

  constructor(stage, number, name, names) {
    Object.assign(this, { stage, number, name });
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.box = h("div", { class: "view", tabindex: "0", role: "application",
      "aria-describedby": `lines-${number}` }, this.canvas);
    this.lines = h("dl", { class: "lines", id: `lines-${number}` });
    const select = names.length > 1 && h("select", { "aria-label": `View ${number + 1}`, onchange: (event) => this.show(event.target.value) },
      names.map((key) => h("option", { value: key, selected: key === name }, stage.view(key).title)));
    this.title = h("h3", { class: "view-title" }, stage.view(name).title);
    this.figure = h("figure", { class: "panel" },
      h("div", { class: "panel-head" }, select || this.title), this.box, h("figcaption", {}, this.lines));
    this.context = this.canvas.getContext("2d");
    steer(this.box, stage.camera, { point: (at) => stage.showPlace(at) });
    this.box.addEventListener("keydown", (event) => stage.takeKey(event));
    this.show(name);
  }

  show(name) {
    this.name = name;
    const { title, shows, look_for, ignore } = this.stage.view(name);
    this.box.setAttribute("aria-label", `${title} of ${this.stage.entry.name}; keys: see the button Keys`);
    this.lines.replaceChildren(...[["Shows", shows], ["Look for", look_for], ["Ignore", ignore]].map(
      ([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text))));
    this.stage.need(name);
    this.stage.draw();
  }

  get size() {
    return { width: this.box.clientWidth, height: this.box.clientHeight };
  }

  draw(swapped) {
    const { stage, canvas, context } = this, { camera } = stage, { width, height } = this.size;
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio, 2);
    const [w, hgt] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== hgt) [canvas.width, canvas.height] = [w, hgt];
    const scale = camera.scale * ratio;
    const place = { left: camera.x - w / 2 / scale, top: camera.y - hgt / 2 / scale, scale, w, h: hgt };
    this.box.classList.toggle("fitted", camera.fitted);
    context.clearRect(0, 0, w, hgt);
    const name = swapped ? "photo" : this.name;
    const base = this.#drawBase(name === "heatmap" ? "grey" : name, place);
    if (base) context.drawImage(base, 0, 0);
    if (name === "heatmap") this.#drawHeat(context, place, ratio);
    if (stage.boxes) this.#drawBoxes(place, ratio);
    if (stage.loupe && stage.at) this.#drawLoupe(name, place, ratio);
  }

  /** A view's picture without overlays, or null while it is being fetched. */
  #drawBase(name, { left, top, scale, w, h: height }) {
    const picture = this.stage.pictures.get(name === "grey" ? "photo" : name);
    if (!picture) return null;
    const key = [left, top, scale, w, height, this.stage.entry.id].join(), kept = this.#bases.get(name);
    if (kept?.key === key) return kept.canvas;
    const canvas = kept?.canvas ?? document.createElement("canvas");
    [canvas.width, canvas.height] = [w, height];
    const context = canvas.getContext("2d");
    picture.draw(context, left, top, scale);
    if (name === "grey") removeColour(context, { x: -left * scale, y: -top * scale, width: picture.width * scale, height: picture.height * scale });
    this.#bases.set(name, { key, canvas });
    return canvas;
  }

  #drawHeat(context, { left, top, scale, w, h: height }, ratio) {
    const { maps, entry } = this.stage;
    if (!maps) return;
    // Only the part of the canvas that the photo covers.
    const { width: photoWidth, height: photoHeight } = entry.result;
    const x = clamp(Math.floor(-left * scale), 0, w), y = clamp(Math.floor(-top * scale), 0, height);
    const right = clamp(Math.ceil((photoWidth - left) * scale), 0, w);
    const bottom = clamp(Math.ceil((photoHeight - top) * scale), 0, height);
    if (right <= x || bottom <= y) return;
    const step = 1 / scale;
    const drawn = this.#paintHeat({ x: left + x * step, y: top + y * step, step }, right - x, bottom - y, ratio);
    context.drawImage(drawn, 0, 0, right - x, bottom - y, x, y, right - x, bottom - y);
  }

  #paintHeat(place, width, height, ratio) {
    const { maps, marks, mark, lut } = this.stage, overlay = this.#overlay;
    if (overlay.width < width || overlay.height < height) {
      [overlay.width, overlay.height] = [Math.max(overlay.width, width), Math.max(overlay.height, height)];
    }
    const image = new ImageData(width, height);
    paint({ width, height, data: new Uint32Array(image.data.buffer) }, place, maps.heat, maps[marks], mark, lut,
      ratio > 1 ? 3 : 2);
    overlay.getContext("2d").putImageData(image, 0, 0);
    return overlay;
  }

  #drawBoxes({ left, top, scale }, ratio) {
    const { context, stage } = this;
    context.save();
    context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    context.textBaseline = "bottom";
    stage.regions.forEach((region, i) => {
      const gap = 4 * ratio, x = (region.x - left) * scale - gap, y = (region.y - top) * scale - gap;
      const w = region.width * scale + 2 * gap, height = region.height * scale + 2 * gap;
      for (const [colour, line] of [["#000", 4 * ratio], ["#ffd34d", 2 * ratio]]) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.strokeRect(x, y, w, height);
      }
      const text = String(i + 1), wide = context.measureText(text).width + 8 * ratio;
      const over = y < 18 * ratio ? Math.max(y, 0) + 19 * ratio : y; // inside, where there is no room above
      context.fillStyle = "#000";
      context.fillRect(x - 2 * ratio, over - 18 * ratio, wide, 17 * ratio);
      context.fillStyle = "#ffd34d";
      context.fillText(text, x + 2 * ratio, over - 2 * ratio);
    });
    context.restore();
  }

  /** Draw one pixel of the photo for each pixel of the screen, around the point that all views share. */
  #drawLoupe(name, { w, h: height }, ratio) {
    const { context, stage } = this, { at } = stage;
    const side = Math.round(Math.min(LOUPE * ratio, w * 0.45, height * 0.6)), gap = 8 * ratio;
    const seen = stage.camera.toView(at, this.size);
    const leftward = seen.x * ratio > w - side - 3 * gap && seen.y * ratio < side + 3 * gap;
    const x = leftward ? gap : w - side - gap, y = gap;
    const left = Math.floor(at.x) - (side >> 1), top = Math.floor(at.y) - (side >> 1);
    const picture = stage.pictures.get(name === "heatmap" ? "photo" : name);
    if (!picture) return;
    context.save();
    context.beginPath();
    context.rect(x, y, side, side);
    context.fillStyle = "#777";
    context.fill();
    context.clip();
    context.translate(x, y);
    picture.draw(context, left, top, 1);
    if (name === "heatmap" && stage.maps) {
      removeColour(context, { x: -left, y: -top, width: picture.width, height: picture.height });
      const drawn = this.#paintHeat({ x: left, y: top, step: 1 }, side, side, ratio);
      context.drawImage(drawn, 0, 0, side, side, 0, 0, side, side);
    }
    context.restore();
    context.lineWidth = 2 * ratio;
    context.strokeStyle = "#000";
    context.strokeRect(x - ratio, y - ratio, side + 2 * ratio, side + 2 * ratio);
    context.strokeStyle = "#fff";
    context.strokeRect(x - 2 * ratio, y - 2 * ratio, side + 4 * ratio, side + 4 * ratio);
    drawCross(context, x + side / 2, y + side / 2, ratio);
    drawCross(context, seen.x * ratio, seen.y * ratio, ratio);
  }
}

function drawCross(context, x, y, ratio) {
  for (const [colour, line] of [["#000", 3 * ratio], ["#fff", ratio]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 3 * ratio * dx, y + 3 * ratio * dy);
      context.lineTo(x + 9 * ratio * dx, y + 9 * ratio * dy);
    }
    context.stroke();
  }
}

function removeColour(context, { x, y, width, height }) {
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(x, y, width, height);
  context.globalCompositeOperation = "source-over";
}

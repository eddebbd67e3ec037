// The mask that a user draws: a list of steps, so that each can be undone and redone.
//
// - A step is {kind: "stroke", points, size, erase}, {kind: "box", x, y, width, height}, {kind: "lasso", points},
//   {kind: "picture", canvas}, {kind: "invert"} or {kind: "clear"}; all lengths are pixels of the photo.
// - The canvas is painted where the mask is white. Its soft edges are thresholded at 0.5 when the mask is sent,
//   so that the mask is black and white.

import { encodeGrey } from "/static/png.js";

const COLOUR = "#e6007e";
const STRIP = 4096; // rows read from the canvas at a time
const COARSE = 400; // pixels of a side at which the share is estimated

export class Mask extends EventTarget {
  steps = [];
  undone = [];

  constructor(width, height) {
    super();
    Object.assign(this, { width, height });
    this.canvas = document.createElement("canvas");
    [this.canvas.width, this.canvas.height] = [width, height];
    this.context = this.canvas.getContext("2d");
  }

  add(step) {
    this.steps.push(step);
    this.undone = [];
    apply(this.context, step, this);
    this.dispatchEvent(new Event("change"));
  }

  undo() {
    if (!this.steps.length) return;
    this.undone.push(this.steps.pop());
    this.context.clearRect(0, 0, this.width, this.height);
    for (const step of this.steps) apply(this.context, step, this);
    this.dispatchEvent(new Event("change"));
  }

  redo() {
    if (!this.undone.length) return;
    const step = this.undone.pop();
    this.steps.push(step);
    apply(this.context, step, this);
    this.dispatchEvent(new Event("change"));
  }

  /** Estimated white share of the photo, 0..1; 0 only if no pixel is white. */
  measureShare() {
    const scale = Math.min(1, COARSE / Math.max(this.width, this.height)), small = document.createElement("canvas");
    [small.width, small.height] = [Math.max(Math.round(this.width * scale), 1), Math.max(Math.round(this.height * scale), 1)];
    const context = small.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.canvas, 0, 0, small.width, small.height);
    const { data } = context.getImageData(0, 0, small.width, small.height);
    let sum = 0;
    for (let i = 3; i < data.length; i += 4) sum += data[i];
    return sum / 255 / (small.width * small.height);
  }

  /** A black and white PNG of the photo's size, white = remove. */
  encodePng() {
    const { width, height } = this, values = new Uint8Array(width * height);
    for (let top = 0; top < height; top += STRIP) {
      const rows = Math.min(STRIP, height - top), { data } = this.context.getImageData(0, top, width, rows);
      for (let i = 0, to = top * width; i < rows * width; i++) values[to++] = data[4 * i + 3] >= 128 ? 255 : 0;
    }
    return encodeGrey(values, width, height);
  }
}

/** Draw a step into a context whose unit is a pixel of the photo. size: {width, height} of the photo. */
export function apply(context, step, { width, height }) {
  context.save();
  context.fillStyle = context.strokeStyle = COLOUR;
  if (step.erase) context.globalCompositeOperation = "destination-out";
  if (step.kind === "stroke") stroke(context, step);
  else if (step.kind === "box") context.fillRect(step.x, step.y, step.width, step.height);
  else if (step.kind === "lasso") {
    context.beginPath();
    for (const { x, y } of step.points) context.lineTo(x, y);
    context.fill();
  } else {
    if (step.kind === "invert") context.globalCompositeOperation = "source-out";
    else context.clearRect(0, 0, width, height);
    if (step.kind === "picture") context.drawImage(step.canvas, 0, 0);
    if (step.kind === "invert") context.fillRect(0, 0, width, height);
  }
  context.restore();
}

function stroke(context, { points, size }) {
  context.beginPath();
  if (points.length === 1) {
    context.arc(points[0].x, points[0].y, size / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  context.lineWidth = size;
  context.lineCap = context.lineJoin = "round";
  for (const { x, y } of points) context.lineTo(x, y);
  context.stroke();
}

/** The step that replaces the drawing by a mask from a file. Throws Error with the remedy. */
export async function readMask(file, { width, height }) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name} is no picture that the browser can read. Save the mask as PNG.`);
  }
  if (bitmap.width !== width || bitmap.height !== height) {
    throw new Error(`The mask has ${bitmap.width} x ${bitmap.height} pixels, the photo ${width} x ${height}. `
      + "Save the mask at the size of the upright photo.");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const colour = [1, 3, 5].map((at) => parseInt(COLOUR.slice(at, at + 2), 16));
  for (let top = 0; top < height; top += STRIP) {
    const part = context.getImageData(0, top, width, Math.min(STRIP, height - top)), { data } = part;
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] < 255) throw new Error("The mask has transparent parts, whose meaning differs between programs. Save it in black and white; white is removed.");
      const white = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2] >= 127.5;
      data.set(white ? colour : [0, 0, 0], i);
      data[i + 3] = white ? 255 : 0;
    }
    context.putImageData(part, 0, top);
  }
  return { kind: "picture", canvas };
}

// A photo's pictures and maps in the browser: fetched once, decoded when they are first shown.

import { getBlob } from "/static/api.js";

const SMALL = 2_000_000; // pixels; a larger picture is drawn from a smaller copy when it is zoomed out

/** A picture of the photo's size that can be drawn at any zoom. */
export class Picture {
  constructor(full, small) {
    Object.assign(this, { full, small });
  }

  static async of(blob) {
    const full = await createImageBitmap(blob);
    const share = Math.sqrt(SMALL / (full.width * full.height));
    const small = share >= 0.7 ? null : await createImageBitmap(full, {
      resizeWidth: Math.max(Math.round(full.width * share), 1),
      resizeHeight: Math.max(Math.round(full.height * share), 1), resizeQuality: "high" });
    return new Picture(full, small);
  }

  get width() {
    return this.full.width;
  }

  get height() {
    return this.full.height;
  }

  /** Draw into a canvas's context. left, top: position of the canvas's corner in the photo, pixels; scale:
   * canvas pixels per pixel of the photo. */
  draw(context, left, top, scale) {
    const { full, small } = this, taken = small && scale * full.width <= small.width ? small : full;
    const own = scale * full.width / taken.width;
    context.imageSmoothingEnabled = own < 1; // enlarged pixels stay squares
    context.imageSmoothingQuality = own < 0.5 ? "medium" : "low";
    context.drawImage(taken, -left * scale, -top * scale, full.width * scale, full.height * scale);
  }

  close() {
    this.full.close();
    this.small?.close();
  }
}

/** The name of a job's file with the photo in a format that browsers can show. */
export const findPhotoFile = (job) => Object.keys(job.files).find((name) => name.startsWith("photo."));

/** The worker for the heatmap, for one photo at a time. */
export class Maps {
  #worker = new Worker("/static/heat-worker.js", { type: "module" });
  #asked = new Map();
  #next = 0;
  #turn = 0;
  #fault = null; // why the worker answers no more

  constructor() {
    // What fails in a request is its answer. This is the worker itself, most likely a file that did not load.
    this.#worker.addEventListener("error", () => {
      this.#fault = Object.assign(new Error("a part of the page did not start."), { remedy: "Load the page again." });
      for (const { reject } of this.#asked.values()) reject(this.#fault);
      this.#asked.clear();
    });
    this.#worker.addEventListener("message", ({ data: { id, answer, error } }) => {
      const { resolve, reject } = this.#asked.get(id);
      this.#asked.delete(id);
      if (error === undefined) resolve(answer);
      else reject(new Error(error));
    });
  }

  /** {heat, evidence, mask: levels, counts} of a detection job with a result; null if another job was opened
   * in the meantime. Throws `ServerError`, or Error for maps that cannot be read. */
  async open(job) {
    const turn = ++this.#turn;
    const names = { heat: "heatmap.png", mask: "mask.png" };
    const fetched = Object.entries(names).map(async ([key, name]) => (
      [key, await (await getBlob(job.files[name])).arrayBuffer()]));
    const files = Object.fromEntries(await Promise.all(fetched));
    return turn !== this.#turn ? null : this.#ask("open", { ...files, window: job.result.window }, Object.values(files));
  }

  /** {regions, count} of the opened photo at a level of evidence. Throws Error. */
  findRegions(level) {
    return this.#ask("regions", { level }, []);
  }

  #ask(task, about, given) {
    return new Promise((resolve, reject) => {
      if (this.#fault) throw this.#fault;
      const id = this.#next++;
      this.#asked.set(id, { resolve, reject });
      this.#worker.postMessage({ id, task, about }, given);
    });
  }
}

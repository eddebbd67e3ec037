// Jobs of the server as the page sees them: a photo has one task each for detection, report and removal.

import { drop, run } from "/static/api.js";
import { h } from "/static/dom.js";

const AT_ONCE = 2; // jobs of a kind that the page sends to the server at a time; the others wait here

class Queue {
  #waiting = [];
  #running = 0;

  /** Resolves when the caller may start; it has to call `leave` at the end. */
  waitForTurn() {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#next();
    });
  }

  leave() {
    this.#running--;
    this.#next();
  }

  #next() {
    while (this.#running < AT_ONCE && this.#waiting.length) {
      this.#running++;
      this.#waiting.shift()();
    }
  }
}

const queues = { detect: new Queue(), inpaint: new Queue(), report: new Queue() };

/** One kind of job. Events: "state" when it starts, has a part of its result, or ends; "progress" between. */
export class Task extends EventTarget {
  state = "idle"; // idle, running, done, failed, cancelled
  progress = { state: "waiting", ahead: 0, share: 0 };
  job = null; // once it has a result, at first a part of it
  error = null; // when failed
  box = null; // AbortController of the listener of its progress box
  #abort = null;

  constructor(kind) {
    super();
    this.kind = kind;
  }

  /** Do the job; an earlier one is cancelled. fields: of the form. Ends without an exception. */
  async start(fields) {
    this.stop();
    const abort = this.#abort = new AbortController();
    this.progress = { state: "waiting", ahead: 0, share: 0 };
    this.#become("running", null, null);
    await queues[this.kind].waitForTurn();
    try {
      abort.signal.throwIfAborted();
      const progress = (told) => {
        if (this.#abort !== abort) return;
        this.progress = told;
        this.dispatchEvent(new Event("progress"));
      };
      const found = (job) => this.#abort === abort && this.#become("running", job, null);
      const job = await run(this.kind, fields, { progress, found, signal: abort.signal });
      if (this.#abort === abort) this.#become("done", job, null);
      else drop(job);
    } catch (error) {
      if (this.#abort === abort) this.#become("failed", null, error);
    } finally {
      queues[this.kind].leave();
    }
  }

  /** End the job if it runs. */
  cancel() {
    if (this.state !== "running") return;
    this.stop();
    this.#become("cancelled", null, null);
  }

  /** Cancel, and delete the results here and on the server. */
  stop() {
    this.#abort?.abort();
    this.#abort = null;
    drop(this.job);
    this.job = null;
  }

  #become(state, job, error) {
    Object.assign(this, { state, job, error });
    this.dispatchEvent(new Event("state"));
  }
}

/** The progress of a running task, in words and as a bar; an earlier box of the task stands still. doing:
 * text while it runs. */
export function makeProgressBox(task, doing) {
  task.box?.abort();
  task.box = new AbortController();
  const words = h("p"), bar = h("progress", { max: "1" });
  const tell = () => {
    const { state, ahead, share } = task.progress;
    const said = state === "running" ? `${doing} \u2026`
      : ahead ? `Waiting; ${ahead} before it \u2026` : "Waiting \u2026";
    if (words.textContent !== said) words.textContent = said;
    bar.setAttribute("aria-label", said);
    if (state === "running" && share > 0) bar.value = share;
    else bar.removeAttribute("value");
  };
  task.addEventListener("progress", tell, { signal: task.box.signal });
  tell();
  return h("div", { class: "progress" }, words, bar);
}

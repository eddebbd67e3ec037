// Requests to the server: jobs, their progress, their end.

/** A refusal or a failed job, with a message for the user. */
export class ServerError extends Error {
  constructor(message, remedy = "", status = 0) {
    super(message);
    this.remedy = remedy;
    this.status = status;
  }
}

const live = new Set(); // addresses of the jobs whose files the server still has

async function readFault(response) {
  const said = await response.json().catch(() => ({}));
  const message = said.message ?? `The server answered ${response.status}.`;
  const remedy = said.remedy ?? (response.status === 401 ? "Open the page again with its token." : "");
  return new ServerError(message, remedy, response.status);
}

async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new ServerError("The server does not answer.", "Check whether `overpaint app` is running, then try again.");
  }
  return response;
}

/** JSON of an address. Throws `ServerError`. */
export async function getJson(address) {
  const response = await ask(address);
  if (!response.ok) throw await readFault(response);
  return response.json();
}

/** A job's file. Throws `ServerError`. */
export async function getBlob(address) {
  const response = await ask(address);
  if (!response.ok) throw await readFault(response);
  return response.blob();
}

/** Do one job. kind: detect, inpaint or report; fields: of its form; progress: called with the job whenever
 * it changes; found: called with the job when a part of its result arrives; signal: ends it. Returns the job
 * when it is done. Throws `ServerError`, or `AbortError` when it was cancelled. */
export async function run(kind, fields, { progress, found, signal }) {
  // The upload is not aborted: the job's id, which is needed to end the job, arrives after it.
  const job = await submit(kind, fields, progress, signal);
  const address = `/api/jobs/${job.id}`;
  live.add(address);
  try {
    signal.throwIfAborted();
    const ended = await follow(job, address, { progress, found, signal });
    if (ended.state === "done") return ended;
    if (ended.state === "cancelled") throw new DOMException("cancelled", "AbortError");
    const error = ended.error ?? {};
    throw new ServerError(error.message ?? "The job failed.", error.remedy ?? "");
  } catch (error) {
    drop(job);
    throw error;
  }
}

async function submit(kind, fields, progress, signal) {
  for (;;) {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      if (value instanceof File) form.append(name, value, value.name);
      else if (value !== null) form.append(name, value);
    }
    const response = await ask(`/api/${kind}?background=true`, { method: "POST", body: form });
    if (response.ok) return response.json();
    if (response.status !== 429) throw await readFault(response);
    // The server is busy, which is no error of the photo: wait and try again.
    progress({ state: "waiting", ahead: null, share: 0 });
    await pause(1000 * Math.min(Number(response.headers.get("retry-after")) || 2, 10), signal);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("cancelled", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

/** The job at its end, by server-sent events. */
function follow(job, address, { progress, found, signal }) {
  return new Promise((resolve, reject) => {
    progress(job);
    const source = new EventSource(address);
    const stop = () => {
      source.close();
      reject(new DOMException("cancelled", "AbortError"));
    };
    signal.addEventListener("abort", stop, { once: true });
    const end = (settle, value) => {
      source.close();
      signal.removeEventListener("abort", stop);
      settle(value);
    };
    source.addEventListener("progress", (event) => progress(JSON.parse(event.data)));
    source.addEventListener("result", (event) => found(JSON.parse(event.data)));
    for (const state of ["done", "failed", "cancelled"]) {
      source.addEventListener(state, (event) => end(resolve, JSON.parse(event.data)));
    }
    let faults = 0;
    source.onopen = () => { faults = 0; };
    source.onerror = () => {
      // The browser connects again by itself, unless the answer was a refusal.
      faults += 1;
      if (source.readyState !== EventSource.CLOSED && faults < 5) return;
      end(() => {});
      getJson(address).then(
        (now) => (now.state === "done" || now.state === "failed" || now.state === "cancelled"
          ? resolve(now)
          : reject(new ServerError("The connection to the server was lost.", "Try again."))),
        reject);
    };
  });
}

/** End a job if it runs, and delete its files on the server. */
export function drop(job) {
  if (!job) return;
  const address = `/api/jobs/${job.id}`;
  if (live.delete(address)) fetch(address, { method: "DELETE", keepalive: true }).catch(() => {});
}

// Jobs are deleted when the page is closed; the server deletes the others after an hour.
addEventListener("pagehide", (event) => {
  if (!event.persisted) for (const address of live) fetch(address, { method: "DELETE", keepalive: true }).catch(() => {});
});

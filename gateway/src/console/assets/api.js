// The client of the service: live metrics, requests, and the results of a request as they come.

import { credential, keyed } from "./key.js";

/** An error: the service's problem (RFC 9457), or a message of the page if the service could not be reached. */
export class Problem extends Error {
  constructor(message, { status = 0, code = "", retryAfter = "" } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  static async of(response) {
    let body = {};
    try {
      body = await response.json();
    } catch {
      // Not a problem document: only the status is known.
    }
    return Problem.from(body, response.status, response.headers.get("retry-after") ?? "");
  }

  /** From a problem document, which may have arrived as a request's result. */
  static from(body, status = 0, retryAfter = "") {
    const text = body?.detail || body?.title || (status ? `The service answered ${status}.` : "The request failed.");
    const code = body?.code ?? "";
    return new Problem(String(text), { status: body?.status ?? status, code: String(code), retryAfter });
  }

  /** One line for a person. */
  get line() {
    const wait = this.retryAfter ? ` Try again in ${this.retryAfter} s.` : "";
    return `${this.message}${wait}`;
  }
}

/** `fetch` that throws every unsuccessful answer as a `Problem`. */
export async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...credential() } });
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
    throw new Problem("The service did not answer: it is gone, or it closed the connection on a body larger than it takes.");
  }
  if (!response.ok) throw await Problem.of(response);
  return response;
}

/** `GET /v1/flows`. */
export async function flows() {
  const response = await call("/v1/flows", { signal: AbortSignal.timeout(5_000) });
  return response.json();
}

/** Posts a file as the part `file` of a form and waits for the answer, without a timeout. */
export async function postFile(path, file, name) {
  const form = new FormData();
  form.append("file", file, name);
  const response = await call(path, { method: "POST", body: form, headers: { accept: "application/json" } });
  if (response.status !== 202) return response.json();
  const { id } = await response.json();
  return follow(id, () => {});
}

/** Submits a body to an open flow; the answer is its request, not its result. */
export async function submit(flow, body, contentType) {
  const response = await call(`/v1/flows/${encodeURIComponent(flow)}`, {
    method: "POST",
    body,
    headers: { "content-type": contentType, prefer: "respond-async" },
  });
  const header = response.headers.get("caudal-request");
  const answer = await response.json().catch(() => ({}));
  return { ...answer, id: answer?.id ?? header };
}

/** `DELETE /v1/requests/{id}`. */
export function cancel(id) {
  return call(`/v1/requests/${encodeURIComponent(id)}`, { method: "DELETE" });
}

const KINDS = ["accepted", "progress", "data", "done", "failed", "cancelled"];
const TERMINAL = new Set(["done", "failed", "cancelled"]);

// A browser opens at most six connections to one host over HTTP/1.1, and the metrics need one of them.
const STREAMS = 3;
let streams = 0;
const waiting = [];

async function stream(work) {
  if (streams >= STREAMS) await new Promise((resume) => waiting.push(resume));
  else streams += 1;
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else streams -= 1;
  }
}

/**
 * Follows a request to its end. `seen(kind, data)` is called with each result; resolves with the request's result.
 * The browser resumes after the last result by itself when the connection breaks.
 */
export async function follow(id, seen) {
  const path = `/v1/requests/${encodeURIComponent(id)}`;
  const kind = await stream(() => terminal(path, seen));
  const request = await (await call(path)).json();
  if (kind === "failed") throw Problem.from(request.error);
  if (kind === "cancelled") throw new Problem("The request was cancelled.");
  return request.result;
}

// Times in a row that a stream may abort without an event.
const BROKEN = 5;

/** Resolves with the kind of the terminal result. */
async function terminal(path, seen) {
  let last = -1;
  for (let broken = 0; broken < BROKEN; broken += 1) {
    const news = (kind, event) => {
      const ordinal = Number(event.lastEventId);
      // A ticket opens a stream from its first result: skip the results that were seen before.
      if (ordinal <= last && !TERMINAL.has(kind)) return;
      last = ordinal;
      broken = 0;
      seen(kind, event.data);
    };
    const kind = await events(await address(path), news);
    if (kind !== null) return kind;
  }
  throw new Problem("The results of this request can no longer be followed.");
}

/** The URL of a request's events: an `EventSource` cannot send a key, so the URL contains a ticket, valid once. */
async function address(path) {
  if (!keyed()) return `${path}/events`;
  const response = await call(`${path}/ticket`, { method: "POST" });
  return (await response.json()).url;
}

/** Resolves with the kind of the terminal result, or with `null` if the stream cannot reconnect by itself. */
function events(url, news) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const end = (kind) => {
      source.close();
      resolve(kind);
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => {
        news(kind, event);
        if (TERMINAL.has(kind)) end(kind);
      });
    }
    source.addEventListener("error", () => {
      // The browser would reconnect with the used ticket.
      if (keyed() || source.readyState === EventSource.CLOSED) end(null);
    });
  });
}

/** Runs `work` over `items`, `width` at a time, in order. */
export async function each(items, width, work) {
  const left = [...items];
  const lane = async () => {
    while (left.length > 0) await work(left.shift());
  };
  await Promise.all(Array.from({ length: Math.min(width, left.length) }, lane));
}

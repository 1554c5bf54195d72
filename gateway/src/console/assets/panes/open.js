// Submits a text or a file to any open flow and shows its results as they come.

import { Problem, cancel, follow, submit } from "../api.js";
import { bytes, count, element, mark, say } from "../dom.js";
import { keyed } from "../key.js";

/** Requests shown on the page, results shown per request, and characters shown of each. */
const REQUESTS = 20;
const RESULTS = 50;
const SHOWN = 4_000;

/** Whether any flow is open. */
export function fits({ flows }) {
  return flows.some((flow) => flow.open === true);
}

/** The pane. */
export function build() {
  const flow = element("select", { id: "open-flow" });
  const text = element("textarea", { id: "open-text", rows: 4, spellcheck: "false", placeholder: "Text or JSON" });
  const file = element("input", { type: "file", id: "open-file" });
  const type = element("input", { type: "text", id: "open-type", placeholder: "from the content", autocomplete: "off", spellcheck: "false" });
  const send = element("button", { type: "submit", id: "open-send" }, "Send");
  const problem = element("p", { class: "problem", id: "open-problem", role: "alert", hidden: true });
  const requests = element("ol", { class: "requests", id: "open-requests" });
  const field = (label, control) => element("label", { class: "field" }, element("span", {}, label), control);
  const form = element("form", { id: "open-form" }, field("Flow", flow), field("Body", text), field("or a file", file),
    field("Content type", type), send, problem);
  const node = element("section", { class: "pane", id: "pane-open", "aria-labelledby": "open-title" },
    element("h2", { id: "open-title" }, "Send into a flow"),
    element("p", { class: "hint" }, "The answer comes at once with the request's id; its results follow below."), form, requests);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    problem.hidden = true;
    try {
      const body = file.files[0] ?? text.value;
      const request = await submit(flow.value, body, type.value.trim() || contentType(body));
      requests.prepend(watch(flow.value, request));
      while (requests.childElementCount > REQUESTS) requests.lastElementChild.remove();
      file.value = "";
    } catch (error) {
      say(problem, error instanceof Problem ? error.line : String(error.message ?? error));
      problem.hidden = false;
    }
    send.disabled = false;
  });
  return { node, update: ({ flows }) => offer(flow, flows.filter((one) => one.open === true)) };
}

/** Updates the list of flows without changing the selection. */
function offer(select, flows) {
  const names = flows.map((flow) => flow.name);
  if ([...select.options].map((option) => option.value).join("\n") === names.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}

/** The media type: that of the file; a text is JSON if it parses. */
function contentType(body) {
  if (typeof body !== "string") return body.type || "application/octet-stream";
  try {
    JSON.parse(body);
    return "application/json";
  } catch {
    return "text/plain; charset=utf-8";
  }
}

/** One request, followed to its end. */
function watch(flow, request) {
  const id = String(request.id);
  const state = element("span", { class: "request-state" }, "queued");
  const stop = element("button", { type: "button", class: "quiet" }, "cancel");
  const results = element("ol", { class: "results" });
  const node = element("li", { class: "request", "data-request": id, "data-state": "queued" },
    element("p", { class: "request-head" }, element("strong", {}, flow), state, stop),
    element("a", { class: "request-id", href: keyed() ? null : `/v1/requests/${encodeURIComponent(id)}`, target: "_blank", rel: "noopener" }, id),
    expectation(request), results);
  const become = (name) => {
    mark(node, "data-state", name);
    say(state, name);
    stop.hidden = ["done", "failed", "cancelled"].includes(name);
  };
  stop.addEventListener("click", () => cancel(id).catch((error) => results.append(trouble(error))));
  const seen = (kind, data) => {
    become(kind === "accepted" ? "queued" : kind === "data" || kind === "progress" ? "running" : kind);
    if (kind !== "progress" && kind !== "data") return;
    results.append(element("li", { "data-kind": kind }, element("span", { class: "result-kind" }, kind), element("pre", {}, shown(data))));
    while (results.childElementCount > RESULTS) results.firstElementChild.remove();
  };
  follow(id, seen)
    .then((result) => results.append(element("li", { "data-kind": "done" }, element("pre", {}, shown(result)))))
    .catch((error) => {
      if (node.dataset.state !== "cancelled") results.append(trouble(error));
      if (node.dataset.state !== "failed") stop.hidden = true;
    });
  return node;
}

/** The request's status in the service's answer. */
function expectation({ position, expected_wait_ms: wait }) {
  const parts = [];
  if (Number.isFinite(position)) parts.push(`${count(position)} before it`);
  if (Number.isFinite(wait)) parts.push(`about ${wait < 1_000 ? `${Math.round(wait)} ms` : `${(wait / 1_000).toFixed(1)} s`}`);
  return parts.length > 0 ? element("p", { class: "hint" }, parts.join(", ")) : null;
}

function trouble(error) {
  return element("li", { "data-kind": "failed" },
    element("p", { class: "problem" }, error instanceof Problem ? error.line : String(error.message ?? error)));
}

/** A result as text: indented JSON, shortened if it is too long for the page. */
function shown(data) {
  let value = data;
  if (typeof data === "string") {
    try {
      value = JSON.parse(data);
    } catch {
      value = data;
    }
  }
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 1) ?? "";
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}\n… ${bytes(text.length - SHOWN)} more behind the id above`;
}

// The page: polls the metrics once a second while it is visible, updates the channels, and opens the panes that the
// service has routes for. A new pane is a module with `fits(service)` and `build(service)`, listed below.

import * as api from "./api.js";
import { Channel } from "./channel.js";
import { count, element, mark, number, rate, say } from "./dom.js";
import { keep, keyed } from "./key.js";
import * as open from "./panes/open.js";
import * as photos from "./panes/photos.js";

const PANES = [photos, open];
const EVERY_MS = 1_000;
const THEMES = ["auto", "light", "dark"];

const byId = (id) => document.getElementById(id);
const channels = new Map();
const panes = new Map();
let answeredAt = 0;
let timer = 0;

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const service = await api.flows();
    answeredAt = performance.now();
    show(service, answeredAt);
    tell("live", "live");
    ask(false);
  } catch (error) {
    if (error.status === 401) {
      // Stops polling until there is another key: a wrong key once a second would count as guessing.
      tell("lost", keyed() ? "this key is not valid" : "a key is needed");
      ask(true);
      return;
    }
    for (const channel of channels.values()) channel.rest();
    const seconds = Math.round((performance.now() - answeredAt) / 1000);
    const since = answeredAt > 0 ? `, metrics are ${seconds} s old` : "";
    tell("lost", error.status ? `${error.line}${since}` : `no answer${since}`);
  }
  clearTimeout(timer);
  timer = setTimeout(poll, EVERY_MS);
}

/** Updates the page from the service's answer. */
function show(service, at) {
  const flows = (Array.isArray(service?.flows) ? service.flows : []).filter((flow) => typeof flow?.name === "string");
  const routes = Array.isArray(service?.routes) ? service.routes : [];
  arrange(flows);
  let perSecond = 0;
  for (const flow of flows) perSecond += channels.get(flow.name).update(flow, at).rate;
  sum(flows, perSecond);
  say(byId("service"), typeof service?.service === "string" ? service.service : "");
  openPanes({ flows, routes });
}

/** One channel per flow, in the order of the service. */
function arrange(flows) {
  const list = byId("flows");
  mark(list, "aria-busy", "false");
  const names = flows.map((flow) => flow.name);
  if (names.length === channels.size && names.every((name) => channels.has(name)) && list.childElementCount > 0) return;
  for (const name of [...channels.keys()]) if (!names.includes(name)) channels.delete(name);
  for (const flow of flows) if (!channels.has(flow.name)) channels.set(flow.name, new Channel(flow));
  const empty = element("p", { class: "empty" }, "No flow is configured here. Flows are declared as [flow.NAME] in the config.");
  list.replaceChildren(...(names.length > 0 ? names.map((name) => channels.get(name).node) : [empty]));
}

/** The metrics of all flows together. */
function sum(flows, perSecond) {
  const total = (read) => flows.reduce((all, flow) => all + number(read(flow)), 0);
  const failed = total((flow) => flow.failed);
  say(byId("total-rate"), rate(perSecond));
  say(byId("total-in-flight"), count(total((flow) => flow.in_flight)));
  say(byId("total-waiting"), count(total((flow) => flow.backlog?.interactive) + total((flow) => flow.backlog?.bulk)));
  say(byId("total-failed"), count(failed));
  mark(byId("total-failed"), "data-zero", String(failed === 0));
}

/** Opens the panes that fit and closes those that no longer do; open panes keep their state. */
function openPanes(service) {
  const shelf = byId("panes");
  for (const pane of PANES) {
    const fits = pane.fits(service);
    if (fits && !panes.has(pane)) panes.set(pane, pane.build(service));
    if (!fits && panes.has(pane)) {
      panes.get(pane).node.remove();
      panes.delete(pane);
    }
    panes.get(pane)?.update?.(service);
  }
  const nodes = PANES.filter((pane) => panes.has(pane)).map((pane) => panes.get(pane).node);
  if (nodes.some((node, index) => shelf.children[index] !== node)) shelf.replaceChildren(...nodes);
  shelf.hidden = nodes.length === 0;
}

/** Shows the field for a key, or the button to forget it. */
function ask(needed) {
  byId("key-form").hidden = !needed;
  byId("forget").hidden = needed || !keyed();
  // A link cannot send the key.
  byId("metrics").hidden = needed || keyed();
}

function tell(state, text) {
  mark(byId("status"), "data-state", state);
  say(byId("status"), text);
  mark(document.body, "data-state", state);
}

/** Follows the system's theme unless the user chose one; the choice is stored in this browser only. */
function dress(theme) {
  document.documentElement.dataset.theme = theme;
  say(byId("theme"), theme);
  mark(byId("theme"), "aria-label", `Theme: ${theme}`);
}

function kept() {
  try {
    return localStorage.getItem("caudal-theme") ?? "auto";
  } catch {
    return "auto";
  }
}

byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  dress(next);
  try {
    localStorage.setItem("caudal-theme", next);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
});

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(byId("key").value);
  byId("key").value = "";
  poll();
});

byId("forget").addEventListener("click", () => {
  keep("");
  location.reload();
});

// A file dropped outside of its target would replace the page.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
document.addEventListener("visibilitychange", poll);
dress(THEMES.includes(kept()) ? kept() : "auto");
poll();

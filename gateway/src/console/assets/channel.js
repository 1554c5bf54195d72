// Draws one flow as a channel in section: a backlog, then reaches of water that stand as high as the queue before each
// stage is full, and the stages as gates between them. Water runs as fast as events pass.

import { bytes, count, drawing, element, mark, number, percent, rate, say } from "./dom.js";
import { History, Rates } from "./rates.js";

/** Seconds of the rate graph next to the name. */
const REMEMBERED = 60;
/** Width of a stage and of the shores at both ends, in CSS pixels: with less, the shores, then the stages, are stacked. */
const STAGE_WIDTH = 148;
const SHORES_WIDTH = 206;
/** Workers drawn one by one; more are shown as a number. */
const WORKERS_DRAWN = 6;
/** Length of one wave, in CSS pixels; the drawing repeats at it. */
const WAVE = 48;
/** How long one wave takes to pass at playback rate 1. */
const WAVE_MS = 2_400;

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** One flow on the page. */
export class Channel {
  #stages = new Map();
  #rates = new Rates();
  #history = new History(REMEMBERED);
  #figures = {};

  constructor(flow) {
    const heading = `flow-${flow.name}`;
    this.#figures = figures(["rate", "in_flight", "failed", "retried", "interactive", "bulk", "done"]);
    this.ripple = drawing("path", { class: "ripple-line" });
    this.area = drawing("path", { class: "ripple-area" });
    this.about = element("p", { class: "about" });
    this.track = element("ol", { class: "channel" });
    this.node = element("article", { class: "flow", "data-flow": flow.name, "aria-labelledby": heading },
      element("header", { class: "flow-head" },
        element("div", { class: "flow-name" }, element("h2", { id: heading }, flow.name), this.about),
        drawing("svg", { class: "ripple", viewBox: `0 0 ${REMEMBERED - 1} 24`, preserveAspectRatio: "none", "aria-hidden": "true" },
          this.area, this.ripple),
        element("p", { class: "flow-rate" }, this.#figures.rate, element("span", { class: "unit" }, "/s"))),
      this.track);
    new ResizeObserver(() => this.#lay()).observe(this.node);
  }

  /** Shows the metrics of `flow` as of `at` (ms). */
  update(flow, at) {
    const stages = Array.isArray(flow.stages) ? flow.stages : [];
    if (!this.#matches(stages)) this.#rebuild(stages);
    const { done, failed } = this.#rates.observe({ done: number(flow.done), failed: number(flow.failed) }, at);
    say(this.about, typeof flow.about === "string" ? flow.about : "");
    say(this.#figures.rate, rate(done));
    say(this.#figures.interactive, count(number(flow.backlog?.interactive)));
    say(this.#figures.bulk, count(number(flow.backlog?.bulk)));
    say(this.#figures.done, count(number(flow.done)));
    say(this.#figures.failed, count(number(flow.failed)));
    say(this.#figures.retried, count(number(flow.retried)));
    say(this.#figures.in_flight, count(number(flow.in_flight)));
    mark(this.#figures.failed.parentElement, "data-zero", String(number(flow.failed) === 0));
    mark(this.#figures.retried.parentElement, "data-zero", String(number(flow.retried) === 0));
    mark(this.node, "data-failing", String(failed > 0));
    this.#drawRipple(this.#history.push(done));
    for (const stage of stages) this.#stages.get(stage.name).update(stage, at);
    return { rate: done };
  }

  /** Stops the animation: the metrics shown are no longer live. */
  rest() {
    for (const stage of this.#stages.values()) stage.run(0);
  }

  #matches(stages) {
    return stages.length === this.#stages.size && stages.every((stage) => this.#stages.has(stage.name));
  }

  #rebuild(stages) {
    this.#stages = new Map(stages.map((stage) => [stage.name, new Stage(stage)]));
    const shown = this.#figures;
    const line = (node, label) => element("p", {}, node, ` ${label}`);
    const source = element("li", { class: "shore source" },
      element("h3", {}, "backlog"), line(shown.interactive, "interactive"), line(shown.bulk, "bulk"));
    const outfall = element("li", { class: "shore outfall" },
      element("h3", {}, "out"), line(shown.done, "done"), line(shown.in_flight, "in flight"),
      line(shown.retried, "retried"), line(shown.failed, "failed"));
    this.track.replaceChildren(source, ...[...this.#stages.values()].map((stage) => stage.node), outfall);
    this.#lay();
  }

  /** A row if every stage fits, if necessary without the shores, else a column. */
  #lay() {
    const needed = this.#stages.size * STAGE_WIDTH;
    const width = this.track.clientWidth;
    this.track.style.gridTemplateColumns = `repeat(${this.#stages.size}, minmax(0, 1fr))`;
    mark(this.track, "data-lay", width >= needed + SHORES_WIDTH ? "row" : width >= needed ? "tight" : "column");
  }

  /** The rate of the last minute, scaled to its own peak. */
  #drawRipple(values) {
    const peak = Math.max(1, ...values);
    const points = values.map((value, second) => `${second} ${(23 - (value / peak) * 21).toFixed(1)}`);
    this.ripple.setAttribute("d", `M${points.join("L")}`);
    this.area.setAttribute("d", `M0 24L${points.join("L")}L${REMEMBERED - 1} 24Z`);
  }
}

/** One stage: the reach of water before it, and its gate. */
class Stage {
  #rates = new Rates();
  #currents = [];

  constructor(stage) {
    this.figures = figures(["queued", "rate", "utilisation", "failed", "in_flight"]);
    this.water = element("div", { class: "water" }, this.#surface());
    this.reach = element("div", { class: "reach", "data-level": "calm" }, this.#current(), this.water);
    this.busy = element("i", { class: "busy" });
    this.blocked = element("i", { class: "blocked" });
    this.workers = element("span", { class: "workers" });
    const kind = stage.use && stage.use !== stage.name ? element("span", { class: "kind" }, stage.use) : null;
    this.gate = element("div", { class: "gate" },
      element("h3", { title: stage.name }, stage.name, kind),
      element("p", { class: "in-hand" }, this.workers, element("span", {}, this.figures.in_flight, " in flight")),
      element("div", { class: "load", "aria-hidden": "true" }, this.busy, this.blocked),
      element("p", { class: "pace" }, element("span", {}, this.figures.rate, element("span", { class: "unit" }, "/s")),
        this.figures.utilisation),
      element("p", { class: "stage-failed" }, this.figures.failed));
    this.node = element("li", { class: "stage", "data-stage": stage.name },
      element("div", { class: "approach" }, this.reach, element("p", { class: "queue" }, this.figures.queued)), this.gate);
  }

  update(stage, at) {
    const workers = Math.max(1, number(stage.workers));
    const limit = number(stage.queue_limit);
    const queued = number(stage.queued);
    const failed = number(stage.failed);
    const rates = this.#rates.observe({
      done: number(stage.done), busy: number(stage.busy_seconds), blocked: number(stage.blocked_seconds),
    }, at);
    const busy = Math.min(1, rates.busy / workers);
    const blocked = Math.min(1 - busy, rates.blocked / workers);
    this.#level(limit > 0 ? Math.min(1, queued / limit) : 0, rates.done);
    this.busy.style.width = `${busy * 100}%`;
    this.blocked.style.width = `${blocked * 100}%`;
    this.#crew(workers, number(stage.in_flight));
    say(this.figures.queued, limit > 0 ? `${count(queued)} / ${count(limit)}` : count(queued));
    mark(this.reach, "title", `${count(queued)} waiting, ${bytes(number(stage.queued_bytes))}`);
    say(this.figures.rate, rate(rates.done));
    say(this.figures.utilisation, percent(busy));
    mark(this.gate, "title", `${percent(busy)} of ${workers} worker time at work, ${percent(blocked)} waiting for room downstream`);
    say(this.figures.failed, failed > 0 ? `${count(failed)} failed` : "");
  }

  /** Sets the level and the speed of the water. */
  #level(fill, perSecond) {
    this.water.style.transform = `translateY(${((1 - fill) * 100).toFixed(1)}%)`;
    mark(this.reach, "data-level", fill >= 0.95 ? "full" : fill >= 0.7 ? "high" : "calm");
    mark(this.reach, "data-dry", String(fill === 0));
    mark(this.reach, "data-running", String(perSecond > 0));
    this.run(perSecond > 0 && !still.matches ? 0.4 + Math.log10(1 + perSecond) : 0);
  }

  /** Sets the speed of the water, in waves per `WAVE_MS`. */
  run(speed) {
    for (const current of this.#currents) current.updatePlaybackRate(speed);
  }

  /** One bar per worker, lit while it works on a batch. */
  #crew(workers, inFlight) {
    const drawn = Math.min(workers, WORKERS_DRAWN);
    while (this.workers.childElementCount < drawn) this.workers.append(element("i"));
    while (this.workers.childElementCount > drawn) this.workers.lastElementChild.remove();
    [...this.workers.children].forEach((bar, index) => mark(bar, "data-lit", String(index < inFlight)));
    say(this.figures.in_flight, count(inFlight));
  }

  /** The waves on the water. */
  #surface() {
    let path = "M0 4";
    for (let x = 0; x < 40 * WAVE; x += WAVE) path += `q${WAVE / 4} -4 ${WAVE / 2} 0t${WAVE / 2} 0`;
    const line = drawing("path", { d: path, class: "crest" });
    const body = drawing("path", { d: `${path}V8H0Z`, class: "swell" });
    return this.#moving(drawing("svg", { class: "surface", width: 40 * WAVE, height: 8, "aria-hidden": "true" }, body, line));
  }

  /** The line along the bed when nothing waits. */
  #current() {
    const dashes = `${WAVE / 3} ${(2 * WAVE) / 3}`;
    const lines = [[5, 0], [9, WAVE / 2]].map(([y, offset]) =>
      drawing("path", { d: `M0 ${y}H${40 * WAVE}`, "stroke-dasharray": dashes, "stroke-dashoffset": offset }));
    return this.#moving(drawing("svg", { class: "current", width: 40 * WAVE, height: 11, "aria-hidden": "true" }, ...lines));
  }

  #moving(node) {
    const frames = [{ transform: `translateX(${-WAVE}px)` }, { transform: "translateX(0)" }];
    const animation = node.animate(frames, { duration: WAVE_MS, iterations: Infinity });
    animation.updatePlaybackRate(0);
    this.#currents.push(animation);
    return node;
  }
}

/** Elements that show one metric each, with a name to find them by. */
function figures(names) {
  return Object.fromEntries(names.map((name) => [name, element("span", { class: "figure", "data-figure": name })]));
}

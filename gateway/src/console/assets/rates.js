// Turns counters that only grow into rates per second, from one answer of the service to the next.

import { number } from "./dom.js";

/** Weight of the newest interval; the rest is the previous value, so that a number stays readable while it changes. */
const NEWEST = 0.6;

/** Rates of one set of counters. */
export class Rates {
  #counters = null;
  #at = 0;
  #shown = {};

  /** Takes the counters as they are at `at` (ms) and returns each one's growth per second. */
  observe(counters, at) {
    const before = this.#counters;
    const seconds = (at - this.#at) / 1000;
    this.#counters = counters;
    this.#at = at;
    for (const [name, value] of Object.entries(counters)) {
      const growth = before === null ? 0 : value - number(before[name]);
      // A counter that fell belongs to a restarted process: this interval has no rate.
      const now = growth < 0 || seconds <= 0 ? 0 : growth / seconds;
      const shown = number(this.#shown[name]) * (1 - NEWEST) + now * NEWEST;
      this.#shown[name] = shown < 0.01 ? 0 : shown;
    }
    return this.#shown;
  }
}

/** The last `length` values of one metric, oldest first. */
export class History {
  #values;

  constructor(length) {
    this.#values = new Array(length).fill(0);
  }

  /** Adds the newest value and returns all. */
  push(value) {
    this.#values.push(value);
    this.#values.shift();
    return this.#values;
  }
}

// Builds elements and formats numbers. Data becomes text or an attribute here, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; strings become text, `null` attributes and children are left out. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function drawing(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets text only if it changed, so that selections and screen readers are not disturbed. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute only if it changed. */
export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** A finite number, or 0 for any other value. */
export function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count for people: 9,999 and then 12.3K. */
export function count(value) {
  return value < 10_000 ? WHOLE.format(value) : SHORT.format(value);
}

/** A rate per second: one decimal below 100, none from there. */
export function rate(value) {
  if (value < 0.05) return "0";
  return value < 100 ? value.toFixed(1) : count(Math.round(value));
}

/** A share of one as a percentage without decimals. */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** Bytes in binary units. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

// The API page: draws /openapi.json. Nothing is loaded from elsewhere, and data becomes text, never markup.

import { call } from "./api.js";
import { element, mark, say } from "./dom.js";
import { keep } from "./key.js";

const SCHEMAS = "#/components/schemas/";
const place = (id) => document.getElementById(id);

/** A schema in one line: its type, or the name of the schema that it refers to. */
function typeOf(schema = {}) {
  if (schema.$ref) return schema.$ref.replace(SCHEMAS, "");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  const type = [schema.type ?? "any"].flat().join(" | ");
  if (schema.type === "array") return `array of ${typeOf(schema.items)}`;
  const bounds = [["≥", schema.minimum], ["≤", schema.maximum], ["default", schema.default]];
  const told = bounds.filter(([, value]) => value !== undefined).map(([word, value]) => `${word} ${value}`);
  return [schema.format ? `${type} (${schema.format})` : type, ...told].join(", ");
}

/** The schema of content, as a link if it has a name. */
function shown(schema) {
  const name = schema?.$ref?.replace(SCHEMAS, "");
  return name ? element("a", { href: `#schema-${name}` }, name) : element("span", { class: "type" }, typeOf(schema));
}

function row(name, ...cells) {
  return element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", {}, ...[cell].flat())));
}

function table(title, rows) {
  return rows.length ? element("div", {}, element("h3", {}, title), element("table", { class: "rows" }, ...rows)) : null;
}

function properties(schema = {}) {
  return Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const needed = schema.required?.includes(name) ? "always" : "";
    return row(name, shown(property), needed, property.description ?? "");
  });
}

function contentOf(content = {}) {
  return Object.entries(content).flatMap(([type, { schema }]) => {
    return [element("div", {}, element("code", {}, type), " ", shown(schema))];
  });
}

/** The request as a command. */
function command(method, path, operation) {
  const content = operation.requestBody?.content ?? {};
  const words = ["curl", method === "get" ? "" : `-X ${method.toUpperCase()}`];
  if (operation.security?.length) words.push("-H 'Authorization: Bearer KEY'");
  const form = content["multipart/form-data"]?.schema;
  if (form) {
    const names = Object.keys(form.properties ?? { file: {} });
    words.push(...names.map((name) => `-F ${name}=@FILE`));
  } else if (content["application/json"]) {
    words.push("-H 'Content-Type: application/json' -d '{}'");
  } else if (operation.requestBody) {
    words.push("--data-binary @FILE");
  }
  const url = path.replace(/[{}]/g, "").replaceAll(/\/(id|flow)(?=\/|$)/g, (_, name) => `/${name.toUpperCase()}`);
  return [...words.filter(Boolean), `'${location.origin}${url}'`].join(" ");
}

function describe(path, method, operation) {
  const params = (operation.parameters ?? []).map((param) => {
    return row(param.name, param.in, shown(param.schema), [param.required ? "required. " : "", param.description ?? ""]);
  });
  const bodies = Object.entries(operation.requestBody?.content ?? {}).flatMap(([type, { schema }]) => {
    return [row(type, shown(schema), "", ""), ...properties(schema)];
  });
  const answers = Object.entries(operation.responses ?? {}).map(([status, answer]) => {
    return row(status, answer.description ?? "", contentOf(answer.content));
  });
  const head = element(
    "summary",
    {},
    element("span", { class: "method" }, method.toUpperCase()),
    element("span", { class: "path" }, path),
    element("span", { class: "about" }, operation.summary ?? ""),
    operation.security?.length ? element("span", { class: "lock" }, "needs a key") : null,
  );
  const body = element(
    "div",
    {},
    element("pre", {}, command(method, path, operation)),
    table("Parameters", params),
    table("Body", bodies),
    table("Answers", answers),
  );
  return element("details", { class: "operation", id: operation.operationId }, head, body);
}

function schema(name, value) {
  const rows = properties(value);
  const body = rows.length ? element("table", { class: "rows" }, ...rows) : element("pre", {}, JSON.stringify(value, null, 2));
  const about = element("span", { class: "about" }, value.description ?? "");
  const head = element("summary", {}, element("span", { class: "path" }, name), about);
  return element("details", { class: "schema", id: `schema-${name}` }, head, element("div", {}, body));
}

function draw(description) {
  say(place("service"), description.info?.title ?? "");
  const all = Object.entries(description.paths ?? {}).flatMap(([path, methods]) => {
    return Object.entries(methods).map(([method, operation]) => ({ path, method, operation }));
  });
  const section = (title, operations) => {
    const drawn = operations.map(({ path, method, operation }) => describe(path, method, operation));
    return drawn.length ? [element("h2", {}, title), ...drawn] : [];
  };
  const builtIn = ["/health", "/ready", "/metrics", "/openapi.json"];
  const routes = all.filter(({ path }) => !path.startsWith("/v1/") && !builtIn.includes(path));
  const rest = all.filter((one) => !routes.includes(one));
  place("operations").replaceChildren(...section("Routes of this service", routes), ...section("Every service", rest));
  const schemas = Object.entries(description.components?.schemas ?? {}).map(([name, value]) => schema(name, value));
  place("schemas").replaceChildren(element("h2", {}, "Schemas"), ...schemas);
}

/** Opens what the address names. */
function open() {
  const target = location.hash ? place(location.hash.slice(1)) : null;
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

async function load() {
  try {
    const response = await call("/openapi.json", { signal: AbortSignal.timeout(5_000) });
    draw(await response.json());
    place("key-form").hidden = true;
    mark(place("status"), "data-state", "live");
    say(place("status"), "");
    open();
  } catch (problem) {
    place("key-form").hidden = problem.status !== 401;
    mark(place("status"), "data-state", "lost");
    say(place("status"), problem.line ?? "The service did not answer in time.");
  }
}

place("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(place("key").value);
  load();
});
addEventListener("hashchange", open);
load();

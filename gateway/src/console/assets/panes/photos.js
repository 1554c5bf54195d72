// Lost pets by photo: each photo is indexed under an id made from its file name, and its matches are shown.

import { Problem, each, postFile } from "../api.js";
import { bytes, element, mark, say } from "../dom.js";

const INDEX = /^\/embeddings\/index\/\{[^}]+\}$/;
/** Photos sent at once; the service has a queue of its own, this limit is for the browser. */
const WIDTH = 3;
/** Matches requested: the photo itself is its own best match, and five others are shown. */
const MATCHES = 6;
/** Retries against a full service, and the longest `Retry-After` that is obeyed, in seconds. */
const PATIENCE = 3;
const LONGEST_WAIT_S = 60;
/** Rows shown on the page, and images in memory. */
const ROWS = 60;
const PICTURES = 500;
/** Longest side of an image in memory, in pixels. */
const PICTURE_SIDE = 240;

/** Whether the service indexes photos. */
export function fits({ routes }) {
  return routes.some((route) => INDEX.test(route?.path));
}

/** The pane. */
export function build() {
  const pictures = new Map();
  const files = new Map();
  const input = element("input", { type: "file", id: "photo-input", accept: "image/*", multiple: true, "aria-describedby": "photo-hint" });
  const results = element("ol", { class: "photo-results", id: "photo-results" });
  const drop = element("label", { class: "drop", id: "photo-drop", for: "photo-input" }, input,
    element("strong", {}, "Drop photos here"), element("span", {}, "or choose files"));
  const node = element("section", { class: "pane", id: "pane-photos", "aria-labelledby": "photo-title" },
    element("h2", { id: "photo-title" }, "Find look-alikes"),
    element("p", { class: "hint", id: "photo-hint" },
      "Each photo is indexed under an id made from its file name, then the index is searched with it."),
    drop, results);

  const take = (list) => accept([...list], { pictures, files, results });
  input.addEventListener("change", () => {
    take(input.files);
    input.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => mark(drop, "data-over", "true"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => mark(drop, "data-over", "false"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  return { node };
}

/** Indexes every photo first, so that those dropped together find each other, then searches with each. */
async function accept(list, shelf) {
  const photos = list.map((file) => ({ file, id: reportId(file, shelf.files) }));
  for (const photo of photos) {
    photo.row = row(photo);
    shelf.results.querySelector(`[data-report="${photo.id}"]`)?.remove();
  }
  shelf.results.prepend(...photos.map((photo) => photo.row.node));
  while (shelf.results.childElementCount > ROWS) shelf.results.lastElementChild.remove();
  await each(photos, WIDTH, (photo) => attempt(photo, () => index(photo, shelf)));
  await each(photos.filter((photo) => photo.indexed), WIDTH, (photo) => attempt(photo, () => search(photo, shelf)));
}

/** Runs one step, waits and retries if the service is full, and shows a failure at its photo. */
async function attempt(photo, step) {
  for (let patience = PATIENCE; ; patience -= 1) {
    try {
      return await step();
    } catch (error) {
      const problem = error instanceof Problem ? error : new Problem(String(error.message ?? error));
      const seconds = Number(problem.retryAfter);
      if (patience === 0 || !(seconds > 0 && seconds <= LONGEST_WAIT_S)) return refuse(photo, problem);
      photo.row.state("waiting", `the service asks to wait ${seconds} s`);
      await new Promise((resume) => setTimeout(resume, seconds * 1_000));
    }
  }
}

function refuse(photo, problem) {
  photo.row.state("failed", "failed");
  photo.row.body.replaceChildren(element("p", { class: "problem", role: "alert", "data-code": problem.code }, problem.line));
}

async function index(photo, { pictures }) {
  photo.row.state("indexing", "indexing");
  const url = await picture(photo.file);
  if (url) keep(pictures, photo.id, url);
  photo.row.show(url);
  const started = performance.now();
  await postFile(`/embeddings/index/${encodeURIComponent(photo.id)}`, photo.file, photo.file.name);
  photo.took = performance.now() - started;
  photo.indexed = true;
  photo.row.state("indexed", "indexed");
}

async function search(photo, { pictures }) {
  photo.row.state("searching", "searching");
  const found = await postFile(`/embeddings/search_image?limit=${MATCHES}`, photo.file, photo.file.name);
  const matches = (Array.isArray(found?.matches) ? found.matches : []).filter((one) => String(one?.report_id) !== photo.id);
  photo.row.state("done", `indexed in ${Math.round(photo.took)} ms`);
  photo.row.body.replaceChildren(matches.length > 0
    ? element("ol", { class: "matches", "aria-label": `Look-alikes of ${photo.id}` },
      ...matches.slice(0, MATCHES - 1).map((one) => match(one, pictures)))
    : element("p", { class: "hint" }, "Nothing else is indexed yet: drop another photo."));
}

/** One match: its image if it was dropped on this page, else its id only. */
function match(one, pictures) {
  const id = String(one.report_id);
  const score = Number(one.score);
  const url = pictures.get(id);
  const bar = element("i");
  bar.style.width = `${Math.max(0, Math.min(1, score)) * 100}%`;
  return element("li", { class: "match", "data-match": id, "data-score": score, title: id },
    url ? element("img", { src: url, alt: "" }) : element("span", { class: "no-picture", "aria-hidden": "true" }, id.slice(0, 2)),
    element("span", { class: "match-id" }, id),
    element("span", { class: "score" }, Number.isFinite(score) ? score.toFixed(3) : "–"),
    element("span", { class: "score-bar", "aria-hidden": "true" }, bar));
}

/** The row of one photo. */
function row({ id, file }) {
  const status = element("p", { class: "photo-state" }, "waiting");
  const frame = element("span", { class: "frame" });
  const body = element("div", { class: "photo-body" });
  const node = element("li", { class: "photo", "data-report": id, "data-state": "waiting" }, frame,
    element("div", { class: "photo-head" }, element("h3", { title: file.name }, id),
      element("p", { class: "photo-size" }, bytes(file.size)), status), body);
  return {
    node,
    body,
    show: (url) => frame.replaceChildren(...(url ? [element("img", { src: url, alt: `Photo ${id}` })] : [])),
    state(name, text) {
      mark(node, "data-state", name);
      say(status, text);
    },
  };
}

/** An id that the service accepts, `[A-Za-z0-9_-]{1,64}`: the file's name, with a number if another file has it. */
function reportId(file, files) {
  const stem = file.name.replace(/\.[^.]*$/, "").normalize("NFKD").replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "");
  const base = stem.slice(0, 56) || "photo";
  const print = `${file.name}/${file.size}/${file.lastModified}`;
  let id = base;
  for (let ordinal = 2; files.has(id) && files.get(id) !== print; ordinal += 1) id = `${base}-${ordinal}`;
  files.set(id, print);
  return id;
}

/** A small copy as an object URL; `null` if the browser cannot read the file; the service checks the file itself. */
async function picture(file) {
  try {
    const full = await createImageBitmap(file);
    const scale = Math.min(1, PICTURE_SIDE / Math.max(full.width, full.height));
    const canvas = element("canvas", { width: Math.max(1, Math.round(full.width * scale)), height: Math.max(1, Math.round(full.height * scale)) });
    canvas.getContext("2d").drawImage(full, 0, 0, canvas.width, canvas.height);
    full.close();
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.8));
    return blob ? URL.createObjectURL(blob) : null;
  } catch {
    return null;
  }
}

/** Stores an image and drops the oldest beyond the limit. */
function keep(pictures, id, url) {
  const before = pictures.get(id);
  if (before) URL.revokeObjectURL(before);
  pictures.delete(id);
  pictures.set(id, url);
  if (pictures.size <= PICTURES) return;
  const [oldest, oldUrl] = pictures.entries().next().value;
  URL.revokeObjectURL(oldUrl);
  pictures.delete(oldest);
}

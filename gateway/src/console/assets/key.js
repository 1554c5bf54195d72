// The key that every request of this page carries where the service asks who calls. It is kept for this tab alone and ends
// with it; no cookie, no address and no log holds it.

const PLACE = "caudal-key";

let key = kept();

function kept() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return "";
  }
}

/** Whether a key was given. */
export function keyed() {
  return key !== "";
}

/** What a request carries. */
export function credential() {
  return keyed() ? { authorization: `Bearer ${key}` } : {};
}

/** Takes a key, or forgets it where the text is empty. */
export function keep(text) {
  key = text.trim();
  try {
    if (key) sessionStorage.setItem(PLACE, key);
    else sessionStorage.removeItem(PLACE);
  } catch {
    // Storage is off: the key lasts as long as the page.
  }
}

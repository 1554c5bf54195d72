// The key that every request of this page sends if authentication is on. It is stored for this tab only and ends with it;
// it is in no cookie, URL or log.

const PLACE = "caudal-key";

let key = kept();

function kept() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return "";
  }
}

/** Whether there is a key. */
export function keyed() {
  return key !== "";
}

/** The headers of a request. */
export function credential() {
  return keyed() ? { authorization: `Bearer ${key}` } : {};
}

/** Stores a key, or removes it if the text is empty. */
export function keep(text) {
  key = text.trim();
  try {
    if (key) sessionStorage.setItem(PLACE, key);
    else sessionStorage.removeItem(PLACE);
  } catch {
    // Storage is off: the key lasts as long as the page.
  }
}

// The state in the address bar.

import { here } from "./here.js";
import { START } from "./state.js";

export function readAddress(hash = location.hash) {
  const found = {};
  for (const [name, text] of new URLSearchParams(hash.slice(1))) {
    if (!(name in START)) continue;
    const kind = typeof START[name];
    if (name === "patches") found[name] = text.split("_").filter(Boolean).map(Number).filter(Number.isInteger);
    else if (name === "heads") found[name] = text.split("_").filter(Boolean);
    else if (kind === "number" && Number.isFinite(+text)) found[name] = +text;
    else if (kind === "boolean") found[name] = text === "1";
    else if (kind === "string") found[name] = text;
  }
  return found;
}

export function addressOf(state, defaults) {
  const params = new URLSearchParams(location.hash.slice(1));  // keys of others stay
  for (const name of Object.keys(START)) {
    const value = state[name], start = defaults[name];
    params.delete(name);
    const usual = Array.isArray(start) ? value.length === 0 : value === start && name !== "layer";
    if (usual) continue;
    params.set(name, Array.isArray(value) ? value.join("_") : typeof value === "boolean" ? +value : value);
  }
  return params.toString();
}

export function writeAddress(state, defaults) {
  const hash = addressOf(state, defaults);
  if (location.hash.slice(1) === hash) return;
  history.replaceState(history.state, "", here() + (hash && "#" + hash));
  if ([...(location.ancestorOrigins ?? [])].includes("https://huggingface.co"))  // a Space lives in a frame
    window.parent.postMessage({ hash }, "https://huggingface.co");
}

// Copies a link, and says where it is now. own: it is of a picture of one's own, which stays behind.
export async function copied(link, own) {
  const done = await navigator.clipboard?.writeText(link).then(() => true, () => false);
  return (done ? "Copied" : "It is in the address bar") + (own ? ", without your picture" : "");
}

export async function copyLink(viewer) {
  const { state, defaults, options, parts, timers } = viewer;
  writeAddress(state, defaults);
  const link = `${here()}#${addressOf(state, defaults)}`;
  parts.copyText.textContent = parts.live.textContent = await copied(link, options.own?.());
  parts.copy.classList.add("is-told");
  clearTimeout(timers.copied);
  timers.copied = setTimeout(() => {
    parts.copyText.textContent = "Copy link";
    parts.copy.classList.remove("is-told");
  }, 1600);
}

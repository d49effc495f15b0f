// Pointer, finger and keyboard.

import { hide, hideQuery, switchHead } from "./edits.js";
import { cellAt } from "./layout.js";
import { directional, moveHead, moveLayer, moveQuery, shown } from "./state.js";
import { patchAt } from "./strip.js";
import { frameCount, stepTime } from "./time.js";

// ---- the picture

function tokenAt({ data, size }, event) {
  if (!size.patch) return -1;  // not laid out yet
  const canvas = event.currentTarget, box = canvas.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * canvas.width, y = (event.clientY - box.top) / box.height * canvas.height;
  const patch = patchAt(size.strip, data, x, y, size.patch);
  return patch < 0 ? -1 : data.pre + patch;
}

export function listenToPicture(viewer, canvas, index) {
  const { state, pointer } = viewer;
  const endStroke = () => { viewer.painting = null; };
  canvas.addEventListener("pointermove", (event) => {
    if (!viewer.data) return;
    if (!event.buttons) endStroke();  // lifted where the page does not hear of it
    const token = tokenAt(viewer, event);
    if (token === pointer.token && pointer.pane === index) return;
    pointer.pane = index;
    pointer.token = token;
    if (token >= 0 && viewer.painting !== null) hide(viewer, token - viewer.data.pre, viewer.painting);
    else if (token >= 0 && !state.pinned) return viewer.preview({ query: token }, event);
    viewer.draw(event);
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (!viewer.data || !viewer.intervening || event.button) return;
    const patch = tokenAt(viewer, event) - viewer.data.pre;
    if (patch < 0) return;
    viewer.painting = !state.patches.includes(patch);
    hide(viewer, patch, viewer.painting);
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, endStroke, { once: true });
  });
  canvas.addEventListener("pointerleave", (event) => {
    pointer.pane = pointer.token = -1;
    viewer.preview({}, event);
    viewer.draw(event);
  });
  canvas.addEventListener("click", (event) => {
    if (!viewer.data || viewer.intervening) return;
    const token = tokenAt(viewer, event);
    if (token < 0) return;
    const unpin = state.pinned && state.query === token;
    viewer.commit({ query: token, pinned: !unpin }, event);
  });
}

// ---- small maps and matrix

export function listenToMaps(viewer) {
  const { parts } = viewer;
  parts.sheetCanvas.addEventListener("pointermove", (event) => viewer.data && viewer.preview(cellAt(viewer, event) ?? {}, event));
  parts.sheetCanvas.addEventListener("pointerleave", (event) => viewer.preview({}, event));
  parts.sheetCanvas.addEventListener("click", (event) => {
    const pick = viewer.data && cellAt(viewer, event);
    if (!pick) return;
    const other = event.altKey || event.ctrlKey || event.metaKey;
    if (viewer.intervening && other && pick.fuse === "one") return switchHead(viewer, pick.layer, pick.head);
    if (pick.filter === undefined) viewer.commit("query" in pick ? { ...pick, pinned: true } : pick, event);
  });
  parts.matrix.addEventListener("pointermove", (event) => viewer.data && viewer.preview({ query: rowAt(viewer, event) }, event));
  parts.matrix.addEventListener("pointerleave", (event) => viewer.preview({}, event));
  parts.matrix.addEventListener("click", (event) =>
    viewer.data && viewer.commit({ query: rowAt(viewer, event), pinned: true }, event));
}

function rowAt(viewer, event) {
  const { data, parts, state } = viewer, box = parts.matrix.getBoundingClientRect();
  const step = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  if (directional(viewer) && state.direction === "column") return step((event.clientX - box.left) / box.width, data.T);
  return data.tokens_sent[step((event.clientY - box.top) / box.height, data.Q)];
}

// ---- keyboard

export const KEYS = [
  ["← →", "previous or next head (Methods: method; without heads: layer)"],
  ["↑ ↓", "previous or next layer"],
  ["Shift + arrows", "move the query patch"],
  [", . or Page up, Page down", "of a clip: the time before, the next one"],
  ["Home", "query = the first token, [CLS]"],
  ["Space", "play through depth"],
  ["t", "of a clip: play through time"],
  ["Enter", "pin the query; Esc lets it go"],
  ["1 2 3", "one head, mean, max over heads"],
  ["d", "direction: looks at, is looked at by, both"],
  ["b", "after an intervention: before, after"],
  ["x", "Intervene: hide or show the query patch"],
  ["o", "Intervene: switch the head off or on"],
  ["?", "this list"],
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FRAMES = { ",": -1, ".": 1, PageUp: -1, PageDown: 1 };
const TURN = { row: "column", column: "both", both: "row" };

// -> a patch of the state, null for a key that does something else, undefined for one that is not ours.
function answerTo(viewer, { key, shiftKey }) {
  const { state, data, intervening } = viewer;
  if (key in ARROWS) {
    const [dx, dy] = ARROWS[key];
    return shiftKey ? moveQuery(viewer, dx, dy) : dx ? moveHead(viewer, dx) : moveLayer(viewer, dy);
  }
  if (key in FRAMES && frameCount(viewer) > 1) return stepTime(viewer, FRAMES[key]);
  if (key === "Home") return { query: 0, pinned: true };
  if (key === "Enter") return { query: shown(viewer).query, pinned: true };
  if ("123".includes(key) && state.mode === "attention") return { fuse: ["one", "mean", "max"][key - 1] };
  if (key === "b" && viewer.after) return { matrix: state.matrix === "after" ? "before" : "after" };
  if (key === "d" && directional(viewer)) return { direction: TURN[state.direction] };
  if (key === " ") viewer.play();
  else if (key === "t" && frameCount(viewer) > 1) viewer.play("time");
  else if (key === "?") viewer.parts.help.showModal();
  else if (key === "x" && intervening && state.query >= data.pre) hideQuery(viewer);
  else if (key === "o" && intervening && state.mode === "attention" && state.fuse === "one")
    switchHead(viewer, state.layer, state.head);
  else return undefined;
  return null;
}

function onKey(viewer, event) {
  const { data, state, parts } = viewer, { key, target } = event;
  if (!data || event.ctrlKey || event.metaKey || event.altKey || parts.help.open) return;
  if (key === "Escape") {
    if (state.pinned) viewer.commit({ pinned: false, query: 0 }, event);
    return;
  }
  const native = key.startsWith("Arrow") || [" ", "Home", "PageUp", "PageDown"].includes(key);  // what an input does with a key, it keeps
  if (target.tagName === "SELECT" || target.tagName === "INPUT" && native) return;
  if ((key === " " || key === "Enter") && target.closest?.(PRESSED)) return;
  const patch = answerTo(viewer, event);
  if (patch === undefined) return;
  event.preventDefault();
  if (patch) viewer.commit(patch, event);
}

// What Enter or Space opens, wherever on the page it stands.
const PRESSED = "a[href], summary, button, [role=button]";
// Who keeps the keys: whatever is typed into or has a choice of its own, and other viewers.
const KEEPERS = "input, select, textarea, dialog, [contenteditable], [role=listbox], [role=slider], [role=combobox], .vit-viewer";

// -> what to call when the viewer goes. The page's main viewer also hears the keys that nobody else has, while its
// picture is on the screen.
export function listenToKeys(viewer) {
  const { root, parts } = viewer;
  const own = (event) => onKey(viewer, event);
  const free = (event) => {
    if (event.defaultPrevented || event.target.closest?.(KEEPERS)) return;
    const box = parts.stage.getBoundingClientRect();
    if (box.width && box.bottom > 0 && box.top < window.innerHeight) own(event);
  };
  root.addEventListener("keydown", own);
  if (viewer.addressed) document.addEventListener("keydown", free);
  return () => {
    root.removeEventListener("keydown", own);
    document.removeEventListener("keydown", free);
  };
}

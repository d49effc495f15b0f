/* Two pictures in front of one model: patches that are alike are joined by lines; a patch under the pointer shows how
   alike every patch of the other picture is.

   mountPair(root) -> {receive(value), state}
   value  {head: url, depths: [url, ...], nonce}: explorer/pairs.py's messages; another head begins anew.
   A click, a tap or Enter pins a patch; the same again or Escape lets go of it. */

import { unpack } from "./bytes.js";
import { choice, el } from "./elements.js";
import { number } from "./numbers.js";
import { alike, centre, depthName, drawn, moved, NARROW, nearestOf, places, sentence, under } from "./pairing.js";
import { download } from "./sources.js";

const TALLEST = 620;  // pixels of a picture
const FIRST = 40;  // lines at first

export function mountPair(root) {
  const state = { depth: -1, ground: "pictures", count: FIRST, least: -1, pinned: null };
  const pair = {
    root, state, asked: "", generation: 0, queued: false,  // asked: the head of the pair that was named last
    value: null, data: null, wanted: null,                 // the one that is shown
    message: null, at: -1,                                 // of one of its depths: this one
    hover: null, cursor: null, wrong: "",                  // wrong: what did not come, until something else is done
  };
  build(pair);
  listen(pair);
  new ResizeObserver(() => ask(pair)).observe(root);
  new MutationObserver(() => ask(pair)).observe(document.documentElement, { attributeFilter: ["class"] });
  root.pair = { state, receive: (value) => receive(pair, value), get message() { return pair.message; }, get hover() { return pair.hover; } };
  return root.pair;
}

function build(pair) {
  const { root, state } = pair, parts = pair.parts = {};
  const range = (label, low, high, step, on) => {
    const said = el("span", { class: "vit-quiet" });
    const input = el("input", { type: "range", min: low, max: high, step, "aria-label": label, oninput: () => { on(Number(input.value)); ask(pair); } });
    return { input, said, node: el("label", { class: "vit-field" }, el("span", { class: "vit-name" }, label, " ", said), input) };
  };
  parts.depth = range("Depth", 0, 1, 1, (value) => { state.depth = value; need(pair); });
  parts.count = range("Lines, at most", 0, 1, 1, (value) => { state.count = value; });
  parts.least = range("Only those at least as alike as", -1, 1, 0.01, (value) => { state.least = value; });
  parts.ground = choice("Show", [["pictures", "Pictures"], ["colours", "Colours", "The patches in three principal components, one basis for both pictures and all depths: what is alike has the same colour"]],
    (value) => { state.ground = value; ask(pair); });
  parts.canvas = el("canvas", { class: "vit-pair-canvas", tabIndex: 0, role: "application",
    "aria-label": "Two pictures. Arrow keys move from patch to patch and into the other picture, Enter keeps one, Escape lets go of it." });
  parts.readout = el("p", { class: "vit-readout" });
  parts.live = el("p", { class: "vit-sr", role: "status" });
  parts.table = el("tbody");
  parts.more = el("details", { class: "vx-more", ontoggle: () => fillTable(pair) }, el("summary", {}, "The pairs in numbers"),
    el("div", { class: "vx-table vit-pair-table" }, el("table", {}, el("thead", {}, el("tr", {},
      ...["first picture", "second picture", "cosine"].map((name) => el("th", {}, name)))), parts.table)));
  parts.legend = el("canvas", { width: 256, height: 1, role: "img", "aria-label": "colours from cosine 0 to 1" });
  root.append(
    el("div", { class: "vit-settings" }, parts.ground, parts.depth.node, parts.count.node, parts.least.node),
    parts.canvas,
    el("div", { class: "vit-under" }, parts.readout, el("div", { class: "vit-legend" }, "0", parts.legend, "1", el("span", {}, "cosine"))),
    parts.live, parts.more);
}

// ---- what comes

async function receive(pair, value) {
  if (!value?.head || value.head === pair.asked) return;
  const mine = ++pair.generation;
  pair.asked = value.head;
  pair.root.classList.add("is-loading");
  try {
    const { meta, arrays } = await unpack(await download(value.head));
    const images = await Promise.all([arrays.image, arrays.image2].map((bytes) => createImageBitmap(new Blob([bytes]))));
    if (mine !== pair.generation) return;
    const last = meta.num_layers, { state, parts } = pair;
    const data = { ...meta, images, colours: [arrays.colours, arrays.colours2], colormap: arrays.colormap };
    Object.assign(pair, { value, data, wanted: new Map(), message: null, hover: null, cursor: null });
    Object.assign(state, { pinned: null, depth: state.depth < 0 || state.depth > last ? last : state.depth });
    parts.depth.input.max = last;
    pair.root.dataset.mode = "pair";
    await need(pair);
  } catch (error) {
    if (mine === pair.generation) {
      pair.asked = "";  // the same once more is another try
      say(pair, error.message);
    }
  } finally {
    if (mine === pair.generation) pair.root.classList.remove("is-loading");
  }
}

async function need(pair) {
  const { value, wanted, state, parts } = pair, { depth } = state, current = () => value === pair.value && depth === state.depth;
  pair.wrong = "";
  if (!value) return;
  if (!wanted.has(depth)) wanted.set(depth, download(value.depths[depth]).then(unpack).then(({ arrays }) => arrays));
  try {
    const message = await wanted.get(depth);
    if (!current()) return;
    Object.assign(pair, { message, at: depth });
    ask(pair);
  } catch (error) {
    wanted.delete(depth);
    if (!current()) return;
    if (pair.message) parts.depth.input.value = state.depth = pair.at;  // what is shown stays
    else pair.asked = "";  // the same pair once more is another try
    say(pair, error.message);
  }
}

const say = (pair, words) => { pair.wrong = pair.parts.readout.textContent = pair.parts.live.textContent = words; };

// ---- what is done

function listen(pair) {
  const { canvas } = pair.parts, { state } = pair;
  const at = (event) => pair.message && pair.layout && under(event.offsetX, event.offsetY, pair.layout.boxes, pair.data.grids);
  const same = (a, b) => !!a && !!b && a.side === b.side && a.patch === b.patch;
  const pin = (found) => { state.pinned = same(found, state.pinned) ? null : found; };
  canvas.addEventListener("pointermove", (event) => {
    const found = at(event);
    if (event.pointerType === "touch" || same(found, pair.hover)) return;
    Object.assign(pair, { hover: found, wrong: "" });
    ask(pair);
  });
  canvas.addEventListener("pointerleave", () => { pair.hover = null; ask(pair); });
  canvas.addEventListener("click", (event) => {
    pin(at(event));
    pair.hover = null;
    pair.cursor = state.pinned;
    tell(pair);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!pair.message) return;
    if (step) pair.cursor = pair.cursor ? moved(pair.cursor, ...step, pair.data.grids, pair.layout.stacked) : { side: 0, patch: 0 };
    else if (event.key === "Enter" || event.key === " ") pin(pair.cursor ??= { side: 0, patch: 0 });
    else if (event.key === "Escape") { state.pinned = null; pair.cursor = null; } else return;
    event.preventDefault();
    pair.hover = null;
    tell(pair);
  });
  canvas.addEventListener("blur", () => { pair.cursor = null; ask(pair); });
}

const shown = ({ hover, cursor, state }) => hover ?? cursor ?? state.pinned;

function tell(pair) {
  const now = shown(pair);
  pair.wrong = "";
  pair.parts.live.textContent = now && pair.message ? sentence(now, pair.message, pair.data.grids) : "";
  ask(pair);
}

// ---- what is drawn: once per frame of the screen

function ask(pair) {
  if (pair.queued) return;
  pair.queued = true;
  requestAnimationFrame(() => { pair.queued = false; draw(pair); });
}

function draw(pair) {
  const { root, data, message, parts } = pair;
  if (!data || !message || !root.clientWidth) return;
  const tallest = Math.max(240, Math.min(TALLEST, innerHeight - 220));
  const layout = pair.layout = places(root.clientWidth, data.sizes, root.clientWidth < NARROW ? 2 * tallest : tallest);
  const dpr = devicePixelRatio || 1, right = Math.max(...layout.boxes.map((box) => box.x + box.width));
  const { canvas } = parts, width = Math.round(right * dpr), height = Math.round(layout.height * dpr);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  Object.assign(canvas.style, { width: `${right}px`, height: `${layout.height}px` });
  const pen = canvas.getContext("2d"), now = shown(pair);
  pen.setTransform(dpr, 0, 0, dpr, 0, 0);
  pen.clearRect(0, 0, right, layout.height);
  data.images.forEach((image, side) => paintSide(pair, pen, image, side, now));
  paintLines(pair, pen, now);
  sync(pair, now);
}

function paintSide(pair, pen, image, side, now) {
  const { data, message, state, layout } = pair, { x, y, width, height } = layout.boxes[side], [h, w] = data.grids[side];
  pen.imageSmoothingEnabled = state.ground === "pictures";
  if (state.ground === "pictures") pen.drawImage(image, x, y, width, height);
  else pen.drawImage(pixels(h, w, (k) => data.colours[side].subarray(3 * (pair.at * h * w + k), 3 * (pair.at * h * w + k) + 3)), x, y, width, height);
  pen.imageSmoothingEnabled = false;
  if (now && now.side !== side) {
    const values = alike(now, message);
    pen.globalAlpha = 0.82;
    pen.drawImage(pixels(h, w, (k) => colourOf(values[k], data.colormap)), x, y, width, height);
    pen.globalAlpha = 1;
  }
  if (now?.side === side) frame(pen, now, layout.boxes, data.grids);
}

const colourOf = (cosine, bytes) => {
  const step = Math.round(255 * Math.min(1, Math.max(0, cosine)));
  return bytes.subarray(3 * step, 3 * step + 3);
};

function pixels(h, w, colour) {
  const canvas = new OffscreenCanvas(w, h), image = new ImageData(w, h);
  for (let k = 0; k < h * w; k++) image.data.set([...colour(k), 255], 4 * k);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function frame(pen, { side, patch }, boxes, grids) {
  const [h, w] = grids[side], box = boxes[side], wide = box.width / w, tall = box.height / h;
  const x = box.x + patch % w * wide, y = box.y + Math.floor(patch / w) * tall;
  for (const [width, style] of [[5, "#000000"], [2.5, "#ffffff"]]) {
    Object.assign(pen, { lineWidth: width, strokeStyle: style });
    pen.strokeRect(x, y, wide, tall);
  }
}

// The lines; with a patch chosen, only its own, and a frame around the one that is most like it.
function paintLines(pair, pen, now) {
  const { data, message, state, layout } = pair, { matches, cosine } = message;
  const line = (i, j, value) => {
    const from = centre({ side: 0, patch: i }, layout.boxes, data.grids), to = centre({ side: 1, patch: j }, layout.boxes, data.grids);
    for (const [width, style] of [[4, "rgb(0 0 0 / 55%)"], [2, `rgb(${colourOf(value, data.colormap).join()})`]]) {
      Object.assign(pen, { lineWidth: width, strokeStyle: style, fillStyle: style, lineCap: "round" });
      pen.beginPath();
      pen.moveTo(...from);
      pen.lineTo(...to);
      pen.stroke();
      for (const end of [from, to]) {
        pen.beginPath();
        pen.arc(...end, width + 0.5, 0, 2 * Math.PI);
        pen.fill();
      }
    }
  };
  if (now) {
    const { patch, match } = nearestOf(now, message);
    if (match >= 0) line(matches[2 * match], matches[2 * match + 1], cosine[match]);
    return frame(pen, { side: 1 - now.side, patch }, layout.boxes, data.grids);
  }
  for (let k = drawn(message, state) - 1; k >= 0; k--) line(matches[2 * k], matches[2 * k + 1], cosine[k]);
}

// ---- controls and words follow

function sync(pair, now) {
  const { state, parts, message, data } = pair, all = message.cosine.length, count = drawn(message, state);
  parts.ground.show(state.ground);
  parts.depth.input.value = state.depth;
  parts.depth.said.textContent = depthName(state.depth).toLowerCase();
  parts.depth.input.ariaValueText = parts.depth.said.textContent;
  parts.count.input.max = Math.max(all, 1);
  parts.count.input.value = Math.min(state.count, all);
  parts.count.said.textContent = `${Math.min(state.count, all)} of ${all}`;
  const lowest = all ? Math.min(...message.cosine) : -1;
  parts.least.input.min = Math.floor(100 * lowest) / 100;
  parts.least.input.value = Math.max(state.least, parts.least.input.min);
  parts.least.said.textContent = number(parts.least.input.value);
  const pen = parts.legend.getContext("2d");
  for (let k = 0; k < 256; k++) { pen.fillStyle = `rgb(${colourOf(k / 255, data.colormap).join()})`; pen.fillRect(k, 0, 1, 1); }
  parts.readout.textContent = pair.wrong || (now ? sentence(now, message, data.grids)
    : `${depthName(pair.at)}, ${all} ${all === 1 ? "pair" : "pairs"} of patches chose each other; joined: ${count === all ? "all" : `the ${count} most alike`}.`);
  if (parts.more.open && pair.told !== message) fillTable(pair);
}

function fillTable(pair) {
  const { message, data, parts } = pair;
  if (!parts.more.open || !message) return;
  pair.told = message;
  const place = (side, patch) => `(${Math.floor(patch / data.grids[side][1])}, ${patch % data.grids[side][1]})`;
  parts.table.replaceChildren(...Array.from(message.cosine, (value, k) => el("tr", {},
    el("td", {}, place(0, message.matches[2 * k])), el("td", {}, place(1, message.matches[2 * k + 1])), el("td", { class: "vx-num" }, number(value, 3)))));
}

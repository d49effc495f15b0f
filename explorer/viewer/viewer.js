/* The ViT viewer: decode, index, look up a colour, draw, emit picks. No framework, no network of its own.

   L layers, H heads, T tokens (prefix tokens first, then h x w patches), Q rows that are sent. Bytes: explorer/payload.py.

   ViTViewer.mount(element, source, options) -> handle
     source   {head: async () => ArrayBuffer, layer: async (l) => ArrayBuffer}, or null for now; optional:
              embeddings: async () => ArrayBuffer, expect(layer) to hear which layer will be wanted first,
              closed: true where nobody computes the maps that are missing
     options  {state, emit(name, payload), methods, link, address, modes, intervene,
              own: () => true where the picture is the visitor's, so that no link leads to it}
     handle   {state, perf, set(patch), setSource(source), setAfter(source), addMaps(buffer), refuse({method: why}),
            working(text), destroy()}
   One state object; what is hovered is not what is pinned; everything drawn follows from both. */
const ViTViewer = (() => {
"use strict";

const START = {
  mode: "attention",    // attention | rollout | method | embeddings
  layer: -1,            // at first the last one; then -1 is the embedding, in front of layer 0
  head: 0,
  fuse: "mean",         // one | mean | max over the heads of the layer
  query: 0,             // a token
  pinned: false,
  direction: "row",     // row: looks at | column: is looked at by | both
  scale: "map",         // what the brightest colour means: this map | layer | all | uniform (relative to it)
  colormap: "viridis",
  opacity: 0.85,
  fade: true,           // small weights let the image through
  smooth: false,        // false: by patch, the truth
  links: false,         // arcs to the patches that weigh most
  method: "",
  target: -1,           // class explained by Method; -1: the likeliest
  embedding: "pca",     // pca | similarity | norms | positions | filters
  basis: "joint",       // of pca: one for all depths | depth: one for each
  matrix: "after",      // which side of an intervention the small maps show: before | after
  patches: [],          // hidden patches
  heads: [],            // heads switched off, as "layer.head"
};
const ONE_OF = {
  fuse: ["one", "mean", "max"], direction: ["row", "column", "both"], scale: ["map", "layer", "all", "uniform"],
  basis: ["joint", "depth"], matrix: ["before", "after"],
};
const SHARED = ["mode", "layer", "head", "fuse", "query", "pinned", "direction", "scale", "embedding", "basis",
  "colormap", "opacity", "fade", "smooth", "links"];
const SIDE = 236, SPACE = 24;  // CSS pixels
const LINKS = 6, OCTAVES = 4, PREFETCH_BYTES = 64 * 2 ** 20, STEP_MS = 700, READING_MS = 120, RETRY_MS = 3000;

// ---------------------------------------------------------------- bytes

async function inflate(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return buffer;  // the transport has already unpacked it
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const ARRAYS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

async function unpack(buffer) {
  const raw = await inflate(buffer);
  const view = new DataView(raw);
  if (view.getUint32(0) !== 0x56695458) throw new Error("This is no message for the viewer.");
  if (view.getUint32(4, true) !== 1) throw new Error("This message needs a newer viewer.");
  const start = 16 + view.getUint32(8, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 16, start - 16)));
  const arrays = {};
  for (const [name, { dtype, shape, offset }] of Object.entries(header.sections)) {
    const count = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new ARRAYS[dtype](raw, start + offset, count);
    arrays[name].shape = shape;
  }
  return { meta: header.meta, arrays, bytes: buffer.byteLength };
}

function tableOf(colors, index) {  // 256 colours as 0xAABBGGRR
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (index * 256 + i) * 3;
    return (0xff << 24 | colors[at + 2] << 16 | colors[at + 1] << 8 | colors[at]) >>> 0;
  });
}

async function open(source) {
  const { meta, arrays, bytes } = await unpack(await source.head());
  const [h, w] = meta.grid_size;
  const image = await createImageBitmap(new Blob([arrays.image]));
  return {
    ...meta, ...arrays, image, source, h, w, bytes,
    P: h * w, T: meta.num_tokens, L: meta.num_layers, H: meta.num_heads, pre: meta.num_prefix_tokens,
    Q: arrays.tokens_sent.length,
    tables: Object.fromEntries(meta.colormaps.map((name, i) => [name, tableOf(arrays.colormaps, i)])),
    layers: Array(meta.num_layers).fill(null), wanted: new Map(), loaded: 0,
    maps: new Map(), asked: new Set(), refused: {},  // refused: {method: why}
    names: new Map(meta.classes.map((c) => [c.index, c.name])),  // of the likeliest classes, and of explained ones
  };
}

// A layer, or "embeddings": fetched once; if that failed, once more after a while.
function need(data, what) {
  if (data.wanted.has(what)) return data.wanted.get(what);
  const bytes = what === "embeddings" ? data.source.embeddings() : data.source.layer(what);
  const coming = bytes.then(unpack).then((message) => {
    if (what === "embeddings") Object.assign(data, message.arrays);
    else {
      data.layers[what] = message.arrays;
      data.loaded += 1;
    }
    data.bytes += message.bytes;
  });
  data.wanted.set(what, coming);
  coming.catch(() => setTimeout(() => data.wanted.delete(what), RETRY_MS));
  return coming;
}

// ---------------------------------------------------------------- weights

// One query's weights, from uint8 rows on a square-root scale, into out[at ... at + T).
function read(out, at, steps, maxima, matrix, query, direction, data) {
  const { T, Q, pre, row_of } = data;
  if (direction === "row") {
    const row = matrix * Q + row_of[query], from = row * T;
    const toPrefix = maxima[2 * row] / 65025, toPatch = maxima[2 * row + 1] / 65025;
    for (let k = 0; k < pre; k++) out[at + k] = toPrefix * steps[from + k] * steps[from + k];
    for (let k = pre; k < T; k++) out[at + k] = toPatch * steps[from + k] * steps[from + k];
  } else {
    const part = query < pre ? 0 : 1;
    for (let k = 0; k < T; k++) {
      const row = matrix * Q + row_of[k], q = steps[row * T + query];
      out[at + k] = maxima[2 * row + part] / 65025 * q * q;
    }
  }
}

let scratch = new Float32Array(0);
function fused(out, at, layer, how, query, direction, data) {
  const { T, H } = data;
  if (scratch.length < T) scratch = new Float32Array(T);
  out.fill(0, at, at + T);
  for (let head = 0; head < H; head++) {
    read(scratch, 0, layer.attn, layer.attn_max, head, query, direction, data);
    if (how === "mean") for (let k = 0; k < T; k++) out[at + k] += scratch[k] / H;
    else for (let k = 0; k < T; k++) out[at + k] = Math.max(out[at + k], scratch[k]);
  }
}

function cosinesTo(out, at, rows, query, data) {
  const from = data.row_of[query] * data.T;
  for (let k = 0; k < data.T; k++) out[at + k] = rows[from + k] / 127 - 1;
}

// A sheet: small maps of one kind, in rows and columns. fill(out, i) -> false where the bytes are not there yet.
function sheetOf(data, state, now, direction, methods) {
  const { L, H, T, P, pre, h, w } = data;
  const grid = { cellWidth: w, cellHeight: h, size: T, first: pre, unit: "share" };
  const strip = (count, label) => ({ ...grid, count, label, fused: 0 });  // its columns follow from the room there is
  if (state.mode === "attention") return {
    ...grid, count: L * (H + 2), rows: L, cols: H + 2, fused: 2,
    fill(out, i) {
      const layer = data.layers[Math.floor(i / (H + 2))], head = i % (H + 2);
      if (!layer) return false;
      if (head < H) read(out, i * T, layer.attn, layer.attn_max, head, now.query, direction, data);
      else fused(out, i * T, layer, head === H ? "mean" : "max", now.query, direction, data);
    },
  };
  if (state.mode === "rollout") return {
    ...strip(L, (i) => "L" + i),
    fill(out, i) {
      const layer = data.layers[i];
      if (!layer || !layer.rollout) return false;
      read(out, i * T, layer.rollout, layer.rollout_max, 0, now.query, direction, data);
    },
  };
  if (state.mode === "method") return {
    ...strip(methods.length, (i) => methods[i].label), unit: "value", size: P, first: 0,
    fill(out, i) {
      const map = data.maps.get(keyOf(methods[i], now));
      if (!map) return false;
      out.set(map, i * P);
    },
  };
  const depth = (i) => i === 0 ? "embed" : "L" + (i - 1);
  return {
    pca: () => ({
      ...strip(L + 1, depth), size: 3 * P, first: 0, unit: "color", colors: data["pca_" + state.basis] ?? null, fill: () => false,
    }),
    similarity: () => ({
      ...strip(L + 1, depth), unit: "cosine",
      fill(out, i) {
        const layer = data.layers[Math.max(i - 1, 0)];
        if (!layer) return false;
        cosinesTo(out, i * T, i === 0 ? layer.similarity_embed : layer.similarity, now.query, data);
      },
    }),
    norms: () => ({
      ...strip(L + 1, depth), unit: "norm",
      fill(out, i) { out.set(data.norms.subarray(i * T, (i + 1) * T), i * T); },
    }),
    positions: () => ({
      ...grid, count: P, rows: h, cols: w, fused: 0, size: P, first: 0, unit: "cosine",
      fill(out, i) {
        if (!data.positions) return false;
        for (let k = 0; k < P; k++) out[i * P + k] = data.positions[i * P + k] / 127 - 1;
      },
    }),
    filters: () => {
      const [count, cellHeight, cellWidth] = data.filters?.shape ?? [28, 8, 8];
      const size = 3 * cellHeight * cellWidth, colors = data.filters ?? null;
      return { ...strip(count, () => ""), cellWidth, cellHeight, size, first: 0, colors, unit: "color", fill: () => false };
    },
  }[state.embedding]();
}

// What a method's map depends on is what its key holds.
function keyOf(method, now) {
  return [method.name, ...(method.depends ?? ["target"]).map((name) => name + (now[name] ?? -1))].join(" ");
}

function fillSheet(sheet, memory) {
  const { count, size, first } = sheet;
  if (memory.values.length < count * size) memory.values = new Float32Array(count * size);
  sheet.values = memory.values;
  sheet.tops = new Float32Array(count);
  sheet.lows = new Float32Array(count);
  sheet.ready = new Uint8Array(count);
  if (sheet.colors) { sheet.ready.fill(1); return sheet; }
  for (let i = 0; i < count; i++) {
    if (sheet.fill(sheet.values, i) === false) continue;
    let top = -Infinity, low = Infinity;
    for (let k = i * size + first; k < (i + 1) * size; k++) {
      const value = sheet.values[k];
      if (value > top) top = value;
      if (value < low) low = value;
    }
    sheet.tops[i] = top;
    sheet.lows[i] = low;
    sheet.ready[i] = 1;
  }
  return sheet;
}

// ---------------------------------------------------------------- colour

// How a cell's values become the numbers 0 ... 255 of a colour table.
function rangeOf(sheet, i, scale, data) {
  const single = (k) => k % sheet.cols < sheet.cols - sheet.fused;
  const topOf = (from, to) => {
    let top = 0;
    for (let k = from; k < to; k++) if (sheet.ready[k] && single(k)) top = Math.max(top, sheet.tops[k]);
    return top;
  };
  if (sheet.unit === "cosine") return { low: 0, high: 1 };
  if (sheet.unit === "share" && scale === "uniform") return { uniform: 1 / data.T };
  if (sheet.unit === "value") {
    const high = Math.max(sheet.tops[i], -sheet.lows[i]);
    return { low: sheet.lows[i] < 0 ? -high : 0, high, signed: sheet.lows[i] < 0 };
  }
  const row = Math.floor(i / sheet.cols) * sheet.cols;
  if (scale === "all") return { low: 0, high: topOf(0, sheet.count) };
  if (scale === "layer" && sheet.fused) return { low: 0, high: topOf(row, row + sheet.cols) };
  return { low: 0, high: sheet.tops[i] };
}

function level(value, range) {  // 0 ... 1
  const t = range.uniform
    ? 0.5 + Math.log2(Math.max(value / range.uniform, 1e-9)) / (2 * OCTAVES)
    : (value - range.low) / (range.high - range.low || 1);
  return t < 0 ? 0 : t > 1 ? 1 : t;
}

function tableFor(range, state, data) {
  const name = range.signed ? data.signed_colormaps[0] : state.colormap;
  return data.tables[name] ?? Object.values(data.tables)[0];
}

// One cell as colours, one number per patch.
function colorize(out, sheet, i, range, table) {
  const { cellWidth, cellHeight, size, first, colors } = sheet;
  const count = cellWidth * cellHeight;
  if (colors) {
    for (let k = 0, at = i * count * 3; k < count; k++, at += 3)
      out[k] = 0xff000000 | colors[at + 2] << 16 | colors[at + 1] << 8 | colors[at];
    return;
  }
  const values = sheet.values, at = i * size + first;
  if (range.uniform) for (let k = 0; k < count; k++) out[k] = table[Math.round(255 * level(values[at + k], range))];
  else {
    const gain = 255 / (range.high - range.low || 1), low = range.low;
    for (let k = 0; k < count; k++) {
      const step = (values[at + k] - low) * gain + 0.5;
      out[k] = table[step < 0 ? 0 : step > 255 ? 255 : step | 0];
    }
  }
}

// ---------------------------------------------------------------- words

function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.01) return "<\u00a00.01\u00a0%";
  return (value >= 9.95 ? value.toFixed(0) : value >= 0.995 ? value.toFixed(1) : value.toFixed(2)) + "\u00a0%";
}
const short = (value) => Math.abs(value) >= 100 || value === 0 ? value.toFixed(0)
  : Math.abs(value) >= 0.1 ? value.toPrecision(3) : value.toExponential(1);
// what is said of a class: a probability, or the number itself
const written = (value, data) => data.scores === "none" ? String(Number(value.toPrecision(4))) : percent(value);
const place = (token, data) => `(${Math.floor((token - data.pre) / data.w)},\u00a0${(token - data.pre) % data.w})`;
const nameOf = (token, data) => token < data.pre ? data.prefix_names[token] : "patch " + place(token, data);
const among = (token, query, data) => token === query ? "itself"
  : token < data.pre ? data.prefix_names[token] : place(token, data);

function largest(values, from, to, count) {
  const best = [];
  for (let k = from; k < to; k++) {
    if (best.length === count && values[k] <= values[best[count - 1]]) continue;
    let at = best.length;
    while (at > 0 && values[best[at - 1]] < values[k]) at--;
    best.splice(at, 0, k);
    if (best.length > count) best.pop();
  }
  return best;
}

function titleOf(state, now, data, methods) {
  if (state.mode === "attention") {
    if (now.fuse === "one") return `L${now.layer}.H${now.head}`;
    return `L${now.layer}, ${now.fuse} of ${data.H} heads`;
  }
  if (state.mode === "rollout") return `Rollout up to L${now.layer}`;
  if (state.mode === "method") return methods.find((m) => m.name === now.method)?.label ?? "Method";
  if (state.embedding === "positions") return "Position embeddings";
  if (state.embedding === "filters") return "Patch filters";
  return now.layer < 0 ? "After the embedding" : `After L${now.layer}`;
}

function sentence(state, now, data, pane, methods) {
  const { sheet, cell } = pane;
  const title = titleOf(state, now, data, methods);
  const computed = data.refused[now.method] ?? (data.source.closed ? "not in this file for this class"
    : now.method === state.method ? "this map is being computed …" : "choose it, and this map is computed …");
  if (!sheet.ready[cell]) return [title, state.mode === "method" ? computed : "on its way …"];
  const at = cell * sheet.size;
  const values = sheet.colors ? null : sheet.values.subarray(at, at + sheet.size);
  // Of a large picture not every row is sent: then it is the nearest one's that is drawn.
  const whole = pane.direction === "column" || state.mode === "embeddings" && state.embedding === "positions";
  const token = whole ? now.query : data.tokens_sent[data.row_of[now.query]];
  const who = nameOf(token, data) + (token === now.query ? "" : ", the nearest that was sent,");
  if (sheet.unit === "share") {
    const best = largest(values, 0, data.T, 4);
    const parts = best.filter((k) => values[k] > 0).map((k) => [values[k], among(k, token, data)]);
    if (pane.direction === "column") {
      const list = parts.map(([v, name]) => `${name} (${percent(v)})`).join(", ");
      return [title, `${who} gets most from ${list} of what they give`];
    }
    const list = parts.map(([v, name]) => `${percent(v)} to ${name}`).join(", ");
    return [title, `${who} gives ${list}`];
  }
  if (sheet.unit === "value") {
    const best = largest(values, 0, data.P, 3).map((k) => place(k + data.pre, data)).join(", ");
    const ofClass = (methods.find((m) => m.name === now.method)?.depends ?? ["target"]).includes("target");
    const label = ofClass && data.names.get(now.target);
    return [title, `strongest at ${best}${label ? ` for “${label}”` : ""}`];
  }
  if (sheet.unit === "norm") {
    const best = largest(values, 0, data.T, 3).map((k) => `${nameOf(k, data)} (${short(values[k])})`).join(", ");
    let sum = 0;
    for (let k = data.pre; k < data.T; k++) sum += values[k];
    return [title, `longest tokens ${best}; patches have ${short(sum / data.P)} on average`];
  }
  if (sheet.unit === "cosine") {
    const own = state.embedding === "positions" ? token - data.pre : token;
    const shift = state.embedding === "positions" ? data.pre : 0;
    const best = largest(values, 0, values.length, 5).filter((k) => k !== own).slice(0, 3);
    const list = best.map((k) => `${among(k + shift, -1, data)} (${values[k].toFixed(2)})`).join(", ");
    return [title, `${who} is most like ${list}`];
  }
  if (state.embedding === "filters") return [title, `the ${sheet.count} directions in which the patch filters differ most`];
  const basis = state.basis === "joint" ? "one basis for all depths" : "a basis of its own";
  return [title, `the first three principal components of the patches as red, green and blue (${basis})`];
}

// ---------------------------------------------------------------- elements

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "role" && !name.startsWith("aria")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function choice(label, options, onpick) {
  const name = "vit-" + (window.__vitNames = (window.__vitNames ?? 0) + 1);  // one count for all viewers of the page
  const radios = options.map(([value, text, title = ""]) => el("label", { title },
    el("input", { type: "radio", name, value, onchange: () => onpick(value) }), el("span", {}, text)));
  const node = el("fieldset", { class: "choice" }, el("legend", {}, label), el("div", { class: "segments" }, ...radios));
  node.show = (value, allowed = null) => {
    for (const radio of node.querySelectorAll("input")) {
      radio.checked = radio.value === value;
      radio.parentNode.hidden = allowed !== null && !allowed.includes(radio.value);
    }
  };
  return node;
}

function toggle(text, title, onpick) {
  const box = el("input", { type: "checkbox", onchange: () => onpick(box.checked) });
  const node = el("label", { class: "toggle", title }, box, el("span", {}, text));
  node.show = (value) => { box.checked = value; };
  return node;
}

function icon(path) {
  const span = el("span", { class: "icon" });
  span.innerHTML = `<svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d="${path}"/></svg>`;
  return span;
}
const ICONS = {
  play: "M4.5 2.8v10.4L13 8z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  intervene: "M2.7 1.5h10.6c.7 0 1.2.5 1.2 1.2v10.6c0 .7-.5 1.2-1.2 1.2H2.7c-.7 0-1.2-.5-1.2-1.2V2.7c0-.7.5-1.2 1.2-1.2zM3 3v8.9L11.9 3zm10 1.1L4.1 13H13z",
  link: "M6.6 9.4a.7.7 0 0 1 0-1l3-3a.7.7 0 1 1 1 1l-3 3a.7.7 0 0 1-1 0zM4.5 13.6a3.1 3.1 0 0 1-2.2-5.3L4.2 6.4a.7.7 0 1 1 1 1L3.3 9.3a1.7 1.7 0 0 0 2.4 2.4l1.9-1.9a.7.7 0 1 1 1 1l-1.9 1.9c-.6.6-1.4.9-2.2.9zm6.8-3.8a.7.7 0 0 1-.5-1.2l1.9-1.9a1.7 1.7 0 0 0-2.4-2.4L8.4 6.2a.7.7 0 1 1-1-1l1.9-1.9a3.1 3.1 0 0 1 4.4 4.4l-1.9 1.9a.7.7 0 0 1-.5.2z",
};

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const KEYS = [
  ["← →", "previous or next head (Methods: method; without heads: layer)"],
  ["↑ ↓", "previous or next layer"],
  ["Shift + arrows", "move the query patch"],
  ["Home", "query = the first token, [CLS]"],
  ["Space", "play through depth"],
  ["Enter", "pin the query; Esc lets it go"],
  ["1 2 3", "one head, mean, max over heads"],
  ["d", "direction: looks at, is looked at by, both"],
  ["x", "Intervene: hide or show the query patch"],
  ["o", "Intervene: switch the head off or on"],
  ["?", "this list"],
];

// ---------------------------------------------------------------- the address bar

function readAddress() {
  const found = {};
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
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

function addressOf(state, defaults) {
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

function writeAddress(state, defaults) {
  const hash = addressOf(state, defaults);
  if (location.hash.slice(1) === hash) return;
  const whole = location.pathname + location.search + (hash && "#" + hash);  // a page may have a <base>
  history.replaceState(history.state, "", whole);
  if ([...(location.ancestorOrigins ?? [])].includes("https://huggingface.co"))  // a Space lives in a frame
    window.parent.postMessage({ hash }, "https://huggingface.co");
}

// ---------------------------------------------------------------- mount

const channels = window.__vitChannels ??= new Map();

function mount(root, source, options = {}) {
  const emit = options.emit ?? (() => {});
  const methods = (options.methods ?? []).slice();
  const addressed = options.address && /^(https?|file):$/.test(location.protocol);  // a notebook's frame has no address
  const defaults = { ...START, ...options.state }, named = addressed ? readAddress() : {};
  const state = { ...defaults, ...named };
  let depthChosen = "layer" in named || "layer" in (options.state ?? {});
  const hover = {};                       // query, layer, head, fuse, method: what the pointer previews
  const pointer = { pane: -1, token: -1 };  // the patch under the pointer, pinned or not
  // Milliseconds: draw, of our own code; work, from a frame's start to after it was presented; hover, from the event's
  // time stamp to there, waiting for the frame included; frames, between two frames of play.
  const perf = { draw: [], work: [], hover: [], frames: [], first: null, pictures: [], painted: null };
  const still = matchMedia("(prefers-reduced-motion: reduce)"), touch = matchMedia("(hover: none)");
  let data = null, after = null, generation = 0, playing = null, mix = 0, intervening = false, theme = {};
  const memories = [{ values: new Float32Array(0) }, { values: new Float32Array(0) }];

  // ---- what is shown: the pinned, under what is hovered

  function shown() {
    const likeliest = data?.classes[0]?.index ?? -1;
    const now = {
      layer: state.layer, head: state.head, fuse: state.fuse, query: state.query, method: state.method,
      target: state.target < 0 ? likeliest : state.target, ...hover,
    };
    if (state.mode === "embeddings" && state.embedding === "positions" && now.query < data.pre) now.query = data.pre;
    return now;
  }

  function cellOf(now, sheet) {
    if (state.mode === "attention") {
      const column = now.fuse === "one" ? now.head : data.H + (now.fuse === "max" ? 1 : 0);
      return now.layer * sheet.cols + column;
    }
    if (state.mode === "rollout") return now.layer;
    if (state.mode === "method") return Math.max(0, methods.findIndex((m) => m.name === now.method));
    if (state.embedding === "positions") return now.query - data.pre;
    if (state.embedding === "filters") return Math.min(hover.filter ?? 0, sheet.count - 1);
    return now.layer + 1;
  }

  function pickOf(cell, sheet) {  // the inverse: what a cell of the sheet stands for
    if (state.mode === "attention") {
      const layer = Math.floor(cell / sheet.cols), head = cell % sheet.cols;
      return head < data.H ? { layer, head, fuse: "one" } : { layer, fuse: head === data.H ? "mean" : "max" };
    }
    if (state.mode === "rollout") return { layer: cell };
    if (state.mode === "method") return { method: methods[cell].name };
    if (state.embedding === "positions") return { query: cell + data.pre };
    if (state.embedding === "filters") return { filter: cell };
    return { layer: cell - 1 };
  }

  const lowestLayer = () => state.mode === "embeddings" ? -1 : 0;
  const directional = () => state.mode === "attention" || state.mode === "rollout";
  const ofImage = () => state.mode !== "embeddings" || state.embedding !== "filters";
  const asksQuery = () => directional()
    || state.mode === "embeddings" && ["similarity", "positions"].includes(state.embedding);

  function clamp() {
    if (!data) return;
    const fit = (value, low, high) => Math.max(low, Math.min(high, Math.round(value)));
    if (!depthChosen) state.layer = data.L - 1;
    depthChosen = true;
    state.layer = fit(state.layer, lowestLayer(), data.L - 1);
    state.head = fit(state.head, 0, data.H - 1);
    state.query = fit(state.query, 0, data.T - 1);
    state.opacity = Math.max(0, Math.min(1, state.opacity));
    state.patches = state.patches.filter((patch) => patch >= 0 && patch < data.P);
    state.heads = state.heads.filter((key) => {
      const [layer, head] = key.split(".").map(Number);
      return layer >= 0 && layer < data.L && head >= 0 && head < data.H;
    });
    for (const [name, choices] of Object.entries(ONE_OF)) if (!choices.includes(state[name])) state[name] = START[name];
    if (!Object.hasOwn(data.tables, state.colormap)) state.colormap = Object.keys(data.tables)[0];
    if (!methods.some((m) => m.name === state.method)) state.method = methods[0]?.name ?? "";
    if (state.mode === "embeddings" && !embeddings().includes(state.embedding)) state.embedding = embeddings()[0];
    if (!modes().includes(state.mode)) state.mode = "attention";
  }

  const embeddings = () => data?.source.embeddings ? data.embeddings : ["similarity", "norms"];
  const modes = () => (options.modes ?? ["attention", "rollout", "method", "embeddings"])
    .filter((name) => name !== "method" || methods.length || !data);

  // ---- changes

  function set(patch, quiet = false) {
    const moved = ["mode", "embedding", "direction"].some((name) => name in patch && patch[name] !== state[name]);
    Object.assign(state, patch);
    if ("layer" in patch) depthChosen = true;
    clamp();
    if (moved) layout();
    sync();
    draw();
    if (addressed) later("address", 250, () => writeAddress(state, defaults));
    if (!quiet) tell(patch);
    if (data) wantMore();
  }

  function commit(patch, event) {
    for (const name of Object.keys(hover)) delete hover[name];
    set(patch);
    if (event) perf.since.push(event.timeStamp);
    tellPick();
  }

  function tellPick() {
    const { query, layer, head, fuse, direction, mode } = state;
    later("pick", 120, () => emit("pick", { query, layer, head, fuse, direction, mode }));
  }

  function preview(patch, event) {
    const same = Object.keys({ ...hover, ...patch }).every((name) => hover[name] === patch[name]);
    if (same) return;
    for (const name of Object.keys(hover)) delete hover[name];
    Object.assign(hover, patch);
    draw(event);
    tell();
  }

  const timers = {};
  function later(name, wait, action) {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(action, wait);
  }

  // ---- linked viewers: patches travel as places on the image, so that grids may differ

  function relative(token) {
    if (token < data.pre) return { prefix: token };
    const patch = token - data.pre;
    return { y: (Math.floor(patch / data.w) + 0.5) / data.h, x: (patch % data.w + 0.5) / data.w };
  }
  function absolute({ prefix, y, x }) {
    if (prefix !== undefined) return Math.min(prefix, Math.max(0, data.pre - 1));
    return data.pre + Math.floor(y * data.h) * data.w + Math.floor(x * data.w);
  }
  function tell(patch = {}) {  // what has changed, not all: the others may have fewer layers, or a coarser grid
    if (!options.link || !data) return;
    const names = SHARED.filter((name) => name in patch), channel = channels.get(options.link);
    const message = { state: Object.fromEntries(names.map((name) => [name, state[name]])), hover: { ...hover } };
    if ("query" in patch) message.at = relative(state.query);
    if (hover.query !== undefined) message.hoverAt = relative(hover.query);
    Object.assign(channel.said.state, message.state);
    if (message.at) channel.said.at = message.at;
    for (const other of channel.members) if (other !== hear) other(message);
  }
  function hear(message) {
    if (!data) return;
    for (const name of Object.keys(hover)) delete hover[name];
    Object.assign(hover, message.hover);
    if (message.hoverAt) hover.query = absolute(message.hoverAt);
    if (hover.layer !== undefined) hover.layer = Math.min(hover.layer, data.L - 1);
    if (hover.head !== undefined) hover.head = Math.min(hover.head, data.H - 1);
    set({ ...message.state, ...(message.at && { query: absolute(message.at) }) }, true);
  }

  // ---- sources

  let intervention = null;
  let arrive = null, arrival = null;  // maps and edits wait for the trace that they belong to
  const expectArrival = () => { arrival = new Promise((resolve) => { arrive = resolve; }); };
  expectArrival();

  async function setSource(next) {  // -> false if what is wanted could not be shown
    const mine = ++generation;
    expectArrival();
    root.classList.add("is-loading");
    next.expect?.(state.layer);
    try {
      next.opened ??= open(next);  // a source shown before is shown again at once
      next.opened.catch(() => { next.opened = null; });  // one that failed is tried again
      const opened = await next.opened;
      if (mine !== generation) return true;
      const before = data;
      const first = !before;
      if (first) adopt(opened, before);
      const layer = state.layer < 0 ? (depthChosen ? 0 : opened.L - 1) : Math.min(Math.round(state.layer), opened.L - 1);
      await need(opened, layer);
      if (mine !== generation) return true;
      if (!first) adopt(opened, before);
      draw();
      await prefetch(opened, layer, () => mine === generation);
      if (mine === generation) {
        root.dispatchEvent(new CustomEvent("vit-loaded", { bubbles: true }));
        if (parts.working.textContent === complaint) working("");  // that was of another picture
      }
      return true;
    } catch (error) {
      if (mine === generation) complain(error);
      return mine !== generation;
    } finally {
      if (mine === generation) {
        root.classList.remove("is-loading");
        draw();
      }
    }
  }

  function adopt(opened, before) {
    const other = before && ["h", "w", "pre", "L", "H"].some((name) => before[name] !== opened[name]);
    const places = other ? [state.query, ...state.patches.map((patch) => before.pre + patch)].map(relative) : [];
    data = opened;
    after = null;
    if (other) {  // everything stays at its place on the picture; what the pointer was over is gone
      const [query, ...patches] = places.map(absolute);
      state.query = query;
      state.patches = [...new Set(patches.map((token) => token - data.pre))];
      for (const name of Object.keys(hover)) delete hover[name];
      pointer.pane = pointer.token = -1;
    }
    clamp();
    build();
    layout();
    sync();
    draw();
    arrive();
    if (!before) introduce();
    wantMore();
    if (other) tellPick();  // the same place has another number here
    if (options.intervene && (state.patches.length || state.heads.length)) tellEdits();  // they hold for this one, too
  }

  function introduce() {  // what was said before this viewer came, and what its own address says
    const said = channels.get(options.link)?.said;
    if (said && Object.keys(said.state).length) hear(said);
    else if (Object.keys(named).length) tell(state);
    if ("target" in named) emit("target", { target: state.target });
    if (Object.keys(named).length) tellPick();
  }

  async function prefetch(from, layer, current) {
    const few = from.L * from.layer_bytes > PREFETCH_BYTES;
    const rest = from.layers.map((_, l) => l).filter((l) => !few || Math.abs(l - layer) <= 1)
      .sort((a, b) => Math.abs(a - layer) - Math.abs(b - layer));
    const work = async () => {
      while (rest.length && current()) {
        await need(from, rest.shift());
        draw();
      }
    };
    await Promise.all([work(), work(), work()]);
  }

  async function setAfter(next) {
    const asked = intervention = {}, mine = generation, current = () => asked === intervention && mine === generation;
    let opened = null;
    try {
      if (next) {
        [opened] = await Promise.all([open(next), arrival]);
        if (!current()) return;
        await need(opened, Math.max(0, state.layer));
        if (!current()) return;
      }
      await lifted;  // nothing moves under a pointer that paints
      if (!current()) return;
      after = opened;
      answered = true;
      buildClasses();
      layout();
      sync();
      draw();
      wantMore();
      if (opened) await prefetch(opened, Math.max(0, state.layer), current);
    } catch (error) {
      if (current()) complain(error);
    }
  }

  async function addMaps(buffer) {
    const mine = generation, coming = arrival;
    const { meta, arrays } = await unpack(buffer);
    await coming;
    if (mine !== generation) return;  // they explain a picture that is gone
    if (meta.class_name) data.names.set(meta.target, meta.class_name);
    for (const [name, map] of Object.entries(arrays)) {
      if (!methods.some((m) => m.name === name)) methods.push({ name, label: name.replaceAll("_", " "), about: "" });
      data.maps.set(keyOf(methods.find((m) => m.name === name), meta), map);
    }
    working("");
    clamp();
    layout();
    sync();
    draw();
  }

  function wantMore() {
    if (state.mode === "embeddings" && !["similarity", "norms"].includes(state.embedding))
      for (const one of [data, after]) if (one?.source.embeddings && !one.pca_joint)
        need(one, "embeddings").then(() => { layout(); draw(); }, complain);
    if (state.mode !== "method" || !methods.length || data.source.closed) return;
    const now = { ...shown(), ...state, target: shown().target };
    const method = methods.find((m) => m.name === state.method);
    const key = keyOf(method, now), { asked } = data;
    if (data.maps.has(key) || asked.has(key)) return;
    const { query, layer, head, target } = now, mine = generation;
    later("need", 60, () => {
      asked.add(key);
      setTimeout(() => {  // it may have been passed over for one that was wanted after it
        asked.delete(key);
        if (mine === generation && !data.refused[method.name]) wantMore();
      }, 15000);
      emit("need_maps", { method: method.name, target, query, layer, head });
    });
  }

  async function refuse(why) {  // {method: why its map does not come}, of the trace that is shown or coming
    const mine = generation;
    await arrival;
    if (mine !== generation) return;
    Object.assign(data.refused, why);
    draw();
  }

  let complaint = "";
  function complain(error) {
    working(complaint = error?.message ?? "The viewer could not be loaded.");
  }
  function working(text) { parts.working.textContent = text; }

  // ---- the page

  const parts = {};
  const part = (name, node) => parts[name] = node;
  const MODES = [["attention", "Attention"], ["rollout", "Rollout"], ["method", "Methods"], ["embeddings", "Embeddings"]];

  function pane(index) {
    const node = el("figure", { class: "pane" },
      el("figcaption", {}, el("span", { class: "label" }), el("span", { class: "value" })),
      el("canvas", {
        class: "picture", tabIndex: 0, role: "application", "aria-roledescription": "attention map", "aria-label": "Image",
      }));
    const canvas = node.querySelector("canvas");
    canvas.addEventListener("pointermove", (event) => onStage(event, index));
    canvas.addEventListener("pointerdown", (event) => onStageDown(event, index));
    canvas.addEventListener("pointerleave", (event) => offStage(event));
    canvas.addEventListener("click", (event) => onStageClick(event));
    return { node, canvas, label: node.querySelector(".label"), value: node.querySelector(".value") };
  }
  const panes = [pane(0), pane(1)];
  const small = document.createElement("canvas");     // one map, one pixel per patch
  const matrixImage = document.createElement("canvas");

  root.classList.add("vit-viewer");
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", options.name ?? "Viewer of a Vision Transformer");
  root.replaceChildren(
    el("div", { class: "bar" },
      part("mode", choice("View", MODES, (mode) => commit({ mode }))),
      part("direction", choice("Direction", [["row", "Looks at"], ["column", "Is looked at by"], ["both", "Both"]],
        (direction) => commit({ direction }))),
      part("method", el("select", { "aria-label": "Method", onchange: (e) => commit({ method: e.target.value }) })),
      part("embedding", choice("Show", [["pca", "PCA colours"], ["similarity", "Similarity"], ["norms", "Norms"],
        ["positions", "Positions"], ["filters", "Patch filters"]], (embedding) => commit({ embedding }))),
      el("span", { class: "spring" }),
      part("working", el("span", { class: "working", role: "status" })),
      part("intervene", el("button", {
        type: "button", class: "button", title: "Hide patches, switch heads off", "aria-pressed": "false",
        onclick: () => { intervening = !intervening; layout(); sync(); draw(); },
      }, icon(ICONS.intervene), el("span", { class: "text" }, "Intervene"))),
      part("copy", el("button", { type: "button", class: "button", title: "Copy a link to this view", onclick: copyLink },
        icon(ICONS.link), part("copyText", el("span", { class: "text" }, "Copy link")))),
      el("button", {
        type: "button", class: "button round keys", title: "All keys (?)", "aria-label": "All keys",
        onclick: () => parts.help.showModal(),
      }, "?")),
    part("edits", el("div", { class: "edits" },
      part("editsSaid", el("span", { class: "said", role: "status" })),
      part("editQuery", el("button", { type: "button", class: "button", onclick: hideQuery }, "Hide query patch")),
      part("editHead", el("button", { type: "button", class: "button", onclick: () => switchHead(state.layer, state.head) },
        "Switch head off")),
      part("editUndo", el("button", { type: "button", class: "button", onclick: () => edit({ patches: [], heads: [] }) }, "Undo all")),
      part("editSide", choice("Small maps", [["before", "Before"], ["after", "After"]], (matrix) => set({ matrix }))))),
    part("body", el("div", { class: "body" },
      part("stage", el("section", { class: "stage", "aria-label": "Image" },
        part("panes", el("div", { class: "panes" }, panes[0].node, panes[1].node)),
        el("p", { class: "readout" }, part("title", el("b")), " ", part("words", el("span"))),
        part("chips", el("div", { class: "chips", role: "group", "aria-label": "Prefix tokens" })),
        el("div", { class: "under" },
          part("gauge", el("div", { class: "gauge" },
            el("div", { class: "track" }, part("gaugeFill", el("div", { class: "fill" }))),
            part("gaugeText", el("span")))),
          part("legend", el("div", { class: "legend" },
            part("legendLow", el("span")), part("legendBar", el("canvas", { width: 256, height: 1 })),
            part("legendHigh", el("span")),
            part("legendName", el("span", { class: "quiet" }))))),
        part("transport", el("div", { class: "transport" },
          part("play", el("button", { type: "button", class: "button round play", onclick: play })),
          part("depth", el("input", {
            type: "range", step: 1, "aria-label": "Layer", oninput: (e) => commit({ layer: +e.target.value }, e),
          })),
          part("depthText", el("span", { class: "depth" })),
          part("headBox", el("label", { class: "stepper" }, el("span", { class: "sr" }, "Head"),
            part("head", el("select", { onchange: (e) => pickHead(e.target.value) })))))))),
      part("panel", el("section", { class: "panel", "aria-label": "Small maps" },
        el("h3", {}, part("panelTitle", el("span")), part("panelNote", el("span", { class: "quiet" }))),
        part("panelRow", el("div", { class: "row" },
          part("sheetBox", el("div", { class: "sheet" },
            part("sheetCanvas", el("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "small maps" })),
            part("labels", el("div", { class: "labels", "aria-hidden": "true" })))))),
        part("about", el("p", { class: "quiet about" })))),
      part("side", el("section", { class: "side", "aria-label": "Prediction and figures" },
        part("classesBox", el("div", { class: "block predictions" }, el("h3", {}, "Prediction"),
          part("classes", el("div", { class: "classes" })))),
        el("div", { class: "block" },
          el("h3", {}, "Token × token", part("matrixNote", el("span", { class: "quiet" }))),
          part("matrix", el("canvas", { class: "matrix", tabIndex: 0, role: "application", "aria-roledescription": "token matrix" }))),
        part("charts", el("div", { class: "block charts" })))))),
    part("settings", el("div", { class: "settings" },
      part("basis", choice("Basis", [["joint", "All depths", "One basis for all depths: change is visible"],
        ["depth", "Each depth", "A basis of its own for every depth"]], (basis) => commit({ basis }))),
      part("scale", choice("Scale", [["map", "This map", "The brightest colour is the largest weight of this map"],
        ["layer", "Layer", "One scale for all heads of a layer"], ["all", "All", "One scale for all maps"],
        ["uniform", "× uniform", "Relative to uniform attention, logarithmic: a flat head looks flat"]],
        (scale) => commit({ scale }))),
      el("label", { class: "field" }, el("span", { class: "name" }, "Colours"),
        part("colormap", el("select", { onchange: (e) => commit({ colormap: e.target.value }) }))),
      el("label", { class: "field" }, el("span", { class: "name" }, "Opacity"),
        part("opacity", el("input", {
          type: "range", min: 0, max: 1, step: 0.05, oninput: (e) => set({ opacity: +e.target.value }),
        }))),
      el("div", { class: "field" }, el("span", { class: "name" }, "Overlay"), el("div", { class: "toggles" },
        part("fade", toggle("Fade", "Small weights let the image through", (fade) => set({ fade }))),
        part("smooth", toggle("Smooth", "Interpolated between patches: prettier, less true", (smooth) => set({ smooth }))),
        part("links", toggle("Links", "Arcs to the patches that weigh most", (links) => set({ links }))))))),
    part("live", el("div", { class: "sr", "aria-live": "polite" })),
    part("help", el("dialog", { class: "help", "aria-label": "Keys" }, el("h3", {}, "Keys"),
      el("dl", {}, ...KEYS.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])),
      el("p", { class: "quiet" }, "Hover a patch: every head answers. Click pins it. "
        + "Hover a small map to preview that head, click to keep it."),
      el("form", { method: "dialog" }, el("button", { class: "button" }, "Close")))));

  // Parts that depend on the trace.
  function build() {
    parts.chips.replaceChildren(...data.prefix_names.map((name, token) => {
      const pin = (event) => commit({ query: token, pinned: true }, event);
      const chip = el("button", { type: "button", class: "chip", onclick: pin },
        el("span", { class: "fill" }), el("span", { class: "name" }, name), el("span", { class: "share" }));
      chip.addEventListener("pointerenter", (event) => !state.pinned && preview({ query: token }, event));
      chip.addEventListener("pointerleave", (event) => preview({}, event));
      return chip;
    }));
    parts.head.replaceChildren(...Array.from({ length: data.H }, (_, head) => el("option", { value: head }, "Head " + head)),
      el("option", { value: "mean" }, "Mean of heads"), el("option", { value: "max" }, "Max of heads"));
    const tables = Object.keys(data.tables).filter((name) => !data.signed_colormaps.includes(name));
    parts.colormap.replaceChildren(...tables.map((name) => el("option", { value: name }, name)));
    buildClasses();
  }

  function buildClasses() {
    parts.classesBox.hidden = !data.classes.length || options.predictions === false && !after;
    const explains = options.modes?.includes("method") ?? true;
    const likeliest = data.classes.slice(0, 5), now = after?.classes[0];  // the answer of now, if it was not one before
    if (now && !likeliest.some((c) => c.index === now.index)) likeliest.push(now);
    parts.classes.replaceChildren(...likeliest.map((one) => {
      const before = data.class_values[one.index], edited = after?.class_values[one.index];
      const row = el("button", {
        type: "button", class: "class", title: explains ? `Explain “${one.name}”` : "", "data-index": one.index,
        disabled: !explains,
        onclick: () => { set({ target: one.index }); emit("target", { target: one.index }); },
      }, el("span", { class: "name" }, one.name), el("span", { class: "share" }, written(before, data)),
        el("span", { class: "bar-track" }, el("span", { class: "bar-fill" })));
      const shares = data.scores !== "none";  // of a number that is no probability there is no bar
      row.querySelector(".bar-track").hidden = !shares;
      row.querySelector(".bar-fill").style.width = 100 * before + "%";
      if (after) {
        const points = Math.round(1000 * (edited - before)) / 10;
        row.querySelector(".share").textContent = `${written(before, data)} → ${written(edited, data)}`;
        row.querySelector(".bar-track").append(el("span", { class: "bar-after" }));
        row.querySelector(".bar-after").style.left = 100 * edited + "%";
        row.title = shares ? `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(1)} points` : "";
      }
      return row;
    }));
  }

  // Small charts: one dot per head over the layers.
  const dots = [];
  function buildCharts() {
    dots.length = 0;
    parts.charts.hidden = state.mode === "embeddings";  // first: what is hidden has no width
    if (parts.charts.hidden) return;
    const room = parts.charts.clientWidth, across = Math.max(1, Math.floor((room + 20) / 220));
    const width = Math.min(340, (room - 20 * (across - 1)) / across);
    parts.charts.style.gridTemplateColumns = `repeat(${across}, ${width}px)`;
    const uniformShare = data.pre / data.T;
    const charts = [
      ["Attention distance", "pixels", data.distance, data.uniform_distance],
      ["Attention entropy", "nats", data.entropy, Math.log(data.T)],
      ["Share on prefix tokens", "", data.pre ? data.prefix_share : null, uniformShare],
    ].filter(([, , values]) => values);
    parts.charts.replaceChildren(...charts.map((chart) => chartOf(...chart, width)));
    parts.charts.hidden = !charts.length;
  }

  function chartOf(title, unit, values, uniform, width) {
    const { L, H } = data, height = 92, left = 36, right = 4, top = 14, bottom = 16;
    const high = Math.max(...values, uniform ?? 0) || 1;
    const text = unit ? short : percent;
    const x = (layer) => left + 6 + (L === 1 ? 0.5 : layer / (L - 1)) * (width - left - right - 12);
    const y = (value) => height - bottom - value / high * (height - top - bottom);
    const picture = svg("svg", { width, height, role: "img", "aria-label": `${title} of every head, by layer` });
    picture.append(svg("line", { x1: left, x2: width - right, y1: y(0), y2: y(0), class: "axis" }));
    const tick = (at, kind, words) => picture.append(svg("text", { ...at, class: "tick " + kind }, words));
    for (const value of [0, high]) tick({ x: left - 5, y: y(value) + 3.5 }, "end", value ? text(value) : "0");
    for (const layer of new Set([0, L - 1])) tick({ x: x(layer), y: height - 3 }, "middle", "L" + layer);
    if (uniform) {
      picture.append(svg("line", { x1: left, x2: width - right, y1: y(uniform), y2: y(uniform), class: "uniform" }));
    }
    const own = [];
    for (let layer = 0; layer < L; layer++) for (let head = 0; head < H; head++) {
      const value = values[layer * H + head], aside = H > 1 ? (head / (H - 1) - 0.5) * Math.min(6, 90 / L) : 0;
      const dot = svg("circle", { cx: x(layer) + aside, cy: y(value), r: 2.2, class: "dot" });
      picture.append(dot);
      own.push({ dot, layer, head, value });
    }
    if (uniform) tick({ x: width - right, y: y(uniform) - 4 }, "end halo", "uniform");
    dots.push(own);
    const note = el("span", { class: "quiet" });
    const nearest = (event) => {
      const box = picture.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
      const far = ({ dot }) => (dot.cx.baseVal.value - px) ** 2 + (dot.cy.baseVal.value - py) ** 2;
      return own.reduce((best, one) => far(one) < far(best) ? one : best);
    };
    picture.addEventListener("pointermove", (event) => {
      const { layer, head } = nearest(event);
      preview({ layer, head, fuse: "one" }, event);
    });
    picture.addEventListener("pointerleave", (event) => preview({}, event));
    picture.addEventListener("click", (event) => {
      const { layer, head } = nearest(event);
      commit({ layer, head, fuse: "one" }, event);
    });
    own.note = note;
    own.unit = unit;
    return el("div", { class: "chart" }, el("h3", {}, title, note), picture);
  }

  function markDots(now) {
    for (const own of dots) for (const one of own) {
      const here = one.layer === now.layer && (now.fuse !== "one" || one.head === now.head);
      const only = here && now.fuse === "one";
      if (one.here !== here) one.dot.classList.toggle("here", one.here = here);
      if (one.only !== only) one.dot.classList.toggle("only", one.only = only);
      if (only) own.note.textContent = own.unit ? `${short(one.value)} ${own.unit}` : percent(one.value);
      else if (here) own.note.textContent = own.unit;
    }
  }

  // ---- layout: whole device pixels per patch, so that every edge is sharp

  const size = {};
  const photos = [];  // the image at the size of the stage, one per pane

  function layout() {
    const width = root.clientWidth;
    if (!data || !width) return;
    const dpr = size.dpr = Math.min(3, window.devicePixelRatio || 1);
    const two = twoPanes();
    const columns = width >= 1180 && !two ? 3 : width >= 720 ? 2 : 1;
    root.dataset.columns = columns;
    const [home, behind] = [[parts.body, parts.panel], [parts.stage, parts.transport], [root, parts.body]][columns - 1];
    if (parts.settings.parentNode !== home) behind.after(parts.settings);  // moving a control would take its focus
    const side = columns === 3 ? SIDE : 0, free = width - (side ? side + SPACE : 0);
    const room = [width, Math.min(0.46 * width, 560), Math.max(0.4 * free, free - SPACE - 546)][columns - 1];
    layoutSheet(room, columns, dpr);
    const beside = room - size.sheet >= 205;  // few heads leave room for the charts
    const chartsHome = columns === 3 || beside ? parts.panelRow : parts.side;
    if (parts.charts.parentNode !== chartsHome) chartsHome.append(parts.charts);
    const panel = Math.max(size.sheet, columns === 2 ? Math.min(444, 0.46 * width) : 444);
    const stage = columns === 1 ? width : free - SPACE - panel;
    const paneWidth = (two ? (stage - 12) / 2 : stage) * dpr;
    const tallest = (options.picture_height ?? Math.max(320, Math.min(600, window.innerHeight - 396))) * dpr;
    size.patch = Math.max(1, Math.floor(Math.min(paneWidth / data.w, tallest / data.h)));
    const picture = size.patch * data.w / dpr * (two ? 2 : 1) + (two ? 12 : 0);
    panes[1].node.hidden = !two;
    parts.panes.classList.toggle("two", two);
    for (const { canvas } of panes) sizeCanvas(canvas, size.patch * data.w, size.patch * data.h, dpr);
    const stageWidth = Math.min(stage, Math.max(picture, 330));
    parts.body.style.gridTemplateColumns = columns === 1 ? "minmax(0, 1fr)"
      : `${stageWidth}px minmax(0, 1fr)${side ? ` ${side}px` : ""}`;
    const matrix = Math.round((columns === 1 ? width : SIDE) * dpr);
    sizeCanvas(parts.matrix, matrix, matrix, dpr);
    buildCharts();
    photos.length = 0;
    size.key = "";  // whatever was cached in pixels is stale
  }

  // The small maps: as large as the room allows, in whole device pixels per patch.
  function layoutSheet(room, columns, dpr) {
    const attention = state.mode === "attention";
    const sheet = sheetOf(data, state, shown(), "row", methods);
    const crowded = room < 420;
    const tallest = columns === 1 ? 900 : sheet.label ? 540 : 460;
    size.gutter = attention ? (crowded ? 24 : 30) : 0;
    size.head = attention ? 18 : 0;
    size.rowHead = Math.round((sheet.label?.(0) ? 18 : 0) * dpr);
    size.spread = sheet.fused ? Math.round((crowded ? 4 : 8) * dpr) : 0;
    const least = Math.round(dpr);
    const most = Math.round((sheet.label ? 8 : 4) * dpr);
    const unitFor = (cols, pool) => {
      const rows = Math.ceil(sheet.count / cols);
      const stepX = ((room - size.gutter) * dpr - size.spread) / cols;
      const stepY = (tallest - size.head) * dpr / rows - size.rowHead;
      const across = Math.ceil(sheet.cellWidth / pool), down = Math.ceil(sheet.cellHeight / pool);
      return Math.min((stepX - least) / across, (stepY - least) / down);
    };
    const candidates = sheet.cols ? [sheet.cols] : Array.from({ length: Math.min(8, sheet.count) }, (_, i) => i + 1);
    const whole = (cols, pool) => Math.floor(unitFor(cols, pool));
    const best = (pool) => candidates.reduce((a, b) => whole(b, pool) > whole(a, pool) ? b : a);
    size.pool = 1;
    while (unitFor(best(size.pool), size.pool) < 1 && size.pool < 16) size.pool += 1;
    size.cols = best(size.pool);
    size.unit = Math.max(1, Math.floor(unitFor(size.cols, size.pool)));
    size.cellWidth = Math.ceil(sheet.cellWidth / size.pool) * size.unit;
    size.cellHeight = Math.ceil(sheet.cellHeight / size.pool) * size.unit;
    const spare = ((room - size.gutter) * dpr - size.spread) / size.cols - size.cellWidth;
    size.gap = Math.max(least, Math.min(most, Math.floor(spare)));
    size.stepX = size.cellWidth + size.gap;
    size.stepY = size.cellHeight + size.gap + size.rowHead;
    arrange(sheet);
    const wide = sheet.cols * size.stepX - size.gap + size.spread;
    sizeCanvas(parts.sheetCanvas, wide, sheet.rows * size.stepY - size.gap, dpr);
    size.sheet = Math.ceil(wide / dpr) + size.gutter;
    parts.sheetBox.style.padding = `${size.head}px 0 0 ${size.gutter}px`;
    layoutLabels(sheet, dpr);
  }

  function arrange(sheet) {
    sheet.cols ??= Math.min(size.cols, sheet.count);
    sheet.rows = Math.ceil(sheet.count / sheet.cols);
    return sheet;
  }

  function sizeCanvas(canvas, width, height, dpr) {
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    canvas.style.width = width / dpr + "px";
    canvas.style.height = height / dpr + "px";
  }

  function layoutLabels(sheet, dpr) {
    const labels = [];
    const label = (text, left, top, width, kind) => {
      const node = el("span", { class: kind }, text);
      Object.assign(node.style, { left: left + "px", top: top + "px", width: width + "px" });
      labels.push(node);
    };
    const cell = size.cellWidth / dpr;
    if (state.mode === "attention") {
      const every = cell < 17 ? 2 : 1;
      for (let c = 0; c < sheet.cols; c++) {
        if (c < data.H && c % every) continue;
        const fused = cell < 27 ? ["x̄", "↑"] : ["mean", "max"];
        label(c < data.H ? (cell < 24 ? "" : "H") + c : fused[c - data.H], size.gutter + xOf(c, sheet) / dpr, 0, cell, "column");
      }
      for (let r = 0; r < sheet.rows; r++)
        label("L" + r, 0, size.head + r * size.stepY / dpr + size.cellHeight / dpr / 2 - 8, size.gutter - 6, "row");
    } else if (sheet.label) {
      for (let i = 0; i < sheet.count; i++) {
        const [x, y] = placeOf(i, sheet);
        label(sheet.label(i), x / dpr, (y - size.rowHead) / dpr, cell, "cell");
      }
    }
    parts.labels.replaceChildren(...labels);
  }

  const xOf = (column, sheet) => column * size.stepX + (column >= sheet.cols - sheet.fused ? size.spread : 0);
  const placeOf = (cell, sheet) => [
    xOf(cell % sheet.cols, sheet), Math.floor(cell / sheet.cols) * size.stepY + size.rowHead,
  ];
  const compares = () => !!after && state.mode !== "method";  // maps are of the picture as it is
  const twoPanes = () => compares() || (state.direction === "both" && directional());

  // ---- drawing

  perf.since = [];
  let scheduled = false;
  function draw(event) {
    if (event?.timeStamp) perf.since.push(event.timeStamp);
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      const begun = performance.now();
      frame();
      const since = perf.since;
      perf.since = [];
      if (!since.length && perf.painted === data) return;
      const channel = new MessageChannel();  // its message comes after the frame was presented
      channel.port1.onmessage = () => {
        const end = performance.now();
        if (since.length) remember(perf.work, end - begun);
        for (const start of since) remember(perf.hover, end - start);
        if (data?.loaded && perf.painted !== data) {  // the first picture of another trace
          perf.painted = data;
          perf.pictures.push(end);
          perf.first ??= end;
        }
      };
      channel.port2.postMessage(0);
    });
  }
  const remember = (list, value) => { list.push(value); if (list.length > 2000) list.shift(); };

  function frame() {
    if (!data || !root.clientWidth) return;
    const start = performance.now();
    if (!theme.ink) readTheme();
    const now = shown();
    const views = viewsOf(now);
    for (const view of views) if (state.mode !== "method" && !view.data.layers[Math.max(0, now.layer)])
      need(view.data, Math.max(0, now.layer)).then(() => draw(), complain);
    paintSheet(views[compares() && state.matrix === "after" ? 1 : 0], now);
    views.forEach((view, index) => paintPane(panes[index], view, now, index));
    paintMatrix(views[0], now);
    say(now, views);
    remember(perf.draw, performance.now() - start);
  }

  function viewsOf(now) {
    const view = (from, direction, index, label) => {
      const sheet = fillSheet(arrange(sheetOf(from, state, now, direction, methods)), memories[index]);
      const cell = Math.min(cellOf(now, sheet), sheet.count - 1);
      return { data: from, direction, sheet, cell, label, range: rangeOf(sheet, cell, state.scale, from) };
    };
    const both = state.direction === "both" && directional();
    const direction = directional() ? (state.direction === "column" ? "column" : "row") : "row";
    if (compares()) return [view(data, direction, 0, "Before"), view(after, direction, 1, "After")];
    const looks = { row: "Looks at", column: "Is looked at by" };
    const label = directional() ? looks[direction] : titleOf(state, now, data, methods) + (after ? ", before the intervention" : "");
    if (!both) return [view(data, direction, 0, label)];
    return [view(data, "row", 0, looks.row), view(data, "column", 1, looks.column)];
  }

  let sheetImage = null, cellColors = new Uint32Array(0);
  function paintSheet(view, now) {
    const { sheet } = view, canvas = parts.sheetCanvas;
    const { cellWidth, cellHeight } = sheet;
    if (sheetImage?.width !== canvas.width || sheetImage?.height !== canvas.height)
      sheetImage = new ImageData(canvas.width, canvas.height);
    if (cellColors.length < cellWidth * cellHeight) cellColors = new Uint32Array(cellWidth * cellHeight);
    const pixels = new Uint32Array(sheetImage.data.buffer);
    const loading = root.classList.contains("is-loading");  // then the last maps stay until theirs have come
    if (!loading) pixels.fill(0);
    const one = state.scale === "all" || state.scale === "uniform" && sheet.unit === "share";
    const shared = one ? rangeOf(sheet, 0, state.scale, view.data) : null;
    for (let i = 0; i < sheet.count; i++) {
      const [x, y] = placeOf(i, sheet);
      if (!sheet.ready[i]) {
        if (!loading || !pixels[y * canvas.width + x]) blank(pixels, canvas.width, x, y);
        continue;
      }
      const range = sheet.unit === "value" || !shared ? rangeOf(sheet, i, state.scale, view.data) : shared;
      const small = size.pool > 1 && !sheet.colors ? pooled(sheet, i) : null;
      colorize(cellColors, small ?? sheet, small ? 0 : i, range, tableFor(range, state, view.data));
      stamp(pixels, canvas.width, x, y, cellColors, cellWidth, cellHeight, small ? 1 : size.pool);
    }
    const context = canvas.getContext("2d");
    context.putImageData(sheetImage, 0, 0);
    for (const key of state.heads) {
      const [layer, head] = key.split(".").map(Number);
      if (state.mode === "attention") cross(context, ...placeOf(layer * sheet.cols + head, sheet));
    }
    ring(context, cellOf({ ...shown(), ...pinnedPart() }, sheet), sheet, theme.accent, 2);
    if (view.cell !== cellOf({ ...shown(), ...pinnedPart() }, sheet)) ring(context, view.cell, sheet, theme.ink, 1);
  }
  function pinnedPart() {
    const { layer, head, fuse, query, method } = state;
    return { layer, head, fuse, query, method };
  }

  // Where there are more patches than pixels, a pixel shows the largest weight of its block.
  const block = { first: 0, values: new Float32Array(0) };
  function pooled(sheet, i) {
    const { pool } = size, from = i * sheet.size + sheet.first;
    const across = Math.ceil(sheet.cellWidth / pool), down = Math.ceil(sheet.cellHeight / pool);
    if (block.values.length < across * down) block.values = new Float32Array(across * down);
    block.values.fill(-Infinity, 0, across * down);
    for (let y = 0; y < sheet.cellHeight; y++) for (let x = 0; x < sheet.cellWidth; x++) {
      const at = Math.floor(y / pool) * across + Math.floor(x / pool), value = sheet.values[from + y * sheet.cellWidth + x];
      if (value > block.values[at]) block.values[at] = value;
    }
    return Object.assign(block, { cellWidth: across, cellHeight: down, size: across * down });
  }

  function stamp(pixels, stride, x, y, colors, width, height, pool) {  // each patch becomes unit x unit device pixels
    const { unit } = size;
    const across = Math.ceil(width / size.pool), down = Math.ceil(height / size.pool);
    const rowOf = pool === 1 ? across : width;
    for (let row = 0; row < down; row++) {
      let at = (y + row * unit) * stride + x;
      for (let column = 0; column < across; column++) {
        const color = colors[row * pool * rowOf + column * pool];
        for (let k = 0; k < unit; k++) pixels[at++] = color;
      }
      const from = (y + row * unit) * stride + x;
      for (let k = 1; k < unit; k++) pixels.copyWithin(from + k * stride, from, from + across * unit);
    }
  }

  function blank(pixels, stride, x, y) {
    for (let row = 0, at = y * stride + x; row < size.cellHeight; row++, at += stride)
      pixels.fill(0x18808080, at, at + size.cellWidth);
  }

  function ring(context, cell, sheet, color, width) {
    if (cell < 0 || cell >= sheet.count) return;
    const w = Math.round(width * size.dpr), [x, y] = placeOf(cell, sheet);
    context.lineWidth = w;
    context.strokeStyle = color;
    context.strokeRect(x + w / 2, y + w / 2, size.cellWidth - w, size.cellHeight - w);
  }

  function cross(context, x, y) {
    context.globalAlpha = 0.75;
    context.fillStyle = theme.paper;
    context.fillRect(x, y, size.cellWidth, size.cellHeight);
    context.globalAlpha = 1;
    context.strokeStyle = theme.ink;
    context.lineWidth = Math.max(1, size.dpr);
    context.beginPath();
    context.moveTo(x + 3, y + 3);
    context.lineTo(x + size.cellWidth - 3, y + size.cellHeight - 3);
    context.stroke();
  }

  let smallImage = null;
  function paintPane(pane, view, now, index) {
    const { canvas } = pane, { sheet, cell, range } = view, d = view.data;
    const context = canvas.getContext("2d"), W = canvas.width, H = canvas.height;
    const covered = ofImage() && sheet.ready[cell];
    const dim = covered && state.fade && sheet.unit !== "color" ? 0.35 * state.opacity : 0;
    context.drawImage(photoOf(d, index, W, H, dim), 0, 0);
    if (covered) overlay(context, view, now, W, H);
    gridLines(context, W, H, d);
    if (state.links && directional() && sheet.ready[cell]) arcs(context, view, now);
    for (const patch of state.patches)
      if (compares() && index === 0) outline(context, patch, d, theme.paper, false);  // before: still to be seen
      else hatch(context, patch, d);
    if (now.query >= d.pre && asksQuery())
      outline(context, now.query - d.pre, d, theme.accent, state.pinned && hover.query === undefined);
    if (pointer.pane === index && pointer.token >= d.pre && pointer.token !== now.query)
      outline(context, pointer.token - d.pre, d, "#fff", false);
  }

  function photoOf(d, index, W, H, dim) {  // a little darker where nothing is looked at
    if (photos[index]?.of !== d || photos[index].dim !== dim) {
      const canvas = photos[index] = new OffscreenCanvas(W, H);
      Object.assign(canvas, { of: d, dim });
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(d.image, 0, 0, W, H);
      context.fillStyle = `rgba(0, 0, 0, ${dim})`;
      context.fillRect(0, 0, W, H);
    }
    return photos[index];
  }

  function overlay(context, view, now, W, H) {
    const { sheet, cell, range } = view, d = view.data, count = d.P;
    if (small.width !== d.w || small.height !== d.h || !smallImage) {
      small.width = d.w;
      small.height = d.h;
      smallImage = new ImageData(d.w, d.h);
    }
    const pixels = new Uint32Array(smallImage.data.buffer);
    if (sheet.colors) colorize(pixels, sheet, cell, range, null);
    else {
      const table = tableFor(range, state, d);
      const stride = state.mode === "attention" ? sheet.cols : 1;
      const to = mix && cell + stride < sheet.count && sheet.ready[cell + stride] ? cell + stride : -1;
      const toRange = to < 0 ? null : rangeOf(sheet, to, state.scale, d);
      for (let k = 0; k < count; k++) {
        let t = level(sheet.values[cell * sheet.size + sheet.first + k], range);
        if (to >= 0) t += mix * (level(sheet.values[to * sheet.size + sheet.first + k], toRange) - t);
        const weight = range.signed ? Math.abs(2 * t - 1) : t;
        const alpha = state.fade ? Math.min(1, 1.15 * weight) : 1;
        pixels[k] = table[Math.round(255 * t)] & 0xffffff | Math.round(255 * alpha) << 24;
      }
    }
    small.getContext("2d").putImageData(smallImage, 0, 0);
    context.globalAlpha = state.opacity;
    context.imageSmoothingEnabled = state.smooth;
    context.drawImage(small, 0, 0, W, H);
    context.globalAlpha = 1;
  }

  function gridLines(context, W, H, d) {
    if (size.patch / size.dpr < 9) return;
    context.fillStyle = "rgba(255, 255, 255, 0.16)";
    for (let c = 1; c < d.w; c++) context.fillRect(c * size.patch, 0, 1, H);
    for (let r = 1; r < d.h; r++) context.fillRect(0, r * size.patch, W, 1);
  }

  function outline(context, patch, d, color, strong) {
    const x = patch % d.w * size.patch, y = Math.floor(patch / d.w) * size.patch, s = size.patch;
    const w = Math.max(1, Math.round((strong ? 2.5 : 1.5) * size.dpr));
    context.lineWidth = w + 2 * Math.round(size.dpr);
    context.strokeStyle = "rgba(0, 0, 0, 0.75)";
    context.strokeRect(x, y, s, s);
    context.lineWidth = w;
    context.strokeStyle = color;
    context.strokeRect(x, y, s, s);
  }

  function hatch(context, patch, d) {
    const x = patch % d.w * size.patch, y = Math.floor(patch / d.w) * size.patch, s = size.patch;
    context.fillStyle = theme.paper;
    context.fillRect(x, y, s, s);
    context.strokeStyle = theme.soft;
    context.lineWidth = Math.max(1, size.dpr);
    context.beginPath();
    context.moveTo(x, y + s);
    context.lineTo(x + s, y);
    context.stroke();
  }

  function arcs(context, view, now) {
    const { sheet, cell } = view, d = view.data, at = cell * sheet.size;
    const values = sheet.values.subarray(at, at + d.T);
    const centre = (token) => [(token - d.pre) % d.w, Math.floor((token - d.pre) / d.w)].map((v) => (v + 0.5) * size.patch);
    const from = now.query >= d.pre ? centre(now.query) : [size.patch * 0.5 + now.query * size.patch, d.h * size.patch];
    const best = largest(values, d.pre, d.T, LINKS).filter((token) => token !== now.query && values[token] > 0);
    const top = values[best[0]] || 1;
    context.lineCap = "round";
    for (const token of best.reverse()) {
      const to = centre(token), dx = to[0] - from[0], dy = to[1] - from[1];
      const bend = [(from[0] + to[0]) / 2 + dy * 0.22, (from[1] + to[1]) / 2 - dx * 0.22];
      const width = (0.8 + 1.8 * values[token] / top) * size.dpr;
      for (const [extra, color] of [[1.6 * size.dpr, "rgba(0, 0, 0, 0.4)"], [0, "#fff"]]) {
        context.strokeStyle = context.fillStyle = color;
        context.lineWidth = width + extra;
        context.beginPath();
        context.moveTo(...from);
        context.quadraticCurveTo(...bend, ...to);
        context.stroke();
        context.beginPath();
        context.arc(...to, 1.5 * size.dpr + width / 2 + extra / 2, 0, 7);
        context.fill();
      }
    }
  }

  function valueText(view, now, index) {
    const { sheet, cell } = view, d = view.data;
    if (pointer.pane !== index || pointer.token < d.pre || !sheet.ready[cell] || sheet.unit === "color") return "";
    const value = sheet.values[cell * sheet.size + sheet.first + pointer.token - d.pre];
    const at = place(pointer.token, d);
    if (sheet.unit === "share") return `${at} ${percent(value)}, ${short(value * d.T)} × uniform`;
    return `${at} ${sheet.unit === "cosine" ? value.toFixed(2) : short(value)}`;
  }

  function paintMatrix(view, now) {
    const d = view.data, canvas = parts.matrix, layer = d.layers[Math.max(0, now.layer)];
    const kind = state.mode === "method" ? "attention" : state.mode;
    const key = [kind, d.name, now.layer, now.head, now.fuse, d.loaded, state.colormap, generation, d === after].join();
    const context = canvas.getContext("2d");
    if (size.key !== key || matrixImage.of !== d) {
      size.key = key;
      const pixels = new OffscreenCanvas(d.T, d.Q);
      if (layer) pixels.getContext("2d").putImageData(matrixPixels(layer, kind, now, d), 0, 0);
      Object.assign(matrixImage, { of: d, width: canvas.width, height: canvas.height });
      const scaled = matrixImage.getContext("2d");
      scaled.imageSmoothingEnabled = d.T > canvas.width;
      scaled.drawImage(pixels, 0, 0, canvas.width, canvas.height);
    }
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(matrixImage, 0, 0);
    const line = Math.max(size.dpr, canvas.height / d.Q);
    context.fillStyle = theme.accent;
    const step = Math.max(line, 1.5 * size.dpr);
    const y = d.row_of[now.query] * canvas.height / d.Q, x = now.query * canvas.width / d.T;
    if (!directional() || state.direction !== "column") context.fillRect(0, y, canvas.width, step);
    if (directional() && state.direction !== "row") context.fillRect(x, 0, step, canvas.height);
  }

  function matrixPixels(layer, kind, now, d) {
    const { T, Q, H, pre } = d, image = new ImageData(T, Q), pixels = new Uint32Array(image.data.buffer);
    const table = d.tables[state.colormap];
    if (kind === "embeddings") {
      const rows = now.layer < 0 ? layer.similarity_embed : layer.similarity;
      for (let k = 0; k < T * Q; k++) pixels[k] = table[Math.max(0, Math.round((rows[k] - 127) * 255 / 127))];
      return image;
    }
    const name = kind === "rollout" ? "rollout" : "attn", steps = layer[name], maxima = layer[name + "_max"];
    if (!steps) return image;
    const first = kind === "rollout" ? 0 : now.fuse === "one" ? now.head : 0;
    const last = kind === "rollout" || now.fuse === "one" ? first : H - 1;
    const sums = new Float32Array(T * Q);
    for (let head = first; head <= last; head++) for (let row = 0; row < Q; row++) {
      const r = head * Q + row, toPrefix = maxima[2 * r] / 65025, toPatch = maxima[2 * r + 1] / 65025;
      for (let k = 0, at = row * T, from = r * T; k < T; k++, at++, from++) {
        const value = (k < pre ? toPrefix : toPatch) * steps[from] * steps[from];
        if (now.fuse === "max") { if (value > sums[at]) sums[at] = value; } else sums[at] += value;
      }
    }
    let top = 0;
    for (let k = 0; k < T * Q; k++) if (sums[k] > top) top = sums[k];
    for (let k = 0; k < T * Q; k++) pixels[k] = table[Math.round(255 * Math.sqrt(sums[k] / (top || 1)))];
    return image;
  }

  // ---- words, gauge, legend

  // Words change at once, but not more often than anyone can read: text costs the browser more than all our canvases.
  let said = -Infinity;
  function say(now, views) {
    const wait = said + READING_MS - performance.now();
    clearTimeout(timers.say);
    if (wait > 0) timers.say = setTimeout(() => { said = -Infinity; draw(); }, wait);
    else {
      said = performance.now();
      speak(now, views);
    }
  }

  function speak(now, views) {
    markDots(now);
    views.forEach((view, index) => {
      panes[index].label.textContent = view.label + (state.smooth && ofImage() ? ", smoothed" : "");
      panes[index].value.textContent = valueText(view, now, index);
    });
    const sentences = views.map((view) => sentence(state, now, view.data, view, methods));
    const which = compares() ? 1 : 0, view = views[which], { sheet, cell, range } = view, d = view.data;
    const [title, words] = sentences[which];
    parts.title.textContent = title;
    parts.words.textContent = words + (/[….]$/.test(words) ? "" : ".");
    sentences.forEach(([name, what], index) => { panes[index].canvas.ariaLabel = `${views[index].label}. ${name}: ${what}`; });
    const ready = sheet.ready[cell], shares = sheet.unit === "share" && ready;
    parts.chips.hidden = !sheet.first;
    let prefix = 0;
    [...parts.chips.children].forEach((chip, token) => {
      const value = shares || (ready && sheet.first) ? sheet.values[cell * sheet.size + token] : NaN;
      if (shares) prefix += value;
      chip.classList.toggle("is-query", token === now.query);
      chip.ariaPressed = String(token === state.query);
      const write = { share: percent, norm: short, cosine: (v) => v.toFixed(2) }[sheet.unit];
      chip.querySelector(".share").textContent = Number.isNaN(value) ? "" : write(value);
      chip.querySelector(".fill").style.transform = `scaleX(${shares ? Math.min(1, value) : 0})`;
    });
    const row = shares && view.direction === "row" && d.pre > 0 && !(sheet.fused && now.fuse === "max");  // no share
    parts.gauge.style.visibility = row ? "visible" : "hidden";
    if (row) {
      parts.gaugeFill.style.transform = `scaleX(${Math.min(1, prefix)})`;
      parts.gaugeText.textContent = `${percent(prefix)} on ${d.pre > 1 ? "prefix tokens" : d.prefix_names[0]}`;
    }
    legendOf(sheet, range, d, ready);
    if (!playing) later("live", 500, () => { parts.live.textContent = `${title}: ${words}`; });
  }

  let legendKey = "";
  function legendOf(sheet, range, d, ready) {
    const hidden = sheet.unit === "color" || !ready;
    parts.legend.style.visibility = hidden ? "hidden" : "visible";
    if (hidden) return;
    const key = `${range.signed} ${state.colormap}`;
    if (key !== legendKey) {
      legendKey = key;
      const image = new ImageData(256, 1);
      new Uint32Array(image.data.buffer).set(tableFor(range, state, d));
      parts.legendBar.getContext("2d").putImageData(image, 0, 0);
    }
    const text = sheet.unit === "share" ? percent : short;
    const names = sheet.fused ? { map: "this map", layer: "this layer", all: "all heads", uniform: "× uniform" }
      : { map: "this map", layer: "this map", all: "all depths", uniform: "× uniform" };
    parts.legendLow.textContent = range.uniform ? "1/" + 2 ** OCTAVES : range.low === 0 ? "0" : text(range.low);
    parts.legendHigh.textContent = range.uniform ? String(2 ** OCTAVES) : sheet.unit === "cosine" ? "1" : text(range.high);
    parts.legendName.textContent = sheet.unit === "cosine" ? "cosine" : sheet.unit === "value" ? "this map"
      : sheet.unit === "norm" && state.scale !== "all" ? "this depth" : names[state.scale];
  }

  function readTheme() {
    const probe = (name) => {
      parts.live.style.color = `var(${name})`;
      return getComputedStyle(parts.live).color;
    };
    theme = Object.fromEntries(["ink", "soft", "paper", "accent"].map((name) => [name, probe("--vit-" + name)]));
  }

  // ---- controls follow the state

  function sync() {
    if (!data) return;
    const attention = state.mode === "attention", embedding = state.mode === "embeddings";
    root.dataset.mode = state.mode;
    parts.mode.show(state.mode, modes());
    parts.embedding.hidden = !embedding;
    parts.embedding.show(state.embedding, embeddings());
    parts.basis.hidden = !(embedding && state.embedding === "pca");
    parts.basis.show(state.basis);
    parts.direction.hidden = !directional();
    parts.direction.show(state.direction);
    parts.method.hidden = state.mode !== "method";
    if (parts.method.length !== methods.length)
      parts.method.replaceChildren(...methods.map(({ name, label }) => el("option", { value: name }, label)));
    parts.method.value = state.method;
    parts.about.textContent = state.mode === "method" ? methods.find((m) => m.name === state.method)?.about ?? "" : "";
    const scales = attention ? null : state.mode === "rollout" ? ["map", "all", "uniform"] : ["map", "all"];
    parts.scale.hidden = !(directional() || embedding && state.embedding === "norms");
    parts.scale.show(scales && !scales.includes(state.scale) ? "map" : state.scale, scales);
    parts.colormap.value = state.colormap;
    parts.opacity.value = state.opacity;
    parts.fade.show(state.fade);
    parts.smooth.show(state.smooth);
    parts.links.show(state.links);
    parts.links.hidden = !directional();
    const depthless = state.mode === "method" || embedding && ["positions", "filters"].includes(state.embedding);
    parts.transport.hidden = depthless;
    if (depthless && playing) play();  // nothing is left to play through
    parts.depth.min = lowestLayer();
    parts.depth.max = data.L - 1;
    parts.depth.value = state.layer;
    parts.depthText.textContent = parts.depth.ariaValueText = state.layer < 0 ? "embed" : `L${state.layer}`;
    parts.headBox.hidden = !attention;
    parts.head.value = state.fuse === "one" ? state.head : state.fuse;
    parts.play.replaceChildren(icon(playing ? ICONS.pause : ICONS.play));
    parts.play.title = parts.play.ariaLabel = playing ? "Pause" : "Play through depth";
    parts.panelTitle.textContent = { attention: "Every head", rollout: "Rollout through depth", method: "Every method" }[state.mode]
      ?? { positions: "Every position", filters: "Patch filters" }[state.embedding] ?? "Through depth";
    parts.panelNote.textContent = attention ? `${data.L} layers × ${data.H} heads` : "";
    const notes = { attention: "row → column", rollout: "rollout", method: "attention", embeddings: "cosine" };
    parts.matrixNote.textContent = notes[state.mode];
    parts.sheetCanvas.ariaLabel = `${parts.panelTitle.textContent}, for the current query. Arrow keys move.`;
    parts.matrix.ariaLabel = "Token by token matrix of the chosen head. Hover or click a row to choose the query.";
    root.classList.toggle("is-intervening", intervening);
    parts.intervene.hidden = !options.intervene;
    parts.copy.hidden = !addressed;
    parts.intervene.ariaPressed = String(intervening);
    for (const row of parts.classes.children) {
      const chosen = +row.dataset.index === shown().target;
      row.classList.toggle("is-target", chosen);
      row.ariaPressed = String(chosen);
    }
    syncEdits();
  }

  // ---- pointer

  function tokenAt(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * data.w);
    const y = Math.floor((event.clientY - box.top) / box.height * data.h);
    return x < 0 || y < 0 || x >= data.w || y >= data.h ? -1 : data.pre + y * data.w + x;
  }

  let painting = null, lifted = null, lift = null;  // lifted: a promise, while a pointer paints; lift() keeps it
  function endStroke() {
    painting = lifted = null;
    lift?.();
  }
  function onStage(event, index) {
    if (!data) return;
    if (!event.buttons) endStroke();  // lifted where the page does not hear of it
    const token = tokenAt(event);
    if (token === pointer.token && pointer.pane === index) return;
    pointer.pane = index;
    pointer.token = token;
    if (token >= 0 && painting !== null) hide(token - data.pre, painting);
    else if (token >= 0 && !state.pinned) return preview({ query: token }, event);
    draw(event);
  }
  function onStageDown(event) {
    if (!data || !intervening || event.button) return;
    const patch = tokenAt(event) - data.pre;
    if (patch < 0) return;
    painting = !state.patches.includes(patch);
    hide(patch, painting);
    lifted = new Promise((resolve) => { lift = resolve; });
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, endStroke, { once: true });
  }
  function offStage(event) {
    pointer.pane = pointer.token = -1;
    preview({}, event);
    draw(event);
  }
  function onStageClick(event) {
    if (!data || intervening) return;
    const token = tokenAt(event);
    if (token < 0) return;
    const unpin = state.pinned && state.query === token;
    commit({ query: token, pinned: !unpin }, event);
  }

  function cellAt(event) {
    const box = parts.sheetCanvas.getBoundingClientRect();
    const sheet = arrange(sheetOf(data, state, shown(), "row", methods));
    const x = (event.clientX - box.left) * size.dpr, y = (event.clientY - box.top) * size.dpr;
    let column = Math.floor(x / size.stepX);
    if (sheet.fused && x >= xOf(sheet.cols - sheet.fused, sheet)) column = Math.floor((x - size.spread) / size.stepX);
    const row = Math.floor(y / size.stepY), cell = row * sheet.cols + column;
    const inside = column >= 0 && column < sheet.cols && row >= 0 && cell < sheet.count;
    return inside ? pickOf(cell, sheet) : null;
  }
  parts.sheetCanvas.addEventListener("pointermove", (event) => data && preview(cellAt(event) ?? {}, event));
  parts.sheetCanvas.addEventListener("pointerleave", (event) => preview({}, event));
  parts.sheetCanvas.addEventListener("click", (event) => {
    const pick = data && cellAt(event);
    if (!pick) return;
    const other = event.altKey || event.ctrlKey || event.metaKey;
    if (intervening && other && pick.fuse === "one") return switchHead(pick.layer, pick.head);
    if (pick.filter === undefined) commit("query" in pick ? { ...pick, pinned: true } : pick, event);
  });

  function rowAt(event) {
    const box = parts.matrix.getBoundingClientRect();
    const step = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    if (directional() && state.direction === "column") return step((event.clientX - box.left) / box.width, data.T);
    return data.tokens_sent[step((event.clientY - box.top) / box.height, data.Q)];
  }
  parts.matrix.addEventListener("pointermove", (event) => data && preview({ query: rowAt(event) }, event));
  parts.matrix.addEventListener("pointerleave", (event) => preview({}, event));
  parts.matrix.addEventListener("click", (event) => data && commit({ query: rowAt(event), pinned: true }, event));

  // ---- keyboard

  function pickHead(value) {
    commit(value === "mean" || value === "max" ? { fuse: value } : { fuse: "one", head: +value });
  }

  function moveQuery(dx, dy) {
    const patch = state.query < data.pre ? -1 : state.query - data.pre;
    if (patch < 0) return { query: data.pre + Math.floor(data.h / 2) * data.w + Math.floor(data.w / 2), pinned: true };
    const x = (patch % data.w + dx + data.w) % data.w, y = (Math.floor(patch / data.w) + dy + data.h) % data.h;
    return { query: data.pre + y * data.w + x, pinned: true };
  }

  function moveHead(step) {
    if (state.mode === "method") {
      const at = methods.findIndex((m) => m.name === state.method);
      return { method: methods[(at + step + methods.length) % methods.length].name };
    }
    if (state.mode !== "attention") return moveLayer(step);
    const all = data.H + 2, at = state.fuse === "one" ? state.head : state.fuse === "mean" ? data.H : data.H + 1;
    const next = (at + step + all) % all;
    return next < data.H ? { head: next, fuse: "one" } : { fuse: next === data.H ? "mean" : "max" };
  }

  function moveLayer(step) {
    const low = lowestLayer(), count = data.L - low;
    return { layer: low + (state.layer - low + step + count) % count };
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function onKey(event) {
    if (!data || event.ctrlKey || event.metaKey || event.altKey) return;
    const { key } = event, at = event.target;
    if (parts.help.open) return;
    if (key === "Escape") {
      if (state.pinned) commit({ pinned: false, query: 0 }, event);
      return;
    }
    const native = key.startsWith("Arrow") || key === " " || key === "Home";  // what an input does with a key, it keeps
    if (at.tagName === "SELECT" || at.tagName === "INPUT" && native) return;
    if (at.tagName === "BUTTON" && (key === " " || key === "Enter")) return;
    let patch = null;
    if (key in ARROWS) {
      const [dx, dy] = ARROWS[key];
      patch = event.shiftKey ? moveQuery(dx, dy) : dx ? moveHead(dx) : moveLayer(dy);
    } else if (key === "Home") patch = { query: 0, pinned: true };
    else if (key === "Enter") patch = { query: shown().query, pinned: true };
    else if (key === " ") play();
    else if (key === "?") parts.help.showModal();
    else if ("123".includes(key) && state.mode === "attention") patch = { fuse: ["one", "mean", "max"][key - 1] };
    else if (key === "d" && directional())
      patch = { direction: { row: "column", column: "both", both: "row" }[state.direction] };
    else if (key === "x" && intervening && state.query >= data.pre) hideQuery();
    else if (key === "o" && intervening && state.mode === "attention" && state.fuse === "one")
      switchHead(state.layer, state.head);
    else return;
    event.preventDefault();
    if (patch) commit(patch, event);
  }
  // The page's main viewer hears the keys that nobody else has, while its picture is on the screen.
  function onFreeKey(event) {
    if (event.target !== document.body || event.defaultPrevented) return;
    const box = parts.stage.getBoundingClientRect();
    if (box.width && box.bottom > 0 && box.top < window.innerHeight) onKey(event);
  }
  root.addEventListener("keydown", onKey);
  if (addressed) document.addEventListener("keydown", onFreeKey);

  // ---- play through depth: layers blend into each other, unless motion is unwelcome

  function play() {
    if (playing) {
      cancelAnimationFrame(playing);
      playing = null;
      mix = 0;
      sync();
      draw();
      tellPick();
      return;
    }
    if (parts.transport.hidden) return;
    if (state.layer >= data.L - 1) set({ layer: lowestLayer() });
    let start = null, last = null;
    const step = (time) => {
      start ??= time;
      if (last !== null) remember(perf.frames, time - last);
      last = time;
      const passed = (time - start) / STEP_MS;
      if (passed >= 1) {
        start = time;
        mix = 0;
        if (state.layer >= data.L - 1) { playing = 1; return play(); }
        set({ layer: state.layer + 1 });
      } else mix = still.matches ? 0 : Math.max(0, (passed - 0.35) / 0.65);
      if (!still.matches) draw();
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
    sync();
  }

  // ---- interventions

  function hide(patch, hidden) {
    const patches = state.patches.filter((p) => p !== patch);
    if (hidden) patches.push(patch);
    edit({ patches: patches.sort((a, b) => a - b) });
  }
  function hideQuery() {
    const patch = state.query - data.pre;
    hide(patch, !state.patches.includes(patch));
  }
  function switchHead(layer, head) {
    const key = `${layer}.${head}`;
    edit({ heads: state.heads.includes(key) ? state.heads.filter((k) => k !== key) : [...state.heads, key] });
  }
  let answered = true;  // whether `after` is the answer to the interventions of now
  function answer() {
    answered = true;
    syncEdits();
  }
  function edit(patch) {
    answered = false;
    set(patch);
    tellEdits();
  }
  function tellEdits() {
    const heads = state.heads.map((key) => key.split(".").map(Number));
    later("edits", 250, () => emit("edits", { patches: state.patches, heads }));
  }
  function syncEdits() {
    const held = parts.edits.contains(document.activeElement);
    parts.edits.hidden = !intervening && !state.patches.length && !state.heads.length;
    if (parts.edits.hidden) return held && parts.intervene.focus();
    const query = state.query - data.pre, head = `L${state.layer}.H${state.head}`;
    const hidden = state.patches.length, off = state.heads.map((k) => "L" + k.replace(".", ".H")).join(", ");
    const said = [hidden && `${hidden} ${hidden > 1 ? "patches" : "patch"} hidden`, off && `${off} off`].filter(Boolean).join(" · ");
    const likeliest = data.classes[0];
    const now = answered && likeliest && after?.class_values[likeliest.index];
    const change = !now && now !== 0 ? "" : ` · ${likeliest.name} ${written(likeliest.value, data)} → ${written(now, data)}`;
    const how = touch.matches ? "Draw over patches to hide them. Choose one head to switch it off."
      : "Paint over patches to hide them. Alt-click a small map to switch its head off.";
    const words = said ? said + change : how;
    if (parts.editsSaid.textContent !== words) parts.editsSaid.textContent = words;
    parts.editQuery.textContent = state.patches.includes(query) ? "Show query patch" : "Hide query patch";
    parts.editQuery.disabled = query < 0;
    parts.editHead.textContent = `Switch ${head} ${state.heads.includes(`${state.layer}.${state.head}`) ? "on" : "off"}`;
    parts.editHead.disabled = state.fuse !== "one" || state.layer < 0;
    parts.editHead.title = parts.editHead.disabled ? "Choose one head among the small maps first" : "";
    parts.editUndo.disabled = !said;
    parts.editSide.hidden = !compares();
    parts.editSide.show(state.matrix);
  }

  async function copyLink() {
    writeAddress(state, defaults);
    const link = location.href.split("#")[0] + "#" + addressOf(state, defaults);
    const copied = await navigator.clipboard?.writeText(link).then(() => true, () => false);
    const words = (copied ? "Copied" : "It is in the address bar") + (options.own?.() ? ", without your picture" : "");
    parts.copyText.textContent = parts.live.textContent = words;
    parts.copy.classList.add("told");
    later("copied", 1600, () => {
      parts.copyText.textContent = "Copy link";
      parts.copy.classList.remove("told");
    });
  }

  // ---- wiring

  const watcher = new ResizeObserver(() => { layout(); draw(); });
  watcher.observe(root);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const onPointed = (event) => commit(event.detail);  // other parts of a page may point, too
  const repaint = () => { theme = {}; draw(); };
  root.addEventListener("vit-pick", onPointed);
  dark.addEventListener("change", repaint);
  const last = () => defaults.layer < 0 ? data.L - 1 : defaults.layer;
  const onAddress = () => {  // another link in the same tab
    if (!data) return;
    const edited = () => JSON.stringify([state.patches, state.heads]), before = edited(), { target } = state;
    set({ ...defaults, layer: last(), ...readAddress() });
    if (options.intervene && edited() !== before) tellEdits();
    if (state.target !== target) emit("target", { target: state.target });
    tellPick();
  };
  if (addressed) window.addEventListener("hashchange", onAddress);
  const skin = new MutationObserver(repaint);
  for (const node of [document.documentElement, document.body])
    skin.observe(node, { attributes: true, attributeFilter: ["class", "data-theme"] });
  if (options.link) {
    if (!channels.has(options.link)) channels.set(options.link, { members: new Set(), said: { state: {} } });
    channels.get(options.link).members.add(hear);
  }
  function destroy() {
    generation++;
    if (playing) cancelAnimationFrame(playing);
    Object.values(timers).forEach(clearTimeout);
    watcher.disconnect();
    skin.disconnect();
    dark.removeEventListener("change", repaint);
    root.removeEventListener("keydown", onKey);
    root.removeEventListener("vit-pick", onPointed);
    document.removeEventListener("keydown", onFreeKey);
    channels.get(options.link)?.members.delete(hear);
    window.removeEventListener("hashchange", onAddress);
    root.replaceChildren();
  }

  const handle = {
    state, perf, set, setSource, setAfter, answer, addMaps, refuse, working, destroy,
    get data() { return data; }, get hover() { return hover; }, get after() { return after; },
    layoutOf() {  // for tests and exports: where each small map lies, in device pixels
      const sheet = arrange(sheetOf(data, state, shown(), "row", methods));
      return { size, sheet: { ...sheet, at: (cell) => placeOf(cell, sheet) }, canvas: parts.sheetCanvas };
    },
  };
  root.viewer = window.__vit = handle;
  if (source) setSource(source);
  return handle;
}

// ---------------------------------------------------------------- houses

async function download(url) {
  const response = await fetch(new URL(url, document.baseURI));
  if (!response.ok) throw new Error("This view has expired: open the image again.");
  return response.arrayBuffer();
}

function addresses(value) {
  const early = new Map();
  return {
    head: () => download(value.head),
    layer(l) {
      const coming = early.get(l) ?? download(value.layers[l]);
      early.delete(l);
      return coming;
    },
    embeddings: value.embeddings && (() => download(value.embeddings)),
    expect(layer) {  // fetched beside the head, not after it
      const last = value.layers.length - 1, l = layer < 0 ? last : Math.min(layer, last);
      early.set(l, download(value.layers[l]));
      early.get(l).catch(() => {});  // whoever asks for it hears of it
    },
  };
}

// The Gradio house: a value with addresses comes in, as explorer/viewer/host.py describes it.
function host(element, options) {
  const named = () => new URLSearchParams(location.search);  // what the page is about: explorer/views/page.js
  const viewer = mount(element, null, { ...options, own: () => named().has("model") && !named().has("example") });
  let head = "", after = "", heard = null;
  const seen = new Set();
  return {
    async receive(value) {
      if (!value?.head) return;
      viewer.working(value.progress ?? "");
      if (value.state && value.nonce !== heard) viewer.set(value.state);
      heard = value.nonce;
      if (value.head !== head) {
        if (head) viewer.set({ target: value.state?.target ?? START.target }, true);  // another picture: its own answer
        head = value.head;
        after = "";
        seen.clear();
        viewer.setSource(addresses(value)).then((shown) => {
          if (!shown && head === value.head) head = "";  // the same once more is another try
        });
      }
      if (value.refused) viewer.refuse(value.refused);
      if ((value.after?.head ?? "") !== after) {
        after = value.after?.head ?? "";
        viewer.setAfter(value.after ? addresses(value.after) : null);
      } else if (viewer.after) viewer.answer();  // what was undone in time: it is there already
      for (const url of value.maps ?? []) if (!seen.has(url)) {
        seen.add(url);
        try {
          const bytes = await download(url);
          if (value.head === head) await viewer.addMaps(bytes);
        } catch (error) {
          seen.delete(url);  // to be tried again
          viewer.working(error.message);
        }
      }
    },
  };
}

// The house without a server: the same bytes as base64, in the page.
function embedded(element, messages, options) {
  const bytes = (text) => {
    const raw = atob(text), array = new Uint8Array(raw.length);
    for (let k = 0; k < raw.length; k++) array[k] = raw.charCodeAt(k);
    return array.buffer;
  };
  const source = {
    head: async () => bytes(messages.head),
    layer: async (l) => bytes(messages.layers[l]),
    embeddings: messages.embeddings && (async () => bytes(messages.embeddings)),
    closed: true,
  };
  const viewer = mount(element, source, options);
  for (const text of messages.maps ?? []) viewer.addMaps(bytes(text));
  return viewer;
}

return { mount, host, embedded, unpack, START };
})();

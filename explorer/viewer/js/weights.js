// Weights of one query out of the bytes, and the sheets of small maps that they fill.
// L layers, H heads, T tokens (prefix tokens first, then t frames of h x w patches), P patches, Q rows that are sent.

// One query's weights, from uint8 rows on a square-root scale, into out[at ... at + T).
export function read(out, at, steps, maxima, matrix, query, direction, data) {
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
export function fused(out, at, layer, how, query, direction, data) {
  const { T, H } = data;
  if (scratch.length < T) scratch = new Float32Array(T);
  out.fill(0, at, at + T);
  for (let head = 0; head < H; head++) {
    read(scratch, 0, layer.attn, layer.attn_max, head, query, direction, data);
    if (how === "mean") for (let k = 0; k < T; k++) out[at + k] += scratch[k] / H;
    else for (let k = 0; k < T; k++) out[at + k] = Math.max(out[at + k], scratch[k]);
  }
}

export function cosinesTo(out, at, rows, query, data) {
  const from = data.row_of[query] * data.T;
  for (let k = 0; k < data.T; k++) out[at + k] = rows[from + k] / 127 - 1;
}

export function largest(values, from, to, count) {
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

// A map has cells of h x w patches, of a clip one for each of its frames.
const grid = ({ w, h, t, T, pre }) => ({ cellWidth: w, cellHeight: h, frames: t, size: T, first: pre, unit: "share" });
// A strip's columns follow from the room there is.
const strip = (data, count, label) => ({ ...grid(data), count, label, fused: 0 });
const depth = (i) => i === 0 ? "embed" : "L" + (i - 1);

// A layer's attention; until it has come, the first token's row of it, which comes with the head.
function attentionOf(data, l, now, direction) {
  const { H, T, layers, first_rows: rows, first_rows_max: maxima } = data;
  if (layers[l]) return [layers[l], data];
  if (!rows || now.query !== 0 || direction !== "row") return [null, data];
  const part = { attn: rows.subarray(l * H * T, (l + 1) * H * T), attn_max: maxima.subarray(2 * l * H, 2 * (l + 1) * H) };
  return [part, { T, H, Q: 1, pre: data.pre, row_of: [0] }];
}

const SHEETS = {
  attention({ data, now, direction }) {
    const { L, H, T } = data;
    return {
      ...grid(data), count: L * (H + 2), rows: L, cols: H + 2, fused: 2,
      fill(out, i) {
        const [layer, from] = attentionOf(data, Math.floor(i / (H + 2)), now, direction), head = i % (H + 2);
        if (!layer) return false;
        if (head < H) read(out, i * T, layer.attn, layer.attn_max, head, now.query, direction, from);
        else fused(out, i * T, layer, head === H ? "mean" : "max", now.query, direction, from);
      },
    };
  },
  rollout: ({ data, now, direction }) => ({
    ...strip(data, data.L, (i) => "L" + i),
    fill(out, i) {
      const layer = data.layers[i];
      if (!layer || !layer.rollout) return false;
      read(out, i * data.T, layer.rollout, layer.rollout_max, 0, now.query, direction, data);
    },
  }),
  method: ({ data, now, methods }) => ({
    ...strip(data, methods.length, (i) => methods[i].label), unit: "value", size: data.P, first: 0,
    fill(out, i) {
      const map = data.maps.get(keyOf(methods[i], now));
      if (!map) return false;
      out.set(map, i * data.P);
    },
  }),
  pca: ({ data, state }) => ({
    ...strip(data, data.L + 1, depth), size: 3 * data.P, first: 0, unit: "color",
    colors: data["pca_" + state.basis] ?? null, fill: () => false,
  }),
  similarity: ({ data, now }) => ({
    ...strip(data, data.L + 1, depth), unit: "cosine",
    fill(out, i) {
      const layer = data.layers[Math.max(i - 1, 0)];
      if (!layer?.similarity) return false;  // a look at a camera leaves it out
      cosinesTo(out, i * data.T, i === 0 ? layer.similarity_embed : layer.similarity, now.query, data);
    },
  }),
  norms: ({ data }) => ({
    ...strip(data, data.L + 1, depth), unit: "norm",
    fill(out, i) { out.set(data.norms.subarray(i * data.T, (i + 1) * data.T), i * data.T); },
  }),
  positions: ({ data }) => ({
    ...grid(data), count: data.P, rows: data.t * data.h, cols: data.w, fused: 0, size: data.P, first: 0, unit: "cosine",
    fill(out, i) {
      if (!data.positions) return false;
      for (let k = i * data.P; k < (i + 1) * data.P; k++) out[k] = data.positions[k] / 127 - 1;
    },
  }),
  filters({ data }) {
    const [count, cellHeight, cellWidth] = data.filters?.shape ?? [28, 8, 8];
    const size = 3 * cellHeight * cellWidth, colors = data.filters ?? null;
    return { ...strip(data, count, () => ""), cellWidth, cellHeight, frames: 1, size, first: 0, colors, unit: "color", fill: () => false };
  },
};

// A sheet: small maps of one kind, in rows and columns. fill(out, i) -> false where the bytes are not there yet.
export function sheetOf(data, state, now, direction, methods) {
  return SHEETS[state.mode === "embeddings" ? state.embedding : state.mode]({ data, state, now, direction, methods });
}

// What a method's map depends on is what its key holds.
export function keyOf(method, now) {
  return [method.name, ...(method.depends ?? ["target"]).map((name) => name + (now[name] ?? -1))].join(" ");
}

export function fillSheet(sheet, memory) {
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

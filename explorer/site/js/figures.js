/* What the viewer shows of one forward pass, from the model's own outputs: the same numbers as
   explorer/payload.py, explorer/stats.py and explorer/maps.py, on plain typed arrays.

   L layers, H heads, T tokens (prefix tokens first, then h x w patches, of a clip frame by frame, t of them), D width,
   Q rows that are sent. */

import { halfEven } from "./vectors.js";

const ROW_BUDGET = 2 ** 23;  // bytes of attention per layer, as in explorer/payload.py

/* {tokens (Q,), rowOf (T,)}: the tokens whose rows are kept, and for every token the row that stands for it. */
export function sentRows({ t, h, w, prefix }, heads) {
  const T = prefix + t * h * w;
  let stride = 1;
  while (heads * T * (prefix + t * Math.ceil(h / stride) * Math.ceil(w / stride)) > ROW_BUDGET && stride < Math.max(h, w)) {
    stride += 1;
  }
  const down = Math.ceil(h / stride), across = Math.ceil(w / stride);
  const centre = (block, length) => Math.min(block * stride + Math.floor(stride / 2), length - 1);
  const tokens = new Int32Array(prefix + t * down * across), rowOf = new Int32Array(T);
  for (let k = 0; k < prefix; k++) tokens[k] = rowOf[k] = k;
  for (let frame = 0; frame < t; frame++) {
    const rows = prefix + frame * down * across, patches = prefix + frame * h * w;
    for (let i = 0; i < down; i++) {
      for (let j = 0; j < across; j++) tokens[rows + i * across + j] = patches + centre(i, h) * w + centre(j, w);
    }
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) rowOf[patches + y * w + x] = rows + Math.floor(y / stride) * across + Math.floor(x / stride);
    }
  }
  return { tokens, rowOf };
}

/* Rows of T weights >= 0 as bytes on a square-root scale, q = round(255 sqrt(a / m)), and the two maxima m of
   each row, over its prefix tokens and over its patches. rows: their numbers in `weights`. */
export function quantise(weights, T, prefix, rows) {
  const steps = new Uint8Array(rows.length * T), maxima = new Float32Array(rows.length * 2);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] * T, at = i * T;
    for (let part = 0; part < 2; part++) {
      const from = part ? prefix : 0, to = part ? T : prefix;
      let top = 0;
      for (let k = from; k < to; k++) if (weights[row + k] > top) top = weights[row + k];
      maxima[2 * i + part] = top;
      if (top) for (let k = from; k < to; k++) steps[at + k] = halfEven(255 * Math.sqrt(weights[row + k] / top));
    }
  }
  return { steps, maxima };
}

/* (P, P): pixels between the centres of patches, of a clip within the frame, whatever the time. */
export function patchDistances({ t, h, w, imageSize: [height, width] }) {
  const P = t * h * w, distances = new Float32Array(P * P), down = height / h, across = width / w;
  for (let a = 0; a < P; a++) {
    for (let b = 0; b < P; b++) {
      const y = (Math.floor(a / w) % h - Math.floor(b / w) % h) * down, x = (a % w - b % w) * across;
      distances[a * P + b] = Math.hypot(y, x);
    }
  }
  return distances;
}

/* {distance, effective, prefixShare}, (L, H) each: means over the rows of patches; attn (L, H, T, T). */
export function headFigures(attn, { L, H, T, prefix, distances }) {
  const P = T - prefix;
  const [distance, effective, prefixShare] = [0, 1, 2].map(() => new Float32Array(L * H));
  for (let m = 0; m < L * H; m++) {
    let far = 0, tokens = 0, toPrefix = 0;
    for (let q = 0; q < P; q++) {
      const at = (m * T + prefix + q) * T;
      let sum = 0, moment = 0, entropy = 0;
      for (let k = 0; k < T; k++) {
        const a = attn[at + k];
        if (a > 0) entropy -= a * Math.log(a);
        if (k < prefix) toPrefix += a;
        else {
          sum += a;
          moment += a * distances[q * P + k - prefix];
        }
      }
      far += moment / Math.max(sum, 1e-12);
      tokens += Math.exp(entropy);
    }
    distance[m] = far / P;
    effective[m] = tokens / P;
    prefixShare[m] = toPrefix / P;
  }
  return { distance, effective, prefixShare };
}

/* (L, H, t): of the attention that patches give to patches, the share at every distance in time, 0 in the same frame. */
export function lagShare(attn, { L, H, T, prefix, t }) {
  const P = T - prefix, each = P / t, share = new Float64Array(L * H * t);
  for (let m = 0; m < L * H; m++) {
    for (let q = 0; q < P; q++) {
      const row = attn.subarray((m * T + prefix + q) * T + prefix, (m * T + prefix + q + 1) * T);
      const sum = Math.max(row.reduce((a, b) => a + b, 0), 1e-12), frame = Math.floor(q / each);
      for (let k = 0; k < P; k++) share[m * t + Math.abs(frame - Math.floor(k / each))] += row[k] / sum / P;
    }
  }
  return Float32Array.from(share);
}

/* (t,): the same of a head that looks everywhere alike. */
export const uniformLags = (t) => Float32Array.from({ length: t }, (_, lag) => (lag ? 2 : 1) * (t - lag) / t ** 2);

/* (L+1, T): length of every token; tokens (L+1, T, D). */
export function tokenNorms(tokens, D) {
  const norms = new Float32Array(tokens.length / D);
  for (let i = 0; i < norms.length; i++) {
    let sum = 0;
    for (let k = i * D; k < (i + 1) * D; k++) sum += tokens[k] * tokens[k];
    norms[i] = Math.sqrt(sum);
  }
  return norms;
}

/* K values of K logits, by what the model's card says that they mean: probabilities, or the numbers themselves. */
export function classValues(logits, scores) {
  if (scores === "none") return logits;
  if (scores === "sigmoid") return Float32Array.from(logits, (x) => 1 / (1 + Math.exp(-x)));
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float32Array.from(logits, (x) => Math.exp(x - top)), sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

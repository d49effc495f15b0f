/* One look at one picture, made in the page: the model's outputs as the messages that the viewer reads
   (explorer/schema.json), the same sections that explorer/payload.py writes.

   run: async ({image, hidden, gate}) => {logits, attn, tokens}, typed arrays. about: what the exporter said of the
   model (site/model.json). */

import { classValues, headFigures, patchDistances, quantise, rolloutStep, sentRows, similarity, tokenNorms } from "./figures.js";
import { pcaColours } from "./pca.js";
import { middle, normalise, resize } from "./pixels.js";

const TOP_CLASSES = 20;

/* {image (3, height, width) float32, pixels (height, width, 3) bytes, size, box}: a picture as the model takes it. */
export function prepare({ data, width, height }, about) {
  const box = middle(width, height, about.imageSize, about.cropPct);
  const pixels = resize(data, width, height, about.imageSize, box, about.interpolation);
  return { image: normalise(pixels, about.mean, about.std), pixels, size: about.imageSize, box };
}

/* hidden (T,) and gate (L, H) of interventions: {patches: [index, ...], heads: [[layer, head], ...]}. */
export function interventions({ patches = [], heads = [] }, { L, H, T, prefix }) {
  const hidden = new Float32Array(T), gate = new Float32Array(L * H).fill(1);
  for (const patch of patches) hidden[prefix + patch] = -Infinity;
  for (const [layer, head] of heads) gate[layer * H + head] = 0;
  return { hidden, gate };
}

/* (P,): what each patch gave to a class, directly, through all heads: the map of explorer/ledger.py. */
export function ledgerMap({ ledger_heads: heads, ledger_embed: embed }, { T, prefix }) {
  const map = embed.slice(prefix);
  for (let m = 0; m < heads.length / T; m++) {
    for (let p = 0; p < T - prefix; p++) map[p] += heads[m * T + prefix + p];
  }
  return map;
}

/* What stays of the head of a model's messages where its weights are others than those that were measured. */
export const unmeasured = (head) => Object.fromEntries(
  Object.entries(head).filter(([name]) => !["head_names", "opening", "believed"].includes(name)));

/* What one forward pass did, asked for piece by piece: the viewer's first picture does not wait for the last layer. */
export class Look {
  constructor(outputs, pixels, about, brief = false) {  // brief: of a camera, which is gone before all of it is seen
    this.brief = brief;
    Object.assign(this, outputs);  // logits (K,), attn (L, H, T, T), tokens (L+1, T, D)
    if (!about.classes) this.logits = new Float32Array();  // features, of a model without a head
    this.pixels = pixels;
    this.about = about;
    this.rolled = [];
    this.rows = sentRows(about.h, about.w, about.prefix, about.H);
  }

  head() {
    const { about, rows } = this, { L, H, T, D, prefix, h, w, imageSize: [height, width] } = about;
    const distances = patchDistances(h, w, height, width);
    const figures = headFigures(this.attn, { L, H, T, prefix, distances });
    const first = quantise(this.attn, T, prefix, Int32Array.from({ length: L * H }, (_, m) => m * T));  // (L, H, T)
    const values = classValues(this.logits, about.scores);
    return {
      meta: {
        ...about.head, kind: "head", height, width, scores: about.scores, classes: this.classes(values), target: null,
        layer_bytes: H * rows.tokens.length * T, uniform_distance: distances.reduce((a, b) => a + b, 0) / distances.length,
      },
      arrays: {
        ...about.constants, class_values: values, row_of: rows.rowOf, tokens_sent: rows.tokens,
        norms: tokenNorms(this.tokens, D), distance: figures.distance, entropy: figures.entropy,
        prefix_share: figures.prefixShare, first_rows: first.steps, first_rows_max: first.maxima,
      },
    };
  }

  classes(values) {  // the likeliest, likeliest first
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, TOP_CLASSES);
    return order.map((index) => ({
      index, name: this.about.classNames[index] ?? `class ${index}`, value: values[index], logit: this.logits[index],
    }));
  }

  layer(l) {
    const { H, T, D, prefix } = this.about, size = H * T * T, attn = this.attn.subarray(l * size, (l + 1) * size);
    const queries = this.rows.tokens;
    const rowsOf = (matrices) => Int32Array.from(
      { length: matrices * queries.length }, (_, i) => Math.floor(i / queries.length) * T + queries[i % queries.length]);
    const looked = quantise(attn, T, prefix, rowsOf(H)), seen = { attn: looked.steps, attn_max: looked.maxima };
    if (this.brief) return { meta: { kind: "layer", layer: l }, arrays: seen };
    const rolled = quantise(this.rollout(l), T, prefix, rowsOf(1));
    const at = (depth) => this.tokens.subarray(depth * T * D, (depth + 1) * T * D);
    const arrays = {
      ...seen, rollout: rolled.steps, rollout_max: rolled.maxima,
      similarity: similarity(at(l + 1), T, D, queries),
    };
    if (l === 0) arrays.similarity_embed = similarity(at(0), T, D, queries);
    return { meta: { kind: "layer", layer: l }, arrays };
  }

  rollout(l) {
    const { H, T } = this.about, size = H * T * T;
    for (let k = this.rolled.length; k <= l; k++) {
      this.rolled.push(rolloutStep(this.rolled[k - 1] ?? null, this.attn.subarray(k * size, (k + 1) * size), H, T));
    }
    return this.rolled[l];
  }

  embeddings() {
    const { L, T, D, prefix, fixed } = this.about;
    const colours = (joint) => pcaColours(this.tokens, { depths: L + 1, T, D, prefix, joint });
    return { meta: { kind: "embeddings" }, arrays: { ...fixed, pca_joint: colours(true), pca_depth: colours(false) } };
  }

  /* Attention of one layer as it is, (H, T, T): the numbers that are read beside the pointer. */
  exact(l) {
    const size = this.about.H * this.about.T ** 2;
    return { meta: { kind: "exact", layer: l }, arrays: { exact: this.attn.slice(l * size, (l + 1) * size) } };
  }
}

/* One look at one picture, made in the page: the model's outputs as the messages that the viewer reads
   (explorer/schema.json), the same sections that explorer/payload.py writes.

   about: what the exporter said of the model (explorer/site/folder.py, `described`). */

import { classValues, headFigures, lagShare, patchDistances, quantise, sentRows, tokenNorms, uniformLags } from "./figures.js";
import { pcaColours } from "./pca.js";
import { joined } from "./pixels.js";

const TOP_CLASSES = 20;

/* An image (F, 3, height, width) in which what one time holds stands at all t: as vit/trace.py's FreezeTime, because the
   projection reads the frames of one time by themselves. */
export function frozen(image, time, t) {
  const each = image.length / t;
  return joined(Array(t).fill(image.subarray(time * each, (time + 1) * each)));
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

const distancesOf = (about) => about.distances ??= patchDistances(about);
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function eye(T) {  // (T, T): nothing has been mixed yet
  const matrix = new Float32Array(T * T);
  for (let k = 0; k < T; k++) matrix[k * T + k] = 1;
  return matrix;
}

/* The tokens of a clip's frames, each seen by itself, as if they were of one look, (L+1, prefix + F P, D). */
function asOneClip(looks, { L, T, D, prefix }) {
  return joined(Array.from({ length: L + 1 }, (_, l) => looks.map((look, i) => look.tokens.subarray((l * T + (i && prefix)) * D, (l + 1) * T * D))).flat());
}

/* [(P,), (P,)]: which patch of the look b is most like each patch of a, and which of a each of b, by the cosine of their
   last tokens; as explorer/stats.py's frame_matches. */
export function matches(a, b) {
  const { D } = a.about, from = a.unit(), to = b.unit(), P = from.length / D;
  const [there, back] = [0, 1].map(() => new Int32Array(P));
  const [mostThere, mostBack] = [0, 1].map(() => new Float32Array(P).fill(-Infinity));
  for (let p = 0; p < P; p++) for (let q = 0; q < P; q++) {
    let cosine = 0;
    for (let d = 0, i = p * D, j = q * D; d < D; d++) cosine += from[i + d] * to[j + d];
    if (cosine > mostThere[p]) [mostThere[p], there[p]] = [cosine, q];
    if (cosine > mostBack[q]) [mostBack[q], back[q]] = [cosine, p];
  }
  return [there, back];
}

/* What one forward pass did, asked for piece by piece: the viewer's first picture does not wait for the last layer. */
export class Look {
  /* relate: async ({attn, rolled, tokens}) => {rollout, similarity}, the graph of how the tokens of a layer belong
     together. */
  constructor(outputs, about, relate, times) {
    Object.assign(this, { about, relate, times });
    Object.assign(this, outputs);  // logits (K,), attn (L, H, T, T), tokens (L+1, T, D)
    if (!about.classes) this.logits = new Float32Array();  // features, of a model without a head
    this.mixed = [];  // rollout and similarity of every layer so far: promises
    this.rows = sentRows(about, about.H);
  }

  head() {
    const { about, rows } = this, { L, H, T, D, prefix, tubelet, imageSize: [height, width] } = about;
    const first = quantise(this.attn, T, prefix, Int32Array.from({ length: L * H }, (_, m) => m * T));  // (L, H, T)
    const values = classValues(this.logits, about.scores);
    return {
      meta: {
        ...about.head, kind: "head", height, width, scores: about.scores, classes: this.classes(values), target: null,
        layer_bytes: H * rows.tokens.length * T, uniform_distance: mean(distancesOf(about)),
        ...(this.times && { times: this.times.filter((_, i) => i % tubelet === 0) }),
      },
      arrays: {
        ...about.constants, class_values: values, row_of: rows.rowOf, tokens_sent: rows.tokens,
        norms: tokenNorms(this.tokens, D), first_rows: first.steps, first_rows_max: first.maxima,
      },
    };
  }

  /* What the charts show, of all heads. */
  figures() {
    const { attn, about } = this, { distance, effective, prefixShare } = headFigures(attn, { ...about, distances: distancesOf(about) });
    const lags = about.t > 1 && { lag_share: lagShare(attn, about), uniform_lags: uniformLags(about.t) };
    return { meta: { kind: "figures" }, arrays: { distance, effective_tokens: effective, prefix_share: prefixShare, ...lags } };
  }

  classes(values) {  // the likeliest, likeliest first
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, TOP_CLASSES);
    return order.map((index) => ({
      index, name: this.about.classNames[index] ?? `class ${index}`, value: values[index], logit: this.logits[index],
    }));
  }

  /* What is seen first. */
  first(wanted = -1, all = false) {
    const { L, head: { opening } } = this.about, at = wanted < 0 ? opening?.layer ?? L - 1 : Math.min(Math.round(wanted), L - 1);
    return { head: this.head(), layers: (all ? [...Array(L).keys()] : [at]).map((l) => this.layer(l)) };
  }

  layer(l) {
    const { steps, maxima } = this.sent(this.attnOf(l), this.about.H);
    return { meta: { kind: "layer", layer: l }, arrays: { attn: steps, attn_max: maxima } };
  }

  /* How the tokens of a layer belong together. */
  async related(l) {
    const { rollout, similarity } = await this.relatedTo(l), { steps, maxima } = this.sent(rollout, 1);
    const arrays = { rollout: steps, rollout_max: maxima, similarity };
    if (l === 0) arrays.similarity_embed = (await this.relate({ attn: this.attnOf(0), rolled: eye(this.about.T), tokens: this.tokensAt(0) })).similarity;
    return { meta: { kind: "related", layer: l }, arrays };
  }

  /* The rows that are sent of so many matrices (T, T), as bytes. */
  sent(matrices, count) {
    const { about: { T, prefix }, rows: { tokens } } = this, Q = tokens.length;
    return quantise(matrices, T, prefix, Int32Array.from({ length: count * Q }, (_, i) => Math.floor(i / Q) * T + tokens[i % Q]));
  }

  relatedTo(l) {
    const of = async (before, k) => this.relate({
      attn: this.attnOf(k), rolled: (await before)?.rollout ?? eye(this.about.T), tokens: this.tokensAt(k + 1) });
    for (let k = this.mixed.length; k <= l; k++) {
      const made = this.mixed[k] = of(this.mixed[k - 1], k);
      made.catch(() => { if (this.mixed[k] === made) this.mixed.length = k; });  // it is asked for anew
    }
    return this.mixed[l];
  }

  attnOf(l) {  // (H, T, T)
    const size = this.about.H * this.about.T ** 2;
    return this.attn.subarray(l * size, (l + 1) * size);
  }

  tokensAt(depth) {  // (T, D)
    const size = this.about.T * this.about.D;
    return this.tokens.subarray(depth * size, (depth + 1) * size);
  }

  /* (P, D): of the last token of every patch, in length one. */
  unit() {
    if (this.units) return this.units;
    const { L, D, prefix } = this.about, rows = this.units = this.tokensAt(L).slice(prefix * D);
    for (let at = 0; at < rows.length; at += D) {
      const row = rows.subarray(at, at + D), length = Math.hypot(...row);
      for (let d = 0; d < D; d++) row[d] /= length;
    }
    return rows;
  }

  /* among: the looks at all frames of a clip, this one too, which share a basis of colours. */
  embeddings(among = [this]) {
    const { L, T, D, prefix, fixed } = this.about, P = T - prefix, frames = among.length, at = among.indexOf(this);
    const whole = among[0].colours ??= [true, false].map((joint) =>  // made once for all of them
      pcaColours(asOneClip(among, this.about), { depths: L + 1, T: prefix + frames * P, D, prefix, joint }));
    const own = (colours) => joined(Array.from({ length: L + 1 }, (_, l) => colours.subarray((l * frames + at) * P * 3, (l * frames + at + 1) * P * 3)));
    return { meta: { kind: "embeddings" }, arrays: { ...fixed, pca_joint: own(whole[0]), pca_depth: own(whole[1]) } };
  }

  /* Attention of one layer as it is, (H, T, T): the numbers that are read beside the pointer. */
  exact(l) {
    return { meta: { kind: "exact", layer: l }, arrays: { exact: this.attnOf(l).slice() } };
  }
}

/* The lesson, "How it works", from what one forward pass did in the page: the same JSON as explorer/lesson/steps.py.

   seen: the outputs of the graph of all that happens on the way (explorer/site/graph.py), with {image (3, height,
   width), pixels (height, width, 3)}, of a clip of F frames (F, 3, height, width) and (F, height, width, 3). about: what the exporter said of the model. outline: models/NAME/lesson.json,
   the steps without their numbers. choice: {patch, layer, head}. */

import { number as written } from "../../viewer/js/numbers.js";
import { answer, read } from "./answer.js";
import { lagShare, uniformLags } from "./figures.js";
import { cosine, number, numbers, shares, strongest } from "./vectors.js";

const FILTERS = 8;  // of the patch embedding that are shown with their weights
const KEYS = 320;  // tokens whose keys are told; of more, those with the highest scores
const TOP = 5;  // tokens that are named

/* What the lesson follows: one patch through one head of one layer. */
export class Follow {
  constructor(seen, about, outline, choice) {
    const { L, H, T, D, t, h, w, prefix } = about;
    const within = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);
    Object.assign(this, { seen, about, outline, P: t * h * w, d: D / H, M: seen.mlp_post.length / (L * T) });
    Object.assign(this, { p: outline.side, n: outline.tubelet });
    this.choice = { patch: within(choice.patch, this.P), layer: within(choice.layer, L), head: within(choice.head, H) };
    this.token = prefix + this.choice.patch;
  }

  row(name, layer, token, width = this.about.D) {  // of (L, T, width)
    const at = (layer * this.about.T + token) * width;
    return this.seen[name].subarray(at, at + width);
  }

  ofHead(name, layer, head, token, width = this.d) {  // of (L, H, T, width)
    const { H, T } = this.about, at = ((layer * H + head) * T + token) * width;
    return this.seen[name].subarray(at, at + width);
  }

  attn(layer, head, token) { return this.ofHead("attn", layer, head, token, this.about.T); }

  // (T,): what is added to our scores, by how far apart the tokens are; undefined where positions are not relative.
  distance(layer, head, token) { return this.seen.distance && this.ofHead("distance", layer, head, token, this.about.T); }

  scores(layer, head, token) {  // (T,)
    const added = this.distance(layer, head, token);
    const query = this.ofHead("q", layer, head, token), root = Math.sqrt(this.d);
    return Float32Array.from({ length: this.about.T }, (_, k) => {
      const key = this.ofHead("k", layer, head, k);
      return query.reduce((sum, value, i) => sum + value * key[i], 0) / root + (added?.[k] ?? 0);
    });
  }

  patch(name, index, width = this.about.D) { return this.seen[name].subarray(index * width, (index + 1) * width); }

  get time() { return Math.floor(this.choice.patch * this.about.t / this.P); }

  square() {  // {colours (n, p, p, 3), values (3 n p p)}: our patch, as pixels and as the model takes it
    const { p, n, time, about: { h, w, imageSize: [height, width] }, choice: { patch }, seen } = this, size = height * width;
    const top = Math.floor(patch / w) % h * p, left = patch % w * p, counted = (count) => Array.from({ length: count }, (_, i) => i);
    const side = counted(p), frames = counted(n).map((i) => time * n + i), place = (y, x) => (top + y) * width + left + x;
    return {
      colours: frames.map((frame) => side.map((y) => side.map((x) => [0, 1, 2].map((c) => seen.pixels[3 * (frame * size + place(y, x)) + c])))),
      values: [0, 1, 2].flatMap((c) => frames.flatMap((frame) => side.flatMap((y) => side.map((x) => seen.image[(3 * frame + c) * size + place(y, x)])))),
    };
  }
}

// (D,): weights · values of every pattern.
const products = (f, values) => Array.from({ length: f.about.D }, (_, j) =>
  f.patch("filters", j, values.length).reduce((sum, weight, i) => sum + weight * values[i], 0));

// The patterns that say most, and what each makes of our patch, before any norm.
const filters = (f, said, size, results) => strongest(said.map(Math.abs), FILTERS).map((index) => ({
  index, weights: numbers(f.patch("filters", index, size)), bias: number(f.seen.filter_bias[index]), result: number(results[index]),
}));

function embed(f) {
  const { values } = f.square(), found = products(f, values).map((sum, j) => sum + f.seen.filter_bias[j]);
  return { values: numbers(values), output: numbers(found), filters: filters(f, found, values.length, found) };
}

// Every pattern's result in two parts: of the mean of our patch's frames, and of what changes between them.
function tubelet(f) {
  const { colours, values } = f.square(), { n } = f, plane = f.p ** 2;
  const mean = values.map((_, i) => {
    const first = Math.floor(i / (n * plane)) * n * plane + i % plane;
    return Array.from({ length: n }, (_, frame) => values[first + frame * plane]).reduce((a, b) => a + b) / n;
  });
  const change = values.map((value, i) => value - mean[i]);
  const stays = products(f, mean), changes = products(f, change);
  const results = stays.map((sum, j) => sum + changes[j] + f.seen.filter_bias[j]);
  return {
    colours, change: numbers(change), stays: numbers(stays), changes: numbers(changes),
    filters: filters(f, changes, values.length, results),
  };
}

function position(f) {
  const { choice: { patch, layer, head }, seen, about, outline } = f, added = f.distance(layer, head, f.token);
  const found = { embed: numbers(f.patch("embed", patch)), sum: numbers(f.row("tokens", 0, f.token)) };
  if (seen.positions) {
    const ours = f.patch("positions", patch);
    found.position = numbers(ours);
    found.alike = numbers(Array.from({ length: f.P }, (_, k) => cosine(ours, f.patch("positions", k))));
  }
  if (seen.unturned) Object.assign(found, turned(f, about), found.alike && { alike: found.alike });
  if (added) found.distance = numbers(added.subarray(about.prefix));
  return { ...found, normed: outline.pre_norm };
}

// Our query in front of its turn and behind it, and how alike two places turn.
function turned(f, { L, T, prefix }) {
  const { choice: { layer, head }, seen, token, d } = f, half = d / 2, heads = seen.turn_cos.length / (L * T * half);
  const base = (layer * heads + (heads > 1 ? head : 0)) * T * half;
  const alike = Array.from({ length: f.P }, (_, k) => {
    let sum = 0;
    for (let i = 0; i < half; i++) {
      const ours = base + token * half + i, theirs = base + (prefix + k) * half + i;
      sum += seen.turn_cos[ours] * seen.turn_cos[theirs] + seen.turn_sin[ours] * seen.turn_sin[theirs];
    }
    return sum / half;
  });
  return {
    query: numbers(f.ofHead("unturned", layer, head, token)), turned: numbers(f.ofHead("q", layer, head, token)), alike: numbers(alike),
  };
}

function prefix(f) {
  const { about, outline: { frame, reads } } = f;
  return { names: frame.prefix, start: frame.prefix.map((_, k) => numbers(f.row("tokens", 0, k))), tokens: about.T, read: reads };
}

function ask(f) {
  const { choice: { layer, head }, token } = f, before = f.row("tokens", layer, token);
  const [q, k, v] = ["q", "k", "v"].map((name) => numbers(f.ofHead(name, layer, head, token))), normed = !f.outline.post_norm;
  return { before: numbers(before), reads: numbers(normed ? f.row("norm1", layer, token) : before), normed, q, k, v };
}

function scores(f) {
  const { choice: { layer, head }, token } = f, found = f.scores(layer, head, token), added = f.distance(layer, head, token);
  const tokens = [...new Set([...strongest(found, KEYS), token])].sort((a, b) => a - b);
  return {
    q: numbers(f.ofHead("q", layer, head, token)), tokens, keys: tokens.map((k) => numbers(f.ofHead("k", layer, head, k))),
    scores: numbers(found), root: number(Math.sqrt(f.d)), best: strongest(found, 1)[0],
    ...(added && { distance: numbers(added) }),
  };
}

function softmax(f) {
  const { choice: { layer, head }, token } = f, found = f.attn(layer, head, token);
  return {
    scores: numbers(f.scores(layer, head, token)), shares: numbers(found), best: strongest(found, TOP), sum: number(shares(found)),
  };
}

function mix(f) {
  const { choice: { layer, head }, token } = f, found = f.attn(layer, head, token), best = strongest(found, TOP);
  return {
    best, shares: numbers(best.map((k) => found[k])), rest: number(shares(found) - shares(best.map((k) => found[k]))),
    values: best.map((k) => numbers(f.ofHead("v", layer, head, k))), z: numbers(f.ofHead("z", layer, head, token)),
  };
}

function heads(f) {
  const { choice: { layer }, token, about: { H } } = f, all = Array.from({ length: H }, (_, head) => head);
  return {
    shares: all.map((head) => numbers(f.attn(layer, head, token))), z: all.map((head) => numbers(f.ofHead("z", layer, head, token))),
    added: numbers(f.row("attn_out", layer, token)), before: numbers(f.row("tokens", layer, token)),
    after: numbers(f.row("resid_mid", layer, token)), normed: f.outline.post_norm,
  };
}

function mlp(f) {
  const { choice: { layer }, token } = f, hidden = f.row("mlp_post", layer, token, f.M);
  return {
    hidden: numbers(hidden), active: hidden.reduce((count, value) => count + (value > 0), 0), count: hidden.length,
    before: numbers(f.row("resid_mid", layer, token)), after: numbers(f.row("tokens", layer + 1, token)),
    normed: f.outline.post_norm,
  };
}

function times(f) {
  const { choice: { layer, head }, token, time, P, about: { t, prefix: first } } = f, found = f.attn(layer, head, token), each = P / t;
  const of = Array.from({ length: t }, (_, k) => shares(found.subarray(first + k * each, first + (k + 1) * each)));
  return { shares: numbers(found), times: numbers(of), ours: time, front: number(shares(found.subarray(0, first))) };
}

function spans(f) {
  const { choice: { layer }, seen, about, about: { H, T, t } } = f, size = H * T * T;
  const found = lagShare(seen.attn.subarray(layer * size, (layer + 1) * size), { ...about, L: 1 }), uniform = uniformLags(t);
  const lags = Array.from({ length: H }, (_, head) => found.subarray(head * t, (head + 1) * t)), mean = (each) => each.reduce((sum, share, lag) => sum + share * lag, 0);
  return { lags: lags.map(numbers), apart: numbers(lags.map(mean)), uniform: numbers(uniform), even: number(mean(uniform)) };
}

function layers(f) {
  const { about: { L, prefix: first }, P, token } = f, depths = Array.from({ length: L + 1 }, (_, depth) => depth);
  return {
    alike: depths.map((depth) => {
      const ours = f.row("tokens", depth, token);
      return numbers(Array.from({ length: P }, (_, k) => cosine(ours, f.row("tokens", depth, first + k))));
    }),
    length: numbers(depths.map((depth) => Math.hypot(...f.row("tokens", depth, token)))),
  };
}

const NUMBERS = {
  cut: ({ about: { h, w }, p, P }) => ({ rows: h, columns: w, side: p, count: P }),
  flatten(f) {
    const { colours, values } = f.square();
    return { colours, values: numbers(values), count: values.length };
  },
  embed, tubelet, position, prefix, ask, scores, softmax, mix, heads, mlp, times, spans, layers, read, answer,
};

const yesOrNo = (question, yes) => ({ kind: "choice", ask: question, options: ["Yes", "No"], right: yes ? 0 : 1 });

// What is asked before the reveal, with the right answer.
function questions(f, { bag, why, order, frozen }, { times: through, read: { kind } }) {
  const { choice: { layer, head }, token, about, outline, seen } = f, looked = f.attn(layer, head, token).subarray(about.prefix);
  const asked = {
    softmax: {
      kind: "squares", ask: "Which squares will this head look at? Choose three.",
      right: strongest(looked, Math.max(3, Math.floor(f.P / 10))),
    },
  };
  const told = through ? "its place or time" : "its place";
  if (bag?.with) asked.position = yesOrNo(`If no square were told ${told}: would the answer be the same?`, bag.with.name === bag.without.name);
  if (through) {
    const [most] = strongest(through.times, 1), options = ["The square's own", "An earlier one", "A later one"];
    const right = most === through.ours ? 0 : most < through.ours ? 1 : 2;
    asked.times = { kind: "choice", ask: "Which time does this head look at most?", options, right, follows: true };
  }
  if (order) {
    const [filmed, backwards] = order.asked, { frames } = outline.frame;
    asked.order = yesOrNo("Played backwards: will it say the same?", filmed.says === backwards.says);
    asked.frozen = yesOrNo("Is there a single frame that gives the same answer?",
      frozen.asked.slice(0, frames).some(({ says }) => says === filmed.says));
  }
  if (outline.classes > 2) {
    const likeliest = strongest(seen.logits, 4), options = likeliest.slice().sort((a, b) => a - b);
    const names = options.map((k) => about.classNames[k] ?? `class ${k}`);
    asked.answer = { kind: "choice", ask: "What will it say?", options: names, right: options.indexOf(likeliest[0]) };
  }
  const those = kind === "mean" ? "that changed most" : "it looked at";
  if (why?.areas) asked.why = yesOrNo(`Will the squares ${those} matter more than squares picked at random?`, why.areas[0] < why.areas[1]);
  return asked;
}

/* The whole lesson of one choice. shared: what `shared` of answer.js gave for this picture; until it is there, null. */
export function lessonOf(f, shared) {
  const { frame, steps, classes } = f.outline;
  const data = Object.fromEntries(steps.filter(({ name }) => name in NUMBERS).map(({ name }) => [name, NUMBERS[name](f)]));
  if (classes) {
    data.why = shared ? shared.why : { missing: "The squares are being taken away, one after the other: this takes a moment." };
    if (data.times) {
      const missing = { missing: "The clip is being played in other ways: this takes a moment." };
      Object.assign(data, { order: shared?.order ?? missing, frozen: shared?.frozen ?? missing });
    }
    data.answer.without = shared ? shared.without : data.answer.without;
    data.position.bag = shared?.bag ?? {};
  }
  const [looked, random] = shared?.why.areas ?? [], asked = questions(f, shared ?? {}, data);
  const told = (area) => area === undefined ? "…" : written(area, 3);
  const words = { active: data.mlp.active, looked: told(looked), random: told(random) };
  const filled = (text) => text.replace(/\{(\w+)\}/g, (_, name) => words[name]);
  return {
    ...frame, choice: f.choice,
    steps: steps.map((step) => ({
      ...step, sentence: filled(step.sentence), formula: filled(step.formula), question: asked[step.name] ?? null, data: data[step.name],
    })),
  };
}


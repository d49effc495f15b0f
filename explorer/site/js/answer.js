/* The lesson's last steps: what the answer is read from, the answer, and whether it is why
   (explorer/lesson/answer.py). Some of it takes passes of its own: `plan` says which, `shared` takes what they gave.

   f: a `Follow` of lesson.js. */

import { written } from "../../viewer/js/numbers.js";
import { classValues } from "./figures.js";
import { halfEven, number, numbers, shares, strongest } from "./vectors.js";

const SHOWN = 5, LIKELIEST = 3;  // classes; where others come in that win
const STEPS = 7;  // points of a curve
const HIDDEN = [0, 0.05, 0.1, 0.2, 0.4];  // shares of the patches

const mean = (rows) => Float32Array.from(rows[0], (_, k) => rows.reduce((sum, row) => sum + row[k], 0) / rows.length);

/* (P,): what the read tokens take from every patch in the last layer, the mean over heads; or what the pooling
   attention takes; of a mean over patches, how much each of them changed there. */
export function lookedAt(f) {
  const { about: { L, H, T, prefix }, outline: { reads, pools } } = f;
  if (pools) return pooled(f).subarray(prefix);
  if (reads.length) {
    const rows = Array.from({ length: H }, (_, head) => reads.map((token) => f.attn(L - 1, head, token))).flat();
    return mean(rows).subarray(prefix);
  }
  return Float32Array.from({ length: T - prefix }, (_, k) => {
    const before = f.row("tokens", L - 1, prefix + k), after = f.row("tokens", L, prefix + k);
    return Math.hypot(...after.map((value, i) => value - before[i]));
  });
}

function pooled({ seen, about: { T } }) {  // (T,): the mean of the heads that pool
  return mean(Array.from({ length: seen.pool_attn.length / T }, (_, head) => seen.pool_attn.subarray(head * T, (head + 1) * T)));
}

export function read(f) {
  const { about: { L, prefix, T }, outline: { reads, read_name: name, pools }, choice: { head } } = f;
  const found = { map: numbers(lookedAt(f)), name };
  if (pools) {
    const taken = pooled(f);
    return { ...found, kind: "pool", shares: numbers(taken), best: strongest(taken, SHOWN) };
  }
  if (!reads.length) return { ...found, kind: "mean", share: number(1 / (T - prefix)) };
  const taken = mean(reads.map((token) => f.attn(L - 1, head, token)));
  Object.assign(found, {
    kind: "token", shares: numbers(taken), best: strongest(taken, SHOWN),
    z: numbers(mean(reads.map((token) => f.ofHead("z", L - 1, head, token)))), alone: number(shares(reads.map((token) => taken[token]))),
  });
  if (reads.length > 1) return found;
  return { ...found, q: numbers(f.ofHead("q", L - 1, head, reads[0])), scores: numbers(f.scores(L - 1, head, reads[0])) };
}

const nameOf = ({ about }, k) => about.classNames[k] ?? `class ${k}`;

export function answer(f) {
  const { seen, about: { scores }, outline: { classes } } = f;
  if (!classes) return { classes: [], features: numbers(seen.logits) };
  const values = classValues(seen.logits, scores), best = strongest(seen.logits, SHOWN);
  return {
    classes: best.map((k) => ({ name: nameOf(f, k), logit: number(seen.logits[k]), value: number(values[k]), written: written(values[k], f.about) })),
    count: classes, kind: scores, without: [withoutSome(f, [], seen.logits)],
    ...(seen.vector && { vector: numbers(seen.vector), weights: numbers(seen.class_weights), bias: number(seen.class_bias[0]) }),
  };
}

const withoutSome = (f, hidden, logits) => ({ hidden, ...told(f, logits, strongest(f.seen.logits, SHOWN)) });

function told(f, logits, watched) {
  const values = classValues(logits, f.about.scores);
  return {
    values: numbers(watched.map((k) => values[k])), written: watched.map((k) => written(values[k], f.about)), says: nameOf(f, strongest(logits, 1)[0]),
  };
}

// Of a clip, what is said of its frames as they are asked for: of the likeliest classes, and of all that win.
function answersTo(f, asked, found) {
  const winners = found.map((logits) => strongest(logits, 1)[0]);
  const watched = [...new Set([...strongest(f.seen.logits, LIKELIEST), ...winners])];
  return {
    classes: watched.map((k) => nameOf(f, k)), filmed: told(f, f.seen.logits, watched),
    asked: asked.map((each, i) => ({ ...each, ...told(f, found[i], watched) })),
  };
}

const counts = (P) => [...new Set(Array.from({ length: STEPS }, (_, i) => halfEven(P * i / (STEPS - 1))))];

/* The passes that the last steps take: [{hidden: patches nobody may look at} or {grey: patches painted grey} or
   {placeless: true} or, of a clip, {frames: of it, in this order}, ...], each of which wants logits. */
export function plan(f) {
  const { P, outline: { classes, chance, placeless, orders, held } } = f, order = strongest(lookedAt(f), P);
  if (!classes) return [];
  const some = HIDDEN.map((share) => ({ hidden: order.slice(0, halfEven(share * P)) })).filter(({ hidden }) => hidden.length);
  const grey = [order, chance].flatMap((each) => counts(P).slice(1, -1).map((count) => ({ grey: each.slice(0, count) })));
  return [...some, ...grey, { grey: chance }, ...(placeless ? [{ placeless: true }] : []),
    ...[...orders, ...held].map(({ frames }) => ({ frames }))];
}

/* {without, why, bag, of a clip also order and frozen} from the logits of the passes of `plan`, in its order. */
export function shared(f, logits) {
  const { P, seen, about: { scores }, outline: { chance, placeless, orders, held } } = f, order = strongest(lookedAt(f), P);
  const passes = plan(f), at = (pass) => logits[passes.indexOf(pass)], played = passes.filter(({ frames }) => frames).map(at);
  const target = strongest(seen.logits, 1)[0], value = (found) => classValues(found, scores)[target];
  const greys = passes.filter((pass) => pass.grey), nothing = value(at(greys.at(-1))), each = (greys.length - 1) / 2;
  const curves = [0, 1].map((i) => [value(seen.logits), ...greys.slice(i * each, (i + 1) * each).map((pass) => value(at(pass))), nothing]);
  const fractions = counts(P).map((count) => count / P);
  const area = (curve) => curve.slice(1).reduce((sum, y, i) => sum + (y + curve[i]) / 2 * (fractions[i + 1] - fractions[i]), 0);
  const bag = placeless && Object.fromEntries([["with", seen.logits], ["without", at(passes.find((pass) => pass.placeless))]].map(([name, found]) => {
    const k = strongest(found, 1)[0];
    return [name, { name: nameOf(f, k), written: written(classValues(found, scores)[k], f.about) }];
  }));
  return {
    bag: bag || {},
    ...(orders.length && {
      order: answersTo(f, orders, played.slice(0, orders.length)), frozen: answersTo(f, held, played.slice(orders.length)),
    }),
    without: [withoutSome(f, [], seen.logits), ...passes.filter((pass) => pass.hidden).map((pass) => withoutSome(f, pass.hidden, at(pass)))],
    why: {
      class: nameOf(f, target), kind: scores, fractions: numbers(fractions), looked: numbers(curves[0]), random: numbers(curves[1]),
      orders: [order, chance], areas: curves.map((curve) => number(area(curve))),
    },
  };
}

/* The image (3, height, width), or (F, 3, height, width), with some patches painted grey, which is zero after
   normalisation. side: of a patch; tubelet: the frames that it reaches through. */
export function painted(image, patches, { h, w, imageSize: [height, width] }, { side, tubelet }) {
  const out = image.slice();
  for (const patch of patches) {
    const top = Math.floor(patch / w) % h * side, left = patch % w * side, plane = Math.floor(patch / (h * w)) * tubelet * 3;
    for (let at = plane; at < plane + 3 * tubelet; at++) {  // the colours of its frames
      for (let y = top; y < top + side; y++) out.fill(0, (at * height + y) * width + left, (at * height + y) * width + left + side);
    }
  }
  return out;
}

/* A clip (F, 3, height, width) of these frames of the image. */
export function ofFrames(image, frames, { frames: count }) {
  const out = new Float32Array(image.length), size = image.length / count;
  frames.forEach((frame, i) => out.set(image.subarray(frame * size, (frame + 1) * size), i * size));
  return out;
}

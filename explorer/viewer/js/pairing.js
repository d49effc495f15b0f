// Two pictures side by side: where they lie, what is under the pointer, what is like it. No element, no pixel.

import { number } from "./numbers.js";

export const GAP = 28;  // pixels between the pictures, which lines cross
export const NARROW = 620;  // below, the second picture stands under the first

// Where both pictures lie in `width` pixels: {boxes: [{x, y, width, height}, ...], height, stacked}
export function places(width, sizes, tallest) {
  const stacked = width < NARROW;
  if (stacked) {
    const side = Math.min(width, tallest / 2);
    const scales = sizes.map(([height, wide]) => Math.min(width / wide, side / height));
    const boxes = sizes.map(([height, wide], i) => ({ x: (width - wide * scales[i]) / 2, y: 0, width: wide * scales[i], height: height * scales[i] }));
    boxes[1].y = boxes[0].height + GAP;
    return { boxes, height: boxes[1].y + boxes[1].height, stacked };
  }
  const each = (width - GAP) / 2;
  const scales = sizes.map(([height, wide]) => Math.min(each / wide, tallest / height));
  const boxes = sizes.map(([height, wide], i) => ({ x: 0, y: 0, width: wide * scales[i], height: height * scales[i] }));
  boxes[1].x = boxes[0].width + GAP;
  return { boxes, height: Math.max(boxes[0].height, boxes[1].height), stacked };
}

// The patch under a point: {side: 0 | 1, patch}, or null between the pictures.
export function under(x, y, boxes, grids) {
  for (const [side, box] of boxes.entries()) {
    const [h, w] = grids[side], column = Math.floor((x - box.x) / box.width * w), row = Math.floor((y - box.y) / box.height * h);
    if (row >= 0 && row < h && column >= 0 && column < w) return { side, patch: row * w + column };
  }
  return null;
}

export function centre({ side, patch }, boxes, grids) {
  const [h, w] = grids[side], box = boxes[side];
  return [box.x + (patch % w + 0.5) / w * box.width, box.y + (Math.floor(patch / w) + 0.5) / h * box.height];
}

export const cosineOf = (byte) => byte / 127 - 1;

// How alike every patch of the other picture is: cosines.
export function alike({ side, patch }, { similarity }) {
  const [P, P2] = similarity.shape;
  if (side === 0) return Float32Array.from(similarity.subarray(patch * P2, (patch + 1) * P2), cosineOf);
  return Float32Array.from({ length: P }, (_, i) => cosineOf(similarity[i * P2 + patch]));
}

// The patch of the other picture that is most like it, how much, and the place of the two among the matches; -1: that one is
// more like another patch.
export function nearestOf(at, message) {
  const { matches, cosine, nearest, nearest2 } = message, patch = (at.side ? nearest2 : nearest)[at.patch];
  const match = cosine.findIndex((_, k) => matches[2 * k + at.side] === at.patch);
  return { patch, match, cosine: match < 0 ? alike(at, message)[patch] : cosine[match] };
}

// How many matches are drawn: at most `count` of those that are at least `least` alike; they come in falling order.
export function drawn({ cosine }, { count, least }) {
  let k = 0;
  while (k < cosine.length && k < count && cosine[k] >= least) k++;
  return k;
}

// One step of the keyboard; over the border between the pictures it leads into the other one.
export function moved(at, dx, dy, grids, stacked) {
  const [h, w] = grids[at.side], row = Math.floor(at.patch / w) + dy, column = at.patch % w + dx;
  const [along, size] = stacked ? [row, h] : [column, w];
  const crosses = at.side === 0 ? along >= size : along < 0;
  if (!crosses) return { side: at.side, patch: Math.min(Math.max(row, 0), h - 1) * w + Math.min(Math.max(column, 0), w - 1) };
  const side = 1 - at.side, [h2, w2] = grids[side];
  const across = (k, from, to) => Math.min(to - 1, Math.floor((k + 0.5) / from * to));
  const place = stacked ? [side ? 0 : h2 - 1, across(column, w, w2)] : [across(row, h, h2), side ? 0 : w2 - 1];
  return { side, patch: place[0] * w2 + place[1] };
}

export const nameOf = ({ side, patch }, grids) =>
  `patch (${Math.floor(patch / grids[side][1])},\u00a0${patch % grids[side][1]}) of the ${side ? "second" : "first"} picture`;

export function sentence(at, message, grids) {
  const { patch, match, cosine } = nearestOf(at, message);
  const who = nameOf(at, grids), whom = nameOf({ side: 1 - at.side, patch }, grids);
  const start = `${who[0].toUpperCase()}${who.slice(1)} is most like ${whom}: cosine ${number(cosine)}.`;
  return start + (match >= 0 ? " They chose each other." : " That one is more like another patch.");
}

export const depthName = (depth) => depth === 0 ? "After the embedding" : `After layer ${depth - 1}`;

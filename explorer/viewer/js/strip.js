// Frames of a clip beside and under each other, in the order in which they are read. A picture is one frame.

export const ONE = { across: 1, down: 1, gap: 0, head: 0 };

const GAP = 6, HEAD = 18;  // CSS pixels: between frames, above each of them for its name
const RAGGED = 0.75;  // what a last row that is not full counts: rows are full unless frames gain much by it

// As many frames across as make them largest, in full rows where that costs little; of equals, the most.
// width, height: the room.
export function stripOf({ frames, w, h }, width, height, dpr) {
  if (frames.length === 1) return ONE;
  let best = null;
  for (let across = frames.length; across > 0; across--) {
    const down = Math.ceil(frames.length / across), strip = { across, down, gap: GAP * dpr, head: HEAD * dpr };
    const full = frames.length % across ? RAGGED : 1, worth = full * patchFor(strip, { w, h }, width * dpr, height * dpr);
    if (!best || worth > best.worth) best = { ...strip, worth };
  }
  return best;
}

// The largest patch that fits, in pixels; and the pixels that all frames take with patches of this size.
export const patchFor = ({ across, down, gap, head }, { w, h }, width, height) =>
  Math.min((width - (across - 1) * gap) / (across * w), (height - (down - 1) * gap - down * head) / (down * h));
export const extent = ({ across, down, gap, head }, { w, h }, patch) =>
  [across * w * patch + (across - 1) * gap, down * (h * patch + head) + (down - 1) * gap];

// The corner of a frame, and of a patch in it.
export const frameCorner = ({ across, gap, head }, { w, h }, frame, patch) => [
  frame % across * (w * patch + gap), head + Math.floor(frame / across) * (h * patch + gap + head),
];
export function corner(strip, data, index, patch) {
  const { w, h } = data, place = index % (w * h), [x, y] = frameCorner(strip, data, Math.floor(index / (w * h)), patch);
  return [x + place % w * patch, y + Math.floor(place / w) * patch];
}

// The patch at a point, or -1 beside all frames.
export function patchAt(strip, { w, h, P }, x, y, patch) {
  const { across, gap, head } = strip, wide = w * patch + gap, high = h * patch + gap + head;
  const left = Math.floor(x / wide), top = Math.floor(y / high);
  const column = Math.floor((x - left * wide) / patch), row = Math.floor((y - top * high - head) / patch);
  if (x < 0 || y < 0 || left >= across || column >= w || row < 0 || row >= h) return -1;
  const index = (top * across + left) * w * h + row * w + column;
  return index < P ? index : -1;
}

// The numbers that are read are the model's own: a layer's attention is fetched in float32 once somebody reads it.
// Until then, and where nobody has it, they come from the rounded bytes of the picture, and say so: ≈.

import { unpack } from "./bytes.js";
import { once } from "./sources.js";

// (T,) of a view of attention, or null: there is none, or it has not come.
export function exactOf({ data, sheet, direction }, now) {
  const all = data.exact?.get(now.layer);
  if (!all || !sheet.fused) return null;
  const { T, H } = data, out = new Float32Array(T), one = now.fuse === "one";
  for (let head = one ? now.head : 0; head < (one ? now.head + 1 : H); head++) for (let k = 0; k < T; k++) {
    const value = all[direction === "column" ? (head * T + k) * T + now.query : (head * T + now.query) * T + k];
    out[k] = now.fuse === "max" ? Math.max(out[k], value) : out[k] + (one ? value : value / H);
  }
  return out;
}

// What fails leaves the rounded numbers there.
export const needExact = (data, layer) => once(data, `exact ${layer}`, async () => {
  const { arrays } = await unpack(await data.source.exact(layer));
  (data.exact ??= new Map()).set(layer, arrays.exact);
});

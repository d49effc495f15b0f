/* Weights as they travel -> the float32 bytes that the model's graph expects.

   A pack is one file of tensors one after another; its list says of each {name, shape, dtype, at, scale}: half
   precision, or 8 bits with one float32 scale per row at byte `scale`. */

export const UNFIT = "The files of this model do not fit together: copy the folder again.";

const HALVES = new Float32Array(65536);  // every number of half precision

function fillHalves() {
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) HALVES[bits] = fraction ? NaN : sign * Infinity;
    else HALVES[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }
}

/* The tensors of a pack, one after another, as the bytes of float32 numbers. */
export function expand(buffer, list) {
  if (HALVES[0x3c00] !== 1) fillHalves();
  const numbers = (Numbers, from, count) => {
    if (from + count * Numbers.BYTES_PER_ELEMENT > buffer.byteLength) throw new Error(UNFIT);
    return new Numbers(buffer, from, count);
  };
  const count = (tensor) => tensor.shape.reduce((a, b) => a * b, 1);
  const out = new Float32Array(list.reduce((sum, tensor) => sum + count(tensor), 0));
  let at = 0;
  for (const tensor of list) {
    const n = count(tensor);
    if (tensor.dtype === "float16") {
      const halves = numbers(Uint16Array, tensor.at, n);
      for (let i = 0; i < n; i++) out[at + i] = HALVES[halves[i]];
    } else {
      const rows = tensor.shape[0], width = n / rows;
      const steps = numbers(Int8Array, tensor.at, n), scales = numbers(Float32Array, tensor.scale, rows);
      for (let i = 0; i < n; i++) out[at + i] = steps[i] * scales[Math.floor(i / width)];
    }
    at += n;
  }
  return new Uint8Array(out.buffer);
}

// The engine of the page without a server against what Python wrote: run by tests/test_site.py, which makes FIXTURES.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { join } from "node:path";
import test from "node:test";

import { Look, interventions } from "../../../explorer/site/js/engine.js";
import { middle, prepare, resize } from "../../../explorer/site/js/pixels.js";
import { expand } from "../../../explorer/site/js/weights.js";

const folder = process.env.FIXTURES;
const bytes = (name) => {
  const raw = readFileSync(join(folder, name));
  return raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength);
};
const json = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const floats = (name) => new Float32Array(bytes(name));
const eye = (T) => Float32Array.from({ length: T * T }, (_, i) => Number(i % (T + 1) === 0));
const TYPES = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

function unpack(name) {
  const raw = gunzipSync(readFileSync(join(folder, name)));
  const start = 16 + raw.readUInt32LE(8), header = JSON.parse(raw.subarray(16, start));
  const arrays = {};
  for (const [key, { dtype, shape, offset }] of Object.entries(header.sections)) {
    const count = shape.reduce((a, b) => a * b, 1), Type = TYPES[dtype];
    arrays[key] = new Type(raw.buffer.slice(raw.byteOffset + start + offset, raw.byteOffset + start + offset + count * Type.BYTES_PER_ELEMENT));
  }
  return { meta: header.meta, arrays };
}

function close(ours, theirs, bound, what) {
  assert.equal(ours.length, theirs.length, what);
  let worst = 0;
  for (let i = 0; i < ours.length; i++) worst = Math.max(worst, Math.abs(ours[i] - theirs[i]));
  assert.ok(worst <= bound, `${what}: off by ${worst}`);
}

const SEEN = ["image", "frames", "frame_ends", "colormaps"];  // what the page itself puts beside what the engine finds

for (const name of json("traces.json")) {
  const about = json(`${name}.about.json`);
  const look = () => new Look(
    { logits: floats(`${name}.logits`), attn: floats(`${name}.attn`), tokens: floats(`${name}.tokens`) }, about, related);
  const asked = [];  // of the graph: each layer once, and the first once more for the tokens before it
  const related = async ({ attn, rolled, tokens }) => {
    asked.push(attn.byteOffset / attn.byteLength);
    assert.equal(tokens.length, about.T * about.D);
    const depth = tokens.byteOffset / tokens.byteLength, layer = attn.byteOffset / attn.byteLength;
    close(rolled, layer ? floats(`${name}.rollout${layer - 1}`) : eye(about.T), 0, "rolled so far");
    return { rollout: floats(`${name}.rollout${layer}`), similarity: new Uint8Array(bytes(`${name}.similarity${depth}`)) };
  };

  test(`${name}: the head is Python's`, () => {
    const one = look(), ours = one.head(), theirs = unpack(`${name}.head`);
    assert.deepEqual(Object.keys(ours.arrays).filter((key) => ["distance", "lag_share"].includes(key)), [], "charts are seen later");
    Object.assign(ours.arrays, one.figures().arrays);
    for (const key of ["kind", "height", "width", "layer_bytes", "scores"]) assert.equal(ours.meta[key], theirs.meta[key], key);
    assert.deepEqual(ours.meta.classes.map((c) => [c.index, c.name]), theirs.meta.classes.map((c) => [c.index, c.name]));
    for (const key of ["class_values", "norms", "distance", "effective_tokens", "prefix_share", "first_rows_max"]) {
      close(ours.arrays[key], theirs.arrays[key], 2e-4, key);
    }
    close(ours.arrays.first_rows, theirs.arrays.first_rows, 1, "first_rows");
    assert.deepEqual(Object.keys(ours.arrays).sort(), Object.keys(theirs.arrays).filter((key) => !SEEN.includes(key)).sort());
    for (const key of theirs.arrays.lag_share ? ["lag_share", "uniform_lags"] : []) close(ours.arrays[key], theirs.arrays[key], 1e-5, key);
    for (const key of ["row_of", "tokens_sent"]) assert.deepEqual([...ours.arrays[key]], [...theirs.arrays[key]], key);
    assert.ok(Math.abs(ours.meta.uniform_distance - theirs.meta.uniform_distance) < 1e-4);
  });

  test(`${name}: every layer is Python's`, async () => {
    const ours = look();
    for (let l = about.L - 1; l >= 0; l--) {
      const theirs = unpack(`${name}.layer${l}`), seen = ours.layer(l).arrays;
      assert.deepEqual(Object.keys(seen), ["attn", "attn_max"], "the rest is asked for where it is seen");
      const arrays = { ...seen, ...(await ours.related(l)).arrays };
      assert.deepEqual(Object.keys(arrays).sort(), Object.keys(theirs.arrays).sort());
      for (const key of Object.keys(arrays)) close(arrays[key], theirs.arrays[key], key.endsWith("max") ? 1e-6 : 1, `layer ${l} ${key}`);
    }
    assert.deepEqual(asked, [...Array(about.L).keys(), 0]);
  });

  test(`${name}: components in colour are Python's`, () => {
    const ours = look().embeddings().arrays, theirs = unpack(`${name}.embeddings`).arrays;
    for (const key of ["pca_joint", "pca_depth"]) close(ours[key], theirs[key], 2, key);
  });
}

test("a picture is cut and resized as Python does it", () => {
  for (const { name, width, height, size, crop, interpolation } of json("pictures.json")) {
    const pixels = resize(new Uint8Array(bytes(`${name}.rgba`)), width, height, size, middle(width, height, size, crop), interpolation);
    close(pixels, new Uint8Array(bytes(`${name}.pixels`)), 1, name);
  }
});

test("what the model reads is Python's", () => {
  const { name, width, height, size, crop, interpolation } = json("pictures.json")[0];
  const about = { imageSize: size, cropPct: crop, interpolation, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3] };
  const ready = prepare({ data: new Uint8Array(bytes(`${name}.rgba`)), width, height }, about);
  close(ready.image, floats(`${name}.image`), 2 / 255 / 0.2, "image");
});

test("weights of half precision and of 8 bits come back", () => {
  for (const { name, bound } of json("weights.json")) {
    const ours = new Float32Array(expand(bytes(`${name}.pack`), json(`${name}.list.json`)).buffer);
    close(ours, floats(`${name}.floats`), bound, name);
  }
});

test("interventions are tensors", () => {
  const { hidden, gate } = interventions({ patches: [2], heads: [[1, 0]] }, { L: 2, H: 2, T: 5, prefix: 1 });
  assert.deepEqual([...hidden], [0, 0, 0, -Infinity, 0]);
  assert.deepEqual([...gate], [1, 1, 0, 1]);
});

import assert from "node:assert/strict";
import test from "node:test";
import { unpack } from "../../explorer/viewer/js/bytes.js";
import { fillSheet, fused, keyOf, largest, read, sheetOf } from "../../explorer/viewer/js/weights.js";
import { exactOf } from "../../explorer/viewer/js/exact.js";
import { bytes, close, truth } from "./fixtures.mjs";

const { T, H, L, Q, P, h, w } = truth.letters;
const head = (await unpack(bytes("head"))).arrays, layer = (await unpack(bytes("layer0"))).arrays;
const data = { T, H, L, Q, P, h, w, pre: T - P, row_of: head.row_of, layers: [layer, null, null], norms: head.norms, maps: new Map() };
const attn = (head, query, key) => truth.attn[(head * T + query) * T + key];
const bound = (top, value) => top * (Math.sqrt(value / top) / 255 + 1 / 510 ** 2) + 1e-9;

test("a row, and a column, are Python's within the bound that the payload promises", () => {
  const out = new Float32Array(T + 2);
  for (let h = 0; h < H; h++) for (let query = 0; query < T; query++) {
    const tops = [0, 0];
    for (let k = 0; k < T; k++) tops[+(k >= data.pre)] = Math.max(tops[+(k >= data.pre)], attn(h, query, k));
    read(out, 2, layer.attn, layer.attn_max, h, query, "row", data);
    for (let k = 0; k < T; k++) {
      const exact = attn(h, query, k);
      assert.ok(close(out[2 + k], exact, bound(tops[+(k >= data.pre)], exact)), `${h} ${query} ${k}`);
    }
    read(out, 0, layer.attn, layer.attn_max, h, query, "column", data);
    for (let k = 0; k < T; k++) assert.ok(close(out[k], attn(h, k, query), 0.004), `column ${h} ${query} ${k}`);
  }
});

test("before a layer has come, the first token's row of every head is the one that the layer will bring", () => {
  const state = { mode: "attention" }, now = { query: 0, layer: 0 }, size = L * (H + 2) * T;
  const sheet = (from, asked = now, direction = "row") =>
    fillSheet(sheetOf(from, state, asked, direction, []), { values: new Float32Array(size) });
  const early = { ...data, layers: [null, null, null], first_rows: head.first_rows, first_rows_max: head.first_rows_max };
  const found = sheet(early), later = sheet(data);
  assert.deepEqual(found.values.slice(0, (H + 2) * T), later.values.slice(0, (H + 2) * T));
  assert.ok(found.ready.every(Boolean));
  assert.ok(!sheet(early, { ...now, query: 1 }).ready.some(Boolean), "of other tokens nothing is known yet");
  assert.ok(!sheet(early, now, "column").ready.some(Boolean));
});

test("numbers that are read are exact: row, column, mean and max", async () => {
  const exact = new Map([[0, (await unpack(bytes("exact0"))).arrays.exact]]), sheet = { fused: 2 };
  const of = (direction, now) => exactOf({ data: { ...data, exact }, sheet, direction }, { layer: 0, query: 5, ...now });
  const row = of("row", { fuse: "one", head: 2 }), column = of("column", { fuse: "one", head: 1 });
  const mean = of("row", { fuse: "mean" }), top = of("row", { fuse: "max" });
  for (let k = 0; k < T; k++) {
    assert.equal(row[k], Math.fround(attn(2, 5, k)));
    assert.equal(column[k], Math.fround(attn(1, k, 5)));
    const all = Array.from({ length: H }, (_, h) => attn(h, 5, k));
    assert.ok(close(mean[k], all.reduce((a, b) => a + b) / H, 1e-7));
    assert.equal(top[k], Math.fround(Math.max(...all)));
  }
  assert.equal(of("row", { layer: 1, fuse: "mean" }), null, "it has not come");
});

test("mean and max over the heads", () => {
  const mean = new Float32Array(T), top = new Float32Array(T);
  fused(mean, 0, layer, "mean", 1, "row", data);
  fused(top, 0, layer, "max", 1, "row", data);
  for (let k = 0; k < T; k++) {
    const all = Array.from({ length: H }, (_, h) => attn(h, 1, k));
    assert.ok(close(mean[k], all.reduce((a, b) => a + b) / H, 0.004));
    assert.ok(close(top[k], Math.max(...all), 0.004));
  }
});

test("a sheet leaves out what has not come, and knows the ends of what has", () => {
  const now = { query: 0 }, sheet = sheetOf(data, { mode: "attention" }, now, "row", []);
  fillSheet(sheet, { values: new Float32Array(0) });
  assert.deepEqual([...sheet.ready], [...Array(H + 2).fill(1), ...Array((L - 1) * (H + 2)).fill(0)]);
  const patches = sheet.values.subarray(data.pre, T);
  assert.equal(sheet.tops[0], Math.max(...patches));
  assert.equal(sheet.lows[0], Math.min(...patches));
});

test("norms are one map per depth", () => {
  const sheet = fillSheet(sheetOf(data, { mode: "embeddings", embedding: "norms" }, { query: 0 }, "row", []), { values: new Float32Array(0) });
  assert.equal(sheet.count, L + 1);
  assert.deepEqual([...sheet.values.slice(T, 2 * T)], truth.head.norms.slice(T, 2 * T).map(Math.fround));
});

test("a map is kept under what it depends on", () => {
  assert.equal(keyOf({ name: "relevance" }, { target: 3, query: 9 }), "relevance target3");
  assert.equal(keyOf({ name: "head", depends: ["layer", "head"] }, { layer: 1, target: 3 }), "head layer1 head-1");
  assert.equal(keyOf({ name: "rollout", depends: [] }, { target: 3 }), "rollout");
});

test("the largest come first, ties in the order of the tokens", () => {
  assert.deepEqual(largest([1, 5, 5, 0, 9], 0, 5, 3), [4, 1, 2]);
  assert.deepEqual(largest([1, 5, 5, 0, 9], 1, 4, 9), [1, 2, 3]);
});

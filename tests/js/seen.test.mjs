// Colours, words and the sizes of small maps.
import assert from "node:assert/strict";
import test from "node:test";
import { unpack } from "../../explorer/viewer/js/bytes.js";
import { colorize, level, rangeOf, shareRange, tableFor, tableOf } from "../../explorer/viewer/js/colour.js";
import { bestFit } from "../../explorer/viewer/js/layout.js";
import { canAnswer, lead, mostLookedAt } from "../../explorer/viewer/js/story.js";
import { pooled, stamp } from "../../explorer/viewer/js/paint.js";
import { corner, ONE, patchAt, stripOf } from "../../explorer/viewer/js/strip.js";
import { percent, written } from "../../explorer/viewer/js/numbers.js";
import { frameName, nameOf, place, sentence, short, titleOf } from "../../explorer/viewer/js/words.js";
import { bytes, truth } from "./fixtures.mjs";

const sheet = (changes = {}) => ({
  unit: "share", cols: 3, count: 6, fused: 1, ready: [1, 1, 1, 1, 0, 1], tops: [0.2, 0.4, 0.9, 0.1, 7, 0.3],
  lows: [0, 0, 0, -0.5, 0, 0], ...changes,
});

test("what the brightest colour means", () => {
  const data = { T: 20 };
  assert.equal(rangeOf(sheet(), 0, { scale: "map" }, data).high, 0.2);
  assert.equal(rangeOf(sheet(), 0, { scale: "layer" }, data).high, 0.4, "of the heads, not of their fusion");
  assert.equal(rangeOf(sheet(), 0, { scale: "all" }, data).high, 0.4, "nor of what has not come");
  assert.equal(rangeOf(sheet(), 0, { scale: "uniform" }, data).uniform, 1 / 20);
  assert.deepEqual(rangeOf(sheet({ unit: "value" }), 3, { scale: "map", curve: "root" }, data), { low: -0.5, high: 0.5, signed: true, root: true });
  assert.deepEqual(rangeOf(sheet({ unit: "cosine" }), 3, { scale: "map", curve: "root" }, data), { low: 0, high: 1 });
});

test("levels lie between 0 and 1, and the middle of the relative scale is uniform", () => {
  assert.equal(level(0.05, { uniform: 0.05 }), 0.5);
  assert.equal(level(0, { uniform: 0.05 }), 0);
  assert.equal(level(9, { low: 0, high: 1 }), 1);
  assert.equal(level(1, { low: 1, high: 1 }), 0, "a flat map divides by nothing");
});

test("a table is Python's, and a value finds its colour in it", async () => {
  const { meta, arrays } = await unpack(bytes("head"));
  const table = tableOf(arrays.colormaps, meta.colormaps.indexOf("viridis"));
  const [r, g, b] = truth.viridis[200];
  assert.equal(table[200], (0xff << 24 | b << 16 | g << 8 | r) >>> 0);
  const out = new Uint32Array(4), values = new Float32Array([9, 0, 0.5, 1, 2]);
  colorize(out, { cellWidth: 2, cellHeight: 2, size: 5, first: 1, values }, 0, { low: 0, high: 1 }, table);
  assert.deepEqual([...out], [table[0], table[128], table[255], table[255]]);
  const data = { tables: { viridis: table, RdBu_r: "signed" }, signed_colormaps: ["RdBu_r"] };
  assert.equal(tableFor({ signed: true }, { colormap: "viridis" }, data), "signed");
  assert.equal(tableFor({}, { colormap: "none" }, data), table);
});

test("numbers in words", () => {
  assert.deepEqual([0.5, 0.0995, 0.0123, 0.00123, 0.00001, 0].map(percent),
    ["50\u00a0%", "10\u00a0%", "1.2\u00a0%", "0.12\u00a0%", "<\u00a00.01\u00a0%", "0.00\u00a0%"]);
  for (const [share, text] of truth.percent) assert.equal(percent(share).replaceAll("\u00a0", " "), text, "as Python writes it");
  assert.deepEqual([123.4, 0, 1.234, 0.0123].map(short), ["123", "0", "1.23", "1.2e−2"]);
  assert.equal(written(0.25, { scores: "softmax" }), "25\u00a0%");
  assert.equal(written(-2.123456, { scores: "none" }), "−2.123");
  assert.equal(place(9, { pre: 1, t: 1, h: 3, w: 5 }), "(1,\u00a03)");
});

test("a sentence names who gives what to whom", () => {
  const data = {
    T: 4, pre: 1, P: 3, t: 1, h: 1, w: 3, H: 2, prefix_names: ["[CLS]"], refused: {}, source: {}, names: new Map(),
    tokens_sent: [0, 1, 2, 3], row_of: [0, 1, 2, 3],
  };
  const state = { mode: "attention" }, now = { fuse: "one", layer: 1, head: 0, query: 2 };
  const view = { sheet: { unit: "share", size: 4, values: new Float32Array([0.5, 0.25, 0.25, 0]), ready: [1] }, cell: 0, direction: "row" };
  const [title, words] = sentence(state, now, data, view, []);
  assert.equal(title, "L1.H0");
  assert.equal(words.replaceAll("\u00a0", " "), "patch (0, 1) gives ≈ 50 % to [CLS], 25 % to (0, 0), 25 % to itself");
  assert.equal(sentence(state, now, data, { ...view, sheet: { ...view.sheet, ready: [0] } }, [])[1], "on its way …");
  const exact = new Float32Array([0.4, 0.3, 0.3, 0]);
  assert.match(sentence(state, now, data, { ...view, exact }, [])[1], /gives 40\u00a0% to \[CLS\]/, "as it is: without ≈");
  const hidden = { ...view, direction: "column", sheet: { ...view.sheet, values: new Float32Array(4) } };
  assert.match(sentence(state, now, data, hidden, [])[1], /^no token looks at patch \(0,\u00a01\)$/);
  assert.equal(titleOf(state, { fuse: "mean", layer: 1 }, data, []), "L1, mean of 2 heads");
  const measured = { ...data, head_names: [[[], ["local", "row"]]] };
  assert.equal(titleOf(state, { fuse: "one", layer: 0, head: 0 }, measured, []), "L0.H0");
  assert.equal(titleOf(state, { fuse: "one", layer: 0, head: 1 }, measured, []), "L0.H1 · local · row");
});

test("small maps are as large as the room allows, in whole pixels", () => {
  const room = { inside: 600, down: 460, rowHead: 0, least: 1 };
  assert.deepEqual(bestFit({ cols: 14, count: 168, cellWidth: 14, cellHeight: 14 }, room), { pool: 1, cols: 14, unit: 2 });
  assert.equal(bestFit({ cols: 14, count: 168, cellWidth: 64, cellHeight: 64 }, room).pool, 2);
  assert.ok(bestFit({ count: 7, cellWidth: 14, cellHeight: 14 }, { ...room, rowHead: 18 }).cols < 7);
});

test("a pooled pixel is the largest of its block, and a stamped patch is a square", () => {
  const block = pooled({ cellWidth: 3, cellHeight: 2, size: 6, first: 0, values: new Float32Array([1, 2, 3, 4, 5, 6]) }, 0, 2);
  assert.deepEqual([...block.values.slice(0, 2)], [5, 6]);
  const pixels = new Uint32Array(16);
  stamp(pixels, 4, 0, 0, new Uint32Array([7, 8]), 2, 1, 2);
  assert.deepEqual([...pixels], [7, 7, 8, 8, 7, 7, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
});

test("on the square-root scale an outlier leaves the rest to be seen, and signs keep their sides", () => {
  const range = { low: 0, high: 1, root: true }, signed = { low: -1, high: 1, root: true, signed: true };
  assert.equal(level(0.25, range), 0.5);
  assert.deepEqual([-1, -0.25, 0, 0.25, 1].map((v) => level(v, signed)), [0, 0.25, 0.5, 0.75, 1]);
  const out = new Uint32Array(1), table = Uint32Array.from({ length: 256 }, (_, i) => i);
  colorize(out, { cellWidth: 1, cellHeight: 1, size: 1, first: 0, values: new Float32Array([0.25]) }, 0, range, table);
  assert.equal(out[0], 128, "in the small maps, too");
  const views = [0.2, 0.8].map((high) => ({ sheet: { unit: "share" }, range: { low: 0, high }, toRange: { low: 0, high: high / 2 } }));
  shareRange(views);
  assert.deepEqual(views.map(({ range, toRange }) => [range.high, range.shared, toRange.high]), [[0.8, true, 0.4], [0.8, true, 0.4]]);
});

test("the first sentence is everyday words with the model's own numbers", () => {
  const data = {
    P: 256, scores: "softmax", class_values: new Float32Array(10),
    classes: [{ index: 1, name: "cat", value: 0.97 }, { index: 2, name: "dog", value: 0.02 }],
  };
  const said = (viewer) => lead({ options: { intervene: true }, ...viewer }).map(([words]) => words).join("").replaceAll("\u00a0", " ");
  const state = { patches: [], heads: [] };
  assert.equal(said({ data, state }), "The model cut this picture into 256 squares and says: cat, 97 %.");
  const source = {}, after = { source, classes: [{ index: 2, name: "dog", value: 0.6 }] };
  const edited = { patches: [1, 2], heads: ["1.0", "0.3"], frozen: -1 }, told = { patches: [2, 1], heads: [[0, 3], [1, 0]], frozen: -1 };
  assert.equal(said({ data, after, state: edited, reply: "there" }),
    "Without 2 of its 256 squares and with L1.H0, L0.H3 switched off, it now says: dog, 60 % (before: cat, 97 %).");
  assert.match(said({ data, after, state: edited, reply: "coming" }), /looking again/);
  source.edits = told;  // from here on it says of which interventions it is
  assert.match(said({ data, after, state: edited, reply: "coming" }), /it now says: dog/, "those of now, undone in time");
  const more = { ...edited, patches: [1, 2, 3] };
  assert.match(said({ data, after, state: more, reply: "there" }), /looking again/, "those before: they are not labelled as these");
  assert.match(said({ data, after, state: more, reply: "none" }), /switched off, it gives no answer\.$/);
  const same = { source, classes: [{ index: 1, name: "cat", value: 0.5 }] };
  assert.match(said({ data, after: same, state: edited }), /it still says: cat, 50 % \(before: 97 %\)\.$/);
  assert.match(said({ data: { ...data, classes: [] }, state }), /gives no answer/);
  const asks = { options: { asks: "type words" }, data: { ...data, classes: [] }, state };
  assert.match(said(asks), /256 squares\. It has no answer of its own yet: type words\.$/);
  const number = { ...data, scores: "none", classes: [{ index: 0, name: "age", value: 31.25 }] };
  assert.match(said({ data: number, state }), /says: age 31\.25\.$/);
});

test("what it can answer at all is said, and when to be wary", () => {
  const of = (count, changes = {}) => canAnswer({ data: {
    scores: "softmax", class_values: new Float32Array(count), classes: [{ name: "b", value: 0.9 }, { name: "a", value: 0.1 }], ...changes,
  } });
  assert.match(of(2), /among 2 answers: a, b\. Whatever/);
  assert.match(of(1000), /among 1,000 answers\. Whatever/);
  assert.match(of(2, { classes: [{ name: "a", value: 0.3 }] }), /not sure/);
  assert.match(of(3, { scores: "sigmoid" }), /scores 3 labels, each for itself/);
  assert.match(of(1), /one number/);
  assert.equal(of(0), "");
});

test("what is looked at most is what is worth hiding", () => {
  assert.deepEqual(mostLookedAt([9, 0.1, 0.5, 0.2, 0.4], { pre: 1, T: 5, P: 4 }, 0.5), [1, 3]);
});

test("a patch of a clip is named with its time, as vit/grid.py names it", () => {
  const data = { pre: 1, w: 5, h: 3, t: 3, prefix_names: ["cls"] };
  assert.equal(nameOf(1 + 15 + 2 * 5 + 3, data), "patch (2,\u00a03) at time\u00a01");
  assert.equal(nameOf(0, data), "cls");
  assert.equal(nameOf(1 + 7, { ...data, t: 1 }), "patch (1,\u00a02)");
  assert.equal(frameName(2, { times: [0, 0.5, 1] }), "time 2 · 1.00 s");
});

test("frames of a clip stand in full rows, as large as the room allows, and every patch is found again", () => {
  const clip = (count) => ({ frames: Array(count), w: 8, h: 8, P: count * 64 });
  const across = (count, width, height) => stripOf(clip(count), width, height, 1).across;
  assert.equal(stripOf(clip(1), 500, 400, 1), ONE, "a picture");
  assert.deepEqual([across(4, 560, 400), across(4, 900, 200), across(4, 358, 388), across(8, 560, 400)], [2, 4, 2, 4]);
  const data = clip(7), strip = stripOf(data, 560, 400, 2);
  for (let patch = 0; patch < data.P; patch++) {
    const [x, y] = corner(strip, data, patch, 10);
    assert.equal(patchAt(strip, data, x + 5, y + 5, 10), patch);
  }
  assert.equal(patchAt(strip, data, 5, 5, 10), -1, "on the name of a frame");
});

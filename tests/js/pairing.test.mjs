// Two pictures: where they lie, what is under the pointer, what is like it.
import assert from "node:assert/strict";
import test from "node:test";
import { unpack } from "../../explorer/viewer/js/bytes.js";
import { alike, centre, drawn, moved, nearestOf, places, sentence, under } from "../../explorer/viewer/js/pairing.js";
import { number, written } from "../../explorer/viewer/js/numbers.js";
import { short } from "../../explorer/viewer/js/words.js";
import { bytes, truth } from "./fixtures.mjs";

const SIZES = [[12, 20], [16, 12]], GRIDS = [[3, 5], [4, 3]];

for (const width of [390, 1000]) test(`a patch's centre is under itself, ${width} pixels wide`, () => {
  const { boxes, height, stacked } = places(width, SIZES, 600);
  assert.equal(stacked, width < 620);
  for (const [side, [h, w]] of GRIDS.entries()) {
    assert.ok(Math.abs(boxes[side].width / boxes[side].height - SIZES[side][1] / SIZES[side][0]) < 1e-9, "undistorted");
    assert.ok(boxes[side].x >= 0 && boxes[side].x + boxes[side].width <= width + 1e-9 && boxes[side].y + boxes[side].height <= height + 1e-9);
    for (let patch = 0; patch < h * w; patch++) assert.deepEqual(under(...centre({ side, patch }, boxes, GRIDS), boxes, GRIDS), { side, patch });
  }
  const between = stacked ? [10, boxes[1].y - 5] : [boxes[1].x - 5, 10];
  assert.equal(under(...between, boxes, GRIDS), null);
});

test("how alike patches are is what Python says, from either side", async () => {
  const { arrays } = await unpack(bytes("pair_depth")), { similarity, matches } = truth.pair;
  for (const [i, row] of similarity.entries()) for (const [j, value] of row.entries()) {
    assert.ok(Math.abs(alike({ side: 0, patch: i }, arrays)[j] - value) <= 0.5 / 127 + 1e-6);
    assert.equal(alike({ side: 1, patch: j }, arrays)[i], alike({ side: 0, patch: i }, arrays)[j]);
  }
  for (const [i, j] of matches) {
    assert.equal(nearestOf({ side: 0, patch: i }, arrays).patch, j);
    assert.equal(nearestOf({ side: 1, patch: j }, arrays).patch, i);
    assert.match(sentence({ side: 0, patch: i }, arrays, GRIDS), /They chose each other\.$/);
  }
  const alone = similarity.findIndex((_, i) => !matches.some(([one]) => one === i));
  const { patch, match } = nearestOf({ side: 0, patch: alone }, { ...arrays, similarity: Object.assign(arrays.similarity.map(() => 200), { shape: arrays.similarity.shape }) });
  assert.deepEqual([patch, match], [similarity[alone].indexOf(Math.max(...similarity[alone])), -1], "whatever ties the bytes have");
  assert.match(sentence({ side: 0, patch: alone }, arrays, GRIDS), /^Patch .* of the first picture is most like patch .* That one is more like another patch\.$/);
});

test("a negative number has a true minus, and zero has none", () => {
  const unlike = { similarity: Object.assign(Uint8Array.of(32), { shape: [1, 1] }), matches: [], cosine: [], nearest: [0] };
  assert.match(sentence({ side: 0, patch: 0 }, unlike, [[1, 1], [1, 1]]), /cosine −0\.75\./);
  assert.deepEqual([-0.001, -1.5].map((value) => number(value)), ["0.00", "−1.50"]);
  assert.deepEqual([-0.00012, -25.04, 0].map(short), ["−1.2e−4", "−25.0", "0"]);
  assert.equal(written(-0.66612, { scores: "none" }), "−0.6661");
});

test("lines are so many as asked for, and alike enough", () => {
  const message = { cosine: Float32Array.of(0.9, 0.8, 0.5, -0.2) };
  assert.equal(drawn(message, { count: 9, least: -1 }), 4);
  assert.equal(drawn(message, { count: 2, least: -1 }), 2);
  assert.equal(drawn(message, { count: 9, least: 0.6 }), 2);
});

test("arrow keys reach every patch of both pictures, and stay on them", () => {
  for (const stacked of [false, true]) {
    const seen = new Set(), todo = [{ side: 0, patch: 0 }];
    while (todo.length) {
      const at = todo.pop(), key = `${at.side}.${at.patch}`;
      if (seen.has(key)) continue;
      seen.add(key);
      assert.ok(at.patch >= 0 && at.patch < GRIDS[at.side][0] * GRIDS[at.side][1]);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) todo.push(moved(at, dx, dy, GRIDS, stacked));
    }
    assert.equal(seen.size, 15 + 12);
  }
  assert.deepEqual(moved({ side: 0, patch: 9 }, 1, 0, GRIDS, false), { side: 1, patch: 6 }, "the row that lies beside it");
  assert.deepEqual(moved({ side: 1, patch: 6 }, -1, 0, GRIDS, false), { side: 0, patch: 9 });
});

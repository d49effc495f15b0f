// Which rows are sent, and as which bytes, against what Python wrote: run by tests/test_site.py, which makes FIXTURES.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";

import { quantise, sentRows } from "../../../explorer/site/js/figures.js";

const read = (name) => readFileSync(join(process.env.FIXTURES, name));
const { sent, rows } = JSON.parse(read("figures.json"));

for (const { grid, heads, tokens, rowOf } of sent) {
  test(`of ${JSON.stringify(grid)} and ${heads} heads the same rows are sent`, () => {
    const ours = sentRows(grid, heads);
    assert.deepEqual([...ours.tokens], tokens);
    assert.deepEqual([...ours.rowOf], rowOf);
  });
}

test("weights are the same bytes, but for roots that fall between two", () => {
  const { count, T, prefix, chosen, maxima } = rows, raw = read("rows.floats"), theirs = read("rows.bytes");
  const weights = new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
  assert.equal(weights.length, count * T);
  const ours = quantise(weights, T, prefix, chosen);
  assert.equal(ours.steps.length, theirs.length);
  assert.deepEqual([...ours.maxima], maxima);
  let same = 0;
  ours.steps.forEach((step, i) => {
    same += step === theirs[i];
    assert.ok(Math.abs(step - theirs[i]) <= 1, `${step} instead of ${theirs[i]}`);
  });
  assert.ok(same >= 0.99 * theirs.length, `${same} of ${theirs.length}`);
});

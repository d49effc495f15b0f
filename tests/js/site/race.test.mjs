// Which way to run the model is kept: asked of ways that take a known time, by a clock that they move.
import assert from "node:assert/strict";
import test from "node:test";

import { race } from "../../../explorer/site/js/race.js";

const outputs = (logit = 2, share = 0.5) => ({ logits: Float32Array.of(logit, -1), attn: Float32Array.of(share, 1 - share) });

async function between(ours, rival, found = outputs()) {
  let now = 0;
  const way = (times, result) => {
    let run = 0;
    return async () => {
      now += times[Math.min(run++, times.length - 1)];
      return result;
    };
  };
  return race(way(ours, outputs()), way(rival, found), () => now);
}

test("the faster one is kept, and its first run, in which it is made ready, does not count", async () => {
  assert.deepEqual(await between([100], [900, 20]), { faster: true, ms: [100, 20] });
});

test("a rival that is slower is left", async () => {
  assert.deepEqual(await between([100], [50, 120]), { faster: false, ms: [100, 120] });
});

test("a rival that is hopeless is not asked again", async () => {
  assert.deepEqual(await between([100], [50, 1000, 1, 1]), { faster: false, ms: [100, 1000] });
});

test("one slow run among others decides nothing", async () => {
  assert.equal((await between([100], [900, 20, 290, 20])).faster, true);
});

test("a rival that says something else is left, however fast", async () => {
  for (const found of [outputs(2.2), outputs(2, 0.56), outputs(NaN), { logits: new Float32Array(), attn: new Float32Array() }]) {
    assert.equal((await between([100], [1], found)).faster, false);
  }
  assert.equal((await between([100], [1], outputs(2.01, 0.501))).faster, true, "rounding is no other answer");
});

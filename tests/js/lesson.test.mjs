// The lesson's pure parts: colours by the one rule, shares under a temperature, grades, addresses.

import assert from "node:assert/strict";
import test from "node:test";
import { lessonHash, readLesson } from "../../explorer/lesson/js/address.js";
import { grade, total } from "../../explorer/lesson/js/quiz.js";
import { dot, equals, place, softmax, strength, tableOf, text, valueOf } from "../../explorer/lesson/js/tools.js";

test("a colour is the nearest of the table, and covers by its strength", () => {
  assert.deepEqual([0, 0.5, 1, 2, -1].map((value) => place(value, 1, false)), [0, 128, 255, 255, 0]);
  assert.deepEqual([-1, 0, 1].map((value) => place(value, 1, true)), [0, 128, 255]);
  assert.deepEqual([-0.5, 0.25, 3].map((value) => strength(value, 1, true)), [0.5, 0.25, 1]);
  assert.equal(strength(-0.5, 1, false), 0);
  assert.equal(tableOf("00ff00".repeat(256))[255], "#00ff00");
});

test("shares add up to one and sharpen as the temperature falls", () => {
  const scores = [1, 2, 3];
  for (const temperature of [0.2, 1, 4])
    assert.ok(Math.abs(softmax(scores, temperature).reduce((a, b) => a + b) - 1) < 1e-12);
  assert.ok(softmax(scores, 0.2)[2] > softmax(scores, 1)[2] && softmax(scores, 1)[2] > softmax(scores, 4)[2]);
  assert.ok(Math.abs(softmax(scores, 1)[0] - Math.exp(1) / (Math.exp(1) + Math.exp(2) + Math.exp(3))) < 1e-12);
});

test("numbers have a true minus, and zero has none", () => {
  assert.deepEqual([-1.2345, -0.0001, 2].map((value) => text(value)), ["−1.234", "0.000", "2.000"]);
  assert.equal(dot([1, 2], [3, 4]), 11);
});

test("a result equals what the numbers in front of it make as they are printed, or nearly", () => {
  assert.deepEqual(["−1.250", "12\u00a0%", "<\u00a00.01\u00a0%"].map(valueOf), [-1.25, 12, NaN]);
  assert.equal(equals(valueOf("0.100") + valueOf("−0.300"), "−0.200"), "=");
  assert.equal(equals(valueOf("0.100") + valueOf("0.200"), "0.301"), "≈");
  assert.equal(equals(valueOf("12\u00a0%") + valueOf("88\u00a0%"), "100"), "=");
  assert.equal(equals(valueOf("<\u00a00.01\u00a0%") + valueOf("100\u00a0%"), "100"), "≈");
});

test("a guess earns what it got right", () => {
  const squares = { kind: "squares", right: [1, 2, 3, 4] }, choice = { kind: "choice", right: 1 };
  assert.deepEqual(grade(squares, [1, 9, 4]), { points: 2, of: 3 });
  assert.deepEqual(grade(choice, [1]), { points: 1, of: 1 });
  assert.deepEqual(grade(choice, [0]), { points: 0, of: 1 });
  assert.deepEqual(total({ a: { points: 2, of: 3 }, b: { given: [] } }), { points: 2, of: 3 });
});

test("a step and a choice have an address, beside those of others", () => {
  const state = { how: 6, patch: 120, layer: 3, head: 1 };
  const hash = lessonHash("#layer=2&method=rollout", state);
  assert.deepEqual(readLesson(hash), state);
  assert.equal(new URLSearchParams(hash.slice(1)).get("method"), "rollout");
  assert.deepEqual(readLesson("#how=0&square=x&at=1"), { layer: 1 });
  assert.deepEqual(readLesson("#how=7"), { how: 6 });
});

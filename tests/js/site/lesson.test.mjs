// The lesson that the page makes by itself against Python's: run by tests/test_site.py, which makes FIXTURES.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";

import { painted, plan, shared } from "../../../explorer/site/js/answer.js";
import { Follow, lessonOf } from "../../../explorer/site/js/lesson.js";

const folder = process.env.FIXTURES;
const json = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const floats = (name) => {
  const raw = readFileSync(join(folder, name));
  return new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
};

function alike(ours, theirs, where) {
  if (typeof theirs === "number") {
    assert.ok(Math.abs(ours - theirs) <= 2e-5 + 2e-4 * Math.abs(theirs), `${where}: ${ours} is not ${theirs}`);
  } else if (theirs && typeof theirs === "object") {
    assert.deepEqual(Object.keys(ours ?? {}).sort(), Object.keys(theirs).sort(), where);
    for (const key of Object.keys(theirs)) alike(ours[key], theirs[key], `${where}.${key}`);
  } else assert.equal(ours, theirs, where);
}

for (const name of json("lessons.json")) {
  const { about, outline, written, choice, passes, logits, lesson } = json(`${name}.lesson.json`);
  const seen = Object.fromEntries(written.map((field) => [field, floats(`${name}.seen.${field}`)]));
  const follow = () => new Follow(seen, about, outline, choice);

  test(`${name}: the passes of the last steps are those of Python`, () => assert.deepEqual(plan(follow()), passes));

  test(`${name}: the lesson is Python's, number by number`, () => {
    const f = follow(), found = outline.classes ? shared(f, logits.map((each) => Float32Array.from(each))) : null;
    const ours = JSON.parse(JSON.stringify(lessonOf(f, found)));
    for (const [i, step] of lesson.steps.entries()) alike(ours.steps[i], step, `${name} ${step.name}`);
    alike({ ...ours, steps: [] }, { ...lesson, steps: [] }, name);
  });

  test(`${name}: until the last steps' passes are made they say so, and nothing else waits`, () => {
    if (!outline.classes) return;
    const { steps } = lessonOf(follow(), null), { data } = steps.find((step) => step.name === "why");
    assert.match(data.missing, /[.]$/);
    assert.equal(steps.find((step) => step.name === "answer").data.without.length, 1);
    assert.deepEqual(steps.filter((step) => step.data.missing).map((step) => step.name), ["why"]);
  });
}

test("patches painted grey are zero, and no others", () => {
  const image = new Float32Array(3 * 4 * 6).fill(1);
  const out = painted(image, [1, 3], { w: 3, imageSize: [4, 6] }, 2), at = (c, y, x) => out[(c * 4 + y) * 6 + x];
  for (let y = 0; y < 4; y++) {
    for (let x = 0; x < 6; x++) {
      const patch = Math.floor(y / 2) * 3 + Math.floor(x / 2);
      for (const c of [0, 1, 2]) assert.equal(at(c, y, x), [1, 3].includes(patch) ? 0 : 1);
    }
  }
});

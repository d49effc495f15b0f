// The lesson that the page makes by itself against Python's: run by tests/test_site.py, which makes FIXTURES.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";

import { ofFrames, painted, plan, shared } from "../../../explorer/site/js/answer.js";
import { liveliest } from "../../../explorer/site/js/followed.js";
import { Follow, lessonOf } from "../../../explorer/site/js/lesson.js";

const folder = process.env.FIXTURES;
const json = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const floats = (name) => {
  const raw = readFileSync(join(folder, name));
  return new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
};

// Texts whose lines may break anywhere: in the page a number keeps to its sign.
const breakable = (value) => typeof value === "string" ? value.replaceAll("\u00a0", " ") : value;

function alike(ours, theirs, where) {
  if (typeof theirs === "number") {
    assert.ok(Math.abs(ours - theirs) <= 2e-5 + 2e-4 * Math.abs(theirs), `${where}: ${ours} is not ${theirs}`);
  } else if (theirs && typeof theirs === "object") {
    assert.deepEqual(Object.keys(ours ?? {}).sort(), Object.keys(theirs).sort(), where);
    for (const key of Object.keys(theirs)) alike(ours[key], theirs[key], `${where}.${key}`);
  } else assert.equal(breakable(ours), breakable(theirs), where);
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
    const late = outline.orders.length ? ["order", "frozen", "why"] : ["why"];
    assert.deepEqual(steps.filter((step) => step.data.missing).map((step) => step.name), late);
  });
}

test("patches painted grey are zero, and no others", () => {
  const image = new Float32Array(3 * 4 * 6).fill(1);
  const out = painted(image, [1, 3], { h: 2, w: 3, imageSize: [4, 6] }, { side: 2, tubelet: 1 }), at = (c, y, x) => out[(c * 4 + y) * 6 + x];
  for (let y = 0; y < 4; y++) {
    for (let x = 0; x < 6; x++) {
      const patch = Math.floor(y / 2) * 3 + Math.floor(x / 2);
      for (const c of [0, 1, 2]) assert.equal(at(c, y, x), [1, 3].includes(patch) ? 0 : 1);
    }
  }
});

test("a patch of a clip is grey in its own frames alone, and frames come in the order that is asked for", () => {
  const about = { h: 1, w: 2, imageSize: [2, 4], frames: 4 }, image = Float32Array.from({ length: 4 * 3 * 8 }, (_, i) => 1 + Math.floor(i / 24));
  const out = painted(image, [3], about, { side: 2, tubelet: 2 });  // the second time, on the right
  for (let i = 0; i < out.length; i++) assert.equal(out[i] === 0, i >= 48 && i % 4 >= 2);
  const other = ofFrames(image, [3, 3, 0, 1], about);
  assert.deepEqual([0, 24, 48, 72].map((at) => other[at]), [4, 4, 1, 2]);
});

test("the lesson of a clip begins where most moves", () => {
  const image = new Float32Array(6 * 3 * 8), place = (frame, c, y, x) => ((frame * 3 + c) * 2 + y) * 4 + x;
  for (const c of [0, 1, 2]) image[place(3, c, 1, 3)] = 1;  // at time 1 of 3, on the right
  assert.equal(liveliest({ image, size: [2, 4], tubelet: 2 }, { t: 3, h: 1, w: 2 }), 3);
});

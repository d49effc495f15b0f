// What the page without a server decides of a clip before anything is decoded, against vit/clips.py and clipdecoder.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";

import { chosen, clipKind, fromSheet, isStill, moments, sampled, tooMuch } from "../../../explorer/site/js/clips.js";
import { frozen } from "../../../explorer/site/js/engine.js";
import { asClip, prepare } from "../../../explorer/site/js/pixels.js";

const read = (name) => readFileSync(join(process.env.FIXTURES, name)), python = JSON.parse(read("clips.json"));
const frames = (count) => Array.from({ length: count }, (_, i) => ({ data: [i], width: 1, height: 1 }));

test("the frames that are kept, and those that a model reads, are Python's", () => {
  for (const { count, most, kept, read: many, seen } of python.samples) {
    assert.deepEqual(chosen(count, most), kept);
    const clip = { frames: frames(kept.length), times: kept.map((i) => i / 8) }, found = sampled(clip, many);
    assert.deepEqual(found.frames.map(({ data: [i] }) => i), seen);
    assert.deepEqual(found.times, seen.map((i) => kept[i] / 8));
    if (count >= most) assert.deepEqual(moments(count / 10, most).map((at) => Math.floor(at * 10 + 1e-9)), kept);
  }
});

test("a picture is a clip that stands still", () => {
  const [picture] = frames(1), found = sampled(picture, 4);
  assert.deepEqual(found, { frames: [picture, picture, picture, picture], times: undefined });
});

test("files are told apart as Python does", () => {
  for (const { name, moves } of python.files) assert.equal(clipKind(new Uint8Array(read(name))) !== "", moves, name);
});

test("a GIF of one picture stands still, with or without tables and comments", () => {
  for (const [name, still] of [["moving.gif", false], ["still.gif", true]]) {
    const whole = new Uint8Array(read(name));
    assert.equal(isStill(whole), still, name);
    for (let end = 0; end < whole.length; end++) assert.equal(typeof isStill(whole.subarray(0, end)), "boolean");
  }
});

test("what is too long or too large is said in Python's words", () => {
  for (const { clip, said } of python.refused) assert.equal(tooMuch(clip, python.rules), said);
});

test("a sheet falls apart into its frames, and a model reads what it reads in Python", () => {
  const { width, height, sheet, about } = python, found = fromSheet({ data: new Uint8ClampedArray(read("sheet.rgba")), width, height }, sheet);
  const ready = prepare(sampled(found, about.frames), about), image = new Float32Array(read("clip.image").buffer.slice(0));
  assert.equal(ready.image.length, about.frames * 3 * about.imageSize[0] * about.imageSize[1]);
  assert.ok(ready.image.every((x, i) => Math.abs(x - image[i]) < 2 / 255 / 0.2));
  assert.deepEqual([ready.times, ready.tubelet], [python.times, about.tubelet]);
  const { frames, times } = sampled(found, about.frames);  // as those of the camera are, each when it comes
  assert.deepEqual(asClip(frames.map((frame) => prepare(frame, about)), times), ready);
});

test("time stands still", () => {
  assert.deepEqual([...frozen(Float32Array.of(1, 2, 3, 4, 5, 6), 1, 3)], [3, 4, 3, 4, 3, 4]);
});

// The camera, with a stream that is none.
import assert from "node:assert/strict";
import test from "node:test";

import { Camera } from "../../../explorer/site/js/camera.js";

const tracks = [];
const navigator = { mediaDevices: { getUserMedia: async () => {
  tracks.push({ stop() {} });
  return { getTracks: () => tracks.slice(-1) };
} } };
Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
globalThis.requestAnimationFrame = setImmediate;
const turn = () => new Promise(setImmediate);

test("frozen and begun again while a frame is looked at, it is one stream", async () => {
  let looking = 0, most = 0, look;
  const frame = () => { most = Math.max(most, ++looking); return new Promise((end) => { look = end; }).then(() => { looking -= 1; }); };
  const camera = new Camera({ readyState: 4, play: async () => {} }, frame, assert.fail);
  await camera.start();
  const first = look;
  camera.stop();
  await camera.start();
  assert.equal(looking, 2);
  first();
  for (let i = 0; i < 5; i++) await turn();
  assert.equal(looking, 1, "the first one has ended");
  camera.stop();
  look();
});

test("one that ends by itself says so, one that was called off does not", async () => {
  const said = [], camera = new Camera({ readyState: 0, play: async () => {} }, () => {}, (text) => { said.push(text); camera.stop(); });
  await camera.start();
  const [track] = tracks.slice(-1);
  track.onended();
  track.onended();
  assert.equal(said.length, 1);
  assert.match(said[0], /^The camera has ended/);
});

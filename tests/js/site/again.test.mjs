// What failed once is asked for anew.
import assert from "node:assert/strict";
import test from "node:test";

import { Look } from "../../../explorer/site/js/engine.js";
import { Timeline } from "../../../explorer/site/js/timeline.js";

const about = { L: 2, H: 1, T: 2, D: 1, t: 1, prefix: 1, h: 1, w: 1 };

test("a frame of a clip that could not be looked at", async () => {
  let asked = 0;
  const look = { forget() {} };
  const engine = { look: async () => { if (!asked++) throw new Error("no"); return look; } };
  const timeline = new Timeline(engine, about, { frames: [{}, {}], times: [0, 1] }, {});
  await assert.rejects(timeline.at(1), /no/);
  assert.equal(await timeline.at(1), look);
  assert.equal(await timeline.at(1), look);
  assert.equal(asked, 2);
});

test("how the tokens of a layer belong together", async () => {
  let asked = 0;
  const found = { rollout: new Float32Array(4), similarity: new Uint8Array(4) };
  const relate = async () => { if (asked++ === 1) throw new Error("no"); return found; };
  const look = new Look({ logits: [], attn: new Float32Array(8), tokens: new Float32Array(6) }, about, relate);
  await assert.rejects(look.relatedTo(1), /no/);
  assert.equal(await look.relatedTo(1), found);
  assert.equal(asked, 3, "the first layer was there");
});

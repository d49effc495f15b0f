// Training is played once, however often the button is pressed.
import assert from "node:assert/strict";
import test from "node:test";

import { Player } from "../../../explorer/site/js/player.js";

test("on, off, on: one run, which begins anew", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const chosen = [], pressed = {};
  const page = { now: { model: { moments: [1, 2] } }, choose: async ({ moment }) => { chosen.push(moment); } };
  const player = new Player(page, { setAttribute: (name, value) => { pressed[name] = value; } });
  const pass = async () => {
    for (let i = 0; i < 9; i++) await null;
    context.mock.timers.tick(700);
    for (let i = 0; i < 9; i++) await null;
  };
  for (let press = 0; press < 3; press++) player.press();
  assert.deepEqual(chosen, [0, 0]);
  for (let i = 0; i < 4; i++) await pass();
  assert.deepEqual(chosen, [0, 0, 1, -1]);
  assert.equal(pressed["aria-pressed"], "false");
});

// Who is next at the worker of the page without a server.
import assert from "node:assert/strict";
import test from "node:test";

import { inTurn } from "../../../explorer/site/js/turns.js";

const later = () => new Promise((resolve) => setTimeout(resolve));

test("a look goes before pieces of earlier ones, and before nothing else", async () => {
  const served = [];
  const take = inTurn(async ({ ask, name }) => {
    served.push(name ?? ask);
    if (name === "first") setTimeout(() => take({ ask: "look", name: "late" }));  // while the pieces are being served
  });
  for (const ask of ["moment", "layer", "layer", "forget"]) take({ ask });
  take({ ask: "look", name: "early" });
  for (const ask of ["words", "figures"]) take({ ask });
  take({ ask: "look", name: "after words" });
  while (served.length < 8) await later();
  assert.deepEqual(served, ["moment", "early", "layer", "layer", "forget", "words", "after words", "figures"]);

  served.length = 0;
  take({ ask: "layer", name: "first" });
  for (let i = 0; i < 500; i++) take({ ask: "layer" });
  while (served.length < 502) await later();
  assert.ok(served.indexOf("late") < 400, `a look waited for ${served.indexOf("late")} pieces`);
});

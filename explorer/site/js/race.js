/* Which of two ways to run the model is kept: the one that this browser, on this machine, is measured to be faster in,
   and only if both say the same. */

const RUNS = 3, HOPELESS = 3;  // how often both are asked; how many times slower the first time makes it the last
const TOLERANCE = 2e-2;  // of the largest logit, and of a share of attention

const middle = (times) => times.slice().sort((a, b) => a - b)[Math.floor(times.length / 2)];

function alike(ours, theirs) {
  const top = ours.logits.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-6);
  const near = (a, b, scale) => a.length === b.length && a.every((x, i) => Math.abs(x - b[i]) <= TOLERANCE * scale);
  return near(ours.logits, theirs.logits, top) && near(ours.attn, theirs.attn, 1);
}

/* Both are asked in turn for the same look, {logits, attn}, once to warm up. -> {faster, ms: [ours, the rival's]}:
   faster is true where the rival says the same in less time. clock: in milliseconds. */
export async function race(ours, rival, clock = () => performance.now()) {
  const same = alike(await ours(), await rival()), times = [[], []];
  for (let run = 0; same && run < RUNS && !(times[1][0] > HOPELESS * times[0][0]); run++) {
    for (const [i, look] of [ours, rival].entries()) {
      const begun = clock();
      await look();
      times[i].push(clock() - begun);
    }
  }
  const ms = times.map(middle);
  return { faster: same && ms[1] < ms[0], ms };
}

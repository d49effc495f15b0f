// The worker, with a runtime that is none: its models answer with their own name's length, and some cannot be opened.
import assert from "node:assert/strict";
import test from "node:test";

const RUNTIME = `
export const env = { wasm: {} };
export class Tensor { constructor(type, data) { this.data = data; } dispose() {} }
export const InferenceSession = { async create([kind], { executionProviders: [way] }) {
  opened.push(kind + way);
  if (kind === 9) throw new Error("Can't create a session. ERROR_CODE: 6, ERROR_MESSAGE: std::bad_alloc");
  if (kind === 8) throw new Error("Can't create a session. ERROR_CODE: 7, ERROR_MESSAGE: no protobuf");
  const out = { logits: Float32Array.of(kind, 0), attn: new Float32Array(4).fill(0.5), tokens: new Float32Array(8) };
  return { inputNames: [], outputNames: [], release: async () => {},
    run: async (_, wanted) => (clock.now += way === "wasm" ? 9 : 1) && Object.fromEntries(wanted.map((name) => [name, new Tensor("", out[name])])) };
} };`;
const bytes = (kind) => Uint8Array.of(kind).buffer;
const about = (name) => ({
  L: 1, H: 1, T: 2, D: 2, t: 1, h: 1, w: 1, prefix: 1, imageSize: [1, 1], classes: 2, scores: "softmax", classNames: [name, "other"],
  head: { name, opening: 0, num_tokens: 2, grid_size: [1, 1] }, constants: {}, fixed: {},
});

const waiting = [], opened = [], clock = { now: 0 };
Object.assign(globalThis, { opened, clock, onmessage: null, postMessage: (said) => waiting.shift()(said) });
await import("../../../explorer/site/js/worker.js");
const ask = (name, rest) => new Promise((resolve) => {
  waiting.push(resolve);
  globalThis.onmessage({ data: { id: 0, ask: name, ...rest } });
});
const script = { address: `data:text/javascript,${encodeURIComponent(RUNTIME)}` }, weights = { weights: bytes(0), list: [] };
const open = (name, kind, byChip) => ask("open", { described: about(name), graph: bytes(kind), related: bytes(1), ...weights, byChip });

test("a model that cannot be opened leaves the one that is open, with its names", async () => {
  await ask("begin", { script, threads: 1 });
  const seen = async () => {
    const { answer } = await ask("look", { key: 0, prepared: { image: new Float32Array(3) } });
    return [answer.head.meta.name, answer.head.meta.classes[0].name, answer.head.meta.classes[0].logit];
  };
  assert.equal((await open("first", 1)).error, undefined);
  assert.deepEqual(await seen(), ["first", "first", 1]);
  assert.match((await open("second", 8)).error, /do not fit together/);
  assert.deepEqual(await seen(), ["first", "first", 1]);
  const other = { weights: bytes(0), list: [{ shape: [4], dtype: "float16", at: 0 }], described: about("later"), trained: true };
  assert.match((await ask("moment", other)).error, /do not fit together/);
  assert.deepEqual(await seen(), ["first", "first", 1]);
  assert.equal((await open("third", 3)).error, undefined);
  assert.deepEqual(await seen(), ["third", "third", 3]);
});

test("what does not fit into memory is not called damaged", async () => {
  assert.match((await open("second", 9)).error, /too little memory/);
});

test("a graphics chip is kept for the model that it was measured with", async (t) => {
  t.mock.method(performance, "now", () => clock.now);
  await open("first", 1);
  opened.length = 0;
  assert.equal((await ask("gpu", { script, ...weights, prepared: { image: new Float32Array(3) } })).answer.faster, true);
  await ask("moment", { ...weights, described: about("first"), trained: true });
  assert.deepEqual(opened, ["1webgpu", "1webgpu"]);
  opened.length = 0;
  await open("second", 8);
  await ask("moment", { ...weights, described: about("first"), trained: true });
  assert.deepEqual(opened, ["1wasm", "8wasm", "1webgpu"], "one that cannot be opened changes nothing");
  opened.length = 0;
  await open("third", 3);
  await open("first", 1, true);
  assert.deepEqual(opened, ["1wasm", "3wasm", "1wasm", "1webgpu"]);
});

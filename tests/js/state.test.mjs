// The state, its address, viewers that are linked, and where bytes come from.
import assert from "node:assert/strict";
import test from "node:test";
import { addressOf, readAddress } from "../../explorer/viewer/js/address.js";
import { wantMore } from "../../explorer/viewer/js/changes.js";
import { needExact } from "../../explorer/viewer/js/exact.js";
import { join, tell } from "../../explorer/viewer/js/link.js";
import { addresses, kept, need } from "../../explorer/viewer/js/sources.js";
import {
  absolute, cellOf, clamp, moveHead, moveLayer, moveQuery, pickOf, relative, shown, START,
} from "../../explorer/viewer/js/state.js";
import { toFrame } from "../../explorer/viewer/js/time.js";

const trace = (changes = {}) => ({
  L: 3, H: 4, T: 18, pre: 3, P: 15, t: 1, h: 3, w: 5, tables: { viridis: 1, magma: 1 }, classes: [{ index: 6 }], class_values: new Float32Array(10), source: {}, ...changes,
});
const viewer = (state = {}, changes = {}) => ({
  state: { ...START, ...state }, hover: {}, data: trace(), timeline: [], methods: [], options: {}, depthChosen: true,
  defaults: { ...START }, ...changes,
});

test("whatever an address says becomes what the trace has", () => {
  const one = viewer({ layer: 99, head: -3, query: 1e6, fuse: "x", mode: "method", patches: [3, 99], heads: ["0.1", "7.0"], colormap: "x" });
  clamp(one);
  const { layer, head, query, fuse, mode, patches, heads, colormap } = one.state;
  assert.deepEqual([layer, head, query, fuse, mode, colormap], [2, 0, 17, "mean", "attention", "viridis"]);
  assert.deepEqual([patches, heads], [[3], ["0.1"]]);
  const twice = viewer({ patches: [3, 4, 3], heads: ["1e-1", "00.1", "0.1", "0.1.2", "x", "2."] });
  clamp(twice);
  assert.deepEqual([twice.state.patches, twice.state.heads], [[3, 4], ["0.1"]], "nothing twice, heads by number alone");
  for (const [frame, target, timeline, fits] of [[1.6, 9, [], [2, 9]], [-1, 10, [], [0, -1]], [99, 0.5, [{}, {}], [1, -1]]]) {
    const clip = viewer({ frame, target }, { timeline });
    clamp(clip);
    assert.deepEqual([clip.state.frame, clip.state.target], fits);
  }
  const fresh = viewer({}, { depthChosen: false });
  clamp(fresh);
  assert.equal(fresh.state.layer, 2, "at first the last layer");
});

test("the method that was measured to lead comes first, unless another one was chosen", () => {
  const methods = [{ name: "attention" }, { name: "cp_lrp" }], data = trace({ believed: "cp_lrp" });
  for (const [state, found, expected] of [
    [{}, data, "cp_lrp"], [{ method: "attention" }, data, "attention"], [{ method: "gone" }, trace(), "attention"],
  ]) {
    const one = viewer(state, { methods, data: found });
    clamp(one);
    assert.equal(one.state.method, expected);
    assert.equal(one.defaults.method, state.method === expected ? "" : expected, "what nobody chose is in no address");
  }
});

test("what is hovered lies over what is pinned, and the likeliest class is explained", () => {
  const now = shown(viewer({ layer: 1 }, { hover: { query: 7 } }));
  assert.deepEqual([now.layer, now.query, now.target], [1, 7, 6]);
});

test("a cell stands for what it shows", () => {
  const one = viewer(), sheet = { cols: 6, count: 18 };
  for (let cell = 0; cell < 18; cell++) {
    const pick = pickOf(one, cell, sheet);
    assert.equal(cellOf(one, { head: 0, ...pick }, sheet), cell);
  }
});

test("keys go around every end", () => {
  const one = viewer({ layer: 2, fuse: "max", query: 0 });
  assert.deepEqual(moveLayer(one, 1), { layer: 0 });
  assert.deepEqual(moveHead(one, 1), { head: 0, fuse: "one" });
  assert.equal(moveQuery(one, 1, 0).query, 3 + 1 * 5 + 2, "from [CLS] to the middle");
  for (const embedding of ["positions", "filters"]) {
    const flat = viewer({ mode: "embeddings", embedding, layer: 1 });
    assert.deepEqual([moveLayer(flat, 1), moveHead(flat, 1)], [undefined, undefined], "there is no layer to be seen");
  }
  one.state.query = 3;
  assert.equal(moveQuery(one, -1, -1).query, 17);
});

test("a token keeps its place on the picture where the grid is another", () => {
  const fine = trace({ h: 6, w: 10, pre: 1 });
  assert.equal(absolute(relative(3 + 7, trace()), fine), 1 + 3 * 10 + 5);
  assert.equal(absolute(relative(2, trace()), fine), 0, "the last prefix token that there is");
});

test("an address is read as it was written", () => {
  globalThis.location = { hash: "#tab=x" };
  const state = { ...START, layer: 2, query: 9, pinned: true, patches: [1, 2], heads: ["0.1"], opacity: 0.5, colormap: "magma" };
  location.hash = "#" + addressOf(state, START);
  assert.match(location.hash, /tab=x/, "keys of others stay");
  assert.deepEqual({ ...START, ...readAddress() }, state);
  location.hash = "#layer=x&patches=1_b_2.5&zz=1";
  assert.deepEqual(readAddress(), { patches: [1] });
});

test("linked viewers hear what has changed, and only that", () => {
  const heard = [], make = (data, hearing) => {
    const one = viewer({}, { options: { link: "test" }, data });
    one.set = (patch) => hearing.push(patch);
    join(one);
    return one;
  };
  const a = make(trace(), []);
  make(trace({ h: 6, w: 10, pre: 1, L: 2 }), heard);
  a.state.query = 10;
  a.hover.layer = 2;
  tell(a, { query: 10, method: "x" });
  assert.deepEqual(heard, [{ query: 36 }], "the place on its own grid, and no method");
});

test("bytes that have come are kept, and what failed is asked for again", async () => {
  let calls = 0;
  const source = kept({ head: async () => ++calls, layer: async () => { calls++; throw new Error("gone"); } });
  assert.deepEqual([await source.head(), await source.head(), calls], [1, 1, 1]);
  await assert.rejects(source.layer(0), /gone/);
  await assert.rejects(source.layer(0), /gone/);
  assert.equal(calls, 3);
});

test("exact numbers are asked for once, and once more after a while if they did not come", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let calls = 0;
  const exact = async () => { if (++calls === 1) throw new Error("gone"); return { meta: {}, arrays: { exact: 7 } }; };
  const data = { source: { exact }, wanted: new Map() };
  await assert.rejects(needExact(data, 2), /gone/);
  await assert.rejects(needExact(data, 2), /gone/, "whoever waits for it hears that it has not come");
  assert.equal(calls, 1);
  context.mock.timers.tick(4000);
  await Promise.all([needExact(data, 2), needExact(data, 2)]);
  assert.deepEqual([calls, data.exact.get(2)], [2, 7]);
});

test("a map that does not come is asked for once more, and then when something has changed", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const asked = [], methods = [{ name: "m" }], data = trace({ maps: new Map(), asked: new Set(), refused: {} });
  const one = viewer({ mode: "method", method: "m" }, { data, methods, timers: {}, generation: 0, emit: (name) => asked.push(name) });
  const wait = () => { context.mock.timers.tick(60); context.mock.timers.tick(15000); };
  wantMore(one);
  for (let k = 0; k < 4; k++) wait();
  assert.equal(asked.length, 2);
  wantMore(one);
  wait();
  assert.equal(asked.length, 3);
});

test("a patch that a link has picked is followed from where it was picked", () => {
  const matches = Object.assign(new Int32Array(3 * 3 * 15).fill(9), { shape: [3, 3, 15] });
  matches[(0 * 3 + 1) * 15 + 4] = 5;
  matches[(0 * 3 + 2) * 15 + 4] = 6;
  const one = viewer({ query: 3 + 4, pinned: true }, { timeline: [{}, {}, {}], matches, anchor: {} });
  for (const [frame, query] of [[1, 3 + 5], [2, 3 + 6]]) {
    assert.deepEqual(toFrame(one, frame), { frame, query });
    Object.assign(one.state, { frame, query });
  }
});

test("a layer that is expected is fetched once; a lost one says so", async () => {
  const fetched = [];
  globalThis.document = { baseURI: "http://here/" };
  globalThis.fetch = async (url) => {
    fetched.push(url.pathname);
    const cut = url.pathname.includes("cut");
    return { ok: !url.pathname.includes("lost"), arrayBuffer: async () => { if (cut) throw new TypeError("Failed to fetch"); return { meta: {}, arrays: {} }; } };
  };
  const source = addresses({ head: "head", layers: ["a", "lost", "cut"] }, "It is lost.");
  source.expect(0);
  const data = { source, layers: [null, null], wanted: new Map(), loaded: 0 };
  await Promise.all([need(data, 0), need(data, 0)]);
  assert.deepEqual([fetched, data.loaded], [["/a"], 1]);
  await assert.rejects(source.layer(1), /It is lost/);
  await assert.rejects(source.layer(2), /The server does not answer/, "cut in the middle");
});

import assert from "node:assert/strict";
import test from "node:test";
import { fromBase64, unpack } from "../../explorer/viewer/js/bytes.js";
import { download } from "../../explorer/viewer/js/sources.js";
import { bytes, schema, truth } from "./fixtures.mjs";

const MESSAGES = { head: "head", layer: "layer0", embeddings: "embeddings", maps: "maps", exact: "exact0", pair: "pair", pair_depth: "pair_depth" };

for (const [kind, file] of Object.entries(MESSAGES)) test(`every section of ${kind} is what the schema says`, async () => {
  const { meta, arrays } = await unpack(bytes(file));
  const said = schema.messages[kind];
  assert.equal(meta.kind, kind);
  for (const key of Object.keys(meta)) assert.ok(key in said.meta, `${key} is in no schema`);
  const letters = { ...truth.letters, B: arrays.image?.length, B2: arrays.image2?.length };
  for (const [name, array] of Object.entries(arrays)) {
    const section = said.sections[name] ?? said.sections["*"];
    assert.equal(array.constructor.name.toLowerCase(), section.dtype + "array", name);
    const size = (text) => text.endsWith("+1") ? letters[text[0]] + 1 : letters[text] ?? Number(text);
    assert.deepEqual(array.shape, section.shape.flatMap((text) => text === "grid" ? truth.grid : [size(text)]), name);
    assert.equal(array.length, array.shape.reduce((a, b) => a * b, 1), name);
  }
  for (const [name, section] of Object.entries(said.sections))
    assert.ok(name === "*" || section.when || name in arrays, `${name} is missing`);
});

test("numbers arrive as Python wrote them", async () => {
  const { meta, arrays } = await unpack(bytes("head"));
  assert.equal(meta.num_tokens, truth.letters.T);
  for (const name of ["class_values", "norms", "row_of", "tokens_sent"])
    assert.deepEqual([...arrays[name]], truth.head[name].map(Math.fround), name);
});

test("a message that is unpacked already passes through, and what is none is refused", async () => {
  const message = { meta: { kind: "layer" }, arrays: {} };
  assert.deepEqual(await unpack(message), message);
  await assert.rejects(unpack(new ArrayBuffer(64)), /no message/);
  await assert.rejects(unpack(new ArrayBuffer(3)), /no message/);
  const newer = new Uint8Array(16);
  newer.set([0x56, 0x69, 0x54, 0x58, 2]);
  await assert.rejects(unpack(newer.buffer), /newer viewer/);
  assert.deepEqual([...new Uint8Array(fromBase64("AP8B"))], [0, 255, 1]);
});

test("what cannot be had is said in the server's words, or why there are none", async (t) => {
  globalThis.document ??= { baseURI: "http://127.0.0.1/" };
  const answers = [
    [new Response("The disk of this server is full.", { status: 507, headers: { "content-type": "text/plain; charset=utf-8" } }), /disk of this server/],
    [new Response("<html>Bad Gateway", { status: 503, headers: { "content-type": "text/html" } }), /has expired/],
    [new Response("gone", { status: 404, headers: { "content-type": "text/plain" } }), /has expired/],
    [new TypeError("Failed to fetch"), /server does not answer/],
  ];
  for (const [answer, said] of answers) {
    t.mock.method(globalThis, "fetch", async () => { if (answer instanceof Error) throw answer; return answer; });
    await assert.rejects(download("shard/x.bin"), said);
  }
});

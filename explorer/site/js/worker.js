/* The model in a worker: onnxruntime-web runs the graph, engine.js makes messages of what it did.

   Asked: {id, ask: "begin" | "open" | "look" | "moment" | "head" | "layer" | "embeddings" | "row" | "ledger", ...}; answered: {id, answer} or
   {id, error: one sentence}. A look is kept under its number until "forget". */

import { Look, interventions, ledgerMap, prepare } from "./engine.js";
import { expand } from "./weights.js";

const looks = new Map();
let ort = null, session = null, about = null, graph = null, busy = Promise.resolve();

async function start(weights, list) {
  const data = expand(weights, list);
  const options = { executionProviders: ["wasm"], logSeverityLevel: 3, externalData: [{ path: "weights", data }] };
  const next = await ort.InferenceSession.create(graph, options);
  await session?.release();
  session = next;
}

const tensor = (data, dims) => new ort.Tensor("float32", data, dims);

const PASS = ["logits", "attn", "tokens"], LEDGER = ["ledger_heads", "ledger_embed"];

async function run({ image, hidden, gate, classes }, wanted) {  // what is not wanted is not computed
  const { L, H, T, imageSize, ledger, classNames } = about;
  const feeds = { image: tensor(image, [1, 3, ...imageSize]), hidden: tensor(hidden, [T]), gate: tensor(gate, [L, H]) };
  if (ledger) feeds.classes = tensor(classes ?? new Float32Array(classNames.length), [classNames.length]);
  const out = await session.run(feeds, wanted);
  const found = Object.fromEntries(wanted.map((name) => [name, out[name].data.slice()]));
  for (const each of Object.values(out)) each.dispose();
  return found;
}

const ASKED = {
  async begin({ script, wasm, threads }) {  // a page that is a file may import only what the worker itself has made
    const text = script.text && URL.createObjectURL(new Blob([script.text], { type: "text/javascript" }));
    ort = await import(script.address ?? text);
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmBinary = wasm;
  },
  async open({ described, graph: content, weights, list }) {
    about = described;
    graph = new Uint8Array(content);
    await start(weights, list);
    looks.clear();
  },
  async moment({ weights, list }) {
    await start(weights, list);
    looks.clear();
  },
  async look({ key, picture, prepared, edits }) {
    const ready = prepared ?? prepare(picture, about);
    const begun = performance.now(), outputs = await run({ image: ready.image, ...interventions(edits ?? {}, about) }, PASS);
    looks.set(key, new Look(outputs, ready.pixels, about));
    return { ...ready, ms: performance.now() - begun };
  },
  async ledger({ prepared, target }) {
    const classes = new Float32Array(about.classNames.length);
    classes[target] = 1;
    return ledgerMap(await run({ image: prepared.image, ...interventions({}, about), classes }, LEDGER), about);
  },
  head: ({ key }) => looks.get(key).head(),
  layer: ({ key, layer }) => looks.get(key).layer(layer),
  embeddings: ({ key }) => looks.get(key).embeddings(),
  row: ({ key, layer, query }) => looks.get(key).row(layer, query),
  forget: ({ key }) => { looks.delete(key); },
};

function plain(error) {
  const text = String(error?.message ?? error);
  if (/memory|allocat|RangeError/i.test(text + error?.name)) return "This device has too little memory for this model: choose a smaller one.";
  return text;
}

onmessage = ({ data: { id, ask, ...rest } }) => {
  busy = busy.then(async () => {  // one after another: a session runs one picture at a time
    try {
      postMessage({ id, answer: await ASKED[ask](rest) });
    } catch (error) {
      postMessage({ id, error: plain(error) });
    }
  });
};

/* The model in a worker: onnxruntime-web runs its graphs, engine.js and lesson.js make messages of what they did.

   Asked: {id, ask: a name of ASKED, ...}; answered: {id, answer} or {id, error: one sentence}. A look is kept under
   its number until "forget". "unfold" opens the second graph, of all that happens on the way, for the ledger and the
   lesson; other weights close it. */

import { ofFrames, painted, plan, shared } from "./answer.js";
import { Look, frozen, interventions, ledgerMap, matches, unmeasured } from "./engine.js";
import { Follow, lessonOf } from "./lesson.js";
import { prepare } from "./pixels.js";
import { race } from "./race.js";
import { inTurn } from "./turns.js";
import { UNFIT, expand } from "./weights.js";
import { asking, directionOf, spoken, whereOf } from "./words.js";

const looks = new Map();
let ort = null, provider = "wasm", session = null, relating = null, whole = null, about = null, graph = null;
let processor = null, chip = null;  // the two ways to run a model: {ort, provider}
let inside = null;  // {session, outline, seen, shared, length}: of the picture that the lesson follows

async function runtime({ script, wasm, threads }) {
  // a page that is a file may import only what the worker itself has made
  const text = script.text && URL.createObjectURL(new Blob([script.text], { type: "text/javascript" }));
  const found = await import(script.address ?? text);
  found.env.wasm.numThreads = threads;
  found.env.wasm.wasmBinary = wasm;
  return found;
}

function opened(content, weights, list) {
  const options = { executionProviders: [provider], logSeverityLevel: 3, externalData: [{ path: "weights", data: expand(weights, list) }] };
  return ort.InferenceSession.create(new Uint8Array(content), options);
}

/* The model once more by way of the graphics chip, which is kept for it where it says the same sooner. */
async function tryGpu({ prepared, weights, list, ...files }) {
  const before = { ort, provider, session }, use = (way) => { ({ ort, provider, session } = way); };
  const way = (those) => () => { use(those); return look(prepared.image); };
  let rival = null;
  try {
    chip ??= { ort: await runtime({ ...files, threads: 1 }), provider: "webgpu" };
    use({ ...before, ...chip });
    rival = { ...chip, session: await opened(graph, weights, list) };
    const { faster, ms } = await race(way(before), way(rival));
    use(faster ? rival : before);
    if (faster) await fold();
    await (faster ? before : rival).session.release();
    return { faster, ms };
  } catch {  // a chip that is there and cannot do it
    use(before);
    await rival?.session.release().catch(() => {});
    return { faster: false, ms: [] };
  }
}

async function start(content, weights, list) {
  await fold();
  const next = await opened(content, weights, list);
  await session?.release();
  session = next;
  looks.clear();
}

/* How the tokens of one layer belong together: by a graph of its own, for which the processor is good enough. */
function relate({ attn, rolled, tokens }) {
  const { H, T, D } = about;
  const feeds = { attn: tensor(attn, [H, T, T]), rolled: tensor(rolled, [T, T]), tokens: tensor(tokens, [T, D]) };
  return run(relating, feeds, ["rollout", "similarity"]);
}

async function fold() {
  await inside?.session.release();
  inside = null;
}

const tensor = (data, dims) => new ort.Tensor("float32", data, dims);

async function run(from, feeds, wanted) {
  const given = Object.fromEntries(Object.entries(feeds).filter(([name]) => from.inputNames.includes(name)));
  const out = await from.run(given, wanted);
  const found = Object.fromEntries(wanted.map((name) => [name, out[name].data]));  // the runtime's own copies
  for (const each of Object.values(out)) each.dispose();
  return found;
}

const imageOf = (image) => tensor(image, [1, ...(about.frames ? [about.frames] : []), 3, ...about.imageSize]);

/* length: of a tower's vector of this picture before the edits. */
async function look(image, edits, length) {
  const { L, H, T, t, chosen } = about, { hidden, gate } = interventions(edits ?? {}, about);
  const seen = t > 1 && edits?.frozen >= 0 ? frozen(image, edits.frozen, t) : image;
  const feeds = { image: imageOf(seen), hidden: tensor(hidden, [T]), gate: tensor(gate, [L, H]) };
  const found = await run(session, feeds, ["logits", "attn", "tokens", ...(chosen ? ["patches"] : [])]);
  return chosen ? spoken(found, about, length) : found;
}

function explained(target) {
  const classes = new Float32Array(about.classes);
  classes[target] = 1;
  return classes;
}

async function within(image, target, told, wanted, length) {
  const classes = about.chosen ? directionOf(about, target, length) : explained(target);
  const feeds = { image: imageOf(image), told: tensor(Float32Array.of(told), []), classes: tensor(classes, [classes.length]) };
  const found = await run(inside.session, feeds, wanted);
  return about.chosen && found.logits ? spoken(found, about, length) : found;
}

const follow = (choice) => new Follow(inside.seen, about, { ...inside.outline, classes: about.classes }, choice);

const ASKED = {
  async begin(files) {
    if (typeof WebAssembly === "undefined") throw new Error("This browser lacks WebAssembly, in which the model runs: try a current one.");
    ort = await runtime(files);
    processor = { ort, provider };
  },
  // byChip: what "gpu" found of this model
  async open({ described, graph: content, related, weights, list, byChip }) {
    const before = { ort, provider };
    const next = await ort.InferenceSession.create(new Uint8Array(related), { executionProviders: ["wasm"], logSeverityLevel: 3 });
    try {
      ({ ort, provider } = byChip ? chip : processor);
      await start(content, weights, list);
    } catch (error) {  // all is as it was
      ({ ort, provider } = before);
      await next.release();
      throw error;
    }
    await relating?.release();
    [relating, graph, whole] = [next, content, described];
    about = described.words ? asking(described, [...described.classNames.keys()]) : described;
  },
  async moment({ weights, list, described, trained }) {
    await start(graph, weights, list);
    about = trained ? described : { ...described, head: unmeasured(described.head) };
  },
  words({ chosen }) { about = asking(whole, chosen); },
  where: ({ key }) => whereOf(looks.get(key).patches, looks.get(key).about),
  gpu: (given) => tryGpu(given),
  // layer: the one that will be seen first, which comes along with the head (-1: where the model opens); all: so do the others
  async look({ key, picture, prepared, edits, layer, all }) {
    const ready = prepared ?? prepare(picture, about), told = picture && ready;  // else the page has it
    const begun = performance.now(), outputs = await look(ready.image, edits, edits && ready.length);
    const ms = performance.now() - begun, made = new Look(outputs, about, relate, ready.times);
    looks.set(key, made);
    return { ...told, length: outputs.length, ms, ...made.first(layer, all) };
  },
  async unfold({ graph: content, weights, list, outline }) {
    await fold();
    inside = { session: await opened(content, weights, list), outline };
  },
  ledger: async ({ prepared, target }) => ledgerMap(await within(prepared.image, target, 1, ["ledger_heads", "ledger_embed"], prepared.length), about),
  async follow({ prepared }) {
    const { logits, length } = await look(prepared.image), target = logits.indexOf(Math.max(...logits));
    const seen = await within(prepared.image, about.classes ? target : -1, 1, inside.session.outputNames, length);
    Object.assign(inside, { seen: { ...seen, image: prepared.image, pixels: prepared.pixels }, shared: null, length });
  },
  lesson: ({ choice }) => lessonOf(follow(choice), inside.shared),
  plan: () => plan(follow({ patch: 0, layer: 0, head: 0 })),
  async pass({ hidden, grey, placeless, frames }) {
    const { seen: { image }, length } = inside;
    if (frames) return (await look(ofFrames(image, frames, about))).logits;
    if (placeless) return (await within(image, 0, 0, ["logits"], length)).logits;
    return (await look(grey ? painted(image, grey, about, inside.outline) : image, { patches: hidden }, length)).logits;
  },
  shared({ logits }) { inside.shared = shared(follow({ patch: 0, layer: 0, head: 0 }), logits); },
  head: ({ key }) => looks.get(key).head(),
  figures: ({ key }) => looks.get(key).figures(),
  layer: ({ key, layer }) => looks.get(key).layer(layer),
  related: ({ key, layer }) => looks.get(key).related(layer),
  exact: ({ key, layer }) => looks.get(key).exact(layer),
  embeddings: ({ key, among }) => looks.get(key).embeddings(among?.map((each) => looks.get(each))),
  matches: ({ from, keys }) => keys.map((each) => matches(looks.get(from), looks.get(each))),
  forget: ({ key }) => { looks.delete(key); },
};

function plain(error) {
  const text = String(error?.message ?? error);
  if (/memory|alloc|RangeError/i.test(text + error?.name)) return "This device has too little memory for this model: choose a smaller one.";
  if (/protobuf|onnx|ERROR_CODE/i.test(text)) return UNFIT;
  return text;
}

const take = inTurn(async ({ id, ask, ...rest }) => {
  try {
    postMessage({ id, answer: await ASKED[ask](rest) });
  } catch (error) {
    postMessage({ id, error: plain(error) });
  }
});

onmessage = ({ data }) => take(data);

/* A source is where a picture's messages come from: a server, this file, an engine in this browser.

     head(), layer(l), embeddings()   promises of a message: an ArrayBuffer, or {meta, arrays} (explorer/schema.json);
                                      `arrays.image` may be an ImageBitmap, `arrays.frames` several.
                                      Optional: embeddings
     exact(l)                         optional: a layer's attention without rounding, for the numbers that are read
     expect(layer)                    optional: hears which layer will be wanted first
     related(l), figures()            optional: rollout and similarity of a layer, the figures of all heads: promises of what
                                      is not in layer(l) and head() then, because it is computed where somebody looks at it
     passing: true                    another source comes at once: only what is on the screen is asked for
     refused: {method: why}           optional: the maps that will not come
     closed: true                     nobody computes the maps that are missing */

import { fromBase64, unpack } from "./bytes.js";
import { tableOf } from "./colour.js";

const RETRY_MS = 3000;
const PREFETCH_BYTES = 64 * 2 ** 20;

const pictureOf = (image) => image instanceof ImageBitmap ? image : createImageBitmap(new Blob([image]));

// Of a clip its frames, of a picture the one that it is.
function framesOf({ image, frames, frame_ends: ends }) {
  const each = !frames ? [image] : !ends ? frames : [...ends].map((end, i) => frames.subarray(i ? ends[i - 1] : 0, end));
  return Promise.all(each.map(pictureOf));
}

export async function open(source) {
  const { meta, arrays } = await unpack(await source.head());
  const [h, w] = meta.grid_size.slice(-2), frames = await framesOf(arrays);
  return {
    ...meta, ...arrays, frames, source, h, w,
    t: frames.length, P: frames.length * h * w, T: meta.num_tokens, L: meta.num_layers, H: meta.num_heads, pre: meta.num_prefix_tokens,
    Q: arrays.tokens_sent.length,
    tables: Object.fromEntries(meta.colormaps.map((name, i) => [name, tableOf(arrays.colormaps, i)])),
    layers: Array(meta.num_layers).fill(null), wanted: new Map(), loaded: 0,
    maps: new Map(), asked: new Set(), refused: { ...source.refused },  // refused: {method: why}
    names: new Map(meta.classes.map((c) => [c.index, c.name])),  // of the likeliest classes, and of explained ones
  };
}

// Fetched once; if that failed, once more after a while.
export function once(data, key, fetcher) {
  const { wanted } = data;
  if (!wanted.has(key)) {
    wanted.set(key, fetcher());
    wanted.get(key).catch(() => setTimeout(() => wanted.delete(key), RETRY_MS));
  }
  return wanted.get(key);
}

// "embeddings", "figures", a layer or "related" of one.
export function need(data, what, l) {
  if (Number.isInteger(what)) return need(data, "layer", what);
  return once(data, [what, l].join(" "), async () => {
    const layer = what === "related" && need(data, l);  // comes first
    const [{ arrays }] = await Promise.all([data.source[what](l).then(unpack), layer]);
    if (l === undefined) Object.assign(data, arrays);
    else {
      data.layers[l] = { ...data.layers[l], ...arrays };
      data.loaded += 1;
    }
  });
}

// The layers that are held beside one that is looked at, nearest first: all, or of large ones its neighbours.
export function nearest({ layers, L, layer_bytes: bytes }, layer) {
  const few = L * bytes > PREFETCH_BYTES, far = (l) => Math.abs(l - layer);
  return [...layers.keys()].filter((l) => !few || far(l) <= 1).sort((a, b) => far(a) - far(b));
}

const SAYS_WHY = [422, 429, 503, 507];  // the app's own sentences
const NO_ANSWER = "The server does not answer: check the connection, or reload the page.";

export async function download(url, gone = "This view has expired: open the image again.") {
  const lost = () => { throw new Error(NO_ANSWER); };  // before the first byte, or in the middle
  const response = await fetch(new URL(url, document.baseURI)).catch(lost);
  if (response.ok) return response.arrayBuffer().catch(lost);
  const said = SAYS_WHY.includes(response.status) && (response.headers.get("content-type") ?? "").startsWith("text/plain");
  throw new Error(said ? await response.text() : gone);
}

// A server's: {head: url, layers: [url, ...], embeddings: url}.
export function addresses(value, gone) {
  const early = new Map();
  return {
    head: () => download(value.head, gone),
    layer(l) {
      const coming = early.get(l) ?? download(value.layers[l], gone);
      early.delete(l);
      return coming;
    },
    embeddings: value.embeddings && (() => download(value.embeddings, gone)),
    exact: value.exact?.length ? (l) => download(value.exact[l], gone) : undefined,
    expect(layer) {  // fetched beside the head, not after it
      const last = value.layers.length - 1, l = layer < 0 ? last : Math.min(layer, last);
      early.set(l, download(value.layers[l], gone));
      early.get(l).catch(() => {});  // whoever asks for it hears of it
    },
  };
}

// The same source, which keeps what it has fetched: coming back to it costs a drawing, not a download.
export function kept(source) {
  const all = new Map();
  const once = (key, fetcher) => {
    if (!all.has(key)) all.set(key, fetcher().catch((error) => { all.delete(key); throw error; }));
    return all.get(key);
  };
  return {
    head: () => once("head", source.head),
    layer: (l) => once(l, () => source.layer(l)),
    embeddings: source.embeddings && (() => once("embeddings", source.embeddings)),
    exact: source.exact && ((l) => once("exact" + l, () => source.exact(l))),
  };
}

// This file's own: the same bytes as base64.
export const inPage = (messages) => ({
  head: async () => fromBase64(messages.head),
  layer: async (l) => fromBase64(messages.layers[l]),
  embeddings: messages.embeddings && (async () => fromBase64(messages.embeddings)),
  closed: true,
});

// What is looked at: one state object, what is hovered on top of it, and what follows from both. No element, no pixel.

export const START = {
  mode: "attention",    // attention | rollout | method | embeddings
  layer: -1,            // at first the last one; then -1 is the embedding, in front of layer 0
  head: 0,
  fuse: "mean",         // one | mean | max over the heads of the layer
  query: 0,             // a token
  pinned: false,
  direction: "row",     // row: looks at | column: is looked at by | both
  scale: "map",         // what the brightest colour means: this map | layer | all | uniform (relative to it)
  curve: "root",        // brightness is the square root of a weight, so that one outlier does not eat the scale | linear
  colormap: "viridis",
  opacity: 0.9,
  fade: true,           // small weights let the image through
  smooth: false,        // false: by patch, the truth
  links: false,         // arcs to the patches that weigh most
  method: "",
  target: -1,           // class explained by Method; -1: the likeliest
  embedding: "pca",     // pca | similarity | norms | positions | filters
  basis: "joint",       // of pca: one for all depths | depth: one for each
  matrix: "after",      // which side of an intervention is shown: before | after
  frame: 0,             // of a clip that a model of pictures looks at: the one that is shown
  patches: [],          // hidden patches
  heads: [],            // heads switched off, as "layer.head"
  frozen: -1,           // the frame of a clip that all others are replaced by; -1: none
};
export const ONE_OF = {
  fuse: ["one", "mean", "max"], direction: ["row", "column", "both"], scale: ["map", "layer", "all", "uniform"],
  curve: ["root", "linear"],
  basis: ["joint", "depth"], matrix: ["before", "after"],
};
export const SHARED = ["mode", "layer", "head", "fuse", "query", "pinned", "direction", "scale", "curve", "embedding", "basis",
  "colormap", "opacity", "fade", "smooth", "links"];

export const directional = ({ state }) => state.mode === "attention" || state.mode === "rollout";
export const ofImage = ({ state }) => state.mode !== "embeddings" || state.embedding !== "filters";
export const asksQuery = (viewer) => directional(viewer)
  || viewer.state.mode === "embeddings" && ["similarity", "positions"].includes(viewer.state.embedding);
// Nothing to see of a layer: neither a slider nor a key leads through them.
export const depthless = ({ state }) => state.mode === "method"
  || state.mode === "embeddings" && ["positions", "filters"].includes(state.embedding);
export const lowestLayer = ({ state }) => state.mode === "embeddings" ? -1 : 0;
export const compares = ({ after, state }) => !!after && state.mode !== "method";  // maps are of the picture as it is
export const twoPanes = (viewer) => viewer.state.direction === "both" && directional(viewer);
export const relates = ({ mode, embedding }) => mode === "rollout" || mode === "embeddings" && embedding === "similarity";
export const seen = (viewer) => compares(viewer) && viewer.state.matrix === "after" ? viewer.after : viewer.data;

const ALL = ["attention", "rollout", "method", "embeddings"];
export const modes = ({ options, methods, data }) => (options.modes ?? ALL)
  .filter((name) => name !== "method" || methods.length || !data);
export const embeddings = ({ data }) => data?.source.embeddings ? data.embeddings : ["similarity", "norms"];

export const EDITS = ["patches", "heads", "frozen"];
export const edited = ({ patches, heads, frozen }) => patches.length > 0 || heads.length > 0 || frozen >= 0;
// The same interventions, in whatever order? Heads are "layer.head" in a state, [layer, head] where they are told.
export const sameEdits = (...both) => new Set(both.map(({ patches, heads, frozen }) =>
  [[...patches].sort(), heads.map((head) => [head].flat().join(".")).sort(), frozen].join(" "))).size === 1;
// What the model says after the interventions of now, or null: `after` may be of others. It names its own, or is taken for
// the answer to what was asked last.
export const answerNow = ({ after, state, reply }) =>
  after && (after.source.edits ? sameEdits(after.source.edits, state) : reply === "there") ? after.classes[0] : null;

// The pinned, under what is hovered.
export function shown({ state, hover, data }) {
  const likeliest = data?.classes[0]?.index ?? -1;
  const now = {
    layer: state.layer, head: state.head, fuse: state.fuse, query: state.query, method: state.method,
    target: state.target < 0 ? likeliest : state.target, ...hover,
  };
  if (state.mode === "embeddings" && state.embedding === "positions" && now.query < data.pre) now.query = data.pre;
  return now;
}

export function cellOf({ state, hover, data, methods }, now, sheet) {
  if (state.mode === "attention") {
    const column = now.fuse === "one" ? now.head : data.H + (now.fuse === "max" ? 1 : 0);
    return now.layer * sheet.cols + column;
  }
  if (state.mode === "rollout") return now.layer;
  if (state.mode === "method") return Math.max(0, methods.findIndex((m) => m.name === now.method));
  if (state.embedding === "positions") return now.query - data.pre;
  if (state.embedding === "filters") return Math.min(hover.filter ?? 0, sheet.count - 1);
  return now.layer + 1;
}

// The inverse: what a cell of the sheet stands for.
export function pickOf({ state, data, methods }, cell, sheet) {
  if (state.mode === "attention") {
    const layer = Math.floor(cell / sheet.cols), head = cell % sheet.cols;
    return head < data.H ? { layer, head, fuse: "one" } : { layer, fuse: head === data.H ? "mean" : "max" };
  }
  if (state.mode === "rollout") return { layer: cell };
  if (state.mode === "method") return { method: methods[cell].name };
  if (state.embedding === "positions") return { query: cell + data.pre };
  if (state.embedding === "filters") return { filter: cell };
  return { layer: cell - 1 };
}

// Whatever an address or another model has left in the state becomes what this trace has.
export function clamp(viewer) {
  const { state, data, methods, defaults } = viewer;
  if (!data) return;
  const fit = (value, low, high) => Math.max(low, Math.min(high, Math.round(value)));
  if (!viewer.depthChosen) {  // where this model was measured to find objects best, or the last layer
    const { layer = data.L - 1, head } = data.opening ?? {};
    state.layer = layer;
    if (head !== undefined && state.fuse === START.fuse) Object.assign(state, { head, fuse: "one" });
  }
  viewer.depthChosen = true;
  state.layer = fit(state.layer, lowestLayer(viewer), data.L - 1);
  state.head = fit(state.head, 0, data.H - 1);
  state.query = fit(state.query, 0, data.T - 1);
  state.frame = fit(state.frame, 0, viewer.timeline.length ? viewer.timeline.length - 1 : Infinity);
  if (!(state.target in data.class_values)) state.target = -1;
  state.frozen = data.t > 1 ? fit(state.frozen, -1, data.t - 1) : -1;
  state.opacity = Math.max(0, Math.min(1, state.opacity));
  state.patches = [...new Set(state.patches)].filter((patch) => patch >= 0 && patch < data.P);
  const heads = state.heads.filter((key) => /^\d+\.\d+$/.test(key)).map((key) => key.split(".").map(Number));
  state.heads = [...new Set(heads.filter(([layer, head]) => layer < data.L && head < data.H).map((pair) => pair.join(".")))];
  for (const [name, choices] of Object.entries(ONE_OF)) if (!choices.includes(state[name])) state[name] = START[name];
  if (!Object.hasOwn(data.tables, state.colormap)) state.colormap = Object.keys(data.tables)[0];
  const known = (name) => methods.some((m) => m.name === name);
  if (!known(state.method)) state.method = defaults.method = known(data.believed) ? data.believed : methods[0]?.name ?? "";
  if (state.mode === "embeddings" && !embeddings(viewer).includes(state.embedding)) state.embedding = embeddings(viewer)[0];
  if (!modes(viewer).includes(state.mode)) state.mode = "attention";
}

// ---- steps of the keyboard: patches of the state

export function moveQuery({ state, data }, dx, dy) {
  if (state.query < data.pre) return { query: middle(data, 0), pinned: true };
  const { t, y, x } = placeOf(state.query, data), turned = (at, by, side) => (at + by + side) % side;
  return { query: data.pre + (t * data.h + turned(y, dy, data.h)) * data.w + turned(x, dx, data.w), pinned: true };
}

// The same place in the frame before or after, or in the middle of a frame.
export const inFrame = ({ state, data }, frame) => ({
  query: state.query < data.pre ? middle(data, frame)
    : data.pre + frame * data.h * data.w + (state.query - data.pre) % (data.h * data.w),
  pinned: true,
});
const middle = ({ pre, h, w }, frame) => pre + (frame * h + Math.floor(h / 2)) * w + Math.floor(w / 2);

// Where a patch token is: frame, row, column.
export function placeOf(token, { pre, w, h }) {
  const patch = token - pre;
  return { t: Math.floor(patch / (w * h)), y: Math.floor(patch / w) % h, x: patch % w };
}

export function moveLayer(viewer, step) {
  if (depthless(viewer)) return undefined;
  const low = lowestLayer(viewer), count = viewer.data.L - low;
  return { layer: low + (viewer.state.layer - low + step + count) % count };
}

export function moveHead(viewer, step) {
  const { state, data, methods } = viewer;
  if (state.mode === "method") {
    const at = methods.findIndex((m) => m.name === state.method);
    return { method: methods[(at + step + methods.length) % methods.length].name };
  }
  if (state.mode !== "attention") return moveLayer(viewer, step);
  const all = data.H + 2, at = state.fuse === "one" ? state.head : state.fuse === "mean" ? data.H : data.H + 1;
  const next = (at + step + all) % all;
  return next < data.H ? { head: next, fuse: "one" } : { fuse: next === data.H ? "mean" : "max" };
}

// ---- a token as a place on the picture, so that grids may differ, and back

export function relative(token, data) {
  if (token < data.pre) return { prefix: token };
  const { t, y, x } = placeOf(token, data);
  return { t: (t + 0.5) / data.t, y: (y + 0.5) / data.h, x: (x + 0.5) / data.w };
}

export function absolute({ prefix, t, y, x }, data) {
  if (prefix !== undefined) return Math.min(prefix, Math.max(0, data.pre - 1));
  return data.pre + (Math.floor(t * data.t) * data.h + Math.floor(y * data.h)) * data.w + Math.floor(x * data.w);
}

// Every change of the state goes through here, and everything else follows: controls, pixels, address, other viewers.

import { writeAddress } from "./address.js";
import { tell } from "./link.js";
import { clamp, sameEdits, shown } from "./state.js";
import { keyOf } from "./weights.js";

export function later({ timers }, name, wait, action) {
  clearTimeout(timers[name]);
  timers[name] = setTimeout(action, wait);
}

export function set(viewer, patch, quiet = false) {
  const { state } = viewer;
  const moved = ["mode", "embedding", "direction"].some((name) => name in patch && patch[name] !== state[name]);
  const frame = viewer.timeline.length && "frame" in patch && patch.frame !== state.frame;
  if ("query" in patch && !("frame" in patch)) viewer.anchor = { frame: state.frame, query: patch.query };
  const before = { ...state };
  Object.assign(state, patch);
  if ("layer" in patch) viewer.depthChosen = true;
  clamp(viewer);
  if (!sameEdits(before, state)) viewer.reply = "coming";
  if (moved) viewer.layout();
  viewer.sync();
  viewer.draw();
  if (viewer.addressed) later(viewer, "address", 250, () => writeAddress(state, viewer.defaults));
  if (!quiet) tell(viewer, patch);
  if (frame) viewer.showFrame();
  else if (viewer.data) wantMore(viewer);
}

export function commit(viewer, patch, event) {
  for (const name of Object.keys(viewer.hover)) delete viewer.hover[name];
  set(viewer, patch);
  if (event) viewer.draw(event);
  tellPick(viewer);
}

export function preview(viewer, patch, event) {
  const { hover } = viewer;
  const same = Object.keys({ ...hover, ...patch }).every((name) => hover[name] === patch[name]);
  if (same) return;
  for (const name of Object.keys(hover)) delete hover[name];
  Object.assign(hover, patch);
  viewer.draw(event);
  tell(viewer);
}

export function tellPick(viewer) {
  const { query, layer, head, fuse, direction, mode } = viewer.state;
  later(viewer, "pick", 120, () => viewer.emit("pick", { query, layer, head, fuse, direction, mode }));
}

export function tellEdits(viewer) {
  later(viewer, "edits", 250, () => {  // those of then: another picture may have come without them
    const { patches, heads, frozen, frame } = viewer.state;
    viewer.emit("edits", { patches, heads: heads.map((key) => key.split(".").map(Number)), frozen, frame });
  });
}

export function tellFrame(viewer) {
  later(viewer, "frame", 250, () => viewer.emit("frame", { frame: viewer.state.frame }));
}

// What is to be seen and not there yet: embeddings are fetched, a method's map is asked for.
export function wantMore(viewer, again = false) {
  const { state, data, after, methods } = viewer;
  if (state.mode === "embeddings" && !["similarity", "norms"].includes(state.embedding))
    for (const one of [data, after]) if (one?.source.embeddings && !one.pca_joint)
      viewer.need(one, "embeddings").then((came) => came && viewer.layout());
  if (viewer.more && data.source.figures && !data.distance) viewer.need(data, "figures").then((came) => came && viewer.layout());
  if (state.mode !== "method" || !methods.length || data.source.closed) return;
  const now = { ...shown(viewer), ...state, target: shown(viewer).target };
  const method = methods.find((m) => m.name === state.method);
  const key = keyOf(method, now), { asked } = data;
  if (data.maps.has(key) || asked.has(key)) return;
  const { query, layer, head, target, frame } = now, mine = viewer.generation;
  later(viewer, "need", 60, () => {
    asked.add(key);
    setTimeout(() => {  // it may have been passed over for one that was wanted after it: once more, then when something changes
      asked.delete(key);
      if (!again && mine === viewer.generation && !viewer.data.refused[method.name]) wantMore(viewer, true);
    }, 15000);
    viewer.emit("need_maps", { method: method.name, target, query, layer, head, frame });
  });
}

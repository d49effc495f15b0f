// Interventions: hidden patches, heads switched off, time frozen.

import { tellEdits } from "./changes.js";
import { mostLookedAt } from "./story.js";
import { shown } from "./state.js";
import { frameNow } from "./time.js";
import { fused } from "./weights.js";

export function edit(viewer, patch) {
  viewer.set(patch);
  tellEdits(viewer);
}

// A patch, or where that is asked for the same place in every frame of a clip.
export function hide(viewer, patch, hidden) {
  const { data: { t, w, h }, everyFrame } = viewer, each = w * h;
  const meant = everyFrame ? Array.from({ length: t }, (_, frame) => frame * each + patch % each) : [patch];
  hideAll(viewer, meant, hidden);
}

function hideAll(viewer, meant, hidden) {
  const patches = viewer.state.patches.filter((p) => !meant.includes(p));
  if (hidden) patches.push(...meant);
  edit(viewer, { patches: patches.sort((a, b) => a - b) });
}

const framePatches = ({ w, h }, frame) => Array.from({ length: w * h }, (_, place) => frame * w * h + place);
export const isFrameHidden = ({ state, data }, frame) =>
  framePatches(data, frame).every((patch) => state.patches.includes(patch));
export function hideFrame(viewer) {
  const frame = frameNow(viewer);
  hideAll(viewer, framePatches(viewer.data, frame), !isFrameHidden(viewer, frame));
}

export function freeze(viewer) {
  edit(viewer, { frozen: viewer.state.frozen < 0 ? frameNow(viewer) : -1 });
}

export function hideQuery(viewer) {
  const patch = viewer.state.query - viewer.data.pre;
  hide(viewer, patch, !viewer.state.patches.includes(patch));
}

export function switchHead(viewer, layer, head) {
  const key = `${layer}.${head}`, { heads } = viewer.state;
  edit(viewer, { heads: heads.includes(key) ? heads.filter((k) => k !== key) : [...heads, key] });
}

export const undoAll = (viewer) => edit(viewer, { patches: [], heads: [], frozen: -1 });

// What the answer's own token, or else all patches, look at most in the last layer.
export async function hideMostLookedAt(viewer) {
  const { data } = viewer, last = data.L - 1, values = new Float32Array(data.T);
  if (!data.layers[last] && !await viewer.need(data, last)) return;  // why is said
  if (data !== viewer.data && !data.source.passing) return;  // another picture was chosen meanwhile
  fused(values, 0, data.layers[last], "mean", data.pre ? 0 : shown(viewer).query, "row", data);
  edit(viewer, { patches: mostLookedAt(values, data) });
}

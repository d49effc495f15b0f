// Interventions: hidden patches, heads switched off.

import { tellEdits } from "./changes.js";
import { mostLookedAt } from "./story.js";
import { shown } from "./state.js";
import { fused } from "./weights.js";

export function edit(viewer, patch) {
  viewer.answered = false;
  viewer.set(patch);
  tellEdits(viewer);
}

export function hide(viewer, patch, hidden) {
  const patches = viewer.state.patches.filter((p) => p !== patch);
  if (hidden) patches.push(patch);
  edit(viewer, { patches: patches.sort((a, b) => a - b) });
}

export function hideQuery(viewer) {
  const patch = viewer.state.query - viewer.data.pre;
  hide(viewer, patch, !viewer.state.patches.includes(patch));
}

export function switchHead(viewer, layer, head) {
  const key = `${layer}.${head}`, { heads } = viewer.state;
  edit(viewer, { heads: heads.includes(key) ? heads.filter((k) => k !== key) : [...heads, key] });
}

export const undoAll = (viewer) => edit(viewer, { patches: [], heads: [] });

// What the answer's own token, or else all patches, look at most in the last layer.
export function hideMostLookedAt(viewer) {
  const { data } = viewer, values = new Float32Array(data.T), layer = data.layers[data.L - 1];
  if (!layer) return;
  fused(values, 0, layer, "mean", data.pre ? 0 : shown(viewer).query, "row", data);
  edit(viewer, { patches: mostLookedAt(values, data) });
}

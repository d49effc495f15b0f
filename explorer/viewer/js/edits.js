// Interventions: hidden patches, heads switched off.

import { tellEdits } from "./changes.js";

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

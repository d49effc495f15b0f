// Play through depth: layers blend into each other, unless motion is unwelcome.

import { tellPick } from "./changes.js";
import { lowestLayer } from "./state.js";

const STEP_MS = 700, REST = 0.35;  // of a step stand still

export function play(viewer) {
  if (viewer.playing) return stop(viewer);
  const { state, data, parts, still } = viewer;
  if (parts.transport.hidden) return;
  if (state.layer >= data.L - 1) viewer.set({ layer: lowestLayer(viewer) });
  let start = null;
  const step = (time) => {
    start ??= time;
    viewer.watch?.played(time);
    const passed = (time - start) / STEP_MS;
    if (passed >= 1) {
      start = time;
      viewer.mix = 0;
      if (state.layer >= data.L - 1) return stop(viewer);
      viewer.set({ layer: state.layer + 1 });
    } else viewer.mix = still.matches ? 0 : Math.max(0, (passed - REST) / (1 - REST));
    if (!still.matches) viewer.draw();
    viewer.playing = requestAnimationFrame(step);
  };
  viewer.playing = requestAnimationFrame(step);
  viewer.sync();
}

function stop(viewer) {
  cancelAnimationFrame(viewer.playing);
  viewer.playing = null;
  viewer.mix = 0;
  viewer.watch?.played(null);
  viewer.sync();
  viewer.draw();
  tellPick(viewer);
}

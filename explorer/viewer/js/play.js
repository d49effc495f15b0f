// Play through depth or through time: layers blend into each other, unless motion is unwelcome.

import { tellPick } from "./changes.js";
import { lowestLayer } from "./state.js";
import { frameCount, frameNow, toFrame } from "./time.js";

const STEP_MS = 700, REST = 0.35;  // of a step stand still

const AXES = {
  depth: {
    hidden: ({ parts }) => parts.transport.hidden, low: lowestLayer, high: ({ data }) => data.L - 1,
    now: ({ state }) => state.layer, to: (_, layer) => ({ layer }), blends: true,
  },
  time: {
    hidden: ({ parts }) => parts.time.hidden, low: () => 0, high: (viewer) => frameCount(viewer) - 1,
    now: frameNow, to: toFrame,
  },
};

export function play(viewer, name = "depth") {
  const before = viewer.axis, axis = AXES[name];
  if (viewer.playing) stop(viewer);
  if (before === name || axis.hidden(viewer)) return;
  viewer.axis = name;
  if (axis.now(viewer) >= axis.high(viewer)) viewer.set(axis.to(viewer, axis.low(viewer)));
  const { still, root } = viewer;
  let start = null;
  const step = (time) => {
    start ??= time;
    viewer.watch?.played(time);
    const passed = (time - start) / STEP_MS;
    if (passed >= 1 && !root.classList.contains("is-loading")) {  // a frame that is on its way is waited for
      start = time;
      viewer.mix = 0;
      if (axis.now(viewer) >= axis.high(viewer)) return stop(viewer);
      viewer.set(axis.to(viewer, axis.now(viewer) + 1));
    } else viewer.mix = still.matches || !axis.blends ? 0 : Math.min(1, Math.max(0, (passed - REST) / (1 - REST)));
    if (!still.matches && axis.blends) viewer.draw();
    viewer.playing = requestAnimationFrame(step);
  };
  viewer.playing = requestAnimationFrame(step);
  viewer.sync();
}

function stop(viewer) {
  cancelAnimationFrame(viewer.playing);
  viewer.playing = viewer.axis = null;
  viewer.mix = 0;
  viewer.watch?.played(null);
  viewer.sync();
  viewer.draw();
  tellPick(viewer);
}

/* What tests and benchmarks ask a viewer. A page that sets `window.vitDebug` before its viewers come finds the last of
   them as `window.__vit`, with two things more than a visitor's:

     perf      milliseconds. draw: of our own code; work: from a frame's start to after it was presented; hover: from the
               event's time stamp to there, waiting for the frame included; frames: between two frames of play;
               first, pictures: when the first layer of a trace was first on the screen
     layoutOf() where each small map lies, in device pixels */

import { arrange, placeOf } from "./layout.js";
import { shown } from "./state.js";
import { sheetOf } from "./weights.js";

const remember = (list, value) => { list.push(value); if (list.length > 2000) list.shift(); };

export function observe(viewer, handle) {
  const perf = { draw: [], work: [], hover: [], frames: [], first: null, pictures: [] };
  let since = [], painted = null, last = null;
  viewer.watch = {
    asked(event) { if (event?.timeStamp) since.push(event.timeStamp); },
    drawn(begun, drawn) {
      if (drawn) remember(perf.draw, performance.now() - begun);
      const events = since;
      since = [];
      if (!events.length && painted === viewer.data) return;
      const channel = new MessageChannel();  // its message comes after the frame was presented
      channel.port1.onmessage = () => {
        const end = performance.now(), { data } = viewer;
        if (events.length) remember(perf.work, end - begun);
        for (const start of events) remember(perf.hover, end - start);
        if (!data?.loaded || painted === data) return;
        painted = data;
        perf.pictures.push(end);
        perf.first ??= end;
      };
      channel.port2.postMessage(0);
    },
    played(time) {
      if (last !== null && time !== null) remember(perf.frames, time - last);
      last = time;
    },
  };
  const layoutOf = () => {
    const { data, state, methods, size, parts } = viewer;
    const sheet = arrange(sheetOf(data, state, shown(viewer), "row", methods), size);
    return { size, sheet: { ...sheet, at: (cell) => placeOf(cell, sheet, size) }, canvas: parts.sheetCanvas };
  };
  window.__vit = Object.assign(handle, { perf, layoutOf });
}

/* Time as an axis to move along. A model of clips has its frames in one trace: there a step moves the query, at its
   place. A model of pictures looks at one frame after the other: there a step shows another trace, of `viewer.timeline`,
   and a patch that was picked is followed to the one that is most like it. */

import { tellFrame } from "./changes.js";
import { inFrame, placeOf } from "./state.js";
import { unpack } from "./bytes.js";
import { frameName } from "./words.js";

export const frameCount = ({ data, timeline }) => timeline.length || data.t;

export function frameNow({ data, timeline, state }) {
  if (timeline.length) return state.frame;
  return state.query < data.pre ? 0 : placeOf(state.query, data).t;
}

export const frameSaid = (viewer, frame) => viewer.timeline[frame]?.words ?? frameName(frame, viewer.data);

// What changes with another frame.
export const toFrame = (viewer, frame) => viewer.timeline.length ? { frame, ...followed(viewer, frame) } : inFrame(viewer, frame);

export function stepTime(viewer, step) {
  const count = frameCount(viewer);
  return toFrame(viewer, (frameNow(viewer) + step + count) % count);
}

// The patch of a frame that is most like the one that was picked, wherever that was.
function followed(viewer, frame) {
  const { state, data, matches } = viewer;
  if (!state.pinned || state.query < data.pre) return {};
  if (viewer.anchor.query === undefined) viewer.anchor = { frame: state.frame, query: state.query };  // picked by a link
  if (!matches) return {};
  const { anchor } = viewer, [F, , P] = matches.shape, patch = matches[(anchor.frame * F + frame) * P + anchor.query - data.pre];
  return { query: data.pre + patch };
}

// Other frames than those before: [{source, words}, ...], or none. follow: () => promise of where patches are found again.
export async function setTimeline(viewer, timeline, follow) {
  viewer.timeline = timeline;
  viewer.matches = null;
  viewer.anchor = {};
  viewer.state.frame = Math.max(0, Math.min(timeline.length - 1, viewer.state.frame));
  if (!timeline.length) return;
  try {
    const { arrays } = await unpack(await follow());
    if (viewer.timeline === timeline) viewer.matches = arrays.matches;
  } catch {
    // then the query stays at its place
  }
}

// The state has another frame: its trace comes on the screen.
export function showFrame(viewer) {
  viewer.setSource(viewer.timeline[viewer.state.frame].source);
  tellFrame(viewer);
}

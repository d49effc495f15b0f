// Viewers of one page that share query, layer, head and settings. Patches travel as places on the picture.

import { absolute, relative, SHARED } from "./state.js";

const channels = new Map();  // name -> {members: hearers, said: what was said last, for who comes later}

export function join(viewer) {
  const { link } = viewer.options;
  if (!link) return;
  if (!channels.has(link)) channels.set(link, { members: new Set(), said: { state: {} } });
  viewer.hear = (message) => hear(viewer, message);
  channels.get(link).members.add(viewer.hear);
}

export const leave = (viewer) => channels.get(viewer.options.link)?.members.delete(viewer.hear);
export const lastSaid = (viewer) => channels.get(viewer.options.link)?.said;

// What has changed, not all: the others may have fewer layers, or a coarser grid.
export function tell(viewer, patch = {}) {
  const { options, data, state, hover } = viewer;
  if (!options.link || !data) return;
  const names = SHARED.filter((name) => name in patch), channel = channels.get(options.link);
  const message = { state: Object.fromEntries(names.map((name) => [name, state[name]])), hover: { ...hover } };
  if ("query" in patch) message.at = relative(state.query, data);
  if (hover.query !== undefined) message.hoverAt = relative(hover.query, data);
  Object.assign(channel.said.state, message.state);
  if (message.at) channel.said.at = message.at;
  for (const other of channel.members) if (other !== viewer.hear) other(message);
}

export function hear(viewer, message) {
  const { data, hover } = viewer;
  if (!data) return;
  for (const name of Object.keys(hover)) delete hover[name];
  Object.assign(hover, message.hover);
  if (message.hoverAt) hover.query = absolute(message.hoverAt, data);
  if (hover.layer !== undefined) hover.layer = Math.min(hover.layer, data.L - 1);
  if (hover.head !== undefined) hover.head = Math.min(hover.head, data.H - 1);
  viewer.set({ ...message.state, ...(message.at && { query: absolute(message.at, data) }) }, true);
}

// Traces come and go: another picture or model, the same one after an intervention, maps that were asked for.

import { writeAddress } from "./address.js";
import { tellEdits, tellPick, wantMore } from "./changes.js";
import { hear, lastSaid, tell } from "./link.js";
import { buildClasses, buildTrace } from "./parts.js";
import { nearest, need, open } from "./sources.js";
import { absolute, clamp, edited, relates, relative } from "./state.js";
import { unpack } from "./bytes.js";
import { keyOf } from "./weights.js";

// Maps and edits wait for the trace that they belong to.
export function expectArrival(viewer) {
  viewer.arrival = new Promise((resolve) => { viewer.arrive = resolve; });
}

// What is to be seen of a layer.
const needLayer = ({ state }, data, l) => need(data, ...(data.source.related && relates(state) ? ["related", l] : [l]));

// -> true if it came; what fails is said.
export async function fetchMore(viewer, data, what) {
  try {
    await (Number.isInteger(what) ? needLayer(viewer, data, what) : need(data, what));
    allIsWell(viewer);
    viewer.draw();
    return true;
  } catch (error) {
    if (data === viewer.data || data === viewer.after) complain(viewer, error);
    return false;
  }
}

export async function setSource(viewer, next) {  // -> false if what is wanted could not be shown
  const { root, state } = viewer, mine = ++viewer.generation, current = () => mine === viewer.generation;
  expectArrival(viewer);
  root.classList.add("is-loading");
  next.expect?.(state.layer);
  try {
    next.opened ??= open(next);  // a source shown before is shown again at once
    next.opened.catch(() => { next.opened = null; });  // one that failed is tried again
    const opened = await next.opened;
    if (!current()) return true;
    const first = !viewer.data, { depthChosen } = viewer;
    if (first) adopt(viewer, opened);
    const layer = state.layer < 0 ? (depthChosen ? 0 : opened.opening?.layer ?? opened.L - 1) : Math.min(Math.round(state.layer), opened.L - 1);
    const early = opened.first_rows && state.mode === "attention" && state.query === 0;  // there is something to see
    if (!first && early) adopt(viewer, opened);
    await needLayer(viewer, opened, layer);
    if (!current()) return true;
    if (!first && !early) adopt(viewer, opened);
    viewer.draw();
    const several = state.mode === "attention" ? !early : relates(state);  // are on the screen
    if (!next.passing || several) await prefetch(viewer, opened, layer, current);
    if (current()) {
      root.dispatchEvent(new CustomEvent("vit-loaded", { bubbles: true }));
      allIsWell(viewer);  // what was said was of another picture
    }
    return true;
  } catch (error) {
    if (current()) complain(viewer, error);
    return !current();
  } finally {
    if (current()) {
      root.classList.remove("is-loading");
      viewer.draw();
    }
  }
}

function adopt(viewer, opened) {
  const { state, hover, pointer, data: before, returning, defaults } = viewer;
  const other = before && ["t", "h", "w", "pre", "L", "H"].some((name) => before[name] !== opened[name]);
  const tokens = other ? [state.query, ...state.patches.map((patch) => before.pre + patch)] : [];
  viewer.data = opened;
  viewer.after = null;
  viewer.reply = "coming";
  if (other) {  // everything stays at its place on the picture; what the pointer was over is gone
    const [query, ...patches] = tokens.map((token) => absolute(relative(token, before), opened));
    state.query = query;
    state.patches = [...new Set(patches.map((token) => token - opened.pre))];
    for (const name of Object.keys(hover)) delete hover[name];
    pointer.pane = pointer.token = -1;
  }
  if (returning) {
    Object.assign(state, defaults, returning);
    Object.assign(viewer, { returning: null, anchor: {}, depthChosen: "layer" in returning });
  }
  clamp(viewer);
  if (returning && viewer.addressed) writeAddress(state, defaults);  // it may have been written to on the way
  buildTrace(viewer);
  viewer.refresh();
  viewer.arrive();
  if (!before) introduce(viewer);
  viewer.tell("seen");
  wantMore(viewer);
  if (other) tellPick(viewer);  // the same place has another number here
  if (viewer.options.intervene && edited(state) && !opened.source.passing) tellEdits(viewer);  // they hold here, too
}

function introduce(viewer) {  // what was said before this viewer came, and what its own address says
  const { named, state } = viewer, said = lastSaid(viewer);
  if (said && Object.keys(said.state).length) hear(viewer, said);
  else if (Object.keys(named).length) tell(viewer, state);
  if ("target" in named) viewer.emit("target", { target: state.target });
  if (Object.keys(named).length) tellPick(viewer);
}

async function prefetch(viewer, from, layer, current) {
  await afterFrame();  // what is seen goes before what may be
  const rest = nearest(from, layer);
  const work = async () => {
    while (rest.length && current()) {
      await needLayer(viewer, from, rest.shift());
      viewer.draw();
    }
  };
  await Promise.all([work(), work(), work()]);
}

// next: a source, and in it `edits`, those that it shows, as they were told. -> false if it could not be shown
export async function setAfter(viewer, next) {
  const asked = viewer.intervention = {}, mine = viewer.generation, layer = () => Math.max(0, viewer.state.layer);
  const current = () => asked === viewer.intervention && mine === viewer.generation;
  let opened = null;
  try {
    if (next) {
      [opened] = await Promise.all([open(next), viewer.arrival]);
      if (!current()) return true;
      await needLayer(viewer, opened, layer());
      if (!current()) return true;
    }
    viewer.after = opened;
    viewer.reply = "there";
    allIsWell(viewer);
    buildClasses(viewer);
    viewer.refresh();
    wantMore(viewer);
    if (opened && !next.passing) await prefetch(viewer, opened, layer(), current);
  } catch (error) {
    if (!current()) return true;
    complain(viewer, error);
    if (!opened || viewer.after !== opened) return unanswered(viewer);
  }
  return true;
}

// What was asked for last gets no answer. -> false
export function unanswered(viewer) {
  viewer.reply = "none";
  viewer.sync();
  return false;
}

// Soon where nothing is drawn, as in a tab behind another.
const afterFrame = () => new Promise((resolve) => {
  requestAnimationFrame(() => setTimeout(resolve));
  setTimeout(resolve, 100);
});

export async function addMaps(viewer, buffer) {
  const mine = viewer.generation, coming = viewer.arrival, { methods } = viewer;
  const { meta, arrays } = await unpack(buffer);
  await coming;
  if (mine !== viewer.generation) return;  // they explain a picture that is gone
  const { data } = viewer;
  if (meta.class_name) data.names.set(meta.target, meta.class_name);
  for (const [name, map] of Object.entries(arrays)) {
    if (!methods.some((m) => m.name === name)) methods.push({ name, label: name.replaceAll("_", " "), about: "" });
    data.maps.set(keyOf(methods.find((m) => m.name === name), meta), map);
  }
  working(viewer, "");
  clamp(viewer);
  viewer.refresh();
}

export async function refuse(viewer, why) {  // {method: why its map does not come}, of the trace that is shown or coming
  const mine = viewer.generation;
  await viewer.arrival;
  if (mine !== viewer.generation) return;
  Object.assign(viewer.data.refused, why);
  viewer.draw();
}

function complain(viewer, error) {
  working(viewer, viewer.complaint = error?.message ?? "The viewer could not be loaded.");
}

function allIsWell(viewer) {
  if (viewer.parts.working.textContent === viewer.complaint) working(viewer, "");
}

export function working({ parts }, text) { parts.working.textContent = text; }

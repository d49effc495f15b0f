/* The ViT viewer: decode, index, look up a colour, draw, emit picks. No framework, no network of its own.

   mount(element, source, options) -> handle
     source   see sources.js, or null for now
     options  {name, state, emit(event, payload), methods, link, address, modes, intervene, predictions, picture_height,
              own: () => true where the picture is the visitor's, so that no link leads to it,
              lead: false where the viewer is not what a page is about: no sentence, nothing to try, no tabs,
              tries: [{label, ...}] more things to try, lesson: {...}: told as the DOM event "vit-try"}
     handle   {state, data, after, hover, moment, set(patch), setSource(source), setAfter(source), setTimeline(moments, follow),
              restore(state), pause(), tellFrame(), unanswered(), addMaps(message), refuse({method: why}), working(text), destroy()}
   One state object; what is hovered is not what is pinned; everything drawn follows from both. */

import { readAddress } from "./address.js";
import { commit, preview, set, tellEdits, tellFrame, tellPick } from "./changes.js";
import { sync } from "./controls.js";
import { observe } from "./debug.js";
import { draw } from "./frame.js";
import { addressed } from "./here.js";
import { listenToKeys, listenToMaps } from "./input.js";
import { layout } from "./layout.js";
import { join, leave } from "./link.js";
import { addMaps, expectArrival, fetchMore, refuse, setAfter, setSource, unanswered, working } from "./loading.js";
import { buildParts } from "./parts.js";
import { play } from "./play.js";
import { EDITS, sameEdits, START } from "./state.js";
import { setTimeline, showFrame } from "./time.js";

export function mount(root, source, options = {}) {
  const viewer = create(root, options);
  expectArrival(viewer);
  buildParts(viewer);
  listenToMaps(viewer);
  const forget = listen(viewer);
  const handle = {
    state: viewer.state,
    get data() { return viewer.data; },
    get hover() { return viewer.hover; },
    get after() { return viewer.after; },
    get moment() { return viewer.timeline[viewer.state.frame]; },
    set: viewer.set,
    setSource: (next) => setSource(viewer, next),
    setAfter: (next) => setAfter(viewer, next),
    restore: (view) => { viewer.returning = view; },
    setTimeline: (moments, follow) => setTimeline(viewer, moments, follow),
    pause: () => viewer.playing && viewer.play(viewer.axis),
    tellFrame: () => tellFrame(viewer),
    unanswered: () => unanswered(viewer),
    addMaps: (message) => addMaps(viewer, message),
    refuse: (why) => refuse(viewer, why),
    working: (text) => working(viewer, text),
    destroy() {
      viewer.generation++;
      if (viewer.playing) cancelAnimationFrame(viewer.playing);
      Object.values(viewer.timers).forEach(clearTimeout);
      forget();
      root.replaceChildren();
    },
  };
  root.viewer = handle;
  if (window.vitDebug) observe(viewer, handle);
  if (source) setSource(viewer, source);
  return handle;
}

// What the parts of a viewer share. The verbs at the end are how a part reaches those that stand above it.
function create(root, options) {
  const isAddressed = options.address && addressed();
  const defaults = { ...START, ...options.state }, named = isAddressed ? fromAddress(options) : {};
  const viewer = {
    root, options, addressed: isAddressed, defaults, named,
    emit: options.emit ?? (() => {}), methods: (options.methods ?? []).slice(),
    state: { ...defaults, ...named }, depthChosen: "layer" in named || "layer" in (options.state ?? {}),
    hover: {},                          // query, layer, head, fuse, method: what the pointer previews
    pointer: { pane: -1, token: -1 },   // the patch under the pointer, pinned or not
    data: null, after: null, reply: "coming",  // coming | there | none: what is heard of the interventions that were asked for last
    returning: null,                    // the state that the next source comes with; none: it stays
    generation: 0, intervention: null, complaint: "",
    more: false, intervening: false, everyFrame: false, painting: null,  // what a stroke does: true hides, false brings back
    timeline: [], matches: null, anchor: {},  // of a clip that a model of pictures looks at: see time.js
    playing: null, axis: null, mix: 0, said: -Infinity, legendKey: "", scheduled: false,
    still: matchMedia("(prefers-reduced-motion: reduce)"), touch: matchMedia("(hover: none)"),
    parts: {}, panes: [], dots: [], size: {}, theme: {}, timers: {},
    photos: [],                         // the image at the size of the stage, one per pane
    memories: [{ values: new Float32Array(0) }, { values: new Float32Array(0) }],
    sheetImage: null, matrixImage: document.createElement("canvas"),
  };
  return Object.assign(viewer, {
    set: (patch, quiet) => set(viewer, patch, quiet),
    commit: (patch, event) => commit(viewer, patch, event),
    preview: (patch, event) => preview(viewer, patch, event),
    draw: (event) => draw(viewer, event),
    layout: () => layout(viewer),
    sync: () => sync(viewer),
    tell: (name, detail) => root.dispatchEvent(new CustomEvent("vit-" + name, { detail, bubbles: true })),
    refresh() { layout(viewer); sync(viewer); draw(viewer); },
    play: (axis) => play(viewer, axis),
    setSource: (next) => setSource(viewer, next),
    showFrame: () => showFrame(viewer),
    need: (data, what) => fetchMore(viewer, data, what),
  });
}

// -> what to call when the viewer goes.
function listen(viewer) {
  const { root } = viewer, ends = [listenToKeys(viewer), () => leave(viewer)];
  const on = (target, name, hearer) => {
    target.addEventListener(name, hearer);
    ends.push(() => target.removeEventListener(name, hearer));
  };
  join(viewer);
  const repaint = () => { viewer.theme = {}; viewer.draw(); };
  on(root, "vit-pick", (event) => viewer.commit(event.detail));  // other parts of a page may point, too
  on(matchMedia("(prefers-color-scheme: dark)"), "change", repaint);
  if (viewer.addressed) on(window, "hashchange", ({ newURL }) => onAddress(viewer, new URL(newURL).hash));
  const relayout = () => { viewer.layout(); viewer.draw(); };
  const watcher = new ResizeObserver(relayout), skin = new MutationObserver(repaint);
  let screen = null;
  const onScreen = () => {  // another one may have smaller pixels
    screen?.removeEventListener("change", onScreen);
    screen = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    screen.addEventListener("change", onScreen);
    relayout();
  };
  onScreen();
  ends.push(() => screen.removeEventListener("change", onScreen));
  watcher.observe(root);
  for (const node of [document.documentElement, document.body])
    skin.observe(node, { attributes: true, attributeFilter: ["class", "data-theme"] });
  ends.push(() => watcher.disconnect(), () => skin.disconnect());
  return () => ends.forEach((end) => end());
}

// What cannot be undone here is not done.
function fromAddress({ intervene }, hash) {
  const found = readAddress(hash);
  if (!intervene) for (const name of EDITS) delete found[name];
  return found;
}

// Another link in the same tab. It is read from the event: the bar may have been written to before that came.
function onAddress(viewer, hash) {
  const { state, data, defaults, options } = viewer;
  if (!data) return;
  const before = { ...state };
  const layer = defaults.layer < 0 ? data.L - 1 : defaults.layer;
  viewer.set({ ...defaults, layer, ...fromAddress(options, hash) });
  viewer.anchor = {};
  if (options.intervene && !sameEdits(before, state)) tellEdits(viewer);
  if (state.target !== before.target) viewer.emit("target", { target: state.target });
  tellPick(viewer);
}

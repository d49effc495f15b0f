// The elements of a viewer, and those that depend on the trace.

import { wantMore } from "./changes.js";
import { freeze, hideFrame, hideMostLookedAt, hideQuery, switchHead, undoAll } from "./edits.js";
import { choice, el, icon, ICONS, renew, toggle } from "./elements.js";
import { KEYS, listenToPicture } from "./input.js";
import { copyLink } from "./address.js";
import { explained, listenToTerms, term } from "./terms.js";
import { toFrame } from "./time.js";
import { number, written } from "./numbers.js";

export function buildParts(viewer) {
  const { root, parts } = viewer;
  const part = (name, node) => parts[name] = node;
  viewer.panes = [pane(viewer, 0), pane(viewer, 1)];
  root.classList.add("vit-viewer");
  root.toggleAttribute("data-plain", viewer.options.lead === false);  // not what its page is about
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", viewer.options.name ?? "Viewer of a Vision Transformer");
  root.replaceChildren(
    top(viewer, part),
    part("body", el("div", { class: "vit-body" },
      part("stage", stage(viewer, part)), part("tabs", tabs(viewer)), part("side", side(part)), part("panel", panel(part)))),
    bar(viewer, part),
    part("explain", el("p", { class: "vit-quiet vit-explain" })),
    part("more", more(viewer, part)),
    part("live", el("div", { class: "vit-sr", "aria-live": "polite" })),
    part("card", el("div", { class: "vit-card", role: "tooltip", hidden: true })),
    part("help", help(viewer)));
  listenToTerms(viewer);
}

function pane(viewer, index) {
  const label = el("span", { class: "vit-pane-label" }), value = el("span", { class: "vit-pane-value" });
  const canvas = el("canvas", {
    class: "vit-picture", tabIndex: 0, role: "application", "aria-roledescription": "attention map", "aria-label": "Image",
  });
  listenToPicture(viewer, canvas, index);
  return { node: el("figure", { class: "vit-pane" }, el("figcaption", {}, label, value), canvas), canvas, label, value };
}

const MODES = [["attention", "Attention"], ["rollout", "Rollout"], ["method", "Methods"], ["embeddings", "Embeddings"]];

const press = (onclick, text, attributes = {}) =>
  el("button", { type: "button", class: "vit-button", onclick, ...attributes }, text);

// One line: what the model says, and what can be done with all of it.
function top(viewer, part) {
  return el("div", { class: "vit-top" },
    part("lead", el("h2", { class: "vit-lead", role: "status" })),
    el("div", { class: "vit-tools" },
      part("working", el("span", { class: "vit-working", role: "status" })),
      part("intervene", el("button", {
        type: "button", class: "vit-button", title: "Hide patches, switch heads off", "aria-pressed": "false",
        onclick: () => { viewer.intervening = !viewer.intervening; viewer.sync(); viewer.draw(); },
      }, icon(ICONS.intervene), el("span", { class: "vit-text" }, "Intervene"))),
      part("copy", el("button", {
        type: "button", class: "vit-button", title: "Copy a link to this view", onclick: () => copyLink(viewer),
      }, icon(ICONS.link), part("copyText", el("span", { class: "vit-text" }, "Copy link")))),
      press(() => viewer.parts.help.showModal(), "?",
        { class: "vit-button vit-round vit-keys", title: "All keys (?)", "aria-label": "All keys" })));
}

// On a phone one of these stands under the picture.
const TABS = { answer: "Answer", heads: "Heads", lesson: "Lesson" };
function tabs(viewer) {
  const { root, options } = viewer, names = Object.keys(TABS).filter((name) => name !== "lesson" || options.lesson);
  root.dataset.tab = "answer";
  const open = (name) => {
    if (name === "lesson") return viewer.tell("try", options.lesson);
    root.dataset.tab = name;
    for (const node of list.children) if (node.ariaPressed) node.ariaPressed = String(node.dataset.name === name);
    viewer.refresh();
  };
  const list = el("div", { class: "vit-tabs", role: "group", "aria-label": "Under the picture" }, ...names.map((name) =>
    el("button", {
      type: "button", class: "vit-tab", "data-name": name, onclick: () => open(name),
      ...(name !== "lesson" && { "aria-pressed": String(name === "answer") }),  // that one leads away
    }, TABS[name])));
  return list;
}

function bar(viewer, part) {
  const { commit } = viewer;
  return part("bar", el("div", { class: "vit-bar" },
    part("mode", choice("View", MODES, (mode) => commit({ mode }))),
    part("direction", choice("Direction", [["row", "Looks at"], ["column", "Is looked at by"], ["both", "Both"]],
      (direction) => commit({ direction }))),
    part("method", el("select", { "aria-label": "Method", onchange: (e) => commit({ method: e.target.value }) })),
    part("embedding", choice("Show", [["pca", "PCA colours"], ["similarity", "Similarity"], ["norms", "Norms"],
      ["positions", "Positions"], ["filters", "Patch filters"]], (embedding) => commit({ embedding }))),
    el("span", { class: "vit-spring" }),
    part("moreButton", press(() => openMore(viewer), "More", { "aria-expanded": "false", title: "Scales, colours, matrix, charts" }))));
}

export function openMore(viewer) {
  viewer.more = !viewer.more;
  viewer.parts.moreButton.ariaExpanded = String(viewer.more);
  viewer.parts.more.hidden = !viewer.more;
  viewer.refresh();
  wantMore(viewer);
}

const more = (viewer, part) => el("section", { class: "vit-more", hidden: true, "aria-label": "More" },
  part("settings", settings(viewer, part)),
  el("div", { class: "vit-figures" },
    el("div", { class: "vit-block" },
      el("h3", {}, term("matrix", "Token × token"), part("matrixNote", el("span", { class: "vit-quiet" }))),
      part("matrix", el("canvas", {
        class: "vit-matrix", tabIndex: 0, role: "application", "aria-roledescription": "token matrix",
      }))),
    part("charts", el("div", { class: "vit-block vit-charts" }))));

function edits(viewer, part) {
  const { state } = viewer, button = (name, text, onclick) => part(name, press(onclick, text));
  return el("div", { class: "vit-edits" },
    part("editsSaid", el("span", { class: "vit-said", role: "status" })),
    part("editSide", choice("Shown", [["before", "Before"], ["after", "After"]], (matrix) => viewer.set({ matrix }))),
    button("editQuery", "Hide query patch", () => hideQuery(viewer)),
    part("editEvery", toggle("At every time", "Hide a place at all times of the clip", (on) => { viewer.everyFrame = on; })),
    button("editFrame", "Hide time", () => hideFrame(viewer)),
    button("editFreeze", "Freeze time", () => freeze(viewer)),
    button("editHead", "Switch head off", () => switchHead(viewer, state.layer, state.head)),
    button("editUndo", "Undo all", () => undoAll(viewer)));
}

function stage(viewer, part) {
  const pickHead = (value) => viewer.commit(["mean", "max"].includes(value) ? { fuse: value } : { fuse: "one", head: +value });
  return el("section", { class: "vit-stage", "aria-label": "Image" },
    part("panes", el("div", { class: "vit-panes" }, viewer.panes[0].node, viewer.panes[1].node)),
    part("edits", edits(viewer, part)),
    part("readout", el("p", { class: "vit-readout" }, part("title", el("b")), " ", part("words", el("span")))),
    part("chips", el("div", { class: "vit-chips", role: "group", "aria-label": "Prefix tokens" })),
    el("div", { class: "vit-under" },
      part("gauge", el("div", { class: "vit-gauge" },
        el("div", { class: "vit-track" }, part("gaugeFill", el("div", { class: "vit-fill" }))),
        part("gaugeText", el("span")))),
      part("legend", el("div", { class: "vit-legend" },
        part("legendLow", el("span")), part("legendBar", el("canvas", { width: 256, height: 1 })),
        part("legendHigh", el("span")),
        el("span", { class: "vit-quiet" }, part("legendName", term("scale", "")))))),
    part("transport", el("div", { class: "vit-transport" },
      part("play", el("button", { type: "button", class: "vit-button vit-round vit-play", onclick: () => viewer.play() })),
      part("depth", el("input", {
        type: "range", step: 1, "aria-label": "Layer", oninput: (e) => viewer.commit({ layer: +e.target.value }, e),
      })),
      part("depthText", el("span", { class: "vit-depth" })),
      part("headBox", el("label", { class: "vit-stepper" }, el("span", { class: "vit-sr" }, "Head"),
        part("head", el("select", { onchange: (e) => pickHead(e.target.value) })))))),
    part("time", el("div", { class: "vit-transport" },
      part("playTime", el("button", { type: "button", class: "vit-button vit-round vit-play", "aria-label": "Play through time", onclick: () => viewer.play("time") })),
      part("frame", el("input", {
        type: "range", min: 0, step: 1, "aria-label": "Time", oninput: (e) => viewer.commit(toFrame(viewer, +e.target.value), e),
      })),
      part("frameText", el("span", { class: "vit-moment" })))));
}

function panel(part) {
  return el("section", { class: "vit-panel", "aria-label": "Small maps" },
    el("h3", {}, part("panelTitle", el("span")), part("panelNote", el("span", { class: "vit-quiet" }))),
    part("sheetBox", el("div", { class: "vit-sheet" },
      part("sheetCanvas", el("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "small maps" })),
      part("labels", el("div", { class: "vit-labels", "aria-hidden": "true" })))),
    part("about", el("p", { class: "vit-quiet vit-about" })));
}

function side(part) {
  return el("section", { class: "vit-side", "aria-label": "Answer" },
    part("classesBox", el("div", { class: "vit-block vit-predictions" }, el("h3", {}, term("answer", "What it answers")),
      part("classes", el("div", { class: "vit-classes" })),
      part("canAnswer", el("p", { class: "vit-quiet vit-can" })))),
    part("triesBox", el("div", { class: "vit-block" }, el("h3", {}, "Things to try"),
      part("tries", el("div", { class: "vit-tries" })))));
}

function settings({ set, commit }, part) {
  const field = (name, control) => el("label", { class: "vit-field" }, el("span", { class: "vit-name" }, name), control);
  return el("div", { class: "vit-settings" },
    part("basis", choice("Basis", [["joint", "All depths", "One basis for all depths: change is visible"],
      ["depth", "Each depth", "A basis of its own for every depth"]], (basis) => commit({ basis }))),
    part("scale", choice("Scale", [["map", "This map", "The brightest colour is the largest weight of this map"],
      ["layer", "Layer", "One scale for all heads of a layer"], ["all", "All", "One scale for all maps"],
      ["uniform", "× uniform", "Relative to uniform attention, logarithmic: a flat head looks flat"]],
      (scale) => commit({ scale }))),
    part("curve", choice("Brightness", [["root", "Square root", "One outlier does not eat the scale"],
      ["linear", "Linear", "Twice the weight is twice as bright"]], (curve) => commit({ curve }))),
    part("colormapBox", field("Colours", part("colormap", el("select", { onchange: (e) => commit({ colormap: e.target.value }) })))),
    part("opacityBox", field("Opacity", part("opacity", el("input", {
      type: "range", min: 0, max: 1, step: 0.05, oninput: (e) => set({ opacity: +e.target.value }),
    })))),
    part("overlayBox", el("div", { class: "vit-field" }, el("span", { class: "vit-name" }, "Overlay"), el("div", { class: "vit-toggles" },
      part("fade", toggle("Fade", "Small weights let the image through", (fade) => set({ fade }))),
      part("smooth", toggle("Smooth", "Interpolated between patches: prettier, less true", (smooth) => set({ smooth }))),
      part("links", toggle("Links", "Arcs to the patches that weigh most", (links) => set({ links })))))));
}

const help = ({ touch }) => el("dialog", { class: "vit-help", "aria-label": "Keys" }, el("h3", {}, "Keys"),
  el("dl", {}, ...KEYS.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])),
  el("p", { class: "vit-quiet" }, touch.matches ? "Tap a square: every head answers. Tap a small map to see that head large."
    : "Point at a square: every head answers. Click pins it. Point at a small map to preview that head, click to keep it."),
  el("form", { method: "dialog" }, el("button", { class: "vit-button" }, "Close")));

// ---- of a trace

export function buildTrace(viewer) {
  const { data, size } = viewer, named = JSON.stringify([data.prefix_names, data.H, Object.keys(data.tables)]);
  if (size.named !== named) buildChoices(viewer);  // else they stay: one may be open
  size.named = named;
  buildClasses(viewer);
}

function buildChoices(viewer) {
  const { data, parts, state } = viewer;
  renew(parts.chips, data.prefix_names.map((name, token) => ({ name, token })), ({ name, token }) => `${token} ${name}`, ({ name, token }) => {
    const pin = (event) => viewer.commit({ query: token, pinned: true }, event);
    const kind = { CLS: "cls", REG: "register" }[name.slice(1, 4)];
    const chip = el("button", { type: "button", class: "vit-chip", onclick: pin, ...explained(kind) },
      el("span", { class: "vit-fill" }), el("span", { class: "vit-name" }, name), el("span", { class: "vit-share" }));
    chip.addEventListener("pointerenter", (event) => !state.pinned && viewer.preview({ query: token }, event));
    chip.addEventListener("pointerleave", (event) => viewer.preview({}, event));
    return chip;
  });
  parts.head.replaceChildren(...Array.from({ length: data.H }, (_, head) => el("option", { value: head }, "Head " + head)),
    el("option", { value: "mean" }, "Mean of heads"), el("option", { value: "max" }, "Max of heads"));
  const tables = Object.keys(data.tables).filter((name) => !data.signed_colormaps.includes(name));
  parts.colormap.replaceChildren(...tables.map((name) => el("option", { value: name }, name)));
}

export function buildClasses(viewer) {
  const { data, after, parts, options, still } = viewer;
  parts.classesBox.hidden = !data.classes.length || options.predictions === false && !after;
  const rows = data.classes.slice(0, 5), now = after?.classes[0];  // the answer of now, if it was not one before
  if (now && !rows.some((c) => c.index === now.index)) rows.push(now);
  if (after) rows.sort((a, b) => after.class_values[b.index] - after.class_values[a.index]);
  const was = [...parts.classes.children].map(({ dataset }) => dataset.key), is = rows.map(({ index }) => String(index));
  const both = (some, others) => some.filter((index) => others.includes(index)).join();
  const overtaken = !still.matches && both(was, is) !== both(is, was);  // else nothing is measured, which takes a layout
  const places = overtaken ? placesOf(parts.classes) : [];  // the new rows will rest at the same ones
  const nodes = renew(parts.classes, rows, ({ index }) => index, (one) => classRow(viewer, one));
  nodes.forEach((node, rank) => showClass(viewer, node, rows[rank]));
  for (const [rank, node] of Object.entries(overtaken ? nodes : [])) {  // who has overtaken whom
    for (const way of node.getAnimations()) way.cancel();  // it goes on from where it is
    const moved = places[was.indexOf(node.dataset.key)]?.drawn - places[rank]?.rests;
    if (Math.abs(moved) > 0.5) node.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], { duration: 250, easing: "ease-out" });
  }
  buildTries(viewer);
}

// Of every row, from the top of them all: where it is drawn, perhaps on its way still, and where it rests.
function placesOf(box) {
  const { top } = box.getBoundingClientRect();
  return [...box.children].map((row) => ({ drawn: row.getBoundingClientRect().top - top, rests: row.offsetTop - box.offsetTop }));
}

// Four things to try: those of the page that the viewer lives in, and its own.
function buildTries(viewer) {
  const { parts, options, data } = viewer;
  const own = [
    options.intervene && { label: "Hide what it looks at", run: () => hideMostLookedAt(viewer) },
    ...(options.tries ?? []).filter(({ answers }) => !answers || data.classes.length),
    { label: "Play through the layers", run: () => viewer.play() },
    data.H > 1 && { label: "One head alone", run: () => viewer.commit({ mode: "attention", fuse: "one", head: 0 }) },
    { label: "Who looks at this square?", run: () => viewer.commit({ mode: "attention", direction: "column" }) },
  ].filter(Boolean).slice(0, 4);
  parts.triesBox.hidden = options.lead === false;
  renew(parts.tries, own, ({ label }) => label,
    ({ label, run, ...what }) => press(run ?? (() => viewer.tell("try", what)), label));
}

function classRow(viewer, { index }) {
  const explains = viewer.options.modes?.includes("method") ?? true;
  const explain = () => { viewer.set({ target: index }); viewer.emit("target", { target: index }); };
  return el("button", { type: "button", class: "vit-class", disabled: !explains, onclick: explain },
    el("span", { class: "vit-name" }), el("span", { class: "vit-share" }),
    el("span", { class: "vit-bar-track" }, el("span", { class: "vit-bar-fill" }), el("span", { class: "vit-bar-after" })));
}

function showClass({ data, after }, row, { index, name }) {
  const [called, share, track] = row.children, [fill, mark] = track.children;
  const before = data.class_values[index], edited = after?.class_values[index];
  const shares = data.scores !== "none";  // of a number that is no probability there is no bar
  row.classList.toggle("is-answer", index === (after ?? data).classes[0].index);
  called.textContent = name;
  share.textContent = written(before, data);
  row.title = row.disabled ? "" : `Explain “${name}”`;
  track.hidden = !shares;
  mark.hidden = !after;
  fill.style.width = 100 * before + "%";
  if (!after) return;
  const points = Math.round(1000 * (edited - before)) / 10;
  share.textContent += ` → ${written(edited, data)}`;
  mark.style.left = 100 * edited + "%";
  row.title = shares ? `${points < 0 ? "" : "+"}${number(points, 1)} points` : "";
}

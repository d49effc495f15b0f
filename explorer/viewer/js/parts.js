// The elements of a viewer, and those that depend on the trace.

import { undoAll, hideQuery, switchHead } from "./edits.js";
import { choice, el, icon, ICONS, toggle } from "./elements.js";
import { KEYS, listenToPicture } from "./input.js";
import { copyLink } from "./address.js";
import { written } from "./words.js";

export function buildParts(viewer) {
  const { root, parts } = viewer;
  const part = (name, node) => parts[name] = node;
  viewer.panes = [pane(viewer, 0), pane(viewer, 1)];
  root.classList.add("vit-viewer");
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", viewer.options.name ?? "Viewer of a Vision Transformer");
  root.replaceChildren(
    bar(viewer, part),
    part("edits", edits(viewer, part)),
    part("body", el("div", { class: "vit-body" },
      part("stage", stage(viewer, part)), part("panel", panel(part)), part("side", side(part)))),
    part("settings", settings(viewer, part)),
    part("live", el("div", { class: "vit-sr", "aria-live": "polite" })),
    part("help", help()));
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

function bar(viewer, part) {
  const { commit } = viewer;
  return el("div", { class: "vit-bar" },
    part("mode", choice("View", MODES, (mode) => commit({ mode }))),
    part("direction", choice("Direction", [["row", "Looks at"], ["column", "Is looked at by"], ["both", "Both"]],
      (direction) => commit({ direction }))),
    part("method", el("select", { "aria-label": "Method", onchange: (e) => commit({ method: e.target.value }) })),
    part("embedding", choice("Show", [["pca", "PCA colours"], ["similarity", "Similarity"], ["norms", "Norms"],
      ["positions", "Positions"], ["filters", "Patch filters"]], (embedding) => commit({ embedding }))),
    el("span", { class: "vit-spring" }),
    part("working", el("span", { class: "vit-working", role: "status" })),
    part("intervene", el("button", {
      type: "button", class: "vit-button", title: "Hide patches, switch heads off", "aria-pressed": "false",
      onclick: () => { viewer.intervening = !viewer.intervening; viewer.refresh(); },
    }, icon(ICONS.intervene), el("span", { class: "vit-text" }, "Intervene"))),
    part("copy", el("button", {
      type: "button", class: "vit-button", title: "Copy a link to this view", onclick: () => copyLink(viewer),
    }, icon(ICONS.link), part("copyText", el("span", { class: "vit-text" }, "Copy link")))),
    el("button", {
      type: "button", class: "vit-button vit-round vit-keys", title: "All keys (?)", "aria-label": "All keys",
      onclick: () => viewer.parts.help.showModal(),
    }, "?"));
}

function edits(viewer, part) {
  const { state } = viewer;
  const button = (name, text, onclick) => part(name, el("button", { type: "button", class: "vit-button", onclick }, text));
  return el("div", { class: "vit-edits" },
    part("editsSaid", el("span", { class: "vit-said", role: "status" })),
    button("editQuery", "Hide query patch", () => hideQuery(viewer)),
    button("editHead", "Switch head off", () => switchHead(viewer, state.layer, state.head)),
    button("editUndo", "Undo all", () => undoAll(viewer)),
    part("editSide", choice("Small maps", [["before", "Before"], ["after", "After"]], (matrix) => viewer.set({ matrix }))));
}

function stage(viewer, part) {
  const pickHead = (value) => viewer.commit(["mean", "max"].includes(value) ? { fuse: value } : { fuse: "one", head: +value });
  return el("section", { class: "vit-stage", "aria-label": "Image" },
    part("panes", el("div", { class: "vit-panes" }, viewer.panes[0].node, viewer.panes[1].node)),
    el("p", { class: "vit-readout" }, part("title", el("b")), " ", part("words", el("span"))),
    part("chips", el("div", { class: "vit-chips", role: "group", "aria-label": "Prefix tokens" })),
    el("div", { class: "vit-under" },
      part("gauge", el("div", { class: "vit-gauge" },
        el("div", { class: "vit-track" }, part("gaugeFill", el("div", { class: "vit-fill" }))),
        part("gaugeText", el("span")))),
      part("legend", el("div", { class: "vit-legend" },
        part("legendLow", el("span")), part("legendBar", el("canvas", { width: 256, height: 1 })),
        part("legendHigh", el("span")),
        part("legendName", el("span", { class: "vit-quiet" }))))),
    part("transport", el("div", { class: "vit-transport" },
      part("play", el("button", { type: "button", class: "vit-button vit-round vit-play", onclick: () => viewer.play() })),
      part("depth", el("input", {
        type: "range", step: 1, "aria-label": "Layer", oninput: (e) => viewer.commit({ layer: +e.target.value }, e),
      })),
      part("depthText", el("span", { class: "vit-depth" })),
      part("headBox", el("label", { class: "vit-stepper" }, el("span", { class: "vit-sr" }, "Head"),
        part("head", el("select", { onchange: (e) => pickHead(e.target.value) })))))));
}

function panel(part) {
  return el("section", { class: "vit-panel", "aria-label": "Small maps" },
    el("h3", {}, part("panelTitle", el("span")), part("panelNote", el("span", { class: "vit-quiet" }))),
    part("panelRow", el("div", { class: "vit-panel-row" },
      part("sheetBox", el("div", { class: "vit-sheet" },
        part("sheetCanvas", el("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "small maps" })),
        part("labels", el("div", { class: "vit-labels", "aria-hidden": "true" })))))),
    part("about", el("p", { class: "vit-quiet vit-about" })));
}

function side(part) {
  return el("section", { class: "vit-side", "aria-label": "Prediction and figures" },
    part("classesBox", el("div", { class: "vit-block vit-predictions" }, el("h3", {}, "Prediction"),
      part("classes", el("div", { class: "vit-classes" })))),
    el("div", { class: "vit-block" },
      el("h3", {}, "Token × token", part("matrixNote", el("span", { class: "vit-quiet" }))),
      part("matrix", el("canvas", {
        class: "vit-matrix", tabIndex: 0, role: "application", "aria-roledescription": "token matrix",
      }))),
    part("charts", el("div", { class: "vit-block vit-charts" })));
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
    field("Colours", part("colormap", el("select", { onchange: (e) => commit({ colormap: e.target.value }) }))),
    field("Opacity", part("opacity", el("input", {
      type: "range", min: 0, max: 1, step: 0.05, oninput: (e) => set({ opacity: +e.target.value }),
    }))),
    el("div", { class: "vit-field" }, el("span", { class: "vit-name" }, "Overlay"), el("div", { class: "vit-toggles" },
      part("fade", toggle("Fade", "Small weights let the image through", (fade) => set({ fade }))),
      part("smooth", toggle("Smooth", "Interpolated between patches: prettier, less true", (smooth) => set({ smooth }))),
      part("links", toggle("Links", "Arcs to the patches that weigh most", (links) => set({ links }))))));
}

const help = () => el("dialog", { class: "vit-help", "aria-label": "Keys" }, el("h3", {}, "Keys"),
  el("dl", {}, ...KEYS.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])),
  el("p", { class: "vit-quiet" }, "Hover a patch: every head answers. Click pins it. "
    + "Hover a small map to preview that head, click to keep it."),
  el("form", { method: "dialog" }, el("button", { class: "vit-button" }, "Close")));

// ---- of a trace

export function buildTrace(viewer) {
  const { data, parts, state } = viewer;
  parts.chips.replaceChildren(...data.prefix_names.map((name, token) => {
    const pin = (event) => viewer.commit({ query: token, pinned: true }, event);
    const chip = el("button", { type: "button", class: "vit-chip", onclick: pin },
      el("span", { class: "vit-fill" }), el("span", { class: "vit-name" }, name), el("span", { class: "vit-share" }));
    chip.addEventListener("pointerenter", (event) => !state.pinned && viewer.preview({ query: token }, event));
    chip.addEventListener("pointerleave", (event) => viewer.preview({}, event));
    return chip;
  }));
  parts.head.replaceChildren(...Array.from({ length: data.H }, (_, head) => el("option", { value: head }, "Head " + head)),
    el("option", { value: "mean" }, "Mean of heads"), el("option", { value: "max" }, "Max of heads"));
  const tables = Object.keys(data.tables).filter((name) => !data.signed_colormaps.includes(name));
  parts.colormap.replaceChildren(...tables.map((name) => el("option", { value: name }, name)));
  buildClasses(viewer);
}

export function buildClasses(viewer) {
  const { data, after, parts, options } = viewer;
  parts.classesBox.hidden = !data.classes.length || options.predictions === false && !after;
  const likeliest = data.classes.slice(0, 5), now = after?.classes[0];  // the answer of now, if it was not one before
  if (now && !likeliest.some((c) => c.index === now.index)) likeliest.push(now);
  parts.classes.replaceChildren(...likeliest.map((one) => classRow(viewer, one)));
}

function classRow(viewer, { index, name }) {
  const { data, after, options } = viewer, explains = options.modes?.includes("method") ?? true;
  const before = data.class_values[index], edited = after?.class_values[index];
  const shares = data.scores !== "none";  // of a number that is no probability there is no bar
  const fill = el("span", { class: "vit-bar-fill" }), track = el("span", { class: "vit-bar-track", hidden: !shares }, fill);
  const share = el("span", { class: "vit-share" }, written(before, data));
  const row = el("button", {
    type: "button", class: "vit-class", title: explains ? `Explain “${name}”` : "", "data-index": index,
    disabled: !explains,
    onclick: () => { viewer.set({ target: index }); viewer.emit("target", { target: index }); },
  }, el("span", { class: "vit-name" }, name), share, track);
  fill.style.width = 100 * before + "%";
  if (!after) return row;
  const points = Math.round(1000 * (edited - before)) / 10, mark = el("span", { class: "vit-bar-after" });
  share.textContent = `${written(before, data)} → ${written(edited, data)}`;
  mark.style.left = 100 * edited + "%";
  track.append(mark);
  row.title = shares ? `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(1)} points` : "";
  return row;
}

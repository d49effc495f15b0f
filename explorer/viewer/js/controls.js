// Controls follow the state.

import { el, icon, ICONS } from "./elements.js";
import { isFrameHidden } from "./edits.js";
import { written } from "./numbers.js";
import { answerNow, compares, depthless, directional, edited, embeddings, lowestLayer, modes, shown } from "./state.js";
import { canAnswer, lead } from "./story.js";
import { term, VIEWS } from "./terms.js";
import { frameCount, frameNow, frameSaid } from "./time.js";
import { MATRIX, PANEL } from "./words.js";

export function sync(viewer) {
  const { data, root, state, parts, options } = viewer;
  if (!data) return;
  root.dataset.mode = state.mode;
  root.classList.toggle("is-intervening", viewer.intervening);
  parts.mode.show(state.mode, modes(viewer));
  parts.direction.hidden = !directional(viewer);
  parts.direction.show(state.direction);
  parts.intervene.hidden = !options.intervene;
  parts.intervene.ariaPressed = String(viewer.intervening);
  parts.copy.hidden = !viewer.addressed || location.protocol === "file:";  // such a link leads nobody anywhere
  sayLead(viewer);
  for (const row of parts.classes.children) {
    const chosen = +row.dataset.key === shown(viewer).target;
    row.classList.toggle("is-target", chosen);
    row.ariaPressed = String(chosen);
  }
  syncMethod(viewer);
  syncEmbedding(viewer);
  syncSettings(viewer);
  syncTransport(viewer);
  syncTime(viewer);
  syncPanel(viewer);
  syncEdits(viewer);
}

function syncMethod({ state, parts, methods, touch }) {
  parts.method.hidden = state.mode !== "method";
  if (parts.method.length !== methods.length)
    parts.method.replaceChildren(...methods.map(({ name, label }) => el("option", { value: name }, label)));
  parts.method.value = state.method;
  parts.about.textContent = state.mode === "method" ? methods.find((m) => m.name === state.method)?.about ?? ""
    : touch.matches ? "Tap a square: every head answers for it. Tap a small map to see it large."
    : "Point at a square: every head answers for it. A click keeps it, on a small map, too.";
}

function syncEmbedding(viewer) {
  const { state, parts } = viewer, embedding = state.mode === "embeddings";
  parts.embedding.hidden = !embedding;
  parts.embedding.show(state.embedding, embeddings(viewer));
  parts.basis.hidden = !(embedding && state.embedding === "pca");
  parts.basis.show(state.basis);
}

function syncSettings(viewer) {
  const { state, parts } = viewer, filters = state.mode === "embeddings" && state.embedding === "filters";
  const colours = filters || state.mode === "embeddings" && state.embedding === "pca";
  const scales = { attention: null, rollout: ["map", "all", "uniform"] }[state.mode];
  const allowed = scales === undefined ? ["map", "all"] : scales;
  parts.scale.hidden = !(directional(viewer) || state.mode === "embeddings" && state.embedding === "norms");
  parts.scale.show(allowed && !allowed.includes(state.scale) ? "map" : state.scale, allowed);
  parts.curve.hidden = !(directional(viewer) || state.mode === "method") || state.scale === "uniform" && directional(viewer);
  parts.curve.show(state.curve);
  parts.colormapBox.hidden = colours;  // what changes nothing is not there
  parts.opacityBox.hidden = parts.overlayBox.hidden = filters;
  parts.fade.hidden = colours;
  parts.colormap.value = state.colormap;
  parts.opacity.value = state.opacity;
  parts.fade.show(state.fade);
  parts.smooth.show(state.smooth);
  parts.links.show(state.links);
  parts.links.hidden = !directional(viewer);
}

function syncTransport(viewer) {
  const { state, parts, data, axis } = viewer;
  parts.transport.hidden = depthless(viewer);
  if (parts.transport.hidden && axis === "depth") return viewer.play();  // nothing is left to play through
  parts.depth.min = lowestLayer(viewer);
  parts.depth.max = data.L - 1;
  parts.depth.value = state.layer;
  parts.depthText.textContent = parts.depth.ariaValueText = state.layer < 0 ? "embed" : `L${state.layer}`;
  parts.headBox.hidden = state.mode !== "attention";
  parts.head.value = state.fuse === "one" ? state.head : state.fuse;
  showPlay(parts.play, viewer.axis === "depth", "Play through depth");
}

function showPlay(button, playing, text) {
  button.replaceChildren(icon(playing ? ICONS.pause : ICONS.play));
  button.title = button.ariaLabel = playing ? "Pause" : text;
}

function syncTime(viewer) {
  const { parts } = viewer, count = frameCount(viewer), frame = frameNow(viewer);
  parts.time.hidden = count < 2;
  parts.time.classList.toggle("is-timeline", viewer.timeline.length > 0);  // other frames are shown by it alone
  if (count < 2) return viewer.axis === "time" && viewer.play("time");  // nothing is left to play through
  parts.frame.max = count - 1;
  parts.frame.value = frame;
  parts.frameText.textContent = parts.frame.ariaValueText = frameSaid(viewer, frame);
  showPlay(parts.playTime, viewer.axis === "time", "Play through time");
}

function syncPanel({ state, parts, data }) {
  parts.panelTitle.textContent = PANEL[state.mode] ?? { positions: "Every position", filters: "Patch filters" }[state.embedding]
    ?? "Through depth";
  parts.panelNote.replaceChildren(...state.mode !== "attention" ? []
    : [`${data.L} `, term("layer", "layers"), ` × ${data.H} `, term("head", "heads")]);
  parts.explain.textContent = VIEWS[state.mode] ?? VIEWS[state.embedding];
  parts.matrixNote.textContent = MATRIX[state.mode];
  parts.sheetCanvas.ariaLabel = `${parts.panelTitle.textContent}, for the current query. Arrow keys move.`;
  parts.matrix.ariaLabel = "Token by token matrix of the chosen head. Hover or click a row to choose the query.";
}

function sayLead(viewer) {
  const { parts, options } = viewer, said = lead(viewer), text = said.map(([words]) => words).join("");
  parts.lead.hidden = options.lead === false;
  parts.tabs.hidden = options.lead === false;
  if (parts.lead.textContent !== text)
    parts.lead.replaceChildren(...said.map(([words, kind]) => kind ? el("strong", {}, words) : words));
  parts.canAnswer.textContent = canAnswer(viewer);
}

function syncEdits(viewer) {
  const { state, data, parts, options } = viewer, focused = document.activeElement, held = parts.edits.contains(focused);
  parts.edits.hidden = !options.intervene || !viewer.intervening && !edited(state);
  if (parts.edits.hidden) return held && parts.intervene.focus();
  const query = state.query - data.pre, head = `L${state.layer}.H${state.head}`, said = editsInWords(viewer);
  const how = viewer.touch.matches ? "Draw over patches to hide them. Choose one head to switch it off."
    : "Paint over patches to hide them. Alt-click a small map to switch its head off.";
  const words = said || how;
  if (parts.editsSaid.textContent !== words) parts.editsSaid.textContent = words;
  parts.editQuery.textContent = state.patches.includes(query) ? "Show query patch" : "Hide query patch";
  parts.editQuery.disabled = query < 0;
  const frame = frameNow(viewer);
  for (const part of [parts.editEvery, parts.editFrame, parts.editFreeze]) part.hidden = data.t < 2;
  parts.editEvery.show(viewer.everyFrame);
  parts.editFrame.textContent = `${isFrameHidden(viewer, frame) ? "Show" : "Hide"} time ${frame}`;
  parts.editFreeze.textContent = state.frozen < 0 ? `Freeze at time ${frame}` : "Let time run";
  parts.editHead.textContent = `Switch ${head} ${state.heads.includes(`${state.layer}.${state.head}`) ? "on" : "off"}`;
  parts.editHead.disabled = state.fuse !== "one" || state.layer < 0;
  parts.editHead.title = parts.editHead.disabled ? "Choose one head among the small maps first" : "";
  parts.editUndo.disabled = !said;
  if (held && focused.disabled) parts.intervene.focus();  // what cannot be pressed again would lose it
  parts.editSide.hidden = !compares(viewer);
  parts.editSide.show(state.matrix);
}

// "2 patches hidden · L1.H2 off · now church 34 % (was springer 45 %)", or nothing.
function editsInWords(viewer) {
  const { state, data, after } = viewer;
  const frozen = state.frozen >= 0 && `it stands still at time ${state.frozen}`;
  const hidden = state.patches.length, off = state.heads.map((k) => "L" + k.replace(".", ".H")).join(", ");
  const said = [hidden && `${hidden} ${hidden > 1 ? "patches" : "patch"} hidden`, off && `${off} off`, frozen].filter(Boolean);
  const before = data.classes[0], now = answerNow(viewer);
  if (!said.length || !before || !now) return said.join(" · ");
  const change = (one, other) => `${one.name} ${written(one.value, data)} → ${written(other, data)}`;
  if (now.index !== before.index) said.push(`now it says ${now.name} ${written(now.value, data)}`);
  return [...said, change(before, after.class_values[before.index])].join(" · ");
}

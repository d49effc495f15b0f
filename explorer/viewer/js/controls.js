// Controls follow the state.

import { el, icon, ICONS } from "./elements.js";
import { compares, directional, embeddings, lowestLayer, modes, shown } from "./state.js";
import { MATRIX, PANEL, written } from "./words.js";

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
  parts.copy.hidden = !viewer.addressed;
  for (const row of parts.classes.children) {
    const chosen = +row.dataset.index === shown(viewer).target;
    row.classList.toggle("is-target", chosen);
    row.ariaPressed = String(chosen);
  }
  syncMethod(viewer);
  syncEmbedding(viewer);
  syncSettings(viewer);
  syncTransport(viewer);
  syncPanel(viewer);
  syncEdits(viewer);
}

function syncMethod({ state, parts, methods }) {
  parts.method.hidden = state.mode !== "method";
  if (parts.method.length !== methods.length)
    parts.method.replaceChildren(...methods.map(({ name, label }) => el("option", { value: name }, label)));
  parts.method.value = state.method;
  parts.about.textContent = state.mode === "method" ? methods.find((m) => m.name === state.method)?.about ?? "" : "";
}

function syncEmbedding(viewer) {
  const { state, parts } = viewer, embedding = state.mode === "embeddings";
  parts.embedding.hidden = !embedding;
  parts.embedding.show(state.embedding, embeddings(viewer));
  parts.basis.hidden = !(embedding && state.embedding === "pca");
  parts.basis.show(state.basis);
}

function syncSettings(viewer) {
  const { state, parts } = viewer;
  const scales = { attention: null, rollout: ["map", "all", "uniform"] }[state.mode];
  const allowed = scales === undefined ? ["map", "all"] : scales;
  parts.scale.hidden = !(directional(viewer) || state.mode === "embeddings" && state.embedding === "norms");
  parts.scale.show(allowed && !allowed.includes(state.scale) ? "map" : state.scale, allowed);
  parts.colormap.value = state.colormap;
  parts.opacity.value = state.opacity;
  parts.fade.show(state.fade);
  parts.smooth.show(state.smooth);
  parts.links.show(state.links);
  parts.links.hidden = !directional(viewer);
}

function syncTransport(viewer) {
  const { state, parts, data, playing } = viewer;
  const depthless = state.mode === "method"
    || state.mode === "embeddings" && ["positions", "filters"].includes(state.embedding);
  parts.transport.hidden = depthless;
  if (depthless && playing) return viewer.play();  // nothing is left to play through
  parts.depth.min = lowestLayer(viewer);
  parts.depth.max = data.L - 1;
  parts.depth.value = state.layer;
  parts.depthText.textContent = parts.depth.ariaValueText = state.layer < 0 ? "embed" : `L${state.layer}`;
  parts.headBox.hidden = state.mode !== "attention";
  parts.head.value = state.fuse === "one" ? state.head : state.fuse;
  parts.play.replaceChildren(icon(playing ? ICONS.pause : ICONS.play));
  parts.play.title = parts.play.ariaLabel = playing ? "Pause" : "Play through depth";
}

function syncPanel({ state, parts, data }) {
  parts.panelTitle.textContent = PANEL[state.mode] ?? { positions: "Every position", filters: "Patch filters" }[state.embedding]
    ?? "Through depth";
  parts.panelNote.textContent = state.mode === "attention" ? `${data.L} layers × ${data.H} heads` : "";
  parts.matrixNote.textContent = MATRIX[state.mode];
  parts.sheetCanvas.ariaLabel = `${parts.panelTitle.textContent}, for the current query. Arrow keys move.`;
  parts.matrix.ariaLabel = "Token by token matrix of the chosen head. Hover or click a row to choose the query.";
}

export function syncEdits(viewer) {
  const { state, data, parts } = viewer, held = parts.edits.contains(document.activeElement);
  parts.edits.hidden = !viewer.intervening && !state.patches.length && !state.heads.length;
  if (parts.edits.hidden) return held && parts.intervene.focus();
  const query = state.query - data.pre, head = `L${state.layer}.H${state.head}`, said = editsInWords(viewer);
  const how = viewer.touch.matches ? "Draw over patches to hide them. Choose one head to switch it off."
    : "Paint over patches to hide them. Alt-click a small map to switch its head off.";
  const words = said || how;
  if (parts.editsSaid.textContent !== words) parts.editsSaid.textContent = words;
  parts.editQuery.textContent = state.patches.includes(query) ? "Show query patch" : "Hide query patch";
  parts.editQuery.disabled = query < 0;
  parts.editHead.textContent = `Switch ${head} ${state.heads.includes(`${state.layer}.${state.head}`) ? "on" : "off"}`;
  parts.editHead.disabled = state.fuse !== "one" || state.layer < 0;
  parts.editHead.title = parts.editHead.disabled ? "Choose one head among the small maps first" : "";
  parts.editUndo.disabled = !said;
  parts.editSide.hidden = !compares(viewer);
  parts.editSide.show(state.matrix);
}

// "2 patches hidden · L1.H2 off · lion 90 % → 12 %", or nothing.
function editsInWords({ state, data, after, answered }) {
  const hidden = state.patches.length, off = state.heads.map((k) => "L" + k.replace(".", ".H")).join(", ");
  const said = [hidden && `${hidden} ${hidden > 1 ? "patches" : "patch"} hidden`, off && `${off} off`].filter(Boolean);
  const likeliest = data.classes[0], now = answered && likeliest && after?.class_values[likeliest.index];
  if (said.length && (now || now === 0)) said.push(`${likeliest.name} ${written(likeliest.value, data)} → ${written(now, data)}`);
  return said.join(" · ");
}

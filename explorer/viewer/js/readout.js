// Words beside the pixels: titles, the sentence, the value under the pointer, prefix tokens, legend.

import { later } from "./changes.js";
import { markDots } from "./charts.js";
import { OCTAVES, tableFor } from "./colour.js";
import { exactOf, needExact } from "./exact.js";
import { number, percent } from "./numbers.js";
import { ofImage } from "./state.js";
import { retell } from "./terms.js";
import { place, sentence, short } from "./words.js";

const READING_MS = 120, READ_MS = 200;

// Words change at once, but not more often than anyone can read: text costs the browser more than all our canvases.
export function say(viewer, now, views) {
  const { timers } = viewer, wait = viewer.said + READING_MS - performance.now();
  clearTimeout(timers.say);
  if (wait > 0) timers.say = setTimeout(() => { viewer.said = -Infinity; viewer.draw(); }, wait);
  else {
    viewer.said = performance.now();
    speak(viewer, now, views);
  }
}

function speak(viewer, now, views) {
  const { state, methods, panes, parts } = viewer;
  markDots(viewer, now);
  for (const view of views) view.exact = exactOf(view, now);
  if (views.some(({ exact }) => !exact)) later(viewer, "exact", READ_MS, () => readExactly(viewer, now.layer));
  const sentences = views.map((view) => sentence(state, now, view.data, view, methods));
  sentences.forEach(([name, what], index) => {
    const { label } = views[index];
    panes[index].label.textContent = label + (state.smooth && ofImage(viewer) ? ", smoothed" : "");
    panes[index].value.textContent = valueText(viewer, views[index], index);
    panes[index].canvas.ariaLabel = `${label}. ${name}: ${what}`;
  });
  const [title, words] = sentences[0];
  parts.title.textContent = title;
  parts.words.textContent = words + (/[….]$/.test(words) ? "" : ".");
  const { sheet, data } = views[0], refused = state.mode === "method" && data.refused[state.method];
  parts.readout.classList.toggle("is-refused", !!refused && !sheet.ready[methods.findIndex(({ name }) => name === state.method)]);
  sayPrefix(viewer, now, views[0]);
  showLegend(viewer, views[0]);
  if (!viewer.playing) later(viewer, "live", 500, () => { parts.live.textContent = `${title}: ${words}`; });
}

// Somebody rests on a layer: from then on its numbers are exact. They are many bytes, and wait for the pictures.
function readExactly({ data, after, state, root, draw }, layer) {
  if (state.mode !== "attention" || root.classList.contains("is-loading")) return;
  for (const trace of [data, after]) if (trace?.source.exact && !trace.exact?.has(layer))
    needExact(trace, layer).then(() => draw(), () => {});
}

function valueText({ pointer }, { sheet, cell, data, exact }, index) {
  if (pointer.pane !== index || pointer.token < data.pre || !sheet.ready[cell] || sheet.unit === "color") return "";
  const value = exact?.[pointer.token] ?? sheet.values[cell * sheet.size + sheet.first + pointer.token - data.pre];
  const at = place(pointer.token, data);
  if (sheet.unit === "share") return `${at} ${exact ? "" : "≈\u00a0"}${percent(value)}, ${short(value * data.T)} × uniform`;
  return `${at} ${sheet.unit === "cosine" ? number(value) : short(value)}`;
}

const WRITE = { share: percent, norm: short, cosine: (v) => number(v) };

function sayPrefix({ state, parts }, now, { sheet, cell, data, direction, exact }) {
  const ready = sheet.ready[cell], shares = sheet.unit === "share" && ready;
  parts.chips.hidden = !sheet.first;
  let prefix = 0;
  [...parts.chips.children].forEach((chip, token) => {
    const value = ready && sheet.first ? exact?.[token] ?? sheet.values[cell * sheet.size + token] : NaN;
    if (shares) prefix += value;
    chip.classList.toggle("is-query", token === now.query);
    chip.ariaPressed = String(token === state.query);
    chip.querySelector(".vit-share").textContent = Number.isNaN(value) ? "" : WRITE[sheet.unit](value);
    chip.querySelector(".vit-fill").style.transform = `scaleX(${shares ? Math.min(1, value) : 0})`;
  });
  const summed = shares && direction === "row" && data.pre > 0 && !(sheet.fused && now.fuse === "max");  // no share
  parts.gauge.style.visibility = summed ? "visible" : "hidden";
  if (!summed) return;
  parts.gaugeFill.style.transform = `scaleX(${Math.min(1, prefix)})`;
  parts.gaugeText.textContent = `${percent(prefix)} on ${data.pre > 1 ? "prefix tokens" : data.prefix_names[0]}`;
}

function showLegend(viewer, { sheet, cell, range, data }) {
  const { state, parts } = viewer, hidden = sheet.unit === "color" || !sheet.ready[cell];
  parts.legend.style.visibility = hidden ? "hidden" : "visible";
  if (hidden) return;
  const key = `${range.signed} ${state.colormap}`;
  if (key !== viewer.legendKey) {
    viewer.legendKey = key;
    const image = new ImageData(256, 1);
    new Uint32Array(image.data.buffer).set(tableFor(range, state, data));
    parts.legendBar.getContext("2d").putImageData(image, 0, 0);
  }
  const text = sheet.unit === "share" ? percent : short;
  const names = sheet.fused ? { map: "this map", layer: "this layer", all: "all heads", uniform: "× uniform" }
    : { map: "this map", layer: "this map", all: "all depths", uniform: "× uniform" };
  parts.legendLow.textContent = range.uniform ? "1/" + 2 ** OCTAVES : range.low === 0 ? "0" : text(range.low);
  parts.legendHigh.textContent = range.uniform ? String(2 ** OCTAVES) : sheet.unit === "cosine" ? "1" : text(range.high);
  const name = sheet.unit === "cosine" ? "cosine" : sheet.unit === "value" ? "this map"
    : sheet.unit === "norm" && state.scale !== "all" ? "this depth" : names[state.scale];
  const both = range.shared && name === "this map";
  parts.legendName.textContent = both ? "both maps" : name;
  if (range.root) parts.legendName.textContent += ", √";
  retell(parts.legendName, sheet.unit !== "share" ? "" : range.uniform ? "uniform" : range.root && state.scale === "map" && !both ? "scale" : "");
}

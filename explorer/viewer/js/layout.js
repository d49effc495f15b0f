// Where everything is: columns of the page, whole device pixels per patch, so that every edge is sharp.

import { buildCharts } from "./charts.js";
import { el } from "./elements.js";
import { pickOf, shown, twoPanes } from "./state.js";
import { extent, ONE, patchFor, stripOf } from "./strip.js";
import { frameCount } from "./time.js";
import { sheetOf } from "./weights.js";

const SIDE = 250, SPACE = 28, BETWEEN = 12;  // CSS pixels: the answer, between columns, between two pictures
const AROUND = 190, TIME = 42;  // what stands above and below the picture in the viewer itself, and below that of a clip

// Three columns: picture, answer, small maps. Two: picture, then answer over small maps. One: all under the picture.
export function layout(viewer) {
  const { root, data, parts, panes, options, size } = viewer, width = root.clientWidth;
  if (!data || !width) return;
  const dpr = size.dpr = Math.min(3, window.devicePixelRatio || 1), two = twoPanes(viewer);
  const columns = root.dataset.columns = width >= 1000 && !two ? 3 : width >= 640 ? 2 : 1;
  const below = frameCount(viewer) > 1 ? TIME : 0;
  const tallest = options.picture_height ?? Math.max(columns === 1 ? 220 : 320, Math.min(1000, firstScreen(root) - below));
  const free = width - (columns === 3 ? SIDE + 2 * SPACE : columns === 2 ? SPACE : 0);
  const height = columns === 1 ? phoneHeight(options) : tallest, most = columns === 1 ? width : (two ? 0.62 : 0.54) * free;
  const strip = size.strip = stripOf(data, two ? (most - BETWEEN) / 2 : most, height, dpr);
  const aspect = strip.across * data.w / (strip.down * data.h) * (two ? 2 : 1);
  const stage = columns === 1 ? width : Math.max(300, Math.min(tallest * aspect, most));
  layoutSheet(viewer, columns === 1 ? width : free - stage, columns);
  const paneWidth = two ? (stage - BETWEEN) / 2 : stage;
  size.patch = Math.max(1, Math.floor(patchFor(strip, data, dpr * paneWidth, dpr * height)));
  panes[1].node.hidden = !two;
  parts.panes.classList.toggle("is-two", two);
  const [across, down] = extent(strip, data, size.patch);
  for (const { canvas } of panes) sizeCanvas(canvas, across, down, dpr);
  const picture = Math.max(300, across / dpr * (two ? 2 : 1) + (two ? BETWEEN : 0));
  parts.body.style.gridTemplateColumns = ["minmax(0, 1fr)", `${picture}px minmax(0, 1fr)`,
    `${picture}px ${SIDE}px minmax(0, 1fr)`][columns - 1];
  if (viewer.more) layoutFigures(viewer, width);
  size.key = "";  // whatever was cached in pixels is stale
}

// What the first screen leaves for the picture.
const firstScreen = (root) =>
  window.innerHeight - AROUND - Math.min(0.4 * window.innerHeight, Math.max(0, root.getBoundingClientRect().top + window.scrollY));

// The picture stays on the screen while what it says is read under it.
const phoneHeight = ({ picture_height, lead }) => picture_height ?? (lead === false ? 560 : Math.max(200, 0.46 * window.innerHeight));

function layoutFigures(viewer, width) {
  const { parts, size } = viewer, side = Math.round(Math.min(width, 360) * size.dpr);
  sizeCanvas(parts.matrix, side, side, size.dpr);
  buildCharts(viewer);
}

// The small maps: as large as the room allows, in whole device pixels per patch.
function layoutSheet(viewer, room, columns) {
  const { root, data, state, methods, size, parts } = viewer, { dpr } = size, attention = state.mode === "attention";
  const sheet = sheetOf(data, state, shown(viewer), "row", methods), crowded = room < 420;
  size.gutter = attention ? (crowded ? 24 : 30) : 0;
  size.head = attention ? 18 : 0;
  size.rowHead = Math.round((sheet.label?.(0) ? 18 : 0) * dpr);
  size.spread = sheet.fused ? Math.round((crowded ? 4 : 8) * dpr) : 0;
  const least = Math.round(dpr), most = Math.round((sheet.label ? 8 : 4) * dpr);
  const inside = (room - size.gutter) * dpr - size.spread;
  const tallest = columns === 1 ? 900 : Math.max(460, Math.min(900, firstScreen(root)));
  size.tile = sheet.frames > 1 ? { ...size.strip, gap: least, head: 0 } : ONE;  // frames lie as in the large picture
  Object.assign(size, bestFit(sheet, { inside, down: (tallest - size.head) * dpr, rowHead: size.rowHead, least, tile: size.tile }));
  const blocks = { w: Math.ceil(sheet.cellWidth / size.pool), h: Math.ceil(sheet.cellHeight / size.pool) };
  [size.cellWidth, size.cellHeight] = extent(size.tile, blocks, size.unit);
  const spare = inside / size.cols - size.cellWidth;
  size.gap = Math.max(least, Math.min(most, Math.floor(spare)));
  size.stepX = size.cellWidth + size.gap;
  size.stepY = size.cellHeight + size.gap + size.rowHead;
  arrange(sheet, size);
  const wide = sheet.cols * size.stepX - size.gap + size.spread;
  sizeCanvas(parts.sheetCanvas, wide, sheet.rows * size.stepY - size.gap, dpr);
  parts.sheetBox.style.padding = `${size.head}px 0 0 ${size.gutter}px`;
  layoutLabels(viewer, sheet);
}

// -> {cols, pool, unit}: a patch is unit x unit device pixels, or, where patches are many, pool x pool patches are.
export function bestFit(sheet, { inside, down, rowHead, least, tile = ONE }) {
  const unitFor = (cols, pool) => {
    const stepX = inside / cols, stepY = down / Math.ceil(sheet.count / cols) - rowHead;
    const blocks = { w: Math.ceil(sheet.cellWidth / pool), h: Math.ceil(sheet.cellHeight / pool) };
    return patchFor(tile, blocks, stepX - least, stepY - least);
  };
  const candidates = sheet.cols ? [sheet.cols] : Array.from({ length: Math.min(8, sheet.count) }, (_, i) => i + 1);
  const whole = (cols, pool) => Math.floor(unitFor(cols, pool));
  const best = (pool) => candidates.reduce((a, b) => whole(b, pool) > whole(a, pool) ? b : a);
  let pool = 1;
  while (unitFor(best(pool), pool) < 1 && pool < 16) pool += 1;
  return { pool, cols: best(pool), unit: Math.max(1, whole(best(pool), pool)) };
}

export function arrange(sheet, size) {
  sheet.cols ??= Math.min(size.cols, sheet.count);
  sheet.rows = Math.ceil(sheet.count / sheet.cols);
  return sheet;
}

function sizeCanvas(canvas, width, height, dpr) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  canvas.style.width = width / dpr + "px";
  canvas.style.height = height / dpr + "px";
}

function layoutLabels({ state, data, parts, size }, sheet) {
  const labels = [], cell = size.cellWidth / size.dpr;
  const label = (text, left, top, width, kind) => {
    const node = el("span", { class: "vit-label-" + kind }, text);
    Object.assign(node.style, { left: left + "px", top: top + "px", width: width + "px" });
    labels.push(node);
  };
  if (state.mode === "attention") {
    const every = cell < 17 ? 2 : 1, fused = cell < 27 ? ["x̄", "↑"] : ["mean", "max"];
    for (let c = 0; c < sheet.cols; c++) {
      if (c < data.H && c % every) continue;
      const text = c < data.H ? (cell < 24 ? "" : "H") + c : fused[c - data.H];
      label(text, size.gutter + xOf(c, sheet, size) / size.dpr, 0, cell, "column");
    }
    for (let r = 0; r < sheet.rows; r++) {
      const middle = size.head + r * size.stepY / size.dpr + size.cellHeight / size.dpr / 2;
      label("L" + r, 0, middle - 8, size.gutter - 6, "row");
    }
  } else if (sheet.label) {
    for (let i = 0; i < sheet.count; i++) {
      const [x, y] = placeOf(i, sheet, size);
      label(sheet.label(i), x / size.dpr, (y - size.rowHead) / size.dpr, cell, "cell");
    }
  }
  parts.labels.replaceChildren(...labels);
}

const xOf = (column, sheet, size) => column * size.stepX + (column >= sheet.cols - sheet.fused ? size.spread : 0);

// The corner of a cell in device pixels, and the cell under a point.
export const placeOf = (cell, sheet, size) => [
  xOf(cell % sheet.cols, sheet, size), Math.floor(cell / sheet.cols) * size.stepY + size.rowHead,
];

export function cellAt(viewer, event) {
  const { data, state, methods, parts, size } = viewer, box = parts.sheetCanvas.getBoundingClientRect();
  const sheet = arrange(sheetOf(data, state, shown(viewer), "row", methods), size);
  const x = (event.clientX - box.left) * size.dpr, y = (event.clientY - box.top) * size.dpr;
  let column = Math.floor(x / size.stepX);
  if (sheet.fused && x >= xOf(sheet.cols - sheet.fused, sheet, size)) column = Math.floor((x - size.spread) / size.stepX);
  const row = Math.floor(y / size.stepY), cell = row * sheet.cols + column;
  const inside = column >= 0 && column < sheet.cols && row >= 0 && cell < sheet.count;
  return inside ? pickOf(viewer, cell, sheet) : null;
}

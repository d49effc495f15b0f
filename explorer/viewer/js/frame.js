// One frame: the views that the state asks for, each drawn large and, the first one, small for every head.

import { colorize, level, rangeOf, shareRange, tableFor } from "./colour.js";
import { colourOf } from "./elements.js";
import { arrange, placeOf } from "./layout.js";
import { paintMatrix } from "./matrix.js";
import {
  arcs, blank, cross, gridLines, hatch, invite, mapPixels, outline, overlay, paintCell, photo, ring,
} from "./paint.js";
import { say } from "./readout.js";
import { ONE } from "./strip.js";
import { nearest } from "./sources.js";
import { asksQuery, cellOf, directional, ofImage, relates, seen, shown } from "./state.js";
import { titleOf } from "./words.js";
import { fillSheet, sheetOf } from "./weights.js";

// At most one frame is waited for, however many events ask for one.
export function draw(viewer, event) {
  viewer.watch?.asked(event);
  if (viewer.scheduled) return;
  viewer.scheduled = true;
  requestAnimationFrame(() => {
    viewer.scheduled = false;
    const begun = performance.now();
    const drawn = frame(viewer);
    viewer.watch?.drawn(begun, drawn);
  });
}

function frame(viewer) {
  const { data, root, state, panes } = viewer;
  if (!data || !root.clientWidth || !viewer.size.patch) return false;  // not laid out yet: layout draws
  if (!viewer.theme.ink) readTheme(viewer);
  const now = shown(viewer), views = viewsOf(viewer, now), layer = Math.max(0, now.layer);
  for (const view of views) for (const l of wanted(view, state, layer)) viewer.need(view.data, l);
  viewer.photos.length = views.length;
  paintSheet(viewer, views[0], now);
  views.forEach((view, index) => paintPane(viewer, panes[index].canvas, view, now, index));
  paintMatrix(viewer, views[0].data, now);
  say(viewer, now, views);
  return true;
}

// The layers that the frame shows and that have not come. Whoever sends all of them unasked is asked for the one in view.
function wanted({ data, sheet }, state, layer) {
  const { layers, source } = data, related = source.related && relates(state);
  const small = source.passing && state.mode === "attention";  // small maps are asked for one by one
  const lacks = (l) => related ? !layers[l]?.rollout : !layers[l] && (l === layer || small && !sheet.ready[l * sheet.cols]);
  return state.mode === "method" ? [] : nearest(data, layer).filter(lacks);
}

// A view: {data, direction, sheet, cell, label, range}, and while the layers play the next one's: {to, toRange}.
function viewsOf(viewer, now) {
  const { after, state, methods, memories, size, mix } = viewer, oriented = directional(viewer);
  const view = (from, direction, index, label) => {
    const sheet = fillSheet(arrange(sheetOf(from, state, now, direction, methods), size), memories[index]);
    const cell = Math.min(cellOf(viewer, now, sheet), sheet.count - 1);
    const next = cell + (state.mode === "attention" ? sheet.cols : 1), to = mix && next < sheet.count && sheet.ready[next] ? next : -1;
    const rangeAt = (i) => i < 0 ? null : rangeOf(sheet, i, state, from);
    return { data: from, direction, sheet, cell, label, range: rangeAt(cell), to, toRange: rangeAt(to) };
  };
  const direction = oriented && state.direction === "column" ? "column" : "row";
  const from = seen(viewer), when = !after ? "" : from === after ? ", after the intervention" : ", before the intervention";
  const looks = { row: "Looks at", column: "Is looked at by" };
  if (oriented && state.direction === "both") {
    const views = ["row", "column"].map((each, index) => view(from, each, index, looks[each] + when));
    shareRange(views);
    return views;
  }
  return [view(from, direction, 0, (oriented ? looks[direction] : titleOf(state, now, from, methods)) + when)];
}

function paintSheet(viewer, view, now) {
  const { state, parts, root, size, theme } = viewer, { sheet, data } = view, canvas = parts.sheetCanvas;
  const { width, height } = canvas;
  if (viewer.sheetImage?.width !== width || viewer.sheetImage?.height !== height)
    viewer.sheetImage = new ImageData(width, height);
  const pixels = new Uint32Array(viewer.sheetImage.data.buffer);
  const loading = root.classList.contains("is-loading");  // then the last maps stay until theirs have come
  if (!loading) pixels.fill(0);
  const one = state.scale === "all" || state.scale === "uniform" && sheet.unit === "share";
  const shared = one && sheet.unit !== "value" ? rangeOf(sheet, 0, state, data) : null;
  const missing = [];
  for (let i = 0; i < sheet.count; i++) {
    const [x, y] = placeOf(i, sheet, size);
    if (!sheet.ready[i]) {
      if (!loading || !pixels[y * width + x]) blank(pixels, width, x, y, size);
      missing.push(i);
      continue;
    }
    const range = shared ?? rangeOf(sheet, i, state, data);
    paintCell(pixels, width, x, y, sheet, i, range, tableFor(range, state, data), size);
  }
  const context = canvas.getContext("2d");
  context.putImageData(viewer.sheetImage, 0, 0);
  if (state.mode === "method" && !data.source.closed)
    for (const i of missing) if (!data.refused[viewer.methods[i].name]) invite(context, placeOf(i, sheet, size), size, theme);
  if (state.mode === "attention") for (const key of state.heads) {
    const [layer, head] = key.split(".").map(Number);
    cross(context, placeOf(layer * sheet.cols + head, sheet, size), size, theme);
  }
  const { layer, head, fuse, query, method } = state;
  const pinned = cellOf(viewer, { ...now, layer, head, fuse, query, method }, sheet);
  const mark = (cell, color, wide) => cell >= 0 && cell < sheet.count
    && ring(context, placeOf(cell, sheet, size), size, color, wide);
  mark(pinned, theme.accent, 2);
  if (view.cell !== pinned) mark(view.cell, theme.ink, 1);
}

function paintPane(viewer, canvas, view, now, index) {
  const { state, hover, pointer, size, theme } = viewer, { sheet, cell, data } = view;
  const context = canvas.getContext("2d"), ready = sheet.ready[cell], covered = ofImage(viewer) && ready;
  const dim = covered && state.fade && sheet.unit !== "color" ? 0.35 * state.opacity : 0;
  if (size.strip !== ONE) context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(photoOf(viewer, data, index, canvas, dim), 0, 0);
  if (covered) {
    paintMap(viewer, view);
    overlay(context, size, state.opacity, state.smooth);
  } else if (ready && sheet.colors) {  // a filter, as large as the picture
    colorize(mapPixels(sheet.cellWidth, sheet.cellHeight), sheet, cell, null, null);
    context.clearRect(0, 0, canvas.width, canvas.height);
    overlay(context, { strip: ONE, patch: Math.min(canvas.width / sheet.cellWidth, canvas.height / sheet.cellHeight) }, 1, false);
  }
  if (ofImage(viewer) && size.patch / size.dpr >= 9) gridLines(context, data, size);
  if (state.links && directional(viewer) && ready)
    arcs(context, sheet.values.subarray(cell * sheet.size, cell * sheet.size + data.T), now.query, data, size, theme);
  for (const patch of state.patches)
    if (viewer.after && data === viewer.data) outline(context, patch, data, size, "#fff", false);  // still to be seen
    else hatch(context, patch, data, size, theme);
  if (now.query >= data.pre && asksQuery(viewer))
    outline(context, now.query - data.pre, data, size, theme.accent, state.pinned && hover.query === undefined);
  if (pointer.pane === index && pointer.token >= data.pre && pointer.token !== now.query)
    outline(context, pointer.token - data.pre, data, size, "#fff", false);
}

function photoOf({ photos, size, theme }, data, index, { width, height }, dim) {
  const of = [width, height, size.patch, size.dpr, dim, theme, data.w, ...data.frames], { length } = of;
  if (photos[index]?.of.length !== length || of.some((each, i) => each !== photos[index].of[i]))
    photos[index] = Object.assign(photo(data, width, height, size, dim, theme), { of });
  return photos[index];
}

// The map of a view into the pixels of `overlay`; while the layers play, on its way to that of the next one.
function paintMap({ state, mix }, { sheet, cell, range, to, toRange, data }) {
  const pixels = mapPixels(data.w, data.h, data.t);
  if (sheet.colors) {
    for (let from = 0; from < data.P; from += data.w * data.h) colorize(pixels.subarray(from), sheet, cell, range, null, from);
    return;
  }
  const table = tableFor(range, state, data);
  for (let k = 0; k < data.P; k++) {
    let t = level(sheet.values[cell * sheet.size + sheet.first + k], range);
    if (to >= 0) t += mix * (level(sheet.values[to * sheet.size + sheet.first + k], toRange) - t);
    const alpha = state.fade ? (range.signed ? Math.abs(2 * t - 1) : t) : 1;  // the rule of render.pictures.paint
    pixels[k] = table[Math.round(255 * t)] & 0xffffff | Math.round(255 * alpha) << 24;
  }
}

function readTheme(viewer) {
  const { live } = viewer.parts, names = ["ink", "soft", "paper", "accent"];
  viewer.theme = Object.fromEntries(names.map((name) => [name, colourOf(live, "--vit-" + name)]));
}

/* What is drawn on a canvas, each by a function of its own that knows no viewer.

   A picture with a map on it: `photo(data, W, H, size, ...)` is the picture, or every frame of a clip, in the size of
   the stage, a little darker where nothing is looked at; `overlay(context, data, size, ...)` lays colours over it.
   patch: CSS pixels times dpr that a patch is wide; strip: how frames lie, see strip.js. */

import { colorize } from "./colour.js";
import { corner, frameCorner } from "./strip.js";
import { frameName } from "./words.js";
import { largest } from "./weights.js";

const LINKS = 6;  // arcs to the patches that weigh most

export function photo(data, W, H, { strip, patch, dpr }, dim, theme) {
  const canvas = new OffscreenCanvas(W, H), context = canvas.getContext("2d"), { frames, w, h } = data;
  context.imageSmoothingQuality = "high";
  context.font = `${12 * dpr}px system-ui, sans-serif`;
  frames.forEach((frame, i) => {
    const [x, y] = frameCorner(strip, data, i, patch);
    context.drawImage(frame, x, y, w * patch, h * patch);
    context.fillStyle = `rgba(0, 0, 0, ${dim})`;
    context.fillRect(x, y, w * patch, h * patch);
    context.fillStyle = theme.soft;
    if (strip.head) context.fillText(frameName(i, data), x, y - 5 * dpr, w * patch);
  });
  return canvas;
}

const small = { canvas: null, image: null };  // one map, one pixel per patch, frames under each other

// The pixels (0xAABBGGRR) that a map of h x w patches in each frame is written to, before `overlay` lays them over.
export function mapPixels(w, h, frames = 1) {
  if (!small.canvas || small.canvas.width !== w || small.canvas.height !== h || small.image.height !== h * frames) {
    small.canvas = new OffscreenCanvas(w, h);
    small.image = new ImageData(w, h * frames);
  }
  return new Uint32Array(small.image.data.buffer);
}

export function overlay(context, { strip, patch }, opacity, smooth) {
  const pen = small.canvas.getContext("2d"), { width: w, height: h } = small.canvas, frames = small.image.height / h;
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  for (let i = 0; i < frames; i++) {  // each by itself, or smoothing would mix neighbours in time
    pen.putImageData(small.image, 0, -i * h, 0, i * h, w, h);
    context.drawImage(small.canvas, ...frameCorner(strip, { w, h }, i, patch), w * patch, h * patch);
  }
  context.globalAlpha = 1;
}

export function gridLines(context, data, { strip, patch }) {
  const { w, h, frames } = data;
  context.fillStyle = "rgba(255, 255, 255, 0.16)";
  for (let i = 0; i < frames.length; i++) {
    const [x, y] = frameCorner(strip, data, i, patch);
    for (let c = 1; c < w; c++) context.fillRect(x + c * patch, y, 1, h * patch);
    for (let r = 1; r < h; r++) context.fillRect(x, y + r * patch, w * patch, 1);
  }
}

export function outline(context, index, data, { strip, patch, dpr }, color, strong) {
  const [x, y] = corner(strip, data, index, patch);
  const wide = Math.max(1, Math.round((strong ? 2.5 : 1.5) * dpr)), edge = Math.round(dpr);
  for (const [more, ink] of [[4 * edge, "#000"], [2 * edge, "#fff"], [0, color]]) {  // seen on any ground
    context.lineWidth = wide + more;
    context.strokeStyle = ink;
    context.strokeRect(x, y, patch, patch);
  }
}

export function hatch(context, index, data, { strip, patch, dpr }, theme) {
  const [x, y] = corner(strip, data, index, patch);
  context.fillStyle = theme.paper;
  context.fillRect(x, y, patch, patch);
  context.strokeStyle = theme.soft;
  context.lineWidth = Math.max(1, dpr);
  context.beginPath();
  context.moveTo(x, y + patch);
  context.lineTo(x + patch, y);
  context.stroke();
}

// Arcs from the query to the patches that weigh most. values: (T,).
export function arcs(context, values, query, data, { strip, patch, dpr }, theme) {
  const centre = (token) => corner(strip, data, token - data.pre, patch).map((at) => at + patch / 2);
  const from = query >= data.pre ? centre(query) : [patch * 0.5 + query * patch, context.canvas.height];
  const best = largest(values, data.pre, data.T, LINKS).filter((token) => token !== query && values[token] > 0);
  const top = values[best[0]] || 1;
  context.lineCap = "round";
  for (const token of best.reverse()) {
    const to = centre(token), dx = to[0] - from[0], dy = to[1] - from[1];
    const bend = [(from[0] + to[0]) / 2 + dy * 0.22, (from[1] + to[1]) / 2 - dx * 0.22];
    const width = (0.8 + 1.8 * values[token] / top) * dpr;
    for (const [extra, color] of [[1.6 * dpr, "rgba(0, 0, 0, 0.4)"], [0, "#fff"]]) {
      context.strokeStyle = context.fillStyle = color;
      context.lineWidth = width + extra;
      context.beginPath();
      context.moveTo(...from);
      context.quadraticCurveTo(...bend, ...to);
      context.stroke();
      context.beginPath();
      context.arc(...to, 1.5 * dpr + width / 2 + extra / 2, 0, 7);
      context.fill();
    }
  }
  if (query < data.pre) badge(context, data.prefix_names[query], from, dpr, theme);
}

// A token that has no place on the picture stands at its lower edge.
function badge(context, text, [x, y], dpr, theme) {
  context.font = `600 ${12 * dpr}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + 10 * dpr, high = 20 * dpr;
  context.fillStyle = theme.accent;
  context.fillRect(Math.max(0, x - wide / 2), y - high, wide, high);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, Math.max(0, x - wide / 2) + 5 * dpr, y - high / 2);
}

// ---- small maps, straight into the pixels of their canvas. size: see layout.js

// Each patch becomes unit x unit device pixels.
export function stamp(pixels, stride, x, y, colors, width, height, unit) {
  for (let row = 0; row < height; row++) {
    const from = (y + row * unit) * stride + x;
    let at = from;
    for (let column = 0; column < width; column++) {
      const color = colors[row * width + column];
      for (let k = 0; k < unit; k++) pixels[at++] = color;
    }
    for (let k = 1; k < unit; k++) pixels.copyWithin(from + k * stride, from, from + width * unit);
  }
}

// Where there are more patches than pixels, a pixel shows the largest weight of its block (of colours: one of them).
const block = { first: 0, values: new Float32Array(0) };
export function pooled(sheet, i, pool, start = 0) {
  const from = i * sheet.size + sheet.first + start;
  const across = Math.ceil(sheet.cellWidth / pool), down = Math.ceil(sheet.cellHeight / pool);
  if (block.values.length < across * down) block.values = new Float32Array(across * down);
  block.values.fill(-Infinity, 0, across * down);
  for (let y = 0; y < sheet.cellHeight; y++) for (let x = 0; x < sheet.cellWidth; x++) {
    const at = Math.floor(y / pool) * across + Math.floor(x / pool), value = sheet.values[from + y * sheet.cellWidth + x];
    if (value > block.values[at]) block.values[at] = value;
  }
  return Object.assign(block, { cellWidth: across, cellHeight: down, size: across * down });
}

let colors = new Uint32Array(0);
export function paintCell(pixels, stride, x, y, sheet, i, range, table, { pool, unit, tile }) {
  const { cellWidth, cellHeight, frames = 1 } = sheet, count = cellWidth * cellHeight;
  if (colors.length < count) colors = new Uint32Array(count);
  const w = Math.ceil(cellWidth / pool), h = Math.ceil(cellHeight / pool);
  for (let frame = 0; frame < frames; frame++) {
    const block = pool > 1 && !sheet.colors ? pooled(sheet, i, pool, frame * count) : null;
    colorize(colors, block ?? sheet, block ? 0 : i, range, table, block ? 0 : frame * count);
    if (pool > 1 && sheet.colors) thin(colors, cellWidth, w, h, pool);
    const [right, down] = frameCorner(tile, { w, h }, frame, unit);
    stamp(pixels, stride, x + right, y + down, colors, w, h, unit);
  }
}

function thin(colors, stride, width, height, pool) {  // in place: what is read lies behind what is written
  for (let row = 0; row < height; row++) for (let column = 0; column < width; column++)
    colors[row * width + column] = colors[row * pool * stride + column * pool];
}

export function blank(pixels, stride, x, y, { cellWidth, cellHeight }) {
  for (let row = 0, at = y * stride + x; row < cellHeight; row++, at += stride)
    pixels.fill(0x18808080, at, at + cellWidth);
}

// On a small map that is not there yet, and comes when it is chosen.
export function invite(context, [x, y], { cellWidth, cellHeight, dpr }, theme) {
  context.font = `${12 * dpr}px system-ui, sans-serif`;
  context.fillStyle = theme.soft;
  context.textAlign = "center";
  context.textBaseline = "middle";
  if (cellWidth > 60 * dpr) context.fillText("compute", x + cellWidth / 2, y + cellHeight / 2);
  context.textAlign = "start";
}

export function ring(context, [x, y], { cellWidth, cellHeight, dpr }, color, width) {
  const wide = Math.round(width * dpr);
  context.lineWidth = wide;
  context.strokeStyle = color;
  context.strokeRect(x + wide / 2, y + wide / 2, cellWidth - wide, cellHeight - wide);
}

export function cross(context, [x, y], { cellWidth, cellHeight, dpr }, theme) {
  context.globalAlpha = 0.75;
  context.fillStyle = theme.paper;
  context.fillRect(x, y, cellWidth, cellHeight);
  context.globalAlpha = 1;
  context.strokeStyle = theme.ink;
  context.lineWidth = Math.max(1, dpr);
  context.beginPath();
  context.moveTo(x + 3, y + 3);
  context.lineTo(x + cellWidth - 3, y + cellHeight - 3);
  context.stroke();
}

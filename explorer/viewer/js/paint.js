/* What is drawn on a canvas, each by a function of its own that knows no viewer.

   A picture with a map on it: `photo(image, W, H, dim)` is the picture in the size of the stage, a little darker where
   nothing is looked at; `overlay(context, colors, w, h, look)` lays colours of h x w patches over it.
   patch: CSS pixels times dpr that a patch is wide. */

import { colorize } from "./colour.js";
import { largest } from "./weights.js";

const LINKS = 6;  // arcs to the patches that weigh most

export function photo(image, W, H, dim) {
  const canvas = new OffscreenCanvas(W, H), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, W, H);
  context.fillStyle = `rgba(0, 0, 0, ${dim})`;
  context.fillRect(0, 0, W, H);
  return canvas;
}

const small = { canvas: null, image: null };  // one map, one pixel per patch

// The pixels (0xAABBGGRR) that a map of h x w patches is written to, before `overlay` lays them over the picture.
export function mapPixels(w, h) {
  if (!small.canvas || small.canvas.width !== w || small.canvas.height !== h) {
    small.canvas = new OffscreenCanvas(w, h);
    small.image = new ImageData(w, h);
  }
  return new Uint32Array(small.image.data.buffer);
}

export function overlay(context, opacity, smooth) {
  small.canvas.getContext("2d").putImageData(small.image, 0, 0);
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  context.drawImage(small.canvas, 0, 0, context.canvas.width, context.canvas.height);
  context.globalAlpha = 1;
}

export function gridLines(context, { w, h }, patch) {
  const { width, height } = context.canvas;
  context.fillStyle = "rgba(255, 255, 255, 0.16)";
  for (let c = 1; c < w; c++) context.fillRect(c * patch, 0, 1, height);
  for (let r = 1; r < h; r++) context.fillRect(0, r * patch, width, 1);
}

export function outline(context, index, { w }, { patch, dpr }, color, strong) {
  const x = index % w * patch, y = Math.floor(index / w) * patch;
  const wide = Math.max(1, Math.round((strong ? 2.5 : 1.5) * dpr)), edge = Math.round(dpr);
  for (const [more, ink] of [[4 * edge, "#000"], [2 * edge, "#fff"], [0, color]]) {  // seen on any ground
    context.lineWidth = wide + more;
    context.strokeStyle = ink;
    context.strokeRect(x, y, patch, patch);
  }
}

export function hatch(context, index, { w }, { patch, dpr }, theme) {
  const x = index % w * patch, y = Math.floor(index / w) * patch;
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
export function arcs(context, values, query, data, { patch, dpr }, theme) {
  const centre = (token) => [(token - data.pre) % data.w, Math.floor((token - data.pre) / data.w)].map((v) => (v + 0.5) * patch);
  const from = query >= data.pre ? centre(query) : [patch * 0.5 + query * patch, data.h * patch];
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
export function pooled(sheet, i, pool) {
  const from = i * sheet.size + sheet.first;
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
export function paintCell(pixels, stride, x, y, sheet, i, range, table, { pool, unit }) {
  const { cellWidth, cellHeight } = sheet;
  if (colors.length < cellWidth * cellHeight) colors = new Uint32Array(cellWidth * cellHeight);
  const block = pool > 1 && !sheet.colors ? pooled(sheet, i, pool) : null;
  colorize(colors, block ?? sheet, block ? 0 : i, range, table);
  const width = Math.ceil(cellWidth / pool), height = Math.ceil(cellHeight / pool);
  if (pool > 1 && sheet.colors) thin(colors, cellWidth, width, height, pool);
  stamp(pixels, stride, x, y, colors, width, height, unit);
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

// What every drawing of the lesson is made of: numbers as text, as colours, as ribbons and as bars.

import { el } from "../../viewer/js/elements.js";
import { number } from "../../viewer/js/numbers.js";

export const text = (value, digits = 3) => number(value, digits);

// What stands in front of a result, given as it is printed: "=" where the printed numbers make just that, else "≈".
export const equals = (made, result) => (Math.abs(made - valueOf(result)) < 1e-9 ? "=" : "≈");
export const valueOf = (words) => Number.parseFloat(words.replace("−", "-"));  // of "<\u00a00.01\u00a0%": no number

export function tableOf(hex) {  // 256 colours as CSS
  return Array.from({ length: 256 }, (_, i) => "#" + hex.slice(6 * i, 6 * i + 6));
}

export function topOf(values) {
  let top = 0;
  for (const value of values) top = Math.max(top, Math.abs(value));
  return top || 1;
}

// The place of a value in a table of 256 colours, and how much of its picture it covers: the rule of all maps.
export function place(value, top, signed) {
  const share = signed ? (value / top + 1) / 2 : value / top;
  return Math.floor(Math.min(Math.max(share, 0), 1) * 255 + 0.5);
}
export const strength = (value, top, signed) => Math.min(Math.max(signed ? Math.abs(value / top) : value / top, 0), 1);

export function softmax(scores, temperature) {
  const top = Math.max(...scores);
  const parts = scores.map((score) => Math.exp((score - top) / temperature));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((part) => part / sum);
}

export const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

export function canvas(width, height, label) {  // in CSS pixels, drawn as sharp as the screen is
  const scale = Math.min(globalThis.devicePixelRatio || 1, 3);
  const node = el("canvas", { class: "les-canvas", role: "img", "aria-label": label });
  node.width = Math.round(width * scale);
  node.height = Math.round(height * scale);
  node.style.aspectRatio = `${width} / ${height}`;
  node.style.maxWidth = width + "px";
  const context = node.getContext("2d");
  context.scale(scale, scale);
  return { node, context, at: (event) => {  // where the pointer is, in the units of the drawing
    const box = node.getBoundingClientRect();
    return [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
  } };
}

// Where a pointer is over a drawing: a mouse that moves, or a finger that taps.
export function pointed(node, act) {
  for (const name of ["pointermove", "pointerdown"]) node.addEventListener(name, act);
}

// A long vector as coloured cells, all of them; the one under the pointer is read out.
export function ribbon(view, name, values, { top = topOf(values), marked = -1, faint = 1, signed = true } = {}) {
  const perRow = values.length <= 96 ? values.length : Math.min(128, Math.ceil(values.length / Math.ceil(values.length / 128)));
  const rows = Math.ceil(values.length / perRow), cell = 640 / perRow;
  const height = rows > 1 ? Math.max(7, Math.min(16, 96 / rows)) : 22;
  const { node, context, at } = canvas(640, rows * height, `${name}: ${values.length} numbers from ${text(Math.min(...values))} to ${text(Math.max(...values))}`);
  context.globalAlpha = faint;
  values.forEach((value, i) => {
    context.fillStyle = view.tables[signed ? "signed" : "map"][place(value, top, signed)];
    context.fillRect(i % perRow * cell, Math.floor(i / perRow) * height, cell + 0.4, height - (rows > 1 ? 1 : 0));
  });
  context.globalAlpha = 1;
  if (marked >= 0) outline(context, marked % perRow * cell, Math.floor(marked / perRow) * height, Math.max(cell, 4), height);
  const read = el("output", { class: "les-read" }, summary(values));
  pointed(node, (event) => {
    const [x, y] = at(event);
    const i = Math.min(perRow - 1, Math.floor(x / cell)) + perRow * Math.min(rows - 1, Math.floor(y / height));
    if (i >= 0 && i < values.length) read.textContent = `number ${i}: ${text(values[i], 4)}`;
  });
  node.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") read.textContent = summary(values); });  // a finger is lifted
  return el("div", { class: "les-ribbon" }, el("span", { class: "les-name" }, name), node, read);
}

const summary = (values) => `${values.slice(0, 3).map((value) => text(value)).join(", ")}${values.length > 3 ? ` … ${values.length} numbers` : ""}`;

export function outline(context, x, y, width, height, dashed = false) {  // black on white: seen on any ground, in any print
  context.setLineDash(dashed ? [4, 3] : []);
  context.lineWidth = 4;
  context.strokeStyle = "#fff";
  context.strokeRect(x + 1, y + 1, width - 2, height - 2);
  context.lineWidth = 2;
  context.strokeStyle = "#000";
  context.strokeRect(x + 1, y + 1, width - 2, height - 2);
  context.setLineDash([]);
}

// Named bars with their numbers: [{name, share, words}, ...].
export function bars(rows, { onhover } = {}) {
  const top = Math.max(...rows.map((row) => Math.abs(row.share)), 1e-12);
  return el("div", { class: "les-bars" }, ...rows.map((row) => {
    const bar = el("i", { class: "les-bar" });
    bar.style.width = 100 * Math.abs(row.share) / (row.of ?? top) + "%";
    const node = el("div", { class: "les-row" + (row.strong ? " is-strong" : "") },
      el("span", { class: "les-name" }, row.name), el("span", { class: "les-track" }, bar), el("span", { class: "les-number" }, row.words));
    if (onhover) {
      node.tabIndex = 0;
      for (const name of ["pointerenter", "focus"]) node.addEventListener(name, () => onhover(row));
    }
    return node;
  }));
}

// All tokens as columns; the pointer says which.
export function columns(view, values, { signed = false, label, chosen, onhover }) {
  const width = 640, height = 96, step = width / values.length, top = topOf(values);
  const { node, context, at } = canvas(width, height, label), { ink, bar } = view;
  const base = signed ? height / 2 : height;
  values.forEach((value, i) => {
    const tall = value / top * (signed ? height / 2 : height);
    context.fillStyle = i === chosen ? ink : bar;
    context.fillRect(i * step, base - Math.max(tall, 0), Math.max(step - 0.4, 0.6), Math.max(Math.abs(tall), 0.5));
  });
  if (onhover) pointed(node, (event) => onhover(Math.max(0, Math.min(values.length - 1, Math.floor(at(event)[0] / step)))));
  return node;
}

export const line = (...parts) => el("p", { class: "les-live" }, ...parts);

export function slider(label, { min, max, step, value }, onmove) {
  const said = el("output", { class: "les-number" });
  const input = el("input", { type: "range", min, max, step, "aria-label": label });
  input.value = value;
  const move = () => { said.textContent = onmove(+input.value) ?? ""; };
  input.addEventListener("input", move);
  const node = el("label", { class: "les-slider" }, el("span", { class: "les-name" }, label), input, said);
  node.set = (to) => { input.value = to; move(); };
  move();
  return node;
}

// A button that moves a slider through all its places, each for some milliseconds, until it is moved by hand.
export function player(hand, places, each) {
  let timer = 0;
  const stop = () => clearInterval(timer);
  hand.addEventListener("input", stop);
  const node = el("button", { type: "button", class: "les-button", onclick: () => {
    let at = 0;
    stop();
    timer = setInterval(() => (hand.isConnected && at < places ? hand.set(at++) : stop()), each);
  } }, "Play");
  return { node, stop };
}

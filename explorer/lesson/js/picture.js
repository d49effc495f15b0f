// The picture on the left: squares are chosen, guessed and pointed at on it, and maps lie over it.

import { el } from "../../viewer/js/elements.js";
import { canvas, outline, place, strength, text, topOf } from "./tools.js";

const SIDE = 448;  // of the drawing, in its own units

export class Picture {
  constructor(view) {
    Object.assign(this, { view, layer: {}, at: 0, photo: null, board: null });
    this.frame = el("div", { class: "les-frame" });
    this.said = el("output", { class: "les-read", "aria-live": "polite" });
    this.node = el("div", { class: "les-picture" }, this.frame, this.said);
  }

  show(layer) {  // {map, signed, top, words, hidden, guesses, right}
    this.layer = layer;
    this.draw();
  }

  fresh() {
    const { view } = this, [h, w] = view.lesson.grid, [height, width] = view.lesson.size;
    const scale = SIDE / Math.max(height, width);
    const board = this.board = canvas(width * scale, height * scale, "");
    board.cell = [width * scale / w, height * scale / h];
    board.made = view.lesson.size + " " + view.lesson.grid;
    const { node } = board, [cw, ch] = board.cell;
    node.tabIndex = 0;
    node.setAttribute("role", "application");
    node.classList.add("is-picture");
    const square = (event) => {
      const [x, y] = board.at(event), column = Math.floor(x / cw), row = Math.floor(y / ch);
      return column >= 0 && column < w && row >= 0 && row < h ? row * w + column : -1;
    };
    node.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") this.point(square(event)); });
    node.addEventListener("pointerleave", () => this.point(-1));
    node.addEventListener("click", (event) => {
      if (square(event) < 0) return;
      this.at = square(event);
      view.press(this.at);
    });
    node.addEventListener("keydown", (event) => this.key(event));
    this.frame.replaceChildren(node);
  }

  key(event) {
    const [h, w] = this.view.lesson.grid;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -w, ArrowDown: w }[event.key];
    const press = event.key === "Enter" || event.key === " ";
    if (by === undefined && !press) return;
    event.preventDefault();
    event.stopPropagation();
    if (press) return this.view.press(this.at);
    this.at = Math.max(0, Math.min(h * w - 1, this.at + by));
    this.point(this.at);
  }

  point(at) {
    if (this.view.state.hover === at) return;
    this.view.state.hover = at;
    this.draw();
    this.view.pointed(at);
  }

  draw() {
    const { view } = this, { lesson, state } = view;
    if (this.board?.made !== lesson.size + " " + lesson.grid) this.fresh();
    const { context, cell: [cw, ch], node } = this.board, [h, w] = lesson.grid;
    const { map, words, guesses = [], right = [] } = this.layer;
    context.clearRect(0, 0, w * cw, h * ch);
    lay(view, context, cw, ch, this.layer);
    lines(context, cw, ch, h, w);
    const box = (i, dashed) => outline(context, i % w * cw, Math.floor(i / w) * ch, cw, ch, dashed);
    for (const i of right) tick(context, i % w * cw + cw / 2, Math.floor(i / w) * ch + ch / 2, Math.min(cw, ch) / 5);
    for (const i of guesses) box(i, true);
    box(lesson.choice.patch);
    if (state.hover >= 0) box(state.hover, true);
    const at = state.hover >= 0 ? state.hover : lesson.choice.patch;
    const value = map ? `: ${words ? words(map[at]) : text(map[at])}` : "";
    this.said.textContent = `${state.hover >= 0 ? "square" : "our square"} (${Math.floor(at / w)}, ${at % w})${value}`;
    node.setAttribute("aria-label",
      `The picture as ${h} by ${w} squares; ${this.said.textContent}. Arrow keys move, Enter chooses.`);
  }
}

// Photo, map and squares taken away.
function lay(view, context, cw, ch, { map, signed = false, top, hidden = [] }) {
  const [h, w] = view.lesson.grid;
  context.imageSmoothingEnabled = false;
  if (view.picture.photo) context.drawImage(view.picture.photo, 0, 0, w * cw, h * ch);
  const most = map && (top ?? topOf(map)), table = view.tables[signed ? "signed" : "map"];
  map?.forEach((value, i) => {
    context.globalAlpha = view.opacity * strength(value, most, signed);
    context.fillStyle = table[place(value, most, signed)];
    context.fillRect(i % w * cw, Math.floor(i / w) * ch, cw + 0.3, ch + 0.3);
  });
  context.globalAlpha = 1;
  context.fillStyle = "#808080";
  for (const i of hidden) context.fillRect(i % w * cw, Math.floor(i / w) * ch, cw + 0.3, ch + 0.3);
}

function lines(context, cw, ch, h, w) {
  context.fillStyle = "rgba(128, 128, 128, 0.45)";
  for (let i = 1; i < w; i++) context.fillRect(i * cw - 0.25, 0, 0.5, h * ch);
  for (let i = 1; i < h; i++) context.fillRect(0, i * ch - 0.25, w * cw, 0.5);
}

function tick(context, x, y, r) {
  for (const [color, width] of [["#fff", 4], ["#000", 2]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x - r, y);
    context.lineTo(x - r / 4, y + r);
    context.lineTo(x + r, y - r);
    context.stroke();
  }
}

// A small picture, as the large one draws it.
export function small(view, layer, label, { side = 120, onpick } = {}) {
  const [h, w] = view.lesson.grid, [height, width] = view.lesson.size, scale = side / Math.max(height, width);
  const { node, context } = canvas(width * scale, height * scale, label);
  lay(view, context, width * scale / w, height * scale / h, layer);
  return onpick ? el("button", { type: "button", class: "les-small", onclick: onpick, "aria-label": label }, node) : node;
}

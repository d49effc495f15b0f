// The picture on the left: squares are chosen, guessed and pointed at on it, and maps lie over it. Of a clip it is a
// sheet of frames, one for each time.

import { el } from "../../viewer/js/elements.js";
import { partOf, sheetOf } from "./sheet.js";
import { canvas, outline, place, strength, text, topOf } from "./tools.js";

const SIDE = 448;  // of the drawing, in its own units
const NAME = [14, 26];  // height of a time's number in them: on a wide screen; where the drawing is small or far away

export class Picture {
  constructor(view) {
    Object.assign(this, { view, layer: {}, at: 0, photo: null, board: null });
    this.frame = el("div", { class: "les-frame" });
    this.said = el("output", { class: "les-read", "aria-live": "polite" });
    this.node = el("div", { class: "les-picture" }, this.frame, this.said);
  }

  show(layer) {  // {map, signed, top, words, hidden, guesses, right, frames: of a clip, in the order that they are shown}
    this.layer = layer;
    this.draw();
  }

  get head() {
    const { presenter } = this.view, coarse = presenter?.on || matchMedia("(max-width: 820px)").matches;
    return NAME[coarse ? 1 : 0];
  }

  get made() { return [this.view.lesson.size, this.view.lesson.grid, this.head].join(" "); }

  fresh() {
    const { view } = this, sheet = sheetOf(view.lesson, SIDE, { head: 1.4 * this.head });
    this.board = { ...canvas(sheet.width, sheet.height, ""), sheet, made: this.made };
    const { node, at } = this.board, square = (event) => sheet.at(...at(event));
    node.tabIndex = 0;
    node.setAttribute("role", "application");
    node.classList.add("is-picture");
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
    const { w, h, t } = this.board.sheet, each = t > 1 ? h * w : undefined;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -w, ArrowDown: w, ",": each && -each, ".": each }[event.key];
    const press = event.key === "Enter" || event.key === " ";
    if (by === undefined && !press) return;
    event.preventDefault();
    event.stopPropagation();
    if (press) return this.view.press(this.at);
    const to = this.at + by;
    if (Math.abs(by) === each && (to < 0 || to >= this.view.count)) return;  // there is no time before, or after
    this.at = Math.max(0, Math.min(this.view.count - 1, to));
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
    if (this.board?.made !== this.made) this.fresh();
    const { context, sheet, node } = this.board, { cw, ch, h, w, t } = sheet;
    const { map, words, guesses = [], right = [] } = this.layer;
    context.clearRect(0, 0, sheet.width, sheet.height);
    lay(view, context, sheet, this.layer);
    lines(context, sheet);
    if (t > 1) names(view, context, sheet, this.head);
    const box = (i, dashed) => outline(context, ...sheet.square(i), cw, ch, dashed);
    for (const i of right) tick(context, sheet.square(i)[0] + cw / 2, sheet.square(i)[1] + ch / 2, Math.min(cw, ch) / 5);
    for (const i of guesses) box(i, true);
    box(lesson.choice.patch);
    if (state.hover >= 0) box(state.hover, true);
    const at = state.hover >= 0 ? state.hover : lesson.choice.patch;
    const value = map ? `: ${words ? words(map[at]) : text(map[at])}` : "";
    this.said.textContent = `${state.hover >= 0 ? "square" : "our square"} ${view.placeOf(at)}${value}`;
    const what = t > 1 ? `The clip as ${h} by ${w} squares at each of ${t} times` : `The picture as ${h} by ${w} squares`;
    const more = t > 1 ? ", comma and full stop change the time" : "";
    node.setAttribute("aria-label", `${what}; ${this.said.textContent}. Arrow keys move${more}, Enter chooses.`);
  }
}

// Photo, map and squares taken away.
function lay(view, context, sheet, { map, signed = false, top, hidden = [], frames }) {
  const { t, h, w, cw, ch } = sheet, { lesson, picture: { photo } } = view, each = lesson.frames / t;
  context.imageSmoothingEnabled = false;
  for (let time = 0; time < t && photo; time++) {
    const frame = frames ? frames[time * each] : time * each;  // the first of those that belong to this time
    context.drawImage(photo, ...partOf(photo, lesson.frames, frame), ...sheet.frame(time), w * cw, h * ch);
  }
  const most = map && (top ?? topOf(map)), table = view.tables[signed ? "signed" : "map"];
  map?.forEach((value, i) => {
    context.globalAlpha = view.opacity * strength(value, most, signed);
    context.fillStyle = table[place(value, most, signed)];
    context.fillRect(...sheet.square(i), cw + 0.3, ch + 0.3);
  });
  context.globalAlpha = 1;
  context.fillStyle = "#808080";
  for (const i of hidden) context.fillRect(...sheet.square(i), cw + 0.3, ch + 0.3);
}

function lines(context, { t, h, w, cw, ch, frame }) {
  context.fillStyle = "rgba(128, 128, 128, 0.45)";
  for (let time = 0; time < t; time++) {
    const [x, y] = frame(time);
    for (let i = 1; i < w; i++) context.fillRect(x + i * cw - 0.25, y, 0.5, h * ch);
    for (let i = 1; i < h; i++) context.fillRect(x, y + i * ch - 0.25, w * cw, 0.5);
  }
}

function names(view, context, { t, frame }, size) {
  const { color, fontFamily } = getComputedStyle(view.node);
  Object.assign(context, { fillStyle: color, font: `${size}px ${fontFamily}`, textBaseline: "alphabetic" });
  for (let time = 0; time < t; time++) context.fillText(`time ${time}`, frame(time)[0], frame(time)[1] - 0.3 * size);
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
  const sheet = sheetOf(view.lesson, side), { node, context } = canvas(sheet.width, sheet.height, label);
  lay(view, context, sheet, layer);
  return onpick ? el("button", { type: "button", class: "les-small", onclick: onpick, "aria-label": label }, node) : node;
}

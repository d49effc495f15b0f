// Drawings of the first chapter: from the picture to the tokens that the first layer reads.

import { el } from "../../viewer/js/elements.js";
import { sheetOf, squareOf } from "./sheet.js";
import { bars, canvas, dot, equals, line, outline, place, pointed, ribbon, slider, text, topOf, valueOf } from "./tools.js";

export function cut(box, _, view) {
  const { lesson, picture: { photo } } = view, sheet = sheetOf(lesson, 240), each = sheet.h * sheet.w, { frames } = lesson;
  const [wide, tall] = [sheet.width * 1.5, sheet.height * 1.5], what = view.isClip ? "clip" : "picture";
  const apart = canvas(wide, tall, `The ${what}, cut into ${view.count} squares`);
  const tiles = (gap) => {
    const { context } = apart;
    context.clearRect(0, 0, wide, tall);
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < view.count && photo; i++) {
      const time = Math.floor(i / each), [left, top] = sheet.frame(time), [x, y] = sheet.square(i);
      const to = [left * 1.5 + (x - left) * (1 + gap / 2), top * 1.5 + (y - top) * (1 + gap / 2), sheet.cw, sheet.ch];
      context.drawImage(photo, ...squareOf(photo, lesson, time * frames / sheet.t, i % each), ...to);
      if (i === lesson.choice.patch) outline(context, ...to);
    }
  };
  const pull = slider("Pull apart", { min: 0, max: 1, step: 0.05, value: 0.6 }, (gap) => { tiles(gap); });
  box.append(apart.node, pull, line(`In a row, square ${lesson.choice.patch} of ${view.count}${view.isClip ? ", one time after the other" : ""}:`), row(view));
  if (view.isClip) box.append(line(`Our place in all ${frames} frames; ${frames / sheet.t > 1 ? `${frames / sheet.t} frames are one square` : "each is a square"}:`), ourPlace(view));
}

function row(view) {  // our square among its neighbours in the row
  const { lesson, picture: { photo }, count } = view, [h, w] = lesson.grid.slice(-2), each = lesson.frames * h * w / count;
  const shown = Math.min(21, count), first = Math.max(0, Math.min(count - shown, lesson.choice.patch - (shown >> 1)));
  const cell = 640 / shown, { node, context } = canvas(640, cell, "The squares in a row");
  context.imageSmoothingEnabled = false;
  for (let i = first; i < first + shown && photo; i++) {
    const at = (i - first) * cell, frame = Math.floor(i / (h * w)) * each;
    context.drawImage(photo, ...squareOf(photo, lesson, frame, i % (h * w)), at + 1, 1, cell - 2, cell - 2);
    if (i === lesson.choice.patch) outline(context, at, 0, cell, cell);
  }
  return node;
}

function ourPlace(view) {  // our place in every frame of a clip; frames of one square stand together
  const { lesson, picture: { photo } } = view, [t, h, w] = lesson.grid, { frames, choice: { patch } } = lesson, each = frames / t;
  const cell = Math.min(56, 640 / (frames + t / 4)), gap = cell / 4;
  const { node, context } = canvas(frames * cell + (t - 1) * gap, cell, `Our place in ${frames} frames`);
  context.imageSmoothingEnabled = false;
  for (let frame = 0; frame < frames && photo; frame++) {
    const at = frame * cell + Math.floor(frame / each) * gap;
    context.drawImage(photo, ...squareOf(photo, lesson, frame, patch % (h * w)), at + 1, 1, cell - 2, cell - 2);
  }
  const ours = Math.floor(patch / (h * w));
  outline(context, ours * (each * cell + gap), 0, each * cell, cell);
  return node;
}

export function flatten(box, data, view) {
  const said = el("output", { class: "les-live" }, "Point at a pixel."), deep = data.colours.length;
  const list = el("div"), colours = ["red", "green", "blue"];
  const show = (frame) => (y, x, side) => {
    const [r, g, b] = data.colours[frame][y][x], at = (frame * side + y) * side + x, plane = deep * side * side;
    const values = [0, 1, 2].map((c) => text(data.values[c * plane + at]));
    const where = deep > 1 ? ` of frame ${frame}` : "";
    said.textContent = `pixel (${y}, ${x})${where}: red ${r}, green ${g}, blue ${b} → ${values.join(", ")}`;
    list.replaceChildren(ribbon(view, "the list", data.values, { marked: at }));
  };
  data.colours.forEach((square, frame) => box.append(el("div", { class: "les-side" },
    pixels(square, deep > 1 ? `Our square, frame ${frame}` : "Our square", (pixel) => `rgb(${pixel})`, show(frame)),
    ...colours.map((name, c) => pixels(square, name, (pixel) => `rgb(${[0, 1, 2].map((i) => (i === c ? pixel[c] : 0))})`, show(frame))))));
  box.append(said, list);
  list.append(ribbon(view, "the list", data.values));
}

function pixels(colours, name, color, onhover) {
  const side = colours.length, size = 140, cell = size / side;
  const { node, context, at } = canvas(size, size, `${name}, ${side} by ${side} pixels`);
  colours.forEach((line, y) => line.forEach((pixel, x) => {
    context.fillStyle = color(pixel);
    context.fillRect(x * cell, y * cell, cell + 0.3, cell + 0.3);
  }));
  if (onhover) pointed(node, (event) => {
    const [x, y] = at(event).map((value) => Math.max(0, Math.min(side - 1, Math.floor(value / cell))));
    onhover(y, x, side);
  });
  return el("figure", { class: "les-figure" }, node, el("figcaption", {}, name));
}

export function embed(box, data, view) {
  const seen = el("div"), deep = view.lesson.frames / view.times;
  const choose = (filter) => {
    const products = filter.weights.map((weight, i) => weight * data.values[i]), sum = text(dot(filter.weights, data.values));
    const bias = text(filter.bias), result = text(filter.result);
    seen.replaceChildren(
      el("div", { class: "les-side" }, grey(view, filter.weights, "pattern", deep), el("b", {}, "·"),
        grey(view, data.values, "our square", deep), el("b", {}, "="), grey(view, products, "products", deep)),
      line(`products added: ${sum}; + bias ${bias} ${equals(valueOf(sum) + valueOf(bias), result)} `, el("b", {}, result), `, number ${filter.index} of ${data.output.length}`),
      ribbon(view, "all results", data.output, { marked: filter.index }));
  };
  box.append(line("The patterns that answer our square most strongly:"), patterns(data.filters, deep, choose), seen);
}

// Patterns to choose from; the first is chosen.
export function patterns(filters, deep, choose) {
  const row = el("div", { class: "les-side", role: "group", "aria-label": "The patterns that answer most strongly" });
  const press = (filter, button) => {
    for (const other of row.children) other.setAttribute("aria-pressed", other === button);
    choose(filter);
  };
  for (const filter of filters) {
    const button = el("button", { type: "button", class: "les-small", "aria-label": `pattern ${filter.index}` }, rgb(filter.weights, deep));
    for (const name of ["click", "pointerenter"]) button.addEventListener(name, () => press(filter, button));
    row.append(button);
  }
  press(filters[0], row.firstChild);
  return row;
}

// The frames of a pattern or a square side by side: values (3, deep, side, side); paint(frame, i): of each pixel.
function framesOf(count, deep, size, label, paint) {
  const plane = count / deep, side = Math.round(Math.sqrt(plane)), gap = deep > 1 ? 3 : 0, cell = size / side;
  const { node, context } = canvas(deep * (size + gap) - gap, size, label);
  for (let frame = 0; frame < deep; frame++) {
    for (let i = 0; i < plane; i++) {
      context.fillStyle = paint(frame * plane + i);
      context.fillRect(frame * (size + gap) + i % side * cell, Math.floor(i / side) * cell, cell + 0.3, cell + 0.3);
    }
  }
  return node;
}

function rgb(weights, deep) {  // a pattern as a picture: grey is zero
  const count = weights.length / 3, top = topOf(weights);
  const channel = (value) => Math.round(127.5 + 127.5 * value / top);
  return framesOf(count, deep, deep > 1 ? 36 : 56, "", (i) => `rgb(${[0, 1, 2].map((c) => channel(weights[c * count + i]))})`);
}

export function grey(view, values, name, deep, top) {  // signed values over the square, the three colours added
  const count = values.length / 3, added = Array.from({ length: count }, (_, i) => values[i] + values[count + i] + values[2 * count + i]);
  const most = top ?? topOf(added);
  const node = framesOf(count, deep, deep > 1 ? 96 : 128, name, (i) => view.tables.signed[place(added[i], most, true)]);
  return el("figure", { class: "les-figure" }, node, el("figcaption", {}, name));
}

export function position(box, data, view) {
  box.append(ribbon(view, "embedding", data.embed));
  if (data.position) box.append(el("b", { class: "les-sign" }, "+"), ribbon(view, "position", data.position));
  else box.append(line("This model adds no numbers here."));
  box.append(el("b", { class: "les-sign" }, data.normed ? "= (then normalised)" : "="), ribbon(view, "first token", data.sum));
  if (data.turned) box.append(ribbon(view, "our query", data.query), el("b", { class: "les-sign" }, "↻ turned by our place"), ribbon(view, "turned query", data.turned));
  if (data.distance) view.picture.show({ map: data.distance, signed: true, words: (value) => `adds ${text(value, 2)} to the score` });
  else if (data.alike) view.picture.show({ map: data.alike, signed: true, top: 1, words: (value) => `place alike ${text(value, 2)}` });
  if (view.isClip && data.alike) box.append(line("How alike our place is to itself at every time:"), bars(view.throughTime().map((patch, time) => (
    { name: view.timeName(time), share: data.alike[patch], of: 1, words: text(data.alike[patch], 2) }))));
  if (data.bag?.with && view.revealed()) box.append(line("With places: ", el("b", {}, `${data.bag.with.name}, ${data.bag.with.written}`),
    ". Without: ", el("b", {}, `${data.bag.without.name}, ${data.bag.without.written}`), "."));
}

export function prefix(box, data, view) {
  const names = [...data.names, "our square"];
  box.append(el("ol", { class: "les-tokens", "aria-label": "The row of tokens" },
    ...names.map((name) => el("li", { class: name === "our square" ? "" : "is-extra" }, name)), el("li", {}, `… ${data.tokens} in all`)));
  for (const [i, start] of data.start.slice(0, 3).entries()) box.append(ribbon(view, `${data.names[i]} begins as`, start));
  if (!data.names.length) view.picture.show({ map: Array(view.count).fill(1), top: 4 });
}

// Drawings of the first chapter: from the picture to the tokens that the first layer reads.

import { el } from "../../viewer/js/elements.js";
import { canvas, dot, line, outline, place, ribbon, slider, text, topOf } from "./tools.js";

export function cut(box, data, view) {
  const { rows, columns, count } = data, side = 300, [height, width] = view.lesson.size;
  const scale = side / Math.max(height, width), cw = width * scale / columns, ch = height * scale / rows;
  const apart = canvas(width * scale * 1.5, height * scale * 1.5, `The picture, cut into ${count} squares`);
  const tiles = (gap) => {
    const { context } = apart, photo = view.picture.photo;
    context.clearRect(0, 0, width * scale * 1.5, height * scale * 1.5);
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < count && photo; i++) {
      const row = Math.floor(i / columns), column = i % columns, x = column * cw * (1 + gap / 2), y = row * ch * (1 + gap / 2);
      context.drawImage(photo, column * photo.width / columns, row * photo.height / rows, photo.width / columns, photo.height / rows, x, y, cw, ch);
      if (i === view.lesson.choice.patch) outline(context, x, y, cw, ch);
    }
  };
  const pull = slider("Pull apart", { min: 0, max: 1, step: 0.05, value: 0.6 }, (gap) => { tiles(gap); });
  box.append(apart.node, pull, line(`In a row, square ${view.lesson.choice.patch} of ${count}:`), row(view, data));
}

function row(view, { rows, columns, count }) {  // our square among its neighbours in the row
  const shown = Math.min(21, count), first = Math.max(0, Math.min(count - shown, view.lesson.choice.patch - (shown >> 1)));
  const cell = 640 / shown, { node, context } = canvas(640, cell, "The squares in a row");
  const photo = view.picture.photo;
  context.imageSmoothingEnabled = false;
  for (let i = first; i < first + shown && photo; i++) {
    const at = (i - first) * cell, r = Math.floor(i / columns), c = i % columns;
    context.drawImage(photo, c * photo.width / columns, r * photo.height / rows, photo.width / columns, photo.height / rows, at + 1, 1, cell - 2, cell - 2);
    if (i === view.lesson.choice.patch) outline(context, at, 0, cell, cell);
  }
  return node;
}

export function flatten(box, data, view) {
  const said = el("output", { class: "les-live" }, "Point at a pixel.");
  const list = el("div");
  const show = (y, x, side) => {
    const [r, g, b] = data.colours[y][x], at = y * side + x, plane = side * side;
    const values = [0, 1, 2].map((c) => text(data.values[c * plane + at]));
    said.textContent = `pixel (${y}, ${x}): red ${r}, green ${g}, blue ${b} → ${values.join(", ")}`;
    list.replaceChildren(ribbon(view, "the list", data.values, { marked: at }));
  };
  const colours = ["red", "green", "blue"];
  box.append(el("div", { class: "les-side" },
    pixels(data.colours, "Our square", (pixel) => `rgb(${pixel})`, show),
    ...colours.map((name, c) => pixels(data.colours, name,
      (pixel) => `rgb(${[0, 1, 2].map((i) => (i === c ? pixel[c] : 0))})`, show))), said, list);
  list.append(ribbon(view, "the list", data.values));
}

function pixels(colours, name, color, onhover) {
  const side = colours.length, size = 140, cell = size / side;
  const { node, context, at } = canvas(size, size, `${name}, ${side} by ${side} pixels`);
  colours.forEach((line, y) => line.forEach((pixel, x) => {
    context.fillStyle = color(pixel);
    context.fillRect(x * cell, y * cell, cell + 0.3, cell + 0.3);
  }));
  if (onhover) node.addEventListener("pointermove", (event) => {
    const [x, y] = at(event).map((value) => Math.max(0, Math.min(side - 1, Math.floor(value / cell))));
    onhover(y, x, side);
  });
  return el("figure", { class: "les-figure" }, node, el("figcaption", {}, name));
}

export function embed(box, data, view) {
  const side = Math.round(Math.sqrt(data.values.length / 3)), plane = side * side, seen = el("div");
  const sum3 = (list) => Array.from({ length: plane }, (_, i) => list[i] + list[plane + i] + list[2 * plane + i]);
  const choose = (filter, button) => {
    const products = filter.weights.map((weight, i) => weight * data.values[i]), sum = dot(filter.weights, data.values);
    for (const other of buttons.children) other.setAttribute("aria-pressed", other === button);
    seen.replaceChildren(
      el("div", { class: "les-side" }, grey(view, sum3(filter.weights), "pattern"), el("b", {}, "·"),
        grey(view, sum3(data.values), "our square"), el("b", {}, "="), grey(view, sum3(products), "products")),
      line(`products added: ${text(sum)}; + bias ${text(filter.bias)} = `, el("b", {}, text(filter.result)), `, number ${filter.index} of ${data.output.length}`),
      ribbon(view, "all results", data.output, { marked: filter.index }));
  };
  const buttons = el("div", { class: "les-side", role: "group", "aria-label": "The patterns that answer most strongly" });
  for (const filter of data.filters) {
    const button = el("button", { type: "button", class: "les-small", "aria-label": `pattern ${filter.index}` }, rgb(filter.weights));
    button.addEventListener("click", () => choose(filter, button));
    button.addEventListener("pointerenter", () => choose(filter, button));
    buttons.append(button);
  }
  box.append(line("The patterns that answer our square most strongly:"), buttons, seen);
  choose(data.filters[0], buttons.firstChild);
}

function rgb(weights) {  // a pattern as a picture: grey is zero
  const plane = weights.length / 3, side = Math.round(Math.sqrt(plane)), top = topOf(weights);
  const { node, context } = canvas(56, 56, "");
  for (let i = 0; i < plane; i++) {
    const color = [0, 1, 2].map((c) => Math.round(127.5 + 127.5 * weights[c * plane + i] / top));
    context.fillStyle = `rgb(${color})`;
    context.fillRect(i % side * 56 / side, Math.floor(i / side) * 56 / side, 56 / side + 0.3, 56 / side + 0.3);
  }
  return node;
}

function grey(view, values, name) {  // signed values over the square, the three colours added
  const side = Math.round(Math.sqrt(values.length)), size = 128, top = topOf(values);
  const { node, context } = canvas(size, size, name);
  values.forEach((value, i) => {
    context.fillStyle = view.tables.signed[place(value, top, true)];
    context.fillRect(i % side * size / side, Math.floor(i / side) * size / side, size / side + 0.3, size / side + 0.3);
  });
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
  if (data.bag?.with && view.revealed()) box.append(line("With places: ", el("b", {}, `${data.bag.with.name}, ${data.bag.with.written}`),
    ". Without: ", el("b", {}, `${data.bag.without.name}, ${data.bag.without.written}`), "."));
}

export function prefix(box, data, view) {
  const names = [...data.names, "our square"];
  box.append(el("ol", { class: "les-tokens", "aria-label": "The row of tokens" },
    ...names.map((name) => el("li", { class: name === "our square" ? "" : "is-extra" }, name)), el("li", {}, `… ${data.tokens} in all`)));
  for (const [i, start] of data.start.slice(0, 3).entries()) box.append(ribbon(view, `${data.names[i]} begins as`, start));
  if (!data.names.length) view.picture.show({ map: Array(view.lesson.grid[0] * view.lesson.grid[1]).fill(1), top: 4 });
}

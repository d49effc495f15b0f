/* The words that came along with a model: which of them are asked for, and a map of where each one is. */

import { text } from "../../lesson/js/tools.js";
import { el } from "../../viewer/js/elements.js";
import { opaque } from "./client.js";
import { strongest } from "./vectors.js";

const SHOWN = 24;  // maps; of more words those that are likeliest
const FEW = 6;  // words that are ticked one by one

export class WordPage {
  /* ticks, where: elements; choose: hears the chosen words, by their places in the table. */
  constructor(ticks, where, choose) {
    Object.assign(this, { ticks, where, choose, model: null, told: null });
    this.list = el("div", { class: "site-ticks" });
    this.said = el("p", { class: "site-quiet", role: "status" });
    const all = (checked) => () => {
      for (const box of this.boxes) box.checked = checked;
      this.ticked();
    };
    ticks.replaceChildren(
      el("fieldset", {}, el("legend", {}, "Words to tell apart"), this.list,
        ...[["All", true], ["None", false]].map(([name, checked]) => el("button", { type: "button", onclick: all(checked) }, name))),
      this.said);
  }

  get boxes() { return [...this.list.querySelectorAll("input")]; }

  ticked() {
    const chosen = this.boxes.flatMap((box, k) => (box.checked ? [k] : []));
    this.say(chosen.length);
    if (chosen.length) this.choose(this.told = chosen);
  }

  say(count) {
    this.said.textContent = count
      ? "These are the words that came along with this page: to read new ones, the model would need its text half, which stayed where the page was made."
      : "Tick a word: what is shown is still the answer about the last ones.";
  }

  /* Which words of this model are chosen; a model with classes of its own has none. */
  mark(model, chosen) {
    this.ticks.hidden = this.where.hidden = !chosen;
    if (!chosen) return;
    if (this.model !== model) {
      this.model = model;
      this.list.replaceChildren(...model.described.classNames.map((name) => el("label", {},
        el("input", { type: "checkbox", onchange: () => this.ticked() }), el("span", {}, name))));
      for (const button of this.ticks.querySelectorAll("button")) button.hidden = this.boxes.length < FEW;
    }
    if (chosen === this.told) return;  // the ticks may be further by now
    this.boxes.forEach((box, k) => { box.checked = chosen.includes(k); });
    this.say(chosen.length);
  }

  /* found: whereOf(...) of words.js. look: {pixels, size}. data: the viewer's, of the same look. */
  show({ names, maps, control, alike }, { pixels, size }, data, { h, w, words }) {
    const picture = pictureOf(pixels, size), [table] = Object.values(data.tables);
    const figure = (map, name, ...told) => {
      const low = Math.min(...map), high = Math.max(...map), best = strongest(map, 1)[0];
      const canvas = painted(picture, map.map((value) => (value - low) / (high - low || 1)), { h, w }, table);
      canvas.setAttribute("aria-label", `${name}: strongest at the patch in row ${Math.floor(best / w)}, column ${best % w}`);
      return el("figure", {}, canvas, el("figcaption", {}, el("b", {}, name), ...told,
        el("span", {}, `cosine ${text(low)} to ${text(high)}`)));
    };
    const verdict = (like) => el("span", {}, `${like < 0 ? "" : "+"}${text(like, 2)} like the control: ${like > words.alike ? "hardly depends on the word" : "depends on the word"}`);
    const order = strongest(data.class_values, SHOWN).sort((a, b) => a - b);
    this.where.replaceChildren(
      el("h2", {}, "Where each word is"),
      el("p", { class: "site-quiet" }, "How well each patch fits the word (the cosine of their vectors), from its lowest to its highest value in this "
        + `picture. The last map is a control, of “${words.control}”, which means nothing: a map like it would be there for any word.`
        + (order.length < names.length ? ` Of ${names.length} words the ${SHOWN} likeliest.` : "")),
      el("div", { class: "site-maps" }, ...order.map((k) => figure(maps[k], names[k], verdict(alike[k]))),
        figure(control, "control", el("span", {}, `“${words.control}”`))));
  }
}

function pictureOf(pixels, [height, width]) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(opaque(pixels, [height, width]), 0, 0);
  return canvas;
}

/* A map (P,), from 0 to 1, over its picture: the colour says how much, and covers as much. */
function painted(picture, map, { h, w }, table) {
  const over = new OffscreenCanvas(w, h), image = new ImageData(w, h), colours = new Uint32Array(image.data.buffer);
  map.forEach((value, p) => { colours[p] = (table[Math.round(255 * value)] & 0xffffff | Math.round(229 * value) << 24) >>> 0; });
  over.getContext("2d").putImageData(image, 0, 0);
  const canvas = el("canvas", { width: picture.width, height: picture.height, role: "img" }), context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(over, 0, 0, picture.width, picture.height);
  return canvas;
}

// Drawings of one layer: query, key, value; scores, shares, the mix; all heads; the MLP; and of all layers.

import { el } from "../../viewer/js/elements.js";
import { percent } from "../../viewer/js/numbers.js";
import { small } from "./picture.js";
import { bars, canvas, columns, dot, equals, line, player, pointed, ribbon, slider, softmax as share, text, topOf, valueOf } from "./tools.js";

const patches = (view, values) => values.slice(view.lesson.prefix.length);
const tokenOf = (view, patch) => patch + view.lesson.prefix.length;

export function ask(box, data, view) {
  box.append(ribbon(view, "our token", data.before),
    ...(data.normed ? [el("b", { class: "les-sign" }, "↓ normalised"), ribbon(view, "what is read", data.reads)] : []),
    el("b", { class: "les-sign" }, "↓ three views of it"),
    ribbon(view, "query: looks for", data.q), ribbon(view, "key: offers", data.k), ribbon(view, "value: passes on", data.v));
}

export function scores(box, data, view) {
  const work = el("div"), all = el("div");
  const show = (token) => {
    const at = data.tokens.indexOf(token), score = data.scores[token], name = view.nameOf(token);
    const products = at < 0 ? null : data.keys[at].map((value, i) => value * data.q[i]);
    const apart = data.distance?.[token] ?? 0, sum = text(at < 0 ? (score - apart) * data.root : dot(data.q, data.keys[at]));
    const root = text(data.root, data.root % 1 ? 3 : 0), result = text(score);
    const top = topOf([...data.q, ...(at < 0 ? [] : data.keys[at])]);
    work.replaceChildren(ribbon(view, "our query", data.q, { top }),
      ...(products ? [ribbon(view, `key of ${name}`, data.keys[at], { top }), ribbon(view, "products", products)]
        : [line(`The key of ${name} is not in this file; its score is.`)]),
      line(`added up: ${sum}; / ${root}${data.distance ? `; + ${text(apart)} for the distance` : ""} ${
        equals(valueOf(sum) / valueOf(root) + valueOf(text(apart)), result)} `, el("b", {}, result), ` for ${name}`));
    all.replaceChildren(columns(view, data.scores, {
      signed: true, chosen: token, label: `The scores of all ${data.scores.length} tokens`, onhover: show }));
  };
  box.append(work, line("All scores, one column each:"), all);
  show(data.best);
  view.picture.show({ map: patches(view, data.scores), signed: true, words: (value) => `score ${text(value)}` });
  return { pointed: (patch) => show(patch < 0 ? data.best : tokenOf(view, patch)) };
}

export function softmax(box, data, view) {
  const work = el("div");
  const show = (temperature) => {
    const shares = temperature === 1 ? data.shares : share(data.scores, temperature);
    const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]).slice(0, 5);
    const most = Math.max(...data.scores), largest = text((data.scores[order[0]] - most) / temperature, 2);
    const all = text(data.scores.reduce((sum, score) => sum + Math.exp((score - most) / temperature), 0), 2);
    const first = percent(shares[order[0]]);
    work.replaceChildren(bars(order.map((token) => ({
      name: view.nameOf(token), share: shares[token], of: 1, strong: token === order[0],
      words: `${text(data.scores[token], 2)} → ${percent(shares[token])}`,
    }))), line(`exp(${largest}) / ${all} ${equals(100 * Math.exp(valueOf(largest)) / valueOf(all), first)} `, el("b", {}, first),
      "  (the largest score is taken off first: the shares stay the same)"),
    columns(view, shares, { label: "The shares of all tokens", chosen: order[0] }));
    if (view.revealed()) view.picture.show({ ...view.guessed(), map: patches(view, shares), words: percent });
    return temperature === 1 ? "1, as the model does it" : text(temperature, 1);
  };
  if (!view.revealed()) {
    view.picture.show(view.guessed());
    return { };
  }
  box.append(slider("Temperature: low sharpens, high flattens", { min: 0.2, max: 4, step: 0.1, value: 1 }, show), work);
}

export function mix(box, data, view) {
  const top = topOf(data.values.flat());
  data.best.forEach((token, i) => box.append(el("div", { class: "les-part" }, el("b", { class: "les-number" }, percent(data.shares[i]), " ×"),
    ribbon(view, view.nameOf(token), data.values[i], { top, faint: 0.25 + 0.75 * data.shares[i] / data.shares[0] }))));
  box.append(line(`and the others with ${percent(data.rest)} together`), el("b", { class: "les-sign" }, "="), ribbon(view, "z, this head's result", data.z));
  const map = Array(view.count).fill(0);
  data.best.forEach((token, i) => { if (token >= view.lesson.prefix.length) map[token - view.lesson.prefix.length] = data.shares[i]; });
  view.picture.show({ map, words: (share) => (share ? percent(share) : "among the others") });  // those that are not listed
}

export function heads(box, data, view) {
  const row = el("div", { class: "les-side", role: "group", "aria-label": "The heads of this layer" });
  data.shares.forEach((shares, head) => {
    const node = small(view, { map: patches(view, shares) }, `head ${head}`, { side: data.shares.length > 6 ? 84 : 128, onpick: () => view.choose({ head }) });
    node.setAttribute("aria-pressed", head === view.lesson.choice.head);
    node.append(el("span", {}, `H${head}`));
    row.append(node);
  });
  const top = topOf([...data.before, ...data.after]);
  box.append(row, el("b", { class: "les-sign" }, `↓ ${view.lesson.heads > 1 ? "side by side, " : ""}through one matrix`), ribbon(view, "before", data.before, { top }),
    el("b", { class: "les-sign" }, "+"), ribbon(view, "change", data.added, { top }), made(data), ribbon(view, "after", data.after, { top }));
  view.picture.show({ map: patches(view, data.shares[view.lesson.choice.head]), words: percent });
}

const made = ({ normed }, before = "") => el("b", { class: "les-sign" }, `${before}=${normed ? " (then normalised)" : ""}`);

export function mlp(box, data, view) {
  const across = Math.ceil(Math.sqrt(data.hidden.length * 4)), down = Math.ceil(data.hidden.length / across), cell = 640 / across;
  const { node, context, at } = canvas(640, down * cell, `${data.active} of ${data.count} detectors respond`);
  const top = topOf(data.hidden), read = el("output", { class: "les-read" }, `${data.active} of ${data.count} are above zero`);
  data.hidden.forEach((value, i) => {
    context.fillStyle = view.tables.map[Math.floor(255 * Math.max(value, 0) / top)];
    context.beginPath();
    context.arc((i % across + 0.5) * cell, (Math.floor(i / across) + 0.5) * cell, 0.42 * cell, 0, 7);
    context.fill();
  });
  pointed(node, (event) => {
    const [x, y] = at(event), i = Math.floor(y / cell) * across + Math.floor(x / cell);
    if (i >= 0 && i < data.count) read.textContent = `detector ${i}: ${text(data.hidden[i])}`;
  });
  const most = topOf([...data.before, ...data.after]);
  box.append(node, read, ribbon(view, "before", data.before, { top: most }), made(data, "+ what they write "),
    ribbon(view, "after", data.after, { top: most }));
}

export function layers(box, data, view) {
  const last = data.alike.length - 1, row = el("div", { class: "les-side" });
  const name = (depth) => (depth ? `after layer ${depth - 1}` : "before layer 0");
  const move = (depth) => {
    view.picture.show({ map: data.alike[depth], signed: true, top: 1, words: (value) => `alike ${text(value, 2)}` });
    [...row.children].forEach((node, i) => node.setAttribute("aria-pressed", i === depth));
    return `${name(depth)}: length ${text(data.length[depth], 2)}`;
  };
  data.alike.forEach((map, depth) => {
    const node = small(view, { map, signed: true, top: 1 }, name(depth), { side: last > 8 ? 72 : 96, onpick: () => {
      play.stop();
      hand.set(depth);
    } });
    node.append(el("span", {}, depth ? `L${depth - 1}` : "start"));
    row.append(node);
  });
  const hand = slider("Depth", { min: 0, max: last, step: 1, value: last }, move);
  const play = player(hand, data.alike.length, 500);
  box.append(play.node, hand, row);
}

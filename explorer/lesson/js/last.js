// Drawings of the last chapter: what is read, the answer, and whether it is why.

import { el, svg } from "../../viewer/js/elements.js";
import { percent } from "../../viewer/js/numbers.js";
import { small } from "./picture.js";
import { bars, dot, equals, line, player, ribbon, slider, text, valueOf } from "./tools.js";

// What the squares of the last steps are chosen by: attention, or, for an average of all, what changed in the last layer.
const LOOKED = { hide: "what it looked at", those: "it looked at most", first: "looked at first", its: "Its squares", why: "attention" };
const CHANGED = { hide: "what changed most", those: "that changed most", first: "changed most", its: "What changed most", why: "how much a square changed" };
const wordsOf = ({ lesson }) => (lesson.steps.find((step) => step.name === "read").data.kind === "mean" ? CHANGED : LOOKED);

export function read(box, data, view) {
  view.picture.show({ map: data.map, words: data.kind === "mean" ? (value) => `changed by ${text(value)}` : percent });
  if (data.kind === "mean") {
    const share = percent(data.share);
    box.append(line(`Every square counts the same: 1 / ${view.count} ${equals(100 / view.count, share)} `, el("b", {}, share), "."),
      small(view, { map: data.map }, "How much the last layer changed every square", { side: 240 }));
    return;
  }
  if (data.q) box.append(ribbon(view, `query of ${data.name}`, data.q));
  box.append(line(data.kind === "pool" ? "The learned query looks most at (mean of its heads):" : `Head ${view.lesson.choice.head} of the last layer looks most at:`),
    bars(data.best.map((token, i) => ({ name: view.nameOf(token), share: data.shares[token], of: 1, strong: !i,
      words: (data.scores ? `${text(data.scores[token], 2)} → ` : "") + percent(data.shares[token]) }))));
  if (data.kind === "pool") return;
  box.append(line(`${data.name} keeps `, el("b", {}, percent(data.alone)), ` for itself.${view.lesson.heads > 1 ? " On the picture: the mean of all heads." : ""}`),
    ribbon(view, `${data.name}: what it collects`, data.z));
}

export function answer(box, data, view) {
  if (!data.classes.length) return box.append(ribbon(view, "the features", data.features));
  if (!view.revealed()) return view.picture.show({});
  const rows = el("div"), first = data.classes[0], { hide, those } = wordsOf(view);
  const show = (i) => {
    const now = data.without[i], share = now.hidden.length / view.count;
    rows.replaceChildren(bars(data.classes.map((known, k) => ({ name: known.name, share: now.values[k], of: data.kind === "none" ? undefined : 1,
      strong: known.name === now.says, words: i ? `${now.written[k]} (was ${known.written})` : known.written }))),
    line(now.hidden.length ? `Without the ${now.hidden.length} squares ${those}, it says ` : "It says ", el("b", {}, now.says), "."));
    view.picture.show({ hidden: now.hidden });
    return now.hidden.length ? percent(share) : "nothing hidden";
  };
  box.append(slider(`Hide ${hide}`, { min: 0, max: data.without.length - 1, step: 1, value: 0 }, show), rows);
  if (!data.vector) return;
  const products = data.vector.map((value, i) => value * data.weights[i]), sum = text(dot(data.vector, data.weights));
  const bias = text(data.bias), result = text(first.logit);
  box.append(ribbon(view, "what the head reads", data.vector), ribbon(view, `list of ${first.name}`, data.weights), ribbon(view, "products", products),
    line(`added up: ${sum}; + bias ${bias} ${equals(valueOf(sum) + valueOf(bias), result)} `, el("b", {}, result), ` for ${first.name}`));
}

export function why(box, data, view) {
  if (!view.revealed()) return view.picture.show({});
  const count = data.orders[0].length, seen = el("div", { class: "les-side" }), words = wordsOf(view), chart = curves(data, words);
  const show = (i) => {
    const gone = Math.round(data.fractions[i] * count);
    seen.replaceChildren(...[words.first, "at random"].map((name, k) => el("figure", { class: "les-figure" },
      small(view, { hidden: data.orders[k].slice(0, gone) }, `${gone} squares taken away, ${name}`, { side: 200 }),
      el("figcaption", {}, `${name}: ${value(data, [data.looked, data.random][k][i])}`))));
    view.picture.show({ hidden: data.orders[0].slice(0, gone) });
    chart.at(i);
    return `${gone} of ${count}`;
  };
  const hand = slider("Squares taken away", { min: 0, max: data.fractions.length - 1, step: 1, value: 0 }, show);
  const better = data.areas[0] < data.areas[1];
  box.append(player(hand, data.fractions.length, 600).node, hand, seen, chart.node, line(better ? `${words.its} mattered more than squares picked at random.`
    : `Squares picked at random mattered as much or more: here ${words.why} does not show why.`));
}

const value = (data, number) => (data.kind === "none" ? text(number) : percent(number));

function curves(data, { first }) {
  const W = 560, H = 180, all = [...data.looked, ...data.random, 0], low = Math.min(...all), top = Math.max(...all, low + 1e-9);
  const x = (fraction) => 36 + fraction * (W - 150), y = (share) => 10 + (H - 40) * (top - share) / (top - low);  // numbers that are no shares may be below zero
  const node = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "les-chart", role: "img", "aria-label": `${data.class} while squares are taken away` });
  node.append(svg("path", { d: `M36 10V${H - 30}H${W - 114}`, class: "les-axis" }), svg("text", { x: 36, y: H - 10 }, "squares taken away, 0 to 100 %"));
  [["looked", first], ["random", "at random"]].forEach(([name, words], k) => {
    const points = data.fractions.map((fraction, i) => `${x(fraction).toFixed(1)},${y(data[name][i]).toFixed(1)}`).join(" ");
    node.append(svg("polyline", { points, class: `les-curve is-${name}` }), svg("text", { x: W - 108, y: 24 + 18 * k, class: `is-${name}` }, `${k ? "- -" : "—"} ${words}`));
  });
  const mark = svg("line", { y1: 10, y2: H - 30, class: "les-mark" });
  node.append(mark);
  return { node, at: (i) => { mark.setAttribute("x1", x(data.fractions[i])); mark.setAttribute("x2", x(data.fractions[i])); } };
}

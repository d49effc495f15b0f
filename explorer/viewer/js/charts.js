// Small charts: one dot per head over the layers, to point at; of a clip also how far in time the head in view looks.

import { el, svg } from "./elements.js";
import { percent } from "./numbers.js";
import { term } from "./terms.js";
import { short } from "./words.js";

const HEIGHT = 92, LEFT = 36, RIGHT = 4, TOP = 14, BOTTOM = 16;  // CSS pixels

export function buildCharts(viewer) {
  const { data, state, parts, dots } = viewer;
  dots.length = 0;
  viewer.lags = null;
  parts.charts.hidden = state.mode === "embeddings";  // first: what is hidden has no width
  if (parts.charts.hidden) return;
  const room = parts.charts.clientWidth, across = Math.max(1, Math.floor((room + 20) / 220));
  const width = Math.min(340, (room - 20 * (across - 1)) / across);
  parts.charts.style.gridTemplateColumns = `repeat(${across}, ${width}px)`;
  const charts = [
    { title: data.t > 1 ? "Distance in space" : "Attention distance", about: "distance", unit: "pixels", values: data.distance, uniform: data.uniform_distance },
    ...overTime(data),
    { title: "Effective tokens", about: "effective", unit: "tokens", values: data.effective_tokens, uniform: data.T },
    { title: `Share on ${data.pre > 1 ? "prefix tokens" : data.prefix_names[0]}`, about: "prefix", unit: "", values: data.pre ? data.prefix_share : null, uniform: data.pre / data.T },
  ].filter(({ values }) => values);
  const lags = data.lag_share ? [lagChart(viewer, width)] : [];
  viewer.lags = lags[0]?.show;
  parts.charts.replaceChildren(...charts.map((chart) => chartOf(viewer, chart, width)), ...lags.map(({ node }) => node));
  parts.charts.hidden = !charts.length;
}

function overTime({ t, lag_share: lags, uniform_lags: uniform }) {
  if (!lags) return [];
  const each = (of) => Float32Array.from({ length: lags.length / t }, (_, i) => of(lags.subarray(i * t, (i + 1) * t)));
  const mean = (shares) => shares.reduce((sum, share, lag) => sum + lag * share, 0);
  return [
    { title: "Distance in time", unit: "steps", values: each(mean), uniform: mean(uniform) },
    { title: "Share at its own time", unit: "", values: each((shares) => shares[0]), uniform: uniform[0] },
  ];
}

// Bars: of the attention of patches, the share at every distance in time; a line where it were the same everywhere.
function lagChart({ data }, width) {
  const { t, H, lag_share: lags, uniform_lags: uniform } = data, high = Math.max(...lags, ...uniform);
  const step = (width - LEFT - RIGHT) / t, y = (share) => HEIGHT - BOTTOM - share / high * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { width, height: HEIGHT, role: "img" }), note = el("span", { class: "vit-quiet" });
  const bars = [...uniform].map((share, lag) => {
    const x = LEFT + lag * step, bar = svg("rect", { x: x + 0.15 * step, width: 0.7 * step, class: "vit-lag" });
    picture.append(bar, svg("line", { x1: x, x2: x + step, y1: y(share), y2: y(share), class: "vit-uniform" }));
    if (lag % Math.ceil(22 / step) === 0)
      picture.append(svg("text", { x: x + step / 2, y: HEIGHT - 3, class: "vit-tick is-middle" }, String(lag)));
    return bar;
  });
  for (const value of [0, high])
    picture.append(svg("text", { x: LEFT - 5, y: y(value) + 3.5, class: "vit-tick is-end" }, value ? percent(value) : "0"));
  picture.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(0), y2: y(0), class: "vit-axis" }));
  let last = "";
  const show = ({ layer, head, fuse }) => {
    const heads = fuse === "one" ? [head] : Array.from({ length: H }, (_, i) => i), key = [layer, ...heads].join();
    if (layer < 0 || key === last) return;
    last = key;
    const shares = bars.map((_, lag) => heads.reduce((sum, i) => sum + lags[(layer * H + i) * t + lag] / heads.length, 0));
    shares.forEach((share, lag) => {
      bars[lag].setAttribute("y", y(share));
      bars[lag].setAttribute("height", y(0) - y(share));
    });
    note.textContent = fuse === "one" ? `L${layer}.H${head}, steps of time apart` : `L${layer}, mean, steps of time apart`;
    picture.setAttribute("aria-label", `Attention over time lag: ${shares.map((v, lag) => `${lag}: ${percent(v)}`).join(", ")}`);
  };
  return { node: el("div", { class: "vit-chart" }, el("h3", {}, "Attention over time lag", note), picture), show };
}

function chartOf(viewer, { title, about, unit, values, uniform }, width) {
  const { L, H } = viewer.data, high = Math.max(...values, uniform ?? 0) || 1, text = unit ? short : percent;
  const x = (layer) => LEFT + 6 + (L === 1 ? 0.5 : layer / (L - 1)) * (width - LEFT - RIGHT - 12);
  const y = (value) => HEIGHT - BOTTOM - value / high * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { width, height: HEIGHT, role: "img", "aria-label": `${title} of every head, by layer` });
  const across = (value, kind) =>
    picture.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: kind }));
  const tick = (at, kind, words) => picture.append(svg("text", { ...at, class: "vit-tick " + kind }, words));
  across(0, "vit-axis");
  for (const value of [0, high]) tick({ x: LEFT - 5, y: y(value) + 3.5 }, "is-end", value ? text(value) : "0");
  for (const layer of new Set([0, L - 1])) tick({ x: x(layer), y: HEIGHT - 3 }, "is-middle", "L" + layer);
  if (uniform) across(uniform, "vit-uniform");
  const own = [];
  for (let layer = 0; layer < L; layer++) for (let head = 0; head < H; head++) {
    const value = values[layer * H + head], aside = H > 1 ? (head / (H - 1) - 0.5) * Math.min(6, 90 / L) : 0;
    const dot = svg("circle", { cx: x(layer) + aside, cy: y(value), r: 2.2, class: "vit-dot" });
    picture.append(dot);
    own.push({ dot, layer, head, value });
  }
  if (uniform) tick({ x: width - RIGHT, y: y(uniform) - 4 }, "is-end is-halo", "uniform");
  own.note = el("span", { class: "vit-quiet" });
  own.unit = unit;
  viewer.dots.push(own);
  listen(viewer, picture, own);
  return el("div", { class: "vit-chart" }, el("h3", {}, about ? term(about, title) : title, own.note), picture);
}

function listen(viewer, picture, own) {
  const nearest = (event) => {
    const box = picture.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const far = ({ dot }) => (dot.cx.baseVal.value - px) ** 2 + (dot.cy.baseVal.value - py) ** 2;
    const { layer, head } = own.reduce((best, one) => far(one) < far(best) ? one : best);
    return { layer, head, fuse: "one" };
  };
  picture.addEventListener("pointermove", (event) => viewer.preview(nearest(event), event));
  picture.addEventListener("pointerleave", (event) => viewer.preview({}, event));
  picture.addEventListener("click", (event) => viewer.commit(nearest(event), event));
}

export function markDots({ dots, lags }, now) {
  lags?.(now);
  for (const own of dots) for (const one of own) {
    const here = one.layer === now.layer && (now.fuse !== "one" || one.head === now.head);
    const only = here && now.fuse === "one";
    if (one.here !== here) one.dot.classList.toggle("is-here", one.here = here);
    if (one.only !== only) one.dot.classList.toggle("is-only", one.only = only);
    if (only) own.note.textContent = own.unit ? `${short(one.value)} ${own.unit}` : percent(one.value);
    else if (here) own.note.textContent = own.unit;
  }
}

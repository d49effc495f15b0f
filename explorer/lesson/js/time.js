// Drawings of a clip alone: what changes within a square, its attention through time, the frames in other orders.

import { el } from "../../viewer/js/elements.js";
import { percent } from "../../viewer/js/numbers.js";
import { grey, patterns } from "./first.js";
import { partOf } from "./sheet.js";
import { bars, canvas, equals, line, ribbon, text, topOf, valueOf } from "./tools.js";

export function tubelet(box, data, view) {
  const seen = el("div"), deep = data.colours.length, top = topOf([...data.stays, ...data.changes]);
  const choose = (filter) => {
    const { index, bias, result } = filter, parts = [data.stays[index], data.changes[index], bias].map((part) => text(part));
    const [stays, changes] = parts, together = text(result), made = parts.reduce((sum, part) => sum + valueOf(part), 0);
    seen.replaceChildren(
      el("div", { class: "les-side" }, grey(view, filter.weights, `pattern, ${deep} frames`, deep), el("b", {}, "·"),
        grey(view, data.change, "what changes in our square", deep), el("b", {}, `= ${changes}`)),
      line(`from what the frames share ${stays} + from what changes ${changes} + bias ${parts[2]} ${equals(made, together)} `,
        el("b", {}, together), `, number ${index} of ${data.stays.length}`),
      ribbon(view, "from what they share", data.stays, { top, marked: index }), ribbon(view, "from what changes", data.changes, { top, marked: index }));
  };
  box.append(line("The patterns that answer most to what changes:"), patterns(data.filters, deep, choose), seen);
}

export function times(box, data, view) {
  if (!view.revealed()) return view.picture.show({});
  const front = view.lesson.prefix.length, most = Math.max(...data.times);
  const sum = (some) => some.reduce((a, b) => a + b, 0), { ours } = data;
  const parts = [["earlier", sum(data.times.slice(0, ours))], ["our own time", data.times[ours]], ["later", sum(data.times.slice(ours + 1))],
    ...(front ? [["in front", data.front]] : [])].map(([name, share]) => [name, percent(share)]);
  box.append(bars([
    ...data.times.map((share, time) => ({ name: view.timeName(time), share, of: 1, strong: share === most, words: percent(share) })),
    ...(front ? [{ name: `${view.lesson.prefix[0]}${front > 1 ? " and others" : ""}`, share: data.front, of: 1, words: percent(data.front) }] : []),
  ]), line(`${parts.map((part) => part.join(" ")).join(" + ")} ${equals(sum(parts.map(([, share]) => valueOf(share))), "100")} 100 %`));
  view.picture.show({ map: data.shares.slice(front), words: percent });
}

export function spans(box, data, view) {
  const row = el("div", { class: "les-side", role: "group", "aria-label": "The heads of this layer" });
  const { choice: { head: ours } } = view.lesson, top = Math.max(...data.lags.flat(), ...data.uniform);
  data.lags.forEach((shares, head) => {
    const label = `head ${head}: ${shares.map((share, lag) => `${lag} away ${percent(share)}`).join(", ")}`;
    const node = el("button", { type: "button", class: "les-small", "aria-label": label, "aria-pressed": head === ours, onclick: () => view.choose({ head }) },
      reach(view, shares, data.uniform, top, head === ours), el("span", {}, `H${head}: ${text(data.apart[head], 2)}`));
    row.append(node);
  });
  box.append(row, bars(data.lags[ours].map((share, lag) => ({
    name: lag ? `${lag} step${lag > 1 ? "s" : ""} away` : "the same time", share, of: 1, words: `${percent(share)}, even ${percent(data.uniform[lag])}` }))),
    line(`Head ${ours} looks `, el("b", {}, text(data.apart[ours], 2)), ` steps of time away on average; looking everywhere alike would be ${text(data.even, 2)}.`));
  view.picture.show({});
}

function reach(view, shares, uniform, top, chosen) {  // a bar for every distance, a line where it were even
  const width = 104, height = 64, step = width / shares.length, { node, context } = canvas(width, height, "");
  const colour = chosen ? view.ink : view.bar, { color: even } = getComputedStyle(view.node);
  const y = (share) => height - 2 - share / top * (height - 6);
  shares.forEach((share, lag) => {
    context.fillStyle = colour;
    context.fillRect(lag * step + 1, y(share), step - 2, height - y(share));
    context.fillStyle = even;
    context.fillRect(lag * step, y(uniform[lag]) - 1, step, 2);
  });
  return node;
}

export function order(box, data, view) {
  if (!view.revealed()) return view.picture.show({});
  const seen = el("div", { class: "les-drawing" }), row = el("div", { class: "les-side", role: "group", "aria-label": "Order of the frames" });
  data.asked.forEach((each, i) => row.append(el("button", { type: "button", class: "les-button", onclick: () => show(i) }, each.name)));
  const show = (i) => {
    pressed(row.children, i);
    seen.replaceChildren(strip(view, data.asked[i].frames), ...answers(data, data.asked[i]));
    view.picture.show({ frames: data.asked[i].frames });
  };
  box.append(row, seen);
  show(1);
}

export function frozen(box, data, view) {
  if (!view.revealed()) return view.picture.show({});
  const seen = el("div", { class: "les-drawing" }), { frames } = view.lesson, each = frames / view.times;
  const buttons = data.asked.map(({ frames: shown, name, says }, i) => el("button", { type: "button", class: "les-small", onclick: () => show(i) },
    photos(view, shown.slice(0, i < frames ? 1 : each), 56), el("span", {}, name), el("span", {}, says)));
  const group = (label, some) => [line(label), el("div", { class: "les-side", role: "group", "aria-label": label }, ...some)];
  const show = (i) => {
    pressed(buttons, i);
    seen.replaceChildren(...answers(data, data.asked[i]));
    view.picture.show({ frames: data.asked[i].frames });
  };
  box.append(...group("One frame, all the time:", buttons.slice(0, frames)),
    ...(each > 1 ? group(`One time, its ${each} frames over and over:`, buttons.slice(frames)) : []), seen);
  show(0);
}

const pressed = (buttons, i) => [...buttons].forEach((button, k) => button.setAttribute("aria-pressed", k === i));

// What is said now, beside what was said of the clip as it was filmed.
function answers({ classes, filmed }, now) {
  const same = now.says === filmed.says;
  return [bars(classes.map((name, k) => ({ name, share: now.values[k], of: Math.max(1, ...filmed.values), strong: name === now.says,
    words: `${now.written[k]} (was ${filmed.written[k]})` }))), line("It says ", el("b", {}, now.says), same ? ", as before." : `, not ${filmed.says}.`)];
}

// Frames of the clip in a row, each with its number.
const strip = (view, frames) => el("div", { class: "les-side" }, ...frames.map((frame) => (
  el("figure", { class: "les-figure" }, photos(view, [frame], 72), el("figcaption", {}, String(frame))))));

function photos(view, frames, side) {
  const { lesson, picture: { photo } } = view, [height, width] = lesson.size, scale = side / Math.max(height, width);
  const wide = width * scale, tall = height * scale, gap = 2;
  const { node, context } = canvas(frames.length * (wide + gap) - gap, tall, `frame ${frames.join(", ")}`);
  context.imageSmoothingEnabled = false;
  frames.forEach((frame, i) => photo && context.drawImage(photo, ...partOf(photo, lesson.frames, frame), i * (wide + gap), 0, wide, tall));
  return node;
}

// The first screen in everyday words, with the model's own numbers. No element.

import { answerNow } from "./state.js";
import { largest } from "./weights.js";
import { written } from "./numbers.js";

const plural = (count, one, many = one + "s") => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

// What the picture was cut into, or the clip.
const pieces = (data, count = data.P) => plural(count, data.t > 1 ? "block" : "square");

// What was done to the model's view of the picture: "Without 3 of its 256 squares", or nothing.
function without({ state, data }) {
  const { patches, heads, frozen } = state, off = heads.map((key) => "L" + key.replace(".", ".H")).join(", ");
  const squares = patches.length && `without ${patches.length} of its ${pieces(data)}`;
  const still = frozen >= 0 && `frozen at time ${frozen}`;
  const said = [squares, off && `with ${off} switched off`, still].filter(Boolean).join(" and ");
  return said && said[0].toUpperCase() + said.slice(1);
}

// -> [[text, kind], ...]; kind is "answer" for what the model says.
export function lead(viewer) {
  const { data, reply, options } = viewer, edited = options.intervene ? without(viewer) : "";
  const clip = data.t > 1, before = data.classes[0], what = clip ? "clip" : "picture";
  const squares = pieces(data) + (clip ? `, ${data.P / data.t} at each of ${data.t} times` : "");
  const now = edited ? answerNow(viewer) : before;
  const none = options.asks ? `It has no answer of its own yet: ${options.asks}.` : "It gives no answer, but its heads can be watched.";
  if (!before) return [[`The model cut this ${what} into ${squares}. ${none}`]];
  const say = ({ name, value }) => data.scores === "none" ? [`${name} ${written(value, data)}`, "answer"]
    : [`${name}, ${written(value, data)}`, "answer"];
  if (!edited) return [[`The model cut this ${what} into ${squares}${clip ? "," : ""} and says: `], say(before), ["."]];
  if (!now) return [[`${edited}, ${reply === "none" ? "it gives no answer." : "it is looking again …"}`]];
  const same = now.index === before.index, was = written(before.value, data);
  const told = same ? ` (before: ${was}).` : ` (before: ${before.name}, ${was}).`;
  return [[`${edited}, it ${same ? "still" : "now"} says: `], say(now), [told]];
}

// What it can answer at all, and when to be wary.
export function canAnswer({ data, after }) {
  const count = data.class_values.length, top = (after ?? data).classes[0]?.value;
  if (!count) return "";
  if (count === 1) return "It gives one number, whatever the picture shows.";
  if (data.scores === "none") return `It gives ${plural(count, "number")}, whatever the picture shows.`;
  const names = count <= data.classes.length ? ": " + data.classes.map(({ name }) => name).sort().join(", ") : "";
  if (data.scores === "sigmoid") return `It scores ${plural(count, "label")}, each for itself${names}.`;
  const wary = top < 0.5 ? " It is not sure: perhaps the picture shows none of them."
    : " Whatever the picture shows, it takes the one that fits best.";
  return `It can only choose among ${plural(count, "answer")}${names}.${wary}`;
}

// The patches that the head in view looks at most: what is worth hiding.
export function mostLookedAt(values, data, share = 1 / 16) {
  const count = Math.max(1, Math.round(data.P * share));
  return largest(values, data.pre, data.T, count).map((token) => token - data.pre).sort((a, b) => a - b);
}

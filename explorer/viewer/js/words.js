// Numbers and states in words.

import { number, percent, typeset } from "./numbers.js";
import { placeOf } from "./state.js";
import { largest } from "./weights.js";

export const short = (value) => typeset(Math.abs(value) >= 100 || value === 0 ? value.toFixed(0)
  : Math.abs(value) >= 0.1 ? value.toPrecision(3) : value.toExponential(1));
// A place on the picture, (row, column), or in a clip; as vit/grid.py names it.
export function place(token, data) {
  const { t, y, x } = placeOf(token, data);
  return `(${y},\u00a0${x})` + (data.t > 1 ? ` at time\u00a0${t}` : "");
}
export const nameOf = (token, data) => token < data.pre ? data.prefix_names[token] : `patch ${place(token, data)}`;
// A time of a clip, of one frame or of the few that a patch joins: its number, and when it was.
export const frameName = (frame, { times }) => `time ${frame}` + (times ? ` · ${times[frame].toFixed(2)} s` : "");
export const among = (token, query, data) => token === query ? "itself"
  : token < data.pre ? data.prefix_names[token] : place(token, data);

export function titleOf(state, now, data, methods) {
  if (state.mode === "attention") {
    if (now.fuse === "one") return [`L${now.layer}.H${now.head}`, ...data.head_names?.[now.layer]?.[now.head] ?? []].join(" · ");
    return `L${now.layer}, ${now.fuse} of ${data.H} heads`;
  }
  if (state.mode === "rollout") return `Rollout up to L${now.layer}`;
  if (state.mode === "method") return methods.find((m) => m.name === now.method)?.label ?? "Method";
  if (state.embedding === "positions") return "Position embeddings";
  if (state.embedding === "filters") return "Patch filters";
  return now.layer < 0 ? "After the embedding" : `After L${now.layer}`;
}

const SENTENCES = {
  share({ values, token, who, data, direction, exact }) {
    const about = exact ? "" : "≈\u00a0";
    const best = largest(values, 0, data.T, 4);
    const parts = best.filter((k) => values[k] > 0).map((k) => [values[k], among(k, token, data)]);
    if (direction === "column") {
      if (!parts.length) return `no token looks at ${who}`;
      const list = parts.map(([v, name]) => `${name} (${percent(v)})`).join(", ");
      return `${who} gets most from ${about}${list}, in shares of what each of them gives`;
    }
    return `${who} gives ${about}${parts.map(([v, name]) => `${percent(v)} to ${name}`).join(", ")}`;
  },
  value({ values, data, now, methods }) {
    const best = largest(values, 0, data.P, 3).map((k) => place(k + data.pre, data)).join(", ");
    const ofClass = (methods.find((m) => m.name === now.method)?.depends ?? ["target"]).includes("target");
    const label = ofClass && data.names.get(now.target);
    return `strongest at ${best}${label ? ` for “${label}”` : ""}`;
  },
  norm({ values, data }) {
    const best = largest(values, 0, data.T, 3).map((k) => `${nameOf(k, data)} (${short(values[k])})`).join(", ");
    let sum = 0;
    for (let k = data.pre; k < data.T; k++) sum += values[k];
    return `longest tokens ${best}; patches have ${short(sum / data.P)} on average`;
  },
  cosine({ values, data, state, token, who }) {
    const shift = state.embedding === "positions" ? data.pre : 0, own = token - shift;
    const best = largest(values, 0, values.length, 5).filter((k) => k !== own).slice(0, 3);
    const list = best.map((k) => `${among(k + shift, -1, data)} (${number(values[k])})`).join(", ");
    return `${who} is most like ${list}`;
  },
  color({ sheet, state }) {
    if (state.embedding === "filters") return `the ${sheet.count} directions in which the patch filters differ most`;
    const basis = state.basis === "joint" ? "one basis for all depths" : "a basis of its own";
    return `the first three principal components of the patches as red, green and blue (${basis})`;
  },
};

// -> [title, what is to be seen], of one view: {sheet, cell, direction}.
export function sentence(state, now, data, view, methods) {
  const { sheet, cell, direction } = view, title = titleOf(state, now, data, methods);
  const computed = data.refused[now.method] ?? (data.source.closed ? "not in this file for this class"
    : now.method === state.method ? "this map is being computed …" : "choose it, and this map is computed …");
  if (!sheet.ready[cell]) return [title, state.mode === "method" ? computed : "on its way …"];
  const at = cell * sheet.size, { exact } = view;
  const values = sheet.colors ? null : exact ?? sheet.values.subarray(at, at + sheet.size);
  // Of a large picture not every row is sent: then it is the nearest one's that is drawn.
  const whole = exact || direction === "column" || state.mode === "embeddings" && state.embedding === "positions";
  const token = whole ? now.query : data.tokens_sent[data.row_of[now.query]];
  const who = nameOf(token, data) + (token === now.query ? "" : ", the nearest that was sent,");
  return [title, SENTENCES[sheet.unit]({ sheet, values, token, who, data, direction, state, now, methods, exact })];
}

export const PANEL = { attention: "Every head", rollout: "Rollout through depth", method: "Every method" };
export const MATRIX = { attention: "row → column", rollout: "rollout", method: "attention", embeddings: "cosine" };


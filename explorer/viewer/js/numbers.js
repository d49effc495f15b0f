// Numbers as people read them: a true minus, and none on zero. What programs read keeps the hyphen.

export const typeset = (text) => (Number(text) === 0 ? text.replace("-", "") : text.replaceAll("-", "−"));
export const number = (value, digits = 2) => typeset(Number(value).toFixed(digits));
// A share of one: "45 %", "4.5 %", "0.45 %"; as explorer/render/paper.py writes it.
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.01) return "<\u00a00.01\u00a0%";
  return number(value, value >= 9.95 ? 0 : value >= 0.995 ? 1 : 2) + "\u00a0%";
}
// What is said of a class: a probability, or the number itself.
export const written = (value, data) => data.scores === "none" ? typeset(String(Number(value.toPrecision(4)))) : percent(value);

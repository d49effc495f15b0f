// A question before the reveal: three squares, or one of a few answers. What was given is kept, and counted.

import { el } from "../../viewer/js/elements.js";

export const GUESSES = 3;

// How a guess did: {points, of}. Three squares give a point each; a choice gives one.
export function grade(question, given) {
  if (question.kind === "squares") return { points: given.filter((patch) => question.right.includes(patch)).length, of: GUESSES };
  return { points: given[0] === question.right ? 1 : 0, of: 1 };
}

export const total = (answers) => Object.values(answers).reduce(
  (sum, { points = 0, of = 0 }) => ({ points: sum.points + points, of: sum.of + of }), { points: 0, of: 0 });

export function quiz(view, step) {
  const { question } = step, done = view.state.answers[view.keyOf(step)];
  if (!question) return null;
  if (done) return el("p", { class: "les-quiz is-done" }, question.ask + " ", el("b", {}, verdict(question, done)));
  const give = (given) => view.answer(step, { given, ...grade(question, given) });
  const skip = el("button", { type: "button", class: "les-button", onclick: () => view.answer(step, { given: [] }) }, "Show me");
  if (question.kind === "squares") {
    const left = GUESSES - view.state.guesses.length;
    return el("p", { class: "les-quiz" }, question.ask + " ", el("b", {}, `${left} to go.`), " ", skip);
  }
  return el("div", { class: "les-quiz", role: "group", "aria-label": question.ask }, el("span", {}, question.ask),
    ...question.options.map((name, i) => el("button", { type: "button", class: "les-button", onclick: () => give([i]) }, name)), skip);
}

function verdict(question, { given, points, of }) {
  if (!of) return question.kind === "squares" ? "Here they are." : question.options[question.right] + ".";
  if (question.kind === "squares") return `${points} of ${of} ${points === 1 ? "is" : "are"} among the ${question.right.length} it looks at most.`;
  return points ? `Right: ${question.options[question.right]}.` : `You said ${question.options[given[0]]}; it is ${question.options[question.right]}.`;
}

// A handout: every step with its drawing, the class's own picture in it, on a few pages of paper.

import { el } from "../../viewer/js/elements.js";
import { small } from "./picture.js";

export function printHandout(view, drawings) {
  const { lesson } = view, cards = [];
  for (const [i, step] of lesson.steps.entries()) {
    const box = el("div", { class: "les-draw" });
    let layer = {};
    const still = Object.create(view, {  // the same drawings, all answers given, that leave the screen alone
      picture: { value: { photo: view.picture.photo, show: (found) => { layer = found; } } },
      revealed: { value: () => true },
      guessed: { value: () => ({}) },
    });
    if (!step.data.missing) drawings[step.name](box, step.data, still);
    cards.push(el("article", { class: "les-card" }, el("h3", {}, `${i + 1}  ${step.title}`), el("p", {}, step.sentence),
      el("div", { class: "les-side" }, small(view, layer, step.title, { side: 150 }), box), el("p", { class: "les-formula" }, step.formula)));
  }
  const [h, w] = lesson.grid.slice(-2), at = lesson.choice;
  const sheet = el("section", { class: "les-handout" }, el("h2", {}, "How a Vision Transformer works"),
    el("p", {}, `${lesson.model}; square ${view.placeOf(at.patch)} of ${h} × ${w}, layer ${at.layer}, head ${at.head}`), ...cards);
  document.body.append(sheet);
  document.documentElement.classList.add("les-printing");
  addEventListener("afterprint", () => {
    sheet.remove();
    document.documentElement.classList.remove("les-printing");
  }, { once: true });
  print();
}

// Every term is explained where it stands: one sentence each, on a card, for pointer, finger, keyboard and reader.

import { el } from "./elements.js";

export const TERMS = {
  head: "A head is one of several small searchlights in a layer. For every square it decides how much it takes from each other one.",
  layer: "The model works in layers, one after the other. In each, all squares exchange what they know; L0 is the first.",
  cls: "[CLS] is an extra token in front of the squares. It has no place on the picture; in most models the answer is read from it.",
  register: "Registers are extra tokens that belong to no square: room in which the model keeps notes.",
  uniform: "Uniform is what everyone would get if all were looked at alike. × uniform: how many times that.",
  scale: "The brightest colour is the largest weight of this map. Brightness is the square root of the weight, so that one "
    + "outlier does not leave all the rest dark; the numbers beside the pointer are the weights themselves. More: other scales.",
  prefix: "Share of the attention that goes to the extra tokens in front, and not to the picture.",
  answer: "What the model says of the whole picture. The bars are probabilities as the model gives them; they are not how often it is right.",
  matrix: "Row by row, who looks (top to bottom) at whom (left to right), for the head in view.",
  distance: "How far away a head looks, on average, in pixels. Low: at its neighbours. High: across the picture.",
  effective: "At how many tokens a square looks, in effect: one where the head points, all of them at the dashed line, where it looks at all alike.",
};

// What can be chosen in the row of views, each in a sentence.
export const VIEWS = {
  attention: "Attention: what the square that you choose looks at, in every head of every layer.",
  rollout: "Rollout: attention of all layers multiplied together: what could have reached a token from where.",
  method: "Methods: which squares mattered for the answer, by one way of working it out each. They do not agree.",
  pca: "PCA colours: tokens that the model finds alike have the same colour.",
  similarity: "Similarity: how alike two tokens are to the model, after each layer.",
  norms: "Norms: how large the numbers of each token are, all taken together: the length of its vector. A few may stand out.",
  positions: "Positions: how alike the places are that the model has learned, before it sees any picture.",
  filters: "Patch filters: the patterns of pixels that the first step of the model looks for.",
};

export const explained = (name) => TERMS[name] && { "data-term": name, "aria-description": TERMS[name] };

export const term = (name, text) => el("button", { type: "button", class: "vit-term", ...explained(name) }, text);

/* What a button of `term` explains from now on; "": nothing. */
export function retell(button, name) {
  if (button.dataset.term === name && button.disabled === !name) return;
  button.disabled = !name;
  button.dataset.term = name;
  button.setAttribute("aria-description", TERMS[name] ?? "");
}

export function listenToTerms({ root, parts }) {
  const card = parts.card;
  const show = (event) => {
    const at = event.target.closest?.("[data-term]");
    if (!TERMS[at?.dataset.term]) return hide();
    card.textContent = TERMS[at.dataset.term];
    card.hidden = false;
    const box = at.getBoundingClientRect(), own = root.getBoundingClientRect();
    card.style.left = Math.max(0, Math.min(box.left - own.left, own.width - card.offsetWidth)) + "px";
    card.style.top = box.bottom - own.top + 6 + "px";
  };
  const hide = () => { card.hidden = true; };
  for (const name of ["pointerover", "focusin", "click"]) root.addEventListener(name, show);
  root.addEventListener("pointerleave", hide);
  root.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

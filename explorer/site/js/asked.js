/* What the address of the page asks for, as far as the page has it, and the address of what is shown. */

import { here } from "../../viewer/js/here.js";

export const TABS = ["explore", "lesson"];

export const ofClips = (model) => !!model?.described.frames;

/* The picture, if the visitor has chosen it; else the first example of the kind that this model was made for. */
export function fitting({ pictures }, model, picture, before) {
  if (picture && (!picture.clip || picture.own || ofClips(model) === ofClips(before))) return picture;
  return pictures.find((each) => !!each.clip === ofClips(model)) ?? pictures[0];
}

export function urlOf({ model, picture, moment, words }, tab) {
  const asked = new URLSearchParams(), { classNames } = model.described;
  asked.set("model", model.name);
  if (picture && !picture.own) asked.set("picture", picture.name);
  if (moment >= 0) asked.set("step", model.moments[moment].step);
  if (words && words.length < classNames.length) asked.set("words", words.map((k) => classNames[k]).join(","));
  if (tab !== TABS[0]) asked.set("tab", tab);
  return `${here().split("?")[0]}?${asked}${location.hash}`;
}

/* -> {model, picture: or none, moment, words, tab, lacks: a sentence about what is asked for and not here, or ""} */
export function askedOf({ models, pictures }) {
  const asked = new URLSearchParams(location.search), lacks = [];
  const named = (kind, list) => {
    const name = asked.get(kind), found = list.find((each) => each.name === name);
    if (name !== null && !found) lacks.push(`${kind} “${name}”`);
    return found;
  };
  const known = named("model", models), model = known ?? models[0], picture = named("picture", pictures);
  const step = asked.get("step"), moment = model.moments.findIndex((each) => String(each.step) === step);
  if (known && step !== null && moment < 0) lacks.push(`step ${step} of the training of ${known.name}`);
  const { classNames, words: speaks } = model.described, wanted = speaks ? asked.get("words")?.split(",") ?? [] : [];
  const words = wanted.map((name) => classNames.indexOf(name)).filter((k) => k >= 0);
  if (known) lacks.push(...wanted.filter((name) => !classNames.includes(name)).map((name) => `word “${name}”`));
  return {
    model, picture, moment, words: words.length ? words : null,
    tab: TABS.includes(asked.get("tab")) ? asked.get("tab") : TABS[0],
    lacks: lacks.length ? `This page has no ${lacks.join(" and no ")}: it shows what it has.` : "",
  };
}

/* What the address of the page asks for, as far as the page has it. */

export const TABS = ["explore", "lesson"];

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
  const words = asked.get("words")?.split(",").map((name) => model.described.classNames.indexOf(name)).filter((k) => k >= 0);
  return {
    model, picture, moment, words: words?.length && model.described.words ? words : null,
    tab: TABS.includes(asked.get("tab")) ? asked.get("tab") : TABS[0],
    lacks: lacks.length ? `This page has no ${lacks.join(" and no ")}: it shows what it has.` : "",
  };
}

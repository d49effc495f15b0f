// What the Compare page compares, in the address: compare (models, or pictures), with (the second example), from and to
// (MODEL@STEP of its sides).

page.keep = (key, value) => {
  const address = new URL(location.href);
  if (value) address.searchParams.set(key, value);
  else address.searchParams.delete(key);
  history.replaceState(history.state, "", address);
};

// Which of the two is on the screen.
page.compares = (what) => {
  document.documentElement.dataset.compare = what;
  page.keep("compare", what === "pictures" ? what : "");
};
page.compared = (choice) => document.documentElement.dataset.compare ?? choice;
document.documentElement.dataset.compare = named().get("compare") === "pictures" ? "pictures" : "models";

page.pairInputs = (shown, second, choice, example, ...rest) =>
  [shown, second, page.compared(choice), first("with") || example, ...rest];
const SIDES = ["from", "to"], AT = /^(.*?)(?:@(\d+))?$/s;  // a model's name may have an @, too
page.sideModels = (...models) => SIDES.map((key, i) => asked.has(key) ? models[i] : named().get(key)?.match(AT)[1] ?? models[i]);
page.sideInputs = (shown, ...sides) => [shown, ...SIDES.flatMap((key, i) => {
  const [model, step] = sides.slice(2 * i, 2 * i + 2), text = first(key);
  return [model, text ? Number(text.match(AT)[2] ?? -1) : step];
})];
page.keepSides = (...sides) => SIDES.forEach((key, i) => {
  const [model, step] = sides.slice(2 * i, 2 * i + 2);
  page.keep(key, model || step !== -1 ? `${model}${step === -1 ? "" : `@${step}`}` : "");
});

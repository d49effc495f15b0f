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
  return what;
};
document.documentElement.dataset.compare = named().get("compare") === "pictures" ? "pictures" : "models";

// Inputs of the page's own events, filled from the address: it is asked once, and written from then on.
const asked = new Set();
const first = (key) => asked.has(key) ? "" : asked.add(key) && (named().get(key) ?? "");
page.pairInputs = (shown, second, choice, example, ...rest) =>
  [shown, second, document.documentElement.dataset.compare ?? choice, first("with") || example, ...rest];
page.sideInputs = (shown, ...sides) => [shown, ...["from", "to"].flatMap((key, i) => {
  const text = first(key), [, model, step] = text.match(/^(.*?)(?:@(\d+))?$/);  // a model's name may have an @, too
  return text ? [model, step ? Number(step) : -1] : sides.slice(2 * i, 2 * i + 2);
})];
page.keepSides = (...sides) => ["from", "to"].forEach((key, i) => {
  const [model, step] = sides.slice(2 * i, 2 * i + 2);
  page.keep(key, model || step !== -1 ? `${model}${step === -1 ? "" : `@${step}`}` : "");
});

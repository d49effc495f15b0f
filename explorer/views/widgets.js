// What Gradio's widgets leave out: arrow keys between tabs, a list that opens again, a focus that stays.

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };
document.addEventListener("keydown", (event) => {
  const tab = event.target.closest?.('[role="tab"]'), { key } = event;
  if (!tab || event.ctrlKey || event.metaKey || event.altKey || !(key in STEPS || key === "Home" || key === "End")) return;
  const all = [...tab.closest('[role="tablist"]').querySelectorAll('[role="tab"]')].filter((one) => one.checkVisibility() && !one.disabled);
  const at = key === "Home" ? 0 : key === "End" ? all.length - 1 : (all.indexOf(tab) + STEPS[key] + all.length) % all.length;
  event.preventDefault();
  all[at].click();
  all[at].focus();
});

const field = (target) => target.closest?.('input[role="listbox"], input[role="combobox"]');
// Its list opens with the focus: where that is there already, and the list was closed, a click opens it.
document.addEventListener("click", ({ target }) => {
  const input = field(target);
  if (!input || input !== document.activeElement || input.ariaExpanded === "true") return;
  input.blur();
  input.focus();
});
// Who has chosen by keyboard goes on from there: the field lets the focus go, its block takes it.
document.addEventListener("keydown", ({ target, key }) => {
  const input = field(target), block = input?.closest(".block");
  if (key !== "Enter" || !block) return;
  setTimeout(() => {
    if (document.activeElement !== document.body) return;
    block.tabIndex = -1;
    block.focus();
  });
}, true);

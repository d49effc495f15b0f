// The row of small pictures. Scope given by Gradio: element, trigger.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-example]");
  if (button) trigger("choose", { example: button.dataset.example });
});

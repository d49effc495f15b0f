// Hears of everything new, keeps model and example in the page's address, and wakes the tab that is open.
// Scope given by Gradio: props, trigger, watch. Its events are named after the tabs, and after words.
window.vitPage.connect(props.tabs, trigger);
const hear = () => props.value && window.vitPage.news(props.value);
hear();
watch("value", hear);

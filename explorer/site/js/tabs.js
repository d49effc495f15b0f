/* The tabs of the page: chosen by a click or by the arrow keys, and marked with what they show. */

import { TABS } from "./asked.js";

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };
const byId = (id) => document.getElementById(id);
const buttonOf = (tab) => byId(`to-${tab}`);

/* open: hears the tab that was chosen. */
export function listenToTabs(open) {
  for (const [at, tab] of TABS.entries()) {
    buttonOf(tab).onclick = () => open(tab);
    buttonOf(tab).onkeydown = (event) => {
      if (!(event.key in STEPS) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
      event.preventDefault();  // else the viewer answers, too
      const next = TABS.at((at + STEPS[event.key]) % TABS.length);
      open(next);
      buttonOf(next).focus();
    };
  }
}

export function markTabs(open) {
  for (const tab of TABS) {
    buttonOf(tab).setAttribute("aria-selected", String(tab === open));
    byId(tab === "lesson" ? "lesson-page" : tab).hidden = tab !== open;
  }
}

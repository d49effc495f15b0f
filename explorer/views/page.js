// What the page does beside its components: wakes the open tab, keeps the address, shows read-outs, links charts with
// the viewer. One object, window.vitPage; no framework, no network.

const page = (window.vitPage = { tabs: [], trigger: null, open: "explore", stamp: "", fresh: {} });

page.connect = (tabs, trigger) => {
  Object.assign(page, { tabs, trigger });
  const named = new URL(location.href).searchParams.get("tab"), asked = named === "inside" ? "lesson" : named;  // its old name
  if (tabs.includes(asked)) document.getElementById(`tab-${asked}-button`)?.click();
};

// Something new is to be shown: a picture, a model, a class.
page.news = (value) => {
  page.stamp = value.stamp;
  const address = new URL(location.href);
  for (const key of ["model", "example", "size"]) {
    if (value[key]) address.searchParams.set(key, value[key]);
    else if (key in value) address.searchParams.delete(key);
  }
  history.replaceState(history.state, "", address);
  const picture = "example" in value;  // else only another class of the one that is there
  if (page.open !== "explore" || !picture) return page.refresh();
  document.addEventListener("vit-loaded", page.refresh, { once: true });  // the picture first, then its self-check
  setTimeout(page.refresh, 4000);
};

page.opened = (tab) => {
  page.open = tab;
  const address = new URL(location.href);  // a link leads to the page that is open
  if (tab === page.tabs[0]) address.searchParams.delete("tab");
  else address.searchParams.set("tab", tab);
  history.replaceState(history.state, "", address);
  page.refresh();
};

// Each tab is asked once for each news, and only while it is open.
page.refresh = () => {
  const { open, stamp } = page;
  if (!page.trigger || !stamp || !page.tabs.includes(open) || page.fresh[open] === stamp) return;
  page.fresh[open] = stamp;
  page.trigger(open, { stamp });
};

page.forget = (tab) => { delete page.fresh[tab]; };  // so that it asks when it is opened again
page.move = (tab) => { page.forget(tab); page.refresh(); };  // and now, if it is open

// Read-outs: any element with data-tip says it beside the pointer.
const tip = document.createElement("div");
tip.className = "vx-tip";
tip.setAttribute("role", "status");
if (document.body) document.body.append(tip);  // Gradio may put this script into a page that is there already
else addEventListener("DOMContentLoaded", () => document.body.append(tip));
const hideTip = () => tip.classList.remove("is-shown");
document.addEventListener("pointerover", (event) => {
  const at = event.target.closest?.("[data-tip]");
  if (!at) return hideTip();
  tip.textContent = at.dataset.tip;
  tip.classList.add("is-shown");
  const box = at.getBoundingClientRect();
  const half = tip.offsetWidth / 2;
  const x = Math.min(Math.max(box.left + box.width / 2, half + 4), innerWidth - half - 4);
  const y = box.top - tip.offsetHeight - 6;
  tip.style.transform = `translate(${Math.round(x - half)}px, ${Math.round(y < 4 ? box.bottom + 6 : y)}px)`;
});
addEventListener("scroll", hideTip, { passive: true, capture: true });

// Dots and cells of a head, and maps of a method, are shown large in the viewer.
const inViewer = (state) => {
  const viewer = document.querySelector("#viewer .vit-viewer");
  viewer?.dispatchEvent(new CustomEvent("vit-pick", { detail: state }));
  document.querySelector('[role="tab"]')?.click();
  requestAnimationFrame(() => {  // it is on the screen by then
    viewer?.scrollIntoView();
    viewer?.querySelector(".vit-picture")?.focus({ preventScroll: true });
  });
};
document.addEventListener("click", (event) => {
  if (event.target.closest?.(".vx-skip")) document.querySelector('[role="tab"][aria-selected="true"]')?.focus();
  const head = event.target.closest?.("[data-layer][data-head]")?.dataset;
  if (head) inViewer({ mode: "attention", fuse: "one", layer: +head.layer, head: +head.head });
  const map = event.target.closest?.("[data-method]");
  if (map) inViewer({ mode: "method", method: map.dataset.method });
});
document.addEventListener("keydown", (event) => {
  const map = event.target.closest?.("[data-method]");
  if (map && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    inViewer({ mode: "method", method: map.dataset.method });
  }
});

// Things to try that lead elsewhere on the page: {tab} or {example}.
document.addEventListener("vit-try", ({ detail }) => {
  if (detail.tab) document.getElementById(`tab-${detail.tab}-button`)?.click();
  if (detail.example) document.querySelector(`[data-example="${CSS.escape(detail.example)}"]`)?.click();
});

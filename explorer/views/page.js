// What the page does beside its components: wakes the open tab, keeps the address, shows read-outs, links charts with
// the viewer. One object, window.vitPage; no framework, no network.

const page = (window.vitPage = { tabs: [], trigger: null, open: "explore", stamp: "", fresh: {}, shown: {} });

page.connect = (tabs, trigger) => {
  Object.assign(page, { tabs, trigger });
  showCopy();
  page.restore();
};

// ---- type that ships with Gradio, so that no request leaves the page: both weights or neither, and only before there is
// a word to read, which would change under the eye

page.type = async () => {
  const faces = Object.entries({ Regular: "400", Bold: "700" }).map(([name, weight]) =>
    new FontFace("IBM Plex Sans", `url("./static/fonts/IBMPlexSans/IBMPlexSans-${name}.woff2")`, { weight }));
  await Promise.all(faces.map((face) => face.load()));
  if (!document.querySelector(".vx-header")) faces.forEach((face) => document.fonts.add(face));
};
if (matchMedia("(min-width: 821px)").matches) page.type().catch(() => {});  // kept by the browser for the next visit

// ---- the part of a picture that the model sees, as a frame on the small picture

const frame = Object.assign(document.createElement("span"), { className: "vx-seen" });
page.frame = ([left, top, width, height]) => {
  const image = document.querySelector("#picture img"), box = image?.parentElement;
  frame.hidden = !image?.naturalWidth || width * height > 0.98;
  if (frame.hidden) return;
  const scale = Math.min(box.clientWidth / image.naturalWidth, box.clientHeight / image.naturalHeight);  // it is fitted in
  const across = scale * image.naturalWidth, down = scale * image.naturalHeight;
  Object.assign(frame.style, {
    left: `${(box.clientWidth - across) / 2 + left * across}px`, top: `${(box.clientHeight - down) / 2 + top * down}px`,
    width: `${width * across}px`, height: `${height * down}px`,
  });
  frame.dataset.tip = `The model sees what is in the frame: ${Math.round(100 * width * height)} % of the picture.`;
  if (frame.parentElement === box) return;
  box.style.position = "relative";
  box.append(frame);
  resized.disconnect();
  resized.observe(box);
};
const resized = new ResizeObserver(() => page.frame(page.seen));
document.addEventListener("load", ({ target }) => target.closest?.("#picture") && page.seen && page.frame(page.seen), true);

// ---- the address: what was chosen is in it, and is there before anything is painted; Back and Forward go through it

const named = () => new URL(location.href).searchParams;
// What a widget holds is asked of the address once, and written into it from then on.
const asked = new Set();
const first = (key) => asked.has(key) ? "" : asked.add(key) && (named().get(key) ?? "");
page.runNamed = (run) => first("run") || run;
const ABOUT = ["model", "example", "size", "words"];
const OWN = "own";  // the name, as an example, of a picture that no link can carry

// {key: text; null or "" takes it away}: what a page has chosen, as one step of the browser's history or within one.
page.say = (values, step = true) => {
  const address = new URL(location.href);
  for (const [key, value] of Object.entries(values)) {
    if (value === null || value === "") address.searchParams.delete(key);
    else address.searchParams.set(key, value);
  }
  write(address, step && !page.restoring && !page.going);
};
page.said = (key) => named().get(key);
page.wanted = { model: page.said("model"), words: page.said("words") };  // what a link asks for beyond the first look
page.own = () => page.said("example") === OWN;

// Gradio opens its first tab by itself, when it is ready, and hears of clicks only then: asked until it has answered.
page.restore = (ends = performance.now() + 60000) => {
  const tab = named().get("tab") === "inside" ? "lesson" : named().get("tab");  // its old name
  const asked = page.tabs.includes(tab) ? tab : page.tabs[0];
  const button = document.getElementById(`tab-${asked}-button`);
  page.restoring = asked;
  if (button?.ariaSelected === "true" && page.open === asked || performance.now() > ends) {
    page.restoring = null;
    document.documentElement.classList.remove("vx-restoring");
    return page.refresh();
  }
  if (button?.ariaSelected === "true") page.opened(asked);
  else button?.click();
  setTimeout(() => page.restoring && page.restore(ends), 60);
};
if (named().has("tab")) document.documentElement.classList.add("vx-restoring");

function write(address, step) {
  if (address.href === location.href) return;
  if (step) history.pushState(null, "", address);
  else history.replaceState(history.state, "", address);
}

// What is shown first came with the page (explorer/front.py); null: it is not known yet.
document.addEventListener("vit-hosted", ({ target, detail }) => {
  if (target.closest("#viewer") && window.vitFirst && !page.stamp) detail.receive(window.vitFirst);
});

// A script that is wanted later than the page: fetched once.
const scripts = new Map();
page.script = (address) => {
  if (!scripts.has(address)) scripts.set(address, new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: address, onload: resolve });
    script.onerror = () => { scripts.delete(address); reject(new Error("The server does not answer: try again.")); };
    document.head.append(script);
  }));
  return scripts.get(address);
};

// Something new is to be shown: a picture, a model, a class.
page.news = (value) => {
  const first = !page.stamp;
  page.stamp = value.stamp;
  if (first && page.own()) page.note("This address is of somebody's own picture, which no link can carry: choose it again.");
  const of = value.words === "" && page.wanted.words && [null, value.model].includes(page.wanted.model);
  const known = ABOUT.filter((key) => key in value && !(of && key === "words")).map((key) => [key, key === "example" ? value[key] || OWN : value[key]]);
  page.say(Object.fromEntries(known), !first);  // what the address asked for is no step of its own
  page.going = false;
  if (value.seen) page.frame(page.seen = value.seen);
  page.shown = Object.fromEntries(ABOUT.map((key) => [key, page.said(key)]));
  if (of) page.ask(page.wanted.words);
  const picture = "example" in value;  // else only another class of the one that is there
  if (page.open !== "explore" || !picture) return page.refresh();
  document.addEventListener("vit-loaded", page.refresh, { once: true });  // the picture first, then its self-check
  setTimeout(page.refresh, 4000);
};

// The words of the address become the classes: the model's text half is asked for them; "" takes them away.
page.ask = (words) => {
  page.wanted.words = null;
  page.shown.words = words;  // from now on: Back and Forward go on from what is on its way
  page.trigger("words", { words });
};
page.failed = () => page.say({ words: null }, false);  // these words cannot be had

page.opened = (tab) => {
  if (page.restoring ? tab !== page.restoring : !page.trigger && tab === page.open) return;  // Gradio's own first tab
  const moved = tab !== page.open;
  page.open = tab;
  page.say({ tab: tab === page.tabs[0] ? null : tab }, moved);  // a link leads to the page that is open
  page.sayWithout();
  copy.hidden = tab === page.tabs[0];  // there the viewer has its own
  page.refresh();
};

// What was hidden or switched off on Explore holds there alone, and the other pages say so.
const without = document.createElement("p");
without.className = "vx-note vx-without";
without.setAttribute("role", "status");
page.sayWithout = () => {
  const held = new URLSearchParams(location.hash.slice(1)), count = (name) => held.get(name)?.split("_").length ?? 0;
  const patches = count("patches"), heads = count("heads"), frozen = count("frozen");
  const what = [patches && `${patches} hidden ${patches > 1 ? "patches" : "patch"}`, heads && `${heads} ${heads > 1 ? "heads" : "head"} switched off`, frozen && "frozen time"];
  const said = what.filter(Boolean).join(" and ");
  without.hidden = !said || page.open === page.tabs[0];
  without.textContent = `This page shows the whole picture and every head${frozen ? ", and lets time run" : ""}: your ${said} ${patches + heads + frozen > 1 ? "are" : "is"} for Explore alone.`;
  if (!without.isConnected) document.getElementById("tabs")?.before(without);
};

// A sentence above the pages; "" takes it away.
const told = document.createElement("p");
told.className = "vx-note vx-told";
told.setAttribute("role", "status");
page.note = (text) => {
  told.textContent = text;
  if (!told.isConnected) document.getElementById("tabs")?.before(told);
};

// A link to every page, beside its name.
const copy = Object.assign(document.createElement("button"), { type: "button", className: "vx-copy", textContent: "Copy link", hidden: true });
copy.addEventListener("click", async () => {
  copy.textContent = await ViTViewer.copied(location.href, page.own());
  setTimeout(() => { copy.textContent = "Copy link"; }, 2500);
});
const showCopy = () => copy.isConnected || document.querySelector(".vx-header")?.append(copy);

addEventListener("popstate", () => {
  if (!page.trigger) return;
  const example = page.said("example"), { shown } = page;
  const model = page.said("model") ?? shown.model;  // an entry older than the first news has none
  if (model !== shown.model || page.said("size") !== shown.size) return location.reload();
  page.restore();
  page.note("");
  if ((page.said("words") ?? "") !== (shown.words ?? "")) {
    page.going = true;
    return page.ask(page.said("words") ?? "");
  }
  if (!example || example === shown.example) return;
  if (example === OWN) return page.note("Your own picture is in no address: choose it again.");
  page.going = true;
  page.shown.example = example;
  document.querySelector(`[data-example="${CSS.escape(example)}"]`)?.click();
});

// Each tab is asked once for each news, and only while it is open.
page.refresh = () => {
  const { open, stamp } = page;
  if (!page.trigger || !stamp || !page.tabs.includes(open) || page.fresh[open] === stamp) return;
  page.fresh[open] = stamp;
  page.trigger(open, { stamp });
};

page.forget = (tab) => { delete page.fresh[tab]; };  // so that it asks when it is opened again

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

// The timeline of a training run: a slider, a play button and the curves of #training-charts choose what #training-viewer
// shows, which stands between them.
// The browser keeps what it has seen: going back to a moment costs a drawing, not a download.
// Scope given by Gradio: element, trigger, props, watch.
const page = window.vitPage;
const find = (selector) => element.querySelector(selector);
const slider = find("input"), play = find(".vx-play"), said = find("output");
const charts = () => document.querySelector("#training-charts .vx-timeline-charts");
let moments = [], at = -1, playing = null, shown = null;

const GONE = "This moment is no longer kept: open the picture again.";
const sourceOf = (moment) => ViTViewer.kept(ViTViewer.addresses(moment, GONE));
const viewer = () => document.querySelector("#training-viewer .vit-viewer")?.viewer;

function show(index) {
  if (!moments[index] || !viewer() || !charts()) return;
  at = index;
  slider.value = index;
  const moment = moments[index];
  slider.ariaValueText = moment.words;
  tell(moment);
  for (const point of charts().querySelectorAll("[data-step]")) point.classList.toggle("is-now", +point.dataset.step === moment.step);
  if (shown === moment) return;
  shown = moment;
  viewer().setSource(moment.source).then((there) => {
    if (shown !== moment) return;
    if (!there) shown = null;  // the same once more is another try
    else if (!moment.failed) return;
    Object.assign(moment, { ready: there, failed: !there });
    tell(moment);
  });
}
const tell = (moment) => {
  said.textContent = moment.words + (moment.ready ? "" : moment.failed ? " · could not be loaded" : " …");
};

// A moment that somebody chose is in the address; the last one needs no name.
function choose(index) {
  stop();
  show(index);
  page.say({ moment: index < moments.length - 1 ? moments[index]?.step ?? null : null }, false);
}
const asked = () => moments.findIndex((moment) => String(moment.step) === page.said("moment"));
addEventListener("popstate", () => { if (moments.length) { stop(); show(asked() < 0 ? moments.length - 1 : asked()); } });

async function load(mine) {
  let done = 0, failed = "";
  for (const moment of mine) moment.failed = false;  // this is another try
  for (const moment of [...moments].reverse()) {
    if (moments !== mine) return;
    try {
      await moment.source.head();
      await Promise.all(moment.layers.map((_, layer) => moment.source.layer(layer)));
      moment.ready = !moment.failed;
    } catch (error) { moment.failed = true; failed = " · " + error.message; }
    done += 1;
    said.ariaLive = done < mine.length ? "off" : "polite";  // the count is for the eyes
    if (moments === mine && done < mine.length) said.textContent = `${moments[at]?.words ?? ""} · ${done} of ${mine.length} moments loaded`;
  }
  if (moments !== mine || !moments[at]) return;
  if (failed) said.textContent = moments[at].words + failed;
  else tell(moments[at]);
}

function stop() { clearInterval(playing); playing = null; play.textContent = "▶"; play.ariaLabel = "Play the training"; }
play.addEventListener("click", () => {
  if (playing) return stop();
  if (at >= moments.length - 1) show(0);
  play.textContent = "❚❚";
  play.ariaLabel = "Pause";
  playing = setInterval(() => {  // a moment that is still on its way is waited for
    if (at >= moments.length - 1) stop();
    else if (moments[at + 1].ready || moments[at + 1].failed) show(at + 1);
  }, 700);
});
slider.addEventListener("input", () => choose(+slider.value));
const look = (index) => { stop(); show(index); };
const toStep = (event) => {
  const point = event.target.closest?.("#training-charts [data-step]");
  const index = point ? moments.findIndex((moment) => moment.step === +point.dataset.step) : -1;
  if (index >= 0 && (event.type === "click" || index !== at)) (event.type === "click" ? choose : look)(index);
};
for (const name of ["pointerover", "click"]) document.addEventListener(name, toStep);

// The viewer and the place of the curves come after this: what is to be drawn waits until they say so.
let draw = null;
function drawn() {
  if (!draw || !viewer() || !charts()) return;
  draw();
  draw = null;
}
for (const name of ["vit-hosted", "vx-charted"]) document.addEventListener(name, drawn);

function receive(value) {
  element.hidden = !value?.moments?.length;
  const stage = document.querySelector("#training-viewer");
  if (stage) stage.style.display = element.hidden ? "none" : "";  // no moment, no picture of another model's
  if (!value) return;
  const before = new Map(moments.map((moment) => [moment.head, moment]));
  if (!value.moments?.some((moment) => before.has(moment.head))) stop();  // another run; news of this one lets it play
  const wasLast = at === moments.length - 1;
  moments = (value.moments ?? []).map((moment) => before.get(moment.head) ?? { ...moment, source: sourceOf(moment) });
  slider.max = Math.max(0, moments.length - 1);
  const next = before.size === 0 && asked() >= 0 ? asked() : wasLast || at >= moments.length ? moments.length - 1 : at;
  draw = () => {
    charts().innerHTML = moments.length ? value.charts : "";
    show(next);
  };
  drawn();
  load(moments);
}

// A run that goes on is asked for news while somebody looks at it.
const FOLLOW_MS = 5000;
setInterval(() => {
  const box = document.querySelector("#training-follow input");
  if (box?.checked && box.offsetParent && !document.hidden) trigger("follow", {});
}, FOLLOW_MS);

receive(props.value);
watch("value", () => receive(props.value));

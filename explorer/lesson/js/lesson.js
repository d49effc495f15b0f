// The lesson on the screen: one step at a time, the picture beside it, and what was chosen travels along.
//
// `mount(element, options)` gives a handle whose receive(value) shows a lesson:
//   {lesson: the JSON of explorer/lesson/steps.py or its address, picture: address, qr: {url, qr},
//   failed: true, where what was asked for last does not come}
// and which says through options.emit("choose", {patch, layer, head}) and emit("link", {url}) what it would like.
// A step whose data are {missing: a sentence} says so in place of its drawing.
// options: lessons: {"patch.layer.head": JSON}, all that a page without a server can show; address: keep the state
// in the address bar; link: false where nobody draws a code of a link.

import { addressed, here } from "../../viewer/js/here.js";
import { colourOf, el } from "../../viewer/js/elements.js";
import * as first from "./first.js";
import * as layer from "./layer.js";
import * as last from "./last.js";
import * as time from "./time.js";
import { lessonHash, readLesson } from "./address.js";
import { printHandout } from "./handout.js";
import { Picture } from "./picture.js";
import { Presenter, showLink } from "./present.js";
import { GUESSES, grade, quiz, total } from "./quiz.js";
import { line, tableOf } from "./tools.js";

const BOTH = ["layer", "head"];
const TICKS = 10;  // on the squares that were asked for; where more are right, on the first of them

// What a step depends on beside the square.
const chosenIn = ({ name, data }) => ({
  position: data.turned || data.distance ? BOTH : [], ask: BOTH, scores: BOTH, softmax: BOTH, mix: BOTH, heads: BOTH,
  mlp: ["layer"], times: BOTH, spans: BOTH, read: data.kind === "token" ? ["head"] : [],
}[name] ?? []);

const PATIENCE = 8000;  // milliseconds after which an answer is taken for lost
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export const DRAWINGS = { ...first, ...layer, ...time, ...last };

class Lesson {
  constructor(node, options) {
    Object.assign(this, { node, options, lesson: null, tables: {}, opacity: 0.9, drawn: null });
    this.state = { how: 0, hover: -1, guesses: [], answers: {}, ...(options.address ? readLesson(location.hash) : {}) };
    this.picture = new Picture(this);
    this.build();
    this.presenter = new Presenter(this);
    document.addEventListener("keydown", (event) => this.key(event));
    if (options.address) addEventListener("popstate", () => this.returned());
    this.swipes();
  }

  build() {
    const button = (text, act, more = {}) => el("button", { type: "button", class: "les-button", onclick: act, ...more }, text);
    this.chapter = el("p", { class: "les-chapter" });
    this.title = el("h2", { tabIndex: -1 });
    this.sentence = el("p", { class: "les-sentence" });
    this.draw = el("div", { class: "les-draw" });
    this.formula = el("p", { class: "les-formula" });
    this.question = el("div", { class: "les-question", "aria-live": "polite" });
    this.more = el("div", { class: "les-more" });
    this.back = button("Back", () => this.go(this.state.how - 1));
    this.next = button("Next", () => this.go(this.state.how + 1), { class: "les-button is-main" });
    this.dots = el("ol", { class: "les-dots", "aria-label": "Steps" });
    this.score = el("output", { class: "les-score" });
    this.status = el("p", { class: "les-status", role: "status" });
    this.choices = { layer: this.stepper("Layer", "layer"), head: this.stepper("Head", "head") };
    this.node.classList.add("is-waiting");
    this.status.textContent = "The lesson is being made.";
    this.link = button("Class link", () => this.options.emit?.("link", { url: this.url() }));
    this.node.replaceChildren(
      el("header", { class: "les-head" }, this.chapter, this.title, this.sentence),
      el("div", { class: "les-body" }, el("div", { class: "les-left" }, this.picture.node,
        el("div", { class: "les-choices" }, this.choices.layer.node, this.choices.head.node), this.status),
      el("div", { class: "les-right" }, this.question, this.draw, this.formula, this.more)),
      this.nav = el("nav", { class: "les-nav", "aria-label": "Lesson" }, this.back, this.dots, this.next),
      el("div", { class: "les-tools" }, this.score, button("Present", () => this.presenter.start()),
        button("Handout", () => printHandout(this, DRAWINGS)), ...(this.options.emit && this.options.link !== false ? [this.link] : [])));
  }

  stepper(label, name) {
    const said = el("output"), by = (step) => this.choose({ [name]: this.choice[name] + step });
    const less = el("button", { type: "button", class: "les-button", "aria-label": `${label} before`, onclick: () => by(-1) }, "−");
    const more = el("button", { type: "button", class: "les-button", "aria-label": `${label} after`, onclick: () => by(1) }, "+");
    return { node: el("div", { class: "les-stepper", role: "group", "aria-label": label }, less, el("span", {}, label, " ", said), more),
      show: (value, count) => { said.textContent = value; less.disabled = value <= 0; more.disabled = value >= count - 1; } };
  }

  // what the drawings ask of it ---------------------------------------------------------------------------------

  get step() { return this.lesson.steps[this.state.how]; }
  get choice() { return this.wanted ?? this.lesson?.choice; }  // what was asked for last may be on its way
  get ink() { return colourOf(this.status, "--les-accent"); }
  get bar() { return colourOf(this.status, "--les-bar"); }

  get count() { return this.lesson.grid.reduce((a, b) => a * b); }  // of squares
  get isClip() { return this.lesson.grid.length > 2; }
  get times() { return this.isClip ? this.lesson.grid[0] : 1; }

  timeName(time) { return `time ${time}${time === Math.floor(this.lesson.choice.patch / this.count * this.times) ? ", ours" : ""}`; }
  throughTime() {  // our place at every time
    const each = this.count / this.times;
    return Array.from({ length: this.times }, (_, time) => time * each + this.lesson.choice.patch % each);
  }

  placeOf(patch) {  // "(row, column)", of a clip with its time
    const [h, w] = this.lesson.grid.slice(-2), place = patch % (h * w);
    return `(${Math.floor(place / w)},\u00a0${place % w})${this.isClip ? ` at time\u00a0${Math.floor(patch / (h * w))}` : ""}`;
  }

  nameOf(token) {
    const { prefix } = this.lesson;
    return token < prefix.length ? prefix[token] : `square ${this.placeOf(token - prefix.length)}`;
  }

  keyOf(step) {  // a question that follows what is chosen is another one for another choice
    const { patch, layer, head } = this.lesson.choice, { question } = step;
    return question?.kind === "squares" || question?.follows ? `${step.name} ${patch}.${layer}.${head}` : step.name;
  }

  revealed() { return !this.step.question || this.keyOf(this.step) in this.state.answers; }

  guessed() {
    const { question } = this.step;
    if (question?.kind !== "squares") return {};
    const { given = this.state.guesses } = this.state.answers[this.keyOf(this.step)] ?? {};
    const right = question.right.filter((square, i) => i < TICKS || given.includes(square));  // what earned a point has a tick
    return { guesses: given, right: this.revealed() ? right : [] };
  }

  // what is done to it ------------------------------------------------------------------------------------------

  press(patch) {
    const { question } = this.step;
    if (question?.kind !== "squares" || this.revealed()) return this.choose({ patch });
    const { guesses } = this.state, at = guesses.indexOf(patch);
    if (at >= 0) guesses.splice(at, 1);
    else guesses.push(patch);
    if (guesses.length === GUESSES) return this.answer(this.step, { given: [...guesses], ...grade(question, guesses) });
    this.redraw();
  }

  pointed(patch) { this.drawn?.pointed?.(patch); }

  answer(step, given) {
    this.state.answers[this.keyOf(step)] = given;
    this.redraw();
  }

  choose(change) {
    const { choice, lesson: { layers, heads } } = this, limits = { patch: this.count, layer: layers, head: heads };
    const next = { ...choice };
    for (const [name, value] of Object.entries(change)) next[name] = Math.max(0, Math.min(limits[name] - 1, value));
    const key = `${next.patch}.${next.layer}.${next.head}`;
    if (key === `${choice.patch}.${choice.layer}.${choice.head}`) return;
    this.state.guesses = [];
    if (this.options.lessons?.[key]) return this.receive({ lesson: this.options.lessons[key] });
    if (!this.options.emit) {
      this.status.textContent = "This page holds the numbers of one square in one layer, of some of its heads; the app has those of all.";
      return;
    }
    this.wanted = next;
    this.status.textContent = "…";
    if (!this.sent || performance.now() - this.sent > PATIENCE) this.ask();
  }

  ask() {  // one after the other, the last for what is wanted by then: answers may come in another order
    this.sent = performance.now();
    this.options.emit("choose", this.wanted);
  }

  answered(wanted) {  // wanted: null for nothing more
    Object.assign(this, { wanted, sent: 0 });
    this.status.textContent = wanted ? "…" : "";
    if (wanted) this.ask();
  }

  go(how, { history = true } = {}) {
    const to = Math.max(0, Math.min(this.lesson.steps.length - 1, how));
    if (to === this.state.how && this.drawn) return;
    if (history && readLesson(location.hash).how === undefined) this.remember(false);  // the browser's Back leads here, too
    this.state.how = to;
    this.state.guesses = [];
    this.redraw();
    this.title.focus({ preventScroll: true });
    const [{ top }, nav, left, draw] = [this.node, this.nav, this.picture.node.parentNode, this.draw].map((node) => node.getBoundingClientRect());
    if (top < 0 || Math.max(left.bottom, draw.top + 160) > nav.top) this.node.scrollIntoView();  // else it is not seen
    if (history) setTimeout(() => this.remember(true));  // first the drawing: browsers take their time to write an address
  }

  key(event) {
    if (this.presenter.on || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[event.key], nowhere = event.target === document.body;
    if (!by || !this.lesson || !this.node.getClientRects().length) return;
    if (nowhere ? event.key.startsWith("Page") : !this.node.contains(event.target)) return;  // there, a page scrolls by them
    if (event.target.closest("input, select, textarea, dialog")) return;
    event.preventDefault();
    this.go(this.state.how + by);
  }

  swipes() {
    let from = null;
    const listen = (name, act) => this.draw.addEventListener(name, act, { passive: true });
    listen("touchstart", ({ target, touches: [first, second] }) => {  // two fingers enlarge the page
      from = second || target.closest("input") ? null : [first.clientX, first.clientY];
    });
    listen("touchcancel", () => { from = null; });
    listen("touchend", ({ touches, changedTouches: [last] }) => {
      const began = from;
      from = null;
      if (!began || touches.length) return;
      const x = last.clientX - began[0], y = last.clientY - began[1];
      if (Math.abs(x) > 60 && Math.abs(x) > 2 * Math.abs(y)) this.go(this.state.how + (x < 0 ? 1 : -1));
    });
  }

  // address and history -----------------------------------------------------------------------------------------

  url() { return here() + lessonHash(location.hash, { how: this.state.how, ...this.lesson.choice }); }

  remember(push) {
    if (!this.options.address || !addressed() || !this.lesson) return;
    const hash = lessonHash(location.hash, { how: this.state.how, ...this.lesson.choice });
    if (hash !== location.hash) history[push ? "pushState" : "replaceState"](history.state, "", here() + hash);
  }

  returned() {
    const { how, ...choice } = readLesson(location.hash);
    if (!this.lesson || how === undefined) return;
    if (how !== this.state.how) this.go(how, { history: false });
    if (Object.entries(choice).some(([name, value]) => this.lesson.choice[name] !== value)) this.choose(choice);
  }

  // what comes --------------------------------------------------------------------------------------------------

  async receive(value) {
    if (value?.qr) showLink(this, value.qr);
    if (value?.failed) this.answered(null);
    if (!value?.lesson) return;
    const asked = this.asked = Symbol();
    const lesson = typeof value.lesson === "string" ? await fetched(value.lesson) : value.lesson;
    if (asked !== this.asked) return;  // another one came meanwhile
    if (!lesson) return this.missed("The numbers did not come.", () => this.receive(value));
    const isOtherPicture = value.picture && value.picture !== this.shownPicture, before = this.lesson, { how } = this.state;
    const isElsewhere = isOtherPicture || (before && !same([before.model, before.grid], [lesson.model, lesson.grid]));
    if (isOtherPicture) {
      const photo = new Image();
      photo.src = value.picture;
      await photo.decode().catch(() => {});
      this.picture.photo = photo.naturalWidth ? photo : null;
      this.shownPicture = value.picture;
    }
    if (isElsewhere) this.forget();
    // then nothing that is being played with is taken away
    const isSame = before && same([before.choice, before.steps[how]], [lesson.choice, lesson.steps[how]]);
    this.lesson = lesson;
    this.opacity = lesson.colours.opacity;
    this.tables = { map: tableOf(lesson.colours.map), signed: tableOf(lesson.colours.signed) };
    this.state.how = Math.min(this.state.how, lesson.steps.length - 1);
    this.answered(isElsewhere || same(this.wanted, lesson.choice) ? null : this.wanted);
    this.node.classList.remove("is-waiting");
    if (!isSame) this.state.guesses = [];  // they were of other squares
    if (!isSame || !this.drawn) this.redraw();
    const { patch, layer, head } = this.state;  // what the address asks for, once
    if (before) this.remember(false);
    else this.choose(Object.fromEntries(Object.entries({ patch, layer, head }).filter(([, value]) => value !== undefined)));
    this.node.dispatchEvent(new CustomEvent("les-shown", { bubbles: true }));
  }

  forget() {  // what was done on another picture, or with another model
    Object.assign(this.state, { answers: {}, guesses: [], hover: -1 });
    this.picture.at = 0;
  }

  missed(words, again) {
    this.answered(null);
    this.status.replaceChildren(`${words} `, el("button", { type: "button", class: "les-button", onclick: again }, "Try again"));
  }

  redraw() {
    const { lesson, step, state } = this, count = lesson.steps.length, { activeElement: held } = document, mine = this.node.contains(held);
    this.chapter.textContent = `${step.chapter} · ${state.how + 1} of ${count}`;
    this.title.textContent = step.title;
    this.sentence.textContent = step.sentence;
    this.formula.textContent = this.revealed() ? step.formula : "";
    this.choices.layer.show(lesson.choice.layer, lesson.layers);
    this.choices.head.show(lesson.choice.head, lesson.heads);
    for (const name of BOTH) this.choices[name].node.hidden = !chosenIn(step).includes(name);
    this.question.replaceChildren(...[quiz(this, step)].filter(Boolean));
    const box = el("div", { class: "les-drawing" });
    this.draw.replaceChildren(box);
    this.picture.show(this.guessed());
    if (step.data.missing) box.append(line(step.data.missing));
    this.drawn = step.data.missing ? {} : DRAWINGS[step.name](box, step.data, this) ?? {};
    this.draw.hidden = !box.childNodes.length;
    this.more.replaceChildren(details(`The lines of ${step.file}`, el("pre", { tabIndex: 0 }, step.code)),
      details("Exact numbers", el("pre", { tabIndex: 0 }, JSON.stringify(step.data).slice(0, 20000))), details("For teachers", el("p", {}, step.note)));
    this.back.disabled = state.how === 0;
    this.next.disabled = state.how === count - 1;
    this.dots.replaceChildren(...lesson.steps.map((other, i) => el("li", {}, el("button", { type: "button", title: other.title,
      "aria-label": `${i + 1}: ${other.title}`, ...(i === state.how ? { "aria-current": "step" } : {}), onclick: () => this.go(i) }, `${i + 1}`))));
    const { points, of } = total(state.answers);
    this.score.textContent = of ? `${points} of ${of} points` : "";
    if (mine && (!held.isConnected || held.disabled)) this.title.focus({ preventScroll: true });  // what had the focus is gone
  }
}

// The JSON at an address; null where it does not come.
const fetched = (address) => fetch(address).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);

const details = (name, content) => el("details", {}, el("summary", {}, name), content);

export function mount(node, options = {}) {
  node.classList.add("les");
  node.setAttribute("role", "region");
  node.setAttribute("aria-label", "How it works, step by step");
  return new Lesson(node, options);
}

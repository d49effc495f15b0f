/* The page without a server: which model, which picture, which moment; the viewer shows what the engine finds. */

import { readAddress } from "../../viewer/js/address.js";
import { addressed, here } from "../../viewer/js/here.js";
import { unpack } from "../../viewer/js/bytes.js";
import { mount } from "../../viewer/js/mount.js";
import { askedOf, fitting, ofClips, urlOf } from "./asked.js";
import { Engine } from "./client.js";
import { sampled } from "./clips.js";
import { buttons, mark, pixelsOfExample } from "./examples.js";
import { Followed } from "./followed.js";
import { Maps } from "./maps.js";
import { Own } from "./own.js";
import { Player } from "./player.js";
import { listenToTabs, markTabs } from "./tabs.js";
import { Timeline } from "./timeline.js";
import { WordPage } from "./wordpage.js";
import { bytesOf, keep, pace, scriptOf, startWorker } from "./platform.js";

const LESSON = { label: "How does this work?", tab: "lesson" };
const byId = (id) => document.getElementById(id);
const alike = (one, other) => one === other || (one.stream && one.stream === other.stream);  // frames of one camera are one picture

class Page {
  constructor(site, engine) {
    this.site = site;
    this.engine = engine;
    this.turn = 0;  // counts choices: what a later one has overtaken is not shown
    this.settled = false;  // what is chosen is on the screen
    // what the choice under way asks for: the camera waits for it; what is on the screen; the last picture of the visitor's own
    this.wanted = this.shown = this.ours = null;
    this.now = { model: null, picture: null, moment: -1, words: null, edits: null };
    this.prepared = null;  // the picture as the model takes it
    this.chipTried = false;  // the worker has what a graphics chip needs
    this.stale = false;  // other weights were asked for since the last look: the engine forgets it
    this.options = {
      methods: site.methods, address: true, intervene: true, lesson: LESSON, tries: [LESSON],
      emit: (name, payload) => this.heard(name, payload), own: () => this.now.picture?.own ?? false,
    };
    this.viewer = mount(byId("viewer"), null, this.options);
    this.followed = new Followed(this, byId("lesson"));
    this.maps = new Maps(this);
    this.own = new Own(this);
    this.player = new Player(this, byId("play"));
    this.words = new WordPage(byId("words"), byId("where"), (words) => this.ask(words));
    this.build();
  }

  build() {
    const { models, pictures } = this.site;
    byId("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
    byId("model").onchange = (event) => this.choose({ model: event.target.value });
    byId("examples").replaceChildren(...buttons(pictures, (picture) => this.choose({ picture })));
    byId("moment").oninput = ({ target: { valueAsNumber: at, max } }) => this.choose({ moment: at < max ? at : -1 });  // the end: as trained
    byId("play").onclick = () => this.player.press();
    listenToTabs((tab) => this.open(tab));
    byId("viewer").addEventListener("vit-try", ({ detail }) => (detail.tab ? this.open(detail.tab) : this.choose({ moment: detail.moment })));
    addEventListener("popstate", () => location.search !== this.search && this.choose({ ...this.address(), view: readAddress() }, true));
    this.renewed = "";
    const live = new URLSearchParams(location.search).has("camera");
    this.choose(this.address(), true).then(() => live && this.own.watch(true));
  }

  // ---- what is chosen, and where the address says it

  address() {
    const { model, picture, tab, ...rest } = askedOf(this.site), own = history.state?.own && this.ours;
    Object.assign(this, { tab, search: location.search });
    return { ...rest, model: model.name, picture: picture ?? (own || fitting(this.site, model)) };
  }

  write() {
    const address = urlOf(this.now, this.tab), { own } = this.now.picture;
    if (addressed()) history[address === here() + location.hash ? "replaceState" : "pushState"]({ own }, "", address);
    this.search = location.search;
  }

  /* What is chosen, be it shown or on its way. */
  get coming() { return this.wanted ?? this.now; }

  /* Is what is on the screen what the engine is asked about? */
  get steady() { return this.now === this.shown && !this.stale; }

  /* view: the viewer's state at an address that is gone back to. unwritten: the address stays as it is. */
  async choose({ model: name, picture, moment, words, view, lacks = "" }, unwritten = false) {
    this.settled = false;
    this.followed.leave();
    if (picture) this.own.stop();
    const turn = ++this.turn, { coming: before, shown } = this, { models } = this.site;
    const model = models.find((each) => each.name === (name ?? before.model?.name)) ?? models[0];
    const told = name || model === this.now.model ? { moment, words } : {};  // else it is said of a model that goes
    const next = this.wanted = {
      model, picture: picture ?? fitting(this.site, model, before.picture, before.model), moment: told.moment ?? (name ? -1 : before.moment),
      words: told.words ?? (name ? null : before.words), edits: null,
    };
    next.words = model.described.words ? next.words ?? [...model.described.classNames.keys()] : null;
    if (next.picture.own) this.ours = next.picture;
    byId("model").value = model.name;
    if (name) this.player.stop();
    try {
      this.say(model !== this.now.model ? `Loading ${model.name} …` : "", false);
      await this.ready(turn, model, next);
      next.picture.pixels ??= await pixelsOfExample(next.picture);
      if (turn !== this.turn) return;
      if (this.own.camera.on && model === this.now.model) next.edits = this.now.edits;  // told until now
      this.now = next;
      this.prepared = next.picture.prepared?.get(model) ?? null;
      const another = shown && (model !== shown.model || !alike(next.picture, shown.picture) || String(next.words) !== String(shown.words));
      await this.look(turn, { another, view, unwritten });
      if (turn !== this.turn) return;
      this.marks();
      await this.maps.bring(turn).catch((error) => { lacks ||= error.message; });  // without them there is much to see
      if (turn !== this.turn) return;
      this.settled = true;
      this.say(lacks, false);
      await this.tryGpu().catch(() => {});  // without it all is there
      if (this.tab === "lesson") await this.followed.show();
    } catch (error) {
      if (turn !== this.turn) return;
      await this.back(turn);
      if (turn !== this.turn) return;
      this.say(error.message, true);
      if (this.tab === "lesson") await this.followed.show();  // a square may have been asked for meanwhile
    } finally {
      if (this.wanted === next) this.wanted = null;
    }
  }

  /* What is on the screen is what is chosen, and what the engine has. */
  async back(turn) {
    const { shown } = this;
    if (!shown) return;
    if (this.now !== shown) Object.assign(this, { now: shown, prepared: shown.picture.prepared.get(shown.model) });
    this.marks();
    await this.ready(turn, shown.model, shown).then(() => this.stale && this.look(turn, { unwritten: true })).catch(() => {});
    if (turn !== this.turn) return;
    this.settled = true;
    if (shown.edits) this.heard("edits", shown.edits);  // they may have been told meanwhile
  }

  /* Other words: of a picture that is looked at again, or of the next one that the camera shows. */
  async ask(words) {
    if (!this.own.camera.on) return this.choose({ words });
    this.now = { ...this.now, words };
    this.viewer.set({ target: -1 }, true);
    this.write();
    await this.engine.ask("words", { chosen: words });
  }

  /* The model and its weights of this moment are in the engine; one choice after another, a newer one first. */
  ready(turn, model, { moment, words }) {
    this.loading = (this.loading ?? Promise.resolve()).catch(() => {}).then(async () => {
      if (turn !== this.turn) return;
      if (this.opened !== model) await this.load(model);
      await this.weigh(model, moment);
      if (words) await this.engine.ask("words", { chosen: words });
    });
    return this.loading;
  }

  async load(model) {
    if (!model.about) {
      const { colormaps, words: vectors, ...fixed } = (await unpack(await bytesOf(model.constants))).arrays;
      model.about = { ...model.described, constants: { colormaps }, fixed, vectors };
    }
    if (model.slow) this.say(`${model.name} has ${Math.round(model.about.parameters / 1e6)} million parameters: each look takes some seconds here.`, false);
    const [graph, related, weights] = await Promise.all([model.graph, model.related, model.weights].map(bytesOf));
    this.unfolded = null;
    this.stale = true;  // what is asked from here on is asked of the other weights
    await this.engine.ask("open", { described: model.about, graph, related, weights, list: model.list, byChip: model.byChip }, [graph, related, weights]);
    this.opened = this.weighed = model;
  }

  async weigh(model, moment) {
    const from = moment < 0 ? model : model.moments[moment];
    if (this.weighed === from) return;
    const weights = await bytesOf(from.weights);
    this.unfolded = null;
    this.stale = true;
    await this.engine.ask("moment", { weights, list: from.list, described: model.about, trained: from === model }, [weights]);
    this.weighed = from;
  }

  /* The graph of all that happens on the way is open, with the weights of now: for the ledger and the lesson. */
  unfold() {
    const { model } = this.now, from = this.weighed;
    this.unfolding = (this.unfolding ?? Promise.resolve()).catch(() => {}).then(async () => {
      if (this.unfolded === from) return;
      const [graph, weights, outline] = await Promise.all([model.inside, from.weights, model.lesson].map(bytesOf));
      const described = JSON.parse(new TextDecoder().decode(outline));
      await this.engine.ask("unfold", { graph, weights, list: from.list, outline: described }, [graph, weights]);
      this.unfolded = from;
    });
    return this.unfolding;
  }

  /* Once for each model, where the page brings what a graphics chip needs and this browser reaches one. */
  async tryGpu() {
    const { site: { webgpu }, opened: model, prepared, weighed } = this;
    if (!webgpu || "byChip" in model) return;
    model.byChip = false;
    const chip = await navigator.gpu?.requestAdapter().catch(() => null);
    if (!chip || (chip.info?.isFallbackAdapter ?? chip.isFallbackAdapter)) return;  // a chip that is a program is slower
    const runtime = this.chipTried ? {} : { script: await scriptOf(webgpu.script), wasm: await bytesOf(webgpu.wasm) };  // the worker keeps it
    const weights = await bytesOf(weighed.weights), given = { ...runtime, weights, list: weighed.list, prepared: { image: prepared.image } };
    if (this.weighed !== weighed) return;
    const { faster } = await this.engine.ask("gpu", given, [weights, runtime.wasm].filter(Boolean));
    this.chipTried = true;
    if (faster) this.unfolded = null;
    model.byChip = faster;
  }

  // ---- looks

  /* The look at a picture, under way; of one that passes while something points at a patch, with what every head answers. */
  begin(pixels, prepared) {
    const { passing, viewer: { state: { layer, query }, hover }, now: { model: { about: { frames } } } } = this;
    const given = prepared ? { prepared } : { picture: frames ? sampled(pixels, frames) : pixels };
    return this.engine.look({ ...given, layer, all: passing && (hover.query ?? query) > 0 });
  }

  async look(turn, { another, view, unwritten, begun }) {  // begun: the look at this picture, where it is under way
    const { picture, model } = this.now, { pixels } = picture, { about, refused, moments } = model, { viewer } = this, ready = this.prepared;
    const timeline = !ofClips(model) && pixels.frames?.length > 1 ? new Timeline(this.engine, about, pixels, refused) : null;
    const { frame: wanted = 0 } = view ?? (another ? {} : viewer.state);
    const frame = timeline ? Math.max(0, Math.min(Math.round(wanted), timeline.moments.length - 1)) : 0;
    const look = await (begun ?? timeline?.at(frame) ?? this.begin(pixels, ready));
    if (turn !== this.turn) return (timeline ?? look).forget();
    const { kept: before, after, passing } = this;
    this.kept = timeline ?? look;
    this.after = null;  // of the one before
    this.timeline = timeline;
    this.shown = this.now;
    this.stale = false;
    (picture.prepared ??= new Map()).set(model, this.prepared = look.prepared);
    if (!unwritten && !begun) this.write();  // first: what was seen stays in the address of the picture that goes
    if (another) viewer.setTimeline([]);
    if (another && !view) viewer.set({ target: -1, patches: [], heads: [], frozen: -1 }, true);
    viewer.restore(view);
    this.options.tries = [...(moments.length ? [{ label: "What was it like when training began?", moment: 0 }] : []), LESSON];
    const shown = viewer.setSource(timeline ? timeline.moments[frame].source : { ...look.source, refused, passing });
    viewer.setTimeline(timeline?.moments ?? [], () => timeline.follow());
    await shown;
    before?.forget();
    after?.forget();
    if (turn !== this.turn) return;
    const places = this.now.words && await look.where();
    if (turn !== this.turn) return;
    if (places) this.words.show(places, look.prepared, viewer.data, about);
    if (!begun) this.say("", false);  // a frame of the camera takes nothing back
    byId("rate").textContent = `One look took ${Math.round(look.ms)} ms${model.byChip ? " by the graphics chip" : ""}.`;
  }

  /* Another frame of a clip is shown, which the model looked at by itself. */
  async moved({ frame }) {
    const { turn, viewer, timeline, shown, now: { model, words } } = this, look = await timeline?.at(frame);
    const current = () => turn === this.turn && frame === viewer.state.frame;
    if (!look || !current()) return;
    shown.picture.prepared.set(shown.model, this.prepared = look.prepared);
    if (this.tab === "lesson") this.followed.show();
    const places = words && await look.where();
    if (places && current()) this.words.show(places, look.prepared, viewer.data, model.about);
  }

  /* The picture as the model takes it, or this frame of a clip. */
  async preparedAt(frame) { return (await this.timeline?.at(frame))?.prepared ?? this.prepared; }

  async edit(edits) {
    const { turn, shown } = this, current = () => turn === this.turn && this.steady && shown.edits === edits;
    shown.edits = edits;
    if (!current()) return;  // what comes is told of them, if they hold there, and so is what is gone back to
    if (edits.patches.length === this.viewer.data.P) throw new Error("Leave at least one patch visible.");
    const none = !edits.patches.length && !edits.heads.length && !(edits.frozen >= 0);
    const look = none ? null : await this.engine.look({ prepared: await this.preparedAt(edits.frame), edits, layer: this.viewer.state.layer });
    if (!current()) return look?.forget();
    this.after?.forget();
    this.after = look;
    await this.viewer.setAfter(look && { ...look.source, passing: this.passing });
  }

  heard(name, payload) {
    if (name === "edits" && this.own.camera.on) this.shown.edits = this.now.edits = payload;  // the next picture is looked at so
    else if (name === "edits") this.edit(payload).catch((error) => { this.viewer.unanswered(); this.say(error.message, true); });
    if (name === "frame") this.moved(payload).catch((error) => this.say(error.message, true));
    if (name === "need_maps") this.maps.make(payload).catch((error) => this.say(error.message, true));
    if (name === "target") this.viewer.set({ target: payload.target }, true);
  }

  // ---- tabs

  open(tab) {
    if (this.tab === tab) return;
    this.tab = tab;
    if (tab === "lesson") {
      this.own.watch(false);
      this.viewer.pause();
    }
    if (!this.now.model) return;  // what is on its way will stand there
    this.write();
    this.marks();
    if (tab === "lesson") this.followed.show();
    else {
      this.followed.leave();
      this.viewer.set({}, true);  // what was hidden had no size
    }
  }

  // ---- words and marks

  say(text, wrong) {
    const renewed = (wrong || !text) && this.renewed;  // then what failed is of another page
    byId("said").textContent = renewed || text;
    byId("said").classList.toggle("site-error", wrong && !renewed);
  }

  renew(words) {
    this.renewed = words;
    this.say("", false);
  }

  marks() {
    const { model, picture, moment, words } = this.now, { moments } = model;
    this.words.mark(model, words);
    byId("model").value = model.name;
    markTabs(this.tab);
    this.own.mark(model);
    mark(byId("examples").children, picture);
    byId("moments").hidden = byId("play").hidden = !moments.length;
    byId("moment").max = moments.length;
    byId("moment").value = moment < 0 ? moments.length : moment;
    const at = moments[moment];
    byId("moment-name").textContent = at ? `step ${at.step.toLocaleString("en")}` : "as trained";
    byId("moment").setAttribute("aria-valuetext", byId("moment-name").textContent);
  }
}

async function begin() {
  try {
    const site = JSON.parse(new TextDecoder().decode(await bytesOf("site.json")));
    const engine = new Engine(await startWorker()), wasm = await bytesOf(site.runtime.wasm);
    await engine.ask("begin", { script: await scriptOf(site.runtime.script), wasm, threads: pace() }, [wasm]);
    window.vitSite = new Page(site, engine);
    keep((words) => window.vitSite.renew(words));
  } catch (error) {
    byId("said").textContent = error.message;
    byId("said").className = "site-error";
  }
}

begin();

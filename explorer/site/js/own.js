/* What a visitor brings: a picture or a clip by file, paste or drop, and the camera. */

import { Camera } from "./camera.js";
import { pixelsOfFile } from "./client.js";
import { clipKind } from "./clips.js";
import { decoded } from "./decode.js";
import { asClip, prepare } from "./pixels.js";

const HEAD = 4096;  // bytes that tell what a file is
const PACE = 8;  // frames a second that a model of clips is given of the camera
const byId = (id) => document.getElementById(id);
const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

export class Own {
  constructor(page) {
    // seen: the latest frames of the camera, {pixels, at, about, ready: as this model takes it}; ahead: the look that is under way while one is shown
    Object.assign(this, { page, frames: 0, seen: [], ahead: null });
    this.camera = new Camera(byId("video"), () => this.frame(), async (text) => {
      await this.watch(false);
      page.say(text, true);
    });
    byId("own").onclick = () => byId("file").click();
    byId("file").onchange = ({ target }) => { this.bring(target.files[0]); target.value = ""; };
    addEventListener("paste", (event) => this.bring([...event.clipboardData.files][0]));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => { event.preventDefault(); this.bring(event.dataTransfer.files[0]); });
    byId("camera").onclick = () => this.watch(byId("camera").getAttribute("aria-pressed") !== "true");
    addEventListener("keydown", (event) => {  // before the viewer, which would pin what it shows
      if (event.key !== "Enter" || !this.camera.on || event.target !== document.body) return;
      event.preventDefault();
      event.stopPropagation();
      this.watch(false);
    }, { capture: true });
  }

  async bring(file) {
    if (!file) return;
    const { page } = this;
    if (this.camera.on) await this.watch(false);
    const mine = this.bringing = {}, { picture } = page.coming, current = () => mine === this.bringing && picture === page.coming.picture;
    try {
      page.say(`Reading ${file.name || "the picture"} …`, false);
      const kind = clipKind(new Uint8Array(await file.slice(0, HEAD).arrayBuffer()));
      const pixels = kind ? await decoded(file, kind, page.site.clips) : await pixelsOfFile(file);
      const clip = pixels.frames?.length > 1;
      if (!current()) return;  // another was chosen meanwhile
      await page.choose({ picture: { own: true, name: "", label: file.name || "your picture", pixels, clip } });
    } catch (error) {
      if (current()) page.say(error.message, true);
    }
  }

  async watch(on) {
    const { page, camera } = this, watched = camera.on;
    if (!on) {
      this.stop();
      if (watched) await page.choose({});  // what is frozen is seen whole
      return;
    }
    page.open("explore");
    byId("camera").setAttribute("aria-pressed", "true");
    byId("camera").textContent = "Freeze (Enter)";
    if (!await camera.start()) return camera.asked || this.stop();  // it may have been asked for anew
    this.seen = [];
    this.at = 0;
    this.recording = setInterval(() => this.record(), 1000 / PACE);
  }

  stop() {
    clearInterval(this.recording);
    byId("camera").setAttribute("aria-pressed", "false");
    byId("camera").textContent = "Camera";
    this.camera.stop();
    this.leave();
    this.page.passing = false;
  }

  /* Each frame is made ready once, and is then one of several clips. */
  async record() {
    const { camera } = this, { about } = this.page.now.model ?? {};
    if (!about?.frames || camera.video.readyState < 2) return;
    const at = performance.now() / 1000, pixels = await camera.pixels();
    this.seen.push({ pixels, at, about, ready: prepare(pixels, about) });
    this.seen = this.seen.filter((each) => each.about === about).slice(-about.frames);
  }

  /* What the camera shows: [the picture of now], or [the clip of the last second or two, as the model takes it], if there
     is enough of it. */
  async shown() {
    const { about } = this.page.now.model, { seen } = this;
    if (!about.frames) return [await this.camera.pixels()];
    if (seen.length < about.frames || seen[0].about !== about) return [];
    const times = seen.map(({ at }) => at - seen[0].at);
    return [{ frames: seen.map(({ pixels }) => pixels), times }, asClip(seen.map(({ ready }) => ready), times)];
  }

  /* The look at what the camera shows now, under way, and what else it was begun with; null where there is too little, or
     where something was chosen meanwhile. */
  async take() {
    const { page } = this, [pixels, prepared] = await this.shown(), { model, moment, words } = page.now;
    if (!pixels || page.wanted) return null;
    const look = page.begin(pixels, prepared);
    look.catch(() => {});  // who waits for it hears of it
    return { pixels, look, model, moment, words };
  }

  /* What was taken ahead is not shown: something else was chosen. */
  leave() {
    this.ahead?.then(async (taken) => (await taken?.look)?.forget()).catch(() => {});
    this.ahead = null;
  }

  /* As fast as the machine allows: the next one is looked at while this one is painted. */
  async frame() {
    const { page } = this;
    if (page.wanted || !page.now.model) return this.leave();  // what is chosen meanwhile comes first
    let { turn } = page;
    try {
      const taking = this.ahead ??= this.take(), { pixels, look, ...begun } = await taking ?? {};
      if (taking !== this.ahead) return;  // it was left
      if (!pixels || page.wanted || ["model", "moment", "words"].some((name) => begun[name] !== page.now[name])) return this.leave();
      this.ahead = null;
      turn = ++page.turn;
      const before = this.at;
      this.at = performance.now();
      this.frames += 1;
      page.prepared = null;
      page.passing = true;
      page.now = { ...page.now, picture: { own: true, name: "", label: "camera", pixels, clip: !!pixels.frames, stream: this.camera.stream } };
      await page.look(turn, { begun: look });
      if (turn !== page.turn) return;
      this.ahead = this.take();  // what is wanted of this one has been asked for
      this.ahead.catch(() => {});  // the next frame hears of it
      const { edits } = page.now;  // they may have been told meanwhile
      if (edits) await page.edit(edits).then(painted);  // the next one shows the whole picture again
      if (before) byId("rate").textContent = `${(1000 / (this.at - before)).toFixed(1)} ${pixels.frames ? "clips" : "pictures"} a second.`;
    } catch (error) {
      if (turn !== page.turn) return;
      this.stop();
      await page.back(turn);
      if (turn !== page.turn) return;
      page.say(error.message, true);
    }
    page.marks();
    if (page.tab === "lesson") page.followed.show();  // it was opened meanwhile
  }

  /* What this model was made for comes first. */
  mark({ described: { frames } }) {
    byId("own").textContent = frames ? "Your own clip or picture" : "Your own picture or clip";
  }
}

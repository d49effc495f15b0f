/* "How it works" in the page: the lesson of the picture and the weights that are shown, made by the engine. */

import { mount } from "../../lesson/js/lesson.js";

export class Followed {
  constructor(page, node) {
    Object.assign(this, { page, turn: 0, prepared: null, weights: null, making: false });  // prepared, weights: what it was made of
    this.lesson = mount(node, { address: true, link: false, emit: (name, choice) => {
      if (name === "choose") this.choose(choice).catch(() => this.lesson.receive({ failed: true }));
    } });
  }

  /* What is followed is no longer what is shown: what is still on its way is dropped. */
  leave() {
    this.turn += 1;
    this.making = false;
  }

  /* Is it of what is shown? */
  get fits() { return this.prepared && this.prepared === this.page.prepared && this.weights === this.page.weighed; }

  async show() {
    const { page, lesson } = this, { prepared, weighed } = page;
    this.leave();
    if (!prepared) return;  // it is still being looked at
    const mine = this.turn, current = () => mine === this.turn;
    const ask = (name, rest) => page.engine.ask(name, rest);
    try {
      if (!this.fits) {
        Object.assign(this, { prepared: null, making: true });  // the engine follows the one before no more
        lesson.node.classList.add("is-waiting");
        lesson.status.textContent = "The lesson is being made.";
        await page.unfold();
        if (!current()) return;
        await ask("follow", { prepared: { image: prepared.image, pixels: prepared.pixels } });
        const picture = await addressOfPixels(prepared), made = await ask("lesson", { choice: lesson.choice ?? this.start() });
        if (current()) {
          Object.assign(this, { prepared, weights: weighed, missing: true, making: false });
          await lesson.receive({ lesson: made, picture });
        }
        URL.revokeObjectURL(picture);  // it has been read
        if (!current()) return;
      }
      if (!this.missing) return lesson.wanted && await this.choose(lesson.wanted);
      const logits = [];
      for (const pass of await ask("plan")) {  // one by one: another square may be chosen between two of them
        if (!current()) return;
        logits.push(await ask("pass", pass));
      }
      if (!current()) return;
      await ask("shared", { logits });
      if (!current()) return;
      await this.choose(lesson.choice);
      if (current()) this.missing = false;
    } catch (error) {
      if (!current()) return;
      Object.assign(this, { prepared: null, making: false });
      lesson.missed("The lesson could not be made.", () => {
        page.say("", false);
        this.show();
      });
      page.say(error.message, true);
    }
  }

  async choose(choice) {
    const { page } = this;
    if (!page.settled || this.making) return;  // it is of another picture, or will be
    if (!this.fits) return this.show();  // it could not be made, or the clip is at another frame
    const made = await page.engine.ask("lesson", { choice });
    await this.lesson.receive({ lesson: made });
  }

  start() {  // what is pinned in the viewer, else the middle of the picture, or what moves in the middle of a clip
    const { state, data } = this.page.viewer, patch = state.query - data.pre, { w, P, L } = data;
    const middle = data.t > 1 ? liveliest(this.page.prepared, data) : Math.floor(data.h / 2) * w + Math.floor(w / 2);
    return { patch: patch >= 0 && patch < P ? patch : middle, layer: state.pinned ? state.layer : Math.floor(L / 2), head: Math.max(0, state.head ?? 0) };
  }
}

// The patch of a clip's middle time in which most changes from frame to frame (explorer/lesson/follow.py).
export function liveliest({ image, size: [height, width], tubelet }, { t, h, w }) {
  const time = Math.floor(t / 2), frame = 3 * height * width, change = new Float32Array(h * w);
  for (let at = Math.max(0, time * tubelet - 1); at < (time + 1) * tubelet - 1; at++) {
    for (let i = 0; i < frame; i++) {
      const row = Math.floor(i / width) % height, place = Math.floor(row * h / height) * w + Math.floor(i % width * w / width);
      change[place] += Math.abs(image[(at + 1) * frame + i] - image[at * frame + i]);
    }
  }
  return time * h * w + change.indexOf(Math.max(...change));
}

// All frames side by side: of a picture one.
async function addressOfPixels({ pixels, size: [height, width] }) {
  const size = height * width, frames = pixels.length / (3 * size), canvas = new OffscreenCanvas(frames * width, height);
  for (let frame = 0; frame < frames; frame++) {
    const image = new ImageData(width, height);
    for (let i = 0, at = 3 * frame * size; i < size; i++, at += 3) image.data.set([pixels[at], pixels[at + 1], pixels[at + 2], 255], 4 * i);
    canvas.getContext("2d").putImageData(image, frame * width, 0);
  }
  return URL.createObjectURL(await canvas.convertToBlob());
}

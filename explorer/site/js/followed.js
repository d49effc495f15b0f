/* "How it works" in the page: the lesson of the picture and the weights that are shown, made by the engine. */

import { mount } from "../../lesson/js/lesson.js";

const OF_PICTURES = "The lesson follows a patch of a picture: choose a model that reads pictures.";

export class Followed {
  constructor(page, node) {
    Object.assign(this, { page, turn: 0, prepared: null, weights: null });
    this.lesson = mount(node, { address: true, link: false, emit: (name, choice) => name === "choose" && this.choose(choice) });
  }

  /* What is followed is no longer what is shown: what is still on its way is dropped. */
  leave() { this.turn += 1; }

  async show() {
    const { page, lesson } = this, { prepared, weighed } = page, mine = ++this.turn, current = () => mine === this.turn;
    if (!prepared) return;  // it is still being looked at
    if (page.now.model.described.frames) {
      lesson.node.classList.add("is-waiting");
      lesson.status.textContent = OF_PICTURES;
      return;
    }
    const ask = (name, rest) => page.engine.ask(name, rest);
    try {
      if (this.prepared !== prepared || this.weights !== weighed) {
        lesson.node.classList.add("is-waiting");
        lesson.status.textContent = "The lesson is being made from this picture.";
        await page.unfold();
        if (!current()) return;
        await ask("follow", { prepared: { image: prepared.image, pixels: prepared.pixels } });
        Object.assign(this, { prepared, weights: weighed, missing: true });
        const picture = await addressOfPixels(prepared), made = await ask("lesson", { choice: lesson.lesson?.choice ?? this.start() });
        if (!current()) return;
        await lesson.receive({ lesson: made, picture });
      }
      if (!this.missing) return;
      const logits = [];
      for (const pass of await ask("plan")) {  // one by one: another square may be chosen between two of them
        if (!current()) return;
        logits.push(await ask("pass", pass));
      }
      if (!current()) return;
      await ask("shared", { logits });
      this.missing = false;
      await this.choose(lesson.lesson.choice);
    } catch (error) {
      if (!current()) return;
      this.prepared = null;
      lesson.status.textContent = "";
      page.say(error.message, true);
    }
  }

  async choose(choice) {
    if (this.prepared !== this.page.prepared || this.weights !== this.page.weighed) return;  // it is of another picture
    const made = await this.page.engine.ask("lesson", { choice });
    await this.lesson.receive({ lesson: made });
  }

  start() {  // what is pinned in the viewer, else the middle of the picture in the middle layer
    const { state, data } = this.page.viewer, patch = state.query - data.pre, { w, P, L } = data;
    const middle = Math.floor(data.h / 2) * w + Math.floor(w / 2);
    return { patch: patch >= 0 && patch < P ? patch : middle, layer: state.pinned ? state.layer : Math.floor(L / 2), head: Math.max(0, state.head ?? 0) };
  }
}

async function addressOfPixels({ pixels, size: [height, width] }) {
  const canvas = new OffscreenCanvas(width, height), image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return URL.createObjectURL(await canvas.convertToBlob());
}

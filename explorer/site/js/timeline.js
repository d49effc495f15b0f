/* A clip in front of a model of pictures: each frame is a look of its own, made when it is first wanted and kept with the
   others, which share a basis of colours, and in which patches are found again: that wants them all, one by one. */

import { chosen } from "./clips.js";

const MOST = 16, BYTES = 640 * 2 ** 20;  // frames; their attention, all layers

export class Timeline {
  /* clip: {frames, times}. refused: as a source says it. */
  constructor(engine, about, { frames, times }, refused) {
    const { L, H, T } = about, few = Math.max(2, Math.floor(BYTES / (4 * L * H * T * T)));
    Object.assign(this, { engine, looks: [], gone: false });
    this.clip = chosen(frames.length, Math.min(MOST, few)).map((i) => ({ pixels: frames[i], time: times[i] }));
    this.moments = this.clip.map(({ time }, frame) => {
      const ask = (name) => async (layer) => (await this.at(frame)).source[name](layer);
      return {
        words: `time ${frame} · ${time.toFixed(2)} s`,
        source: {
          ...Object.fromEntries(["head", "layer", "related", "figures", "exact"].map((name) => [name, ask(name)])),
          embeddings: () => this.embeddings(frame), refused,
        },
      };
    });
  }

  /* The look at one frame; one that failed is made anew. */
  at(frame) {
    return this.looks[frame] ??= this.engine.look({ picture: this.clip[frame].pixels }).catch((error) => {
      delete this.looks[frame];
      throw error;
    });
  }

  /* The numbers under which the engine has all frames. */
  async keys() {
    const keys = [];
    for (const frame of this.clip.keys()) {
      this.check();
      keys.push((await this.at(frame)).key);
    }
    return keys;
  }

  check() {
    if (this.gone) throw new Error("Another picture was chosen.");
  }

  async embeddings(frame) {
    const among = await this.keys();
    return this.engine.ask("embeddings", { key: among[frame], among });
  }

  /* Where the patches of each frame are found again in the others, (F, F, P), as explorer/payload.py's follow_payload. */
  async follow() {
    const keys = await this.keys(), F = keys.length, rows = [];
    for (const [i, from] of keys.entries()) {  // one by one: what is shown comes in between
      this.check();
      const found = await this.engine.ask("matches", { from, keys: keys.slice(i) });
      found.forEach(([there, back], k) => Object.assign(rows, { [i * F + i + k]: there, [(i + k) * F + i]: back }));
    }
    const shape = [F, F, rows[0].length], matches = Int32Array.from(rows.flatMap((row) => [...row]));
    return { meta: { kind: "follow" }, arrays: { matches: Object.assign(matches, { shape }) } };
  }

  forget() {
    this.gone = true;
    for (const look of this.looks) look?.then(({ forget }) => forget(), () => {});
  }
}

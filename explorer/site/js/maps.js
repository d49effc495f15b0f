/* The maps of Methods in the page: those that have come along with a picture, and the ledger's, which the engine makes. */

import { mapsOf } from "./examples.js";

export class Maps {
  constructor(page) { this.page = page; }

  /* What has come along with the picture that is shown. */
  async bring(turn) {
    const { page, page: { now: { model, picture, moment, words } } } = this, file = moment < 0 && !picture.own && model.maps[picture.name];
    const maps = file && await mapsOf(file, words);
    if (maps && turn === page.turn) page.viewer.addMaps(maps);
  }

  /* A map that does not come along: the ledger's is made here, for any class. */
  async make({ method, target, frame = 0 }) {
    const { page, page: { engine, turn, viewer, now: { model: { about: { classNames }, refused }, words } } } = this;
    const current = () => turn === page.turn && page.steady && frame === viewer.state.frame;
    if (refused[method] || !current()) return;  // so the source says; what comes asks anew
    const index = target >= 0 ? target : viewer.data.classes[0].index;
    await page.unfold();
    if (!current()) return;
    const { image, length } = await page.preparedAt(frame);
    const map = await engine.ask("ledger", { prepared: { image, length }, target: index });
    if (!current()) return;
    viewer.addMaps({ meta: { kind: "maps", target: index, class_name: classNames[words ? words[index] : index] }, arrays: { logit_ledger: map } });
  }
}

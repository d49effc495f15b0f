/* Plays the training of the model that is shown: its moments one after another, until the button is pressed again. */

const PACE = 700;  // milliseconds of each moment, at least

export class Player {
  constructor(page, button) {
    Object.assign(this, { page, button, run: null, coming: null });  // run: the one that holds; coming: its latest moment, on its way or there
  }

  stop() { this.mark(null); }

  mark(run) {
    this.run = run;
    this.button.setAttribute("aria-pressed", String(!!run));
  }

  async press() {
    const mine = {}, { page, page: { now: { model: { moments } } } } = this;
    if (this.run) {
      this.stop();
      await this.coming;
      return page.settled && page.write();  // the address says where it stopped
    }
    this.mark(mine);
    for (let at = 0; at <= moments.length; at++) {
      const begun = performance.now();
      await (this.coming = page.choose({ moment: at < moments.length ? at : -1 }, at < moments.length));
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, PACE - (performance.now() - begun))));
      if (mine !== this.run) return;
    }
    this.stop();
  }
}

// Presenting: one thing on the whole screen, large, moved by a clicker; a black screen, a pen, a link for the class.

import { el } from "../../viewer/js/elements.js";

const NEXT = ["PageDown", "ArrowRight", " "], BACK = ["PageUp", "ArrowLeft"];

export class Presenter {
  constructor(view) {
    this.view = view;
    this.black = el("div", { class: "les-black", hidden: true });
    this.pen = el("canvas", { class: "les-pen", "aria-hidden": "true", hidden: true });
    this.hint = el("p", { class: "les-hint" }, "PageDown next · PageUp back · b black · f full screen · d draw · Esc leave");
    view.node.append(this.black, this.pen, this.hint);
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("resize", () => { if (!this.pen.hidden) this.draw(true); });  // what was drawn is somewhere else now
    this.draws();
  }

  get on() { return this.view.node.classList.contains("is-presenting"); }

  start() {
    this.view.node.classList.add("is-presenting");
    document.documentElement.classList.add("les-presented");
    this.view.node.requestFullscreen?.().catch(() => {});
    this.view.redraw();
    this.view.title.focus({ preventScroll: true });
  }

  stop() {
    this.view.node.classList.remove("is-presenting");
    document.documentElement.classList.remove("les-presented");
    this.black.hidden = this.pen.hidden = true;
    if (document.fullscreenElement) document.exitFullscreen?.();
    this.view.redraw();
  }

  key(event) {
    if (!this.on || event.ctrlKey || event.metaKey || event.altKey) return;
    const { view } = this, field = event.target.closest?.("input, summary, select"), button = event.target.closest?.("button");
    const paging = event.key.startsWith("Page");
    if (!paging && field && (event.key.startsWith("Arrow") || event.key === " ")) return;
    if (event.key === " " && button) return;
    if (NEXT.includes(event.key)) view.go(view.state.how + 1);
    else if (BACK.includes(event.key)) view.go(view.state.how - 1);
    else if (event.key === "Home") view.go(0);
    else if (event.key === "End") view.go(view.lesson.steps.length - 1);
    else if (event.key === "b" || event.key === ".") this.black.hidden = !this.black.hidden;
    else if (event.key === "f") (document.fullscreenElement ? document.exitFullscreen?.() : view.node.requestFullscreen?.())?.catch?.(() => {});
    else if (event.key === "d") this.draw(this.pen.hidden);
    else if (event.key === "Escape") this.stop();
    else return;
    event.preventDefault();
  }

  draw(on) {
    const { pen } = this, scale = globalThis.devicePixelRatio || 1;
    pen.hidden = !on;
    pen.width = innerWidth * scale;
    pen.height = innerHeight * scale;
    pen.getContext("2d").scale(scale, scale);
  }

  draws() {  // white under black: seen on any ground
    let from = null;
    const { pen } = this;
    const line = (to) => {
      const context = pen.getContext("2d");
      context.lineCap = "round";
      for (const [color, width] of [["#fff", 9], ["#c00000", 5]]) {
        context.strokeStyle = color;
        context.lineWidth = width;
        context.beginPath();
        context.moveTo(...from);
        context.lineTo(...to);
        context.stroke();
      }
      from = to;
    };
    pen.addEventListener("pointerdown", (event) => { pen.setPointerCapture(event.pointerId); from = [event.clientX, event.clientY]; });
    pen.addEventListener("pointermove", (event) => { if (from) line([event.clientX, event.clientY]); });
    for (const name of ["pointerup", "pointercancel"]) pen.addEventListener(name, () => { from = null; });
  }
}

// The link that opens every phone on this step, and its code to be photographed.
export function showLink(view, { url, qr }) {
  const box = el("dialog", { class: "les-dialog", "aria-label": "Class link" });
  const close = el("button", { type: "button", class: "les-button", onclick: () => box.close() }, "Close");
  const code = el("div", { class: "les-qr", role: "img", "aria-label": "QR code of the link" });
  code.innerHTML = qr;  // an SVG of squares that the server drew
  const local = /^https?:\/\/(localhost|127\.|\[::1\])/.test(url);
  box.append(el("h3", {}, "Open this step on your phone"), code, el("p", { class: "les-url" }, url),
    ...(local ? [el("p", {}, "This address works on this machine only: start the app with --host 0.0.0.0 or --share for others.")] : []), close);
  box.addEventListener("close", () => box.remove());
  view.node.append(box);
  box.showModal();
}

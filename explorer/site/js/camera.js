/* The camera as a stream of pictures: the next frame is taken when the last one has been looked at. */

import { pixelsOf } from "./client.js";

const MOST = 640;  // pixels on the longer side of a frame
const RGBA = { format: "RGBA", colorSpace: "srgb" };
const WORDS = {
  SecurityError: "A browser gives its camera to secure addresses only: open this page by https, or on the machine that serves it.",
  NotFoundError: "No camera was found: connect one, or choose a picture.",
  NotAllowedError: "The camera may not be used by this page: allow it in the browser, or choose a picture.",
  NotReadableError: "The camera is in use elsewhere: close the other program and try again.",
};

const ENDED = "The camera has ended: connect or allow it again, or choose a picture.";

/* onError: hears a sentence, where it does not start or ends by itself. */
export class Camera {
  constructor(video, onFrame, onError) {
    Object.assign(this, { video, onFrame, onError, on: false, asked: null });  // asked: the start that holds
  }

  /* -> whether it runs: the visitor may say no, or call it off before they have said yes. */
  async start() {
    const mine = this.asked = {}, off = () => mine !== this.asked;
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: MOST } });
      if (off()) return release(stream);
      for (const track of stream.getTracks()) track.onended = () => off() || this.onError(ENDED);
      this.stream = this.video.srcObject = stream;
      this.video.hidden = false;
      await this.video.play();
    } catch (error) {
      if (off()) return false;
      this.asked = null;
      this.onError(WORDS[error.name] ?? `The camera did not start (${error.name}): choose a picture.`);
      return false;
    }
    if (off()) return false;
    this.on = true;
    this.loop();
    return true;
  }

  async loop() {
    const mine = this.asked;
    while (this.on && mine === this.asked) {
      const painted = new Promise(requestAnimationFrame);  // of a page that nobody sees: never
      if (this.video.readyState >= 2) await this.onFrame();
      await painted;
    }
  }

  /* What it shows now, as `pixelsOf` has it. Copied, where that is the same: for each frame that is drawn, Chromium keeps
     megabytes for a while. */
  async pixels() {
    const { video, video: { videoWidth: width, videoHeight: height } } = this;
    return await copied(video, width, height).catch(() => null) ?? pixelsOf(video, width, height, MOST);
  }

  stop() {
    this.on = false;
    this.asked = null;
    if (this.stream) release(this.stream);
    this.video.hidden = true;
  }
}

function release(stream) {
  for (const track of stream.getTracks()) track.stop();
  return false;
}

/* null or a rejection where it takes a canvas to convert, to turn or to reduce this frame. Of I420 only: Chromium and Firefox
   copy it as they draw it (Firefox not so NV12), and the size tells whether a browser converts at all. */
async function copied(video, width, height) {
  const frame = new VideoFrame(video), { format, rotation, flip, visibleRect: seen } = frame, size = 4 * width * height;
  try {
    if (format !== "I420" || frame.allocationSize(RGBA) !== size || rotation || flip) return null;
    if (seen.width !== width || seen.height !== height || Math.max(width, height) > MOST) return null;
    const data = new Uint8ClampedArray(size);
    await frame.copyTo(data, RGBA);
    return { data, width, height };
  } finally {
    frame.close();
  }
}

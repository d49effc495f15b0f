/* The camera as a stream of pictures: the next frame is taken when the last one has been looked at. */

const WORDS = {
  SecurityError: "A browser gives its camera to secure addresses only: open this page by https, or on the machine that serves it.",
  NotFoundError: "No camera was found: connect one, or choose a picture.",
  NotAllowedError: "The camera may not be used by this page: allow it in the browser, or choose a picture.",
  NotReadableError: "The camera is in use elsewhere: close the other program and try again.",
};

export class Camera {
  constructor(video, onFrame, onError) {
    Object.assign(this, { video, onFrame, onError, on: false });
  }

  async start() {
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640 } });
    } catch (error) {
      this.onError(WORDS[error.name] ?? `The camera did not start (${error.name}): choose a picture.`);
      return;
    }
    this.video.srcObject = this.stream;
    this.video.hidden = false;
    await this.video.play();
    this.on = true;
    this.loop();
  }

  async loop() {
    while (this.on) {
      const painted = new Promise(requestAnimationFrame);  // of a page that nobody sees: never
      if (this.video.readyState >= 2) await this.onFrame(this.video);
      await painted;
    }
  }

  stop() {
    this.on = false;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.video.hidden = true;
  }
}

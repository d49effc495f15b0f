/* A clip's file -> its frames, by what the browser decodes: ImageDecoder for pictures that move, a video element that is
   sent from place to place for videos. Rejects with one sentence of `rules`, `clips` of site.json. */

import { pixelsOf, pixelsOfFile } from "./client.js";
import { chosen, isStill, moments, tooMuch } from "./clips.js";

const CANNOT = "This browser cannot take a moving picture apart: save the clip as MP4 or WebM.";
const SOON = 150;  // milliseconds in which a frame that is there is presented
const HIDDEN = 1000;  // milliseconds after which a page that is not painted is one that nobody sees

class ClipError extends Error {}

function check(clip, rules) {
  const why = tooMuch(clip, rules);
  if (why) throw new ClipError(why);
}

/* kind: as `clipKind` has it. -> {frames, times} */
export async function decoded(file, kind, rules) {
  let timer = 0;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new ClipError(rules.words.much)), 1000 * rules.patience);
  });
  try {
    return await Promise.race([kind === "video" ? video(file, rules) : animation(file, kind, rules), late]);
  } catch (error) {
    throw error instanceof ClipError ? error : new ClipError(rules.words.broken);
  } finally {
    clearTimeout(timer);
  }
}

async function animation(file, type, rules) {
  const data = await file.arrayBuffer();
  if (!self.ImageDecoder) {
    if (type !== "image/gif" || !isStill(new Uint8Array(data))) throw new ClipError(CANNOT);
    return { frames: [await pixelsOfFile(file, rules.largest)], times: [0] };
  }
  const decoder = new ImageDecoder({ data, type, colorSpaceConversion: "none", preferAnimation: true });
  try {
    await Promise.all([decoder.tracks.ready, decoder.completed]);
    const count = decoder.tracks.selectedTrack.frameCount, frames = [], times = [];
    check({ count }, rules);
    for (const frameIndex of chosen(count, rules.most)) {
      const { image } = await decoder.decode({ frameIndex });
      try {
        const { displayWidth: width, displayHeight: height } = image;
        check({ width, height }, rules);
        frames.push(pixelsOf(image, width, height, rules.largest));
        times.push(image.timestamp / 1e6);
      } finally {
        image.close();
      }
    }
    return { frames, times };
  } finally {
    decoder.close();
  }
}

async function video(file, rules) {
  const element = document.createElement("video"), address = URL.createObjectURL(file);
  try {
    const ready = once(element, "loadeddata");
    Object.assign(element, { muted: true, playsInline: true, preload: "auto", src: address });
    await ready;
    const { videoWidth: width, videoHeight: height } = element;
    if (!width) throw new ClipError(rules.words.empty);
    const seconds = await duration(element), frames = [], times = [];
    check({ width, height, seconds }, rules);
    for (const moment of moments(seconds, rules.most)) {
      const time = await seek(element, moment);
      if (times.at(-1) === time) continue;  // the frame that is there already: the clip has fewer than are kept
      frames.push(pixelsOf(element, width, height, rules.largest));
      times.push(time);
    }
    return { frames, times };
  } finally {
    element.removeAttribute("src");
    element.load();
    URL.revokeObjectURL(address);
  }
}

const once = (element, name) => new Promise((resolve, reject) => {
  element.addEventListener(name, resolve, { once: true });
  element.addEventListener("error", () => reject(element.error), { once: true });
});

const after = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

const painted = () => document.hidden || Promise.race([new Promise(requestAnimationFrame), after(HIDDEN)]);

/* In seconds. What was recorded in a browser does not say it until its end was looked for. */
async function duration(element) {
  if (!Number.isFinite(element.duration)) await seek(element, 1e9);
  return element.duration;
}

/* -> when the frame that is shown now begins, in seconds, where the browser tells it; else the moment that was asked. */
async function seek(element, moment) {
  const presented = new Promise((resolve) => {
    element.requestVideoFrameCallback?.((_, { mediaTime }) => resolve(mediaTime));
  });
  const sought = once(element, "seeked");
  element.currentTime = moment;
  await sought;
  const late = after(SOON).then(painted).then(painted);  // a busy page hears of a frame when it is painted again
  return Promise.race([presented, late.then(() => moment)]);
}

/* A picture's pixels -> what the model reads, as vit/pictures.py does it: resize, crop the middle, normalise.

   Resampling is Pillow's: each result pixel is a weighted mean of the pixels under a window that grows with the
   reduction (so that nothing aliases), across first, then down, rounded to 8 bits after each. */

import { halfEven } from "./vectors.js";

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

// name: [half width of the window, its weight at a distance]
const WINDOWS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {  // Keys 1981, a = -1/2
    const d = Math.abs(x);
    if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
    return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
  }],
  lanczos: [3, (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/* {tall, wide, box: [left, top, right, bottom]} in pixels of the picture: the middle that a model sees.
   size: [height, width]; cropPct: the share of the resized picture that the crop keeps. */
export function middle(pictureWidth, pictureHeight, [height, width], cropPct) {
  let tall = Math.floor(height / cropPct + 1e-6), wide = Math.floor(width / cropPct + 1e-6);
  if (pictureWidth * tall <= pictureHeight * wide) tall = Math.floor(wide * pictureHeight / pictureWidth);
  else wide = Math.floor(tall * pictureWidth / pictureHeight);
  const top = halfEven((tall - height) / 2), left = halfEven((wide - width) / 2);
  const y = pictureHeight / tall, x = pictureWidth / wide;
  return [left * x, top * y, Math.min((left + width) * x, pictureWidth), Math.min((top + height) * y, pictureHeight)];
}

// For every result pixel along one axis: where its window begins, and the weights from there on.
function windows(from, to, count, length, interpolation) {
  const scale = (to - from) / count;
  if (interpolation === "nearest") {
    return Array.from({ length: count }, (_, i) => [Math.min(length - 1, Math.floor(from + (i + 0.5) * scale)), [1]]);
  }
  const [half, weight] = WINDOWS[interpolation];
  const stretch = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - half * stretch + 0.5));
    const last = Math.min(length, Math.floor(centre + half * stretch + 0.5));
    const weights = [];
    for (let k = first; k < last; k++) weights.push(weight((k + 0.5 - centre) / stretch));
    const total = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((w) => w / total)];
  });
}

/* RGBA bytes of a whole picture -> RGB bytes (height, width, 3) of the part in `box`. */
export function resize(rgba, pictureWidth, pictureHeight, [height, width], box, interpolation) {
  const across = windows(box[0], box[2], width, pictureWidth, interpolation);
  const down = windows(box[1], box[3], height, pictureHeight, interpolation);
  const top = Math.min(...down.map(([first]) => first));
  const bottom = Math.max(...down.map(([first, weights]) => first + weights.length));
  const rows = new Uint8ClampedArray((bottom - top) * width * 3);  // rounds and clamps, as Pillow does between passes
  for (let y = top; y < bottom; y++) {
    for (let x = 0; x < width; x++) {
      const [first, weights] = across[x];
      let r = 0, g = 0, b = 0;
      for (let k = 0, at = (y * pictureWidth + first) * 4; k < weights.length; k++, at += 4) {
        r += weights[k] * rgba[at];
        g += weights[k] * rgba[at + 1];
        b += weights[k] * rgba[at + 2];
      }
      const at = ((y - top) * width + x) * 3;
      rows[at] = r;
      rows[at + 1] = g;
      rows[at + 2] = b;
    }
  }
  const pixels = new Uint8ClampedArray(height * width * 3);
  for (let y = 0; y < height; y++) {
    const [first, weights] = down[y];
    for (let i = 0; i < width * 3; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * rows[(first - top + k) * width * 3 + i];
      pixels[y * width * 3 + i] = sum;
    }
  }
  return pixels;
}

/* RGB bytes (height, width, 3) -> float32 (3, height, width), (x / 255 - mean) / std for each channel. */
export function normalise(pixels, mean, std) {
  const count = pixels.length / 3, image = new Float32Array(pixels.length);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < count; i++) image[c * count + i] = (pixels[i * 3 + c] / 255 - mean[c]) / std[c];
  }
  return image;
}

/* {image (3, height, width) float32, pixels (height, width, 3) bytes, size}: a picture as the model takes it. Of a clip,
   {frames, times}, see `asClip`. */
export function prepare(picture, about) {
  const known = new Map(), frames = picture.frames ?? [picture];  // of a clip that stands still one stands for all
  for (const { data, width, height } of frames) {
    if (known.has(data)) continue;
    const box = middle(width, height, about.imageSize, about.cropPct);
    const pixels = resize(data, width, height, about.imageSize, box, about.interpolation);
    known.set(data, { pixels, image: normalise(pixels, about.mean, about.std), size: about.imageSize, tubelet: about.tubelet });
  }
  return asClip(frames.map(({ data }) => known.get(data)), picture.times);
}

/* Frames that were prepared each by itself, as one clip: image (F, 3, height, width), pixels (F, height, width, 3), and its
   `times` and `tubelet`. */
export function asClip(frames, times) {
  const [image, pixels] = ["image", "pixels"].map((name) => joined(frames.map((frame) => frame[name])));
  return { ...frames[0], image, pixels, times };
}

export function joined(arrays) {
  const out = new arrays[0].constructor(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const each of arrays) {
    out.set(each, at);
    at += each.length;
  }
  return out;
}

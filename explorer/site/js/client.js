/* The page's side of the worker: promises, and looks as sources for the viewer. */

export class Engine {
  constructor(worker) {
    this.worker = worker;
    this.waiting = new Map();
    this.asked = this.looks = 0;
    worker.onmessage = ({ data: { id, answer, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(answer);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.failed = new Error("The model could not be started: this browser lacks WebAssembly or modules in workers. Try a current one.");
      for (const { reject } of this.waiting.values()) reject(this.failed);
      this.waiting.clear();
    };
  }

  ask(ask, rest = {}, transfer = []) {
    if (this.failed) return Promise.reject(this.failed);
    return new Promise((resolve, reject) => {
      const id = this.asked++;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ask, ...rest }, transfer);
    });
  }

  /* A look at a picture, {data (RGBA), width, height}, at a clip of as many frames as the model reads, or at one that is
     `prepared` already, under interventions. layer: the one that is seen first (-1: where the model opens); all: as are all others.
     -> {source, prepared, ms, forget()} */
  async look({ picture, prepared, edits, layer, all }) {
    const { shown: before, ...given } = prepared ?? {}, key = this.looks++;
    const { ms, head, layers, ...found } = await this.ask("look", { key, picture, prepared: prepared && given, edits, layer, all });
    const come = new Map(layers.map((message) => [message.meta.layer, message]));
    const ready = { ...given, ...found }, shown = before ?? await shownOf(ready);
    const part = (name) => (layer) => this.ask(name, { key, layer });
    return {
      key, ms, prepared: { ...ready, shown },
      forget: () => this.ask("forget", { key }),
      where: () => this.ask("where", { key }),  // of a tower: whereOf(...) of words.js
      source: {
        ...Object.fromEntries(["related", "figures", "exact", "embeddings"].map((name) => [name, part(name)])),
        head: async () => ({ ...head, arrays: { ...head.arrays, ...shown } }),
        layer: async (l) => come.get(l) ?? part("layer")(l),
      },
    };
  }
}

/* {image}, or of a clip {frames}, the first of every time, as bitmaps. */
async function shownOf({ pixels, size: [height, width], tubelet }) {
  const each = 3 * height * width, step = each * (tubelet ?? 1), frames = [];
  for (let at = 0; at < pixels.length; at += step) {
    frames.push(await createImageBitmap(opaque(pixels.subarray(at, at + each), [height, width])));
  }
  return tubelet ? { frames } : { image: frames[0] };
}

export function opaque(pixels, [height, width]) {  // RGB bytes -> what a canvas takes
  const image = new ImageData(width, height);
  for (let i = 0, from = 0; i < image.data.length; from += 3) {
    for (let c = 0; c < 3; c++) image.data[i++] = pixels[from + c];
    image.data[i++] = 255;
  }
  return image;
}

/* The pixels of an image, a video frame or a bitmap, transparency over white, at most `most` pixels on its longer
   side: {data, width, height}. A browser holds a large photograph, but not its copies. */
export function pixelsOf(drawable, width, height, most = 2048) {
  const scale = Math.min(1, most / Math.max(width, height));
  const w = Math.max(1, Math.round(width * scale)), h = Math.max(1, Math.round(height * scale));
  const canvas = new OffscreenCanvas(w, h), context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { fillStyle: "white", imageSmoothingQuality: "high" });
  context.fillRect(0, 0, w, h);
  context.drawImage(drawable, 0, 0, w, h);
  return { data: context.getImageData(0, 0, w, h).data, width: w, height: h };
}

/* A file that the visitor chose -> its pixels. Rejects with one sentence for what is no picture. */
export async function pixelsOfFile(blob, most) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    throw new Error("This file is not a picture, or of a kind that this browser cannot read: try JPEG, PNG or WebP.");
  }
  try {
    return pixelsOf(bitmap, bitmap.width, bitmap.height, most);
  } finally {
    bitmap.close();
  }
}

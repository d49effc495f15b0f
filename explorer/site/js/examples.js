/* The pictures that come with the page: to choose from, their pixels, and the maps that were made of them. */

import { unpack } from "../../viewer/js/bytes.js";
import { reach } from "../../viewer/js/elements.js";
import { pixelsOfFile } from "./client.js";
import { fromSheet } from "./clips.js";
import { addressOf, bytesOf } from "./platform.js";

export function buttons(pictures, choose) {
  return pictures.map((picture) => {
    const button = document.createElement("button"), image = new Image();
    Object.assign(button, { type: "button", title: picture.label, onclick: () => choose(picture) });
    button.dataset.picture = picture.name;
    image.alt = picture.label;
    addressOf(picture.thumb, "image/webp").then((address) => { image.src = address; });
    button.append(image);
    return button;
  });
}

export function mark(list, picture) {
  for (const button of list) {
    const pressed = !picture.own && button.dataset.picture === picture.name;
    button.setAttribute("aria-pressed", String(pressed));
    if (pressed) reach(button);
  }
}

/* The pixels of a picture that comes with the page; of a clip its frames. */
export async function pixelsOfExample({ file, clip }) {
  const pixels = await pixelsOfFile(new Blob([await bytesOf(file)]), Infinity);  // a sheet of frames is large
  return clip ? fromSheet(pixels, clip) : pixels;
}

/* Maps that come with the page: they explain one class; of words one of the table, which may not be asked for now. */
export async function mapsOf(file, words) {
  const { meta, arrays } = await unpack(await bytesOf(file)), target = words ? words.indexOf(meta.target) : meta.target;
  return { meta: { ...meta, target }, arrays };
}

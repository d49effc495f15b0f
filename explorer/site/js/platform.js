/* Where the page's files and its worker come from: beside the page, or, where everything is one file, inside it. */

import { fromBase64, inflate } from "../../viewer/js/bytes.js";

const inside = new Map([...document.querySelectorAll("script[data-path]")].map((element) => [element.dataset.path, element]));

/* The bytes of one of the page's files; what ends in .gz is unpacked. Rejects with one sentence. */
export async function bytesOf(path) {
  const raw = inside.has(path) ? fromBase64(inside.get(path).textContent) : await fetched(path);
  if (!path.endsWith(".gz")) return raw;
  try {
    return await inflate(raw);
  } catch {
    throw new Error(`A file of this page is damaged (${path}): copy the folder again.`);
  }
}

const FROM_DISK = "Opened from a disk, this page may not read its own files: run “python serve.py” in its folder, and open "
  + "the address that it prints.";

async function fetched(path) {
  if (location.protocol === "file:") throw new Error(FROM_DISK);
  const lost = () => { throw new Error(`${path} could not be fetched: check the connection, and reload.`); };
  const answer = await fetch(new URL(path, document.baseURI)).catch(lost);
  if (!answer.ok) throw new Error(`A file of this page is missing (${path}): copy the folder again.`);
  return answer.arrayBuffer().catch(lost);  // the rest may not come
}

/* An address that an element or an import can use. */
export async function addressOf(path, type) {
  if (!inside.has(path)) return new URL(path, document.baseURI).href;
  return URL.createObjectURL(new Blob([await bytesOf(path)], { type }));
}

export const startWorker = async () => new Worker(await addressOf("worker.js", "text/javascript"));

/* What the worker needs of the runtime's script: its address, or, where there is none, its text. */
export async function scriptOf(path) {
  return inside.has(path) ? { text: await bytesOf(path) } : { address: new URL(path, document.baseURI).href };
}

const RENEWED = "This page has been renewed since it was opened: reload it to go on with the new one.";

/* The page opens without a network from now on, if the browser keeps files. renewed: hears a sentence, once another export
   of the page has taken the place of this one. */
export function keep(renewed) {
  if (inside.size || !navigator.serviceWorker) return;
  const { serviceWorker } = navigator;
  let { controller: last } = serviceWorker;  // of a first visit none: then the first one is of this page
  serviceWorker.addEventListener("controllerchange", () => {
    if (last) renewed(RENEWED);
    last = serviceWorker.controller;
  });
  serviceWorker.register("sw.js").catch(() => {});
}

// Threads for the runtime: only an isolated page has memory that threads may share.
export const pace = () => (self.crossOriginIsolated ? Math.min(4, Math.max(1, (navigator.hardwareConcurrency ?? 2) - 1)) : 1);

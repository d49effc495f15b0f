/* Keeps what the page has fetched, so that it opens without a network from then on. The version is the content's:
   another export has another one, and the old files go. */

const VERSION = "vit-explorer-%VERSION%";
const FIRST = "%FIRST%".split(" ").map(decodeURI);

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(FIRST)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith("vit-explorer-") && name !== VERSION) await caches.delete(name);
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  const asked = event.request.mode === "navigate" ? new Request(new URL("./index.html", location).href) : event.request;
  event.respondWith((async () => {
    const cache = await caches.open(VERSION);
    const kept = await cache.match(asked, { ignoreSearch: true });
    if (kept) return kept;
    const answer = await fetch(event.request);
    if (answer.ok && answer.status === 200) await cache.put(asked, answer.clone());
    return answer;
  })());
});

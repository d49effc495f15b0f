/* Keeps what the page has fetched, so that it opens without a network from then on. The version is the content's:
   another export has another one, and the old files go. */

const OURS = `vit-explorer ${registration.scope} `, VERSION = `${OURS}%VERSION%`;  // other pages may live at the same host
const FIRST = "%FIRST%".split(" ").map((path) => new Request(decodeURI(path), { cache: "no-cache" }));  // not the last export's

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(FIRST)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith(OURS) && name !== VERSION) await caches.delete(name);
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  const asked = event.request.mode === "navigate" ? new Request(new URL("./", location).href) : event.request;
  event.respondWith((async () => {
    const cache = await caches.open(VERSION).catch(() => null);  // what cannot be kept is fetched each time
    const kept = await cache?.match(asked, { ignoreSearch: true });
    if (kept) return kept;
    const answer = await fetch(asked, { cache: "no-cache" });
    if (cache && answer.status === 200) event.waitUntil(cache.put(asked, answer.clone()).catch(() => {}));
    return answer;
  })());
});

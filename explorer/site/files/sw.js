/* Keeps what the page has fetched, so that it opens without a network from then on. The version is the content's:
   another export has another one, and the old files go. At the root of a host other things live, too: only what the
   export wrote is answered here. */

const OURS = `vit-explorer ${registration.scope} `, VERSION = `${OURS}%VERSION%`;  // other pages may live at the same host
const FIRST = "%FIRST%".split(" ").map((path) => new Request(decodeURI(path), { cache: "no-cache" }));  // not the last export's
const HOME = new URL("./", location).href, FIRSTS = new Set(FIRST.map(({ url }) => url));
const FOLDERS = ["models/", "pictures/", "runtime/"].map((name) => HOME + name);

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
  const { request } = event, [url] = request.url.split(/[?#]/), opens = request.mode === "navigate";
  const isOurs = opens ? [HOME, `${HOME}index.html`].includes(url) : FIRSTS.has(url) || FOLDERS.some((folder) => url.startsWith(folder));
  if (request.method !== "GET" || !isOurs) return;
  const asked = opens ? new Request(HOME) : request;
  event.respondWith((async () => {
    const cache = await caches.open(VERSION).catch(() => null);  // what cannot be kept is fetched each time
    const kept = await cache?.match(asked, { ignoreSearch: true });
    if (kept) return kept;
    const answer = await fetch(asked, { cache: "no-cache" });
    if (cache && answer.status === 200) event.waitUntil(cache.put(asked, answer.clone()).catch(() => {}));
    return answer;
  })());
});

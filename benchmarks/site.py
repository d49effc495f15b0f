"""The page without a server in headless Chromium, beside what the runtime alone takes.

    python benchmarks/site.py [--looks 16] [--seconds 10] [--models photos imagenette moves "random ViT-S/16"]

Alone: onnxruntime-web on a page of its own, the same files, the same graph, no viewer, right before and right
after; the mean of both. First visit: from the address to the first picture that can be explored, at 10 Mbit/s
and 20 ms (Chromium's own emulation), nothing kept from before; alone, to the first outputs. A look: another
picture that the page has is chosen, until it is on the screen. Repaint: a patch is hidden, until the answer
without it is drawn. Live: a camera that shows a test picture. Memory: the proportional share of the page's
process while it does. Frame by frame: a model of pictures is given a clip, until it has looked at all of
it. On a machine that is busy with other things all times are upper bounds; the ratios hold, as both sides of
each are slowed alike.
"""

import argparse
import http.server
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from explorer.site.folder import HERE, Shared, write_site  # noqa: E402
from explorer.site.pictures import Picture  # noqa: E402
from explorer.site.serve import Handler  # noqa: E402
from explorer.viewer.script import joined  # noqa: E402
from vit import ViT, ViTConfig, load  # noqa: E402
from vit.card import Card  # noqa: E402
from vit.clips import Clip  # noqa: E402
from vit.moves import FRAMES, moves_sample  # noqa: E402
from vit.shapes import shapes_sample  # noqa: E402

TIMES = tuple(i / 8 for i in range(FRAMES))  # seconds
SETTLED = "() => window.vitSite?.settled"
WHOLE = "() => vitSite.settled && vitSite.viewer.data.layers.every(Boolean)"
NETWORK = {"offline": False, "latency": 20, "downloadThroughput": 10e6 / 8, "uploadThroughput": 10e6 / 8}
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
ALONE = """<!doctype html><script>%s</script><script type="module">
const bytes = async (path) => {
  const raw = await (await fetch(path)).blob();
  return new Response(path.endsWith(".gz") ? raw.stream().pipeThrough(new DecompressionStream("gzip")) : raw).arrayBuffer();
};
const site = await (await fetch("site.json")).json(), model = site.models[0], { L, H, T, imageSize, frames = 1 } = model.described;
const dims = [1, ...(frames > 1 ? [frames] : []), 3, ...imageSize];
const [ort, wasm, graph, weights] = await Promise.all(
  [import("./" + site.runtime.script), bytes(site.runtime.wasm), bytes(model.graph), bytes(model.weights)]);
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, Math.max(1, navigator.hardwareConcurrency - 1)) : 1;
ort.env.wasm.wasmBinary = wasm;
const session = await ort.InferenceSession.create(new Uint8Array(graph), {
  executionProviders: ["wasm"], logSeverityLevel: 3, externalData: [{ path: "weights", data: weightsOf.expand(weights, model.list) }] });
const tensor = (size, dims, value) => new ort.Tensor("float32", new Float32Array(size).fill(value), dims);
window.look = async () => {
  const begun = performance.now(), out = await session.run({
    image: tensor(dims.reduce((a, b) => a * b), dims, 0.5), hidden: tensor(T, [T], 0), gate: tensor(L * H, [L, H], 1) });
  for (const each of Object.values(out)) each.dispose();
  return performance.now() - begun;
};
await look();
window.first = performance.now();
</script>"""  # noqa: E501


class Plain(Handler):
    """Without the headers that give a page threads."""

    def end_headers(self):
        http.server.SimpleHTTPRequestHandler.end_headers(self)


@contextmanager
def served(folder: Path, threads: bool) -> Iterator[str]:
    handler = partial(Handler if threads else Plain, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def model_named(name: str) -> Shared:
    if not name.startswith("random ViT-"):
        model, card = load(name)
        return Shared(name, model.cpu(), card)
    torch.manual_seed(0)
    variant = name.removeprefix("random ViT-")
    return Shared(variant.replace("/", "-"), ViT(ViTConfig.variant(variant)).eval(), Card(name))


def pictures(clips: bool) -> list[Picture]:
    """Four of the kind that the model was made for, then a clip."""
    moving = [Clip(frames, TIMES) for frames in (moves_sample(5, i)[0] for i in range(5))]
    still = [shapes_sample(5, i)[0].resize((320, 320)) for i in range(4)]
    shown: list[Image.Image | Clip] = [*moving] if clips else [*still, moving[4]]
    return [Picture(f"p{i}", f"p{i}", each) for i, each in enumerate(shown)]


def memory(browser_pid: int) -> float:
    """MB of the page: the proportional share of its process, the largest of the renderers that this browser
    has started. At times it holds another one ready, of 80 MB, for a page to come."""
    shares = [0]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            if b"--type=renderer" in line and browser_pid in ancestors(int(folder.name)):
                rolled = (folder / "smaps_rollup").read_text()
                shares.append(int(rolled.partition("Pss:")[2].split()[0]))
        except (OSError, IndexError):  # it has ended
            continue
    return max(shares) / 1024


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


@contextmanager
def visit(browser: Browser, url: str) -> Iterator[Page]:
    """A fresh visitor behind a line of 10 Mbit/s."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, service_workers="block")
    page = context.new_page()
    page.set_default_timeout(600_000)
    page.on("pageerror", lambda error: print("error on the page:", error, file=sys.stderr))
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", NETWORK)
    page.goto(url)
    yield page
    context.close()


def alone(browser: Browser, pid: int, url: str, looks: int) -> dict[str, float]:
    with visit(browser, url + "alone.html") as page:
        page.wait_for_function("() => window.first")
        first = page.evaluate("first") / 1000
        took = statistics.median(page.evaluate("look()") / 1000 for _ in range(looks))
        times = dict.fromkeys(("look", "repaint", "frame"), took)
        return {"first": first, **times, "live": 1 / took, "memory": memory(pid)}


# The message comes once the frame in which it was drawn has been presented (explorer/viewer/js/debug.js).
TIMED = """async ([act, done]) => {
  const begun = performance.now(), { port1, port2 } = new MessageChannel();
  act();
  do await new Promise(requestAnimationFrame); while (!done());
  await new Promise((resolve) => { port1.onmessage = resolve; port2.postMessage(0); });
  port1.close();
  return (performance.now() - begun) / 1000;
}"""
ANOTHER = """[() => { window.data = vitSite.viewer.data;
  document.querySelector('[data-picture="p%d"]').click(); },
  () => vitSite.viewer.data !== window.data && vitSite.viewer.data.layers[vitSite.viewer.state.layer]]"""
HIDE = """[() => { const { viewer } = vitSite; window.before = viewer.after;
  vitSite.heard("edits", { patches: [%d], heads: [] }); }, () => vitSite.viewer.after !== window.before]"""

FRAME_BY_FRAME = """async () => {
  const begun = performance.now();
  await vitSite.choose({ picture: vitSite.site.pictures[4] });
  const { length } = await vitSite.timeline.keys();
  return (performance.now() - begun) / 1000 / length;
}"""


def timed(page: Page, what: str) -> float:
    took: float = page.evaluate(f"() => ({TIMED})({what})")
    return took


def whole(browser: Browser, pid: int, url: str, looks: int, seconds: float) -> dict[str, float]:
    with visit(browser, url) as page:
        page.wait_for_function(SETTLED)
        first = page.evaluate("performance.now()") / 1000
        for i in (1, 2, 3, 0):  # the pictures come
            page.evaluate(f"vitSite.choose({{ picture: vitSite.site.pictures[{i}] }})")
        took = []
        for i in range(1, looks + 1):
            page.wait_for_function(WHOLE)
            took.append(timed(page, ANOTHER % (i % 4)))
        look = statistics.median(took)
        page.wait_for_function(WHOLE)
        repaint = statistics.median(timed(page, HIDE % (i + 3)) for i in range(looks))
        page.evaluate("vitSite.heard('edits', { patches: [], heads: [] })")
        page.evaluate("vitSite.own.watch(true)")
        page.wait_for_function("() => vitSite.own.frames >= 2")
        begun, frames = time.perf_counter(), page.evaluate("vitSite.own.frames")
        time.sleep(seconds)
        live = (page.evaluate("vitSite.own.frames") - frames) / (time.perf_counter() - begun)
        ours = {"first": first, "look": look, "repaint": repaint, "live": live, "memory": memory(pid)}
        page.evaluate("vitSite.own.watch(false)")
        if not page.evaluate("vitSite.now.model.described.frames"):
            ours["frame"] = page.evaluate(FRAME_BY_FRAME)
        return ours


ROWS = (
    ("first visit at 10 Mbit/s, s", "first", 1),
    ("a new look, s", "look", 2),
    ("hidden patch to repaint, s", "repaint", 2),
    ("pictures or clips a second, live", "live", 1),
    ("memory, MB", "memory", 0),
    ("a clip frame by frame, s a frame", "frame", 2),
)


def report(title: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    print(f"\n{title}\n\n| | page | runtime alone | ratio |\n| --- | ---: | ---: | ---: |")
    for label, key, digits in ROWS:
        if key not in ours:
            continue
        ratio = theirs[key] / ours[key] if key == "live" else ours[key] / theirs[key]
        print(f"| {label} | {ours[key]:.{digits}f} | {theirs[key]:.{digits}f} | {ratio:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["photos", "imagenette", "moves", "random ViT-S/16"])
    parser.add_argument("--looks", type=int, default=16, help="of which the median is taken")
    parser.add_argument("--seconds", type=float, default=10, help="that the camera is watched")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    for name in options.models:
        with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
            folder = Path(temporary)
            shared = model_named(name)
            write_site(folder, [shared], pictures(shared.model.config.is_clip))
            (folder / "alone.html").write_text(ALONE % joined([HERE / "js" / "weights.js"], "weightsOf"))
            for threads in (False, True):
                with served(folder, threads) as url:
                    browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS, *CAMERA])
                    pid = int(browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
                              ["processInfo"][0]["id"])  # fmt: skip
                    before = alone(browser, pid, url, options.looks)
                    ours = whole(browser, pid, url, options.looks, options.seconds)
                    after = alone(browser, pid, url, options.looks)
                    browser.close()
                # of the memory this browser holds more by then, whatever page it shows
                theirs = {key: (value + after[key]) / 2 for key, value in before.items()}
                theirs["memory"] = before["memory"]
                report(f"{name}, {'threads' if threads else 'one thread'}", ours, theirs)


if __name__ == "__main__":
    main()

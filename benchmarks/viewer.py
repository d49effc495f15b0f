"""The viewer in headless Chromium: hover to paint, cost of drawing, bytes, upload to first picture.

    python benchmarks/viewer.py [--hovers 300] [--uploads 5] [--skip-app]

Every move of the pointer redraws every head of every layer. Drawing is the viewer's own code; frame to paint
is from the start of the frame to after it was presented; event to paint starts at the event's time stamp and
includes waiting for the next frame. The first row is a page that fills one pixel: the floor of this machine
and browser. The second table sends pictures through the app, and moves a slider the usual way (slider,
Python, overlay, image component) with attention of the same size in the same browser. On a machine that is
busy with other things all times are upper bounds.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import serve  # noqa: E402
from explorer.payload import payloads  # noqa: E402
from explorer.viewer import viewer_html  # noqa: E402
from vit import ViT, ViTConfig, load, save, trace  # noqa: E402
from vit.card import Card  # noqa: E402
from vit.library import list_checkpoints  # noqa: E402

DEBUG = "window.vitDebug = true"  # what is measured: explorer/viewer/js/debug.js
READY = "window.__vit?.data && __vit.data.loaded === __vit.data.L && __vit.perf.first !== null"
RANDOM = {
    "S/16, 12 × 6 × 197": ViTConfig.variant("S/16", num_classes=10),
    "B/16, 12 × 12 × 197": ViTConfig.variant("B/16", num_classes=10),
}


def models() -> dict[str, ViT]:
    """The bundled checkpoints, and random models of the papers' sizes."""
    found = {}
    for name in list_checkpoints():
        model = load(name)[0]
        tokens = model.config.num_prefix_tokens + model.config.num_patches
        found[f"{name}, {model.config.depth} × {model.config.num_heads} × {tokens}"] = model
    for name, config in RANDOM.items():
        torch.manual_seed(0)
        found[name] = ViT(config).eval()
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))


def ms(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} / {percentile(values, 0.95):.1f}"


# ---- one page, no server ---------------------------------------------------------------------------


def hover(browser: Browser, model: ViT, hovers: int, folder: Path) -> tuple[tuple[str, ...], float, float]:
    """The times of `measure`, MB sent in all, and MB before the first picture."""
    image = torch.rand(model.config.input_shape()) * 2 - 1
    with torch.no_grad():
        head, embeddings, *layers = payloads(trace(model, image), Card(name="benchmark"), model)
    file = folder / "page.html"
    file.write_text(viewer_html(head, layers, embeddings), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.add_init_script(DEBUG)
    page.goto(file.as_uri())
    page.wait_for_function(READY, timeout=60_000)
    times = measure(page, hovers)
    sent = sum(map(len, layers)) + len(head)
    return times, sent / 1e6, (len(head) + len(layers[-1])) / 1e6


FLOOR = """<!doctype html><canvas class="vit-picture" width="540" height="540"></canvas><script>
const perf = {draw: [], work: [], hover: []};
const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
canvas.addEventListener("pointermove", (event) => requestAnimationFrame(() => {
  const start = performance.now(), channel = new MessageChannel();
  context.fillStyle = start & 1 ? "red" : "blue";
  context.fillRect(0, 0, 1, 1);
  perf.draw.push(performance.now() - start);
  channel.port1.onmessage = () => {
    perf.work.push(performance.now() - start);
    perf.hover.push(performance.now() - event.timeStamp);
  };
  channel.port2.postMessage(0);
}));
window.__vit = {perf};
</script>"""


def floor(browser: Browser, hovers: int) -> tuple[str, ...]:
    """The same for a page that fills one pixel."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_content(FLOOR)
    return measure(page, hovers)


def measure(page: Page, hovers: int) -> tuple[str, ...]:
    """Drawing, frame to paint, event to paint."""
    sweep(page, hovers // 5)  # compile and warm up
    page.evaluate("for (const kind of ['draw', 'work', 'hover']) __vit.perf[kind].length = 0")
    sweep(page, hovers)
    perf = page.evaluate("['draw', 'work', 'hover'].map((kind) => __vit.perf[kind])")
    page.close()
    return tuple(map(ms, perf))


def sweep(page: Page, hovers: int) -> None:
    """Move the pointer from patch to patch."""
    box = page.locator(".vit-picture").first.bounding_box()
    assert box
    for step in range(hovers):
        x, y = 0.01 + 0.98 * (step * 0.137 % 1), 0.01 + 0.98 * (step * 0.0731 % 1)
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(10)


# ---- the app ---------------------------------------------------------------------------------------


VIEWER = "document.querySelector('#viewer .vit-viewer')?.viewer"


def upload(browser: Browser, checkpoint: str, uploads: int, folder: Path) -> list[float]:
    """Milliseconds from the choice of a file to the first picture of it, each file another picture."""
    process, address = serve(["app.py", "--checkpoint", checkpoint])
    try:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(DEBUG)
        page.goto(address)
        page.wait_for_function(f"{VIEWER}?.perf.first", timeout=120_000)
        page.evaluate(
            "addEventListener('change', (event) => {"
            " if (event.target.type === 'file') window.started = performance.now(); }, true)"
        )
        times = []
        for number in range(uploads + 1):  # the first one warms up
            pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            file = folder / f"{number}.jpg"
            Image.fromarray(pixels).resize((640, 480)).save(file)
            page.evaluate(f"window.before = {VIEWER}.perf.pictures.length")
            if page.locator("#picture [aria-label=Clear]").count():
                page.locator("#picture [aria-label=Clear]").first.click()
            page.locator("#picture input[type=file]").first.set_input_files(file)
            page.wait_for_function(f"{VIEWER}.perf.pictures.length > window.before", timeout=60_000)
            times.append(page.evaluate(f"{VIEWER}.perf.pictures.at(-1) - window.started"))
            page.wait_for_timeout(1500)
        page.close()
        return times[1:]
    finally:
        process.terminate()
        process.wait()


USUAL = """
import sys
import gradio as gr
import numpy as np
from explorer.render import overlay
attn = np.load(sys.argv[1])
picture = np.load(sys.argv[2])
def show(query):
    return overlay(picture, attn[11, 0, int(query), 1:].reshape(14, 14))
with gr.Blocks() as demo:
    query = gr.Slider(0, 196, step=1, elem_id="query")
    image = gr.Image(elem_id="image")
    query.change(show, query, image, show_progress="hidden")
demo.launch()
"""
WAIT = """() => new Promise((done) => {
  const image = document.querySelector("#image img"), before = image?.src, start = performance.now();
  const slider = document.querySelector("#query input[type=range]");
  slider.value = (+slider.value + 7) % 197;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  slider.dispatchEvent(new Event("change", {bubbles: true}));
  slider.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
  const look = () => {
    const now = document.querySelector("#image img");
    if (!now || now.src === before || !now.complete) return requestAnimationFrame(look);
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done(performance.now() - start);
    channel.port2.postMessage(0);
  };
  look();
})"""


def usual(browser: Browser, hovers: int, folder: Path) -> list[float]:
    """Milliseconds from a slider's change to the picture that Python made of it."""
    attn = np.random.default_rng(0).dirichlet(np.ones(197), (12, 12, 197)).astype(np.float32)
    np.save(folder / "attn.npy", attn)
    np.save(folder / "picture.npy", np.full((560, 560, 3), 128, np.uint8))
    script = folder / "usual.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{USUAL}", encoding="utf-8")
    process, address = serve([str(script), str(folder / "attn.npy"), str(folder / "picture.npy")])
    try:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector("#query input[type=range]")
        times = [page.evaluate(WAIT) for _ in range(hovers)]
        page.close()
        return times[len(times) // 5 :]
    finally:
        process.terminate()
        process.wait()


def main(arguments: argparse.Namespace) -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {load:.1f}, headless Chromium {browser.version}")
        print("Milliseconds, median / p95; MB of all layers, and before the first picture\n")
        print("| layers × heads × tokens | drawing | frame to paint | event to paint | MB | MB, first |")
        print("|---|---|---|---|---|---|")
        print(
            "| one pixel, the floor | {} | {} | {} | | |".format(*floor(browser, arguments.hovers)),
            flush=True,
        )
        for label, model in models().items():
            times, sent, first = hover(browser, model, arguments.hovers, folder)
            print(f"| {label} | {' | '.join(times)} | {sent:.2f} | {first:.2f} |", flush=True)
        if arguments.skip_app:
            return
        print("\n| step | ms (median / p95) |\n|---|---|")
        torch.manual_seed(0)
        save(
            folder / "vit_b16",
            ViT(RANDOM["B/16, 12 × 12 × 197"]),
            Card(name="vit_b16", class_names=tuple("abcdefghij")),
        )
        for checkpoint in (*list_checkpoints(), str(folder / "vit_b16")):
            times = upload(browser, checkpoint, arguments.uploads, folder)
            print(f"| upload to first picture, {Path(checkpoint).name} | {ms(times)} |", flush=True)
        large = ViT(RANDOM["B/16, 12 × 12 × 197"]).eval()
        (_, _, paint), *_ = hover(browser, large, arguments.hovers, folder)
        times = usual(browser, max(20, arguments.hovers // 10), folder)
        print(f"| another query, the viewer, B/16 | {paint} |")
        print(f"| another query, slider → Python → overlay → gr.Image | {ms(times)} |")
        print(f"| ratio of the medians | {statistics.median(times) / float(paint.split(' / ')[0]):.1f} × |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hovers", type=int, default=300, help="pointer moves per model (default: 300)")
    parser.add_argument("--uploads", type=int, default=5, help="pictures per checkpoint (default: 5)")
    parser.add_argument("--skip-app", action="store_true", help="only the pages without a server")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a browser")
    main(parser.parse_args())

"""How long a phone waits for its first use on a slow line: 1 Mbit/s and 200 ms, by Chromium's own emulation.

    python benchmarks/first.py [--visits 5] [--late explorer/late.json]

From the address until something is written, until the picture with its answer and every head's map is there,
and until buttons answer; with the bytes that had come. Once by a browser that was never here, and once more
with what it has kept. The processor counts, too: on a machine that is busy all times are upper bounds.

--late FILE: instead write which of Gradio's files its page asks for before the picture, for
explorer/front.py: to be done when Gradio changes.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import serve  # noqa: E402  # after the path is set

LINE = {"offline": False, "latency": 200, "downloadThroughput": 1e6 / 8, "uploadThroughput": 1e6 / 8}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PATIENCE = 120_000  # milliseconds
MARKS = """window.marks = {};
document.addEventListener("vit-seen", () => { marks.seen ??= performance.now(); }, true);"""
WRITTEN = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
ANSWERS = """() => {  // a tab that is chosen opens
  const tab = document.getElementById("tab-about-button");
  if (tab?.ariaSelected === "true") return performance.now();
  tab?.click();
}"""
ROWS = {
    "something is written, s": "written",
    "picture, answer and all heads, s": "seen",
    "buttons answer, s": "answers",
    "bytes until the picture, kB": "bytes",
}


def open_page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(MARKS)
    return page


def visit(context: BrowserContext, url: str) -> dict[str, float]:
    page = open_page(context)
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", LINE)
    sent: list[float] = []
    line.on("Network.loadingFinished", lambda event: sent.append(event["encodedDataLength"]))
    page.goto(url, wait_until="commit")
    page.wait_for_function("() => window.marks?.seen")
    found = {"bytes": sum(sent) / 1000, "seen": page.evaluate("marks.seen") / 1000}
    found["answers"] = page.wait_for_function(ANSWERS, polling=50).json_value() / 1000
    found["written"] = page.evaluate(WRITTEN) / 1000
    page.close()
    return found


def late(browser: Browser, url: str) -> list[str]:
    """Scripts and looks of Gradio that its page asks for before the picture."""
    page, asked = open_page(browser.new_context(**PHONE)), []
    page.on("request", lambda request: asked.append(request.url.removeprefix(url).partition("?")[0]))
    page.goto(url)
    page.wait_for_function("() => window.marks?.seen")
    html = page.context.request.get(url).text()  # whose looks come at once
    looks = {name for name in asked if name.endswith(".css") and f'="./{name}"' in html}
    return [name for name in dict.fromkeys(asked) if name.startswith("assets/") and name not in looks]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--late", type=Path, default=None)
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    process, url = serve(["app.py"])
    url = url.rstrip("/") + "/"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium)
            if options.late:
                found = late(browser, url)
                options.late.write_text(json.dumps({"files": found}, indent=1) + "\n", encoding="utf-8")
                return
            new, again = [], []
            for _ in range(options.visits):
                context = browser.new_context(**PHONE)
                new.append(visit(context, url))
                again.append(visit(context, url))
                context.close()
    finally:
        process.terminate()
    print("| median (worst) | first visit | once more |\n| --- | ---: | ---: |")
    for name, key in ROWS.items():
        cells = [[found[key] for found in visits] for visits in (new, again)]
        said = [f"{statistics.median(cell):.1f} ({max(cell):.1f})" for cell in cells]
        print(f"| {name} | {' | '.join(said)} |")


if __name__ == "__main__":
    main()

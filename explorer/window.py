"""The page as a window of its own: Chromium and its kin show an address without tabs or an address bar."""

import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

# the programs that can, as they are called on a path,
PROGRAMS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
    "microsoft-edge", "microsoft-edge-stable", "msedge", "brave-browser",
)  # fmt: skip
# and where they lie on systems that put no program on a path
MAC = ("Google Chrome", "Microsoft Edge", "Chromium", "Brave Browser")
WINDOWS = (r"Google\Chrome\Application\chrome.exe", r"Microsoft\Edge\Application\msedge.exe")


def find_program() -> str | None:
    """A browser that can show a page as a window of its own, if this machine has one."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    places: list[Path] = []
    if sys.platform == "darwin":
        places = [Path(f"/Applications/{name}.app/Contents/MacOS/{name}") for name in MAC]
    elif sys.platform == "win32":
        roots = [os.environ.get(name) for name in ("ProgramFiles", "ProgramFiles(x86)", "LocalAppData")]
        places = [Path(root) / end for root in roots if root for end in WINDOWS]
    return next((str(place) for place in places if place.is_file()), None)


def open_window(url: str) -> str:
    """Show the page at this address in a window of its own, else in the default browser.

    Returns what there is to say of it in one sentence; nothing where it is a window.
    """
    program = find_program()
    if program:
        try:
            subprocess.Popen([program, f"--app={url}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return ""
        except OSError:  # found, and does not start
            pass
    if webbrowser.open(url):
        return "No Chromium, Chrome or Edge was found for a window of its own: see your usual browser."
    return f"No browser was found: open {url} yourself."

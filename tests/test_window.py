"""`python app.py --window`: a window of its own where a browser can, a sentence where none can."""

import sys
import webbrowser
from pathlib import Path

import pytest

from explorer import window

URL = "http://127.0.0.1:7860/"


def fake_browser(folder: Path, name: str, heard: Path) -> None:
    program = folder / name
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {heard}\n')
    program.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize("name", ["chromium", "microsoft-edge", "google-chrome-stable"])
def test_a_browser_that_can_shows_the_page_as_an_app(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = tmp_path / "heard"
    fake_browser(tmp_path, name, heard)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("the usual browser was opened, too"))
    started = []
    popen = window.subprocess.Popen
    monkeypatch.setattr(window.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)))
    assert window.open_window(URL) == ""
    assert started[0].wait(timeout=30) == 0
    assert heard.read_text() == f"--app={URL}"


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        (True, "No Chromium, Chrome or Edge was found for a window of its own: see your usual browser."),
        (False, f"No browser was found: open {URL} yourself."),
    ],
)
def test_without_one_it_is_the_usual_browser_and_a_sentence(
    opened: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(window, "MAC", ())
    monkeypatch.setattr(window, "WINDOWS", ())
    monkeypatch.setattr(webbrowser, "open", lambda url: asked.append(url) or opened)
    assert window.open_window(URL) == said
    assert asked == [URL]


def test_a_browser_that_does_not_start_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "chromium"
    broken.write_bytes(b"\0no program")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    assert window.open_window(URL).endswith("see your usual browser.")

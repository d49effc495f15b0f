"""Clips in the app, dropped on the page, hidden time by time, frozen, followed in the lesson."""

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import clip_config, randomised
from PIL import Image
from playwright.sync_api import Page, expect
from test_app_browser import CARD, COLOUR, READY, STATE, Visit, visit  # noqa: F401

from explorer.session import Session
from vit import ViT, save

pytestmark = pytest.mark.browser
t, h, w = 4, 3, 5
DROP = """(files) => {
  const transfer = new DataTransfer();
  for (const { name, type, data } of files) {
    transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
  }
  return transfer;
}"""
SHOWN = "({colour, before}) => JSON.stringify(eval(colour)()) !== JSON.stringify(before)"


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints") / "clips"
    save(folder, randomised(ViT(clip_config())), CARD)
    return Session(extra=(str(folder),))


def frames_of(colour: tuple[int, int, int], count: int = 12) -> list[np.ndarray]:
    """Of this colour, with a bright square that goes right."""
    frames = np.full((count, 48, 80, 3), colour, np.uint8)
    for i, frame in enumerate(frames):
        frame[16:32, 4 * i : 4 * i + 16] = 255
    return [*frames]


def film(folder: Path, kind: str, colour: tuple[int, int, int]) -> list[Path]:
    """The files of one clip: a GIF, an MP4 or its frames."""
    frames = frames_of(colour)
    if kind == "gif":
        first, *others = map(Image.fromarray, frames)
        first.save(folder / "a.gif", save_all=True, append_images=others, duration=100)
        return [folder / "a.gif"]
    if kind == "mp4":
        writer = cv2.VideoWriter(str(folder / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (80, 48))
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
        return [folder / "a.mp4"]
    files = [folder / f"{i}.png" for i in range(len(frames))]
    for file, frame in zip(files, frames):
        Image.fromarray(frame).save(file)
    return files


def drop(page: Page, files: list[Path]) -> None:
    """Let go of them over the picture; until the clip is shown."""
    before = page.evaluate(COLOUR)
    kinds = {".gif": "image/gif", ".mp4": "video/mp4", ".png": "image/png"}
    told = [
        {"name": file.name, "type": kinds[file.suffix], "data": base64.b64encode(file.read_bytes()).decode()}
        for file in files
    ]
    transfer = page.evaluate_handle(DROP, told)
    target = page.locator("#picture img, #picture button").first
    for event in ("dragenter", "dragover", "drop"):
        target.dispatch_event(event, {"dataTransfer": transfer})
    page.wait_for_function(SHOWN, arg={"colour": COLOUR, "before": before})
    page.wait_for_function(READY)


def test_clips_are_dropped_and_their_times_hidden_and_frozen(visit: Visit, tmp_path: Path) -> None:  # noqa: F811
    page = visit()
    for kind, colour in (("mp4", (200, 30, 30)), ("gif", (30, 160, 30)), ("frames", (30, 30, 200))):
        (tmp_path / kind).mkdir()
        drop(page, film(tmp_path / kind, kind, colour))
        assert np.argmax(page.evaluate(COLOUR)) == np.argmax(colour), kind
    slider = page.locator("#viewer").get_by_label("Time", exact=True)
    slider.fill("2")
    page.get_by_role("button", name="Intervene").click()
    page.get_by_role("button", name="Hide time 2").click()
    page.wait_for_function("() => document.querySelector('#viewer .vit-viewer').viewer.after")
    assert page.evaluate(STATE)["patches"] == [*range(2 * h * w, 3 * h * w)]
    page.get_by_role("button", name="Show time 2").click()
    assert page.evaluate(STATE)["patches"] == []
    page.get_by_role("button", name="Freeze at time 2").click()
    expect(page.locator("#viewer")).to_contain_text("it stands still at time 2")
    assert page.evaluate(STATE)["frozen"] == 2
    page.get_by_role("button", name="Let time run").click()
    assert page.evaluate(STATE)["frozen"] == -1
    page.get_by_role("tab", name="How it works").click()
    expect(page.locator("#lesson .les-dots li")).to_have_count(20)
    expect(page.locator("#lesson .les-left")).to_contain_text(
        re.compile(r"our square \(\d,\s\d\) at time\s2")
    )

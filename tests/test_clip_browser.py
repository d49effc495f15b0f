"""Clips in a real browser: frames of a model of clips side by side, time as an axis, what is done to it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from playwright.sync_api import Browser, Page, expect
from test_viewer import CARD, READY, assert_shows, settle

from explorer import maps, payload, stats
from explorer.viewer import viewer_html
from vit import ViT, trace
from vit.trace import Trace

pytestmark = pytest.mark.browser
t, h, w, PRE, L, H = 3, 3, 5, 1, 3, 4
TIMES = [0, 0.25, 0.5, 0.75, 1, 1.25]


@pytest.fixture(scope="module")
def found() -> Trace:
    torch.manual_seed(5)
    model = randomised(ViT(tiny_config(num_frames=6, tubelet=2)))
    seen = trace(model, torch.rand(6, 3, 12, 20) * 2 - 1)
    return replace(seen, attn=(2 * torch.randn(seen.attn.shape)).softmax(dim=-1))


@pytest.fixture(scope="module")
def file(found: Trace, tmp_path_factory) -> Path:
    rolled = maps.rollout_all(found)
    layers = [payload.layer_payload(found, layer, rollout=rolled[layer + 1]) for layer in range(L)]
    page = viewer_html(
        payload.head_payload(found, CARD, times=TIMES), layers, payload.embeddings_payload(found)
    )
    path = tmp_path_factory.mktemp("clip") / "clip.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, file: Path, request) -> Iterator[Page]:
    """The page, 1440 pixels wide or as the test asks; at the end it has not complained."""
    options = getattr(request, "param", {"viewport": {"width": 1440, "height": 900}})
    context, complaints = browser.new_context(**options), []
    context.add_init_script("window.vitDebug = true")
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_function(READY)
    settle(page)
    yield page
    context.close()
    assert complaints == []


def place_of(page: Page, frame: int, row: int, column: int) -> tuple[float, float]:
    """Where the middle of a patch is in the window."""
    page.locator(".vit-picture").first.scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([frame, row, column]) => {
          const {size} = __vit.layoutOf(), {strip, patch, dpr} = size, {w, h} = __vit.data;
          const box = document.querySelector(".vit-picture").getBoundingClientRect();
          const x = frame % strip.across * (w * patch + strip.gap) + (column + 0.5) * patch;
          const down = Math.floor(frame / strip.across) * (h * patch + strip.gap + strip.head);
          const y = strip.head + down + (row + 0.5) * patch;
          return [box.left + x / dpr, box.top + y / dpr];
        }""",
        [frame, row, column],
    )
    return x, y


def token(frame: int, row: int, column: int) -> int:
    return PRE + (frame * h + row) * w + column


def small_map(page: Page, layer: int, head: int) -> np.ndarray:
    """(t, h, w, 3): one head's colours."""
    rows = page.evaluate(
        """([row, column]) => {
          const {size, sheet, canvas} = __vit.layoutOf(), rows = [];
          const [x, y] = sheet.at(row * sheet.cols + column);
          const {tile, unit} = size, {w, h, t} = __vit.data, pen = canvas.getContext("2d");
          for (let f = 0; f < t; f++) for (let r = 0; r < h; r++) for (let c = 0; c < w; c++) {
            const left = f % tile.across * (w * unit + tile.gap) + (c + 0.5) * unit | 0;
            const top = Math.floor(f / tile.across) * (h * unit + tile.gap) + (r + 0.5) * unit | 0;
            rows.push([...pen.getImageData(x + left, y + top, 1, 1).data.slice(0, 3)]);
          }
          return rows;
        }""",
        [layer, head],
    )
    return np.array(rows).reshape(t, h, w, 3)


def test_pointing_at_a_patch_in_a_frame_asks_every_head_about_every_frame(opened: Page, found: Trace):
    for place in ((0, 1, 2), (2, 2, 4), (1, 0, 0)):
        opened.mouse.move(*place_of(opened, *place))
        settle(opened)
        for layer in range(L):
            for head in range(H):
                row = found.attn[layer, head, token(*place), PRE:].reshape(t, h, w)
                assert_shows(small_map(opened, layer, head), row, row.max().item())
    name = "patch (0,\u00a00) at time\u00a01"
    expect(opened.locator(".vit-readout")).to_contain_text(name)
    opened.mouse.move(*place_of(opened, 1, 0, 0))
    box = opened.locator(".vit-picture").first.bounding_box()
    assert box
    opened.mouse.click(box["x"] + 3, box["y"] + 3)  # on the name of a frame: no patch is there
    assert not opened.evaluate("__vit.state.pinned")


def test_the_large_picture_shows_the_head_in_every_frame(opened: Page, found: Trace):
    opened.evaluate(
        "__vit.set({fade: false, opacity: 1, layer: 1, head: 2, fuse: 'one', query: 20, pinned: true})"
    )
    settle(opened)
    pixels = opened.evaluate(
        """() => {
          const {size} = __vit.layoutOf(), {strip, patch} = size, {w, h, t} = __vit.data, found = [];
          const pen = document.querySelector(".vit-picture").getContext("2d");
          for (let f = 0; f < t; f++) for (let r = 0; r < h; r++) for (let c = 0; c < w; c++) {
            const x = f % strip.across * (w * patch + strip.gap) + c * patch + 0.5 * patch | 0;
            const down = Math.floor(f / strip.across) * (h * patch + strip.gap + strip.head);
            const y = strip.head + down + (r + 0.5) * patch | 0;
            found.push([...pen.getImageData(x, y, 1, 1).data.slice(0, 3)]);
          }
          return found;
        }"""
    )
    row = found.attn[1, 2, 20, PRE:].reshape(t, h, w)
    assert_shows(np.array(pixels).reshape(t, h, w, 3), row, row.max().item())


def test_keys_move_the_query_through_time_and_keep_its_place(opened: Page):
    opened.mouse.click(*place_of(opened, 0, 1, 2))
    for key, frame in ((".", 1), ("PageDown", 2), (".", 0), (",", 2), ("PageUp", 1)):
        opened.keyboard.press(key)
        assert opened.evaluate("__vit.state.query") == token(frame, 1, 2), key
    opened.keyboard.press("Shift+ArrowRight")
    assert opened.evaluate("__vit.state.query") == token(1, 1, 3)
    expect(opened.get_by_label("Time", exact=True)).to_have_value("1")


def test_time_is_played_and_named(opened: Page):
    slider = opened.get_by_label("Time", exact=True)
    expect(opened.locator(".vit-moment")).to_have_text("time 0 · 0.00 s")
    opened.get_by_role("button", name="Play through time").click()
    expect(slider).to_have_value("2")
    expect(opened.locator(".vit-moment")).to_have_text("time 2 · 1.00 s")
    expect(
        opened.get_by_role("button", name="Play through time")
    ).to_be_visible()  # it has stopped at the end
    slider.fill("1")
    assert opened.evaluate("Math.floor((__vit.state.query - 1) / 15)") == 1


def test_figures_know_time(opened: Page, found: Trace):
    opened.evaluate("__vit.set({layer: 1, head: 2, fuse: 'one'})")
    opened.get_by_role("button", name="More").click()
    for title in (
        "Distance in space",
        "Distance in time",
        "Share at its own time",
        "Attention over time lag",
    ):
        expect(opened.locator(".vit-chart h3", has_text=title)).to_be_visible()
    bars = "[...document.querySelectorAll('.vit-lag')].map((bar) => +bar.getAttribute('height'))"
    opened.wait_for_function(f"() => {bars}.some((height) => height > 0)")  # a chart is there before its bars
    heights = opened.evaluate(bars)
    shares = stats.lag_share(found)[1, 2].numpy()
    np.testing.assert_allclose(np.array(heights) / sum(heights), shares / shares.sum(), atol=1e-3)


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("opened", [PHONE], indirect=True)
def test_on_a_phone_frames_wrap_and_a_tap_picks(opened: Page):
    strip = opened.evaluate("__vit.layoutOf().size.strip")
    assert strip["down"] > 1
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.touchscreen.tap(*place_of(opened, 2, 1, 1))
    opened.wait_for_function(f"__vit.state.query === {token(2, 1, 1)} && __vit.state.pinned")
    opened.get_by_role("button", name="Heads", exact=True).tap()
    expect(opened.get_by_role("button", name="Answer", exact=True)).to_have_attribute("aria-pressed", "false")
    box = opened.get_by_role("button", name="Play through time").bounding_box()
    assert box and box["width"] >= 44 and box["height"] >= 44

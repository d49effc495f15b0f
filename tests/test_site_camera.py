"""The camera of the page without a server: read as a canvas has it, and without one where a browser can."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import site_pages
from firefox import Firefox
from playwright.sync_api import Browser, Page
from site_pages import READY, two_models, with_camera

pytestmark = pytest.mark.browser
url = site_pages.url
# a frame, read by the page and drawn here: [longer side, how often the page drew, levels between both]
READ = """async () => {
  const { camera, camera: { video } } = vitSite.own, kind = OffscreenCanvasRenderingContext2D.prototype, { drawImage } = kind;
  let draws = 0;
  kind.drawImage = function (...given) { draws++; drawImage.apply(this, given); };
  const { data, width, height } = await camera.pixels(), drawn = draws;
  const pen = Object.assign(new OffscreenCanvas(width, height).getContext("2d"), { imageSmoothingQuality: "high" });
  pen.drawImage(video, 0, 0, width, height);
  kind.drawImage = drawImage;
  const theirs = pen.getImageData(0, 0, width, height).data;
  return [Math.max(width, height), drawn, theirs.reduce((most, level, i) => Math.max(most, Math.abs(level - data[i])), 0)];
}"""  # noqa: E501
SEEN = "vitSite.own.frames > 2"
# the page has looked at its last frame and reads no other
DONE = """(async () => {
  const { own, own: { camera } } = vitSite;
  await new Promise((resolve) => { camera.onFrame = resolve; });
  camera.on = false;
  await own.ahead;
})()"""
# and no other comes: a paused video may show one more
STILL = """(async () => {
  const { video } = vitSite.own.camera, pen = new OffscreenCanvas(video.videoWidth, video.videoHeight).getContext("2d");
  const drawn = async () => {
    await new Promise((resolve) => setTimeout(resolve, 100));
    pen.drawImage(video, 0, 0);
    return pen.getImageData(0, 0, pen.canvas.width, pen.canvas.height).data.join();
  };
  video.pause();
  let last, now, tries = 0;
  do [last, now] = [now, await drawn()]; while (last !== now && ++tries < 600);
})()"""  # noqa: E501


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(tmp_path_factory.mktemp("camera"))


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    """That has watched a camera, which stands still."""
    with with_camera(browser) as other:
        page = other.new_page()
        page.set_default_timeout(90_000)
        page.goto(url)
        page.wait_for_function(READY)
        page.evaluate("vitSite.own.watch(true)")
        page.wait_for_function(f"() => {SEEN}")
        page.evaluate(DONE)
        page.evaluate(STILL)
        yield page


def test_a_frame_is_read_without_a_canvas(page: Page) -> None:
    assert page.evaluate(READ) == [640, 0, 0]


LACKS = {
    "no frames": "delete window.VideoFrame",
    "no copies": "VideoFrame.prototype.copyTo = () => Promise.reject(new DOMException())",
    "one format": "const { allocationSize } = VideoFrame.prototype;"
    "VideoFrame.prototype.allocationSize = function () { return allocationSize.call(this); }",
    "turned": "Object.defineProperty(VideoFrame.prototype, 'rotation', { get: () => 180 })",
    "opaque": "Object.defineProperty(VideoFrame.prototype, 'format', { get: () => null })",
}


@pytest.mark.parametrize("lack", LACKS)
def test_a_canvas_reads_what_cannot_be_copied(page: Page, lack: str) -> None:
    kept = "[VideoFrame, Object.getOwnPropertyDescriptors(VideoFrame.prototype)]"
    page.evaluate(f"() => {{ window.kept = {kept}; {LACKS[lack]}; }}")
    try:
        assert page.evaluate(READ) == [640, 1, 0]
    finally:
        page.evaluate(
            "() => { window.VideoFrame = kept[0]; Object.defineProperties(VideoFrame.prototype, kept[1]); }"
        )


def test_a_large_frame_is_reduced(page: Page) -> None:
    page.evaluate("vitSite.own.camera.video.play()")
    page.evaluate("vitSite.own.camera.stream.getTracks()[0].applyConstraints({ width: 1280, height: 720 })")
    page.wait_for_function("() => vitSite.own.camera.video.videoWidth === 1280")
    page.evaluate(STILL)
    assert page.evaluate(READ) == [640, 1, 0]


def test_in_firefox_too(url: str) -> None:
    with Firefox.start() as firefox:
        firefox.goto(url)
        firefox.wait_for("window.vitSite && vitSite.settled")
        firefox.evaluate("vitSite.own.watch(true)")
        firefox.wait_for(SEEN)
        firefox.evaluate(DONE)
        firefox.evaluate(STILL)
        side, _, apart = firefox.evaluate(f"({READ})()")
        assert side == 640 and apart == 0
        assert not firefox.log

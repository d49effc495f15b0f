"""Clips on the page without a server, in real browsers: they show what Python shows and ask no other host."""

import io
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import site_pages
import torch
from conftest import randomised, tiny_config
from firefox import Firefox
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from site_pages import ANSWERS, READY, answers, with_camera

from explorer.ledger import ledger
from explorer.payload import embeddings_payload, unpack
from explorer.site.folder import Shared, write_site
from explorer.site.onefile import packed
from explorer.site.pictures import Picture, open_any
from explorer.stats import frame_matches
from vit import ViT, load, trace
from vit.card import Card
from vit.checkpoint import list_snapshots, load_snapshot
from vit.clipdecoder import BROKEN, TOO_LARGE, TOO_LONG
from vit.clips import Clip
from vit.library import folder_of
from vit.moves import moves_sample
from vit.shapes import shapes_sample
from vit.trace import FreezeTime, MaskPatches, ZeroHeads

pytestmark = pytest.mark.browser
url, visit = site_pages.url, site_pages.visit
OWN = "() => vitSite.settled && vitSite.now.picture.label === %r"
TIMES = tuple(i / 8 for i in range(8))
STILL = shapes_sample(11, 3)[0].resize((90, 70), Image.Resampling.BICUBIC)


def clip(index: int) -> Clip:
    return Clip(moves_sample(5, index)[0], TIMES)


@pytest.fixture(scope="module")
def shared() -> Shared:
    model, card = load("moves")
    kept = list_snapshots(folder_of("moves"))[-2]
    return Shared("moves", model, card, [(kept.step, kept.path)])


@pytest.fixture(scope="module")
def lent() -> list[Picture]:
    clips = [Picture(f"moves-{i}", f"Clip {i}", clip(i)) for i in (0, 3, 7)]
    return [*clips, Picture("still", "A picture", STILL)]


@pytest.fixture(scope="module")
def tiny() -> Shared:
    torch.manual_seed(0)
    return Shared("tiny", randomised(ViT(tiny_config())), Card("tiny"))


@pytest.fixture(scope="module")
def site(shared: Shared, tiny: Shared, lent: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    bare = Shared("bare", randomised(ViT(tiny_config(num_classes=0))), Card("bare"))
    write_site(folder, [shared, tiny, bare], lent)
    return folder


def traced(shared: Shared, picture: Image.Image | Clip, **options):
    size = shared.card.size_for(shared.model.config)
    image = Picture("", "", picture).read_by(shared.model.config, shared.card, size)
    return trace(shared.model, image, **options)


def same_answer(found: list[list], shared: Shared, picture: Image.Image | Clip, **options) -> None:
    theirs = shared.card.probabilities(traced(shared, picture, **options).logits)
    assert len(found) == len(theirs)
    assert max(abs(value - float(theirs[index])) for index, value in found) < 1e-3


def gif(index: int, frames: int = 8) -> bytes:
    """A clip of these frames, which lie 120 ms apart, as a GIF with a palette of its own for each."""
    buffer, pictures = io.BytesIO(), [Image.fromarray(frame) for frame in moves_sample(5, index)[0][:frames]]
    options = dict(save_all=True, append_images=pictures[1:], duration=120, loop=0)
    pictures[0].save(buffer, "GIF", **options)
    return buffer.getvalue()


def webp(index: int) -> bytes:
    buffer, pictures = io.BytesIO(), [Image.fromarray(frame) for frame in moves_sample(5, index)[0]]
    options = dict(save_all=True, append_images=pictures[1:], duration=50, lossless=True)
    pictures[0].save(buffer, "WEBP", **options)
    return buffer.getvalue()


def webm(folder: Path) -> bytes:
    """40 frames at 20 a second that grow brighter."""
    file = folder / "written.webm"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"VP80"), 20, (96, 64))
    for i in range(40):
        writer.write(np.full((64, 96, 3), (6 * i, 3 * i, 100), np.uint8))
    writer.release()
    return file.read_bytes()


def as_python_reads(content: bytes, name: str, folder: Path) -> Image.Image | Clip:
    (folder / name).write_bytes(content)
    return open_any(folder / name)


def bring(page: Page, content: bytes, name: str) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})


def looked_at(page: Page, content: bytes, name: str) -> None:
    bring(page, content, name)
    page.wait_for_function(OWN % name)


def same_attention(page: Page, shared: Shared, picture: Image.Image | Clip) -> None:
    """What is read of a layer, and within its steps what is drawn of it."""
    page.wait_for_function("() => vitSite.viewer.data.layers[2]")
    exact = page.evaluate("vitSite.viewer.data.source.exact(2).then(({ arrays }) => [...arrays.exact])")
    drawn = "(({ attn, attn_max }) => [[...attn], [...attn_max]])(vitSite.viewer.data.layers[2])"
    steps, maxima = page.evaluate(drawn)
    theirs = traced(shared, picture).attn[2].numpy()  # (H, T, T)
    np.testing.assert_allclose(exact, theirs.ravel(), atol=5e-3)
    (H, T), maxima = theirs.shape[:2], np.array(maxima).reshape(*theirs.shape[:2], 2)
    scale = np.concatenate([maxima[..., :1], np.repeat(maxima[..., 1:], T - 1, -1)], -1)  # one prefix token
    ours = scale * (np.array(steps).reshape(H, T, T) / 255.0) ** 2
    bound = scale * (np.sqrt(theirs / np.maximum(scale, 1e-9)) / 255 + 1 / 510**2)
    assert (np.abs(ours - theirs) <= bound + 1e-3 + 0.01 * scale).all()


def test_what_comes_along_is_answered_and_looked_at_as_in_python(visit, shared: Shared, lent) -> None:
    page = visit()
    for each in lent:
        page.locator(f'[data-picture="{each.name}"]').click()
        page.wait_for_function(f"() => vitSite.settled && vitSite.now.picture.name === {each.name!r}")
        same_answer(answers(page), shared, each.picture)
        same_attention(page, shared, each.picture)
        shown = page.evaluate("(({ t, frames, times }) => [t, frames.length, times])(vitSite.viewer.data)")
        assert shown == [4, 4, [0, 0.25, 0.5, 0.75] if each.moves else None]
    expect(page.locator("#viewer")).to_contain_text("64 at each of 4 times")
    page.evaluate("vitSite.viewer.set({ mode: 'method', method: 'relevance' })")
    expect(page.locator(".vit-readout")).to_contain_text("strongest at")  # its maps came along


def test_own_clips_are_looked_at_as_in_python(visit, shared: Shared, tmp_path: Path) -> None:
    page = visit()
    brought = {"mine.gif": gif(11), "short.gif": gif(13, 3), "mine.webp": webp(14), "a.webm": webm(tmp_path)}
    for name, content in brought.items():
        theirs = as_python_reads(content, name, tmp_path)
        looked_at(page, content, name)
        assert isinstance(theirs, Clip)
        taken = page.evaluate("vitSite.now.picture.pixels.times")
        np.testing.assert_allclose(taken, theirs.times, atol=1e-6)
        if name == "a.webm":  # another decoder rounds otherwise
            read = page.evaluate("vitSite.now.picture.pixels.frames.map(({ data }) => [...data])")
            frames = np.array(read).reshape(len(theirs.times), *theirs.frames.shape[1:3], 4)[..., :3]
            assert np.abs(frames - theirs.frames.astype(int)).mean() < 2
            continue
        same_answer(answers(page), shared, theirs)
        same_attention(page, shared, theirs)
    buffer = io.BytesIO()
    STILL.save(buffer, "PNG")
    looked_at(page, buffer.getvalue(), "still.png")
    same_answer(answers(page), shared, STILL)
    looked_at(page, gif(12, 1), "one.gif")
    same_answer(answers(page), shared, as_python_reads(gif(12, 1), "one.gif", tmp_path))
    page.evaluate("delete self.ImageDecoder")  # which older browsers lack
    looked_at(page, gif(13, 1), "other.gif")
    same_answer(answers(page), shared, as_python_reads(gif(13, 1), "other.gif", tmp_path))
    bring(page, gif(13), "moving.gif")
    page_said(page, "This browser cannot take a moving picture apart: save the clip as MP4 or WebM.")


def test_a_busy_page_still_knows_when_a_frame_of_a_video_begins(visit, tmp_path: Path) -> None:
    page, content = visit(), webm(tmp_path)
    page.evaluate("""() => { const later = setTimeout;
        window.setTimeout = (act, after, ...rest) => { const timer = later(act, after, ...rest);
          if (after === 150) for (window.busy = performance.now(); performance.now() < busy + 200;);
          return timer; }; }""")
    looked_at(page, content, "a.webm")
    theirs = as_python_reads(content, "a.webm", tmp_path)
    assert isinstance(theirs, Clip)
    times = page.evaluate("window.busy && vitSite.now.picture.pixels.times")
    np.testing.assert_allclose(times, theirs.times, atol=1e-6)


def test_a_clip_that_cannot_be_taken_is_one_sentence(visit) -> None:
    page = visit()
    cut = gif(11)[:300]
    for content in (cut, b"GIF89a", b"\x1a\x45\xdf\xa3" + bytes(100), b"\0\0\0\x18ftypmp42" + bytes(100)):
        bring(page, content, "broken")
        page_said(page, BROKEN)
    page.evaluate("vitSite.site.clips.limits.frames = 7")
    bring(page, gif(11), "long.gif")
    page_said(page, TOO_LONG)
    page.evaluate("vitSite.site.clips.limits = { frames: 100, side: 63, seconds: 9 }")
    bring(page, gif(11), "large.gif")
    page_said(page, TOO_LARGE)
    assert page.evaluate("vitSite.now.picture.name") == "moves-0", "what was there stays"


def page_said(page: Page, sentence: str) -> None:
    expect(page.locator("#said")).to_have_text(sentence)
    page.evaluate("vitSite.say('', false)")


def after(page: Page, act: Callable[[], None]) -> list[list]:
    """What the model says once it has looked again."""
    page.evaluate("window.before = vitSite.viewer.after")
    act()
    page.wait_for_function("() => vitSite.viewer.after !== window.before")
    return page.evaluate(ANSWERS.replace("data.", "after?."))


def test_what_is_done_to_a_clip_is_done_as_in_python(visit, shared: Shared, lent: list[Picture]) -> None:
    page, picture = visit("?picture=moves-3"), lent[1].picture

    def press(name: str) -> Callable[[], None]:
        return page.get_by_role("button", name=name, exact=True).click

    press("Intervene")()
    page.locator("#viewer").press("ArrowRight")  # the middle of time 0, then of time 1 by a click
    found = after(page, press("Freeze at time 0"))
    same_answer(found, shared, picture, edits=(FreezeTime(0, 4),))
    found = after(page, press("Hide time 0"))
    edits = (MaskPatches(tuple(range(64)), 1), FreezeTime(0, 4))
    same_answer(found, shared, picture, edits=edits)
    found = after(page, press("Let time run"))
    same_answer(found, shared, picture, edits=edits[:1])
    found = after(page, press("Show time 0"))
    assert found is None


def test_a_place_is_hidden_at_every_time(visit, shared: Shared, lent: list[Picture]) -> None:
    page, picture = visit("?picture=moves-3"), lent[1].picture
    page.get_by_role("button", name="Intervene").click()
    page.get_by_text("At every time").click()
    page.evaluate("vitSite.viewer.set({ query: 20, pinned: true })")  # the place 19, behind one prefix token
    found = after(page, lambda: page.locator(".vit-picture").first.press("x"))
    hidden = tuple(19 + 64 * time for time in range(4))
    assert page.evaluate("vitSite.viewer.state.patches") == list(hidden)
    same_answer(found, shared, picture, edits=(MaskPatches(hidden, 1),))
    page.evaluate("vitSite.viewer.set({ query: 84, pinned: true })")  # the same place, at another time
    assert after(page, lambda: page.locator(".vit-picture").first.press("x")) is None


def test_the_ledger_and_a_moment_of_training_of_a_clip(visit, shared: Shared, tmp_path: Path) -> None:
    page = visit()
    looked_at(page, gif(11), "mine.gif")
    page.evaluate("vitSite.heard('need_maps', { method: 'logit_ledger', target: 3 })")
    page.wait_for_function("() => vitSite.viewer.data.maps.size")
    ours = np.array(page.evaluate("[...[...vitSite.viewer.data.maps.values()][0]]"))
    picture = as_python_reads(gif(11), "mine.gif", tmp_path)
    theirs = ledger(traced(shared, picture), shared.model, 3).map().flatten().numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-2 * np.abs(theirs).max())
    page.locator("#moment").fill("0")
    page.wait_for_function("() => vitSite.settled && vitSite.now.moment === 0")
    moment, card = load_snapshot(shared.snapshots[0][1])
    same_answer(answers(page), Shared("x", moment, card), picture)


def test_a_model_of_pictures_beside_it_begins_with_a_picture(visit) -> None:
    page = visit("?picture=moves-7")
    page.locator("#model").select_option("tiny")
    page.wait_for_function("() => vitSite.settled && vitSite.now.model.name === 'tiny'")
    assert page.evaluate("vitSite.now.picture.name") == "still"
    looked_at(page, gif(12, 1), "one.gif")
    assert page.evaluate("[vitSite.viewer.data.t, vitSite.timeline]") == [1, None]
    looked_at(page, gif(11), "mine.gif")
    expect(page.locator(".vit-moment")).to_have_text("time 0 · 0.00 s")
    page.locator("#model").select_option("moves")
    page.wait_for_function("() => vitSite.settled && vitSite.now.model.name === 'moves'")
    assert page.evaluate("[vitSite.now.picture.label, vitSite.viewer.data.t]") == ["mine.gif", 4]


def to_frame(page: Page, frame: int) -> None:
    page.get_by_role("slider", name="Time").fill(str(frame))
    page.evaluate(f"vitSite.timeline.at({frame}).then(({{ prepared }}) => {{ window.looked = prepared; }})")
    page.wait_for_function("() => vitSite.prepared === window.looked")
    page.wait_for_function(f"() => vitSite.viewer.data.source === vitSite.timeline.moments[{frame}].source")


def test_a_model_of_pictures_looks_at_a_clip_frame_by_frame_as_in_python(visit, tiny: Shared, lent) -> None:
    page = visit("?model=tiny&picture=moves-3#frame=2")
    frames = [Image.fromarray(frame) for frame in lent[1].picture.frames]
    expect(page.locator(".vit-moment")).to_have_text("time 2 · 0.25 s")
    same_answer(answers(page), tiny, frames[2])
    to_frame(page, 5)
    same_answer(answers(page), tiny, frames[5])
    same_attention(page, tiny, frames[5])
    edits, told = (MaskPatches((4,), 1), ZeroHeads(((1, 2),))), "{ patches: [4], heads: [[1, 2]], frame: 5 }"
    page.evaluate("vitSite.viewer.set({ patches: [4], heads: ['1.2'] })")
    found = after(page, lambda: page.evaluate(f"vitSite.heard('edits', {told})"))
    same_answer(found, tiny, frames[5], edits=edits)
    after(page, lambda: to_frame(page, 6))
    page.wait_for_function("() => vitSite.viewer.after")  # what is hidden is hidden there, too
    same_answer(page.evaluate(ANSWERS.replace("data", "after")), tiny, frames[6], edits=edits)
    page.evaluate("vitSite.heard('need_maps', { method: 'logit_ledger', target: 3, frame: 6 })")
    page.wait_for_function("() => vitSite.viewer.data.maps.size")
    ours = np.array(page.evaluate("[...[...vitSite.viewer.data.maps.values()][0]]"))
    theirs = ledger(traced(tiny, frames[6]), tiny.model, 3).map().flatten().numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-2 * np.abs(theirs).max())
    page.evaluate("vitSite.viewer.set({ mode: 'method', method: 'relevance' })")
    expect(page.locator(".vit-readout")).to_contain_text("it comes along for the example pictures only")


def test_the_lesson_follows_the_frame_that_is_shown(visit) -> None:
    page = visit("?model=tiny&picture=moves-3")
    page.get_by_role("button", name="Play through time").click()
    page.get_by_role("tab", name="How it works").click()
    assert page.evaluate("document.querySelector('.vit-play[title=Pause]')") is None
    page.evaluate("vitSite.viewer.set({ frame: 5 })")  # as one that was on its way
    page.evaluate("vitSite.timeline.at(5).then((look) => { window.look = look; })")
    page.wait_for_function("() => vitSite.followed.prepared === look.prepared && !vitSite.followed.missing")
    page.evaluate("vitSite.followed.lesson.choose({ patch: 1 })")
    page.wait_for_function("() => vitSite.followed.lesson.lesson.choice.patch === 1")


def test_after_a_look_that_failed_the_lesson_is_of_the_frame_that_is_shown(visit) -> None:
    page = visit("?model=tiny&picture=moves-3")
    to_frame(page, 3)
    page.evaluate("""() => { const { engine } = vitSite; engine.look = async () => {
        delete engine.look;
        throw new Error('No look.'); };
        return vitSite.choose({ picture: vitSite.site.pictures.find(({ clip }) => !clip) }); }""")
    expect(page.locator("#said")).to_have_text("No look.")
    assert page.evaluate("vitSite.viewer.state.frame === 3 && vitSite.prepared === window.looked")


def test_on_a_phone_a_clip_is_moved_through_under_its_frame(visit, tiny: Shared, lent) -> None:
    page = visit("?model=tiny&picture=still")
    page.set_viewport_size({"width": 200, "height": 800})
    page.get_by_role("group", name="Examples").get_by_role("button", name="Clip 3").click()
    page.wait_for_function("() => vitSite.settled && vitSite.timeline")
    to_frame(page, 4)  # the slider is there beside the answer
    same_answer(answers(page), tiny, Image.fromarray(lent[1].picture.frames[4]))
    page.evaluate("document.getElementById('examples').scrollLeft = 0")
    page.locator("#model").select_option("moves")
    page.wait_for_function("() => vitSite.settled && vitSite.viewer.data.t === 4")
    expect(page.get_by_role("slider", name="Time")).to_be_hidden()  # all times are on the screen
    page.evaluate("vitSite.choose({ picture: vitSite.site.pictures.at(-1) })")
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'still'")
    chosen = page.locator("#examples [aria-pressed=true]")
    box, row = chosen.bounding_box(), page.locator("#examples").bounding_box()
    assert box and row and box["x"] + box["width"] <= row["x"] + row["width"]


def test_frames_share_their_colours_and_patches_are_followed(visit, tiny: Shared, lent) -> None:
    page = visit("?model=tiny&picture=moves-3")
    traces = [traced(tiny, Image.fromarray(frame)) for frame in lent[1].picture.frames]
    to_frame(page, 3)
    page.evaluate("vitSite.viewer.set({ mode: 'embeddings' })")
    page.wait_for_function("() => vitSite.viewer.data.pca_joint")
    theirs, _ = unpack(embeddings_payload(traces[3], tiny.model, (traces, 3)))
    for name in ("pca_joint", "pca_depth"):
        ours = np.array(page.evaluate(f"[...vitSite.viewer.data.{name}]"))
        assert np.abs(ours - theirs[name].ravel().astype(int)).mean() < 1.5
    ours = page.evaluate("vitSite.timeline.follow().then(({ arrays }) => [...arrays.matches])")
    theirs = frame_matches(torch.stack([each.tokens[-1, 1:] for each in traces])).flatten().numpy()
    assert (np.array(ours) == theirs).mean() > 0.97  # in half precision two may change places
    page.evaluate("vitSite.viewer.set({ mode: 'attention', query: 8, pinned: true })")
    page.wait_for_timeout(300)
    to_frame(page, 4)
    assert page.evaluate("vitSite.viewer.state.query") == 1 + theirs.reshape(8, 8, 15)[3, 4, 7]
    page.locator(".vit-picture").first.press("t")  # plays to the end
    page.wait_for_function("() => vitSite.viewer.state.frame === 7")
    page.wait_for_function("() => vitSite.viewer.data.source === vitSite.timeline.moments[7].source")
    same_answer(answers(page), tiny, Image.fromarray(lent[1].picture.frames[7]))


def test_what_a_model_refuses_is_said_where_it_would_be_chosen(visit) -> None:
    page = visit("?model=bare")
    page.evaluate("vitSite.viewer.set({ mode: 'method' })")
    said = page.locator(".vit-readout")
    for method in ("relevance", "logit_ledger"):
        page.get_by_role("combobox", name="Method").select_option(method)
        expect(said).to_contain_text("explains a class, and this model has no classification head.")
    page.get_by_role("combobox", name="Method").select_option("rollout")
    expect(said).to_contain_text("strongest at")  # it came along
    page.get_by_role("combobox", name="Method").select_option("pooling_attention")
    expect(said).to_contain_text("of models that pool by attention, and this one reads its class token.")
    page.locator("#model").select_option("moves")
    page.wait_for_function("() => vitSite.settled && vitSite.now.model.name === 'moves'")
    page.get_by_role("combobox", name="Method").select_option("relevance")
    expect(said).to_contain_text("strongest at")
    page.evaluate("vitSite.viewer.set({ target: 3 })")
    expect(said).to_contain_text("comes along for the examples only, and of these for what the trained model")
    for width in (390, 820, 1440):  # and can be read to its end
        page.set_viewport_size({"width": width, "height": 800})
        expect(said).to_be_visible()
        assert said.evaluate("(node) => node.scrollHeight - node.clientHeight") <= 1


def test_the_camera_is_a_clip_until_it_is_frozen(browser: Browser, url: str) -> None:
    with with_camera(browser) as other:
        page = other.new_page()
        page.set_default_timeout(90_000)
        page.goto(url)
        page.wait_for_function(READY)
        page.locator("#camera").click()
        expect(page.locator("#rate")).to_contain_text("clips a second", timeout=90_000)
        page.locator("#camera").click()
        page.wait_for_function("() => vitSite.settled && vitSite.viewer.data.layers.every(Boolean)")
        times = page.evaluate("vitSite.now.picture.pixels.times")
    assert len(times) == 8 and times == sorted(times) and times[-1] > 0.5


def bring_to(firefox: Firefox, content: bytes, name: str) -> None:
    bytes_of = f"Uint8Array.from(atob('{b64encode(content).decode()}'), (c) => c.charCodeAt(0))"
    firefox.evaluate(f"vitSite.own.bring(new File([{bytes_of}], '{name}'))")


def in_firefox(firefox: Firefox, address: str, shared: Shared, lent: list[Picture], folder: Path) -> None:
    firefox.goto(address)
    firefox.wait_for(READY.removeprefix("() => "))
    same_answer(firefox.evaluate(ANSWERS), shared, lent[0].picture)
    bring_to(firefox, gif(11), "mine.gif")
    theirs = as_python_reads(gif(11), "mine.gif", folder)
    same_answer(firefox.evaluate(ANSWERS), shared, theirs)
    firefox.evaluate("vitSite.edit({ patches: [5, 69], heads: [], frozen: 2 })")
    firefox.wait_for("vitSite.viewer.after")
    edits = (MaskPatches((5, 69), 1), FreezeTime(2, 4))
    same_answer(firefox.evaluate(ANSWERS.replace("data", "after")), shared, theirs, edits=edits)
    assert not firefox.log


def test_in_firefox_too(url: str, shared: Shared, lent: list[Picture], tmp_path: Path) -> None:
    with Firefox.start() as firefox:
        in_firefox(firefox, url + "?picture=moves-0", shared, lent, tmp_path)
        content = webm(tmp_path)
        bring_to(firefox, content, "a.webm")
        seen = firefox.evaluate("vitSite.now.picture.pixels.frames.map(({ data }) => [...data.slice(0, 3)])")
        theirs = as_python_reads(content, "a.webm", tmp_path)
        assert isinstance(theirs, Clip)
        assert np.abs(np.array(seen)[[0, -1]] - theirs.frames[[0, -1], 0, 0].astype(int)).max() < 8
        assert all(request.startswith((url, "blob:", "data:")) for request in firefox.requests)


def test_one_file_shows_clips_from_a_disk(
    browser: Browser, site: Path, shared: Shared, lent, tmp_path: Path
) -> None:
    file = tmp_path / "one.html"
    packed(site, file)
    page = browser.new_context(offline=True).new_page()
    page.set_default_timeout(90_000)
    page.goto(file.as_uri())
    page.wait_for_function(READY)
    same_answer(answers(page), shared, lent[0].picture)
    looked_at(page, gif(11), "mine.gif")
    same_answer(answers(page), shared, as_python_reads(gif(11), "mine.gif", tmp_path))
    with Firefox.start() as firefox:
        in_firefox(firefox, file.as_uri(), shared, lent, tmp_path)
        assert [request for request in firefox.requests if request.startswith("http")] == []

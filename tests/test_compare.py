"""The Compare page: two pictures in front of one model, what is carried from one into the other, what is in
the address, one spot on a phone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from conftest import kept, randomised, tiny_config
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from test_app import button, handler, pointed, visitor

from explorer import pairs as compared
from explorer import patching, ui
from explorer.payload import unpack
from explorer.render import number
from explorer.session import Session
from explorer.views import compare, pairs
from explorer.views.page import Shown
from vit import Card, ViT, save
from vit.checkpoint import save_snapshot

PHONE = {"width": 390, "height": 844}
MESSAGE = "() => document.querySelector('#pair-viewer .vit-pair')?.pair?.message"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("compare") / "tiny"
    card = Card("tiny", class_names=("<b>ant</b>", *"bcdefg"))
    save(folder, randomised(ViT(tiny_config(num_registers=1))), card)
    for step in (1, 10):
        save_snapshot(
            folder, randomised(ViT(tiny_config(num_registers=1))), card, step, {"accuracy": step / 20}
        )
    return str(folder)


@pytest.fixture(scope="module")
def session(model: str) -> Session:
    return Session(extra=(model,))


@pytest.fixture(scope="module")
def demo(session: Session) -> gr.Blocks:
    return ui.build(session)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for seed, name in enumerate(("one", "two")):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return str(tmp_path / "one.png"), str(tmp_path / "two.png")


def test_the_page_is_told_what_is_alike(session: Session, model: str, files) -> None:
    a, b = (session.look(file, model) for file in files)
    value = json.loads(json.dumps(pairs.pair_value(a, b)))
    _, meta = unpack(kept(session, value["head"].rpartition("/")[2]) or b"")
    assert meta["grids"] == [[3, 5], [3, 5]] and len(value["depths"]) == 4
    for depth, address in enumerate(value["depths"]):
        arrays, meta = unpack(kept(session, address.rpartition("/")[2]) or b"")
        found = compared.matches(compared.similarity(a.trace(), b.trace(), depth))
        assert meta["depth"] == depth and arrays["matches"].tolist() == found.pairs.tolist()


def test_two_moments_are_compared_where_a_model_kept_them(demo, model: str, files) -> None:
    assert [compare.early([-1, *range(last, 0, -1)]) for last in range(6)] == [-1, 1, 1, 2, 3, 3]
    nothing_chosen = ("", -1, "", -1)
    found = handler(demo, "on_open", "compare")(Shown(files[0], model), *nothing_chosen, visitor())
    assert (found[0].value, found[3].value) == (-1, 1)


def test_two_pictures_wait_until_they_are_asked_for(demo, model: str, files) -> None:
    """Most visitors never do: nothing is computed for them."""
    opened = handler(demo, "on_open", "pairs")
    nothing = opened(Shown(files[0], model), "", "models", "", visitor())
    assert len(nothing) == 7 and all(value == gr.skip() for value in nothing)
    second, thumbs, said, value, *_ = opened(Shown(files[0], model), "", "pictures", "tower", visitor())
    assert Path(second).stem == "tower" and value["head"] and "aria-pressed" in thumbs
    assert "<b>ant</b>" not in said
    same, (name, example) = Shown(second, model), ("tower", Path(second))
    other, thumbs, *_ = opened(same, "", "pictures", name, visitor())
    assert Path(other) != example and 'aria-pressed="true"' in thumbs, "a link may name the same one twice"
    again, *_ = opened(Shown(files[0], model), files[1], "pictures", "", visitor())
    assert again == files[1], "what was chosen stays"


def test_a_second_picture_of_ones_own(demo, model: str, files) -> None:
    own = handler(demo, "on_own", "pairs")(Shown(files[0], model), files[1], visitor())
    assert own[0] == files[1] and own[-1] == "", "no link leads to it"
    with pytest.raises(gr.Error, match="Choose a second picture first"):
        handler(demo, "on_own", "pairs")(Shown(files[0], model), None, visitor())
    with pytest.raises(gr.Error, match="This example does not exist"):
        handler(demo, "on_choose", "pairs")(Shown(files[0], model), pointed(example="../x"), visitor())


@pytest.mark.parametrize(("what", "where"), [("heads", -1), ("heads", 0), ("stream", -1), ("mlp", 3)])
def test_what_is_carried_over_is_shown(demo, session, model: str, files, what: str, where: int) -> None:
    asked = Shown(files[0], model), files[1], what, where, False, visitor()
    handler(demo, "on_run", "pairs")(*asked)
    report, links = handler(demo, "on_done", "pairs")(*asked)
    a, b = (session.look(file, model) for file in files)
    token = where if what == "heads" and where >= 0 else None
    found = patching.patching(a.trace(), b.trace(), a.model, what, token=token)
    assert f"{number(found.receiver, '+.2f')} where it is carried to" in report and "<b>ant" not in report
    if what == "heads":
        assert f"L1.H2: {found.effects[1, 2]:+.3g}" in report
    else:
        assert report.count("<figure") == 3 and f"[CLS] {found.effects[2, 0]:+.2f}" in report
    assert links.count('download="one-two-patch') == 4
    address = links.partition('one-two-patch.csv"')[0].rpartition('href="')[2].partition('"')[0]
    rows = (kept(session, address.rpartition("/")[2]) or b"").decode().splitlines()
    assert float(rows[1].rpartition(",")[2]) == pytest.approx(float(found.effects[0, 0]), rel=1e-3, abs=1e-5)


def test_it_can_be_carried_back_and_be_stopped(demo, session, model: str, files) -> None:
    asked = Shown(files[0], model), files[1], "mlp", -1, True, visitor()
    button(demo, "on_stop", pairs.CARRY)(visitor())
    handler(demo, "on_run", "pairs")(*asked)
    assert handler(demo, "on_done", "pairs")(*asked) == (gr.skip(), gr.skip())
    button(demo, "on_start", pairs.CARRY)(visitor())
    handler(demo, "on_run", "pairs")(*asked)
    report, _ = handler(demo, "on_done", "pairs")(*asked)
    assert "From two (" in report


def test_strangers_may_not_ask_for_hours(model: str, files, monkeypatch) -> None:
    public = Session(public=True, extra=(model,))
    a, b = (public.look(file, model) for file in files)
    monkeypatch.setattr("explorer.look.PUBLIC_WORK_LIMIT", 1)
    with pytest.raises(ValueError, match="too much where others wait"):
        pairs.run_patching(a, b, "stream", None, lambda done, total: None)


# ---- in a browser --------------------------------------------------------------------------------------


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator:
    contexts, complaints = [], []

    def open_page(address: str, **options) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(90_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url + address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.browser
def test_two_pictures_by_mouse_keyboard_and_link(visit) -> None:
    page = visit("?tab=compare&from=%0Ax")  # of a damaged link, too
    expect(page.locator("[id^=compare-answer-]").first).not_to_be_empty()  # Gradio has put its widgets there
    page.get_by_label("two pictures", exact=True).check()
    page.wait_for_function(MESSAGE)
    canvas, said = page.locator(".vit-pair-canvas"), page.locator("#pair-viewer .vit-readout")
    expect(said).to_contain_text("pairs of patches chose each other")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    expect(said).to_contain_text("Patch (0,\u00a00) of the first picture is most like patch")
    pinned = "document.querySelector('#pair-viewer .vit-pair').pair.state.pinned"
    for held in (True, False):  # the same again lets go of it
        page.mouse.click(box["x"] + 20, box["y"] + 20)
        assert page.evaluate(pinned + " !== null") is held
        expect(said).to_contain_text("is most like" if held else "pairs of patches chose each other")
    page.mouse.move(2, 2)
    canvas.focus()
    for _ in range(6):  # five patches, then the other picture
        page.keyboard.press("ArrowRight")
    expect(page.locator("#pair-viewer [role=status]")).to_contain_text(
        "Patch (0,\u00a00) of the second picture"
    )
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(said).to_contain_text("of the second picture is most like")  # it was kept
    before = page.evaluate(MESSAGE + ".cosine.length")
    depth = page.locator("#pair-viewer").get_by_role("slider", name="Depth")
    page.route("**/shard/*.bin", lambda route: route.fulfill(body="a proxy's error page, say"))
    depth.fill("1")
    expect(said).to_contain_text("no message")
    page.locator("#pair-viewer").evaluate("(node) => { node.style.width = '99%'; }")  # drawn once more
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    expect(said).to_contain_text("no message")
    expect(depth).to_have_value("3")  # what is shown is what is named
    page.unroute("**/shard/*.bin")
    depth.fill("0")
    expect(page.locator("#pair-viewer")).to_contain_text("after the embedding")
    assert before > 0
    page.locator('[data-second="tower"]').click()
    page.wait_for_url("**with=tower*")
    page.get_by_role("button", name="Carry it over").click()
    expect(page.locator("#patch-result .vx-cells i")).to_have_count(3 * 5)
    again = visit(page.url.partition("/")[2].partition("/")[2].partition("/")[2])
    again.wait_for_function(MESSAGE)
    expect(again.get_by_label("two pictures", exact=True)).to_be_checked()
    expect(again.locator('[data-second="tower"]')).to_have_attribute("aria-pressed", "true")


@pytest.mark.browser
def test_two_moments_by_link_and_on_one_spot_of_a_phone(visit) -> None:
    page = visit("?tab=compare&from=@1&to=@10", viewport=PHONE, has_touch=True, is_mobile=True)
    ready = "(side) => document.querySelector(`#compare-${side} .vit-viewer`)?.viewer?.data"
    page.wait_for_function(ready, arg="A")
    expect(page.get_by_role("tab", name="About")).to_be_visible()  # in no menu, where no link finds it
    expect(page.get_by_label("Moment A")).to_have_value("step 1, 5 % right")
    expect(page.locator("#compare-B")).to_be_hidden()
    top = page.locator("#compare-A .vit-picture").first.bounding_box()["y"]
    page.locator(".vx-one-side").get_by_text("B", exact=True).tap()
    expect(page.locator("#compare-A")).to_be_hidden()
    expect(page.get_by_label("Moment B")).to_have_value("step 10, 50 % right")
    page.wait_for_function(ready, arg="B")
    assert abs(page.locator("#compare-B .vit-picture").first.bounding_box()["y"] - top) < 2
    page.get_by_label("Moment B").click()
    page.get_by_role("option", name="finished").click()
    page.wait_for_function("() => !new URL(location.href).searchParams.has('to')")
    expect(page).to_have_url(re.compile("from=%401"))

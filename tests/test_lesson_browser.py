"""The lesson as a person walks it: with the mouse, the keyboard alone, by touch; presented and printed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import randomised, tiny_config
from firefox import Firefox
from playwright.sync_api import Browser, Page, expect

from explorer.lesson.follow import Choice
from explorer.lesson.page import section
from explorer.lesson.steps import steps_for
from vit import Card, ViT, load, trace
from vit.clips import Clip, preprocess_clip
from vit.moves import moves_sample

pytestmark = pytest.mark.browser
OF_PICTURES = steps_for(ViT(tiny_config()))
OF_CLIPS = steps_for(ViT(tiny_config(num_frames=4, tubelet=2)))

BOX = """() => { const box = document.querySelector('.les .is-picture').getBoundingClientRect();
  return [box.left, box.top, box.width, box.height]; }"""
SMALL = """() => [...document.querySelectorAll('.les *')]
  .filter((node) => node.offsetParent && !node.children.length && node.textContent.trim())
  .filter((node) => !node.closest('.les-hint') && parseFloat(getComputedStyle(node).fontSize) < 28)
  .map((node) => node.outerHTML)"""
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">"""
SWIPE = """() => {
  const target = document.querySelector('.les-draw');
  const say = (name, clientX) => {
    const touch = [new Touch({ identifier: 1, target, clientX, clientY: 300 })];
    const touches = name === 'touchend' ? [] : touch;
    target.dispatchEvent(new TouchEvent(name, { touches, changedTouches: touch, bubbles: true }));
  };
  say('touchstart', 300);
  say('touchend', 100);
}"""
REVEAL = (
    "[...document.querySelectorAll('.les-quiz button')].find((b) => b.textContent === 'Show me')?.click()"
)
RIGHT = "\ue014"  # the arrow, to WebDriver
# is something drawn around this point of the screen?
DRAWN = """([x, y]) => { const pen = document.querySelector('.les-pen').getContext('2d');
  const at = (value) => devicePixelRatio * value - 9;
  return pen.getImageData(at(x), at(y), 18, 18).data.some((value) => value); }"""
PRINT = "window.print = () => { window.printed = document.querySelectorAll('.les-card').length; }"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model, card = randomised(ViT(tiny_config(num_registers=1))), Card("tiny", tuple("abcdefg"))
    path = tmp_path_factory.mktemp("lesson") / "lesson.html"
    held = section(trace(model, torch.randn(3, 12, 20)), model, card, Choice(7, 1, 2))
    path.write_text(HEAD + held + "</html>", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """The lesson of the model of clips that comes along."""
    model, card = load("moves")
    path = tmp_path_factory.mktemp("lesson") / "clip.html"
    image = preprocess_clip(Clip(moves_sample(1, 0)[0], ()), card)  # a moon goes right
    path.write_text(
        HEAD + section(trace(model, image), model, card, Choice(173, 3, 1)) + "</html>", encoding="utf-8"
    )
    return path


@pytest.fixture
def walk(browser: Browser, file: Path) -> Iterator[Callable[..., Page]]:
    """walk(hash, **options) -> the page; at the end nothing has complained or called out."""
    complaints, contexts = [], []

    def open_page(address: str = "", file: Path = file, steps: int = len(OF_PICTURES), **options) -> Page:
        contexts.append(browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | options)))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.append(request.url) if "://" in request.url[:8] else None
        )
        page.goto(file.as_uri() + address)
        expect(page.locator(".les-dots li")).to_have_count(steps)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [each for each in complaints if not each.startswith(("file:", "data:"))] == []


def test_the_keyboard_alone_walks_to_the_end_and_every_step_has_an_address(walk) -> None:
    page = walk()
    assert page.evaluate("document.activeElement === document.body"), "arrows need no click before them"
    for number, step in enumerate(OF_PICTURES, 1):
        expect(page.locator(".les h2")).to_have_text(step.title)
        show = page.get_by_role("button", name="Show me")
        if show.count():
            show.press("Enter")  # the question is gone, the focus is not
            expect(page.locator(".les h2")).to_be_focused()
        assert page.locator(".les-drawing").inner_text() or page.locator(".les-drawing canvas").count()
        assert number == 1 or f"how={number}&" in page.evaluate("location.hash")  # page.url may be late
        page.keyboard.press("ArrowRight")
    page.go_back()
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[-2].title)
    again = walk("#how=9")
    expect(again.locator(".les h2")).to_have_text(OF_PICTURES[8].title)


@pytest.mark.parametrize("width, height, larger", [(1920, 1080, 1.25), (2560, 1440, 1.6)])
def test_a_large_screen_is_used_and_a_square_is_where_one_points(walk, width, height, larger) -> None:
    small, page = walk(), walk(viewport={"width": width, "height": height})
    tall = "() => document.querySelector('.les h2').getBoundingClientRect().height"
    assert page.evaluate(tall) == pytest.approx(larger * small.evaluate(tall), rel=0.05)
    left, top, wide, high = page.evaluate(BOX)
    assert top + high < height
    page.mouse.move(left + 4.5 * wide / 5, top + 2.5 * high / 3)
    expect(page.locator(".les-picture .les-read")).to_contain_text("square (2, 4)")


def test_three_squares_are_guessed_on_the_picture_and_counted(walk) -> None:
    page = walk("#how=8")
    left, top, width, height = page.evaluate(BOX)
    right = page.evaluate("() => document.querySelector('.les-quiz').innerText")
    assert "Choose three" in right
    for column in (0, 2, 4):
        page.mouse.click(left + (column + 0.5) * width / 5, top + height / 2)
    expect(page.locator(".les-quiz")).to_contain_text("of 3 are among the 3 it looks at most.")
    expect(page.locator(".les-score")).to_contain_text("of 3 points")
    expect(page.locator(".les-bars .les-row")).to_have_count(5)
    hand = page.get_by_label("Temperature")
    before = page.locator(".les-bars").inner_text()
    hand.fill("4")
    assert page.locator(".les-bars").inner_text() != before
    hand.fill("1")
    assert page.locator(".les-bars").inner_text() == before, "at 1 the shares are the trace's"


def test_a_head_is_chosen_and_what_the_file_has_not_is_said(walk) -> None:
    page = walk("#how=10")
    page.get_by_role("button", name="head 3").click()
    expect(page.locator(".les-choices")).to_contain_text("Head 3")
    assert "at=1.3" in page.url
    page.get_by_role("button", name="Layer after").click()
    expect(page.locator(".les-status")).to_contain_text("the app has those of all")


def test_layer_and_head_are_offered_where_they_change_something(walk) -> None:
    page = walk("#how=1")
    names = [step.name for step in OF_PICTURES]
    for how, shown in (("cut", []), ("ask", ["Layer", "Head"]), ("mlp", ["Layer"]), ("answer", [])):
        page.evaluate(f"location.hash = 'how={names.index(how) + 1}'")
        expect(page.locator(".les-chapter")).to_contain_text(f"· {names.index(how) + 1} of")
        for name in ("Layer", "Head"):
            expect(page.get_by_role("group", name=name)).to_be_visible(visible=name in shown)


def test_squares_whose_share_is_not_listed_are_not_said_to_have_none(walk) -> None:
    page = walk(f"#how={[step.name for step in OF_PICTURES].index('mix') + 1}")
    expect(page.locator(".les-part").first).to_be_visible()
    listed = page.locator(".les-part").filter(has_text="square").count()
    picture, said = page.locator(".les .is-picture"), []
    picture.focus()
    for key in 15 * ["ArrowLeft"] + 15 * ["ArrowRight"]:
        picture.press(key)
        said.append(page.locator(".les-picture .les-read").inner_text())
    said = said[14:29]  # the fifteen squares, from the first on
    assert len(set(said)) == 15 and sum("%" in each for each in said) == listed > 0
    assert sum(each.endswith(": among the others") for each in said) == 15 - listed > 0


def test_presented_it_is_large_black_and_back(walk) -> None:
    page = walk("#how=7")
    page.get_by_role("button", name="Present").click()
    for _ in range(3):
        page.keyboard.press("PageDown")
        assert page.evaluate(SMALL) == []
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[9].title)
    page.keyboard.press("b")
    expect(page.locator(".les-black")).to_be_visible()
    page.keyboard.press("b")
    expect(page.locator(".les-black")).to_be_hidden()
    page.keyboard.press("PageUp")
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[8].title)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Handout")).to_be_visible()


def test_a_presenter_fills_the_screen_goes_black_and_draws_with_the_pointer(walk) -> None:
    page = walk("#how=7")
    full = "document.fullscreenElement?.classList.contains('les') ?? false"
    page.get_by_role("button", name="Present").click()
    page.wait_for_function(full)
    for seen in (False, True):
        page.keyboard.press("f")
        page.wait_for_function(f"({full}) === {str(seen).lower()}")
    assert page.locator(".les-pen").is_hidden()
    page.keyboard.press("d")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(500, 420, steps=5)
    page.mouse.up()
    page.mouse.move(800, 700)  # lifted: no line
    assert page.evaluate(DRAWN, [400, 360]) and not page.evaluate(DRAWN, [650, 560])
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[6].title)  # the pen chooses no square
    page.keyboard.press("PageDown")
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[7].title)
    page.keyboard.press("d")
    expect(page.locator(".les-pen")).to_be_hidden()


def test_the_handout_has_every_step_and_leaves_nothing_behind(walk) -> None:
    page = walk()
    page.evaluate(PRINT)
    page.get_by_role("button", name="Handout").click()
    assert page.evaluate("printed") == len(OF_PICTURES)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".les-handout").count() == 0


def test_a_phone_sees_picture_and_sentence_together_and_swipes(walk) -> None:
    page = walk(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for _ in OF_PICTURES[:3]:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.locator(".les .is-picture").bounding_box()
        assert box["y"] + box["height"] < 844
        page.get_by_role("button", name="Next").tap()
    sizes = page.evaluate("[...document.querySelectorAll('.les-button')].filter((b) => b.offsetParent)"
                          ".map((b) => Math.min(b.offsetWidth, b.offsetHeight))")  # fmt: skip
    assert min(sizes) >= 44
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[3].title)
    page.evaluate(SWIPE)
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[4].title)


# a clip ---------------------------------------------------------------------------------------------------


def test_a_clip_is_walked_to_its_end_by_keyboard(walk, clip: Path) -> None:
    page = walk("", clip, len(OF_CLIPS))
    page.locator(".les h2").focus()
    for number, step in enumerate(OF_CLIPS, 1):
        expect(page.locator(".les-chapter")).to_have_text(f"{step.chapter} · {number} of {len(OF_CLIPS)}")
        show = page.get_by_role("button", name="Show me")
        if show.count():
            show.press("Enter")  # the question is gone, the focus is not
            expect(page.locator(".les h2")).to_be_focused()
        assert page.locator(".les-drawing canvas").count() or page.locator(".les-drawing .les-bars").count()
        page.keyboard.press("ArrowRight")
    page.go_back()
    expect(page.locator(".les h2")).to_have_text(OF_CLIPS[-2].title)


def test_squares_of_a_clip_are_chosen_in_time_by_keyboard(walk, clip: Path) -> None:
    page = walk("#how=13", clip, len(OF_CLIPS))
    picture = page.locator(".les .is-picture")
    picture.focus()
    for key, place in ((".", "square (0, 0) at time 1"), ("ArrowDown", "square (1, 0) at time 1"),
                       (".", "square (1, 0) at time 2"), (".", "square (1, 0) at time 3"),
                       (".", "square (1, 0) at time 3"), (",", "square (1, 0) at time 2")):  # fmt: skip
        page.keyboard.press(key)
        expect(page.locator(".les-picture .les-read")).to_have_text(place)
    page.keyboard.press("Enter")
    expect(page.locator(".les-status")).to_contain_text("the app has those of all")
    page.mouse.click(*middle_of(page, 3, 2, 5))
    expect(page.locator(".les-picture .les-read")).to_have_text(re.compile(r"^square \(2,\s5\) at time\s3"))


def test_a_share_stands_on_the_first_line_of_its_squares_name(walk, clip: Path) -> None:
    page = walk("#how=10", clip, len(OF_CLIPS))
    number, name = page.locator(".les-part .les-number").first, page.locator(".les-part .les-name").first
    share, square = number.bounding_box(), name.bounding_box()
    assert share and square and abs(share["y"] - square["y"]) < 4, "or it reads as 2.5 % × 1, the time"


def middle_of(page: Page, time: int, row: int, column: int) -> tuple[float, float]:
    """Where a square of the clip is in the window: 2 x 2 frames of 8 x 8 squares."""
    left, top, width, _ = page.evaluate(BOX)
    head, gap = 1.4 * 14, 448 / 40
    side = (448 - gap - 2 * head) / 2
    scale = width / (2 * side + gap)
    x = time % 2 * (side + gap) + (column + 0.5) * side / 8
    y = time // 2 * (side + gap + head) + head + (row + 0.5) * side / 8
    return left + x * scale, top + y * scale


def test_what_a_head_looks_at_in_time_is_asked_for_each_head(walk, clip: Path) -> None:
    page = walk("#how=13", clip, len(OF_CLIPS))
    page.get_by_role("button", name="An earlier one").click()
    expect(page.locator(".les-quiz")).to_contain_text("it is The square's own.")
    assert "100 %" in page.locator(".les-drawing").inner_text()
    page.get_by_role("button", name="Head after").click()
    expect(page.locator(".les-quiz button")).to_have_count(4)


def test_frames_in_another_order_have_their_own_answers(walk, clip: Path) -> None:
    page = walk("#how=18", clip, len(OF_CLIPS))
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.locator(".les-quiz")).to_contain_text("Right: No.")
    for name, answer in (("backwards", "goes left"), ("as filmed", "goes right")):
        page.get_by_role("button", name=name).click()
        expect(page.locator(".les-row.is-strong .les-name")).to_have_text(answer)
    page.keyboard.press("PageDown")
    page.get_by_role("button", name="Show me").click()
    expect(page.get_by_role("button", name="frame 3 stays")).to_be_visible()
    page.get_by_role("button", name="time 2 goes right").click()
    expect(page.locator(".les-row.is-strong .les-name")).to_have_text("goes right")


def test_firefox_walks_through_a_clip(clip: Path) -> None:
    with Firefox.start() as firefox:
        firefox.goto(clip.as_uri())
        firefox.wait_for("document.querySelector('.les-dots li')?.offsetParent && true")
        firefox.evaluate("document.querySelector('.les h2').focus()")
        for number, step in enumerate(OF_CLIPS, 1):
            assert firefox.evaluate("document.querySelector('.les h2').textContent") == step.title
            firefox.evaluate(REVEAL)
            drawn = "document.querySelectorAll('.les-drawing canvas, .les-drawing .les-bars').length"
            assert firefox.evaluate(drawn), step.title
            assert number == 1 or f"how={number}&" in firefox.evaluate("location.hash")
            firefox.press(RIGHT)
        assert firefox.log == []

"""The lesson as a person walks it: with the mouse, the keyboard alone, by touch; presented and printed."""

import json
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
# what fingers do: [["touchstart", [{0: x, ...} of those that are down], the one that it is about], ...]
FINGERS = """(events) => {
  const target = document.querySelector('.les-draw');
  for (const [name, down, [identifier, clientX]] of events) {
    const touch = ([identifier, clientX]) => new Touch({ identifier, target, clientX, clientY: 300 });
    const touches = down.map(touch), changedTouches = [touch([identifier, clientX])];
    target.dispatchEvent(new TouchEvent(name, { touches, changedTouches, bubbles: true }));
  }
}"""
SWIPE = [["touchstart", [[1, 300]], [1, 300]], ["touchend", [], [1, 100]]]
PINCH = [["touchstart", [[1, 300]], [1, 300]], ["touchstart", [[1, 300], [2, 200]], [2, 200]],
         ["touchend", [[1, 100]], [2, 350]], ["touchend", [], [1, 100]]]  # fmt: skip
STOPPED = [["touchstart", [[1, 300]], [1, 300]], ["touchcancel", [], [1, 200]], ["touchend", [], [2, 100]]]
# what a tap tells: in the middle of each of these drawings
TAP = """(selector) => [...document.querySelectorAll(selector)].map((node) => {
  const box = node.getBoundingClientRect(), says = () => document.querySelector('.les-drawing').textContent;
  const before = says(), where = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
  const all = { ...where, pointerType: 'touch', bubbles: true };
  node.dispatchEvent(new PointerEvent('pointerdown', all));
  for (const name of ['pointerup', 'pointerleave']) node.dispatchEvent(new PointerEvent(name, all));
  return says() !== before;
})"""
REVEAL = (
    "[...document.querySelectorAll('.les-quiz button')].find((b) => b.textContent === 'Show me')?.click()"
)
# the lines that add up, for every pattern that is offered, or in every head
ADDED = """(name) => {
  lesson.go(lesson.lesson.steps.findIndex((step) => step.name === name), { history: false });
  const patterns = [...document.querySelectorAll('.les-drawing .les-small')];
  return (patterns.length ? patterns : [0, 1, 2, 3]).flatMap((each) => {
    if (patterns.length) each.click();
    else lesson.choose({ head: each });
    if (!lesson.revealed()) lesson.answer(lesson.step, { given: [] });
    const said = [...document.querySelectorAll('.les-live')].map((node) => node.textContent);
    return said.filter((words) => / [=≈] /.test(words));
  });
}"""
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
    return written(path, held)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """The lesson of the model of clips that comes along."""
    model, card = load("moves")
    path = tmp_path_factory.mktemp("lesson") / "clip.html"
    image = preprocess_clip(Clip(moves_sample(1, 0)[0], ()), card)  # a moon goes right
    return written(path, section(trace(model, image), model, card, Choice(173, 3, 1)))


def written(path: Path, held: str) -> Path:
    """A page whose lesson has a name."""
    held = held.replace("const lesson = ViT", "const lesson = window.lesson = ViT")
    path.write_text(HEAD + held + "</html>", encoding="utf-8")
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
        if number > 1:  # written after the drawing
            page.wait_for_function(f"location.hash.includes('how={number}&')")
        page.keyboard.press("ArrowRight")
    page.go_back()
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[-2].title)
    again = walk("#how=9")
    expect(again.locator(".les h2")).to_have_text(OF_PICTURES[8].title)


def test_the_browsers_back_leads_to_the_step_that_one_began_on(walk) -> None:
    page = walk("#layer=2")
    assert page.evaluate("location.hash") == "#layer=2", "until one walks an address stays what it was"
    for step in (2, 3):
        page.get_by_role("button", name="Next").click()
        page.wait_for_function("!document.activeElement.matches('button')")
        page.wait_for_function(f"location.hash.includes('how={step}')")
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[2].title)
    for back in OF_PICTURES[1::-1]:
        page.go_back()
        expect(page.locator(".les h2")).to_have_text(back.title)
    assert page.evaluate("location.hash").startswith("#layer=2&how=1&")


def test_numbers_that_do_not_come_can_be_asked_for_again(walk) -> None:
    page = walk()
    page.evaluate("""() => {
      window.asked = [];
      window.held = lesson.options.lessons;
      Object.assign(lesson.options, { lessons: {}, emit: (_, choice) => asked.push(choice.patch) });
    }""")
    page.evaluate("lesson.choose({ patch: 3 })")
    expect(page.locator(".les-status")).to_have_text("…")
    page.evaluate("window.lost = { lesson: 'data:application/json,lost' }; lesson.receive(lost)")
    expect(page.locator(".les-status")).to_contain_text("did not come")
    page.evaluate("lesson.choose({ patch: 3 })")
    assert page.evaluate("asked") == [3, 3]
    page.evaluate("lesson.receive(lost).then(() => { lost.lesson = Object.values(held)[1]; })")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".les-status")).to_have_text("")
    assert page.evaluate("lesson.lesson === lost.lesson && !lesson.wanted")


@pytest.mark.parametrize(
    "other",
    [
        "picture: 'data:,other'",
        "lesson: { ...first, model: 'another', choice: { ...first.choice, layer: 0 } }",
    ],
)
def test_of_another_picture_or_model_nothing_is_guessed_or_pointed_at_yet(walk, other: str) -> None:
    page = walk("#how=8")
    left, top, width, height = page.evaluate(BOX)
    page.mouse.click(left + width / 10, top + height / 2)
    expect(page.locator(".les-quiz")).to_contain_text("2 to go")
    expect(page.locator(".les-picture .les-read")).to_contain_text("square (1, 0)")
    page.evaluate("lesson.state.answers.cut = { points: 1, of: 1 }; window.first = lesson.lesson")
    page.evaluate(
        f"lesson.receive({{ lesson: {{ ...first, choice: {{ ...first.choice, layer: 0 }} }}, {other} }})"
    )
    expect(page.locator(".les-quiz")).to_contain_text("3 to go")
    expect(page.locator(".les-picture .les-read")).to_contain_text("our square")
    assert page.evaluate("lesson.picture.at") == 0 and page.evaluate("lesson.state.answers") == {}


def test_a_tap_is_as_good_as_a_mouse(walk) -> None:
    page = walk()
    for name, drawings in (
        ("flatten", ".les-figure:first-child canvas"),
        ("scores", ".les-drawing > div:last-child > canvas"),
        ("mlp", ".les-drawing > canvas, .les-ribbon canvas"),
    ):
        page.evaluate(f"lesson.go({[step.name for step in OF_PICTURES].index(name)})")
        told = page.evaluate(TAP, drawings)
        assert told and all(told), name


@pytest.mark.parametrize("name, hand", [("layers", "Depth"), ("layers", ""), ("why", "Squares taken away")])
def test_what_plays_stops_where_a_hand_moves_it(walk, name: str, hand: str) -> None:
    page = walk(f"#how={[step.name for step in OF_PICTURES].index(name) + 1}")
    page.evaluate(REVEAL)
    page.clock.install()
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(700)
    said = page.locator(".les-drawing .les-slider .les-number")
    if hand:
        page.get_by_role("slider", name=hand).fill("2")
    else:
        page.locator(".les-drawing .les-small").nth(2).click()
    chosen = said.inner_text()
    assert chosen.startswith(("after layer 1", "5 of 15", "4 of 15")), chosen
    page.clock.run_for(3000)
    assert said.inner_text() == chosen
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(5000)
    assert said.inner_text() != chosen


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
    page.evaluate("""() => { const { question } = lesson.step; question.right = [...Array(15).keys()];
      lesson.state.answers[lesson.keyOf(lesson.step)] = { given: [3, 12, 14], points: 3, of: 3 }; }""")
    assert page.evaluate("lesson.guessed().right") == [*range(10), 12, 14], (
        "a square that earned a point is ticked"
    )
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
    expect(page).to_have_url(re.compile(re.escape("at=1.3")))
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


def test_layer_and_head_are_offered_where_this_kind_of_model_needs_them(walk, tmp_path) -> None:
    both = ["Layer", "Head"]
    for how, changes, shown in (
        ("position", {}, []),
        ("position", {"rope": "axial"}, both),
        ("position", {"rel_pos": True}, both),
        ("read", {}, ["Head"]),
        ("read", {"pool": "mean"}, []),
    ):
        model = randomised(ViT(tiny_config(**changes)))
        held = section(trace(model, torch.randn(3, 12, 20)), model, Card("tiny"), Choice(7, 1, 2))
        names = [step.name for step in steps_for(model)]
        page = walk(f"#how={names.index(how) + 1}", written(tmp_path / "kind.html", held), len(names))
        expect(page.locator(".les-chapter")).to_contain_text(f"· {names.index(how) + 1} of")
        for name in both:
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
    page.evaluate(
        "Object.defineProperty(window, 'innerWidth', { value: 700 }); dispatchEvent(new Event('resize'))"
    )
    assert page.evaluate("document.querySelector('.les-pen').width / devicePixelRatio") == 700, (
        "a line would miss the pointer"
    )
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
    for fingers in (PINCH, STOPPED):
        page.evaluate(FINGERS, fingers)
        expect(page.locator(".les h2")).to_have_text(OF_PICTURES[3].title)
    page.evaluate(FINGERS, SWIPE)
    expect(page.locator(".les h2")).to_have_text(OF_PICTURES[4].title)


# other kinds of model -------------------------------------------------------------------------------------


def told_of(walk, path: Path, model: ViT, card: Card) -> dict[str, str]:
    """What the drawings say of a small model, by the names of their steps, all questions answered."""
    held = section(trace(model, torch.randn(3, 12, 20)), model, card, Choice(7, 0, 0))
    page = walk("", written(path / "other.html", held), len(steps_for(model)))
    return page.evaluate("""() => Object.fromEntries(lesson.lesson.steps.map(({ name }, how) => {
      lesson.go(how, { history: false });
      if (!lesson.revealed()) lesson.answer(lesson.step, { given: [] });
      const hand = document.querySelector('.les-drawing input');
      if (hand) hand.value = hand.max, hand.dispatchEvent(new Event('input'));
      return [name, document.querySelector('.les-drawing').textContent];
    }))""")


def test_squares_that_changed_most_are_not_called_looked_at_nor_numbers_percents(walk, tmp_path) -> None:
    torch.manual_seed(0)
    model = randomised(ViT(tiny_config(pool="mean", num_registers=1)))
    told = told_of(walk, tmp_path, model, Card("tiny", tuple("abcdefg"), scores="none"))
    last = told["answer"] + told["why"]
    assert "Hide what changed most" in last and "squares that changed most, it says" in last
    assert re.search(r"changed most: −?\d+\.\d{3}at random: −?\d+\.\d{3}", last), "numbers as they are"
    assert not re.search("look|attention", last)


def test_where_a_norm_comes_last_the_sums_say_so(walk, tmp_path) -> None:
    torch.manual_seed(0)
    model = randomised(ViT(tiny_config(post_norm=True, num_heads=1, depth=1)))
    told = told_of(walk, tmp_path, model, Card("tiny", tuple("abcdefg")))
    assert "normalised" not in told["ask"] and "what is read" not in told["ask"]
    assert "= (then normalised)" in told["heads"] and "= (then normalised)" in told["mlp"]
    assert "side by side" not in told["heads"] and "all heads" not in told["read"]


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


def test_printed_numbers_add_up_or_are_said_to_be_near(walk, clip: Path) -> None:
    page = walk("", clip, len(OF_CLIPS))
    said = [words for name in ("embed", "tubelet", "times", "answer") for words in page.evaluate(ADDED, name)]
    assert len(said) == 8 + 8 + 4 + 4, "patterns and heads"
    for words in said:
        made, sign, result = re.fullmatch(
            r"\D*?(−?[\d.]+.*) ([=≈]) .*?(−?[\d.]+).*", words.replace("\xa0", " ")
        ).groups()
        parts = [float(part.replace("−", "-")) for part in re.findall(r"−?\d+(?:\.\d+)?", made)]
        exact = "<" not in made and round(sum(parts) - float(result.replace("−", "-")), 6) == 0
        assert (sign == "=") == exact, words


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
            firefox.wait_for(f"document.querySelector('.les h2').textContent === {json.dumps(step.title)}")
            firefox.evaluate(REVEAL)
            firefox.wait_for(
                "document.querySelectorAll('.les-drawing canvas, .les-drawing .les-bars').length"
            )
            if number > 1:
                firefox.wait_for(f"location.hash.includes('how={number}&')")
            firefox.press(RIGHT)
        assert firefox.log == []

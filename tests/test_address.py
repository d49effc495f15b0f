"""Links, Back and Forward as a visitor uses them, in Chromium and Firefox; and a page that keeps still."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from firefox import Firefox
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from explorer.session import Session
from vit import ViT, save
from vit.card import Card
from vit.checkpoint import save_snapshot

pytestmark = pytest.mark.browser

PATIENCE = 90_000  # milliseconds
CARD = Card("tiny", tuple("abcdefg"))
SEEN = "() => document.querySelector('#viewer .vit-viewer')?.viewer?.data?.loaded > 0"
SHIFTS = """window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: 'layout-shift', buffered: true });"""
# of a page, what comes last
THERE = {
    "explore": "#checks li",
    "lesson": "#lesson canvas",
    "why": "#why-ledger h3",
    "heads": "#heads-board .vx-panel",
    "compare": "#compare-B .vit-picture",
    "compare&compare=pictures": "#pair-viewer .vit-pair-canvas[height]",
}
CHOSEN = "document.querySelector('[role=tab][aria-selected=true]')?.textContent"


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    save(folder, randomised(ViT(tiny_config())), CARD)
    for step in (1, 10, 100):
        save_snapshot(folder, randomised(ViT(tiny_config())), CARD, step, {"accuracy": step / 200})
    return Session(extra=(str(folder),))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context.new_page()
    context.close()


def test_a_moment_of_training_is_in_the_address_and_its_link_can_be_copied(page: Page, url: str) -> None:
    page.goto(url + "?tab=training&moment=10")
    said = page.locator("#training-timeline output")
    expect(said).to_contain_text("step 10 ", timeout=PATIENCE)
    page.evaluate("""() => {
      const { viewer } = document.querySelector("#training-viewer .vit-viewer"), { setSource } = viewer;
      viewer.setSource = async () => { viewer.setSource = setSource; return false; };
    }""")
    page.get_by_label("Moment of training").press("ArrowLeft")
    expect(said).to_contain_text("could not be loaded")
    page.get_by_label("Moment of training").dispatch_event("input")  # the same again is another try
    expect(said).not_to_contain_text("could not be loaded")
    expect(said).to_contain_text("step 1 ")
    page.wait_for_function("() => new URL(location.href).searchParams.get('moment') === '1'")
    page.clock.install()  # it is said for a moment only
    page.locator(".vx-copy").click()
    expect(page.locator(".vx-copy")).to_have_text("Copied")
    expect(page.locator(".vx-copy")).to_have_css("padding-left", "12px")  # Gradio takes it off all buttons
    play = page.get_by_label("Play the training")
    expect(play).not_to_have_css("background-color", "rgba(0, 0, 0, 0)")
    expect(play).to_have_css("border-radius", "50%")
    assert page.evaluate("navigator.clipboard.readText().then((text) => text === location.href)")
    page.get_by_label("Moment of training").press("End")
    page.wait_for_function("() => !location.search.includes('moment')")
    page.get_by_role("tab", name="Explore", exact=True).click()
    expect(page.locator(".vx-copy")).to_be_hidden()


def test_an_own_picture_is_in_no_link_and_the_page_says_so(page: Page, url: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    page.goto(url)
    page.wait_for_function(SEEN)
    page.set_input_files("#picture input[type=file]", str(tmp_path / "own.png"))
    page.wait_for_function("() => location.search.includes('example=own')")
    frame, image = (page.locator(f"#picture {each}") for each in (".vx-seen", "img"))
    expect(frame).to_have_attribute("data-tip", "The model sees what is in the frame: 92 % of the picture.")
    seen, around = frame.bounding_box(), image.bounding_box()  # 12 rows of 13
    assert seen and around and abs(seen["height"] / around["height"] - 12 / 13) < 0.02
    assert abs(seen["y"] + seen["height"] / 2 - around["y"] - around["height"] / 2) < 2
    page.set_viewport_size({"width": 700, "height": 900})
    fits = """() => {
      const [seen, around] = [...document.querySelectorAll("#picture .vx-seen, #picture img")]
        .map((e) => e.getBoundingClientRect()).sort((a, b) => a.height - b.height);
      return Math.abs(seen.height / around.height - 12 / 13) < 0.02;
    }"""
    page.wait_for_function(fits)
    page.go_back()
    expect(page.locator("[data-example=cat]")).to_have_attribute("aria-pressed", "true", timeout=PATIENCE)
    page.go_forward()
    expect(page.locator(".vx-told")).to_contain_text("Your own picture is in no address")
    page.reload()
    expect(page.locator(".vx-told")).to_contain_text("which no link can carry", timeout=PATIENCE)
    page.wait_for_function("() => location.search.includes('example=cat')")


@pytest.mark.parametrize("size", [(390, 844), (1440, 900), (2560, 1440)])
def test_nothing_jumps_while_the_page_comes(browser: Browser, url: str, size: tuple[int, int]) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(SHIFTS)
    page = context.new_page()
    page.goto(url)
    page.wait_for_function(SEEN)
    expect(page.locator("#checks li")).not_to_have_count(0, timeout=PATIENCE)
    assert page.evaluate("window.shift") < 0.05
    wide = page.evaluate("document.querySelector('#main').clientWidth")
    assert wide > 0.9 * size[0] and page.evaluate("document.documentElement.scrollWidth") <= size[0]
    context.close()


@pytest.mark.parametrize("size", [(390, 844), (720, 450), (2560, 1440)])
def test_no_page_jumps_while_it_comes_and_all_begin_at_one_height(
    browser: Browser, url: str, size: tuple[int, int]
) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(SHIFTS)
    tops = set()
    for tab, there in THERE.items():
        page = context.new_page()
        page.goto(f"{url}?tab={tab}")
        page.locator(there).first.wait_for(state="attached")
        page.wait_for_timeout(300)
        assert page.evaluate("window.shift") < 0.05, tab
        tops.add(page.locator("#tabs").bounding_box()["y"])  # type: ignore[index]
        page.close()
    assert len(tops) == 1
    context.close()


def test_paper_has_what_is_said_and_none_of_the_controls(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_function(SEEN)
    page.emulate_media(media="print")
    for control in (
        "#picture",
        "#examples",
        "#tabs > .tab-wrapper",
        "#files",
        "#viewer .vit-tools",
        "footer",
    ):
        expect(page.locator(control).first).to_be_hidden()
    for said in ("#card", "#viewer .vit-lead", "#viewer .vit-picture", "#viewer .vit-legend canvas"):
        assert page.locator(said).first.bounding_box()["height"] > 7  # type: ignore[index]


def test_on_a_phone_the_picture_stays_while_one_reads_and_a_step_is_seen(browser: Browser, url: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(url)
    page.wait_for_function(SEEN)
    page.evaluate("scrollTo(0, document.querySelector('#viewer .vit-tabs').getBoundingClientRect().y)")
    top = "document.querySelector('#viewer .vit-picture').getBoundingClientRect().y"
    page.wait_for_function(f"() => scrollY > 200 && {top} >= 0 && {top} < 60")
    page.goto(url + "?tab=lesson")
    page.locator("#lesson canvas").first.wait_for()
    navigation = page.locator(".les-nav").bounding_box()
    assert navigation and navigation["y"] + navigation["height"] <= 844, "at the bottom of the screen"
    page.get_by_role("button", name="Next").tap()
    page.wait_for_function("() => document.querySelector('.les-draw').getBoundingClientRect().y < 422")
    context.close()


def test_at_200_percent_the_picture_begins_on_the_first_screen(browser: Browser, url: str) -> None:
    context = browser.new_context(viewport={"width": 720, "height": 450})
    page = context.new_page()
    page.goto(url)
    page.wait_for_function(SEEN, timeout=PATIENCE)
    box = page.locator("#viewer canvas.vit-picture").first.bounding_box()
    assert box and box["y"] < 450 - 60
    context.close()


def test_the_run_of_a_link_is_there_until_another_is_chosen(page: Page, url: str, session: Session) -> None:
    (folder,) = session.extra
    page.goto(f"{url}?tab=training&run={quote(folder)}")
    run = page.get_by_label("Training run, or a folder that train.py writes to")
    expect(page.locator("#training-timeline output")).to_contain_text("step", timeout=PATIENCE)
    expect(run).to_have_value(folder)
    run.click()
    page.get_by_role("option", name="the model at the top").click()
    page.wait_for_function("() => !location.search.includes('run=')")
    page.locator("[data-example=lion]").click()  # everything new asks this page once more
    page.wait_for_function("() => location.search.includes('example=lion')")
    expect(page.locator("#training-viewer .vit-viewer")).to_be_visible()
    page.wait_for_timeout(1500)
    expect(run).to_have_value("the model at the top")


def test_gradios_own_first_tab_says_nothing_before_the_page_is_connected(page: Page, url: str) -> None:
    """On a slow machine it opens before the page knows its tabs: the link's own was forgotten then."""
    page.add_init_script(
        """addEventListener("DOMContentLoaded", () => {
          window.early = window.vitPage.trigger === null;
          window.vitPage.opened("explore");
        })"""
    )
    page.goto(url + "?tab=training")
    expect(page.locator("#tab-training-button")).to_have_attribute("aria-selected", "true", timeout=PATIENCE)
    assert page.evaluate("early") and "tab=training" in page.url


def test_choices_of_the_lesson_in_a_row_add_up(page: Page, url: str) -> None:
    page.goto(f"{url}?tab=lesson#how=7&square=1&at=0.0")
    expect(page.locator("#lesson .les-stepper output").first).to_have_text("0", timeout=PATIENCE)
    page.evaluate("""() => {
      const press = (name) => document.querySelector(`#lesson [aria-label="${name} after"]`).click();
      ["Layer", "Layer", "Head"].forEach(press);
    }""")
    expect(page.locator("#lesson .les-stepper output")).to_have_text(["2", "1"], timeout=PATIENCE)
    expect(page.locator("#lesson .les-status")).to_have_text("")
    page.wait_for_function("() => location.hash.includes('at=2.1')")


def test_links_and_history_in_firefox(url: str) -> None:
    with Firefox.start() as firefox:
        firefox.goto(url + "?tab=training&moment=10&example=tower")
        firefox.wait_for(
            "document.querySelector('#training-timeline output')?.textContent.includes('step 10 ')"
        )
        firefox.wait_for(f"{CHOSEN} === 'Training'")
        assert firefox.evaluate("location.search").count("tab=training") == 1
        firefox.click("#tab-explore-button")
        firefox.wait_for("!location.search.includes('tab=')")
        firefox.click("[data-example=lion]")
        firefox.wait_for("location.search.includes('example=lion')")
        firefox.evaluate("history.back()")
        firefox.wait_for("document.querySelector('[data-example=tower]')?.ariaPressed === 'true'")
        firefox.evaluate("history.back()")
        firefox.wait_for(f"{CHOSEN} === 'Training'")
        firefox.evaluate("history.forward()")
        firefox.wait_for(f"{CHOSEN} === 'Explore'")

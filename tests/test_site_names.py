"""The page without a server under names that try to be more: nothing of them runs, all can be read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import site_pages
import torch
from conftest import randomised, tiny_config
from playwright.sync_api import Browser, Page, expect
from site_pages import READY
from test_words import clip, tokenizer

from explorer.classes import Words
from explorer.site.folder import Shared, write_site
from explorer.site.onefile import packed
from explorer.site.pictures import Picture
from explorer.site.spaces import front_matter
from vit import ViT
from vit.card import Card
from vit.shapes import shapes_sample
from vit.words import load_tower

pytestmark = pytest.mark.browser
url, visit = site_pages.url, site_pages.visit
NAMES = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(2)</script>',
    "../../x",
    "a" * 300,
    "ქართული 中文 العربية",
    "🐈‍⬛👩🏽‍🚀",
    "${alert(3)} `{{7*7}}` \\ %s",
)
MODELS = [NAMES[3], NAMES[1], "猫", "犬"]  # the last two have nothing that an address could be made of
TITLE = 'A "<b>class</b>" \\ of ours'
MARKED = "document.querySelectorAll('img[src=x], main script, main b script').length"


WIDE = (  # what does not end on a phone's screen, but for the row of examples, which is pushed along
    "[...document.querySelectorAll('body :not(#examples *)')].filter((e) => e.offsetParent"
    " && e.getBoundingClientRect().right > 390.5).map((e) => e.outerHTML.slice(0, 80))"
)


def speaking(name: str, folder: Path) -> Shared:
    """A tower that is asked for words of these names."""
    clip().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    tower = load_tower(folder)
    vectors = torch.nn.functional.normalize(torch.randn(len(NAMES), tower.width), dim=-1)
    return replace(Shared.speaking(tower, Words.of(tower, NAMES, vectors, vectors[0])), name=name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("site")
    own = [Shared(name, randomised(ViT(tiny_config(depth=1))), Card(name, NAMES)) for name in MODELS]
    own[1] = speaking(MODELS[1], tmp_path_factory.mktemp("tower"))
    pictures = [Picture(name, name, shapes_sample(11, i)[0]) for i, name in enumerate(NAMES)]
    write_site(folder, own, pictures, title=TITLE)
    return folder


def names_are_text(page: Page) -> None:
    """Go through the page, and read it."""
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: request.url.endswith("/x") and said.append(request.url))
    page.reload()
    page.wait_for_function(READY)
    expect(page.locator("h1")).to_have_text(TITLE)
    assert page.title() == TITLE
    assert page.locator("#model option").all_text_contents() == MODELS
    assert page.evaluate("[...document.querySelectorAll('#examples img')].map((i) => i.alt)") == list(NAMES)
    for model in MODELS:
        page.locator("#model").select_option(model)
        page.wait_for_function("(name) => vitSite.settled && vitSite.now.model.name === name", arg=model)
        shown = page.locator(".vit-class .vit-name").all_text_contents()
        assert len(shown) == 5 and set(shown) <= set(NAMES)
    for name in NAMES:
        page.get_by_role("group", name="Examples").get_by_role("button", name=name, exact=True).click()
        page.wait_for_function("(name) => vitSite.settled && vitSite.now.picture.name === name", arg=name)
    page.locator("#model").select_option(MODELS[1])
    page.wait_for_function("(name) => vitSite.settled && vitSite.now.model.name === name", arg=MODELS[1])
    expect(page.locator(".site-ticks label span")).to_have_text(list(NAMES))
    expect(page.locator(".site-maps figcaption b")).to_have_text([*NAMES, "control"])
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_function("() => vitSite.followed.missing === false")
    for step in range(page.evaluate("vitSite.followed.lesson.lesson.steps.length")):
        page.evaluate(f"vitSite.followed.lesson.go({step})")
        expect(page.locator("#lesson .les-drawing, #lesson .les-quiz").first).to_be_visible()
    assert page.evaluate(MARKED) == 0 and not said


def test_names_are_text_in_a_folder(visit) -> None:
    page = visit()
    names_are_text(page)
    page.reload()  # the address holds some of them
    page.wait_for_function(READY)
    assert page.evaluate("[vitSite.now.model.name, vitSite.now.picture.name]") == [MODELS[1], NAMES[-1]]


def test_names_are_text_in_one_file(browser: Browser, site: Path, tmp_path: Path) -> None:
    packed(site, tmp_path / "one.html")
    page = browser.new_context(offline=True).new_page()
    page.set_default_timeout(90_000)
    page.goto((tmp_path / "one.html").as_uri())
    names_are_text(page)


def test_long_names_leave_a_phone_its_width(visit) -> None:
    page = visit("?words=" + NAMES[3])
    page.set_viewport_size({"width": 390, "height": 800})
    for model in MODELS[:2]:
        page.locator("#model").select_option(model)
        page.wait_for_function("(name) => vitSite.settled && vitSite.now.model.name === name", arg=model)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate(WIDE) == []


def test_the_title_is_that_in_every_file(site: Path) -> None:
    assert json.loads((site / "page.webmanifest").read_text())["name"] == TITLE
    assert json.loads('"' + front_matter(site)["title"] + '"') == TITLE

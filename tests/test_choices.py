"""What a visitor chooses while an answer is on its way: it stands, and it is what is shown in the end."""

import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import randomised, tiny_config
from playwright.sync_api import Browser, Page, expect

from explorer import ui
from explorer.session import Session
from explorer.views import compare
from explorer.views.page import Failed
from vit import ViT, save
from vit.card import Card
from vit.checkpoint import save_snapshot

pytestmark = pytest.mark.browser
PATIENCE = 90_000  # milliseconds
CARD = Card("tiny", tuple("abcdefg"))
SLOW = 1.5  # seconds that an answer takes, where it shall come late


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    torch.manual_seed(0)
    folders = [tmp_path_factory.mktemp("checkpoints") / name for name in ("one", "two")]
    for folder in folders:
        save(folder, randomised(ViT(tiny_config())), CARD)
    for step in (1, 10, 100):
        save_snapshot(folders[0], randomised(ViT(tiny_config())), CARD, step, {"accuracy": step / 200})
    return Session(extra=tuple(map(str, folders)))


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Callable[[str], Page]]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)

    def open_page(address: str = "") -> Page:
        page = context.new_page()
        page.goto(url + address)
        return page

    yield open_page
    context.close()


@pytest.fixture
def hub(session: Session, monkeypatch) -> threading.Event:
    """Until this is set, no model comes from the Hub; one called someone/none never does."""
    come, load = threading.Event(), session.load

    def fetch(name: str) -> tuple[ViT, Card]:
        if not name.startswith("someone/"):
            return load(name)
        come.wait(60)
        if name == "someone/none":
            raise ValueError("There is no such model.")
        return randomised(ViT(tiny_config())), Card(name, CARD.class_names)

    monkeypatch.setattr(session, "load", fetch)
    return come


def slowly(call: Callable, monkeypatch, place: str) -> None:
    monkeypatch.setattr(place, lambda *values, **more: time.sleep(SLOW) or call(*values, **more))


def named(page: Page, key: str, value: str) -> None:
    """Wait until the address says so."""
    page.wait_for_function(f"() => new URL(location.href).searchParams.get('{key}') === '{value}'")


def choose_model(page: Page, name: str) -> None:
    box = page.locator("#model input")
    box.fill(name)
    box.press("Enter")


def test_a_link_to_a_model_that_is_not_here_fetches_it(visit, hub) -> None:
    hub.set()
    page = visit("?model=someone/linked")
    expect(page.locator("#model input")).to_have_value("someone/linked", timeout=PATIENCE)
    named(page, "model", "someone/linked")


def test_the_model_of_a_link_leaves_one_that_was_chosen_meanwhile(visit, hub, session: Session) -> None:
    page, (_, two) = visit("?model=someone/late"), session.extra
    page.wait_for_function("() => location.search.includes('example=')")
    choose_model(page, two)
    named(page, "model", two)
    hub.set()
    page.wait_for_timeout(1000 * SLOW)
    expect(page.locator("#model input")).to_have_value(two)
    named(page, "model", two)


def test_a_download_that_fails_leaves_what_was_chosen_since(visit, hub, session: Session) -> None:
    """And chosen again later it is tried again."""
    page, (_, two) = visit(), session.extra
    page.wait_for_function("() => location.search.includes('example=')")
    choose_model(page, "someone/none")
    expect(page.get_by_text("Fetching someone/none")).to_be_visible()
    choose_model(page, two)
    hub.set()
    expect(page.get_by_text("There is no such model.")).to_be_visible()
    expect(page.locator("#model input")).to_have_value(two)
    named(page, "model", two)
    page.get_by_text("There is no such model.").click()  # a click takes a toast away
    expect(page.get_by_text("There is no such model.")).to_have_count(0)
    page.wait_for_timeout(1000 * Failed().one_choice)
    choose_model(page, "someone/none")
    expect(page.get_by_text("There is no such model.")).to_be_visible()
    expect(page.locator("#model input")).to_have_value(two)


@pytest.mark.parametrize("late", ["show", "first_model"])
def test_a_size_chosen_during_the_first_look_stays(visit, monkeypatch, late: str) -> None:
    slowly(getattr(ui, late), monkeypatch, f"explorer.ui.{late}")
    page = visit("?example=tower")
    page.locator("#size input").click()
    page.get_by_role("option", name="twice as large", exact=True).click()
    named(page, "size", "twice as large")
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile("tower"))
    expect(page.locator("#size input")).to_have_value("twice as large")


def test_back_from_another_size_leads_to_the_one_before(visit) -> None:
    page = visit("?example=tower")
    named(page, "model", page.locator("#model input").input_value())
    page.locator("#size input").click()
    page.get_by_role("option", name="twice as large", exact=True).click()
    named(page, "size", "twice as large")
    page.go_back()
    page.wait_for_function("() => !location.search.includes('size')")
    expect(page.locator("#size input")).to_have_value("as trained")
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile("tower"))


def test_of_two_moments_in_a_row_the_second_is_compared(visit, monkeypatch) -> None:
    page = visit("?tab=compare")
    moment = page.get_by_label("Moment A")
    expect(page.locator("#compare-answer-A")).not_to_be_empty(timeout=PATIENCE)
    slowly(compare.moments, monkeypatch, "explorer.views.compare.moments")
    for name in ("step 10,", "step 100,"):
        moment.click()
        page.get_by_role("option", name=name).click()
    named(page, "from", "@100")
    page.wait_for_timeout(2000 * SLOW)
    expect(moment).to_have_value("step 100, 50 % right")
    named(page, "from", "@100")


def test_what_is_compared_does_not_flip_back(visit, monkeypatch) -> None:
    page = visit("?tab=compare")
    expect(page.locator("#compare-answer-A")).not_to_be_empty(timeout=PATIENCE)
    slowly(ui.pairs.both, monkeypatch, "explorer.views.pairs.both")
    page.get_by_label("two pictures", exact=True).check()
    page.wait_for_timeout(300)
    page.get_by_label("two models or moments", exact=True).check()
    page.wait_for_timeout(2000 * SLOW)
    expect(page.get_by_label("two models or moments", exact=True)).to_be_checked()
    expect(page.locator("#compare-A")).to_be_visible()
    expect(page).not_to_have_url(re.compile("compare="))

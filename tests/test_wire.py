"""What travels before a phone shows something: few bytes, each of them once, what is seen first."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import randomised, tiny_config
from playwright.sync_api import Browser, expect

from explorer.session import Session
from explorer.ui import first_shown, first_value, keep_first
from explorer.views.prose import prose
from vit import ViT, save
from vit.card import Card

PAGE = 110_000  # bytes of the page itself, compressed; once, with clips and two pictures, it is 106 kB
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PATIENCE = 90_000  # milliseconds


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save(folder, randomised(ViT(tiny_config())), Card("tiny", tuple("abcdefg")))
    return Session(extra=(str(folder),))


def test_what_most_find_first_is_at_hand_and_nothing_else(session: Session) -> None:
    assert first_value(session, {}) is None, "nothing is computed out of turn"
    keep_first(session)
    found = first_value(session, {"model": session.names()[0]})
    assert found is not None and found["head"].startswith("shard/")
    assert session.open_promise(found["head"].removeprefix("shard/")) is not None
    assert first_value(session, {"example": "tower"}) is None
    nonsense = first_shown(session, {"model": "../..", "example": "\0", "size": "huge"})
    assert nonsense == first_shown(session, {})


@pytest.mark.browser
def test_the_page_is_compressed_and_says_everything_once(browser: Browser, url: str) -> None:
    context = browser.new_context()
    answer = context.request.get(url, headers={"Accept-Encoding": "gzip"})
    text = answer.text()
    assert answer.headers["content-encoding"] == "gzip"
    assert text.count("globalThis.ViTViewer") == 1 and text.count("globalThis.ViTLesson") == 1
    assert text.count(".vit-viewer .vit-bar {") == 1
    assert int(answer.headers["content-length"]) < PAGE
    config = context.request.get(url + "config", headers={"Accept-Encoding": "gzip"})
    assert json.loads(config.text())["components"]
    context.close()


@pytest.mark.browser
def test_a_phone_sees_every_head_before_any_layer_has_come_and_loads_no_type(
    browser: Browser, url: str, session: Session
) -> None:
    keep_first(session)
    context = browser.new_context(**PHONE)
    context.set_default_timeout(PATIENCE)
    context.add_init_script("window.vitDebug = true")
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    value = first_value(session, {})
    assert value is not None
    held = [*value["layers"], *value["exact"]]
    waiting = []
    page.route(re.compile("|".join(map(re.escape, held))), lambda route: waiting.append(route))
    page.goto(url)
    expect(page.locator("#viewer .vit-readout")).to_contain_text("[CLS] gives")
    viewer = "document.querySelector('#viewer .vit-viewer').viewer"
    assert page.evaluate(f"{viewer}.data.loaded") == 0 and waiting
    exact = [address for address in asked if any(name in address for name in value["exact"])]
    assert exact == [], "what is read exactly comes after what is seen"
    assert not [address for address in asked if ".woff" in address]
    for route in waiting:
        route.continue_()
    page.unroute_all()
    page.wait_for_function(f"() => {viewer}.data.loaded > 0")
    context.close()


def test_texts_become_html_and_cannot_become_anything_else() -> None:
    text = "## A <b>\n\nOne *two* **three**\n`four`.\n\n- a\n  b\n- c\n\n1. d\n2. e"
    assert prose(text) == (
        "<h2>A &lt;b&gt;</h2><p>One <em>two</em> <b>three</b> <code>four</code>.</p>"
        "<ul><li>a b</li><li>c</li></ul><ol><li>d</li><li>e</li></ol>"
    )
    for name in ("about", "why", "heads", "training", "compare", "lesson"):
        source = Path("explorer/views") / f"{name}.py"
        told = prose(source.read_text(encoding="utf-8").split('"""')[1])
        assert not re.search(r"[*`]|^#", re.sub(r"<[^>]*>", "", told)), name

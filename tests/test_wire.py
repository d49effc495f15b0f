"""What travels before a phone shows something: few bytes, each of them once, what is seen first."""

import json
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import randomised, tiny_config
from playwright.sync_api import Browser, Response, expect
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from explorer import look as looks
from explorer.front import KEPT_PAGES, Front, Headed, Text
from explorer.session import Session
from explorer.ui import first_shown, first_value, keep_first
from explorer.views import lesson
from explorer.views.prose import prose
from vit import ViT, save
from vit.card import Card

FIRST = 360_000  # bytes of all that comes before the first picture, compressed
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


def test_a_first_look_that_is_refused_is_one_sentence_to_the_owner(session, monkeypatch, capsys) -> None:
    refused = Session(public=True, extra=tuple(session.names()[:1]))
    monkeypatch.setattr(looks, "PUBLIC_PASS_LIMIT", (0, 0))
    keep_first(refused)
    name, _, said = capsys.readouterr().err.removeprefix("app.py: ").partition(": ")
    assert name == session.names()[0] and said.startswith("This look needs") and said.count("\n") == 1


def test_a_text_is_kept_by_browsers_under_a_name_of_its_content() -> None:
    one, other = Text.own("js", "let a = 1;" * 500), Text.own("js", "let a = 2;" * 500)
    assert one.address != other.address and one.address == Text.own("js", "let a = 1;" * 500).address
    with TestClient(Starlette(routes=[one.route])) as server:
        for encoding in ("br", "gzip", "identity"):
            answer = server.get("/" + one.address, headers={"Accept-Encoding": encoding})
            assert answer.content == one.content and "immutable" in answer.headers["cache-control"]
            assert answer.headers.get("content-encoding", "identity") == encoding


def test_what_is_not_at_hand_does_not_keep_the_page() -> None:
    """A model that is slow to open, and one that cannot be: the page comes, and hears of it later."""

    go_on = threading.Event()

    def slow(query: Mapping[str, str]) -> dict[str, str]:
        go_on.wait(PATIENCE / 1000)
        return {"head": "late"}

    def broken(query: Mapping[str, str]) -> dict[str, str]:
        raise RuntimeError("a fault of the program")

    page = "<html><head><title>x</title></head><body></body></html>"

    async def home(request: Request) -> HTMLResponse:
        return HTMLResponse(page)

    def served_with(first_value: Callable[[Mapping[str, str]], Any]) -> str:
        layer = Middleware(Headed, front=Front([Text.own("css", "a {}")], [], first_value))
        return TestClient(Starlette(routes=[Route("/", home)], middleware=[layer])).get("/").text

    text = served_with(slow)
    go_on.set()
    assert "vitFirst = null" in text
    assert "vitFirst = null" in served_with(broken)
    text = served_with(lambda query: {"head": "shard/x", "name": "</script>"})
    assert '<link rel="preload" as="fetch" crossorigin href="./shard/x">' in text
    assert "</script>" not in text.partition("vitFirst = ")[2].partition(";")[0]
    assert "modulepreload" not in text, "this page does not have Gradio's files"


def test_a_page_is_written_once_for_all_who_get_the_same_and_anew_for_all_others() -> None:
    """Where the app is said to be, and what is shown first, tell pages apart, and nothing else does."""
    written = []

    async def home(request: Request) -> HTMLResponse:
        written.append(str(request.url))
        if len(written) > 20:
            return HTMLResponse("out of order", 500)
        return HTMLResponse(f"<head></head>{request.headers.get('x-forwarded-host', request.url.hostname)}")

    def first_value(query: Mapping[str, str]) -> dict[str, str] | None:
        return {"head": f"shard/{query['model']}", "nonce": str(len(written))} if "model" in query else None

    layer = Middleware(Headed, front=Front([], [], first_value))
    app = Starlette(routes=[Route("/", home), Route("/config", home)], middleware=[layer])
    with TestClient(app, "http://a") as server:
        for _ in range(3):
            answers = [server.get("/", headers={"Accept-Encoding": kind}) for kind in ("br", "gzip", "x")]
            assert len({answer.text for answer in answers}) == 1 and answers[0].text.endswith("a")
            assert [answer.headers.get("content-encoding") for answer in answers] == ["br", "gzip", None]
            assert {answer.headers["cache-control"] for answer in answers} == {"no-cache"}
            assert "shard/x" in server.get("/?model=x&other=1").text
            assert server.get("/", headers={"x-forwarded-host": "evil"}).text.endswith("evil")
            assert server.get("/", headers={"host": "b"}).text.endswith("b")
            assert server.get("/config?deep_link=x").headers["content-type"].startswith("application/json")
        assert len(written) == 5 and not any("?" in url for url in written)
        for place in range(KEPT_PAGES):
            assert server.get("/", headers={"host": str(place)}).status_code == (200 if place < 15 else 500)
        assert server.get("/", headers={"host": "a"}).text == "out of order", "it was pushed out"


@pytest.mark.browser
def test_what_comes_first_is_small_said_once_and_all_that_is_asked_for(
    browser: Browser, url: str, session: Session
) -> None:
    """A phone asks for no script and no looks that the page did not name at its start, and none in vain."""
    keep_first(session)
    context = browser.new_context(**PHONE)
    context.set_default_timeout(PATIENCE)
    page, sizes, names = context.new_page(), {}, []

    def count(response: Response) -> None:
        sizes[response.url.removeprefix(url).partition("?")[0]] = int(response.headers["content-length"])

    page.on("response", lambda response: count(response) if "content-length" in response.headers else None)
    page.on("request", lambda request: names.append(request.url.removeprefix(url)))
    html = page.goto(url)
    assert html is not None and html.headers["content-encoding"] == "br"
    expect(page.locator("#viewer .vit-readout")).to_contain_text("[CLS] gives")
    assert html.text().count("vitFirst") == 1 and "globalThis.ViT" not in html.text()
    page.wait_for_load_state()
    later = lesson.SCRIPT.address  # when there is something to see
    asked = {name for name in names if name.startswith(("assets/", "own/"))} - {later}
    named = set(re.findall(r'(?<!disabled )(?:href|src)="\./((?:assets|own)/[^"]*)"', html.text()))
    assert asked == named, "print explorer/late.json anew"
    first = {name: size for name, size in sizes.items() if not name.startswith(("gradio_api/file=", later))}
    assert sum(first.values()) < FIRST, first
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
    assert page.evaluate(f"{viewer}.data.loaded") == 0
    for _ in range(PATIENCE // 10):  # what this page asks for is told here a moment later
        if waiting:
            break
        page.wait_for_timeout(10)
    assert waiting
    exact = [address for address in asked if any(name in address for name in value["exact"])]
    assert exact == [], "what is read exactly comes after what is seen"
    assert not [address for address in asked if ".woff" in address]
    for route in waiting:
        route.continue_()
    page.unroute_all()
    page.wait_for_function(f"() => {viewer}.data.loaded > 0")
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("late", [None, "Regular", "Bold"])
def test_both_weights_of_the_type_are_there_before_a_word_or_neither_is(
    browser: Browser, url: str, late: str | None
) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    page, waiting = context.new_page(), []
    words = "Blocks-*.js"  # Gradio's script without which there is no word on the page
    page.route(f"**/{f'IBMPlexSans-{late}.woff2' if late else words}", lambda route: waiting.append(route))
    page.goto(url, wait_until="commit")
    faces = "[...document.fonts].filter(f => f.family.includes('Plex')).map(f => f.weight)"
    if late:
        page.locator(".vx-header").wait_for()
    else:
        page.wait_for_function(f"() => {faces}.length")
    for route in waiting:
        with page.expect_request_finished(lambda request, asked=route.request: request == asked):
            route.continue_()
    page.locator(".vx-header").wait_for()
    page.wait_for_timeout(200)
    assert page.evaluate(faces) == ([] if late else ["400", "700"]) and len(waiting) == 1
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

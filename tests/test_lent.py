"""Folders of the explorer without a server that the app lends: one at a time, few, told in sentences."""

import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import clip_config, tiny_config
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from explorer.session import Session
from explorer.site import folder, lent
from explorer.site.lent import Shelf, can_be_lent, routes
from explorer.site.runtime import SiteError
from explorer.ui import describe
from explorer.views import take_home
from vit import ViT, ViTConfig
from vit.card import Card


class Writer:
    """Writes a folder as `write_site` does, as far as it is served; waits where it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.at_once = self.most = 0

    def __call__(self, name: str, folder: Path) -> None:
        self.asked.append(name)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        assert self.go.wait(30)
        self.at_once -= 1
        if name == "broken":
            raise SiteError("The runtime could not be fetched: connect once.")
        (folder / "runtime").mkdir(parents=True)
        page = '<title>x</title><link rel="stylesheet" href="page.css"><script src="site.js" defer></script>'
        files = {"index.html": page, "page.css": "p{}", "viewer.css": "", "lesson.css": "", "site.js": "go()"}
        for file, text in files.items():
            (folder / file).write_text(text)
        (folder / "runtime" / "x.wasm.gz").write_bytes(b"wasm")


NAMES = ["shapes", "runs/cats and dogs", "broken", "third", "fourth"]
CATS, BROKEN = lent.site_address(NAMES[1]), lent.site_address("broken")


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def shelf(writer: Writer, tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "sites", lambda: NAMES, writer)


@pytest.fixture
def client(shelf: Shelf) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(shelf))) as client:
        yield client


def wait_for(shelf: Shelf, address: str) -> None:
    made = shelf.find(address)
    assert made is not None
    made.exception(timeout=30)


def test_who_asks_first_is_told_to_wait_and_then_has_the_page(
    client: TestClient, shelf: Shelf, writer: Writer
) -> None:
    writer.go.clear()
    first = client.get("/site/shapes/")
    assert first.status_code == 202 and "being made ready" in first.text and "refresh" in first.text
    writer.go.set()
    wait_for(shelf, "shapes")
    page = client.get("/site/shapes/?camera=1")
    assert page.status_code == 200 and "<title>x</title>" in page.text
    assert page.headers["cross-origin-opener-policy"] == "same-origin", "or the page has no threads"
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert client.get("/site/shapes/page.css").headers["content-type"].startswith("text/css")
    wasm = client.get("/site/shapes/runtime/x.wasm.gz")
    assert wasm.content == b"wasm" and "content-encoding" not in wasm.headers
    assert writer.asked == ["shapes"], "it is made once"


def test_it_is_also_one_file_to_take_home(client: TestClient, writer: Writer) -> None:
    answer = client.get("/site/shapes.html")
    assert (
        answer.status_code == 200 and "go()" in answer.text and 'data-path="runtime/x.wasm.gz"' in answer.text
    )
    assert 'filename="shapes.html"' in answer.headers["content-disposition"]
    assert client.get("/site/shapes.html").content == answer.content and writer.asked == ["shapes"]


@pytest.mark.parametrize(
    "number, said",
    [(errno.ENOSPC, "disk .* full"), (errno.EACCES, "Permission denied"), (errno.ENOENT, "once more")],
)
def test_a_file_that_cannot_be_packed_is_told_with_its_reason(
    client, monkeypatch, number: int, said: str
) -> None:
    def fails(*about: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lent.Shelf, "one_file", fails)
    assert re.search(said, client.get("/site/shapes.html").text)


def test_what_keeps_it_from_being_made_is_one_sentence_and_tried_again(
    client: TestClient, shelf: Shelf, writer: Writer
) -> None:
    wait_for(shelf, BROKEN)
    told = client.get(f"/site/{BROKEN}/")
    assert told.status_code == 503 and "could not be fetched: connect once." in told.text
    assert "refresh" not in told.text
    assert client.get(f"/site/{BROKEN}.html").text == "The runtime could not be fetched: connect once."
    assert writer.asked == ["broken", "broken"]


@pytest.mark.parametrize(
    "path", ["/site/unknown/", "/site/unknown.html", "/site/shapes/../../x", "/site/shapes/no"]
)
def test_nothing_else_is_there(path: str, client: TestClient, shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("secret")
    wait_for(shelf, "shapes")
    assert client.get(f"/site/{path}").status_code == 404
    climbing = client.get("/site/shapes/%2e%2e/%2e%2e/x")
    assert climbing.status_code == 404 and "secret" not in climbing.text


def test_an_address_without_its_last_stroke_leads_on(client: TestClient, shelf: Shelf) -> None:
    wait_for(shelf, CATS)
    answer = client.get(f"/site/{CATS}")
    assert answer.status_code == 200 and str(answer.url).endswith(f"/site/{CATS}/")


def test_one_is_written_at_a_time_and_few_are_kept(shelf: Shelf, writer: Writer) -> None:
    addresses = ["shapes", CATS, *map(lent.site_address, ("third", "fourth"))]
    made = [shelf.find(address) for address in addresses]
    for each in made:
        assert each is not None
        each.result(timeout=30)
    assert writer.most == 1
    kept = sorted(path.name for path in shelf.folder.iterdir())
    assert kept == sorted(addresses[-lent.KEPT :])


def test_no_two_models_have_one_address() -> None:
    names = ["shapes", "Shapes", "runs/a", "runs-a", "runs a", *(f"{'x' * 70}{end}" for end in "ab")]
    assert len({lent.site_address(name).lower() for name in names}) == len(names)
    assert lent.site_address("shapes") == "shapes"


def test_a_run_that_has_gone_on_is_written_beside_what_was_lent_of_it(tmp_path: Path, writer: Writer) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").touch()
    first, shelf = lent.site_address(str(run)), Shelf(tmp_path / "sites", lambda: [str(run)], writer)
    old = shelf.find(first).result(timeout=30)  # type: ignore[union-attr]
    os.utime(run / "model.safetensors", (1, 1))
    second = lent.site_address(str(run))
    assert second != first and shelf.find(first).result() == old, "a page that is open has its files"  # type: ignore[union-attr]
    new = shelf.find(second).result(timeout=30)  # type: ignore[union-attr]
    assert new != old and old.is_dir() and len(writer.asked) == 2
    older = lent.lasting(second) + "_00000000"
    assert shelf.find(older).result() == new and len(writer.asked) == 2, "a link of long ago"  # type: ignore[union-attr]
    assert shelf.find("elsewhere_00000000_00000000") is None


def test_only_the_apps_own_models_that_a_browser_can_run_are_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    def lends(name: str, config: ViTConfig) -> bool:
        return can_be_lent(name, ["tiny"], ViT(config), Card("tiny"))

    assert lends("tiny", tiny_config()) and lends("tiny", clip_config())
    assert not lends("owner/tiny", tiny_config())
    assert not lends("tiny", tiny_config(in_chans=1))
    monkeypatch.setattr(folder, "ATTENTION", 3 * 4 * 61 * 61 * 4 - 1)  # bytes: of 61 tokens of a clip
    assert lends("tiny", tiny_config()) and not lends("tiny", clip_config())
    monkeypatch.setattr(folder, "LIMIT", 10)
    assert not lends("tiny", tiny_config())


def test_the_process_that_writes_says_why_it_could_not(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "something").write_text("else")
    with pytest.raises(SiteError, match="holds something else"):
        lent.write_apart("shapes", tmp_path / "taken")


@pytest.mark.parametrize("name, seen", [("shapes", "pictures"), ("moves", "clips")])
def test_the_app_offers_them_for_its_own_models(name: str, seen: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "green").save(tmp_path / "green.png")
    session = Session()
    look = session.look(tmp_path / "green.png", name)
    assert f'href="site/{name}/?camera=1"' in describe(look, session.names())
    assert "site/" not in describe(look, ["another"])
    links = take_home.links(look, None, {})
    assert f'href="site/{name}.html"' in links and f"others can put in {seen} of their own" in links
    parameters = sum(p.numel() for p in look.model.parameters())
    told = re.search(r"about (\d+) MB", links)
    assert told and 2 * parameters < int(told[1]) * 1e6 < 2e7, "half precision, and the runtime with it"

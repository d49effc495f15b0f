"""The page without a server where something is missing, refused, damaged or renewed: one true sentence."""

import gzip
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from firefox import Firefox
from playwright.sync_api import Browser, Page, expect
from site_pages import READY, answers, served, two_models, visits

from explorer.site.onefile import packed
from explorer.site.serve import Handler, Server

pytestmark = pytest.mark.browser
LOOKED = READY.removeprefix("() => ")
SAID = "document.getElementById('said').textContent"
WEIGHTS, GRAPH = "models/first/weights.bin.gz", "models/first/graph.onnx.gz"
FROM_DISK = (
    "Opened from a disk, this page may not read its own files: run “python serve.py” in its folder, and open "
    "the address that it prints."
)
NO_WASM = "This browser lacks WebAssembly, in which the model runs: try a current one."
RENEWED = "This page has been renewed since it was opened: reload it to go on with the new one."


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(tmp_path_factory.mktemp("written"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(written, tmp_path / "site"))


@pytest.fixture
def visit(browser: Browser, folder: Path) -> Iterator[Callable[..., Page]]:
    with served(folder) as url, visits(browser, url) as go:
        yield go


def said_to(browser: Browser, address: str, sentence: str) -> None:
    page = browser.new_context().new_page()
    page.goto(address)
    expect(page.locator("#said")).to_have_text(sentence, timeout=60_000)
    expect(page.locator("#said")).to_have_class("site-error")
    page.context.close()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_inside(content: bytes) -> bytes:
    return gzip.compress(cut(gzip.decompress(content)))


UNFIT = "The files of this model do not fit together"
BROKEN: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "missing": (WEIGHTS, lambda _: None, f"A file of this page is missing ({WEIGHTS})"),
    "cut": (GRAPH, cut, f"A file of this page is damaged ({GRAPH})"),
    "half a graph": (GRAPH, cut_inside, UNFIT),
    "half the weights": (WEIGHTS, cut_inside, UNFIT),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_one_sentence(name: str, browser: Browser, folder: Path) -> None:
    file, change, sentence = BROKEN[name]
    content = change((folder / file).read_bytes())
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with served(folder) as url:
        said_to(browser, url, f"{sentence}: copy the folder again.")


def test_a_folder_opened_from_a_disk_says_what_to_do(browser: Browser, folder: Path) -> None:
    said_to(browser, (folder / "index.html").as_uri(), FROM_DISK)


def test_what_the_page_has_not_is_said_and_what_it_has_is_shown(visit) -> None:
    page = visit("?model=third&picture=four&step=7")
    expect(page.locator("#said")).to_have_text(
        "This page has no model “third” and no picture “four”: it shows what it has."
    )
    assert answers(page)
    page.goto(page.url.split("?")[0] + "?model=second&step=7")
    page.wait_for_function(READY)
    expect(page.locator("#said")).to_have_text(
        "This page has no step 7 of the training of second: it shows what it has."
    )
    page.locator("#examples button").last.click()
    expect(page.locator("#said")).to_have_text("")


def kept(page: Page) -> None:
    """Until the service worker has this page."""
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.reload()
    page.wait_for_function(f"() => {LOOKED} && !!navigator.serviceWorker.controller")


def renew(folder: Path, page: Page) -> None:
    """Another export in its place, with another title and another version, of which the page has heard."""
    for name in ("index.html", "sw.js"):
        text = (folder / name).read_text(encoding="utf-8")
        text = re.sub(
            r"(VERSION = `\$\{OURS\})\w{8}", r"\1renewed", text.replace("ViT Explorer<", "Renewed<")
        )
        (folder / name).write_text(text, encoding="utf-8")
    page.evaluate("navigator.serviceWorker.getRegistration().then((one) => one.update())")
    expect(page.locator("#said")).to_have_text(RENEWED, timeout=60_000)  # all its files are fetched first


def host_that(folder: Path, before: str, after: str) -> None:
    """Another web host than serve.py."""
    text = (folder / "serve.py").read_text(encoding="utf-8")
    assert before in text
    (folder / "serve.py").write_text(text.replace(before, after), encoding="utf-8")


@contextmanager
def visiting(browser: Browser, folder: Path) -> Iterator[Page]:
    with served(folder) as url, visits(browser, url) as go:
        yield go()


def choose(page: Page, name: str) -> None:
    page.locator(f'[data-picture="{name}"]').click()
    page.wait_for_function(f"() => vitSite.settled && vitSite.now.picture.name === '{name}'")


def test_a_host_that_lets_files_be_kept_does_not_mix_two_exports(browser: Browser, folder: Path) -> None:
    host_that(folder, '"no-cache"', '"max-age=3600"')
    with visiting(browser, folder) as page:
        kept(page)
        first = answers(page)
        choose(page, "two")
        assert answers(page) != first
        shutil.copy(folder / "pictures" / "0.webp", folder / "pictures" / "1.webp")
        script = (folder / "site.js").read_text(encoding="utf-8")
        (folder / "site.js").write_text(script + "\nwindow.renewed = true;", encoding="utf-8")
        renew(folder, page)
        page.reload()
        page.wait_for_function(READY)
        assert page.evaluate("window.renewed")  # what the service worker keeps at once
        choose(page, "two")
        assert answers(page) == first  # and what it fetches later


SHORT = """    def do_GET(self):
        if not self.path.endswith("index.html"):
            return super().do_GET()
        self.send_response(301)
        self.send_header("Location", "./")
        self.end_headers()

    def log_message"""


UNPACKED = """        if self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()"""


@pytest.mark.parametrize(
    ("place", "lines"),
    [("    def log_message", SHORT), ("        super().end_headers()", UNPACKED)],
    ids=["that gives the page by its short address only", "whose files are unpacked on the way"],
)
def test_a_host_of_its_own_kind(browser: Browser, folder: Path, place: str, lines: str) -> None:
    host_that(folder, place, lines)
    with visiting(browser, folder) as page:
        kept(page)
        page.context.set_offline(True)
        page.reload()
        page.wait_for_function(READY)
        assert answers(page)


HALF = """    def copyfile(self, source, out):
        out.write(source.read(100) if self.path.endswith("graph.onnx.gz") else source.read())

    def log_message"""


def test_a_host_that_is_gone_in_the_middle_of_a_file(browser: Browser, folder: Path) -> None:
    host_that(folder, "    def log_message", HALF)
    with served(folder) as url:
        said_to(browser, url, f"{GRAPH} could not be fetched: check the connection, and reload.")


def test_a_renewed_page_says_so_and_opens_without_a_network(visit, folder: Path) -> None:
    page = visit()
    kept(page)
    expect(page.locator("#said")).to_have_text("")
    renew(folder, page)
    page.locator("#examples button").last.click()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'two'")
    expect(page.locator("#said")).to_have_text(RENEWED)
    page.reload()
    page.wait_for_function(READY)
    expect(page.locator("h1")).to_have_text("Renewed")
    page.context.set_offline(True)
    page.reload()
    page.wait_for_function(READY)
    expect(page.locator("h1")).to_have_text("Renewed")
    assert answers(page)
    page.locator("#model").select_option("second")
    expect(page.locator("#said")).to_have_text(
        re.compile(r"^models/second/\S+ could not be fetched: check the connection, and reload\.$")
    )


def test_one_visit_is_enough_to_open_whole_without_a_network(visit, folder: Path) -> None:
    page = visit()
    first = (folder / "sw.js").read_text(encoding="utf-8").split('const FIRST = "')[1].split('"')[0]
    assert {"pictures/0.webp", "models/first/maps/0.bin"} <= set(first.split())  # or it is there by chance
    page.wait_for_function("() => navigator.serviceWorker.controller")
    page.context.set_offline(True)
    page.reload()
    page.wait_for_function(READY)
    assert page.evaluate("vitSite.viewer.data.maps.size") > 0
    expect(page.locator("#said")).to_have_text("")


def test_a_picture_whose_maps_do_not_come_is_shown(visit, folder: Path) -> None:
    (folder / "models" / "first" / "maps" / "1.bin").unlink()
    page = visit()
    choose(page, "two")
    expect(page.locator("#said")).to_contain_text("A file of this page is missing (models/first/maps/1.bin)")
    expect(page.locator("#said")).not_to_have_class("site-error")


def test_a_first_visit_hears_of_a_renewed_page_too(visit, folder: Path) -> None:
    page = visit()
    page.wait_for_function("() => navigator.serviceWorker.controller")
    expect(page.locator("#said")).to_have_text("")
    renew(folder, page)


def test_other_pages_of_the_host_are_their_own(visit, folder: Path) -> None:
    for name in ("other.html", "data.txt"):
        (folder / name).write_text("not ours", encoding="utf-8")
    page = visit()
    page.wait_for_function("() => navigator.serviceWorker.controller")
    assert page.evaluate("fetch('data.txt').then((answer) => answer.text())") == "not ours"
    kept = "caches.open(await caches.keys().then(([name]) => name)).then((cache) => cache.keys())"
    names = page.evaluate(f"(async () => (await {kept}).map((each) => each.url))()")
    assert any(name.endswith("/site.js") for name in names) and not any("data.txt" in name for name in names)
    address = page.url.split("?")[0]
    page.goto(address + "other.html")
    assert page.locator("body").text_content() == "not ours"
    page.goto(address + "index.html?model=second")
    page.wait_for_function(READY)
    assert page.evaluate("vitSite.now.model.name") == "second"


def test_a_page_without_an_address_opens(browser: Browser, folder: Path, tmp_path: Path) -> None:
    packed(folder, tmp_path / "one.html")
    with served(folder) as url, visits(browser, url) as go:
        go("/", service_workers="block").locator('[data-picture="two"]').click()  # a path like a host's
        page = go()
        frame = """(text) => document.body.replaceChildren(Object.assign(document.createElement("iframe"),
            { sandbox: "allow-scripts", srcdoc: text, width: 900, height: 900 }))"""
        page.evaluate(frame, (tmp_path / "one.html").read_text(encoding="utf-8"))
        inside = page.frame_locator("iframe")
        inside.locator('[data-picture="two"][aria-pressed="false"]').click()
        expect(inside.locator('[data-picture="two"]')).to_have_attribute("aria-pressed", "true")
        inside.locator("#to-lesson").click()
        expect(inside.locator(".les-dots li").first).to_be_visible()
        inside.get_by_role("button", name="Next").click()
        expect(inside.locator("#said")).to_have_text("")


FULL = "Cache.prototype.put = () => Promise.reject(new DOMException('', 'QuotaExceededError'));"
SHUT = """self.addEventListener("activate", () => {
  CacheStorage.prototype.open = () => Promise.reject(new DOMException('', 'UnknownError'));
});"""


@pytest.mark.parametrize("broken", [FULL, SHUT], ids=["full", "shut"])
def test_what_cannot_be_kept_is_fetched_each_time(visit, folder: Path, broken: str) -> None:
    worker = folder / "sw.js"
    worker.write_text(f"{broken}\n{worker.read_text(encoding='utf-8')}", encoding="utf-8")
    page = visit()
    kept(page)
    page.locator("#model").select_option("second")
    page.wait_for_function("() => vitSite.settled && vitSite.now.model.name === 'second'")
    page.evaluate("caches.keys().then((names) => Promise.all(names.map((name) => caches.delete(name))))")
    page.reload()
    page.wait_for_function(READY)
    assert answers(page)


def test_in_firefox_too(folder: Path) -> None:
    with Firefox.start() as firefox:
        firefox.goto((folder / "index.html").as_uri())
        firefox.wait_for(f"{SAID} === {FROM_DISK!r}")
        with served(folder) as url:
            firefox.goto(url + "?model=third")
            firefox.wait_for(LOOKED)
            assert firefox.evaluate(SAID) == "This page has no model “third”: it shows what it has."
            firefox.evaluate("navigator.serviceWorker.ready.then(() => true)")
            firefox.goto(url)
            firefox.wait_for(f"{LOOKED} && !!navigator.serviceWorker.controller")
            (folder / WEIGHTS.replace("first", "second")).unlink()
            firefox.evaluate("void vitSite.choose({ model: 'second' })")
            firefox.wait_for(f"{SAID}.includes('is missing (models/second/weights.bin.gz): copy the folder')")
        firefox.goto(url)  # nobody serves it any more
        firefox.wait_for(LOOKED)
        assert firefox.evaluate("vitSite.viewer.data.classes.length") == 7


def test_firefox_without_webassembly_or_storage(folder: Path) -> None:
    with served(folder) as url:
        with Firefox.start(**{"javascript.options.wasm": False}) as firefox:
            firefox.goto(url)
            firefox.wait_for(f"{SAID} === {NO_WASM!r}")
        with Firefox.start(**{"network.cookie.cookieBehavior": 2}) as firefox:
            firefox.goto(url)
            firefox.wait_for(LOOKED)
            assert (
                firefox.evaluate(SAID) == "" and firefox.evaluate("vitSite.viewer.data.classes.length") == 7
            )


def test_what_serves_the_folder_says_why_it_cannot(folder: Path) -> None:
    with served(folder) as url:
        port = url.rstrip("/").rpartition(":")[2]
        for asked, said in (
            (port, f"Port {port} cannot be had"),
            ("70000", "Port 70000"),
            ("--port", "usage:"),
        ):
            told = subprocess.run(
                [sys.executable, str(folder / "serve.py"), asked], capture_output=True, text=True, timeout=60
            )
            assert told.returncode and said in told.stderr and "Traceback" not in told.stderr


def test_what_serves_the_folder_lets_many_connections_wait() -> None:
    with ExitStack() as open_ones, Server(("127.0.0.1", 0), Handler) as busy:
        for _ in range(20):
            open_ones.enter_context(socket.create_connection(busy.server_address[:2], timeout=5))

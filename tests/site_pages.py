"""What tests of the page without a server share: the folder as its serve.py shows it, and visits to it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import FLAGS, randomised, tiny_config
from playwright.sync_api import Browser, Page

from explorer.site.folder import Shared, write_site
from explorer.site.pictures import Picture
from vit import ViT
from vit.card import Card
from vit.shapes import shapes_sample

READY = "() => window.vitSite?.settled"
ANSWERS = "vitSite.viewer.data.classes.map((c) => [c.index, c.value])"


def two_models(folder: Path) -> Path:
    """The smallest page on which there is something to choose: two models, two pictures."""
    torch.manual_seed(0)
    models = [Shared(name, randomised(ViT(tiny_config(depth=1))), Card(name)) for name in ("first", "second")]
    pictures = [Picture(name, name, shapes_sample(11, i)[0]) for i, name in enumerate(("one", "two"))]
    write_site(folder, models, pictures)
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the folder."""
    command = [sys.executable, str(folder / "serve.py"), "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


@contextmanager
def visits(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Opens the page at an address; a request to another host, or an error on the page, fails the test."""
    wrong: list[str] = []
    contexts = []

    def go(query: str = "", **options) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)  # a busy machine starts a model late
        page.on("request", lambda r: r.url.startswith((url, "blob:", "data:")) or wrong.append(r.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url + query)
        page.wait_for_function(READY)
        return page

    try:
        yield go
    finally:
        for context in contexts:
            context.close()
    assert not wrong


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """The address of the folder that the test file writes as its `site`."""
    with served(site) as address:
        yield address


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    with visits(browser, url) as go:
        yield go


def answers(page: Page) -> list[list]:
    found: list[list] = page.evaluate(ANSWERS)
    assert found, "the model has not answered"
    return found


@contextmanager
def with_camera(browser: Browser) -> Iterator[Browser]:
    """Another one, with a camera that is none."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    flags = [*FLAGS, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    other = browser.browser_type.launch(executable_path=program, args=flags)
    try:
        yield other
    finally:
        other.close()

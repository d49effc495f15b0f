"""What several test files need: small models, random traces, and the data sets where they are at hand."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from vit import ViT, ViTConfig

CI = os.environ.get("CI") == "true"
NO_QUEUE: dict = {
    "push": None,
    "process_events": None,
    "event_queue_per_concurrency_id": {},
}  # of a page that is never served
torch.set_num_threads(1)  # the models are tiny, and pytest-xdist keeps the cores busy
expect.set_options(timeout=60_000)  # what a page should show it may show late on a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: one that began last would leave the other core with nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny_config(**changes) -> ViTConfig:
    """3 layers, 4 heads, a 3 x 5 grid: small, not square, and nothing divides by accident."""
    shape = dict(image_size=(12, 20), patch_size=4, num_classes=7, embed_dim=32, depth=3, num_heads=4)
    return ViTConfig(**shape | changes)


def clip_config(**changes) -> ViTConfig:
    """8 frames of 12 x 20 px, two in a patch: a (4, 3, 5) grid."""
    return tiny_config(num_frames=8, tubelet=2, **changes)


def randomised(model: ViT, std: float = 0.2) -> ViT:
    """The model with every parameter random, biases and gains too: zeros and ones hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * std)
    return model.eval().requires_grad_(False)


@pytest.fixture
def tiny_vit() -> ViT:
    return randomised(ViT(tiny_config()))


def kept(session, name: str) -> bytes | None:
    """What a browser would get from this address; None if nobody was promised it."""
    file = session.open_promise(name)
    if file is None:
        return None
    with file:
        return file.read()


def data_folder(name: str) -> Path:
    """VIT_DATA/name; without it a test skips, with the reason; in CI what VIT_DATA names must be whole."""
    root = os.environ.get("VIT_DATA")
    folder = Path(root or ".") / name
    if root and folder.is_dir():
        return folder
    reason = f"set VIT_DATA to a folder that holds {name}/ to run this test"
    pytest.fail(reason) if CI and root else pytest.skip(reason)


@pytest.fixture
def cifar10_folder() -> Path:
    return data_folder("cifar10")


@pytest.fixture
def imagenette_folder() -> Path:
    return data_folder("imagenette")


@pytest.fixture
def photos_folder(imagenette_folder: Path) -> Path:
    """Where both of its parts are."""
    return data_folder("catsdogs").parent


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """24 + 12 pictures of two classes that differ in brightness."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name, low in (("dark", 0), ("light", 120)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(low, low + 130, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture
def alone(monkeypatch, tmp_path_factory) -> None:
    """No process of torchrun's; a cache of one's own."""
    monkeypatch.setenv("VIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def finished(pictures, tmp_path_factory) -> Path:
    """A training run that nothing interrupted."""
    from tiny_run import run

    out = tmp_path_factory.mktemp("run") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        run(pictures, out)
    return out


FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-quic"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; a machine without one skips, except in CI."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        if chromium is None and not Path(playwright.chromium.executable_path).exists():
            reason = "install chromium (or set CHROMIUM to a browser) to run this test"
            pytest.fail(reason) if CI else pytest.skip(reason)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(session) -> Iterator[str]:
    """The whole app on a free port, with the `session` of the test file."""
    from explorer import serve, ui  # here: most tests need no Gradio, which takes seconds to import

    demo = ui.build(session)
    serve.open_queue(demo, session)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **ui.launch_options(session))
    yield url
    demo.close()

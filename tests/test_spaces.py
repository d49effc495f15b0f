"""Folders that are Hugging Face Spaces: whole, checked, and refused in a sentence if they would not run."""

import importlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image

from explorer import look as looks
from explorer import zero
from explorer.cli.commands import main
from explorer.methods import METHODS
from explorer.session import Session
from explorer.site.runtime import SiteError
from explorer.site.spaces import check_space, front_matter, next_step
from vit import Card, ViT, save, trace


@pytest.fixture(scope="module")
def zerogpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "zerogpu"
    assert main(["space", str(folder), "--kind", "zerogpu"]) == 0
    return folder


def test_a_zerogpu_space_pins_what_its_documentation_allows(zerogpu: Path) -> None:
    assert front_matter(zerogpu)["python_version"] == "3.12.12"
    requirements = (zerogpu / "requirements.txt").read_text().splitlines()
    assert {"torch==2.11.0", "torchvision==0.26.0", "spaces"} <= {*requirements}
    assert sum(line.startswith("torch") for line in requirements) == 2
    assert not list(zerogpu.rglob("__pycache__")) and not (zerogpu / ".git").exists()
    assert len(list(zerogpu.glob("checkpoints/*/model.safetensors"))) >= 4


def test_the_app_of_the_folder_stands_on_its_own(zerogpu: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, zerogpu / "app.py", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "See inside a Vision Transformer" in done.stdout, done.stderr


def test_a_cpu_space_keeps_our_own_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", str(tmp_path / "cpu"), "--kind", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "✓ sdk gradio, entry app.py" in told and "hf upload YOU/NAME" in told
    assert "torch>=" in (tmp_path / "cpu" / "requirements.txt").read_text()
    assert main(["space", str(tmp_path / "cpu"), "--kind", "cpu"]) == 0, "again into the same folder"


def test_a_folder_with_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    assert main(["space", str(tmp_path), "--kind", "cpu"]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def broken(change: Callable[[Path], Any], zerogpu: Path, tmp_path: Path) -> Path:
    """A small folder with the same settings, changed."""
    for name in ("README.md", "requirements.txt", "app.py"):
        (tmp_path / name).write_bytes((zerogpu / name).read_bytes())
    change(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("README.md", "---\ntitle", "title", "does not begin with the settings"),
        ("README.md", "sdk: gradio", "sdk: docker", "needs gradio"),
        ("README.md", "app_file: app.py", "app_file: other.py", "other.py, which is not in the folder"),
        ("README.md", "short_description: ", "short_description: " + 60 * "x", "more than 60 letters"),
        ("README.md", "sdk_version: ", "sdk_version: 5", "different releases of gradio"),
        ("requirements.txt", "torch==2.11.0", "torch>=2.9", "lacks torch==2.11.0"),
        ("requirements.txt", "spaces", "", "lacks spaces"),
    ],
)
def test_what_would_not_run_there_is_one_sentence(
    file: str, old: str, new: str, said: str, zerogpu: Path, tmp_path: Path
) -> None:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    with pytest.raises(SiteError, match=said):
        check_space(broken(change, zerogpu, tmp_path), "zerogpu")


def test_the_next_step_runs_as_it_is_printed() -> None:
    assert "hf upload YOU/NAME 'my space' . " in next_step(Path("my space"), "static")


@pytest.fixture
def with_spaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """explorer.zero as it is where the package is installed: a stand-in that pickles as the real one does."""
    borrowed: list[int] = []

    def gpu(duration: int) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            def run(*given: Any) -> Any:
                borrowed.append(duration)
                return pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(given)))))

            return run

        return decorate

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    importlib.reload(zero)
    yield borrowed
    monkeypatch.undo()
    importlib.reload(zero)


def test_a_long_map_borrows_a_gpu_and_is_the_same_map(with_spaces: list[int]) -> None:
    model = randomised(ViT(tiny_config(activation="swiglu", mlp_ratio=4)))
    t = trace(model, torch.rand(3, *model.config.image_size))
    assert zero.HERE
    ours = zero.map_on_gpu("occlusion", t, model.config, model.state_dict(), 2)
    assert with_spaces == [zero.SECONDS]
    torch.testing.assert_close(ours, METHODS["occlusion"](t, model=model, target=2))


def test_what_a_processor_does_as_soon_borrows_nothing(with_spaces: list[int], tmp_path, monkeypatch) -> None:
    """A small model's passes, and what is no pass of a model: flow."""
    save(tmp_path / "tiny", randomised(ViT(tiny_config())), Card("tiny"))
    Image.new("RGB", (20, 12), "red").save(tmp_path / "red.png")
    look = Session().look(tmp_path / "red.png", str(tmp_path / "tiny"))
    look.map(METHODS["occlusion"], 1)
    monkeypatch.setattr(looks, "QUICK", 0)
    look.map(METHODS["flow"], 1)
    assert not with_spaces
    look.map(METHODS["occlusion"], 2)
    assert with_spaces == [zero.SECONDS]


def test_elsewhere_nothing_is_borrowed() -> None:
    assert not zero.HERE

    def function() -> int:
        return 3

    assert zero.borrowing(60)(function) is function

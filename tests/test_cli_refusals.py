"""What a command would ignore, mix up or destroy is refused before anything is computed."""

from pathlib import Path

import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image

import app
import train
from explorer.cli import data
from explorer.cli.commands import main
from explorer.faithfulness import Plan, Sample, table
from vit import ViT
from vit.shapes import shapes_sample

pytestmark = pytest.mark.usefixtures("alone")


def refused(capsys: pytest.CaptureFixture[str], said: str, *words: str) -> None:
    try:
        assert main([*words]) == 2
    except SystemExit as stop:
        assert stop.code == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for i, name in enumerate(("a.png", "inner/b.png")):
        shapes_sample(3, i)[0].save(folder / name)
    (folder / "boxes.csv").write_text("path,x0,y0,x1,y1,width,height\na.png,0,0,9,9,64,64\n")
    return folder


def test_what_is_read_is_not_written_over(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "words.csv").write_text("a dog")
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    said = "is what is read: give another --out"
    refused(capsys, said, "map", f"{photos}/a.png", "--model", "shapes", "--out", f"{photos}/a.png")
    refused(capsys, said, "map", str(photos), "--model", "shapes", "--out", f"{photos}/{{name}}.png")
    boxes = f"{photos}/boxes.csv"
    refused(
        capsys, said, "objects", "--model", "shapes", "--data", str(photos), "--boxes", boxes, "--out", boxes
    )
    words = f"{photos}/words.csv"
    refused(capsys, said, "where", f"{photos}/a.png", "--words", words, "--out", words)
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before


def test_typed_words_are_no_path_however_many(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--words", ", ".join(f"word {i}" for i in range(99)))
    refused(capsys, "shapes has no text tower", "where", f"{photos}/a.png", "--model", "shapes", *words)


def test_objects_do_not_measure_other_pictures_than_those_named(photos: Path, capsys) -> None:
    said = "--boxes and --masks are of a folder of pictures: name it with --data"
    refused(capsys, said, "objects", "--model", "shapes", "--boxes", f"{photos}/boxes.csv")
    refused(capsys, said, "roles", "--model", "shapes", "--data", "shapes", "--masks", "nowhere")
    said = "There is no folder nowhere: --data names the one that holds the pictures"
    for marked in ("--masks", "--boxes"):
        refused(capsys, said, "objects", "--model", "shapes", "--data", "nowhere", marked, str(photos))
    said = "moves holds clips, and this takes pictures"
    refused(capsys, said, "objects", "--model", "shapes", "--data", "moves", "--images", "2")
    refused(capsys, "moves reads clips: --data moves", "objects", "--model", "moves", "--data", "shapes")


def test_what_faithfulness_would_ignore_is_refused(photos: Path, capsys) -> None:
    one = ("faithfulness", f"{photos}/a.png", "--model", "shapes")
    refused(capsys, "--watch truth needs labels", *one, "--watch", "truth")
    refused(capsys, "--keep is for a table over many", *one, "--keep", f"{photos}/kept.jsonl")
    refused(capsys, "leave out what would change that", "faithfulness", "--record", "--watch", "truth")
    refused(capsys, "leave out what would change that", "faithfulness", "--record", "--points", "4")


def test_a_record_needs_the_page_that_it_goes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """pip installs none: that is said before anything is measured."""
    monkeypatch.setattr(data, "PAGE", tmp_path / "faithfulness.md")
    monkeypatch.setattr(data, "model_and_size", lambda _: pytest.fail("it is measured"))
    refused(capsys, "which pip does not install: use a clone", "faithfulness", "--record")


def test_kept_figures_of_another_class_are_not_taken(tmp_path: Path) -> None:
    model, image = randomised(ViT(tiny_config())).eval(), torch.randn(3, *tiny_config().image_size)
    plan, kept = Plan(points=3), tmp_path / "kept.jsonl"
    table(model, [Sample(image)], ["attention"], plan, keep=kept)
    for target in (0, 1):
        with pytest.raises(ValueError, match="of other pictures or of other classes"):
            table(model, [Sample(image, target=target)], ["attention"], plan, keep=kept)
    table(model, [Sample(image)], ["attention"], plan, keep=kept)


def test_a_space_takes_the_place_of_a_space_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "app.py").write_text("mine")
    refused(capsys, "holds something else: name a new folder", "space", str(tmp_path), "--kind", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["app.py"] and (
        tmp_path / "app.py"
    ).read_text() == "mine"
    new = str(tmp_path / "new")
    for words in (["--model", "shapes"], ["--title", "Mine"], ["--moments", "2"], ["--webgpu"]):
        refused(capsys, "takes the app with its bundled models", "space", new, "--kind", "cpu", *words)
    refused(capsys, "add --one-file, or name a folder", "site", str(tmp_path / "lecture.html"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dry-run", "B/16", "--depth", "3", "--image-size", "384"), "leave out --image-size, --depth"),
        (("--evaluate", "shapes", "--dry-run"), "leave out --network conv and --evaluate"),
    ],
)
def test_a_dry_run_answers_for_what_was_asked(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        train.main([*words])


def test_no_host_has_an_empty_label() -> None:
    with pytest.raises(OSError, match=r"a\.\.b is not known here: check --host"):
        app.check_address("a..b", None)


@pytest.mark.parametrize("text", ["abc", "", "0", "70000", "-1"])
@pytest.mark.parametrize("name", ["GRADIO_SERVER_PORT", "GRADIO_NUM_PORTS"])
def test_a_variable_that_is_no_number_is_named(name: str, text: str, monkeypatch) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SystemExit, match=f"{name} must be a number between 1 and 65535, not '{text}'"):
        app.main([])


def test_a_picture_beside_its_results_is_no_reason_to_stop(photos: Path, capsys) -> None:
    words = ("map", f"{photos}/a.png", "--model", "shapes", "--method", "attention", "--out")
    for _ in range(2):
        assert main([*words, f"{photos}/{{name}}-map.png"]) == 0
    assert Image.open(photos / "a.png").size == shapes_sample(3, 0)[0].size

"""benchmarks/gpu.py: pictures travel in one file, and the whole recipe runs, here at the smallest size."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import gpu
from vit import load
from vit.data import IMAGENETTE_CLASSES

pytestmark = pytest.mark.usefixtures("alone")
SMALL = dict(image_size=16, train_size=16, embed_dim=16, depth=2, num_heads=2, batch_size=8, eval_images=4)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures of every class for training, one for testing, of 40 x 20 px."""
    rng = np.random.default_rng(0)
    for data, classes, test in (
        ("catsdogs", ("cat", "dog"), "test"),
        ("imagenette", IMAGENETTE_CLASSES, "val"),
    ):
        for name in classes:
            for split, count in (("train", 2), (test, 1)):
                folder = tmp_path / "data" / data / split / name
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.jpg")
    monkeypatch.setenv("VIT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_travel_shrunk_and_the_recipe_runs_on_them(photos: Path, capsys) -> None:
    gpu.main(["pack", "photos.zip", "--side", "20"])
    with zipfile.ZipFile("photos.zip") as packed:
        names = packed.namelist()
        assert len(names) == 36 and "imagenette/test/n01440764/0.webp" in names
        assert Image.open(packed.open("catsdogs/train/cat/0.webp")).size == (20, 10)
    small = str(SMALL | dict(compile=False)).replace("'", '"').replace("False", "false")
    words = ["train", "photos.zip", "--device", "cpu", "--minutes", "0.01", "--small", small]
    gpu.main(words)
    model, card = load("./runs/photos-gpu")
    assert card.class_names[:2] == ("cat", "dog") and len(card.class_names) == 12
    assert model.config.embed_dim == 16 and Path("runs/photos-gpu-teacher/teacher.safetensors").is_file()
    said = capsys.readouterr().out
    assert "vit:" in said and "epochs fit" in said
    gpu.main(words)  # all is there already
    assert "epochs fit" not in capsys.readouterr().out


def test_a_pack_that_would_not_travel_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIMIT", 100)
    with pytest.raises(SystemExit, match="give a smaller --side"):
        gpu.main(["pack", "photos.zip"])
    assert not list(photos.glob("*photos*"))


def test_a_picture_that_cannot_be_read_is_named_and_the_rest_is_no_pack(photos: Path) -> None:
    broken = photos / "data" / "imagenette" / "val" / "n01440764" / "0.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(SystemExit, match=f"{broken}: "):
        gpu.main(["pack", "photos.zip"])
    assert not list(photos.glob("*photos*"))


def test_a_pack_is_unpacked_again_where_that_was_cut_short(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.main(["pack", "photos.zip", "--side", "20"])
    train = ["train", "photos.zip", "--device", "cpu"]
    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="full"):
        patched.setattr(zipfile.ZipFile, "extractall", cut_short)
        gpu.main(train)
    monkeypatch.setattr(gpu, "runs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gpu.main(train)
    assert len([*photos.glob("runs/photos-packed/**/*.webp")]) == 36


def cut_short(packed: zipfile.ZipFile, folder: Path) -> None:
    packed.extract(packed.namelist()[0], folder)
    raise OSError("The disk is full.")


def test_the_models_that_it_trains_are_small_enough_to_be_bundled() -> None:
    options = gpu.Options(**gpu.VIT)
    options.check(1)
    gpu.Options(**gpu.TEACHER).check(1)
    model = gpu.train.build_model(options, tuple(map(str, range(12))))
    assert sum(p.numel() for p in model.parameters()) <= 8e6

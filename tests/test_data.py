"""Data sets from folders and from torchvision: decoded once, with what cannot be read named."""

import os
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit import decoder
from vit.data import (
    CIFAR10_CLASSES,
    IMAGENETTE_CLASSES,
    DataError,
    class_names_of,
    downloading,
    find_pictures,
    load_split,
    writing,
)

WHITE = (255, 255, 255)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIT_DATA", raising=False)


def make_folder(root: Path, splits=("train", "val"), classes=("cat", "dog"), count: int = 4) -> Path:
    for split in splits:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (12, 10), (100 * label, 20 * i, 0)).save(folder / f"{i}.png")
    return root


def test_an_image_folder_is_read_once_and_then_from_the_cache(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "pets")
    split = load_split(str(root), "train", (8, 8))
    assert split.class_names == ("cat", "dog") and split.labels.tolist() == [0] * 4 + [1] * 4
    assert split.images.shape == (8, 3, 8, 8) and split.images.dtype == torch.uint8
    assert split.images[:, 0].flatten(1).float().mean(1).tolist() == [0.0] * 4 + [100.0] * 4
    monkeypatch.setattr("vit.folders.open_picture", lambda path: pytest.fail("decoded twice"))
    again = load_split(str(root), "train", (8, 8))
    assert torch.equal(again.images, split.images) and torch.equal(again.labels, split.labels)


def test_a_folder_that_has_changed_is_read_again(tmp_path):
    root = make_folder(tmp_path / "pets")
    load_split(str(root), "train", (8, 8))
    Image.new("RGB", (12, 10), WHITE).save(root / "train" / "cat" / "0.png")
    assert load_split(str(root), "train", (8, 8)).images[0].min() == 255


def test_the_cache_keeps_one_file_and_no_torn_one(tmp_path):
    root = make_folder(tmp_path / "pets")
    load_split(str(root), "train", (8, 8))
    (kept,) = (tmp_path / "cache" / "decoded").iterdir()
    kept.with_suffix(".part").write_bytes(b"of a run that was killed")
    Image.new("RGB", (12, 10), WHITE).save(root / "train" / "cat" / "0.png")
    load_split(str(root), "train", (8, 8))
    assert list(kept.parent.iterdir()) == [kept]


def test_the_cache_is_for_all_whom_the_umask_allows(tmp_path):
    root, before = make_folder(tmp_path / "pets"), os.umask(0o027)
    try:
        load_split(str(root), "train", (8, 8))
    finally:
        os.umask(before)
    (kept,) = (tmp_path / "cache" / "decoded").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("folder", ["decoded", "downloads"])
def test_what_another_process_writes_is_waited_for(folder, tmp_path):
    root = make_folder(tmp_path / "pets")

    def work():
        if folder == "decoded":
            return len(load_split(str(root), "train", (8, 8)))
        with downloading("pets"):
            return 8

    with ThreadPoolExecutor() as pool:
        with writing(tmp_path / "cache" / folder):
            later = pool.submit(work)
            with pytest.raises(TimeoutError):
                later.result(timeout=0.5)
        assert later.result() == 8


def test_a_link_to_nowhere_is_no_picture(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "train" / "cat" / "gone.png").symlink_to(tmp_path / "gone.png")
    assert len(load_split(str(root), "train", (8, 8))) == 8


def test_a_folder_with_one_split_has_that_split_only(tmp_path):
    root = make_folder(tmp_path / "pets", splits=("test",))
    assert load_split(str(root), "test", (8, 8)).class_names == ("cat", "dog")
    with pytest.raises(DataError, match="has no train/ or training/"):
        load_split(str(root), "train", (8, 8))


def test_without_a_split_every_tenth_picture_is_held_out(tmp_path):
    root = make_folder(tmp_path / "all", splits=(".",), count=20)
    train, test = (find_pictures(str(root), split)[0] for split in ("train", "test"))
    assert (len(train), len(test)) == (36, 4) and not {*train.files} & {*test.files}


def test_a_corrupt_picture_is_left_out_and_named(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "train" / "dog" / "1.png").write_bytes(b"no picture")
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning) as warned:
            split = load_split(str(root), "train", (8, 8))
        assert len(split) == 7
        said = [str(warning.message) for warning in warned]
        assert any("1.png" in line for line in said) and said[-1].startswith("1 picture")


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "too many"), PermissionError(13, "denied")])
def test_what_is_no_fault_of_the_file_is_tried_again(error, tmp_path, monkeypatch):
    root = make_folder(tmp_path / "pets")
    decode = decoder.decode

    def short(source, largest):
        if source.name == "1.png" and source.parent.name == "dog":
            raise error
        return decode(source, largest)

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "decode", short)
        if isinstance(error, PermissionError):
            with pytest.warns(UserWarning, match="1.png"):
                assert len(load_split(str(root), "train", (8, 8))) == 7
        else:  # no run shall learn from fewer for good
            with pytest.raises(DataError, match=r"Not all train pictures .*1.png.* once more"):
                load_split(str(root), "train", (8, 8))
    assert len(load_split(str(root), "train", (8, 8))) == 8


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (
            lambda root: [file.unlink() for file in (root / "train" / "dog").iterdir()],
            "dog has no train pictures",
        ),
        (
            lambda root: [file.write_bytes(b"x") for file in (root / "train" / "dog").iterdir()],
            "has no readable train picture of dog",
        ),
        (lambda root: root.rename(root.with_name("elsewhere")), "There is no folder"),
        (lambda root: (root / "train").rename(root / "val" / "cat" / "train"), "at least two folders"),
    ],
)
def test_an_unusable_folder_is_one_sentence(spoil, sentence, tmp_path):
    root = make_folder(tmp_path / "pets")
    if "at least" in sentence:
        for split in ("train", "val"):
            for file in (root / split / "dog").iterdir():
                file.unlink()
            (root / split / "dog").rmdir()
    else:
        spoil(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=sentence):
            load_split(str(root), "train", (8, 8))


def test_a_folder_named_by_vit_data_is_taken_before_any_download(tmp_path, monkeypatch):
    make_folder(tmp_path / "imagenette", classes=("n01440764", "n02102040"))
    monkeypatch.setenv("VIT_DATA", str(tmp_path))
    assert load_split("imagenette", "test", (8, 8)).class_names == ("tench", "English springer")


def test_cifar10_as_torchvision_keeps_it(tmp_path):
    """The very files that torchvision downloads, with few pictures in them."""
    base = tmp_path / "cache" / "downloads" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels[name] = rng.integers(0, 255, (10, 3072), np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": pixels[name], "labels": list(range(10))}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
        train, test = (load_split("cifar10", split, (32, 32)) for split in ("train", "test"))
    assert (len(train), len(test)) == (50, 10) and train.class_names == CIFAR10_CLASSES
    assert torch.equal(test.images.flatten(1), torch.from_numpy(pixels["test_batch"]))
    assert test.labels.tolist() == list(range(10))


def test_imagenette_is_unpacked_again_where_it_was_cut_short(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "downloads" / "imagenette2-160"
    (folder / "train" / "left behind").mkdir(parents=True)

    def unpack(root, size, download):
        make_folder(root / "imagenette2-160", classes=tuple(IMAGENETTE_CLASSES), count=1)
        for file in folder.rglob("*.png"):
            Image.open(file).save(file.with_suffix(".JPEG"))
            file.unlink()

    monkeypatch.setattr("vit.data.IMAGENETTE_COUNT", 20)
    monkeypatch.setattr("torchvision.datasets.Imagenette", unpack)
    split = load_split("imagenette", "train", (8, 8))
    assert split.class_names == tuple(IMAGENETTE_CLASSES.values())
    assert split.labels.tolist() == list(range(10))
    monkeypatch.setattr("torchvision.datasets.Imagenette", lambda *_, **__: pytest.fail("unpacked twice"))
    assert len(load_split("imagenette", "test", (8, 8))) == 10


def pets(folder: Path) -> None:
    """What torchvision unpacks, with few pictures in it."""
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for part, count in (("trainval", 4), ("test", 3)):
        rows = [f"{part}_{i} 1 {1 + i % 2} 1" for i in range(count)]
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(rows) + "\n")
        for i in range(count):
            Image.new("RGB", (12, 10), (50 * i, 0, 0)).save(folder / "images" / f"{part}_{i}.jpg")


@pytest.fixture
def unpacked(tmp_path, monkeypatch) -> Path:
    """The folder of the downloaded cats and dogs; the download unpacks what is there no more."""
    folder = tmp_path / "cache" / "downloads" / "oxford-iiit-pet"
    monkeypatch.setattr("vit.data.CATSDOGS_COUNT", {"trainval": 4, "test": 3})
    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet", lambda root, download: pets(folder))
    return folder


@pytest.mark.parametrize("cut", ["nothing", "no lists", "a line", "within a line", "a picture"])
def test_cats_and_dogs_are_unpacked_again_where_they_were_cut_short(cut, unpacked, monkeypatch):
    if cut != "nothing":
        pets(unpacked)
    names = unpacked / "annotations" / "trainval.txt"
    if cut == "no lists":
        shutil.rmtree(names.parent)
    elif cut.endswith("line"):
        names.write_text(names.read_text()[: -17 if cut == "a line" else -4])
    elif cut == "a picture":
        (unpacked / "images" / "trainval_3.jpg").unlink()
    split = load_split("catsdogs", "train", (8, 8))
    assert split.labels.tolist() == [0, 1, 0, 1] and split.content
    assert split.images[:, 0].flatten(1).float().mean(1).round().tolist() == [0, 50, 100, 150]
    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet", lambda *_, **__: pytest.fail("unpacked twice"))
    assert load_split("catsdogs", "test", (8, 8)).labels.tolist() == [0, 1, 0]


def test_a_damaged_picture_of_a_download_is_left_out_and_named(unpacked):
    pets(unpacked)
    (unpacked / "images" / "trainval_2.jpg").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"left out .*trainval_2\.jpg"):
        assert load_split("catsdogs", "train", (8, 8)).labels.tolist() == [0, 1, 1]


def test_no_network_is_one_sentence(monkeypatch):
    def refuse(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.__init__", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded \(no route to host\).*VIT_DATA"):
        load_split("cifar10", "train", (32, 32))


def test_pictures_prepared_otherwise_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_CACHE", str(tmp_path / "cache"))
    root = str(make_folder(tmp_path / "pets"))
    for how in ({}, dict(crop_pct=0.5), dict(interpolation="nearest")):
        load_split(root, "train", (8, 8), **how)
    assert load_split(root, "train", (4, 4)).images.shape[-2:] == (4, 4)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 4


def test_preprocess_keeps_the_name_under_which_it_is_public():
    from vit import data, pictures

    assert data.preprocess is pictures.preprocess


def test_photographs_have_the_names_of_their_folders(tmp_path, monkeypatch):
    make_folder(tmp_path / "imagenette", classes=("tench", "English springer"))
    make_folder(tmp_path / "catsdogs", classes=("cat", "dog", "fox"))
    monkeypatch.setenv("VIT_DATA", str(tmp_path))
    split = load_split("photos", "test", (8, 8))
    assert class_names_of("photos") == split.class_names, "a dry run has them, too"
    names = [load_split(data, "test", (8, 8)) for data in ("catsdogs", "imagenette")]
    assert split.class_names == names[0].class_names + names[1].class_names and len(split.class_names) == 5
    assert sorted({*split.labels.tolist()}) == [*range(5)]

"""Folders as people have them: splits by any usual name, links, files of the system, names of any bytes."""

import os
import unicodedata
import warnings
from pathlib import Path

import pytest
from PIL import Image

from vit import memory
from vit.data import IMAGENETTE_CLASSES, DataError, load_split
from vit.folders import Files, Folder, pictures_in, split_named


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_CACHE", str(tmp_path / "cache"))


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def classes(root: Path, *names: str, count: int = 2) -> Path:
    draw(*(root / name / f"{i}.png" for name in names for i in range(count)))
    return root


def found(root: Path, split: str) -> tuple[tuple[str, ...], int]:
    folder = Folder(root, split)
    return folder.class_names, len(folder)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("Train", "Val"),
        ("seg_train", "seg_test"),
        ("train_set", "test_set"),
        ("TrainSet", "Validation"),
        ("train2017", "val2017"),
        ("TRAIN", "dev"),
    ],
)
def test_splits_are_known_under_any_usual_name(train, test, tmp_path):
    classes(tmp_path / train, "cat", "dog", count=3), classes(tmp_path / test, "cat", "dog", count=1)
    assert found(tmp_path, "train") == (("cat", "dog"), 6)
    assert found(tmp_path, "test") == (("cat", "dog"), 2)


@pytest.mark.parametrize("name", ["detrain", "contest", "evaluate me", "devil", "validity"])
def test_a_word_within_a_word_says_nothing(name):
    assert split_named(name) is None


@pytest.mark.parametrize("name", ["train", "test", "valid", "train station"])
def test_a_class_may_be_called_like_a_split(name, tmp_path):
    classes(tmp_path, "boat", "car", name, count=10)
    assert found(tmp_path, "train") == (("boat", "car", name), 27)


def test_splits_are_found_where_a_zip_put_them(tmp_path):
    for split in ("train", "test"):
        classes(tmp_path / "archive" / f"seg_{split}" / f"seg_{split}", "cat", "dog")
    draw(tmp_path / "archive" / "seg_pred" / "seg_pred" / "1.png")
    with pytest.warns(UserWarning, match=r"left out 1 beside the splits \(seg_pred\)"):
        assert load_split(str(tmp_path), "train", (4, 4)).class_names == ("cat", "dog")


def test_a_test_folder_without_the_classes_is_not_taken_for_the_split(tmp_path):
    """As competitions have it: the pictures to be answered lie in test/, without their classes."""
    for split in ("train", "val"):
        classes(tmp_path / split, "cat", "dog")
    draw(tmp_path / "test" / "unknown" / "1.png")
    assert found(tmp_path, "test") == (("cat", "dog"), 4)
    with pytest.warns(UserWarning, match=r"left out 1 beside the splits \(test\)"):
        load_split(str(tmp_path), "test", (4, 4))
    classes(tmp_path / "test", "cat", "dog", count=3)
    (tmp_path / "test" / "unknown" / "1.png").unlink()
    (tmp_path / "test" / "unknown").rmdir()
    assert found(tmp_path, "test") == (("cat", "dog"), 6)


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"), "fold1 and fold2 hold the same folders"),
        (("boat", "car", "train/steam", "train/diesel"), "may hold classes or splits, because train holds"),
        (("train", "test"), "has no folders of classes in its splits"),
        (("train/cat", "train/dog", "other/cat"), "has no test/ or val/"),
        (("cat",), "needs at least two folders"),
    ],
)
def test_what_cannot_be_told_is_asked(folders, sentence, tmp_path):
    classes(tmp_path, *folders)
    with pytest.raises(DataError, match=sentence):
        Folder(tmp_path, "test")


def test_what_the_system_put_there_is_no_data_and_is_counted_in_one_line(tmp_path):
    root = classes(tmp_path / "pets", "cat", "dog", count=10)
    strange = ["@eaDir", "#recycle", "$RECYCLE.BIN", ".git", "cat/.ipynb_checkpoints"]
    draw(*(root / name / "1.png" for name in strange))
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    for name in ("cat/._1.png", "__MACOSX/cat/._1.png", "dog/.DS_Store", "dog/Thumbs.db", "dog/notes.txt"):
        (root / name).write_bytes(b"no picture")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        split = load_split(str(root), "train", (4, 4))
    assert split.class_names == ("cat", "dog") and len(split) == 18
    (line,) = (str(warning.message) for warning in said)
    assert "7 of the system (._1.png ...)" in line and "1 of other kinds (notes.txt)" in line


def test_links_are_followed_and_circles_are_not(tmp_path):
    store = classes(tmp_path / "store", "cat", "dog", count=8)
    root = classes(tmp_path / "pets", "cat", count=2)
    (root / "cat" / "more").symlink_to(store / "cat")
    (root / "cat" / "more again").symlink_to(root / "cat")
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "dog").mkdir()
    (root / "dog" / "batch 1").symlink_to(store / "dog")
    inside = pictures_in(root / "cat")
    assert len(inside.files) == 10 and len(pictures_in(root / "dog").files) == 8
    assert inside.said() == "1 that lead nowhere (gone.png), 1 linked in a circle (more again)"


def test_a_pipe_is_no_picture_and_holds_nobody_up(tmp_path):
    classes(tmp_path, "cat")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert len(pictures_in(tmp_path).files) == 2


def test_names_that_are_no_utf8_are_read_and_remembered(tmp_path):
    root = classes(tmp_path / "pets", "cat", "dog", count=10)
    (root / "cat" / "3.png").rename(os.fsdecode(os.fsencode(root / "cat") + b"/caf\xe9.png"))
    Path(os.fsdecode(os.fsencode(root / "dog") + b"/bad\xe9.png")).write_bytes(b"no picture")
    (root / "dog").rename(os.fsdecode(os.fsencode(root) + b"/d\xf6g"))
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match="bad�.png: This file is not a picture"):
            split = load_split(str(root), "train", (4, 4))
        assert split.class_names == ("cat", "d�g") and len(split) == 18


def test_class_names_are_composed_as_people_type_them(tmp_path):
    for split, form in (("train", "NFC"), ("val", "NFD")):  # the second as a Mac writes it
        classes(tmp_path / split, *(unicodedata.normalize(form, name) for name in ("café", "thé")))
    assert found(tmp_path, "train")[0] == found(tmp_path, "test")[0] == ("café", "thé")


def test_no_two_classes_have_one_name(tmp_path):
    root = classes(tmp_path / "fish", "n01440764", "n02102040")
    assert Folder(root, "train", IMAGENETTE_CLASSES).class_names == ("tench", "English springer")
    classes(root, "tench")
    names = Folder(root, "train", IMAGENETTE_CLASSES).class_names
    assert names == ("n01440764", "n02102040", "tench")
    classes(root, unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café"))
    with pytest.raises(DataError, match="Two classes are both called café"):
        Folder(root, "train")


# Memory


def test_more_pictures_than_memory_are_told_before_one_is_decoded(tmp_path, monkeypatch):
    root = classes(tmp_path / "pets", "cat", "dog", count=10)
    monkeypatch.setattr("vit.data.free_memory", lambda: 50_000.0)
    monkeypatch.setattr("vit.folders.open_picture", lambda path: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"18 train pictures of 40 x 40 px take .* GB are free: give"):
        load_split(str(root), "train", (40, 40))


def test_free_memory_is_the_least_of_all_limits(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 300\nfile 600\nshmem 50\n")
    assert memory.of_the_container(tmp_path) == 650
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.of_the_container(tmp_path) == float("inf")
    assert memory.of_the_container(tmp_path / "nowhere") == float("inf")
    monkeypatch.setattr(memory, "of_the_container", lambda: 7.0)
    assert memory.free_memory() == 7


# A folder that changes, and a machine without a home


def test_a_folder_that_changes_while_it_is_read_is_one_sentence(tmp_path, monkeypatch):
    root = classes(tmp_path / "pets", "cat", "dog", count=10)
    really = Folder.__getitem__

    def and_add(self, index):
        (root / "cat" / "5.png").write_bytes((root / "cat" / "4.png").read_bytes() + b" ")
        return really(self, index)

    monkeypatch.setattr(Folder, "__getitem__", and_add)
    with pytest.raises(DataError, match="changed while its pictures were read"):
        load_split(str(root), "train", (4, 4))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    monkeypatch.setattr(Folder, "__getitem__", really)
    monkeypatch.setattr("vit.data.find_pictures", lambda *_: (gone(root), ("cat", "dog")))
    with pytest.raises(DataError, match=r"0\.png is gone since its folder was looked at"):
        load_split(str(root), "train", (4, 4))


def gone(root: Path) -> Folder:
    folder = Folder(root, "train")
    (root / "cat" / "0.png").unlink()
    return folder


def test_without_a_home_the_cache_is_below_the_temporary_folder(tmp_path, monkeypatch):
    from vit.data import cache_folder

    monkeypatch.delenv("VIT_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder().parent == tmp_path


def test_a_picture_that_may_not_be_read_ends_nothing(tmp_path, monkeypatch):
    root = classes(tmp_path / "pets", "cat", "dog")
    opened = Path.open

    def open_unless_closed(path: Path, *args, **kwargs):
        if path.name == "1.png" and path.parent.name == "cat":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    whole = Folder(root, "train").content()
    monkeypatch.setattr(Path, "open", open_unless_closed)
    split = load_split(str(root), "train", (4, 4))
    assert split.content == Folder(root, "train").content() != whole


def test_a_disk_that_fails_is_one_sentence_and_not_told_as_a_file_that_is_gone(tmp_path, monkeypatch):
    root = classes(tmp_path / "pets", "cat", "dog")

    def fail(folder: Files) -> str:
        raise OSError(5, "Input/output error", "cat/1.png")

    monkeypatch.setattr(Files, "content", fail)
    with pytest.raises(DataError, match=r"cat/1.png cannot be read \(Input/output error\)"):
        load_split(str(root), "train", (4, 4))


def test_a_folder_that_may_not_be_looked_at_is_left_out(tmp_path, monkeypatch):
    root, stat = classes(tmp_path / "pets", "cat", "dog"), os.stat
    draw(root / "dog" / "closed" / "1.png")

    def stat_unless_closed(path, **kwargs):
        if Path(os.fsdecode(path)).name == "closed" and "follow_symlinks" not in kwargs:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **kwargs)

    monkeypatch.setattr("vit.folders.os.stat", stat_unless_closed)
    found = pictures_in(root)
    assert len(found.files) == 4 and "that may not be read" in found.left_out

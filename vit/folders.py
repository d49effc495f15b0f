"""Folders of pictures, as they lie on people's disks: what is a picture, what a class, what a split.

What is left out is counted, and said.
"""

import hashlib
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vit.pictures import SUFFIXES, open_picture

# what NAS, Windows, zips from a Mac and Jupyter put between people's files; as is all that begins with a dot
SYSTEM = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "system volume information", "lost+found"}
SYSTEM |= {"thumbs.db", "ehthumbs.db", "desktop.ini", "__pycache__"}
SPLITS = {  # the words of a folder's name that say which split it is, the usual ones first
    "train": ("train", "training", "trainset", "traindata"),
    "test": ("test", "val", "valid", "validation", "testing", "testset", "valset", "dev", "eval"),
}
HOW = "train/CLASS/picture.jpg and val/CLASS/picture.jpg, or CLASS/picture.jpg"


class DataError(ValueError):
    """A data set cannot be used; the message says why and what to do, in one sentence."""


@dataclass
class Found:
    """The pictures below a folder, in order; what was left out: why -> how many, and the first of them."""

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def leave_out(self, why: str, name: str) -> None:
        self.left_out[why] += 1
        self.first.setdefault(why, name)

    def said(self) -> str:
        """What was left out, in words; empty where nothing was."""
        named = ((why, count, readable(self.first[why])) for why, count in self.left_out.items())
        return ", ".join(f"{count} {why} ({name}{' ...' if count > 1 else ''})" for why, count, name in named)


def pictures_in(folder: Path, suffixes: Collection[str] = SUFFIXES) -> Found:
    """Every picture below a folder, or every file of other suffixes, through links too. Files and folders of
    the system are none."""
    found = Found()
    look_into(folder, found, frozenset(), suffixes)
    found.files.sort()
    return found


def look_into(
    folder: Path, found: Found, above: frozenset[tuple[int, int]], suffixes: Collection[str]
) -> None:
    """Add to `found` what lies below a folder. above: the folders that lead here; a link may lead back."""
    try:
        here = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return found.leave_out("that may not be read", folder.name)
    above |= {(here.st_dev, here.st_ino)}
    for entry in entries:
        path, wanted = folder / entry.name, Path(entry.name).suffix.lower() in suffixes
        if entry.is_dir():
            try:
                its = os.stat(path)
            except OSError:  # in a folder that may be listed and not entered; or it was removed just now
                found.leave_out("that may not be read", entry.name)
                continue
            if of_the_system(entry.name):
                found.leave_out("of the system", entry.name)
            elif (its.st_dev, its.st_ino) in above:
                found.leave_out("linked in a circle", entry.name)
            else:
                look_into(path, found, above, suffixes)
        elif of_the_system(entry.name):
            if wanted:  # the others are no one's loss
                found.leave_out("of the system", entry.name)
        elif not wanted:
            found.leave_out("of other kinds", entry.name)
        elif entry.is_file():
            found.files.append(path)
        else:
            found.leave_out("that lead nowhere", entry.name)


def is_picture(file: Path) -> bool:
    """Is this file a picture by its name, and none of the system's?"""
    return file.suffix.lower() in SUFFIXES and file.is_file() and not of_the_system(file.name)


def of_the_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def readable(name: str) -> str:
    """A file's name as text, composed as people type it; � stands for what is no UTF-8."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def folders_in(folder: Path) -> list[Path]:
    """The folders right in this one, in order, without those of the system. Raises DataError."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not of_the_system(path.name))
    except PermissionError as error:
        name = readable(str(folder))
        raise DataError(f"{name} may not be read: ask its owner for the permission.") from error


def has_pictures(folder: Path) -> bool:
    """Whether pictures lie right in this folder."""
    with suppress(PermissionError), os.scandir(folder) as entries:
        named = (entry for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES)
        return any(entry.is_file() and not of_the_system(entry.name) for entry in named)
    return False


def words_of(name: str) -> list[str]:
    """The words of a folder's name: "seg_train", "TrainSet" and "train2017" all speak of training."""
    return re.findall("[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def split_named(name: str) -> str | None:
    """The split of which a folder's name speaks, if it is one."""
    named = [split for split, ours in SPLITS.items() if {*words_of(name)} & {*ours}]
    return named[0] if len(named) == 1 else None


def usual(path: Path) -> tuple[int, str]:
    """A folder's rank among those of its split: test/ before val/, plain names before longer ones."""
    ours = SPLITS[split_named(path.name) or "train"]
    return min(ours.index(word) for word in words_of(path.name) if word in ours), path.name


def find_split(folder: Path, split: str) -> tuple[Path, bool, list[str]]:
    """(the folder of the classes, whether it holds all splits, names of folders that are in neither).

    A split is a folder of folders that is called like one; a class that is called "train" holds pictures.
    Raises DataError where that cannot be told.
    """
    inside, where = folders_in(folder), readable(str(folder))
    while len(inside) == 1 and not (split_named(inside[0].name) or any(map(has_pictures, [folder, *inside]))):
        folder, inside = inside[0], folders_in(inside[0])  # a zip that was unpacked into a folder of its own
    classes = [path for path in inside if has_pictures(path)]
    splits = {"train": list[Path](), "test": list[Path]()}
    for path in inside:
        named = split_named(path.name)
        if named and path not in classes and folders_in(path):
            splits[named].append(path)
    if len(inside) == len(classes) and {split_named(path.name) for path in classes} == {*splits}:
        raise DataError(f"{where} has no folders of classes in its splits: sort the pictures into {HOW}.")
    if not splits["train"] and not splits["test"]:
        refuse_unnamed_splits(inside, classes, where)
        return folder, True, []
    chosen = {name: min(paths, key=usual) for name, paths in splits.items() if paths}
    if "train" in chosen:  # test/ of a competition has pictures of no known class: its val/ is meant
        known = names_in(chosen["train"], "train")
        alike = [path for path in splits["test"] if names_in(path, "test") == known]
        chosen |= {"test": min(alike, key=usual)} if alike else {}
    if len(chosen) == 1 and len(classes) > 1:
        name = readable(next(iter(chosen.values())).name)
        advice = "put pictures right into it if it is a class, or move the other folders away."
        raise DataError(f"{where} may hold classes or splits, because {name} holds folders: {advice}")
    if split not in chosen:
        wanted = " or ".join(f"{name}/" for name in SPLITS[split][:2])
        raise DataError(f"{where} has no {wanted}: put the {split} pictures there, a folder per class.")
    others = [path.name for path in inside if path not in chosen.values()]
    return innermost(chosen[split], split), False, others


def innermost(root: Path, split: str) -> Path:
    """Where the classes of a split are: seg_train/seg_train, as some zips have it."""
    while len(inner := folders_in(root)) == 1 and split_named(inner[0].name) == split:
        root = inner[0]
    return root


def names_in(root: Path, split: str) -> set[str]:
    """The names of the folders of a split's classes."""
    return {path.name for path in folders_in(innermost(root, split))}


def refuse_unnamed_splits(inside: list[Path], classes: list[Path], where: str) -> None:
    """Raises DataError where a folder's folders look like splits that are called otherwise."""
    below = [{path.name for path in folders_in(each)} for each in inside]
    if len(inside) > 1 and not classes and len(below[0]) > 1 and all(names == below[0] for names in below):
        named = " and ".join(readable(path.name) for path in inside[:2])
        raise DataError(f"{where}: {named} hold the same folders; call splits train/ and val/.")


class Files:
    """Pictures in files below a folder, each with its class."""

    left_out = ""  # what else lies there, in words

    def __init__(self, root: Path, files: list[Path], labels: list[int]):
        self.root, self.files, self.labels = root, files, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_picture(self.files[index]), self.labels[index]

    def fingerprint(self) -> str:
        """Changes whenever a file does."""
        digest = hashlib.sha256()
        for file in self.files:
            its = file.stat()
            digest.update(os.fsencode(f"{file.relative_to(self.root)} {its.st_size} {its.st_mtime_ns}\n"))
        return digest.hexdigest()

    def content(self) -> str:
        """Changes whenever what is in a file does, or its name; the same wherever the folder is copied to.
        Every file is read for it that may be."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(os.fsencode(f"{file.relative_to(self.root)} "))
            try:
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
            except PermissionError:
                continue  # such a picture is left out
        return digest.hexdigest()

    def warn_of_the_rest(self) -> None:
        """One line for all that lies there and is no picture of a class."""
        if self.left_out:
            warnings.warn(f"{readable(str(self.root))}: left out {self.left_out}.", stacklevel=3)


class Folder(Files):
    """Pictures sorted into folders, one per class: DIR/train/CLASS/*.jpg with DIR/val or DIR/test.

    Where there is no folder of a split but only DIR/CLASS/*.jpg, every tenth picture is the test split.
    """

    def __init__(self, folder: Path, split: str, titles: dict[str, str] | None = None):
        """titles: what people call the folders of a known data set. Raises DataError."""
        where = readable(str(folder))
        if not folder.is_dir():
            raise DataError(f"There is no folder {where}: give --data a folder of train/CLASS/picture.jpg.")
        root, unsplit, others = find_split(folder, split)
        super().__init__(root, [], [])
        classes = folders_in(root)
        if len(classes) < 2:
            raise DataError(f"{readable(str(root))} needs at least two folders of pictures, one per class.")
        self.class_names = names_of(classes, titles or {})
        left_out = Found()
        for name in others:
            left_out.leave_out("beside the splits", name)
        for label, path in enumerate(classes):
            found = pictures_in(path)
            left_out.left_out += found.left_out
            left_out.first = found.first | left_out.first
            files = found.files
            if unsplit:
                files = [file for i, file in enumerate(files) if (i % 10 == 9) == (split == "test")]
            if not files:
                tenth = ", which are every tenth one" if unsplit and split == "test" else ""
                empty = f"{readable(str(path))} has no {split} pictures{tenth}"
                raise DataError(f"{empty}: add some or remove the folder.")
            self.files += files
            self.labels += [label] * len(files)
        for path in root.iterdir():
            if path.is_dir() and of_the_system(path.name):
                left_out.leave_out("of the system", path.name)
        self.left_out = left_out.said()


def names_of(classes: list[Path], titles: dict[str, str]) -> tuple[str, ...]:
    """What the classes are called, each by a name of its own. Raises DataError."""
    plain = [readable(path.name) for path in classes]
    called = [titles.get(name, name) for name in plain]
    names = called if len({*called}) == len(called) else plain
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"Two classes are both called {twice[0]}: rename one of the folders.")
    return tuple(names)

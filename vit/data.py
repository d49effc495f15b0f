"""Data sets: pictures with their classes, from folders, from torchvision, or drawn; decoded once.

N pictures, (height, width) pixels.
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from vit.pictures import DECODING, SUFFIXES, PictureError, open_picture, to_pixels, to_rgb
from vit.pictures import preprocess as preprocess
from vit.shapes import SHAPES_CLASSES, Shapes


class DataError(ValueError):
    """A data set cannot be used; the message says why and what to do, in one sentence."""


class Pictures(Protocol):
    """What torchvision's data sets are, too: numbered pictures with their class."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, whole in memory (or mapped from the cache file)."""

    images: Tensor  # (N, 3, height, width) uint8
    labels: Tensor  # (N,) int64
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, count: int) -> "Split":
        """Always the same `count` pictures, drawn from the whole split."""
        chosen = drawn_from(len(self), count)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def drawn_from(total: int, count: int) -> list[int]:
    """`count` numbers below total, or all there are: drawn at random, always the same, in order."""
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count]
    return drawn.sort().values.tolist()


CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
IMAGENETTE_CLASSES = {  # WordNet id: what people call it
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGENETTE_COUNT = 13_394  # pictures of both splits
SPLITS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


class Folder:
    """Pictures sorted into folders, one per class: DIR/train/CLASS/*.jpg with DIR/val or DIR/test.

    Where there is no folder of a split but only DIR/CLASS/*.jpg, every tenth picture is the test split.
    """

    def __init__(self, folder: Path, split: str):
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}: give --data a folder of train/CLASS/picture.jpg.")
        parts = [folder / name for name in SPLITS[split] if (folder / name).is_dir()]
        unsplit = not any((folder / name).is_dir() for names in SPLITS.values() for name in names)
        if not parts and not unsplit:
            wanted = " or ".join(f"{name}/" for name in SPLITS[split])
            raise DataError(f"{folder} has no {wanted}: put the {split} pictures there, a folder per class.")
        self.root = folder if unsplit else parts[0]
        subfolders = sorted(path for path in self.root.iterdir() if path.is_dir())
        classes = [path for path in subfolders if not path.name.startswith(".")]
        if len(classes) < 2:
            raise DataError(f"{self.root} needs at least two folders of pictures, one per class.")
        self.class_names = tuple(IMAGENETTE_CLASSES.get(path.name, path.name) for path in classes)
        self.files: list[Path] = []
        self.labels: list[int] = []
        for label, path in enumerate(classes):
            files = sorted(x for x in path.rglob("*") if x.suffix.lower() in SUFFIXES and x.is_file())
            if unsplit:
                files = [file for i, file in enumerate(files) if (i % 10 == 9) == (split == "test")]
            if not files:
                tenth = ", which are every tenth one" if unsplit and split == "test" else ""
                raise DataError(f"{path} has no {split} pictures{tenth}: add some or remove the folder.")
            self.files += files
            self.labels += [label] * len(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_picture(self.files[index]), self.labels[index]

    def fingerprint(self) -> str:
        """Changes whenever a file does."""
        lines = [
            f"{file.relative_to(self.root)} {file.stat().st_size} {file.stat().st_mtime_ns}"
            for file in self.files
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_pictures(data: str, split: str, seed: int = 0) -> tuple[Pictures, tuple[str, ...]]:
    """(pictures, class names) of a data set's name or of a folder. Raises DataError.

    A published one is looked for in the folder $VIT_DATA first, as image folders; otherwise torchvision
    downloads it, once, from where it is published. seed: of the pictures that are drawn.
    """
    known = DATASETS.get(data)
    if known is None or (known.published and local_folder(data).is_dir()):
        folder = Folder(local_folder(data) if known else Path(data).expanduser(), split)
        return folder, folder.class_names
    return known.pictures(split, seed), known.class_names


def local_folder(data: str) -> Path:
    """Where a data set's pictures lie, if they are on this machine as image folders."""
    return Path(os.environ.get("VIT_DATA", "data")) / data


def local_test_pictures(data: str, every: int) -> list[tuple[Image.Image, str]]:
    """(picture, class name): the first readable test picture of every so-many-th class, if they are there."""
    found: list[tuple[Image.Image, str]] = []
    try:
        folder = Folder(local_folder(data), "test")
    except DataError:
        return found
    for label in range(0, len(folder.class_names), every):
        for index in (i for i, its in enumerate(folder.labels) if its == label):
            try:
                found.append((folder[index][0], folder.class_names[label]))
                break
            except PictureError:
                continue
    return found


def class_names_of(data: str) -> tuple[str, ...]:
    """The classes of a data set, without its pictures. Raises DataError."""
    return DATASETS[data].class_names if data in DATASETS else find_pictures(data, "train")[1]


def cifar10(split: str) -> Pictures:
    """CIFAR-10 by torchvision, kept under the cache folder."""
    from torchvision import datasets  # here: it is slow to import, and image folders do without

    with downloading("cifar10"):
        return datasets.CIFAR10(cache_folder() / "downloads", train=split == "train", download=True)


def imagenette(split: str) -> Pictures:
    """Imagenette by torchvision, kept under the cache folder."""
    from torchvision import datasets

    root = cache_folder() / "downloads"
    folder = root / "imagenette2-160"
    with downloading("imagenette"):
        if len(list(folder.rglob("*.JPEG"))) != IMAGENETTE_COUNT:  # not there, or unpacked half-way
            shutil.rmtree(folder, ignore_errors=True)
            datasets.Imagenette(root, size="160px", download=True)
        return Folder(folder, split)


@contextmanager
def downloading(data: str) -> Iterator[None]:
    """Whatever stops a download is one sentence. Raises DataError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{data} could not be downloaded ({error}): check the network, or set VIT_DATA to a folder "
            f"that holds {data}/train/CLASS/*.jpg."
        ) from error


@dataclass(frozen=True)
class DataSet:
    """A data set that has a name. pictures: (split, seed) -> its pictures. Raises DataError."""

    class_names: tuple[str, ...]
    pictures: Callable[[str, int], Pictures]
    published: bool  # looked for in $VIT_DATA, downloaded otherwise; drawn here if not


DATASETS = {  # those with the most to show first
    "imagenette": DataSet((*IMAGENETTE_CLASSES.values(),), lambda split, seed: imagenette(split), True),
    "cifar10": DataSet(CIFAR10_CLASSES, lambda split, seed: cifar10(split), True),
    "shapes": DataSet(SHAPES_CLASSES, Shapes, False),
}


def cache_folder() -> Path:
    return Path(os.environ.get("VIT_CACHE", "~/.cache/vit-explorer")).expanduser()


def load_split(
    data: str,
    split: str,
    image_size: tuple[int, int],
    crop_pct: float = 1.0,
    interpolation: str = "bicubic",
    seed: int = 0,
) -> Split:
    """Every picture of a split, decoded once to uint8 (N, 3, height, width). Raises DataError.

    Folders are kept decoded in a cache file, which later runs map into memory in no time. A picture
    that cannot be read is left out, with a warning that names it.
    """
    pictures, class_names = find_pictures(data, split, seed)
    if isinstance(pictures, Folder):
        key = f"{DECODING} {pictures.root.resolve()} {split} {image_size} {crop_pct} {interpolation}"
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        cache = cache_folder() / "decoded" / f"{name}.safetensors"
        fingerprint = pictures.fingerprint()
        if kept := read_cache(cache, fingerprint):
            images, labels, unreadable = kept
            warn_of(unreadable)
            return Split(images, labels, class_names)

    def decode(index: int) -> tuple[Tensor, int] | None:
        try:
            picture, label = pictures[index]
        except PictureError:
            return None
        return to_pixels(to_rgb(picture), image_size, crop_pct, interpolation), label

    images = torch.empty(len(pictures), 3, *image_size, dtype=torch.uint8)
    found: list[int] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        decoded = pool.map(decode, range(len(pictures)))
        progress = tqdm(decoded, f"reading {split} pictures", len(pictures), leave=False, disable=None)
        for index, one in enumerate(progress):
            if one is None:
                skipped.append(str(getattr(pictures, "files", [])[index]))
            else:
                images[len(found)] = one[0]
                found.append(one[1])
    images, labels = images[: len(found)], torch.tensor(found)
    warn_of(skipped)
    if len(labels.unique()) < len(class_names):
        raise DataError(f"{data} has a class without a single readable {split} picture.")
    if isinstance(pictures, Folder):
        write_cache(cache, fingerprint, images, labels, skipped)
    return Split(images, labels, class_names)


def warn_of(skipped: Sequence[str]) -> None:
    for name in skipped:
        warnings.warn(f"{name} cannot be read as a picture and is left out.", stacklevel=3)
    if skipped:
        warnings.warn(f"{len(skipped)} picture(s) were left out.", stacklevel=3)


def read_cache(path: Path, fingerprint: str) -> tuple[Tensor, Tensor, list[str]] | None:
    """(images, labels, names of unreadable files), if they are kept and no file has changed since."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("fingerprint") != fingerprint:
                return None
            return file.get_tensor("images"), file.get_tensor("labels"), about["skipped"].splitlines()
    except (OSError, SafetensorError):
        return None


def write_cache(path: Path, fingerprint: str, images: Tensor, labels: Tensor, skipped: Sequence[str]) -> None:
    """A disk that is full costs the cache, not the run."""
    temporary = path.with_suffix(f".{os.getpid()}.part")
    about = {"fingerprint": fingerprint, "skipped": "\n".join(skipped)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in path.parent.glob(f"{path.stem}.*.part"):  # by a run that was killed here
            left_behind.unlink(missing_ok=True)
        save_file({"images": images, "labels": labels}, temporary, about)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"The decoded pictures could not be kept for the next run: {error}", stacklevel=2)
    finally:
        temporary.unlink(missing_ok=True)

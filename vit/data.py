"""Data sets: pictures with their classes, from folders, from torchvision, or drawn; decoded once.

N pictures, (height, width) pixels.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from vit.folders import DataError, Files, Folder, readable
from vit.memory import free_memory
from vit.moves import MOVES_CLASSES, Moves
from vit.pictures import DECODING, PictureError, to_pixels, to_rgb
from vit.pictures import preprocess as preprocess
from vit.shapes import SHAPES_CLASSES, Shapes


class Pictures(Protocol):
    """What torchvision's data sets are, too: numbered pictures with their class."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


class Clips(Protocol):
    """Numbered clips, as frames in order, with their class."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[list[Image.Image], int]: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, whole in memory (or mapped from the cache file)."""

    images: Tensor  # (N, 3, height, width) uint8; of clips (N, T, 3, height, width)
    labels: Tensor  # (N,) int64
    class_names: tuple[str, ...]
    content: str = ""  # a digest of its files; empty where pictures have none of their own

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
CATSDOGS_COUNT = {"trainval": 3_680, "test": 3_669}  # pictures on each list


def find_pictures(data: str, split: str, seed: int = 0) -> tuple[Pictures, tuple[str, ...]]:
    """(pictures, class names) of a data set's name or of a folder. Raises DataError.

    A published one is looked for in the folder $VIT_DATA first, as image folders; otherwise torchvision
    downloads it, once, from where it is published. seed: of the pictures that are drawn.
    """
    known = DATASETS.get(data)
    if isinstance(known, ClipSet):
        raise DataError(f"{data} holds clips, and this takes pictures: name another data set.")
    if known is None or lies_here(data):
        where = local_folder(data) if known else Path(os.path.expanduser(data))
        folder = Folder(where, split, IMAGENETTE_CLASSES)
        return folder, folder.class_names
    pictures = known.pictures(split, seed)
    return pictures, pictures.class_names if isinstance(pictures, Joined) else known.class_names


def local_folder(data: str) -> Path:
    """Where a data set's pictures lie, if they are on this machine as image folders."""
    return Path(os.environ.get("VIT_DATA", "data")) / data


def lies_here(data: str) -> bool:
    """Whether a published data set is taken from there."""
    return DATASETS[data].published and local_folder(data).is_dir()


def local_test_pictures(data: str, every: int) -> list[tuple[Image.Image, str]]:
    """(picture, class name): the first readable test picture of every so-many-th class, if they are there."""
    found: list[tuple[Image.Image, str]] = []
    try:
        folder = Folder(local_folder(data), "test", IMAGENETTE_CLASSES)
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
    """The classes of a data set, without its pictures; of a folder, its own. Raises DataError."""
    known = DATASETS.get(data)
    if known is None or lies_here(data):
        return find_pictures(data, "train")[1]
    if isinstance(known, DataSet) and known.parts:
        return tuple(chain.from_iterable(map(class_names_of, known.parts)))
    return known.class_names


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
        return Folder(folder, split, IMAGENETTE_CLASSES)


def catsdogs(split: str) -> Pictures:
    """The cats and dogs of Oxford-IIIT Pet by torchvision, kept under the cache folder."""
    from torchvision import datasets

    root = cache_folder() / "downloads"
    folder, part = root / "oxford-iiit-pet", "trainval" if split == "train" else "test"
    with downloading("catsdogs"):
        try:
            return listed(folder, part)
        except (OSError, ValueError):  # not there, or unpacked half-way
            for unpacked in ("images", "annotations"):
                shutil.rmtree(folder / unpacked, ignore_errors=True)
            datasets.OxfordIIITPet(root, download=True)
            return listed(folder, part)


def listed(folder: Path, part: str) -> Files:
    """The pictures on one of that publisher's lists, "NAME BREED SPECIES NUMBER" a line. Raises OSError, and
    ValueError, where not all are there."""
    rows = [line.split() for line in (folder / "annotations" / f"{part}.txt").read_text().splitlines()]
    labels = [int(species) - 1 for _, _, species, _ in rows]
    files = [folder / "images" / f"{row[0]}.jpg" for row in rows]
    if len(files) != CATSDOGS_COUNT[part] or not all(file.is_file() for file in files):
        raise DataError(f"{folder} does not hold all cats and dogs: remove that folder.")
    return Files(folder, files, labels)


@contextmanager
def downloading(data: str) -> Iterator[None]:
    """One process at a time; whatever stops a download is one sentence. Raises DataError."""
    try:
        with writing(cache_folder() / "downloads"):
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
    parts: tuple[str, ...] = ()  # the data sets that it joins


class Joined:
    """Several data sets as one, their classes one after the other."""

    def __init__(self, names: Sequence[str], split: str, seed: int):
        self.names = tuple(names)
        self.parts = [find_pictures(name, split, seed) for name in names]
        self.class_names = tuple(chain.from_iterable(class_names for _, class_names in self.parts))

    def __len__(self) -> int:
        return sum(len(pictures) for pictures, _ in self.parts)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        first = 0
        for pictures, class_names in self.parts:
            if index < len(pictures):
                picture, label = pictures[index]
                return picture, first + label
            index, first = index - len(pictures), first + len(class_names)
        raise IndexError("There is no picture of this number.")


PHOTOS = ("catsdogs", "imagenette")  # real photographs: a cat or a dog, or one of Imagenette's ten classes


@dataclass(frozen=True)
class ClipSet:
    """A data set of clips that has a name. clips: (split, seed) -> its clips."""

    class_names: tuple[str, ...]
    clips: Callable[[str, int], Clips]
    published: bool = False


DATASETS: dict[str, DataSet | ClipSet] = {  # those with the most to show first
    "imagenette": DataSet((*IMAGENETTE_CLASSES.values(),), lambda split, seed: imagenette(split), True),
    "photos": DataSet(
        ("cat", "dog", *IMAGENETTE_CLASSES.values()),
        lambda split, seed: Joined(PHOTOS, split, seed),
        False,
        PHOTOS,
    ),
    "catsdogs": DataSet(("cat", "dog"), lambda split, seed: catsdogs(split), True),
    "cifar10": DataSet(CIFAR10_CLASSES, lambda split, seed: cifar10(split), True),
    "shapes": DataSet(SHAPES_CLASSES, Shapes, False),
    "moves": ClipSet(MOVES_CLASSES, Moves),
}


def cache_folder() -> Path:
    """$VIT_CACHE, or a folder below the home folder; below the temporary one where nobody is at home."""
    folder = os.path.expanduser(os.environ.get("VIT_CACHE", "~/.cache/vit-explorer"))
    if folder.startswith("~"):  # no HOME, and a user that no list knows, as in some containers
        return Path(tempfile.gettempdir()) / f"vit-explorer-cache-{os.getuid()}"
    return Path(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keeps a folder of the cache to this process: others wait, except where nothing can be locked."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"), mode=0o666)  # the cache may be of several people
    with suppress(OSError):  # a cache that is only read, or a disk elsewhere that knows no locks
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another run, which writes to {folder} ...", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def load_split(
    data: str,
    split: str,
    image_size: tuple[int, int],
    crop_pct: float = 1.0,
    interpolation: str = "bicubic",
    seed: int = 0,
) -> Split:
    """Every picture of a split, decoded once to uint8 (N, 3, height, width), or every clip. Raises DataError.

    What lies in files is kept decoded in a cache file, which later runs map into memory in no time. A picture
    that cannot be read is left out, with a warning that names it.
    """
    if isinstance(DATASETS.get(data), ClipSet):
        return load_clips(data, split, image_size, seed)
    pictures, class_names = find_pictures(data, split, seed)
    if isinstance(pictures, Joined):
        how = (split, image_size, crop_pct, interpolation, seed)
        parts = [load_split(name, *how) for name in pictures.names]
        firsts = accumulate((len(part.class_names) for part in parts[:-1]), initial=0)
        labels = torch.cat([part.labels + first for part, first in zip(parts, firsts)])
        content = " ".join(part.content for part in parts)
        return Split(torch.cat([part.images for part in parts]), labels, class_names, content)
    if isinstance(pictures, Files):
        pictures.warn_of_the_rest()
        key = f"{DECODING} {pictures.root.resolve()} {split} {image_size} {crop_pct} {interpolation}"
        name = hashlib.sha256(os.fsencode(key)).hexdigest()[:24]
        cache = cache_folder() / "decoded" / f"{name}.safetensors"
        fingerprint = digest_of(pictures, Files.fingerprint)
        if kept := read_cache(cache, fingerprint):
            images, labels, unreadable, content = kept
            warn_of(unreadable)
            return Split(images, labels, class_names, content)

    def pixels(index: int) -> tuple[Tensor, int]:
        picture, label = pictures[index]
        return to_pixels(to_rgb(picture), image_size, crop_pct, interpolation), label

    images, labels, skipped = decode_all(pixels, len(pictures), (3, *image_size), split)
    unreadable = [f"{picture_name(pictures, index)}: {left.why}" for index, left in skipped.items()]
    if late := [said for said, left in zip(unreadable, skipped.values()) if left.of_the_moment]:
        again = "run the same command once more, when less else is running."
        raise DataError(f"Not all {split} pictures could be read just now ({late[0].rstrip('.')}): {again}")
    warn_of(unreadable)
    if empty := {*range(len(class_names))} - {*labels.tolist()}:
        no_picture = f"no readable {split} picture of {class_names[min(empty)]}"
        raise DataError(f"{data} has {no_picture}: add some or remove the folder.")
    if isinstance(pictures, Files):
        content = digest_of(pictures, Files.content)  # here, where the system has just read all files
        if digest_of(pictures, Files.fingerprint) != fingerprint:
            raise DataError(f"{data} changed while its pictures were read: run the same command once more.")
        if all(left.for_good for left in skipped.values()):
            write_cache(cache, fingerprint, images, labels, unreadable, content)
        return Split(images, labels, class_names, content)
    return Split(images, labels, class_names)


def load_clips(data: str, split: str, image_size: tuple[int, int], seed: int = 0) -> Split:
    """Every clip of a split, uint8 (N, T, 3, height, width). Raises DataError."""
    known = DATASETS.get(data)
    if not isinstance(known, ClipSet):
        raise DataError(f"{data} is no data set of clips: name one that is, such as moves.")
    clips = known.clips(split, seed)

    def pixels(index: int) -> tuple[Tensor, int]:
        frames, label = clips[index]
        return torch.stack([to_pixels(frame, image_size) for frame in frames]), label

    images, labels, _ = decode_all(pixels, len(clips), (len(clips[0][0]), 3, *image_size), split)
    return Split(images, labels, known.class_names)


@dataclass(frozen=True)
class LeftOut:
    """Why a picture cannot be read: for good, or with what lacked at the moment."""

    why: str
    for_good: bool
    of_the_moment: bool


def decode_all(
    pixels: Callable[[int], tuple[Tensor, int]], count: int, shape: tuple[int, ...], split: str
) -> tuple[Tensor, Tensor, dict[int, LeftOut]]:
    """(images, labels, number of a picture that cannot be read -> why). Raises DataError.

    Told before it is spent: all of them have to fit into memory.
    """
    needed, free = count * math.prod(shape), free_memory()
    if needed > 0.9 * free:
        sides = " x ".join(str(side) for side in shape[-2:])
        takes = f"{count} {split} pictures of {sides} px take {needed / 1e9:.1f} GB of memory"
        advice = "give a smaller --train-size or --image-size, or fewer pictures."
        raise DataError(f"{takes}, and {max(free, 0) / 1e9:.1f} GB are free: {advice}")

    def decode(index: int) -> tuple[Tensor, int] | LeftOut:
        try:
            return pixels(index)
        except PictureError as error:  # not kept itself: what it was raised from holds half a picture
            return LeftOut(str(error), error.is_of_the_file, error.is_of_the_moment)

    images = torch.empty(count, *shape, dtype=torch.uint8)
    found: list[int] = []
    skipped: dict[int, LeftOut] = {}
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes outside the interpreter's lock
    try:
        decoded = pool.map(decode, range(count))
        progress = tqdm(decoded, f"reading {split} pictures", count, leave=False, disable=None)
        for index, one in enumerate(progress):
            if isinstance(one, LeftOut):
                skipped[index] = one
            else:
                images[len(found)] = one[0]
                found.append(one[1])
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for none of the rest
    return images[: len(found)], torch.tensor(found, dtype=torch.long), skipped


def digest_of(pictures: Files, digest: Callable[[Files], str]) -> str:
    """What this digest says of all files. Raises DataError."""
    try:
        return digest(pictures)
    except OSError as error:
        name = readable(str(error.filename))
        if isinstance(error, FileNotFoundError):  # it was there a moment ago
            said = f"{name} is gone since its folder was looked at: run the same command again."
        else:
            said = f"{name} cannot be read ({error.strerror}): mend that, or move it away."
        raise DataError(said) from error


def picture_name(pictures: Pictures, index: int) -> str:
    files = getattr(pictures, "files", None)
    return readable(str(files[index])) if files else f"picture {index}"


def warn_of(unreadable: Sequence[str]) -> None:
    """Name each picture that was left out, and say how many."""
    for said in unreadable:
        warnings.warn(f"left out {said}", stacklevel=3)
    if unreadable:
        s = "s" if len(unreadable) > 1 else ""
        warnings.warn(f"{len(unreadable)} picture{s} left out that could not be read.", stacklevel=3)


def read_cache(path: Path, fingerprint: str) -> tuple[Tensor, Tensor, list[str], str] | None:
    """(images, labels, names of unreadable files, the content's digest), if they are kept and no file has
    changed since."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("fingerprint") != fingerprint:
                return None
            skipped, content = json.loads(about["skipped"]), about["content"]
            return file.get_tensor("images"), file.get_tensor("labels"), skipped, content
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def write_cache(
    path: Path, fingerprint: str, images: Tensor, labels: Tensor, skipped: Sequence[str], content: str
) -> None:
    """A disk that is full costs the cache, not the run."""
    temporary = path.with_suffix(".part")
    about = {"fingerprint": fingerprint, "skipped": json.dumps(list(skipped)), "content": content}
    try:
        with writing(path.parent):
            try:
                temporary.unlink(missing_ok=True)  # one that a killed run has left
                temporary.touch()
                mode = temporary.stat().st_mode  # safetensors lets nobody else read
                save_file({"images": images, "labels": labels}, temporary, about)
                temporary.chmod(mode)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"The decoded pictures could not be kept for the next run: {error}", stacklevel=2)

"""Pictures in, tensors out: opening, preprocessing, data sets, and augmentation a whole batch at a time.

B pictures, (height, width) pixels, K classes. Pixels stay uint8 (3, height, width) until `normalize`.
"""

import hashlib
import math
import os
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from vit.card import INTERPOLATIONS, Card

MAX_PIXELS = 100_000_000  # 300 MB as RGB; checked before anything is decoded
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # their size is told undecoded
RESAMPLING = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}


class PictureError(ValueError):
    """A picture cannot be used; the message says why, in one sentence and without paths."""


class DataError(ValueError):
    """A data set cannot be used; the message says why and what to do, in one sentence."""


# One picture ---------------------------------------------------------------------------------------


def open_picture(source: str | Path | BinaryIO) -> Image.Image:
    """Any picture file as the upright RGB picture a person would expect. Raises PictureError.

    Of an animation the first frame; transparency over white; 16 bits and floats brought to 8.
    """
    try:
        with Image.open(source, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            picture.load()
            return to_rgb(picture)
    except Image.DecompressionBombError as error:  # Pillow has a limit of its own, for frames and tiles too
        most = f"{MAX_PIXELS // 10**6} million"
        raise PictureError(f"This picture has more than {most} pixels: make it smaller first.") from error
    except UnidentifiedImageError as error:
        raise PictureError("This file is not a picture, or of a kind that cannot be read.") from error
    except FileNotFoundError as error:
        raise PictureError("This picture does not exist.") from error
    except Exception as error:  # whatever Pillow makes of garbage: struct.error, TypeError, KeyError ...
        raise PictureError("This picture is damaged or cut short: its pixels cannot be read.") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture in any of Pillow's modes, upright and as RGB."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
    elif picture.mode in ("I", "F"):
        picture = Image.fromarray(to_eight_bits(np.asarray(picture)))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of 32 bits -> uint8: [0, 1], 8 and 16 bits keep their scale, another range is stretched.

    Resizing makes floats overshoot: what is below 2 was meant to end at 1.
    """
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        values, top = values - low, (high - low) or 1.0  # all pixels may be the same
    elif high < 2:
        top = 1.0
    else:
        top = 255 if high <= 255 else 65535
    return (values * (255 / top)).round().clip(0, 255).astype(np.uint8)


def to_pixels(
    picture: Image.Image, image_size: tuple[int, int], crop_pct: float = 1.0, interpolation: str = "bicubic"
) -> Tensor:
    """The middle of an RGB picture as uint8 (3, height, width).

    What timm and torchvision do, "resize the shorter side to size / crop_pct, then crop the centre", with
    the whole pixels that they round to, but in one step: safe for a picture of 1 x 100 000 pixels.
    """
    height, width = image_size
    tall, wide = (int(side / crop_pct + 1e-6) for side in image_size)  # before the crop, at least
    if picture.width * tall <= picture.height * wide:
        tall = int(wide * picture.height / picture.width)
    else:
        wide = int(tall * picture.width / picture.height)
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    y, x = picture.height / tall, picture.width / wide  # pixels of the picture for one of the result
    # rounding may put an edge 1e-14 outside, which Pillow refuses
    right, bottom = min((left + width) * x, picture.width), min((top + height) * y, picture.height)
    box = (left * x, top * y, right, bottom)
    resized = picture.resize((width, height), RESAMPLING[interpolation], box=box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def normalize(images: Tensor, card: Card) -> Tensor:
    """uint8 or [0, 1] pixels (..., 3, height, width) -> what the model reads, (x - mean) / std."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    mean, std = (torch.tensor(x, device=images.device).view(-1, 1, 1) for x in (card.mean, card.std))
    return (images - mean) / std


def denormalize(images: Tensor, card: Card) -> Tensor:
    """What the model read -> [0, 1] pixels: the inverse of `normalize`."""
    mean, std = (torch.tensor(x, device=images.device).view(-1, 1, 1) for x in (card.mean, card.std))
    return (images * std + mean).clamp(0, 1)


def as_picture(image: Tensor, card: Card) -> np.ndarray:
    """The pixels that the model saw (3, height, width), in true colours: (height, width, 3) uint8."""
    return denormalize(image, card).mul(255).round().byte().permute(1, 2, 0).numpy()


def preprocess(picture: Image.Image, card: Card, image_size: tuple[int, int] | None = None) -> Tensor:
    """A picture as the model of this card wants it, (3, height, width); image_size overrules the card.

    Raises ValueError where neither says it; the card of a loaded model does.
    """
    size = image_size or card.image_size
    if size is None:
        raise ValueError("This card names no image_size: pass one.")
    return normalize(to_pixels(to_rgb(picture), size, card.crop_pct, card.interpolation), card)


DECODING = 2  # the version of `to_pixels`: what another one made is not read from the cache


# Data sets -----------------------------------------------------------------------------------------


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

    cifar10 and imagenette are looked for in the folder $VIT_DATA first, as image folders; otherwise
    torchvision downloads them, once, from where they are published.
    """
    local = local_folder(data)
    if data == "shapes":
        return Shapes(split, seed), SHAPES_CLASSES
    if data in ("cifar10", "imagenette") and not local.is_dir():
        return download(data, split)
    folder = Folder(local if data in ("cifar10", "imagenette") else Path(data).expanduser(), split)
    return folder, folder.class_names


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
    known = {
        "shapes": SHAPES_CLASSES,
        "cifar10": CIFAR10_CLASSES,
        "imagenette": (*IMAGENETTE_CLASSES.values(),),
    }
    return known[data] if data in known else find_pictures(data, "train")[1]


def download(data: str, split: str) -> tuple[Pictures, tuple[str, ...]]:
    """CIFAR-10 or Imagenette by torchvision, kept under the cache folder."""
    from torchvision import datasets  # here: it is slow to import, and image folders do without

    root = cache_folder() / "downloads"
    try:
        if data == "cifar10":
            return datasets.CIFAR10(root, train=split == "train", download=True), CIFAR10_CLASSES
        folder = root / "imagenette2-160"
        if len(list(folder.rglob("*.JPEG"))) != IMAGENETTE_COUNT:  # not there, or unpacked half-way
            shutil.rmtree(folder, ignore_errors=True)
            datasets.Imagenette(root, size="160px", download=True)
        return Folder(folder, split), tuple(IMAGENETTE_CLASSES.values())
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{data} could not be downloaded ({error}): check the network, or set VIT_DATA to a folder "
            f"that holds {data}/train/CLASS/*.jpg."
        ) from error


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


# Shapes: a data set made from nothing -----------------------------------------------------------------


SHAPES_CLASSES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
SHAPES_SIZE = 64
SHAPES_COUNT = {"train": 16_000, "test": 2_000}


def outlines() -> dict[str, list[np.ndarray]]:
    """The contours of every class, (N, 2) points within the unit circle; a second contour is a hole."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)

    def polygon(corners: int, radii: Sequence[float] = (1.0,)) -> np.ndarray:
        angle = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.resize(radii, corners)[:, None]

    arm = 0.32
    quarter = [(arm, -1), (arm, -arm), (1, -arm)]
    cross = [point for i in range(4) for point in np.array(quarter) @ rotation(i * np.pi / 2).T]
    heart = np.stack(
        [
            16 * np.sin(turn) ** 3,
            -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)),
        ],
        axis=1,
    )
    outer, inner = np.linspace(0.6, 2 * np.pi - 0.6, 40), np.linspace(2 * np.pi - 0.95, 0.95, 40)
    moon = [np.stack([np.cos(outer), np.sin(outer)], 1), np.stack([np.cos(inner), np.sin(inner)], 1) * 0.82]
    moon[1][:, 0] += np.cos(0.6) - 0.82 * np.cos(0.95)
    return {
        "circle": [circle],
        "square": [polygon(4)],
        "triangle": [polygon(3)],
        "star": [polygon(10, (1.0, 0.42))],
        "cross": [np.array(cross)],
        "ring": [circle, circle * 0.55],
        "heart": [heart / 17],
        "moon": [np.concatenate(moon)],
    }


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


OUTLINES = outlines()


def fill(picture: np.ndarray, contours: Sequence[np.ndarray], colour: Sequence[float] | float) -> None:
    """Fill contours given in pixels; where two overlap there is a hole."""
    points = [np.round(contour * 16).astype(np.int32) for contour in contours]  # 4 bits behind the point
    cv2.fillPoly(picture, points, colour, cv2.LINE_AA, shift=4)


def shapes_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A texture of two colours: clouds, stripes, squares or a slope, (size, size, 3) in [0, 255]."""
    y, x = np.mgrid[0:size, 0:size] / size
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(0.08, 0.5), rng.uniform(0, 1)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        cells = int(rng.integers(3, 12))
        blend = cv2.resize(rng.random((cells, cells)), (size, size), interpolation=cv2.INTER_CUBIC)
    elif kind == 1:
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * (along / period + phase))
    elif kind == 2:
        blend = (np.floor(along / period + phase) + np.floor(across / period)) % 2
    else:
        blend = along / 1.5 + 0.3
    first, second = rng.uniform(0, 150, (2, 3))
    second = first + (second - first) * rng.uniform(0.2, 0.8)
    return first + (second - first) * blend[..., None]


def shapes_sample(seed: int, index: int) -> tuple[Image.Image, int, np.ndarray]:
    """(picture 64 x 64, label, mask (64, 64) bool of the object's pixels), always the same for (seed, index).

    Class, colour, size, place, rotation, texture and clutter are drawn independently, so nothing but the
    object's outline tells the class. The clutter has outlines too, of no class: blobs, specks and strokes.
    """
    rng = np.random.default_rng((seed, index))
    size, label = SHAPES_SIZE, index % len(SHAPES_CLASSES)
    picture = shapes_background(rng, size)
    radius = rng.uniform(10, 20)
    centre = rng.uniform(radius + 1, size - radius - 1, 2)

    for _ in range(rng.integers(2, 6)):  # blobs and specks
        corners, reach = int(rng.integers(5, 10)), rng.choice([rng.uniform(1, 3), rng.uniform(3, 7)])
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = reach * rng.uniform(0.4, 1, corners)
        blob = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii[:, None] + rng.uniform(0, size, 2)
        fill(picture, [blob], rng.uniform(0, 200, 3).tolist())

    colour = rng.uniform(60, 255, 3)
    colour[rng.integers(3)] = 255  # an object is brighter than its ground; of what colour says nothing
    spin = rotation(rng.uniform(-0.5, 0.5)) * radius * rng.uniform(0.85, 1.0, 2)
    contours = [contour @ spin.T + centre for contour in OUTLINES[SHAPES_CLASSES[label]]]
    coverage = np.zeros((size, size), np.float64)
    fill(coverage, contours, 1.0)
    fill_colour = colour + rng.uniform(-25, 25) * np.mgrid[0:size, 0:size][rng.integers(2)][..., None] / size
    picture += (fill_colour - picture) * coverage[..., None]

    for _ in range(rng.integers(0, 3)):  # strokes, over the object too
        start, end = rng.uniform(0, size, (2, 2)).round().astype(int).tolist()
        cv2.line(picture, start, end, rng.uniform(0, 200, 3).tolist(), 1, cv2.LINE_AA)
    picture += rng.normal(0, rng.uniform(1, 8), picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)), label, coverage > 0.5


class Shapes:
    """`shapes_sample`, numbered. The test split of a seed shares no picture with its training split."""

    def __init__(self, split: str, seed: int = 0):
        self.seed, self.count = 2 * seed + (split == "test"), SHAPES_COUNT[split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        picture, label, _ = shapes_sample(self.seed, index)
        return picture, label


# Augmentation --------------------------------------------------------------------------------------


def resize_all(images: Tensor, size: tuple[int, int], chunk: int = 1024) -> Tensor:
    """uint8 (N, 3, ...) -> uint8 (N, 3, *size), anti-aliased: the small pictures of progressive training."""
    if images.shape[-2:] == size:
        return images
    small = torch.empty(len(images), 3, *size, dtype=torch.uint8, device=images.device)
    for start in range(0, len(images), chunk):
        part = F.interpolate(images[start : start + chunk].float(), size, mode="bilinear", antialias=True)
        small[start : start + chunk] = part.round().clamp(0, 255)
    return small


def augment(
    images: Tensor,
    size: tuple[int, int],
    *,
    min_area: float = 1.0,
    shift: float = 0.0,
    rotation: float = 0.0,
    colour: float = 0.0,
    cutout: float = 0.0,
    flip: bool = True,
) -> Tensor:
    """uint8 (B, 3, ...) -> [0, 1] floats (B, 3, *size), every picture changed in its own way.

    Crop (min_area: its smallest share of the picture; shift: how far it may reach beyond the edge),
    aspect ratio, rotation (degrees either way) and flip are one affine map per picture, so one
    `grid_sample` moves the pixels of the whole batch: 11 000 CIFAR pictures/s on one core. It is bicubic,
    since bilinear sampling blurs what is learned from, and nothing that is tested on. colour: range of
    brightness, contrast and saturation. cutout: side of a grey square, as a share of the picture.
    """
    B, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(B, device=device) * (high - low) + low

    side = uniform(min_area, 1).sqrt()  # of the crop, as a share of the picture's
    stretch = torch.exp(uniform(-1, 1) * (math.log(4 / 3) / 2)).clamp(side, 1 / side)  # no edge beyond 1
    x_scale, y_scale = side * stretch, side / stretch
    x_shift, y_shift = (uniform(-1, 1) * (1 - scale + 2 * shift) for scale in (x_scale, y_scale))
    if min_area == 1 and not rotation:  # by whole pixels, 2 / size each: nothing is blurred
        x_shift, y_shift = ((x_shift / 2 * size[1]).round(), (y_shift / 2 * size[0]).round())
        x_shift, y_shift = x_shift * 2 / size[1], y_shift * 2 / size[0]
    angle = torch.deg2rad(uniform(-rotation, rotation))
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if flip else torch.ones(B, device=device)
    cos, sin = angle.cos(), angle.sin()
    rows = (cos * x_scale * mirror, -sin * y_scale, x_shift, sin * x_scale * mirror, cos * y_scale, y_shift)
    theta = torch.stack(rows, dim=1).view(B, 2, 3)
    grid = F.affine_grid(theta, [B, 3, *size], align_corners=False)
    x = F.grid_sample(images.float() / 255, grid, "bicubic", "reflection", align_corners=False).clamp(0, 1)

    if colour:
        brightness, contrast, saturation = (1 + uniform(-colour, colour).view(B, 1, 1, 1) for _ in range(3))
        grey = x.mean(dim=1, keepdim=True)  # (B, 1, height, width)
        x = grey + (x - grey) * saturation
        x = (x - 0.5) * contrast + 0.5 * brightness
        x = x.clamp(0, 1)
    if cutout:
        centre_x, centre_y = (uniform(0, 1).view(B, 1, 1) for _ in range(2))
        ys = (torch.arange(size[0], device=device).view(1, -1, 1) + 0.5) / size[0]
        xs = (torch.arange(size[1], device=device).view(1, 1, -1) + 0.5) / size[1]
        hole = ((ys - centre_y).abs() < cutout / 2) & (
            (xs - centre_x).abs() < cutout / 2
        )  # (B, height, width)
        x = x.masked_fill(hole[:, None], 0.5)
    return x

"""Pictures that are there without an upload: photographs that came with packages, generated shapes, and test
pictures of the data sets that are on this machine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vit.clips import Clip, is_clip, open_clip, save_animated, thinned
from vit.data import DATASETS, local_test_pictures
from vit.moves import MOVES_CLASSES, moves_sample
from vit.pictures import open_picture
from vit.shapes import shapes_sample

THUMB, SIDE = 96, 768  # pixels
SEED, SHAPES = 7, 5  # of the generator, and how many of its pictures
# (name, label, package that brings it, file of the package)
PHOTOGRAPHS = (  # the first one is what the app opens with: a cat, which the default model knows
    ("cat", "Cat", "skimage", "data/chelsea.png"),
    ("lion", "Lion", "gradio", "media_assets/images/lion.jpg"),
    ("tower", "Tower at dusk", "gradio", "media_assets/images/tower.jpg"),
    ("cheetah", "Cheetah", "gradio", "media_assets/images/cheetah1.jpg"),
    ("runner", "Cheetah at full speed", "gradio", "media_assets/images/cheetah.jpg"),
    ("admiral", "Grace Hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


@dataclass(frozen=True)
class Example:
    name: str  # as in the page's address
    label: str
    path: Path
    thumb: Path
    data: str  # the data set that it is from; "": a photograph of no data set


FILMED = (("earth", "A clip: the Earth at night", "gradio", "media_assets/videos/world.mp4"),)
FRAMES, CLIP_SIDE = 16, 320  # of a clip that was filmed: how many are kept, pixels of their longer side
MOVES, CLIP_SEED = (0, 3, 5, 7, 8), 7  # of the generated clips, and their seed


def photographs() -> Iterator[tuple[str, str, Path]]:
    """(name, label, file) of the photographs that are here."""
    return brought_by(PHOTOGRAPHS)


def brought_by(files: Iterable[tuple[str, str, str, str]]) -> Iterator[tuple[str, str, Path]]:
    """(name, label, file) of those whose package is installed: it is found, and not imported."""
    for name, label, package, file in files:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / file
            if path.is_file():
                yield name, label, path


@cache
def make_examples(folder: Path) -> dict[str, Example]:
    """All examples by name, as files of a moderate size in this folder."""
    folder.mkdir(exist_ok=True)
    sources = [("", name, label, open_picture(path)) for name, label, path in photographs()]
    sources += [
        ("shapes", f"shapes-{i}", f"Shapes {i + 1}", shapes_sample(SEED, i)[0]) for i in range(SHAPES)
    ]
    sources += [
        (data, f"{data}-{class_name}".replace(" ", "-"), class_name, picture)
        for data in (name for name, known in DATASETS.items() if known.published)
        for picture, class_name in local_test_pictures(data, every=2)
    ]
    examples = {}
    for data, name, label, picture in sources:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        path, thumb = folder / f"{name}.webp", folder / f"{name}-thumb.jpg"
        picture.save(path, lossless=True, quality=0, method=0)  # smaller than a PNG, and sooner made
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        square.resize((THUMB, THUMB), Image.Resampling.LANCZOS).save(thumb, quality=88)
        examples[name] = Example(name, label, path, thumb, data)
    return examples | clip_examples(folder)


def clip_examples(folder: Path) -> dict[str, Example]:
    """Generated clips, and one that was filmed and came with a package; as animated pictures."""
    found = []
    for index in MOVES:
        frames, move, _ = moves_sample(CLIP_SEED, index)
        times = tuple(i / 8 for i in range(len(frames)))
        found.append(("moves", f"moves-{index}", MOVES_CLASSES[move].capitalize(), Clip(frames, times)))
    for name, label, path in brought_by(FILMED):
        found.append(("", name, label, open_clip(path, FRAMES, CLIP_SIDE)))
    examples = {}
    for data, name, label, clip in found:
        path, thumb = folder / f"{name}.webp", folder / f"{name}-thumb.webp"
        save_animated(clip, path)
        height, width = clip.frames.shape[1:3]
        side, few = min(height, width), thinned(clip, 8)
        top, left = (height - side) // 2, (width - side) // 2
        small = [cv2.resize(f, (THUMB, THUMB)) for f in few.frames[:, top : top + side, left : left + side]]
        save_animated(Clip(np.stack(small), few.times), thumb, exact=False)
        examples[name] = Example(name, label, path, thumb, data)
    return examples


def suited(examples: dict[str, Example], data: str) -> list[Example]:
    """Examples for a model trained on `data`: what it knows comes first."""
    known = [example for example in examples.values() if example.data and example.data in data.lower()]
    clips = [example for example in examples.values() if not example.data and is_clip(example.path)]
    photos = [example for example in examples.values() if not example.data and example not in clips]
    shapes = [example for example in examples.values() if example.data == "shapes"]
    return [*known, *photos[:2], *clips] if known else [*photos, *shapes[:2], *clips]

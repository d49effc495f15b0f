"""What there is to look at before a visitor brings their own: pictures, and clips as sheets of frames."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from vit.card import Card
from vit.clipdecoder import (
    BROKEN,
    MAX_FRAMES,
    MAX_SECONDS,
    MAX_SIDE,
    NO_VIDEO,
    TOO_LARGE,
    TOO_LONG,
    TOO_MUCH,
)
from vit.clips import (
    LARGEST,
    MOST,
    SECONDS,
    Clip,
    is_clip,
    open_clip,
    preprocess_clip,
    sampled,
    thinned,
)
from vit.config import ViTConfig
from vit.pictures import open_picture, preprocess

SIDE, THUMB = 1024, 128  # pixels of a picture's longer side
SMALL = 8  # frames of a clip's small copy
WITHOUT_LOSS: dict[str, Any] = {"lossless": True}  # a model notices
QUALITY: dict[str, Any] = {"quality": 85}
CLIPS = {  # how a clip is taken, and what is said of one that cannot be: as in vit/clips.py
    "most": MOST,
    "largest": LARGEST,
    "patience": SECONDS,
    "limits": {"seconds": MAX_SECONDS, "frames": MAX_FRAMES, "side": MAX_SIDE},
    "words": {"broken": BROKEN, "long": TOO_LONG, "large": TOO_LARGE, "empty": NO_VIDEO, "much": TOO_MUCH},
}


@dataclass(frozen=True)
class Picture:
    name: str
    label: str
    picture: Image.Image | Clip

    @property
    def moves(self) -> bool:
        return isinstance(self.picture, Clip)

    def fits(self, config: ViTConfig) -> bool:
        """Does this model take it at once? A model of clips takes a picture for a clip that stands still; one
        of pictures looks at a clip frame by frame."""
        return config.is_clip or not self.moves

    def read_by(self, config: ViTConfig, card: Card, size: tuple[int, int]) -> Tensor:
        """(3, height, width), or of a model of clips (F, 3, height, width)."""
        seen = self.picture
        if not config.is_clip:
            assert isinstance(seen, Image.Image)  # so `fits`
            return preprocess(seen, card, size)
        clip = seen if isinstance(seen, Clip) else Clip(np.asarray(seen.convert("RGB"))[None], (0.0,))
        return preprocess_clip(sampled(clip, config.num_frames), card, size)


def open_any(path: Path) -> Image.Image | Clip:
    """The picture or the clip in a file. Raises PictureError and ClipError."""
    if not is_clip(path):
        return open_picture(path)
    clip = open_clip(path, MOST, LARGEST)
    return clip if len(clip.frames) > 1 else Image.fromarray(clip.frames[0])


def write_picture(each: Picture, number: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(its entry in site.json, {file name: content}): the picture or a clip's sheet, and a small copy."""
    file, thumb = f"pictures/{number}.webp", f"pictures/{number}-small.webp"
    entry: dict[str, Any] = {"name": each.name, "label": each.label, "file": file, "thumb": thumb}
    if isinstance(each.picture, Clip):
        picture, across = sheet(each.picture)
        entry["clip"] = {"across": across, "times": list(each.picture.times)}
        shown = [Image.fromarray(frame) for frame in thinned(each.picture, SMALL).frames]
    else:
        picture = shrunk(each.picture, SIDE)
        shown = [each.picture]
    small = [shrunk(one, THUMB) for one in shown]
    return entry, {file: webp([picture], WITHOUT_LOSS), thumb: webp(small, QUALITY)}


def sheet(clip: Clip) -> tuple[Image.Image, int]:
    """(all frames of a clip in one picture, row by row; how many are in a row): any browser can read that."""
    count, height, width = clip.frames.shape[:3]
    across = math.ceil(math.sqrt(count))
    whole = Image.new("RGB", (across * width, math.ceil(count / across) * height))
    for i, frame in enumerate(clip.frames):
        whole.paste(Image.fromarray(frame), (i % across * width, i // across * height))
    return whole, across


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def webp(pictures: Sequence[Image.Image], options: dict[str, Any]) -> bytes:
    """One picture, or several that are played, as a file."""
    buffer = io.BytesIO()
    several = {"save_all": True, "append_images": pictures[1:], "duration": 125, "loop": 0}
    pictures[0].save(buffer, "WEBP", **options, **(several if len(pictures) > 1 else {}))
    return buffer.getvalue()

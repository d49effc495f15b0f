"""A clip for a model: a file as frames, those that a model of clips takes, their pixels as it reads them.

F frames of (height, width) pixels. Which: evenly over the whole clip, the middle of each of F equal parts.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vit import clipdecoder
from vit.card import Card
from vit.clipdecoder import TOO_MUCH, chosen, is_clip, middles, shrunk
from vit.clipdecoder import Clip as Clip
from vit.clipdecoder import ClipError as ClipError
from vit.clipdecoder import open_clip as open_clip
from vit.folders import Found, is_picture, pictures_in
from vit.pictures import SUFFIXES as PICTURES
from vit.pictures import open_picture, preprocess

MOST, LARGEST = 32, 512  # frames that are kept of an upload, pixels of their longer side
SECONDS = 60.0  # by the clock, for the process that decodes
MOMENTS = 16  # frames of a clip that a model of pictures looks at, one after the other
SUFFIXES = {".mp4", ".webm", ".gif", ".avi", ".mov", ".m4v", ".mkv"}


def open_clip_safely(path: str | Path, most: int = MOST, largest: int = LARGEST) -> Clip:
    """`open_clip` for what strangers send: in a process of its own, which ends if the clip is too much.

    Raises ClipError.
    """
    command = [sys.executable, "-P", clipdecoder.__file__, str(path), str(most), str(largest)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OPENCV_FFMPEG_THREADS": "1"}
    quiet = {"stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=SECONDS, env=environment, **quiet)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired as error:
        raise ClipError(TOO_MUCH) from error
    head, _, content = done.stdout.partition(b"\n")
    if done.returncode or not head:
        raise ClipError(TOO_MUCH)
    said = json.loads(head)
    if "error" in said:
        raise ClipError(said["error"])
    width, height = said["size"]
    frames = np.frombuffer(content, np.uint8).reshape(-1, height, width, 3)
    return Clip(frames, tuple(said["times"]))


def as_clip(path: str | Path, most: int = MOST) -> Clip:
    """The clip in a file, or that of the pictures in a folder; a picture is a clip of one frame. Raises
    ClipError and PictureError."""
    if Path(path).is_dir():
        return clip_of_pictures([file for file in Path(path).iterdir() if shows_a_frame(file)], most)
    if is_clip(path):
        return open_clip(path, most)
    return Clip(np.asarray(open_picture(path))[None], (0.0,))


def shows_a_frame(file: Path) -> bool:
    """May this file of a folder be a frame of a clip: is it a picture, and one that does not move?"""
    return is_picture(file) and not is_clip(file)


def clips_in(folder: Path) -> Found:
    """Every clip below a folder: files, and folders of pictures, each of which is one clip."""
    found = pictures_in(folder, PICTURES | SUFFIXES)
    found.files = list(dict.fromkeys(file.parent if shows_a_frame(file) else file for file in found.files))
    return found


def clip_of_pictures(
    files: Sequence[Path], most: int = MOST, read: Callable[[Path], Image.Image] = open_picture
) -> Clip:
    """Pictures as the frames of one clip, in the order of their names, in which 10 comes after 9; at most so
    many, evenly. When each was is not known: they are taken for a tenth of a second apart, as in a GIF that
    says nothing. Raises ClipError and PictureError."""
    in_order = sorted(files, key=lambda file: [*map(whole, re.split(r"(\d+)", file.name.lower()))])
    if not in_order:
        raise ClipError("A clip is made of pictures, and there is none.")
    at = chosen(len(in_order), most)
    frames = [shrunk(np.asarray(read(in_order[i]).convert("RGB")), LARGEST) for i in at]
    if len({frame.shape for frame in frames}) > 1:
        raise ClipError("The frames of a clip have one size, and these pictures have several: crop them.")
    return Clip(np.stack(frames), tuple(i / 10 for i in at))


def whole(part: str) -> tuple[int, str]:
    """A part of a name, by which numbers are compared as numbers."""
    return (int(part), "") if part.isdecimal() else (-1, part)


def sampled(clip: Clip, count: int) -> Clip:
    """So many frames of a clip, evenly; of one that has fewer, some stand for more than one."""
    at = middles(len(clip.frames), count)
    return Clip(clip.frames[at], tuple(clip.times[i] for i in at))


def thinned(clip: Clip, most: int) -> Clip:
    """At most so many frames of a clip, evenly spread, each of them once."""
    return sampled(clip, min(len(clip.frames), most))


def preprocess_clip(clip: Clip, card: Card, image_size: tuple[int, int] | None = None) -> Tensor:
    """(F, 3, height, width): every frame as the model of this card wants a picture."""
    return torch.stack([preprocess(Image.fromarray(frame), card, image_size) for frame in clip.frames])


def save_animated(clip: Clip, path: Path, exact: bool = True) -> None:
    """The clip as an animated WebP: a file that a browser shows as a picture that moves; without loss, or,
    where it need only look like the clip, in a tenth of the bytes."""
    pictures = [Image.fromarray(frame) for frame in clip.frames]
    steps = [round(1000 * (b - a)) for a, b in zip(clip.times, clip.times[1:])]
    steps.append(steps[-1] if steps else 100)
    options = {"lossless": exact, "quality": 0 if exact else 80, "method": 0, "loop": 0}
    durations = [max(1, step) for step in steps]
    pictures[0].save(path, "WEBP", save_all=True, append_images=pictures[1:], duration=durations, **options)

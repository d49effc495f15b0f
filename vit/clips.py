"""A clip for a model: a file as frames, those that a model of clips takes, their pixels as it reads them.

F frames of (height, width) pixels. Which: evenly over the whole clip, the middle of each of F equal parts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vit import clipdecoder
from vit.card import Card
from vit.clipdecoder import TOO_MUCH, chosen, is_clip
from vit.clipdecoder import Clip as Clip
from vit.clipdecoder import ClipError as ClipError
from vit.clipdecoder import open_clip as open_clip
from vit.pictures import open_picture, preprocess

MOST, LARGEST = 32, 512  # frames that are kept of an upload, pixels of their longer side
SECONDS = 60.0  # by the clock, for the process that decodes
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
    """The clip in a file; a picture is a clip of one frame. Raises ClipError and PictureError."""
    if is_clip(path):
        return open_clip(path, most)
    return Clip(np.asarray(open_picture(path))[None], (0.0,))


def sampled(clip: Clip, count: int) -> Clip:
    """So many frames of a clip, evenly; of one that has fewer, some stand for more than one."""
    at = [int((i + 0.5) * len(clip.frames) / count) for i in range(count)]
    return Clip(clip.frames[at], tuple(clip.times[i] for i in at))


def first_frames(clip: Clip, most: int) -> Clip:
    """At most so many frames of a clip, evenly, each of them once."""
    at = chosen(len(clip.frames), most)
    return Clip(clip.frames[at], tuple(clip.times[i] for i in at))


def preprocess_clip(clip: Clip, card: Card, image_size: tuple[int, int] | None = None) -> Tensor:
    """(F, 3, height, width): every frame as the model of this card wants a picture."""
    return torch.stack([preprocess(Image.fromarray(frame), card, image_size) for frame in clip.frames])


def save_animated(clip: Clip, path: Path) -> None:
    """The clip as an animated WebP without loss: a file that a browser shows as a picture that moves."""
    pictures = [Image.fromarray(frame) for frame in clip.frames]
    steps = [round(1000 * (b - a)) for a, b in zip(clip.times, clip.times[1:])]
    steps.append(steps[-1] if steps else 100)
    options = {"lossless": True, "quality": 0, "method": 0, "loop": 0}
    durations = [max(1, step) for step in steps]
    pictures[0].save(path, "WEBP", save_all=True, append_images=pictures[1:], duration=durations, **options)

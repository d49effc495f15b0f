"""One picture: any file as upright RGB, and the pixels that a model wants of it.

(height, width) pixels; pixels stay uint8 (3, height, width) until `normalize`.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vit import decoder
from vit.card import INTERPOLATIONS, Card
from vit.decoder import SUFFIXES as SUFFIXES
from vit.decoder import PictureError, to_rgb
from vit.decoder import open_picture as open_picture

RESAMPLING = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}
DECODING = 4  # the version of what makes pixels of a file: what another one made is not read from the cache
SECONDS = 2.0  # of processor time for a stranger's picture
PATIENCE = 10  # times as long by the clock, on a machine that is busy
AT_ONCE = 5  # such pictures: one more than the lanes of the page let one address have at work
LARGEST = 2048  # pixels of the longer side that are kept of it


class Decoder:
    """A process that decodes strangers' pictures, one at a time; see vit.decoder."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", decoder.__file__]  # -P: beside it lie modules called as Python's own
        self.late = False
        # Ctrl-C is not for it; in the same session, or Linux would not compare its claim to the processor
        own = {"process_group": 0} if os.name == "posix" else {}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            **own,  # type: ignore[call-overload]
        )

    def __call__(self, content: bytes, largest: int) -> Image.Image:
        """Raises PictureError, and OSError or EOFError where the process is no more."""
        jobs, replies = self.process.stdin, self.process.stdout
        assert jobs and replies
        clock = threading.Timer(SECONDS * PATIENCE, self.give_up)
        clock.start()
        try:
            jobs.write(decoder.JOB.pack(SECONDS, largest, len(content)) + content)
            jobs.flush()
            head = replies.read(decoder.REPLY.size)
            if len(head) < decoder.REPLY.size:
                raise EOFError
            width, height, length = decoder.REPLY.unpack(head)
            said = replies.read(length)
        finally:
            clock.cancel()
        if len(said) < length:
            raise EOFError
        if not width:
            raise PictureError(said.decode())
        return Image.frombytes("RGB", (width, height), said)

    def give_up(self) -> None:
        self.late = True
        self.process.kill()

    def end(self) -> bool:
        """Let go of the process; returns whether it had taken too long."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was not yet written to one that is no more
                pipe and pipe.close()
        return self.process.wait() == -getattr(signal, "SIGPROF", 0) or self.late


DECODERS: "queue.LifoQueue[Decoder | None]" = queue.LifoQueue()  # as many pictures at once as there are here
for _ in range(AT_ONCE):
    DECODERS.put(None)  # started when first needed


def open_safely(source: str | Path | bytes | BinaryIO, largest: int = LARGEST) -> Image.Image:
    """`open_picture` for what strangers send: in a process of its own, which ends if the picture is too much.

    Two seconds of processor time, 300 MB of memory, and the longer side reduced to `largest` pixels. It may
    be called from many threads; five pictures are decoded at once. Raises PictureError.
    """
    try:
        content = source if isinstance(source, bytes) else read(source)
    except OSError as error:
        raise PictureError("This picture cannot be read: send it once more.") from error
    worker = DECODERS.get()
    try:
        for _ in range(2):  # one that was waiting may have been ended meanwhile: not by this picture
            fresh = worker is None
            worker = worker or Decoder()
            try:
                return worker(content, largest)
            except (OSError, EOFError) as error:
                late, worker = worker.end(), None
                if late or fresh:
                    most = f"{SECONDS:g} s and {decoder.ROOM >> 20} MB"
                    advice = "make it smaller, or save it as a plain JPEG."
                    raise PictureError(f"This picture takes more than {most} to decode: {advice}") from error
            except PictureError:
                raise
            except BaseException:  # the next visitor must not read the rest of what it has to say
                worker.end()
                worker = None
                raise
        raise AssertionError("a second try is a fresh one")
    finally:
        DECODERS.put(worker)


def read(source: str | Path | BinaryIO) -> bytes:
    return Path(source).read_bytes() if isinstance(source, str | Path) else source.read()


def seen_box(
    size: tuple[int, int], image_size: tuple[int, int], crop_pct: float = 1.0
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom), in pixels, of what a model sees of a picture of this size (width, height):
    what timm and torchvision do, "resize the shorter side to size / crop_pct, then crop the centre", with the
    whole pixels that they round to."""
    (across, down), (height, width) = size, image_size
    tall, wide = (int(side / crop_pct + 1e-6) for side in image_size)  # before the crop, at least
    if across * tall <= down * wide:
        tall = int(wide * down / across)
    else:
        wide = int(tall * across / down)
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    y, x = down / tall, across / wide  # pixels of the picture for one of the result
    # rounding may put an edge 1e-14 outside, which Pillow refuses
    return left * x, top * y, min((left + width) * x, across), min((top + height) * y, down)


def to_pixels(
    picture: Image.Image, image_size: tuple[int, int], crop_pct: float = 1.0, interpolation: str = "bicubic"
) -> Tensor:
    """What `seen_box` says of an RGB picture as uint8 (3, height, width), in one step: safe for a picture of
    1 x 100 000 pixels."""
    height, width = image_size
    box = seen_box(picture.size, image_size, crop_pct)
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
    """The pixels that the model saw (3, height, width), in true colours: (height, width, 3) uint8. Frames
    (F, 3, height, width) stand side by side."""
    image = torch.cat(tuple(image), dim=-1) if image.dim() > 3 else image
    return denormalize(image, card).mul(255).round().byte().permute(1, 2, 0).numpy()


def preprocess(picture: Image.Image, card: Card, image_size: tuple[int, int] | None = None) -> Tensor:
    """A picture as the model of this card wants it, (3, height, width); image_size overrules the card.

    Raises ValueError where neither says it; the card of a loaded model does.
    """
    size = image_size or card.image_size
    if size is None:
        raise ValueError("This card names no image_size: pass one.")
    return normalize(to_pixels(to_rgb(picture), size, card.crop_pct, card.interpolation), card)

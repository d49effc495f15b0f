"""One picture: any file as upright RGB, and the pixels that a model wants of it.

(height, width) pixels; pixels stay uint8 (3, height, width) until `normalize`.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vit.card import INTERPOLATIONS, Card

MAX_PIXELS = 100_000_000  # 300 MB as RGB; checked before anything is decoded
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # their size is told undecoded
RESAMPLING = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}
DECODING = 2  # the version of `to_pixels`: what another one made is not read from the cache


class PictureError(ValueError):
    """A picture cannot be used; the message says why, in one sentence and without paths."""


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

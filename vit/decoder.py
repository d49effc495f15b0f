"""Any picture file as upright RGB, with Pillow and NumPy alone.

So it also starts quickly as a process of its own, which decodes what strangers upload with limits of time
and memory (`vit.pictures.open_safely`). It reads (seconds, most pixels a side, length) and the bytes
of a file, and writes (width, height, length) and RGB bytes or, with a width of 0, one sentence.
"""

import errno
import io
import os
import re
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 100_000_000  # 300 MB as RGB; checked before anything is decoded
SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # their size is told undecoded
# of a stranger's JPEG and TIFF; a camera writes some ten, a scanner hundreds
MAX_SCANS, MAX_TILES = 100, 20_000
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # of a JPEG: a segment's, or the end's
ROOM = 300 * 2**20  # bytes that a stranger's picture may take beyond what the process has at its start
NICE = 5  # a third of the claim to the processor that a usual process has
JOB, REPLY = struct.Struct("<dIQ"), struct.Struct("<IIQ")
PICTURES, CLIPS = "JPEG, PNG or WebP", "MP4 (H.264), WebM (VP9) or GIF"  # what to save as
# (what stands at which byte of a file that is not read here, what it is, what to save it as)
UNREAD = (
    (4, (b"ftyphei", b"ftyphev"), "a HEIC picture", PICTURES),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL picture", PICTURES),
    (0, (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "), "a JPEG 2000 picture", PICTURES),
    (0, (b"8BPS",), "a Photoshop picture", PICTURES),
    (0, (b"%PDF",), "a PDF", PICTURES),
    (0, (b"<svg", b"<?xml"), "a drawing (SVG) or other XML", PICTURES),
    (0, (b"\x30\x26\xb2\x75",), "a Windows Media video", CLIPS),
    (0, (b"FLV",), "a Flash video", CLIPS),
    (0, (b"OggS",), "an Ogg file", CLIPS),
    (0, (b"\0\0\1\xba", b"\0\0\1\xb3"), "an MPEG video", CLIPS),
    (4, (b"moov", b"mdat", b"wide"), "an old QuickTime video", CLIPS),
)
NEEDED = f"This picture needs more than {ROOM >> 20} MB to be decoded, or is damaged: make it smaller first."
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(ValueError):
    """A picture cannot be used; the message says why, in one sentence and without paths."""

    @property
    def is_of_the_file(self) -> bool:
        """Whether the file itself is at fault: not memory, a permission or the disk, which may be mended."""
        why = self.__cause__
        return not (self.is_of_the_moment or (isinstance(why, OSError) and why.errno))

    @property
    def is_of_the_moment(self) -> bool:
        """Whether this process had too little memory, or too many files open: the next try may find more."""
        why = self.__cause__
        lacking = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
        return isinstance(why, MemoryError) or (isinstance(why, OSError) and why.errno in lacking)


def open_picture(source: str | Path | BinaryIO, largest: int | None = None) -> Image.Image:
    """Any picture file as the upright RGB picture a person would expect. Raises PictureError.

    Of an animation the first frame; transparency over white; 16 bits and floats brought to 8. What stands
    beside the pixels, such as EXIF or text, may be garbage. largest: the longer side is reduced to this many
    pixels, which saves time and memory where a JPEG is decoded.
    """
    try:
        try:
            return decode(source, largest)
        except ValueError:  # what Pillow says of texts that it does not want to unpack
            if (pixels := without_texts(source)) is None:
                raise
            return decode(io.BytesIO(pixels), largest)
    except Image.DecompressionBombError as error:  # Pillow has a limit of its own, for frames and tiles too
        most = f"{MAX_PIXELS // 10**6} million"
        raise PictureError(f"This picture has more than {most} pixels: make it smaller first.") from error
    except UnidentifiedImageError as error:
        raise PictureError(what_it_is(source)) from error
    except FileNotFoundError as error:
        raise PictureError("This picture does not exist.") from error
    except PermissionError as error:
        raise PictureError("This picture may not be read: ask its owner for the permission.") from error
    except MemoryError as error:
        raise PictureError("There is too little memory for this picture: make it smaller first.") from error
    except Exception as error:  # whatever Pillow makes of garbage: struct.error, TypeError, KeyError ...
        raise PictureError("This picture is damaged or cut short: its pixels cannot be read.") from error


def decode(source: str | Path | BinaryIO, largest: int | None) -> Image.Image:
    """`open_picture` with Pillow's own errors."""
    with Image.open(source, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        clear = picture.info.get("transparency")
        if isinstance(clear, tuple) and any("16" in str(tile[3]) for tile in picture.tile):
            picture.info["transparency"] = tuple(part >> 8 for part in clear)  # as its pixels are read
        if largest is None or max(picture.size) <= largest:
            picture.load()
            return to_rgb(picture)
        plain: Image.Image = picture
        if picture.mode not in ("1", "P", "PA", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"):
            plain = to_rgb(picture)
        elif picture.mode == "PA" or clear is not None:  # a colour that means nothing cannot be averaged
            plain = picture.convert("RGBA")
        elif picture.mode in ("1", "P"):  # nor can numbers of colours
            plain = picture.convert("L" if picture.mode == "1" else "RGB")
        plain.thumbnail((largest, largest))  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size
        return to_rgb(plain)


def what_it_is(source: str | Path | BinaryIO) -> str:
    """Of a file that is no picture as far as Pillow knows: what it is, and what to do."""
    if isinstance(source, str | Path):
        with open(source, "rb") as file:
            head = file.read(16)
    else:
        source.seek(0)
        head = source.read(16)
    for at, starts, name, kinds in UNREAD:
        if head.startswith(starts, at):
            return f"This file is {name}, which cannot be read here: save it as {kinds}."
    return f"This file is not a picture, or of a kind that cannot be read: save it as {PICTURES}."


def without_texts(source: str | Path | BinaryIO) -> bytes | None:
    """A PNG file without what is no pixel of it; None for other files."""
    if isinstance(source, str | Path):
        content = Path(source).read_bytes()
    else:
        source.seek(0)
        content = source.read()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    kept, at = [content[:8]], 8
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture in any of Pillow's modes, upright and as RGB."""
    picture = upright(picture)
    if picture.mode.startswith("I;16"):
        values, clear = np.asarray(picture).astype(np.float32), picture.info.get("transparency")
        if clear is not None:
            values[values == clear] = 65535
        values /= 257
        picture = Image.fromarray(np.rint(values, out=values).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        picture = Image.fromarray(to_eight_bits(np.asarray(picture)))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    picture = picture.convert("RGB")
    picture.info = {}  # or it would be turned once more by the next who asks
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF or XMP says, where that can be read at all."""
    picture.load()
    try:
        orientation = picture.getexif().get(0x0112)
    except Exception:  # garbage beside the pixels is no fault of theirs
        return picture
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


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


# A process of its own ---------------------------------------------------------------------------------


def passes(jpeg: bytes) -> int:
    """How often a JPEG draws over its picture: its SOS markers up to the one that ends it (ITU-T T.81, B.1).
    A telephone may put a film behind that."""
    found, at = 0, 2
    while match := MARKER.search(jpeg, at):
        if match[1] == b"\xd9":  # the end
            break
        found += match[1] == b"\xda"
        length = jpeg[match.end() : match.end() + 2]  # of a segment
        at = match.end() + int.from_bytes(length)
    return found


def check_passes(content: bytes) -> None:
    """Refuse files that are small to send and endless to decode. Raises PictureError."""
    if content.startswith(b"\xff\xd8") and passes(content) > MAX_SCANS:
        raise PictureError(f"This JPEG is drawn in more than {MAX_SCANS} passes: save it as a plain one.")
    tiles = 0
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        with suppress(Exception), Image.open(io.BytesIO(content), formats=["TIFF"]) as picture:
            tiles = len(picture.tile)  # where it cannot be told, `open_picture` says what is wrong
    if tiles > MAX_TILES:
        raise PictureError(f"This TIFF is cut into more than {MAX_TILES} pieces: save it as a PNG.")


def limit_memory() -> None:
    """No more than ROOM from here on, where the system can promise it (Linux)."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)
    except (ImportError, OSError, ValueError):
        pass  # the limit of pixels and that of time remain


def answer(content: bytes, largest: int) -> tuple[int, int, bytes]:
    """(width, height, RGB bytes), or (0, 0, why not)."""
    try:
        check_passes(content)
        picture = open_picture(io.BytesIO(content), largest)
        return *picture.size, picture.tobytes()
    except PictureError as error:
        short = isinstance(error.__cause__, MemoryError | OSError) and needs_room(content)
        return 0, 0, (NEEDED if short else str(error)).encode()
    except MemoryError:
        return 0, 0, NEEDED.encode()


def needs_room(content: bytes) -> bool:
    """Whether it may be memory that its decoder lacked: some say no more than that they cannot go on."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            return picture.width * picture.height * 8 > ROOM
    except Exception:
        return False


def serve(jobs: BinaryIO, replies: BinaryIO) -> None:
    """Decode one file after the other, until nobody asks any more."""
    Image.init()
    limit_memory()
    if hasattr(os, "nice"):  # who looks at a picture comes before who brings the next one
        os.nice(NICE)
    # not on Windows, where the asking process alone takes the time
    timer = getattr(signal, "setitimer", None)
    while len(head := jobs.read(JOB.size)) == JOB.size:
        seconds, largest, length = JOB.unpack(head)
        content = jobs.read(length)
        if timer:  # of processor time: a busy machine makes nobody's picture too heavy
            timer(signal.ITIMER_PROF, seconds)
        width, height, said = answer(content, largest)
        if timer:
            timer(signal.ITIMER_PROF, 0)
        replies.write(REPLY.pack(width, height, len(said)) + said)
        replies.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)

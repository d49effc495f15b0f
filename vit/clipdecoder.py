"""Any clip, a video or an animated picture, as frames of RGB, with OpenCV, Pillow and NumPy alone.

So it also starts as a process of its own, with limits of time and memory, for what strangers upload
(`vit.clips.open_clip_safely`): arguments (file, most frames, most pixels a side), on its output one line of
JSON, {"size": [width, height], "times": [...]} or {"error": sentence}, then the bytes of the frames.
"""

import json
import mmap
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageSequence

MAX_SECONDS, MAX_FRAMES = 600.0, 20_000  # of a file, before frames are left out
MAX_SIDE = 8192  # pixels
ROOM = 2**30  # bytes that the process may take beyond what it has at its start
PROCESSOR_SECONDS = 20
NICE = 10
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
STILL = (b"avif", b"heic", b"heix", b"heim", b"heis", b"avci", b"mif1", b"mif2", b"crx ")  # brands of `ftyp`
BROKEN = "This clip is damaged, cut short or of a kind that cannot be read: save it as MP4, WebM or GIF."
DAMAGED = "This clip is damaged or cut short: none of its pictures can be read; save or copy it once more."
TOO_LONG = f"This clip is too long: cut it to at most {MAX_SECONDS / 60:.0f} minutes."
TOO_LARGE = f"The frames of this clip are larger than {MAX_SIDE} pixels: make them smaller."
NO_VIDEO = "There is no video in this file: choose an MP4, WebM or GIF with pictures in it."
# where a file names the codec of its pictures: MP4 and QuickTime, Matroska and WebM, AVI
CODEC = re.compile(
    rb"hdlr.{8}vide.{,1000}?stsd.{12}(.{4})|\x86[\x80-\xff](V_[A-Z0-9/]+)|strh.{4}vids(.{4})", re.DOTALL
)
SOUND = re.compile(rb"hdlr.{8}soun|\x86[\x80-\xff]A_[A-Z]|strh.{4}auds", re.DOTALL)
CODECS = {"AV01": "AV1", "AV1": "AV1", "HEV1": "H.265 (HEVC)", "HVC1": "H.265 (HEVC)"}
CODECS |= {"MPEGH/ISO/HEVC": "H.265 (HEVC)", "VVC1": "H.266 (VVC)", "VVI1": "H.266 (VVC)"}
READ = {"AVC1", "AVC3", "H264", "MPEG4/ISO/AVC", "VP08", "VP8", "VP80", "VP09", "VP9", "VP90", "MP4V"}
TOO_MUCH = "This clip takes too much time or memory to decode: make it shorter or smaller."


class ClipError(ValueError):
    """A clip cannot be used; the message says why, in one sentence and without paths."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames in order, and when each of them was."""

    frames: np.ndarray  # (F, height, width, 3) uint8
    times: tuple[float, ...]  # (F,) seconds from the start


def is_clip(path: str | Path) -> bool:
    """Does the file begin as a video or an animated picture does? Nothing is decoded."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    moving_webp = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2 > 0
    mp4 = head[4:8] == b"ftyp" and head[8:12] not in STILL
    video = mp4 or head[:4] == b"\x1a\x45\xdf\xa3" or head[8:12] == b"AVI "
    moving_png = head[:8] == b"\x89PNG\r\n\x1a\n" and b"acTL" in head
    return moving_webp or video or moving_png or head[:4] == b"GIF8"


def open_clip(path: str | Path, most: int, largest: int = 512) -> Clip:
    """At most so many frames, evenly over the whole of a file, their longer side at most `largest` pixels.

    Raises ClipError for what is too long, too large, broken or without any picture.
    """
    with open(path, "rb") as file:
        head = file.read(16)
    animated = head[:4] == b"GIF8" or head[:8] == b"\x89PNG\r\n\x1a\n" or head[8:12] in (b"WEBP", b"avis")
    try:
        return (animation if animated else video)(str(path), most, largest)
    except ClipError:
        raise
    except MemoryError as error:
        raise ClipError("This clip takes too much memory: make it smaller or shorter.") from error
    except Exception as error:  # whatever decoders make of garbage
        raise ClipError(BROKEN) from error


def middles(count: int, parts: int) -> list[int]:
    """Which of so many frames is in the middle of each of so many equal parts of them."""
    return [int((i + 0.5) * count / parts) for i in range(parts)]


def chosen(count: int, most: int) -> list[int]:
    """Which of so many frames are kept, where there may be `most`: evenly, each of them once."""
    return middles(count, min(count, most))


def check(width: int, height: int, count: float, seconds: float) -> None:
    """Raises ClipError for what would take too long."""
    if seconds > MAX_SECONDS or count > MAX_FRAMES:
        raise ClipError(TOO_LONG)
    if max(width, height) > MAX_SIDE:
        raise ClipError(TOO_LARGE)


def animation(path: str, most: int, largest: int) -> Clip:
    """`open_clip` of a GIF, WebP, PNG or AVIF."""
    with Image.open(path, formats=ANIMATED) as picture:
        count, now, frames, times = getattr(picture, "n_frames", 1), 0.0, [], []
        check(*picture.size, count, 0)
        wanted = set(chosen(count, most))
        for index, frame in enumerate(ImageSequence.Iterator(picture)):
            if index in wanted:
                clear = frame.convert("RGBA")
                white = Image.new("RGBA", clear.size, "white")
                frames.append(shrunk(np.asarray(Image.alpha_composite(white, clear).convert("RGB")), largest))
                times.append(now)
            now += float(frame.info.get("duration", 100) or 100) / 1000
    return Clip(np.stack(frames), tuple(times))


def video(path: str, most: int, largest: int) -> Clip:
    """`open_clip` of a video."""
    reader = cv2.VideoCapture(path)
    try:
        if not reader.isOpened():
            raise ClipError(why_unread(path))
        rate = reader.get(cv2.CAP_PROP_FPS)
        rate = rate if 0.1 <= rate <= 1000 else 25.0
        told = reader.get(cv2.CAP_PROP_FRAME_COUNT)
        width, height = (reader.get(each) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        check(int(width), int(height), told, told / rate)
        count = int(told) if told > 0 else 0
        if count <= 0:  # a stream that does not say: all of it is walked through first
            while count <= MAX_FRAMES and reader.grab():
                count += 1
            check(0, 0, count, count / rate)
            reader.release()
            reader = cv2.VideoCapture(path)
        frames, times = walk(reader, set(chosen(count, most)) if count else set(), rate, largest)
    finally:
        reader.release()
    if not frames:
        raise ClipError(why_unread(path))
    return Clip(np.stack(frames), tuple(times))


def why_unread(path: str) -> str:
    """Of a video of which no frame could be decoded: what its pictures are encoded as, and what to do."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        codes = [*filter(None, found.groups())] if (found := CODEC.search(content)) else []
        sound = SOUND.search(content) is not None
    if not codes:
        return NO_VIDEO if sound else BROKEN
    code = codes[0].decode("ascii", "replace").removeprefix("V_").strip().upper()
    if code in READ:
        return DAMAGED
    if not code.isascii() or not code.isprintable():
        return BROKEN
    how = "encrypted" if code == "ENCV" else f"encoded as {CODECS.get(code, code)}"
    advice = "save it as MP4 (H.264), WebM (VP9) or GIF."
    return f"The pictures of this clip are {how} and cannot be decoded here: {advice}"


def walk(
    reader: cv2.VideoCapture, wanted: set[int], rate: float, largest: int
) -> tuple[list[np.ndarray], list[float]]:
    """The wanted frames as RGB, and their times; what the file does not have after all is left out."""
    frames, times = [], []
    for index in range(max(wanted, default=-1) + 1):
        if not reader.grab():
            break
        if index in wanted:
            read, frame = reader.retrieve()
            if read:
                frames.append(shrunk(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), largest))
                times.append(index / rate)
    return frames, times


def shrunk(frame: np.ndarray, largest: int) -> np.ndarray:
    """The frame with its longer side at most `largest` pixels."""
    height, width = frame.shape[:2]
    scale = largest / max(height, width)
    if scale >= 1:
        return frame
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def limit() -> None:
    """Bounds of memory and processor time from here on, and a small claim to the processor, where the system
    can promise them."""
    if hasattr(os, "nice"):  # long work: whatever else there is comes first
        os.nice(NICE)
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))


def main(path: str, most: int, largest: int) -> None:
    cv2.setNumThreads(1)
    limit()
    try:
        clip = open_clip(path, most, largest)
    except (ClipError, OSError) as error:
        said = str(error) if isinstance(error, ClipError) else BROKEN
        print(json.dumps({"error": said}), flush=True)
        return
    height, width = clip.frames.shape[1:3]
    print(json.dumps({"size": [width, height], "times": clip.times}), flush=True)
    sys.stdout.buffer.write(clip.frames.tobytes())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Figures and films as the bytes of files."""

import io
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from explorer.render.colours import COLORMAPS, DEFAULT
from explorer.render.letters import choose_fonts

SVG = threading.Lock()  # how text is written is a setting of the whole process


def picture_of(figure: Figure, dpi: int = 150) -> np.ndarray:
    """Draw a figure into a picture (height, width, 3)."""
    choose_fonts(figure)
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(drawing: Figure | np.ndarray, dpi: int = 150) -> bytes:
    picture = picture_of(drawing, dpi) if isinstance(drawing, Figure) else drawing
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def svg(figure: Figure) -> bytes:
    """Vector lines and text that can be searched and edited; patches stay pixels, sharp at any size."""
    choose_fonts(figure, number=False)
    file = io.BytesIO()
    with SVG, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # its reader may have one
        before = matplotlib.rcParams["svg.fonttype"]
        matplotlib.rcParams["svg.fonttype"] = "none"
        try:
            figure.savefig(file, format="svg", metadata={"Date": None})
        finally:
            matplotlib.rcParams["svg.fonttype"] = before
    return file.getvalue()


def gif(frames: Sequence[np.ndarray], fps: float = 2, colormap: str = DEFAULT) -> bytes:
    """Equally large pictures as a looping film that a slide or README plays.

    A GIF has 256 colours: 52 are the colour table's, so that the legend stays true, 16 are greys for
    letters, the others are those that the frames need most. One palette for all frames, so that what
    stands still stays still.
    """
    seen = np.concatenate([frame[::3, ::3].reshape(1, -1, 3) for frame in frames], axis=1)
    common = Image.fromarray(seen).quantize(188).getpalette() or []
    reserved = np.concatenate([COLORMAPS[colormap][::5], COLORMAPS["gray"][::17]])
    palette = Image.new("P", (1, 1))
    palette.putpalette([*reserved.ravel().tolist(), *common[: 188 * 3]])
    images = [Image.fromarray(x).quantize(palette=palette, dither=Image.Dither.NONE) for x in frames]
    file = io.BytesIO()
    duration = round(1000 / fps)
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return file.getvalue()


def mp4(path: Path, frames: Sequence[np.ndarray], fps: float = 2) -> None:
    """The same as a video. VP9, because browsers play it and OpenCV's wheels carry no H.264."""
    height, width = (side + side % 2 for side in frames[0].shape[:2])  # what video can hold
    code = cv2.VideoWriter.fourcc(*"vp09")
    video = cv2.VideoWriter(str(path), code, fps, (width, height))
    if not video.isOpened():
        raise OSError("this OpenCV cannot write VP9 video, so write a .gif instead")
    for frame in frames:
        even = np.pad(frame, [(0, height - len(frame)), (0, width - frame.shape[1]), (0, 0)], "edge")
        video.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
    video.release()

"""Maps on pictures: a *map* is (h, w) floats, one per patch, a *picture* (height, width, 3) uint8."""

import cv2
import numpy as np

from explorer.render.colours import COLORMAPS
from explorer.render.scales import Scale, scale_for

OPACITY = 0.9  # of full colour over its picture


def resize_map(values: np.ndarray, height: int, width: int, smooth: bool = False) -> np.ndarray:
    """A map (h, w) at the picture's size. By patch (the truth) unless `smooth`, which draws cubic
    hills between patch centres that the model never computed: say so wherever it is shown."""
    mode = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST_EXACT
    return cv2.resize(np.asarray(values, np.float32), (width, height), interpolation=mode)


def enlarge(picture: np.ndarray, side: int = 448) -> np.ndarray:
    """Repeat every pixel until the longer side has at least `side`: small pictures stay honest."""
    times = -(-side // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def paint(
    values: np.ndarray, scale: Scale, colormap: str | None = None, opacity: float = OPACITY
) -> tuple[np.ndarray, np.ndarray]:
    """The one rule of a map (h, w) over a picture, here, on the pages and in the viewer: colours (h, w, 3)
    uint8, the nearest of the table, and how much they cover (h, w, 1), `opacity` times the share of full
    colour, or of the distance from zero where the map has a sign."""
    place = scale(values)
    strength = np.abs(2 * place - 1) if scale.signed else place
    table = COLORMAPS[colormap or scale.colormap]
    return table[np.floor(place * 255 + 0.5).astype(np.uint8)], opacity * strength[..., None]


def overlay(
    picture: np.ndarray,
    values: np.ndarray,
    *,
    scale: Scale | None = None,
    colormap: str | None = None,
    opacity: float = OPACITY,
    smooth: bool = False,
    grid: bool = False,
    query: tuple[int, int] | None = None,
) -> np.ndarray:
    """Lay a map (h, w) over its picture; the colour covers more where the value is larger.

    Args:
        scale: what full colour stands for; the map's own maximum if not given.
        opacity: how much a full value covers; half a value covers half as much.
        smooth: interpolate between patch centres instead of filling whole patches.
        grid: draw the lines between patches.
        query: (row, column) of the patch to frame.
    """
    height, width = picture.shape[:2]
    scale = scale or scale_for(values)
    colors, cover = paint(resize_map(values, height, width, smooth), scale, colormap, opacity)
    drawn = (picture * (1 - cover) + colors * cover).round().astype(np.uint8)
    if grid:
        drawn = draw_grid(drawn, values.shape)
    return drawn if query is None else draw_box(drawn, values.shape, query)


def draw_grid(picture: np.ndarray, grid_size: tuple[int, int]) -> np.ndarray:
    """The picture with the (h, w) patches' borders as thin half-transparent lines."""
    drawn = picture.copy()
    rows = [round(picture.shape[0] * i / grid_size[0]) for i in range(1, grid_size[0])]
    columns = [round(picture.shape[1] * i / grid_size[1]) for i in range(1, grid_size[1])]
    drawn[rows] = picture[rows] // 2 + 100
    drawn[:, columns] = picture[:, columns] // 2 + 100
    return drawn


def draw_box(picture: np.ndarray, grid_size: tuple[int, int], patch: tuple[int, int]) -> np.ndarray:
    """The picture with one patch framed, white on black: visible on any ground."""
    edges = [
        [round(side * (at + end) / count) for end in (0, 1)]
        for side, count, at in zip(picture.shape, grid_size, patch, strict=False)
    ]
    (top, bottom), (left, right) = edges
    line = max(1, max(picture.shape) // 224)
    drawn = picture.copy()
    for inset, color in ((0, (0, 0, 0)), (line, (255, 255, 255))):
        box = np.s_[top + inset : bottom - inset, left + inset : right - inset]
        frame = np.ones(drawn[box].shape[:2], bool)
        frame[line:-line, line:-line] = False
        drawn[box][frame] = color
    return drawn


def tile(pictures: np.ndarray, gap: int = 2, paper: int | tuple[int, ...] = 255) -> np.ndarray:
    """Pictures (R, C, height, width, 3) side by side, `gap` pixels of `paper` between them."""
    rows, columns, height, width, _ = pictures.shape
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    sheet = np.empty(shape, np.uint8)
    sheet[:] = paper
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = pictures[r, c]
    return sheet

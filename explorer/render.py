"""Arrays to pictures: colour tables, overlays, contact sheets, charts, films.  Never a model.

A *map* is (h, w) floats, one per patch; a *picture* is (height, width, 3) uint8; a chart is a
matplotlib `Figure` made without pyplot, so that many threads can draw at once.
L layers, H heads, T tokens, K classes, (h, w) patches.
"""

import io
import math
import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from PIL import Image

# --------------------------------------------------------------------------------------- colours

# Perceptually uniform: equal steps of a value look like equal steps. "viridis" and "cividis" stay
# readable for colour-blind eyes and in grey print. The last three are for maps with a sign: the
# middle is zero, blue (or green) below, red (or brown) above.
SEQUENTIAL = ("viridis", "cividis", "magma", "inferno", "gray")
DIVERGING = ("RdBu_r", "BrBG_r", "berlin")
DEFAULT, DEFAULT_SIGNED = "viridis", "RdBu_r"


def _table(name: str) -> np.ndarray:
    table = (matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round()
    table = table.astype(np.uint8)
    table.flags.writeable = False
    return table


COLORMAPS: dict[str, np.ndarray] = {name: _table(name) for name in SEQUENTIAL + DIVERGING}


@dataclass(frozen=True)
class Theme:
    """Colours of everything around the data. `series` are Okabe and Ito's, safe for all eyes."""

    paper: str
    ink: str
    muted: str
    faint: str
    series: tuple[str, ...]
    signs: tuple[str, str]  # for bars below and above zero, as in DEFAULT_SIGNED


THEMES = {
    "light": Theme(
        paper="#ffffff",
        ink="#1c1f24",
        muted="#5f6670",
        faint="#d9dce1",
        series=("#0072b2", "#d55e00", "#009e73", "#b5568f", "#b07a00", "#2b8fc7", "#6b4fbb"),
        signs=("#2166ac", "#b2182b"),
    ),
    "dark": Theme(
        paper="#14171c",
        ink="#eceef1",
        muted="#9aa2ad",
        faint="#363c45",
        series=("#56b4e9", "#ff8f4a", "#2fc79b", "#e39ac6", "#f0c840", "#9fd3f5", "#b3a1f2"),
        signs=("#6aaee6", "#f0806c"),
    ),
}

# ----------------------------------------------------------------------------------------- scales

SCALES = {  # what full colour stands for, as the legend says it
    "map": "own maximum",
    "layer": "maximum of the layer",
    "all": "maximum of all",
    "uniform": "× uniform",
}
UNIFORM_TOP = 8  # the "uniform" scale ends at eight times what a head that looks everywhere gives


@dataclass(frozen=True, eq=False)
class Scale:
    """From values to [0, 1], the place in a colour table. Never stretched to a minimum: zero stays
    zero, so a flat map looks flat. With a sign the table runs from -top to top."""

    top: np.ndarray  # broadcasts against the maps, (..., 1, 1)
    signed: bool
    words: str
    unit: float = 1.0  # what the legend counts in

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        part = maps / np.maximum(self.top, 1e-12)
        return np.clip((part + 1) / 2 if self.signed else part, 0, 1)

    def __getitem__(self, index: int | tuple[int, ...]) -> "Scale":
        """The scale of one map out of the stack that the scale was made for."""
        return replace(self, top=self.top[index])

    @property
    def colormap(self) -> str:
        return DEFAULT_SIGNED if self.signed else DEFAULT


def scale_for(maps: np.ndarray, name: str = "map", num_tokens: int | None = None) -> Scale:
    """The scale called `name` for a stack of maps (L, H, h, w), (H, h, w) or (h, w).

    "map": own maximum; "layer": maximum over the heads (the axis before h, w); "all": maximum over
    everything; "uniform": `UNIFORM_TOP` times 1 / num_tokens.
    """
    maps = np.asarray(maps)
    size = np.abs(maps)
    signed = bool((maps < 0).any())
    ones = np.ones((*maps.shape[:-2], 1, 1))
    if name == "uniform":
        if not num_tokens:
            raise ValueError('The "uniform" scale needs the number of tokens.')
        return Scale(ones * UNIFORM_TOP / num_tokens, signed, SCALES[name], 1 / num_tokens)
    over = {"map": 2, "layer": min(3, maps.ndim), "all": maps.ndim}[name]  # how many of the last axes
    top = size.max(axis=tuple(range(-over, 0)), keepdims=True)
    return Scale(ones * top, signed, SCALES[name])


def colorize(maps: np.ndarray, scale: Scale | None = None, colormap: str | None = None) -> np.ndarray:
    """Maps (..., h, w) to colours (..., h, w, 3) uint8, one pixel per patch."""
    scale = scale or scale_for(maps)
    return COLORMAPS[colormap or scale.colormap][(scale(maps) * 255).round().astype(np.uint8)]


# --------------------------------------------------------------------------------------- pictures


def resize_map(values: np.ndarray, height: int, width: int, smooth: bool = False) -> np.ndarray:
    """A map (h, w) at the picture's size. By patch (the truth) unless `smooth`, which draws cubic
    hills between patch centres that the model never computed: say so wherever it is shown."""
    mode = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST_EXACT
    return cv2.resize(np.asarray(values, np.float32), (width, height), interpolation=mode)


def enlarge(picture: np.ndarray, side: int = 448) -> np.ndarray:
    """Repeat every pixel until the longer side has at least `side`: small pictures stay honest."""
    times = -(-side // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def overlay(
    picture: np.ndarray,
    values: np.ndarray,
    *,
    scale: Scale | None = None,
    colormap: str | None = None,
    opacity: float = 0.9,
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
    place = scale(resize_map(values, height, width, smooth))  # (height, width) in [0, 1]
    strength = np.abs(2 * place - 1) if scale.signed else place
    cover = opacity * strength[..., None]
    colors = COLORMAPS[colormap or scale.colormap][(place * 255).round().astype(np.uint8)]
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


# ---------------------------------------------------------------------------------------- figures


def _figure(width: float, height: float, theme: str, into: SubFigure | None = None) -> Figure:
    """An empty figure in inches that no global list knows (unlike pyplot's): safe in any thread.
    Or the part of a larger one to draw `into`, which takes charts like a whole one."""
    if into is not None:
        return cast(Figure, into)
    figure = Figure(figsize=(width, height), facecolor=THEMES[theme].paper)
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.09)
    FigureCanvasAgg(figure)
    return figure


def board(
    charts: Sequence[Callable[[SubFigure], object]],
    *,
    columns: int = 2,
    title: str = "",
    caption: str = "",
    theme: str = "light",
) -> Figure:
    """Several charts on one sheet: each is given its own part to draw into."""
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    figure = _figure(5.8 * columns, 3.4 * rows + 0.4, theme)
    parts = figure.subfigures(rows, columns, squeeze=False)
    for part in parts.flat:
        part.set_facecolor(THEMES[theme].paper)
    for chart, part in zip(charts, parts.flat):
        chart(part)
    _titles(figure, title, caption, theme)
    return figure


def _plain(text: str) -> str:
    """Names are data: a dollar sign in one must not start a formula."""
    return text.replace("$", r"\$")


def _wrap(text: str, width: float) -> str:
    return "\n".join(textwrap.wrap(_plain(text), round(width)))


def _shorten(text: str, length: int = 18) -> str:
    return _plain(text if len(text) <= length else text[: length - 1] + "…")


def _style(axes: Axes, theme: str, *, lines: bool = False) -> Theme:
    """Quiet axes: no box, small muted ticks; `lines` adds faint horizontal help lines."""
    colors = THEMES[theme]
    axes.set_facecolor(colors.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(lines and side == "bottom")
        spine.set_color(colors.muted)
    axes.tick_params(colors=colors.muted, labelsize=8, length=0)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=colors.ink, size=9)
    if lines:
        axes.grid(axis="y", color=colors.faint, linewidth=0.7)
        axes.set_axisbelow(True)
    return colors


def _titles(figure: Figure, title: str, caption: str, theme: str) -> None:
    colors, inches = THEMES[theme], figure.bbox.width / figure.dpi
    if title:  # in letters of a usual width, 10 and 15 of them fill an inch
        figure.suptitle(_wrap(title, 10 * inches), color=colors.ink, size=11, weight="bold")
    if caption:
        figure.supxlabel(_wrap(caption, 15 * inches), color=colors.muted, size=8)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])


def _legend(
    axes: Axes,
    scale: Scale,
    colormap: str | None,
    theme: str,
    size: tuple[float, float],
    about: str = "",
) -> None:
    """A colour bar right under `axes`, which are `size` = (width, height) inches large, and what
    its ends stand for: with the number where all maps share it."""
    colors = THEMES[theme]
    bar = axes.inset_axes((0, -0.13 / size[1], 1, 0.08 / size[1]))
    _style(bar, theme)
    _show(bar, COLORMAPS[colormap or scale.colormap][None])
    bar.set_aspect("auto")
    tops = np.unique(np.asarray(scale.top).round(12))
    if len(tops) > 1:
        high = scale.words
    elif scale.unit != 1:
        high = f"≥ {tops[0] / scale.unit:.3g} {scale.words}"
    else:
        high = f"{scale.words} {tops[0]:.3g}".strip()
    low = "0" if not scale.signed else f"−{tops[0]:.3g}" if len(tops) == 1 else "negative"
    bar.set_xticks([-0.5, 255.5], [low, high])
    bar.tick_params(axis="x", pad=2)
    ends = bar.get_xticklabels()
    ends[0].set_horizontalalignment("left")
    ends[1].set_horizontalalignment("right")
    bar.set_xlabel(_plain(about), size=8, color=colors.muted, labelpad=-9)


def maps_figure(
    picture: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    scales: Mapping[str, Scale] | None = None,
    query: tuple[int, int] | None = None,
    without_query: Container[str] = (),
    colormap: str | None = None,
    smooth: bool = False,
    grid: bool = False,
    title: str = "",
    caption: str = "",
    theme: str = "light",
) -> Figure:
    """The picture, then every named map on it with its legend: one panel each, side by side.

    The query's patch is framed, except on maps named in `without_query`, which do not depend on it, and
    nowhere if none does.
    """
    height, width = picture.shape[:2]
    rows = -(-(len(maps) + 1) // 5)
    columns = -(-(len(maps) + 1) // rows)
    panel = 2.5 * height / width
    figure = _figure(2.55 * columns, rows * (panel + 0.6) + 0.3 * bool(title) + 0.2, theme)
    ground = enlarge(picture)
    for i, (name, values) in enumerate([("picture", None), *maps.items()]):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(_wrap(name, 30), size=9, color=THEMES[theme].ink)
        _style(axes, theme)
        if values is None:
            shape = next(iter(maps.values())).shape
            box = None if all(name in without_query for name in maps) else query
            _show(axes, ground if box is None else draw_box(ground, shape, box))
            continue
        scale = (scales or {}).get(name) or scale_for(values)
        box = None if name in without_query else query
        drawn = overlay(ground, values, scale=scale, colormap=colormap, smooth=smooth, grid=grid, query=box)
        _show(axes, drawn)
        _legend(axes, scale, colormap, theme, (2.5, panel), "smoothed" if smooth else "")
    _titles(figure, title, caption, theme)
    return figure


def sheet_figure(
    maps: np.ndarray,
    *,
    picture: np.ndarray | None = None,
    scale: Scale | None = None,
    query: tuple[int, int] | None = None,
    colormap: str | None = None,
    title: str = "",
    caption: str = "",
    theme: str = "light",
) -> Figure:
    """Every map of a model on one sheet: maps (L, H, h, w), layers down, heads across.

    With a `picture`, it stands on the left with the query framed.
    """
    depth, heads, h, w = maps.shape
    scale = scale or scale_for(maps, "all")
    times = max(1, 56 // max(h, w))
    tiles = colorize(maps, scale, colormap).repeat(times, axis=2).repeat(times, axis=3)
    gap = max(2, (h * times) // 14)
    paper = tuple(int(THEMES[theme].paper[i : i + 2], 16) for i in (1, 3, 5))
    sheet = tile(tiles, gap, paper)

    cell = min(0.7, 8 / max(depth, heads))  # inches per head
    sheet_size = max(1.2, cell * heads), cell * depth * h / w
    side = 0 if picture is None else min(2.6, max(1.8, sheet_size[1]))
    below = 0.3 if caption and picture is None else 0
    figure = _figure(max(4.0, sheet_size[0] + side + 0.6), max(side, sheet_size[1]) + 1.1 + below, theme)
    *left, right = figure.subplots(
        1,
        1 if picture is None else 2,
        squeeze=False,
        width_ratios=[sheet_size[0]] if picture is None else [side, sheet_size[0]],
    )[0]
    if picture is not None:
        (axes,) = left
        _style(axes, theme)
        ground = enlarge(picture)
        _show(axes, ground if query is None else draw_box(ground, (h, w), query))
        axes.set_anchor("N")
        axes.set_xlabel(_wrap(caption, 15 * side), size=8, color=THEMES[theme].muted, labelpad=8)
    _style(right, theme)
    _show(right, sheet)
    right.set_anchor("N")
    step_x, step_y = w * times + gap, h * times + gap
    skip = max(1, round(0.25 / cell))
    for axis, count, middle, step, letter in (
        (right.xaxis, heads, (w * times - 1) / 2, step_x, "H"),
        (right.yaxis, depth, (h * times - 1) / 2, step_y, "L"),
    ):
        shown = range(0, count, skip)
        axis.set_ticks([middle + step * i for i in shown], [f"{letter}{i}" for i in shown])
    right.xaxis.tick_top()
    _legend(right, scale, colormap, theme, sheet_size)
    _titles(figure, title, "" if left else caption, theme)
    return figure


def matrix_figure(
    attn: np.ndarray,
    grid_size: tuple[int, int],
    prefix_names: Sequence[str],
    *,
    colormap: str | None = None,
    title: str = "",
    theme: str = "light",
) -> Figure:
    """One head's attention (T, T), query down, key across; lines set off prefix tokens and the
    rows of the patch grid, so that local and column-wise heads show their pattern."""
    h, w = grid_size
    scale = scale_for(attn)
    figure = _figure(5, 5.4, theme)
    axes = figure.add_subplot()
    colors = _style(axes, theme)
    _show(axes, colorize(attn, scale, colormap))
    starts = [len(prefix_names) + w * i for i in range(h)]
    for start in starts[0 if prefix_names else 1 :]:
        axes.axhline(start - 0.5, color="white", linewidth=0.5, alpha=0.45)
        axes.axvline(start - 0.5, color="white", linewidth=0.5, alpha=0.45)
    shown = range(0, h, max(1, -(-h // 16)))
    ticks = [starts[i] + (w - 1) / 2 for i in shown]
    axes.set_xticks(ticks, [str(i) for i in shown])
    axes.set_yticks(ticks, [str(i) for i in shown])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("key: the token looked at, by row of patches")
    axes.set_ylabel("query: the token that looks, by row of patches")
    if prefix_names:  # too thin for a tick of its own: named at the corner
        axes.annotate(
            prefix_names[0] if len(prefix_names) == 1 else f"{len(prefix_names)} prefix",
            (-0.5, -0.5),
            (-4, 1),
            textcoords="offset points",
            annotation_clip=False,
            ha="right",
            va="bottom",
            size=7,
            color=colors.muted,
        )
    _legend(axes, scale, colormap, theme, (4.4, 4.4), "attention")
    _titles(figure, title, "", theme)
    return figure


def weights_figure(
    filters: np.ndarray, similarity: np.ndarray, *, title: str = "", theme: str = "light"
) -> Figure:
    """Filters (n, p, p, 3) in [0, 1] of the patch embedding on the left, the first explains most; on the
    right one small map per patch, or of a large grid every so-many-th: how alike its position is to every
    other's, (h, w, h, w)."""
    n, p = filters.shape[:2]
    h, w = similarity.shape[:2]
    columns = next(c for c in (7, 6, 5, 4, 3, 2, 1) if n >= c)
    rows = n // columns
    paper = tuple(bytes.fromhex(THEMES[theme].paper[1:]))
    shown = (filters[: rows * columns] * 255).round().astype(np.uint8).reshape(rows, columns, p, p, 3)
    times = max(1, 48 // p)
    shown = shown.repeat(times, axis=2).repeat(times, axis=3)
    scale = Scale(np.ones((1, 1, 1, 1)), signed=True, words="")
    step = math.ceil(max(h, w) / 16)
    maps = colorize(similarity[step // 2 :: step, step // 2 :: step], scale)
    left = 3.2 * rows / columns
    right = 3.8 * h / w
    figure = _figure(3.2 + 3.8 + 0.7, max(left, right) + 1.3, theme)
    first, second = figure.subplots(1, 2, width_ratios=[3.2, 3.8])
    _style(first, theme)
    _style(second, theme)
    _show(first, tile(shown, max(2, p * times // 12), paper))
    _show(second, tile(maps, 1, paper))
    second.images[0].set_interpolation("auto")  # a pixel here may be less than one of the figure
    first.set_anchor("N")
    second.set_anchor("N")
    first.set_title("what patches are compared with", size=9, color=THEMES[theme].ink)
    whose = "each patch's position" if step == 1 else f"the position of one patch in {step} × {step}"
    second.set_title(f"{whose}, compared with all others", size=9, color=THEMES[theme].ink)
    _legend(second, scale, None, theme, (3.8, right), "cosine")
    _titles(figure, title, "", theme)
    return figure


def number(value: float, decimals: int = 2, sign: str = "-") -> str:
    """A typeset number: a true minus, and no minus on zero (the `z`)."""
    return f"{value:{sign}z.{decimals}f}".replace("-", "−")


def _cells(
    axes: Axes,
    values: np.ndarray,
    scale: Scale,
    rows: Sequence[str],
    columns: Sequence[str],
    decimals: int | None,
    theme: str,
) -> None:
    """The coloured cells of a table, their names, and their numbers unless `decimals` is None."""
    _style(axes, theme)
    pixels = colorize(values, scale)
    _show(axes, pixels)
    axes.set_aspect("auto")
    axes.set_xticks(range(len(columns)), [_shorten(name) for name in columns], size=8)
    axes.set_yticks(range(len(rows)), [_shorten(name) for name in rows], size=8)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    if max(map(len, columns)) > 4:
        axes.tick_params(axis="x", rotation=90)
    if decimals is None:
        return
    for (r, c), value in np.ndenumerate(values):
        dark = pixels[r, c] @ (0.299, 0.587, 0.114) < 140
        color = "w" if dark else "k"
        axes.text(c, r, number(value, decimals), ha="center", va="center", size=6.5, color=color)


def heads_chart(
    values: np.ndarray,
    *,
    label: str,
    reference: float | None = None,
    title: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """One dot per head (L, H) over depth, their mean as a line, and a reference line without which
    the height of a dot means little (what a head that looks everywhere alike would score)."""
    depth, heads = values.shape
    figure = _figure(5.6, 3.3, theme, into)
    axes = figure.add_subplot()
    colors = _style(axes, theme, lines=True)
    layers = np.arange(depth)
    spread = np.linspace(-0.22, 0.22, heads) if heads > 1 else np.zeros(1)
    x = layers[:, None] + spread
    axes.scatter(x, np.sort(values), s=16, color=colors.series[0], alpha=0.75, lw=0, label="a head")
    axes.plot(layers, values.mean(1), color=colors.series[1], lw=1.8, label="mean of the layer")
    if reference is not None:
        axes.axhline(reference, color=colors.ink, lw=1, ls=(0, (4, 3)), label="uniform attention")
    axes.set(xlabel="layer", ylabel=label, xlim=(-0.5, depth - 0.5))
    axes.set_ylim(0, 1.08 * max(values.max(), reference or 0) or 1)
    axes.set_xticks(layers[:: max(1, depth // 12)])
    _key_above(axes, theme, ncols=3)
    _titles(figure, title, "", theme)
    return figure


def _key_above(axes: Axes, theme: str, ncols: int) -> None:
    """The key to lines and dots, where it hides none of them."""
    axes.legend(
        frameon=False,
        fontsize=8,
        labelcolor=THEMES[theme].ink,
        ncols=ncols,
        handlelength=1.6,
        borderaxespad=0.2,
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )


def _key_beside(axes: Axes, theme: str, title: str) -> None:
    """The same for many lines: one under the other, on the right."""
    key = axes.legend(
        title=title,
        title_fontsize=8,
        alignment="left",
        frameon=False,
        fontsize=8,
        labelcolor=THEMES[theme].ink,
        handlelength=1.6,
        loc="upper left",
        bbox_to_anchor=(1.05, 1.02),
    )
    key.get_title().set_color(THEMES[theme].muted)


def lens_chart(
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    top: int = 5,
    title: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """Logit lens: probabilities (L+1, K) read out after the embedding and after every block; the
    classes that matter most at some depth by name."""
    steps = len(probabilities)
    figure = _figure(6.4, 3.3, theme, into)
    axes = figure.add_subplot()
    colors = _style(axes, theme, lines=True)
    final = probabilities[-1]
    strongest = np.argsort(-probabilities.max(0) - (final == final.max()))[:top]  # the answer, and rivals
    order = strongest[np.argsort(-final[strongest])]
    for color, k in zip(colors.series, order, strict=False):
        share = f"{100 * final[k]:.0f}" if final[k] >= 0.01 else f"{100 * final[k]:.1g}"
        name = f"{_shorten(class_names[int(k)])}  {share} %"
        axes.plot(probabilities[:, k], color=color, lw=2.2 if k == order[0] else 1.3, label=name)
    most = float(probabilities.max())
    high = 1.0 if most > 0.5 else most  # of a thousand classes none may be likely
    axes.set(xlabel="read out after", ylabel="probability", ylim=(0, 1.02 * high), xlim=(0, steps - 1))
    skip = math.ceil(steps / 9)
    names = ["embed", *[f"L{i}" for i in range(steps - 1)]]
    axes.set_xticks(range(0, steps, skip), names[::skip])
    _key_beside(axes, theme, "probability at the end")
    _titles(figure, title, "", theme)
    return figure


def curves_chart(
    curves: Mapping[str, np.ndarray],
    *,
    fractions: np.ndarray,
    others: Sequence[np.ndarray] = (),
    random: np.ndarray | None = None,
    centre: np.ndarray | None = None,
    label: str = "patches hidden",
    better: str = "lower",
    title: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """Deletion or insertion: probability of the class (S,) at fractions (S,) of the patches.

    Args:
        curves: up to seven by name, in their order: so colours stay the same from chart to chart.
        others: more curves, faint and without a name.
        random: curves of random orders (R, S): the band holds all of them, the line is their mean.
        centre: the curve of "nearest to the centre first", which every map ought to beat.
        better: "lower" for deletion, "higher" for insertion.
    """
    figure = _figure(6.4, 3.5, theme, into)
    axes = figure.add_subplot()
    colors = _style(axes, theme, lines=True)
    faint: dict[str, Any] = {"color": colors.muted, "alpha": 0.45, "lw": 0.7}
    for curve in others:
        axes.plot(fractions, curve, **faint)
    for color, (name, curve) in zip(colors.series, curves.items()):
        text = f"{_shorten(name, 24)}  {np.trapezoid(curve, fractions):.3f}"
        axes.plot(fractions, curve, color=color, lw=1.6, label=text)
    if centre is not None:
        text = f"centre prior  {np.trapezoid(centre, fractions):.3f}"
        axes.plot(fractions, centre, color=colors.ink, lw=1.2, ls=(0, (4, 3)), label=text)
    if random is not None:
        mean = random.mean(0)
        axes.fill_between(fractions, random.min(0), random.max(0), color=colors.muted, alpha=0.22, lw=0)
        text = f"random orders  {np.trapezoid(mean, fractions):.3f}"
        axes.plot(fractions, mean, color=colors.muted, lw=1.2, ls=(0, (1, 1.5)), label=text)
    if others:
        axes.plot([], [], label=f"{len(others)} more", **faint)
    axes.set(xlabel=label, ylabel="probability of the class", xlim=(0, 1))
    axes.set_ylim(0, None)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _key_beside(axes, theme, f"area, {better} is better")
    _titles(figure, title, "", theme)
    return figure


def intervals_chart(
    names: Sequence[str],
    intervals: np.ndarray,
    *,
    label: str,
    reference: float | None = None,
    reference_label: str = "",
    marked: Sequence[bool] | None = None,
    title: str = "",
    theme: str = "light",
) -> Figure:
    """Means with their confidence intervals (N, 3): low, mean, high; one line each, in the given order.
    Only the `marked` ones are in colour, all if nothing is said."""
    figure = _figure(6.4, 0.24 * len(names) + 1.3, theme)
    axes = figure.add_subplot()
    colors = _style(axes, theme)
    low, mean, high = intervals.T
    for y in range(len(names)):
        color = colors.series[0] if marked is None or marked[y] else colors.muted
        axes.plot([low[y], high[y]], [y, y], color=color, lw=1.8)
        axes.plot(mean[y], y, "o", color=color, ms=4.5)
    if reference is not None:
        axes.axvline(reference, color=colors.ink, lw=1, ls=(0, (4, 3)), zorder=0)
        axes.annotate(
            f" {reference_label}",
            (reference, 1),
            xycoords=("data", "axes fraction"),
            size=8,
            color=colors.ink,
        )
    axes.grid(axis="x", color=colors.faint, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names], color=colors.ink)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    _titles(figure, title, "", theme)
    return figure


def similarity_chart(
    values: np.ndarray,
    names: Sequence[str],
    *,
    title: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """How alike (N, N) things are, 0 to 1, each by its name."""
    figure = _figure(4.6, 4.6, theme, into)
    axes = figure.add_subplot()
    scale = Scale(np.ones((1, 1)), signed=False, words="")
    skip = math.ceil(len(names) / 13)
    _cells(axes, values, scale, names, names, 2 if len(names) <= 9 else None, theme)
    axes.set_aspect("equal")
    axes.set_xticks(range(0, len(names), skip), [_shorten(name) for name in names[::skip]], size=8)
    axes.set_yticks(range(0, len(names), skip), [_shorten(name) for name in names[::skip]], size=8)
    _titles(figure, title, "", theme)
    return figure


def confusion_figure(
    counts: np.ndarray, class_names: Sequence[str], *, title: str = "", theme: str = "light"
) -> Figure:
    """Counts (K, K), true class down, answer across; colour is the share of the true class."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 0.5 if len(counts) <= 12 else max(0.08, 6 / len(counts))
    side = max(1.5, cell * len(counts))
    figure = _figure(side + 1.4, side + 1.9, theme)
    axes = figure.add_subplot()
    scale = Scale(np.ones((1, 1)), signed=False, words="")
    _cells(axes, share, scale, class_names, class_names, None, theme)
    if cell >= 0.45:
        for (r, c), count in np.ndenumerate(counts):
            if count:
                color = "k" if share[r, c] > 0.6 else "w"
                axes.text(c, r, f"{count:g}", ha="center", va="center", size=7.5, color=color)
    else:
        skip = -(-len(counts) // 40)
        names = [_shorten(name) for name in class_names]
        axes.set_xticks(range(0, len(counts), skip), names[::skip], size=6)
        axes.set_yticks(range(0, len(counts), skip), names[::skip], size=6)
    axes.set(xlabel="answer", ylabel="true class")
    _legend(axes, scale, None, theme, (side, side), "share of the true class")
    _titles(figure, title, "", theme)
    return figure


def history_chart(
    epochs: np.ndarray,
    losses: Mapping[str, np.ndarray],
    accuracies: Mapping[str, np.ndarray],
    *,
    title: str = "",
    theme: str = "light",
) -> Figure:
    """A training run: losses left, accuracies (0 to 1) right, with their last values."""
    figure = _figure(7.2, 3.1, theme)
    for axes, lines, label in zip(
        figure.subplots(1, 2), (losses, accuracies), ("loss", "accuracy"), strict=True
    ):
        colors = _style(axes, theme, lines=True)
        for color, (name, values) in zip(colors.series, lines.items(), strict=False):
            seen = np.flatnonzero(np.isfinite(values))  # not every row of a history has every figure
            if len(seen) == 0:
                continue
            x, y = np.asarray(epochs)[seen], np.asarray(values)[seen]
            last = f"{100 * y[-1]:.1f} %" if label == "accuracy" else f"{y[-1]:.3f}"
            axes.plot(x, y, color=color, lw=1.7, label=f"{_plain(name)}  {last}")
        axes.set(xlabel="epoch", ylabel=label)
        if label == "accuracy":
            axes.set_ylim(0, 1.0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        else:
            axes.set_ylim(0, None)
        if lines:
            _key_above(axes, theme, ncols=2)
    _titles(figure, title, "", theme)
    return figure


def ledger_figure(
    heads: np.ndarray,
    mlps: np.ndarray,
    rest: Mapping[str, float],
    *,
    title: str = "",
    theme: str = "light",
) -> Figure:
    """What every part gave to one logit: heads (L, H) and MLPs (L,) as signed cells, and on the
    right the running total, from `rest` (embedding, bias, ...) through the layers to the logit."""
    depth, count = heads.shape
    values = np.concatenate([heads, mlps[:, None]], axis=1)  # (L, H + 1)
    cell = min(0.52, max(0.2, 6 / max(depth, count + 1)))
    size = max(1.8, cell * (count + 1)), max(2.2, cell * depth)
    figure = _figure(size[0] + 3.5, size[1] + 1.1, theme)
    table, chart = figure.subplots(1, 2, width_ratios=[size[0], 2.6])
    colors = _style(chart, theme)
    scale = Scale(np.abs(values).max(keepdims=True), signed=True, words="")
    layers = [f"L{i}" for i in range(depth)]
    columns = [*(f"H{i}" for i in range(count)), "MLP"]
    _cells(table, values, scale, layers, columns, 2 if cell >= 0.34 else None, theme)
    table.axvline(count - 0.5, color=colors.paper, linewidth=4)
    _legend(table, scale, None, theme, size, "given to the logit")

    steps = np.concatenate([[sum(rest.values())], values.sum(1)])  # (L + 1,)
    totals = steps.cumsum()
    bars = np.where(steps < 0, *colors.signs)
    chart.barh(range(depth + 1), steps, left=totals - steps, color=list(bars), height=0.62)
    chart.axvline(0, color=colors.muted, lw=0.8)
    chart.axvline(totals[-1], color=colors.ink, lw=1, ls=(0, (4, 3)))
    chart.set_ylim(depth + 0.5, -0.5)
    chart.set_yticks(range(depth + 1), ["start", *layers])
    chart.set_title(f"running total to {number(totals[-1])}", size=9, color=colors.ink)
    parts = ", ".join(f"{_plain(name)} {number(part, sign='+')}" for name, part in rest.items())
    chart.set_xlabel(f"start: {parts}", size=8, color=colors.muted)
    _titles(figure, title, "", theme)
    return figure


def heads_table(
    values: np.ndarray,
    *,
    about: str = "",
    title: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """One signed cell per head (L, H)."""
    depth, count = values.shape
    cell = min(0.52, max(0.2, 6 / max(depth, count)))
    size = max(1.8, cell * count), max(2.2, cell * depth)
    figure = _figure(size[0] + 1, size[1] + 1.3, theme, into)
    axes = figure.add_subplot()
    scale = Scale(np.abs(values).max(keepdims=True), signed=True, words="")
    names = [f"L{i}" for i in range(depth)], [f"H{i}" for i in range(count)]
    _cells(axes, values, scale, *names, 2 if cell >= 0.34 else None, theme)
    _legend(axes, scale, None, theme, size, about)
    _titles(figure, title, "", theme)
    return figure


# ------------------------------------------------------------------------------------ files' bytes


def picture_of(figure: Figure, dpi: int = 150) -> np.ndarray:
    """Draw a figure into a picture (height, width, 3)."""
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
    """Vector lines and letters; patches stay pixels, drawn sharp at any size."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
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

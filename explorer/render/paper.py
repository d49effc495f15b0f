"""What every figure is drawn on: sheets of paper, axes, titles, keys, colour bars."""

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import SupportsFloat, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from explorer.render.colours import COLORMAPS, THEMES, Theme
from explorer.render.scales import Scale, colorize


def new_figure(width: float, height: float, theme: str, into: SubFigure | None = None) -> Figure:
    """An empty figure in inches that no global list knows (unlike pyplot's): safe in any thread.
    Or the part of a larger one to draw `into`, which takes charts like a whole one."""
    if into is not None:
        return cast(Figure, into)
    figure = Figure(figsize=(width, height), facecolor=THEMES[theme].paper)
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.09)
    FigureCanvasAgg(figure)
    return figure


def board(
    charts: Sequence[Callable[..., object]],
    *,
    columns: int = 2,
    title: str = "",
    caption: str = "",
    theme: str = "light",
) -> Figure:
    """Several charts on one sheet: each is called with the part to draw `into`."""
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    figure = new_figure(5.8 * columns, 3.4 * rows + 0.4, theme)
    parts = figure.subfigures(rows, columns, squeeze=False)
    for part in parts.flat:
        part.set_facecolor(THEMES[theme].paper)
    for chart, part in zip(charts, parts.flat):
        chart(into=part)
    add_titles(figure, title, caption, theme)
    return figure


def plain(text: str) -> str:
    """Names are data: a dollar sign in one must not start a formula, and bytes that were no UTF-8 are �."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text).replace("$", r"\$")


def wrap(text: str, width: float) -> str:
    return "\n".join(textwrap.wrap(plain(text), round(width)))


def shorten(text: str, length: int = 18) -> str:
    return plain(text if len(text) <= length else text[: length - 1] + "…")


def style_axes(axes: Axes, theme: str, *, lines: bool = False) -> Theme:
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


def add_titles(figure: Figure, title: str, caption: str, theme: str) -> None:
    colors, inches = THEMES[theme], figure.bbox.width / figure.dpi
    if title:  # in letters of a usual width, 10 and 15 of them fill an inch
        figure.suptitle(wrap(title, 10 * inches), color=colors.ink, size=11, weight="bold")
    if caption:
        figure.supxlabel(wrap(caption, 15 * inches), color=colors.muted, size=8)


def show_picture(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])


def add_legend(
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
    style_axes(bar, theme)
    show_picture(bar, COLORMAPS[colormap or scale.colormap][None])
    bar.set_aspect("auto")
    tops = np.unique(np.asarray(scale.top).round(12))
    if len(tops) > 1:
        high = scale.words
    elif scale.unit != 1:
        high = f"≥ {tops[0] / scale.unit:.3g} {scale.words}"
    else:
        high = f"{scale.words} {tops[0]:.3g}".strip()
    low = "0" if not scale.signed else number(-tops[0], ".3g") if len(tops) == 1 else "negative"
    bar.set_xticks([-0.5, 255.5], [low, high])
    bar.tick_params(axis="x", pad=2)
    ends = bar.get_xticklabels()
    ends[0].set_horizontalalignment("left")
    ends[1].set_horizontalalignment("right")
    bar.set_xlabel(plain(about), size=8, color=colors.muted, labelpad=-9)


def key_above(axes: Axes, theme: str, ncols: int) -> None:
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


def key_beside(axes: Axes, theme: str, title: str) -> None:
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


def number(value: SupportsFloat, form: str = ".2f") -> str:
    """A number as people read it, in one of `format`'s forms: a true minus, and none on zero (the `z`)."""
    sign = "+" if form.startswith("+") else "-"
    return format(float(value), f"{sign}z{form.removeprefix('+')}").replace("-", "−")


def percent(share: float) -> str:
    """0.1234 -> 12 %, 0.01234 -> 1.2 %, 0.001234 -> 0.12 %: as viewer/js/numbers.js writes it."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    return f"{value:.{0 if value >= 9.95 else 1 if value >= 0.995 else 2}f} %"


def draw_cells(
    axes: Axes,
    values: np.ndarray,
    scale: Scale,
    rows: Sequence[str],
    columns: Sequence[str],
    decimals: int | None,
    theme: str,
    step: int = 1,
) -> None:
    """The coloured cells of a table, the name of every `step`-th row and column, and their numbers unless
    `decimals` is None."""
    style_axes(axes, theme)
    pixels = colorize(values, scale)
    show_picture(axes, pixels)
    axes.set_aspect("auto")
    size = 8 if step == 1 else 6
    axes.set_xticks(range(0, len(columns), step), [shorten(name) for name in columns[::step]], size=size)
    axes.set_yticks(range(0, len(rows), step), [shorten(name) for name in rows[::step]], size=size)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    if max(map(len, columns)) > 4:
        axes.tick_params(axis="x", rotation=90)
    if decimals is None:
        return
    for (r, c), value in np.ndenumerate(values):
        dark = pixels[r, c] @ (0.299, 0.587, 0.114) < 140
        color = "w" if dark else "k"
        axes.text(c, r, number(value, f".{decimals}f"), ha="center", va="center", size=6.5, color=color)

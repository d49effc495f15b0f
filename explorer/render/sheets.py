"""Figures of maps and tables: panels, contact sheets, matrices, coloured cells.

L layers, H heads, T tokens, K classes, (h, w) patches.
"""

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import Normal, Stroke

from explorer.render.colours import COLORMAPS, DEFAULT, THEMES
from explorer.render.paper import (
    add_legend,
    add_titles,
    draw_cells,
    new_figure,
    number,
    plain,
    shorten,
    show_picture,
    style_axes,
    wrap,
)
from explorer.render.pictures import draw_box, enlarge, overlay, tile
from explorer.render.scales import Scale, colorize, scale_for


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
    figure = new_figure(2.55 * columns, rows * (panel + 0.6) + 0.3 * bool(title) + 0.2, theme)
    ground = enlarge(picture)
    for i, (name, values) in enumerate([("picture", None), *maps.items()]):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(wrap(name, 30), size=9, color=THEMES[theme].ink)
        style_axes(axes, theme)
        if values is None:
            shape = next(iter(maps.values())).shape
            box = None if all(name in without_query for name in maps) else query
            show_picture(axes, ground if box is None else draw_box(ground, shape, box))
            continue
        scale = (scales or {}).get(name) or scale_for(values)
        box = None if name in without_query else query
        drawn = overlay(ground, values, scale=scale, colormap=colormap, smooth=smooth, grid=grid, query=box)
        show_picture(axes, drawn)
        add_legend(axes, scale, colormap, theme, (2.5, panel), "smoothed" if smooth else "")
    add_titles(figure, title, caption, theme)
    return figure


def matches_figure(
    pictures: tuple[np.ndarray, np.ndarray],
    lines: np.ndarray,
    cosine: np.ndarray,
    colours: tuple[np.ndarray, np.ndarray],
    *,
    title: str = "",
    caption: str = "",
    theme: str = "light",
) -> Figure:
    """Two pictures side by side with lines (n, 4), from row and column of a patch of the first to those of
    one of the second, coloured by their cosine (n,); under them what both are in colours (h, w, 3)."""
    sides = [picture.shape[0] / picture.shape[1] for picture in pictures]
    figure = new_figure(6.4, 2 * 3.1 * max(sides) + 1.2, theme)
    axes = figure.subplots(2, 2)
    for column, (picture, painted) in enumerate(zip(pictures, colours)):
        for row, shown in enumerate((enlarge(picture), painted)):
            style_axes(axes[row, column], theme)
            show_picture(axes[row, column], shown)
            axes[row, column].set_anchor("N")
    low = min(0.0, float(cosine.min())) if len(cosine) else 0.0
    table = COLORMAPS[DEFAULT] / 255
    for line, value in zip(lines, cosine):
        color = table[round(255 * min(1.0, (float(value) - low) / (1 - low)))]
        ends = [
            ((column + 0.5) / w * shown.shape[1] - 0.5, (row + 0.5) / h * shown.shape[0] - 0.5)
            for (row, column), (h, w), shown in zip(
                (line[:2], line[2:]), (each.shape[:2] for each in colours), map(enlarge, pictures)
            )
        ]
        shade = [Stroke(linewidth=2.2, foreground="#000000", alpha=0.5), Normal()]
        between: dict[str, Any] = {
            "axesA": axes[0, 0],
            "axesB": axes[0, 1],
            "color": color,
            "path_effects": shade,
        }
        figure.add_artist(ConnectionPatch(ends[0], ends[1], "data", "data", lw=1.1, **between))
    add_titles(figure, title, caption, theme)
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
    figure = new_figure(max(4.0, sheet_size[0] + side + 0.6), max(side, sheet_size[1]) + 1.1 + below, theme)
    *left, right = figure.subplots(
        1,
        1 if picture is None else 2,
        squeeze=False,
        width_ratios=[sheet_size[0]] if picture is None else [side, sheet_size[0]],
    )[0]
    if picture is not None:
        (axes,) = left
        style_axes(axes, theme)
        ground = enlarge(picture)
        show_picture(axes, ground if query is None else draw_box(ground, (h, w), query))
        axes.set_anchor("N")
        axes.set_xlabel(wrap(caption, 15 * side), size=8, color=THEMES[theme].muted, labelpad=8)
    style_axes(right, theme)
    show_picture(right, sheet)
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
    add_legend(right, scale, colormap, theme, sheet_size)
    add_titles(figure, title, "" if left else caption, theme)
    return figure


def matrix_figure(
    attn: np.ndarray,
    grid_size: tuple[int, ...],
    prefix_names: Sequence[str],
    *,
    colormap: str | None = None,
    title: str = "",
    theme: str = "light",
) -> Figure:
    """One head's attention (T, T), query down, key across; lines set off prefix tokens and the
    rows of the patch grid, so that local and column-wise heads show their pattern."""
    *_, w = grid_size
    h = math.prod(grid_size) // w  # of a clip the rows of all frames
    scale = scale_for(attn)
    figure = new_figure(5, 5.4, theme)
    axes = figure.add_subplot()
    colors = style_axes(axes, theme)
    show_picture(axes, colorize(attn, scale, colormap))
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
    add_legend(axes, scale, colormap, theme, (4.4, 4.4), "attention")
    add_titles(figure, title, "", theme)
    return figure


def weights_figure(
    filters: np.ndarray,
    similarity: np.ndarray,
    *,
    others: str = "all others",
    title: str = "",
    theme: str = "light",
) -> Figure:
    """Filters (n, p, p, 3) in [0, 1] of the patch embedding on the left, the first explains most; those of
    clips are (n, p, tubelet · p, 3). On the right one small map per patch, or of a large grid every
    so-many-th: how alike its position is to every other's, (h, w, h, w). others: who these are, in words."""
    n, p, across = filters.shape[:3]
    h, w = similarity.shape[:2]
    columns = max(1, min(n, 7 * p // across))
    rows = n // columns
    paper = tuple(bytes.fromhex(THEMES[theme].paper[1:]))
    shown = (filters[: rows * columns] * 255).round().astype(np.uint8).reshape(rows, columns, p, across, 3)
    times = max(1, 48 // p)
    shown = shown.repeat(times, axis=2).repeat(times, axis=3)
    scale = Scale(np.ones((1, 1, 1, 1)), signed=True, words="")
    step = math.ceil(max(h, w) / 16)
    maps = colorize(similarity[step // 2 :: step, step // 2 :: step], scale)
    left = 3.2 * rows * p / (columns * across)
    right = 3.8 * h / w
    figure = new_figure(3.2 + 3.8 + 0.7, max(left, right) + 1.3, theme)
    first, second = figure.subplots(1, 2, width_ratios=[3.2, 3.8])
    style_axes(first, theme)
    style_axes(second, theme)
    show_picture(first, tile(shown, max(2, p * times // 12), paper))
    show_picture(second, tile(maps, 1, paper))
    second.images[0].set_interpolation("auto")  # a pixel here may be less than one of the figure
    first.set_anchor("N")
    second.set_anchor("N")
    first.set_title("what patches are compared with", size=9, color=THEMES[theme].ink)
    whose = "each patch's position" if step == 1 else f"the position of one patch in {step} × {step}"
    second.set_title(f"{whose}, compared with {others}", size=9, color=THEMES[theme].ink)
    add_legend(second, scale, None, theme, (3.8, right), "cosine")
    add_titles(figure, title, "", theme)
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
    figure = new_figure(4.6, 4.6, theme, into)
    axes = figure.add_subplot()
    scale = Scale(np.ones((1, 1)), signed=False, words="")
    skip = math.ceil(len(names) / 13)
    draw_cells(axes, values, scale, names, names, 2 if len(names) <= 9 else None, theme)
    axes.set_aspect("equal")
    axes.set_xticks(range(0, len(names), skip), [shorten(name) for name in names[::skip]], size=8)
    axes.set_yticks(range(0, len(names), skip), [shorten(name) for name in names[::skip]], size=8)
    add_titles(figure, title, "", theme)
    return figure


MOST_CELLS = 600  # a side of a confusion matrix: more are no longer seen, and would fill the memory


def confusion_figure(
    counts: np.ndarray, class_names: Sequence[str], *, title: str = "", theme: str = "light"
) -> Figure:
    """Counts (K, K), true class down, answer across; colour is the share of the true class. Of very many
    classes several that follow each other share a cell."""
    together = -(-len(counts) // MOST_CELLS)
    starts = np.arange(0, len(counts), together)
    counts = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
    names = [class_names[int(i)] + ("…" if together > 1 else "") for i in starts]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 0.5 if len(counts) <= 12 else min(max(0.08, 6 / len(counts)), 12 / len(counts))
    side = max(1.5, cell * len(counts))
    figure = new_figure(side + 1.4, side + 1.9, theme)
    axes = figure.add_subplot()
    scale = Scale(np.ones((1, 1)), signed=False, words="")
    draw_cells(axes, share, scale, names, names, None, theme, -(-len(counts) // 40))
    if cell >= 0.45:
        for (r, c), count in np.ndenumerate(counts):
            if count:
                color = "k" if share[r, c] > 0.6 else "w"
                axes.text(c, r, f"{count:g}", ha="center", va="center", size=7.5, color=color)
    axes.set(xlabel="answer", ylabel="true class")
    about = f", {together} classes to a cell" if together > 1 else ""
    add_legend(axes, scale, None, theme, (side, side), f"share of the true class{about}")
    add_titles(figure, title, "", theme)
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
    figure = new_figure(size[0] + 3.5, size[1] + 1.1, theme)
    table, chart = figure.subplots(1, 2, width_ratios=[size[0], 2.6])
    colors = style_axes(chart, theme)
    scale = Scale(np.abs(values).max(keepdims=True), signed=True, words="")
    layers = [f"L{i}" for i in range(depth)]
    columns = [*(f"H{i}" for i in range(count)), "MLP"]
    draw_cells(table, values, scale, layers, columns, 2 if cell >= 0.34 else None, theme)
    table.axvline(count - 0.5, color=colors.paper, linewidth=4)
    add_legend(table, scale, None, theme, size, "given to the logit")

    steps = np.concatenate([[sum(rest.values())], values.sum(1)])  # (L + 1,)
    totals = steps.cumsum()
    bars = np.where(steps < 0, *colors.signs)
    chart.barh(range(depth + 1), steps, left=totals - steps, color=list(bars), height=0.62)
    chart.axvline(0, color=colors.muted, lw=0.8)
    chart.axvline(totals[-1], color=colors.ink, lw=1, ls=(0, (4, 3)))
    chart.set_ylim(depth + 0.5, -0.5)
    chart.set_yticks(range(depth + 1), ["start", *layers])
    chart.set_title(f"running total to {number(totals[-1])}", size=9, color=colors.ink)
    parts = ", ".join(f"{plain(name)} {number(part, '+.2f')}" for name, part in rest.items())
    chart.set_xlabel(f"start: {parts}", size=8, color=colors.muted)
    add_titles(figure, title, "", theme)
    return figure


def heads_table(
    values: np.ndarray,
    *,
    about: str = "",
    title: str = "",
    caption: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """One signed cell per head (L, H)."""
    depth, count = values.shape
    cell = min(0.52, max(0.2, 6 / max(depth, count)))
    size = max(1.8, cell * count), max(2.2, cell * depth)
    below = 0.5 if caption else 0
    figure = new_figure(max(size[0] + 1, 4.2 if caption else 0), size[1] + 1.3 + below, theme, into)
    axes = figure.add_subplot()
    scale = Scale(np.abs(values).max(keepdims=True), signed=True, words="")
    names = [f"L{i}" for i in range(depth)], [f"H{i}" for i in range(count)]
    draw_cells(axes, values, scale, *names, 2 if cell >= 0.34 else None, theme)
    add_legend(axes, scale, None, theme, size, about)
    add_titles(figure, title, caption, theme)
    return figure

"""The small pieces that views share: bars, charts, cells, maps on a picture. Numbers in, HTML out.

L layers, H heads, (h, w) patches.  Everything is plain HTML and SVG in the theme's colours, so that light and
dark are one.  Text from outside (class names, file names) is escaped where it becomes HTML.

An element with `data-layer` and `data-head` is shown large in the viewer by a click
(page.js); one with `data-tip` says its value while the pointer is on it.
"""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explorer.render import COLORMAPS, DEFAULT, DEFAULT_SIGNED, Scale, number, paint
from vit.grid import Grid

WIDTH, HEIGHT = 360, 220  # of a chart, in its own units: about one phone
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 10, 32  # margins


def note(text: str) -> str:
    """A paragraph beside a figure."""
    return f'<p class="vx-note">{escape(text)}</p>'


def file_row(label: str, called: str, addresses: Mapping[str, str]) -> str:
    """A result to take home, with a link for each kind of file: ending -> address. Whatever the name holds, a
    disk can keep it."""
    stem, anchors = re.sub(r'[\s<>:"/\\|?*]+', "-", called), []
    for ending, address in addresses.items():
        kind, name = ending[1:].upper(), escape(stem + ending)
        anchors.append(f'<a href="{address}" download="{name}" aria-label="{label} as {kind}">{kind}</a>')
    return f"<li><span>{label}</span>{' '.join(anchors)}</li>"


def panel(title: str, body: str, words: str = "") -> str:
    """A figure with its title and the words that say how to read it."""
    about = f'<p class="vx-words">{escape(words)}</p>' if words else ""
    return f'<section class="vx-panel"><h3>{escape(title)}</h3>{body}{about}</section>'


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover [low, high]."""
    span = (high - low) or 1.0
    step = 10 ** np.floor(np.log10(span / count))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if span / (step * m) <= count + 0.5)
    first = np.ceil(low / step - 1e-9) * step
    return [float(round(x, 10)) + 0.0 for x in np.arange(first, high + step * 1e-6, step)]


def every_nth(count: int, at_most: int = 12) -> list[float]:
    """0, 1, 2 ... below count, or every second, third ... where there are too many."""
    return [float(i) for i in range(0, count, -(-count // at_most))]


def label(x: float) -> str:
    return number(x, ",.0f" if float(x).is_integer() and abs(x) < 1e6 else ".4g")


def axes(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_title: str,
    y_title: str,
    *,
    x_ticks: Sequence[float] | None = None,
    log: bool = False,
    height: int = HEIGHT,
):
    """(place, svg): `place(x, y)` puts a value on the chart; svg draws the rest. log: of x, from 1."""
    (x0, x1), (y0, y1) = x_range, y_range
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)
    low, high = (math.log1p(x0), math.log1p(x1)) if log else (x0, x1)
    if log:
        x_ticks = [10**k for k in range(12) if x0 <= 10**k <= x1]

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = ((math.log1p(x) if log else x) - low) / (high - low), (y - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), height - BOTTOM - up * (height - TOP - BOTTOM)

    parts = []
    for value in ticks(y0, y1):
        _, y = place(x0, value)
        parts.append(f'<line class="vx-grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label(value)}</text>')
    for value in x_ticks if x_ticks is not None else ticks(x0, x1, 6):
        x, _ = place(value, y0)
        parts.append(
            f'<text x="{x:.1f}" y="{height - BOTTOM + 14}" text-anchor="middle">{label(value)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{height - 3}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 3}" text-anchor="start">{escape(y_title)}</text>')
    return place, "".join(parts)


def svg(body: str, name: str, height: int = HEIGHT) -> str:
    box = f"0 -8 {WIDTH} {height + 8}"
    return f'<svg class="vx-chart" viewBox="{box}" role="img" aria-label="{escape(name)}">{body}</svg>'


def legend(names: Sequence[str]) -> str:
    items = "".join(f'<span class="vx-s{i}">{escape(name)}</span>' for i, name in enumerate(names))
    return f'<div class="vx-legend">{items}</div>'


def dots(
    values: np.ndarray, y_title: str, *, unit: str = "", line: float | None = None, line_name: str = ""
) -> str:
    """One dot per head (L, H) over the layers, with the mean of each layer; a click shows the head."""
    layers, heads = values.shape
    top = max(float(values.max()), line or 0.0) * 1.08
    place, body = axes((-0.5, layers - 0.5), (0, top), "layer", y_title, x_ticks=every_nth(layers))
    name = ""
    if line is not None:
        (x, y), (right, _) = place(-0.5, line), place(layers - 0.5, line)
        body += f'<line class="vx-rule" x1="{x:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        name = (
            f'<text class="vx-rule-name" x="{right - 2:.1f}" y="{y - 4:.1f}" text-anchor="end">'
            f"{escape(line_name)}</text>"
        )
    means = [place(layer, float(values[layer].mean())) for layer in range(layers)]
    body += f'<polyline class="vx-mean" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in means)}"/>'
    spread = min(0.5, 0.06 * heads)
    for layer in range(layers):
        for head in range(heads):
            x, y = place(layer + spread * ((head + 0.5) / heads - 0.5), float(values[layer, head]))
            tip = f"L{layer}.H{head}: {label(float(values[layer, head]))}{unit}"
            body += (
                f'<circle class="vx-dot" cx="{x:.1f}" cy="{y:.1f}" r="3.4"'
                f' data-layer="{layer}" data-head="{head}"'
                f' data-tip="{escape(tip)}"/>'
            )
    picture = svg(body + name, f"{y_title}, one dot per head over {layers} layers")  # a dot hides no letter
    words = [[f"{label(float(value))}{unit}" for value in row] for row in values]
    names = [f"L{i}" for i in range(layers)], [f"H{i}" for i in range(heads)]
    return picture + in_numbers(words, *names, links=heads)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_title: str,
    y_title: str,
    *,
    y_range: tuple[float, float] | None = None,
    key: str | None = None,
    x_ticks: Sequence[float] | None = None,
    marks: Sequence[float] | None = None,
    log: bool = False,
    height: int = HEIGHT,
) -> str:
    """Curves by name, each (xs, ys).

    key: the points carry `data-<key>` with their x. marks: points only there.
    """
    shown = {
        name: (np.asarray(xs, float), np.asarray(ys, float)) for name, (xs, ys) in series.items() if len(xs)
    }
    if not shown:
        return note("Nothing to draw yet.")
    xs, ys = (np.concatenate([pair[i] for pair in shown.values()]) for i in (0, 1))
    low, high = y_range or (min(0.0, float(ys.min())), max(0.0, float(ys.max()) * 1.05))
    x_range = (float(xs.min()), float(xs.max()))
    place, body = axes(x_range, (low, high), x_title, y_title, x_ticks=x_ticks, log=log, height=height)
    for i, (name, (xs, ys)) in enumerate(shown.items()):
        points = [place(x, y) for x, y in zip(xs, ys)]
        body += (
            f'<polyline class="vx-line vx-s{i}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        )
        for (x, y), at, value in zip(points, xs, ys):
            if marks is not None and at not in marks:
                continue
            mark = f' data-{key}="{at:g}"' if key else ""
            tip = escape(f"{name}, {x_title} {label(at)}: {number(value, '.4g')}")
            body += (
                f'<circle class="vx-point vx-s{i}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"{mark} data-tip="{tip}"/>'
            )
    picture = svg(body, f"{y_title} over {x_title}: {', '.join(shown)}", height) + legend(list(shown))
    first = next(iter(shown.values()))[0]
    if not all(np.array_equal(xs, first) for xs, _ in shown.values()):
        return picture
    at = [i for i, x in enumerate(first) if marks is None or x in marks]
    words = [[number(ys[i], ".4g") for _, ys in shown.values()] for i in at]
    return picture + in_numbers(words, [label(first[i]) for i in at], list(shown))


def color(share: float, signed: bool = False) -> str:
    place = math.floor(min(max(share, 0), 1) * 255 + 0.5)
    red, green, blue = COLORMAPS[DEFAULT_SIGNED if signed else DEFAULT][place]
    return f"rgb({red},{green},{blue})"


def cells(
    values: np.ndarray,
    *,
    rows: str = "L",
    columns: str = "H",
    signed: bool = False,
    unit: str = "",
    links: bool = True,
    extra: Mapping[str, np.ndarray] | None = None,
) -> str:
    """A matrix as coloured cells. links: it is (L, H), and a cell shows its head in the viewer.

    extra: further columns by name, (rows,) each, on the same scale; what exceeds it gets its last colour.
    What is not a number is grey and says so.
    """
    extra = extra or {}
    everything = np.concatenate([values, *(column[:, None] for column in extra.values())], axis=1)
    top = float(np.nanmax(np.abs(values))) or 1.0
    low, high = np.nanmin(everything), np.nanmax(everything)
    height, width = everything.shape
    heads = [f"{columns}{i}" for i in range(values.shape[1])] + list(extra)
    row_names = [f"{rows}{i}" for i in range(height)]
    body, said = [], []
    for i in range(height):
        body.append(f'<span class="vx-cell-row">{row_names[i]}</span>')
        said.append([""] * width)
        for j in range(width):
            value = float(everything[i, j])
            share = 0.5 + value / top / 2 if signed else value / top
            linked = links and j < values.shape[1]
            where = f"{row_names[i]}{'.' if linked else ', '}{heads[j]}"
            words = number(value, "+.3g" if signed else ".3g") + unit
            look, words = ("", "undefined") if math.isnan(value) else (color(share, signed), words)
            said[i][j] = words
            tip = escape(f"{where}: {words}")
            link = f' data-layer="{i}" data-head="{j}"' if linked else ""
            body.append(f'<i style="background:{look}"{link} data-tip="{tip}"></i>')
    top_row = "".join(f"<span>{escape(name)}</span>" for name in heads)
    return (
        f'<div class="vx-cells" style="--columns:{width}" role="img"'
        f' aria-label="{height} by {width} values, from {number(low, ".3g")} to {number(high, ".3g")}">'
        f"<span></span>{top_row}{''.join(body)}</div>"
        + in_numbers(said, row_names, heads, links=values.shape[1] if links else 0)
    )


def in_numbers(
    words: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str], *, links: int = 0
) -> str:
    """The numbers of a picture for those who do not point at it: a table that opens on demand, in which the
    first `links` columns are buttons that show a layer's head in the viewer."""

    def cell(i: int, j: int) -> str:
        text, name = escape(words[i][j]), f"{rows[i]}.{columns[j]}: {words[i][j]}"
        if j >= links:
            return f"<td class=vx-num>{text}</td>"
        where = f'data-layer="{i}" data-head="{j}" aria-label="{escape(name)}"'
        return f'<td class=vx-num><button type="button" {where}>{text}</button></td>'

    head = "".join(f"<th class=vx-num>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(cell(i, j) for j in range(len(columns)))}</tr>"
        for i, name in enumerate(rows)
    )
    return (
        '<details class="vx-more"><summary>In numbers</summary><div class="vx-table"><table>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def scale(low: str = "0", high: str = "largest", *, signed: bool = False) -> str:
    """What the colours mean."""
    low, high = ("against", "for") if signed else (low, high)
    stops = ", ".join(color(i / 8, signed) for i in range(9))
    return (
        f'<div class="vx-scale">{low}<i style="background:linear-gradient(90deg, {stops})"></i>{high}</div>'
    )


def matrix(values: Tensor, groups: Sequence[str]) -> str:
    """A large square matrix in [0, 1] as a picture; rows and columns fall into named groups of equal size."""
    table = COLORMAPS[DEFAULT][(np.asarray(values).clip(0, 1) * 255).astype(np.uint8)]
    names = "".join(f"<span>{escape(name)}</span>" for name in groups)
    picture = data_url(Image.fromarray(table))
    size = f"{len(values)} by {len(values)} values"
    return f'<div class="vx-matrix"><div>{names}</div><img src="{picture}" alt="{size}"></div>'


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def map_png(values: Tensor | np.ndarray, signed: bool = False, top: float | None = None) -> str:
    """A map (h, w) as a data URL, one pixel per patch: colour says how much, and so does opacity. top: what
    full colour stands for; the map's own maximum by default."""
    grid = np.asarray(values, dtype=np.float32)
    full = np.abs(grid).max(keepdims=True) if top is None else np.full((1, 1), top, np.float32)
    colours, cover = paint(grid, Scale(full, signed, ""))
    pixels = np.dstack([colours, (cover * 255).round().astype(np.uint8)])
    return data_url(Image.fromarray(pixels))


def picture_map(
    picture: str,
    values: Tensor | np.ndarray,
    caption: str,
    *,
    signed: bool = False,
    method: str = "",
    top: float | None = None,
) -> str:
    """A map over its picture (an address), with a caption in HTML; a clip's (t, h, w) over its frames side by
    side. method: a click shows it large. top: as in `map_png`."""
    values = torch.as_tensor(values)
    *time, row, column = np.unravel_index(int(values.argmax()), values.shape)
    words = f"strongest at the patch in row {row}, column {column}" + "".join(f", time {t}" for t in time)
    values = Grid.side_by_side(values) if time else values
    height, width = values.shape
    place = f"aspect-ratio: {width} / {height}"  # which it keeps before it has come: patches are square
    over = f'<img class="vx-over" src="{map_png(values, signed, top)}" alt="{words}">'
    link = f' data-method="{escape(method)}" tabindex="0" role="button"' if method else ""
    return (
        f'<figure class="vx-map"{link}><div style="{place}">'
        f'<img src="{escape(picture)}" alt="">{over}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of text; columns named in `numbers` are set flush right."""
    head = "".join(
        f"<th{' class=vx-num' if i in numbers else ''}>{escape(c)}</th>" for i, c in enumerate(columns)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=vx-num' if i in numbers else ''}>{escape(c)}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="vx-table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

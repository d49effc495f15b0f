"""Charts: dots, curves and intervals, each with the reference that its figures are read against.

L layers, H heads, K classes, S steps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from explorer.render.paper import (
    add_titles,
    key_above,
    key_beside,
    new_figure,
    number,
    percent,
    plain,
    shorten,
    style_axes,
)


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
    figure = new_figure(5.6, 3.3, theme, into)
    axes = figure.add_subplot()
    colors = style_axes(axes, theme, lines=True)
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
    key_above(axes, theme, ncols=3)
    add_titles(figure, title, "", theme)
    return figure


def lens_chart(
    values: np.ndarray,
    class_names: Sequence[str],
    *,
    value_name: str = "probability",
    top: int = 5,
    title: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """Logit lens: what is said of each class (L+1, K) after the embedding and after every block; the
    classes that matter most at some depth by name. value_name: what is said, "probability" or another word.
    """
    steps, share = len(values), value_name == "probability"
    figure = new_figure(6.4, 3.3, theme, into)
    axes = figure.add_subplot()
    colors = style_axes(axes, theme, lines=True)
    final = values[-1]
    answer, rivals = final.argmax(), np.argsort(-values.max(0))
    strongest = np.array([answer, *rivals[rivals != answer]])[:top]
    order = strongest[np.argsort(-final[strongest], kind="stable")]
    for color, k in zip(colors.series, order, strict=False):
        said = percent(final[k]) if share else number(final[k], ".4g")
        name = f"{shorten(class_names[int(k)])}  {said}"
        axes.plot(values[:, k], color=color, lw=2.2 if k == order[0] else 1.3, label=name)
    axes.set(xlabel="read out after", ylabel=value_name, xlim=(0, steps - 1))
    if share:
        most = float(values.max())
        axes.set_ylim(0, 1.02 * (1.0 if most > 0.5 else most))  # of a thousand classes none may be likely
    skip = math.ceil(steps / 9)
    names = ["embed", *[f"L{i}" for i in range(steps - 1)]]
    axes.set_xticks(range(0, steps, skip), names[::skip])
    key_beside(axes, theme, f"{value_name} at the end")
    add_titles(figure, title, "", theme)
    return figure


def curves_chart(
    curves: Mapping[str, np.ndarray],
    *,
    fractions: np.ndarray,
    others: Sequence[np.ndarray] = (),
    random: np.ndarray | None = None,
    control: np.ndarray | None = None,
    control_name: str = "",
    label: str = "patches hidden",
    better: str = "lower",
    value_name: str = "probability",
    title: str = "",
    theme: str = "light",
    into: SubFigure | None = None,
) -> Figure:
    """Deletion or insertion: probability of the class (S,), or its value, at fractions (S,) of the patches.

    Args:
        curves: up to seven by name, in their order: so colours stay the same from chart to chart.
        others: more curves, faint and without a name.
        random: curves of random orders (R, S): the band holds all of them, the line is their mean.
        control: the curve of a map that never saw the model, which every map ought to beat.
        better: "lower" for deletion, "higher" for insertion.
    """
    figure = new_figure(6.4, 3.5, theme, into)
    axes = figure.add_subplot()
    colors = style_axes(axes, theme, lines=True)
    faint: dict[str, Any] = {"color": colors.muted, "alpha": 0.45, "lw": 0.7}
    for curve in others:
        axes.plot(fractions, curve, **faint)
    for color, (name, curve) in zip(colors.series, curves.items()):
        text = f"{shorten(name, 24)}  {np.trapezoid(curve, fractions):.3f}"
        axes.plot(fractions, curve, color=color, lw=1.6, label=text)
    if control is not None:
        text = f"{control_name}  {np.trapezoid(control, fractions):.3f}"
        axes.plot(fractions, control, color=colors.ink, lw=1.2, ls=(0, (4, 3)), label=text)
    if random is not None:
        mean = random.mean(0)
        axes.fill_between(fractions, random.min(0), random.max(0), color=colors.muted, alpha=0.22, lw=0)
        text = f"random orders  {np.trapezoid(mean, fractions):.3f}"
        axes.plot(fractions, mean, color=colors.muted, lw=1.2, ls=(0, (1, 1.5)), label=text)
    if others:
        axes.plot([], [], label=f"{len(others)} more", **faint)
    axes.set(xlabel=label, ylabel=f"{value_name} of the class", xlim=(0, 1))
    if value_name == "probability":
        axes.set_ylim(0, None)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    key_beside(axes, theme, f"area, {better} is better")
    add_titles(figure, title, "", theme)
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
    figure = new_figure(6.4, 0.24 * len(names) + 1.3, theme)
    axes = figure.add_subplot()
    colors = style_axes(axes, theme)
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
    axes.set_yticks(range(len(names)), [plain(name) for name in names], color=colors.ink)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    add_titles(figure, title, "", theme)
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
    figure = new_figure(7.2, 3.1, theme)
    for axes, lines, label in zip(
        figure.subplots(1, 2), (losses, accuracies), ("loss", "accuracy"), strict=True
    ):
        colors = style_axes(axes, theme, lines=True)
        for color, (name, values) in zip(colors.series, lines.items(), strict=False):
            seen = np.flatnonzero(np.isfinite(values))  # not every row of a history has every figure
            if len(seen) == 0:
                continue
            x, y = np.asarray(epochs)[seen], np.asarray(values)[seen]
            last = f"{100 * y[-1]:.1f} %" if label == "accuracy" else f"{y[-1]:.3f}"
            axes.plot(x, y, color=color, lw=1.7, label=f"{plain(name)}  {last}")
        axes.set(xlabel="epoch", ylabel=label)
        if label == "accuracy":
            axes.set_ylim(0, 1.0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        else:
            axes.set_ylim(0, None)
        if lines:
            key_above(axes, theme, ncols=2)
    add_titles(figure, title, "", theme)
    return figure

"""Films to take home: maps of one picture through depth or training, of a clip through time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from explorer import render
from explorer.forms import Export, ExportError, either
from explorer.methods import METHODS
from explorer.stats import frame_matches
from explorer.subject import PLAIN, Style, Subject, map_title, what_was_asked

FAINT = 0.25  # of full colour: a frame whose maximum is weaker is hardly seen


def film(
    subject: Subject,
    methods: Sequence[str] = ("attention",),
    *,
    query: int | None = None,
    head: int | None = None,
    target: int | None = None,
    style: Style = PLAIN,
    fps: float = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Play through depth: the maps of each layer in turn, all frames on one scale per method, where each is
    seen on it."""
    for name in methods:
        if "layer" not in METHODS[name].options:
            able = [other for other in METHODS if "layer" in METHODS[other].options]
            raise ExportError(f"{METHODS[name].label} has no layers to play through: take {either(able)}.")
    depth = len(subject.trace.tokens) - 1
    options = {"query": query, "head": head, "target": target}
    moments = [(f"L{i}, layer {i + 1} of {depth}", subject, options | {"layer": i}) for i in range(depth)]
    return _film(moments, methods, style, fps, progress, film_scale)


def training_film(
    moments: Sequence[tuple[str, Subject]],
    methods: Sequence[str] = ("attention",),
    *,
    query: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    target: int | None = None,
    style: Style = PLAIN,
    fps: float = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Play through training: the same picture in front of every snapshot, each (its title, the subject)."""
    options = {"query": query, "layer": layer, "head": head, "target": target}
    asked = [(title, subject, options) for title, subject in moments]
    return _film(asked, methods, style, fps, progress, shared_scale)


def clip_film(
    subject: Subject,
    methods: Sequence[str] = ("attention",),
    *,
    query: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    target: int | None = None,
    style: Style = PLAIN,
    fps: float = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Play through time what a model of clips made of one: its maps frame by frame, all on one scale."""
    options = {"query": query, "layer": layer, "head": head, "target": target}
    frames = subject.trace.grid.frames
    asked = [(f"time {i}, {i + 1} of {frames}", subject, options) for i in range(frames)]
    return _film(asked, methods, style, fps, progress, shared_scale, through_time=True)


def followed_film(
    moments: Sequence[tuple[float, Subject]],
    methods: Sequence[str] = ("attention",),
    *,
    query: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    target: int | None = None,
    style: Style = PLAIN,
    fps: float = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Play through time what a model of pictures made of each frame of a clip, (seconds, the subject): all on
    one scale. A query of the first frame is followed to the most similar patch of each later one."""
    first = moments[0][1].trace
    prefix = first.num_prefix_tokens
    found = [query] * len(moments)
    if query is not None and query >= prefix:
        tokens = torch.stack([one.trace.tokens[-1, prefix:] for _, one in moments])  # (F, P, D)
        found = [prefix + int(patch) for patch in frame_matches(tokens)[0, :, query - prefix]]
    options: dict[str, int | None] = {"layer": layer, "head": head, "target": target}
    asked = [
        (f"time {i}, {seconds:.2f} s", subject, options | {"query": found[i]})
        for i, (seconds, subject) in enumerate(moments)
    ]
    return _film(asked, methods, style, fps, progress, shared_scale)


def shared_scale(frames: np.ndarray) -> render.Scale:
    """One scale for all frames (N, h, w): the maximum of all."""
    return replace(render.scale_for(frames[:, None], "all"), words="")


def film_scale(frames: np.ndarray) -> render.Scale:
    """One scale for all frames (N, h, w); each frame's own maximum, as its legend then says, where a frame
    would look empty beside the strongest."""
    tops = np.abs(frames).max(axis=(1, 2))
    faint = tops.min() < FAINT * tops.max()
    return render.scale_for(frames[:, None], "map") if faint else shared_scale(frames)


def _film(
    moments: Sequence[tuple[str, Subject, Mapping[str, int | None]]],
    methods: Sequence[str],
    style: Style,
    fps: float,
    progress: Callable[[int, int], None] | None,
    scale_of: Callable[[np.ndarray], render.Scale],
    through_time: bool = False,
) -> Export:
    """One frame per moment, (title, subject, options of the methods). through_time: a moment is a frame of
    the clip that all have looked at."""
    if not methods or not moments or fps <= 0:
        raise ExportError("A film needs a method, a moment and a number of frames per second above 0.")

    @cache
    def frames() -> list[np.ndarray]:
        stacks, most = {}, 1 if through_time else len(moments)  # a clip's maps are made once for all frames
        for name in methods:
            drawn = [METHODS[name](s.trace, model=s.model, **options) for _, s, options in moments[:most]]
            stacks[name] = drawn[0].numpy() if through_time else moments[0][1].sheet(torch.stack(drawn))
        scales = {name: scale_of(values) for name, values in stacks.items()}
        pictures = []
        for i, (title, subject, options) in enumerate(moments):
            titles = {
                name: map_title(name, subject.trace, options["layer"], options["head"]) for name in methods
            }
            asked = what_was_asked(subject, methods, options["query"], options["target"])
            of_query = subject.patch(options["query"])
            if through_time and of_query is not None:
                at, column = divmod(of_query[1], subject.trace.grid.space[1])
                of_query = (of_query[0], column) if at == i else None
            figure = render.maps_figure(
                subject.frame(i) if through_time else subject.picture,
                {titles[name]: values[i] for name, values in stacks.items()},
                scales={titles[name]: scale[i, 0] for name, scale in scales.items()},
                query=of_query,
                without_query={titles[name] for name in methods if "query" not in METHODS[name].options},
                title=title,
                caption="  ·  ".join([*asked, subject.answers(1)]),
                colormap=style.colormap,
                smooth=style.smooth,
                grid=style.lines,
                theme=style.theme,
            )
            pictures.append(render.picture_of(figure, dpi=110))
            if progress:
                progress(i + 1, len(moments))
        return pictures

    signed = any(METHODS[name].signed for name in methods)
    usual = render.DEFAULT_SIGNED if signed else render.DEFAULT
    return Export(frames=frames, fps=fps, colormap=style.colormap or usual)

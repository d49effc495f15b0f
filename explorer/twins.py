"""Files about two pictures: which patches match, and what is caused by what is carried from one to the other.

L layers, H heads, T tokens, P patches, (h, w) patch grid.
"""

from functools import cache, partial

import numpy as np
from matplotlib.figure import Figure

from explorer import pairs, render
from explorer import patching as patchings
from explorer.forms import Export, Rows
from explorer.patching import HEADS, MLP, STREAM, Patching
from explorer.subject import PLAIN, Style, Subject, readme
from vit.objective import Objective

COUNT = 40  # lines that are drawn, unless more are asked for
TITLES = {
    HEADS: "What a head's output carries over",
    STREAM: "What a token's residual stream carries over",
    MLP: "What the MLP adds to a token carries over",
}


def matched(
    a: Subject, b: Subject, *, layer: int = -1, count: int = COUNT, least: float = -1, style: Style = PLAIN
) -> Export:
    """Patches of two pictures that are each other's nearest after a layer: at most `count` of them, with a
    cosine of at least `least`, and the colours of one PCA for both. A CSV has one row per match; an NPZ
    pairs (M, 4), cosine (M,), similarity (P, P'), and pca_a, pca_b (L+1, h, w, 3)."""
    depth = layer % a.model.config.depth + 1

    @cache
    def found() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cosines = pairs.similarity(a.trace, b.trace, depth)
        matches = pairs.matches(cosines)
        kept = (matches.cosine >= least).nonzero()[:count, 0]
        ends = matches.pairs[kept]
        places = np.array([[*a.trace.grid.place(i), *b.trace.grid.place(j)] for i, j in ends.tolist()], int)
        return places.reshape(-1, 2 * len(a.trace.grid.shape)), matches.cosine[kept].numpy(), cosines.numpy()

    def figure() -> Figure:
        places, cosine, _ = found()
        ours, theirs = pairs.colours(a.trace, b.trace)
        least_drawn = (
            f", cosine from {render.number(cosine[-1])} to {render.number(cosine[0])}" if len(cosine) else ""
        )
        caption = (
            f"{a.card.name}, after layer {depth - 1}: {len(cosine)} pairs of patches that are each other's "
            f"nearest{least_drawn}. Below: the patches of both in one PCA, as colours."
        )
        return render.matches_figure(
            (a.picture, b.picture),
            places,
            cosine,
            (ours[depth], theirs[depth]),
            title=f"{a.name} and {b.name}",
            caption=caption,
            theme=style.theme,
        )

    def rows() -> Rows:
        names = ["row", "column", "other_row", "other_column"]
        places, cosine, _ = found()
        return [
            dict(zip(names, place)) | {"cosine": value}
            for place, value in zip(places.tolist(), cosine.tolist())
        ] or [dict.fromkeys([*names, "cosine"])]

    def arrays() -> dict[str, np.ndarray]:
        places, cosine, similarity = found()
        ours, theirs = pairs.shared_pca(a.trace, b.trace)
        about = (
            f"{b.name}, too, after layer {depth - 1}: pairs (M, 4), row and column of a patch of the first"
        )
        about += " and of the second; cosine (M,); similarity (P, P'); pca_a, pca_b (L+1, h, w, 3), one basis"
        parts = {"pairs": places, "cosine": cosine, "similarity": similarity}
        return parts | {"pca_a": ours.numpy(), "pca_b": theirs.numpy()} | readme(a, about)

    return Export(figure=figure, arrays=arrays, rows=rows)


def patched(
    source: Subject,
    receiver: Subject,
    *,
    what: str = HEADS,
    token: int | None = None,
    objective: Objective | None = None,
    style: Style = PLAIN,
    progress: patchings.Progress | None = None,
    known: Patching | None = None,
) -> Export:
    """Activation patching from one picture into the other (`explorer.patching`); known: if it was made
    before. A CSV has one row per layer and head or token; an NPZ effects (L, H) or (L, T), together (L,), and
    y of both runs."""

    @cache
    def made() -> Patching:
        if known is not None:
            return known
        run = partial(patchings.patching, token=token, objective=objective, progress=progress)
        return run(source.trace, receiver.trace, source.model, what)

    def words() -> str:
        where = "" if token is None else f" at {source.token_name(token)}"
        return (
            f"{source.card.name}: carried from {source.name} ({source.answers(1)}) into {receiver.name} "
            f"({receiver.answers(1)}){where}. Effect: the change of the {made().asked(source.card)}; "
            f"0 is {receiver.name}'s ({render.number(made().receiver)}), "
            f"1 is {source.name}'s ({render.number(made().source)})."
        )

    def figure() -> Figure:
        found, title = made(), TITLES[what]
        if what == HEADS:
            return render.heads_table(
                found.effects.numpy(), about="effect", title=title, caption=words(), theme=style.theme
            )
        maps, before = found.maps().numpy(), found.effects[:, : len(found.prefix_names)]
        scale = render.Scale(np.abs(maps).max().reshape(1, 1), signed=True, words="")
        drawn, scales = {}, {}
        for layer, values in enumerate(maps):
            parts = zip(found.prefix_names, before[layer].tolist())
            prefix = ", ".join(f"{name} {render.number(x, '+.2f')}" for name, x in parts)
            name = f"L{layer}" + (f": {prefix}" if prefix else "")
            drawn[name], scales[name] = values, scale
        return render.maps_figure(
            receiver.picture, drawn, scales=scales, without_query=set(drawn), title=title, caption=words(),
            colormap=style.colormap, smooth=style.smooth, grid=style.lines, theme=style.theme,
        )  # fmt: skip

    def arrays() -> dict[str, np.ndarray]:
        found = made()
        numbers = {"source": np.array(found.source), "receiver": np.array(found.receiver)}
        shape = "(L, H)" if what == HEADS else "(L, T)"
        about = f"{words()}\neffects {shape}: {patchings.WHAT[what]}; together (L,): all of a layer at once"
        parts = {"effects": found.effects.numpy(), "together": found.together.numpy()}
        return parts | numbers | readme(source, about)

    return Export(figure=figure, arrays=arrays, rows=lambda: made().table())

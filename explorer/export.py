"""Files to take home: from a picture that a model has looked at to figures, films, numbers and pages.

L layers, H heads, T tokens, D width, K classes, (h, w) patch grid.

Every function here returns an `Export`: one result in all the forms that a file can hold it in, each
made only when a file asks for it.  The app's buttons and `python -m explorer` call the same ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from explorer import faithfulness, render, stats
from explorer import ledger as ledgers
from explorer.ablation import without_heads
from explorer.forms import Export, ExportError, Rows, told_apart
from explorer.methods import METHODS
from explorer.payload import class_name, explained, filters_side_by_side
from explorer.subject import PLAIN, Style, Subject, map_title, readme, what_is_read, what_was_asked
from vit.card import Card
from vit.model import ViT
from vit.objective import Contrast

AXES = ("time", "row", "column")  # of a map over a clip; a picture has the last two

# ---- recipes ---------------------------------------------------------------------------------------


def maps(
    subject: Subject,
    methods: Sequence[str],
    *,
    query: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    fuse: str = "mean",
    target: int | None = None,
    contrast: Contrast = None,
    scale: str = "map",
    style: Style = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """One or several methods on the picture, side by side. Those that need gradients need a trace of
    the target. A CSV has one row per patch; an NPZ the raw map (h, w) of each method, by its name; of a clip
    (t, h, w), whose frames are drawn side by side."""
    traced, model = subject.trace, subject.model
    options: dict[str, Any] = {"query": query, "layer": layer, "head": head, "fuse": fuse}
    options |= {"target": target, "contrast": contrast}
    if not methods or scale not in ("map", "uniform"):
        raise ExportError("Maps need at least one method, and a scale: map or uniform.")
    asked = what_was_asked(subject, methods, query, target, contrast)

    @cache
    def made() -> dict[str, Tensor]:
        given = options | {"model": model, "progress": progress}
        return {name: METHODS[name](traced, **given) for name in methods}

    def label(name: str) -> str:
        return map_title(name, traced, layer, head, fuse)

    def figure() -> Figure:
        drawn = {label(name): subject.sheet(values) for name, values in made().items()}
        tokens = traced.tokens.shape[1]
        scales = {
            label(name): render.scale_for(drawn[label(name)], "uniform", tokens)
            for name in methods
            if scale == "uniform" and METHODS[name].rows_sum_to_1
        }
        return render.maps_figure(
            subject.picture,
            drawn,
            scales=scales,
            query=subject.patch(query),
            without_query={label(name) for name in methods if "query" not in METHODS[name].options},
            title=subject.name,
            caption="  ·  ".join([f"{subject.card.name}: {subject.answers()}", *asked]),
            colormap=style.colormap,
            smooth=style.smooth,
            grid=style.lines,
            theme=style.theme,
        )

    def arrays() -> dict[str, np.ndarray]:
        axes = "(h, w)" if len(traced.grid.shape) == 2 else "(t, h, w)"
        lines = [*asked, *(f"{name} {axes}: {label(name)}" for name in methods)]
        return {name: values.numpy() for name, values in made().items()} | readme(subject, *lines)

    return Export(figure=figure, arrays=arrays, rows=lambda: rows_of_maps(made()))


def rows_of_maps(found: Mapping[str, Tensor]) -> Rows:
    """One row per patch of maps (h, w), or of a clip's (t, h, w)."""
    shape = next(iter(found.values())).shape
    lists = {name: values.flatten().tolist() for name, values in found.items()}
    return [
        dict(zip(AXES[-len(shape) :], place)) | {name: values[at] for name, values in lists.items()}
        for at, place in enumerate(np.ndindex(*shape))
    ]


def head_maps(subject: Subject, query: int | None = None) -> Tensor:
    """(L, H, h, w), of a clip (L, H, t, h, w): where the query looks, in every head of every layer."""
    layers, heads = subject.trace.attn.shape[:2]
    look = partial(METHODS["attention"], subject.trace, query=query, model=subject.model)
    looked = [look(layer=layer, head=head) for layer in range(layers) for head in range(heads)]
    return torch.stack(looked).unflatten(0, (layers, heads))


def grid(subject: Subject, *, query: int | None = None, scale: str = "all", style: Style = PLAIN) -> Export:
    """Contact sheet: where one query looks, layers down and heads across. NPZ: maps (L, H, h, w), of a clip
    (L, H, t, h, w)."""
    made = cache(lambda: head_maps(subject, query))

    def figure() -> Figure:
        values = subject.sheet(made())
        tokens = subject.trace.tokens.shape[1]
        words = "Each small map is one head; bright patches get more of its attention."
        if scale == "uniform":
            words += f" A head that looks everywhere alike gives 1 ×, which is 1 / {tokens}."
        return render.sheet_figure(
            values,
            picture=subject.picture,
            scale=render.scale_for(values, scale, tokens),
            query=subject.patch(query),
            colormap=style.colormap,
            title=f"Attention from {subject.token_name(query)}",
            caption=f"{subject.name}. {subject.card.name}: {subject.answers(1)}. {words}",
            theme=style.theme,
        )

    def rows() -> Rows:
        names = ("layer", "head", *AXES[-len(subject.trace.grid.shape) :], "attention")
        return [dict(zip(names, (*index, float(x)))) for index, x in np.ndenumerate(made().numpy())]

    def arrays() -> dict[str, np.ndarray]:
        axes = ", ".join("thw"[-len(subject.trace.grid.shape) :])
        about = f"maps (L, H, {axes}): attention from {subject.token_name(query)}"
        return {"maps": made().numpy()} | readme(subject, about)

    return Export(figure=figure, arrays=arrays, rows=rows)


def matrix(subject: Subject, *, layer: int = -1, head: int | None = None, style: Style = PLAIN) -> Export:
    """One head's attention, every token to every token (T, T); without a head the mean of all."""
    attn = subject.trace.attn[layer]  # (H, T, T)
    values = (attn.mean(dim=0) if head is None else attn[head]).numpy()
    layer %= len(subject.trace.attn)
    name = f"L{layer}, mean of heads" if head is None else f"L{layer}.H{head % len(attn)}"

    def figure() -> Figure:
        return render.matrix_figure(
            values,
            subject.trace.grid_size,
            subject.model.config.prefix_names,
            colormap=style.colormap,
            title=f"{name} · {subject.name}",
            theme=style.theme,
        )

    def rows() -> Rows:
        return [{"query": q, "key": k, "attention": float(x)} for (q, k), x in np.ndenumerate(values)]

    def arrays() -> dict[str, np.ndarray]:
        return {"attn": values} | readme(subject, f"attn (T, T): {name}, rows are queries")

    return Export(figure=figure, arrays=arrays, rows=rows)


def figures_of_heads(subject: Subject, *, style: Style = PLAIN) -> Export:
    """How far heads look, at how many tokens, what falls on prefix tokens, and the answer by depth.
    A CSV has one row per head; an NPZ holds distance_px, effective_tokens ... (L, H), lens (L+1, K)."""
    traced, model = subject.trace, subject.model

    @cache
    def arrays() -> dict[str, np.ndarray]:
        columns = {name: x.numpy() for name, x in stats.head_columns(traced).items()}
        if model.config.num_classes:
            columns["lens"] = subject.card.values(stats.logit_lens(model, traced)).numpy()
        return columns | {"token_norms": stats.token_norms(traced).numpy()}

    def described() -> dict[str, np.ndarray]:
        about = (
            f"figures of heads (L, H); lens (L+1, K): logit lens, {subject.card.value_name} of each class; "
        )
        about += "token_norms (L+1, T)"
        return arrays() | readme(subject, about)

    def figure() -> Figure:
        found = arrays()
        tokens, prefix = traced.tokens.shape[1], model.config.prefix_names
        charts = _charts_of_heads(found, stats.uniform_distance(traced), tokens, prefix, style.theme)
        if "lens" in found:
            names = [class_name(subject.card, k) for k in range(model.config.num_classes)]
            of = subject.card.value_name
            lens = partial(render.lens_chart, found["lens"], names, value_name=of, theme=style.theme)
            charts.append(partial(lens, title="Logit lens: the answer if the model stopped early"))
        caption = f"{subject.card.name}: {subject.answers()}"
        return render.board(charts, title=subject.name, caption=caption, theme=style.theme)

    return Export(figure=figure, arrays=described, rows=lambda: stats.head_table(traced))


def _charts_of_heads(
    found: Mapping[str, np.ndarray], uniform_px: float, tokens: int, prefix: Sequence[str], theme: str
) -> list[Callable[..., Figure]]:
    """What (L, H) figures of heads are drawn as."""
    drawn = [
        ("distance_px", "mean attention distance (px)", uniform_px, "How far patches look"),
        ("effective_tokens_patches", "effective number of tokens", tokens, "At how many tokens patches look"),
    ]
    if prefix:
        whom = prefix[0] if len(prefix) == 1 else "all prefix tokens"
        title = f"What patches give to {whom}"
        drawn.append(("prefix_share", "share of attention", len(prefix) / tokens, title))
    return [
        partial(render.heads_chart, found[name], label=label, reference=level, title=title, theme=theme)
        for name, label, level, title in drawn
    ]


def heads(
    model: ViT,
    card: Card,
    images: Iterable[Tensor],
    data: str,
    *,
    style: Style = PLAIN,
    progress: Callable[[int], None] | None = None,
) -> Export:
    """The figures of heads over many images (Dosovitskiy et al. 2021, fig. 7, is such a mean), and how alike
    layers are (CKA). A CSV has the mean and the standard deviation of each figure, one row per head; an NPZ
    every image's, (N, L, H), the features (L+1, N, D) and cka (L+1, L+1)."""
    found = stats.over_images(model, images, progress)
    count = found.features.shape[1]
    alike = stats.cka([found.features]).numpy() if count >= 4 else None
    title = f"{card.name} on {count} pictures of {data}"

    def figure() -> Figure:
        means = {name: x.mean(dim=0).numpy() for name, x in found.columns.items()}
        prefix = model.config.prefix_names
        charts = _charts_of_heads(means, found.uniform_px, found.num_tokens, prefix, style.theme)
        if alike is not None:
            names = np.array(["embed", *(f"L{i}" for i in range(len(alike) - 1))])
            known = np.isfinite(alike.diagonal())  # [CLS] is the same in every picture before the first layer
            chart = partial(render.similarity_chart, alike[known][:, known], names[known], theme=style.theme)
            charts.append(partial(chart, title="How alike layers are: CKA"))
        caption = "A dot is a head: its mean over all pictures."
        return render.board(charts, title=title, caption=caption, theme=style.theme)

    def arrays() -> dict[str, np.ndarray]:
        each = {name: x.numpy() for name, x in found.columns.items()} | {"features": found.features.numpy()}
        each |= {} if alike is None else {"cka": alike}
        read = what_is_read(model.config)
        features = f"at every depth what the head reads ({read}), as one mean"
        words = f"figures of heads (N, L, H); features (L+1, N, D): {features}; cka (L+1, L+1)"
        return each | {"README": np.array(f"{title}: {words}")}

    def rows() -> Rows:
        table = {name: x.mean(dim=0) for name, x in found.columns.items()}
        if count > 1:
            table |= {f"{name}_sd": x.std(dim=0) for name, x in found.columns.items()}
        _, L, H = found.columns["distance_px"].shape
        places = [(layer, head) for layer in range(L) for head in range(H)]
        return [
            {"layer": i, "head": j} | {name: float(x[i, j]) for name, x in table.items()} for i, j in places
        ]

    return Export(figure=figure, arrays=arrays, rows=rows)


def ledger(
    subject: Subject, *, target: int | None = None, contrast: Contrast = None, style: Style = PLAIN
) -> Export:
    """What every head, MLP and patch gave to one class, adding up to its logit. A CSV has one row per
    entry; an NPZ heads (L, H, T), mlp (L,), embed (T,), bias, logit."""
    made = cache(lambda: ledgers.ledger(subject.trace, subject.model, target, contrast))

    def words() -> str:
        return explained(subject.card, made().target, contrast)

    def figure() -> Figure:
        book = made()
        return render.ledger_figure(
            book.head_grid().numpy(),
            book.mlp.numpy(),
            {"embedding": float(book.embed.sum()), "biases": book.bias},
            title=f"What gave {words()} its logit of {render.number(book.logit)}",
            theme=style.theme,
        )

    def arrays() -> dict[str, np.ndarray]:
        book = made()
        parts = {"heads": book.heads, "mlp": book.mlp, "embed": book.embed}
        numbers = {"bias": book.bias, "logit": book.logit, "target": book.target}
        found = {k: x.numpy() for k, x in parts.items()} | {k: np.array(x) for k, x in numbers.items()}
        about = f"class explained: {words()}"
        shapes = "heads (L, H, T), mlp (L,), embed (T,) and bias add up to logit"
        return found | readme(subject, about, shapes)

    return Export(figure=figure, arrays=arrays, rows=lambda: made().table())


def ablation(
    subject: Subject,
    *,
    target: int | None = None,
    style: Style = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """What the class's logit loses without each head, beside what the head gave it directly (the ledger's
    entry, where the model has one). A CSV has one row per head; an NPZ lost and given (L, H)."""
    traced, model = subject.trace, subject.model

    @cache
    def made() -> dict[str, np.ndarray]:
        found = {"lost": without_heads(traced, model, target, progress).numpy()}
        if not METHODS["logit_ledger"].refusal(model.config, traced.tokens.shape[1]):
            found["given"] = ledgers.ledger(traced, model, target).head_grid().numpy()
        return found

    answer = class_name(subject.card, ledgers.class_to_explain(traced, model, target))
    words = {"lost": f"What {answer} loses without the head", "given": "What the head gave directly"}

    def figure() -> Figure:
        charts = [
            partial(render.heads_table, values, about="logit", title=words[name], theme=style.theme)
            for name, values in made().items()
        ]
        caption = f"{subject.card.name}: {subject.answers()}"
        return render.board(charts, title=subject.name, caption=caption, theme=style.theme)

    def arrays() -> dict[str, np.ndarray]:
        return made() | readme(subject, *(f"{name} (L, H): {words[name]}" for name in made()))

    def rows() -> Rows:
        return [
            {"layer": i, "head": j} | {name: float(x[i, j]) for name, x in made().items()}
            for i, j in np.ndindex(made()["lost"].shape)
        ]

    return Export(figure=figure, arrays=arrays, rows=rows)


def weights(model: ViT, card: Card, *, style: Style = PLAIN) -> Export:
    """What the model knows before it sees a picture: the principal filters of the patch embedding
    (n, p, p, 3), and how alike the positions of any two patches are (h, w, h, w). Of clips the filters are
    (n, tubelet, p, p, 3), the positions (t, h, w, t, h, w), of which the middle moment is drawn."""

    @cache
    def arrays() -> dict[str, np.ndarray]:
        filters, alike = stats.patch_filters(model), stats.position_similarity(model)
        return {"patch_filters": filters.numpy(), "position_similarity": alike.numpy()}

    def figure() -> Figure:
        alike, others = arrays()["position_similarity"], "all others"
        if alike.ndim == 6:
            middle = len(alike) // 2
            alike, others = alike[middle, :, :, middle], "all others of its moment"
        filters = filters_side_by_side(model).numpy()
        return render.weights_figure(filters, alike, others=others, title=card.name, theme=style.theme)

    return Export(figure=figure, arrays=arrays)


def history(rows: Sequence[Mapping[str, float]], *, title: str = "", style: Style = PLAIN) -> Export:
    """A training run as curves: the rows of its history.csv. Raises ExportError."""
    if not rows:
        raise ExportError("This history has no rows yet: wait for the run's first evaluation.")
    right = "nearest" if "nearest" in rows[0] else "accuracy"  # of a run without labels
    for name in ("epoch", "loss", "test_loss", right):
        if name not in rows[0]:
            raise ExportError(f"This history has no column {name}: take the one that train.py wrote.")
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def figure() -> Figure:
        losses = {"training": columns["loss"], "test": columns["test_loss"]}
        accuracies = {"test" if right == "accuracy" else "nearest neighbour": columns[right]}
        return render.history_chart(columns["epoch"], losses, accuracies, title=title, theme=style.theme)

    return Export(figure=figure, arrays=lambda: columns, rows=lambda: rows)


def confusion(
    counts: np.ndarray, class_names: Sequence[str], *, title: str = "", style: Style = PLAIN
) -> Export:
    """What is taken for what: counts (K, K), the true class down, the answer across."""
    figure = partial(render.confusion_figure, counts, class_names, title=title, theme=style.theme)

    def rows() -> Rows:
        first, *names = told_apart(["true class", *class_names])
        return [{first: name} | dict(zip(names, row)) for name, row in zip(names, counts.tolist())]

    return Export(figure=figure, arrays=lambda: {"confusion": counts}, rows=rows)


ARRAYS = {  # what an NPZ of a trace holds
    "image": "(3, height, width), of a clip (F, 3, height, width): the normalised pixels the model saw",
    "tokens": "(L+1, T, D) residual stream: after the embedding, then after each block",
    "attn": "(L, H, T, T) attention; row = query, column = key; rows sum to 1",
    "pool_attn": "(H', T) what the head reads of each token, where attention pools",
    "logits": "(K,)",
    "grid_size": "rows and columns of patches, (h, w); of a clip times, rows and columns, (t, h, w)",
    "num_prefix_tokens": "() tokens in front of the patches: [CLS], distillation token, registers",
    "target": "() the class that attn_grad explains, where there is one",
    "contrast": '() and what against, where it is: the number of another class, or "others"',
    "attn_grad": "(L, H, T, T) d y / d attn, where there is a target: y is logits[target], against another "
    "class minus logits[contrast], against the others minus the log of the sum of exp of their logits",
    "class_names": "(K,) text",
    "picture": "(height, width, 3) uint8, the image in its true colours; of a clip one frame of each time, "
    "side by side",
}


CURVES = faithfulness.Plan(randoms=8)


def race(
    subject: Subject,
    methods: Sequence[str] | None = None,
    *,
    plan: faithfulness.Plan = CURVES,
    style: Style = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Is it true? Deletion and insertion curves of every map of one picture, against random orders and
    maps that never saw the model. Needs a trace of a target. A CSV has one row per map; an NPZ its maps and
    curves."""
    if plan.randoms < 1:
        raise ExportError("A race is against random orders: let there be at least 1 of them.")
    traced = subject.trace
    watched = class_name(subject.card, traced.target or 0)

    @cache
    def runners() -> list[faithfulness.Runner]:
        return faithfulness.race(subject.model, traced, methods, plan, card=subject.card, progress=progress)

    def figure() -> Figure:
        caption = f"{subject.card.name}: {subject.answers()}  ·  class watched: {watched}"
        charts = curves_of_race(runners(), plan, subject.card.value_name, style)
        return render.board(charts, title=subject.name, caption=caption, theme=style.theme)

    def arrays() -> dict[str, np.ndarray]:
        of = subject.card.value_name
        about = f"METHOD/map (h, w); METHOD/CURVE/MODE: the class's {of} at `fractions`"
        return arrays_of_race(runners()) | readme(subject, f"class watched: {watched}", about)

    def rows() -> Rows:
        return [{"method": runner.name, **runner.figures()} for runner in runners()]

    return Export(figure=figure, arrays=arrays, rows=rows)


def curves_of_race(
    runners: Sequence[faithfulness.Runner], plan: faithfulness.Plan, value_name: str, style: Style
) -> list[Callable[..., Figure]]:
    """A chart for each way of hiding and each curve: the best six maps, the best control, random orders."""
    controls = {r.name: r for r in runners if r.name in faithfulness.CONTROLS}
    ranked = [r for r in runners if r.name not in controls]
    by_chance = controls.pop(faithfulness.RANDOM)
    bar = faithfulness.best_control(list(controls.values()))
    charts: list[Callable[..., Figure]] = []
    for mode in plan.modes:
        chance = by_chance.each[mode]
        for kind, better in (("deletion", "lower"), ("insertion", "higher")):
            of = lambda r, mode=mode, kind=kind: getattr(r.curves[mode], kind).numpy()  # noqa: E731
            chart = partial(
                render.curves_chart,
                {METHODS[r.name].label: of(r) for r in ranked[:6]},
                others=[of(r) for r in ranked[6:]],
                fractions=chance[0].fractions.numpy(),
                control=of(bar),
                control_name=bar.name,
                random=np.stack([getattr(c, kind) for c in chance]),
                label=f"patches {HIDDEN[mode]}" if kind == "deletion" else "patches shown",
                better=better,
                value_name=value_name,
                title=f"{kind.capitalize()}, hidden patches {HIDDEN[mode]}",
                theme=style.theme,
            )
            charts.append(chart)
    return charts


def arrays_of_race(runners: Sequence[faithfulness.Runner]) -> dict[str, np.ndarray]:
    found = {}
    for runner in runners:
        found[f"{runner.name}/map"] = runner.map.numpy()
        for mode, curves in runner.curves.items():
            found["fractions"] = curves.fractions.numpy()
            found[f"{runner.name}/deletion/{mode}"] = curves.deletion.numpy()
            found[f"{runner.name}/insertion/{mode}"] = curves.insertion.numpy()
    return found


HIDDEN = {"grey": "painted grey", "drop": "left out"}


def faithfulness_table(table: faithfulness.Table, title: str, *, style: Style = PLAIN) -> Export:
    """The same over a data set: each method's score with its confidence interval. An NPZ has every figure
    of every picture, (n,) each, such as "relevance/score"."""

    def figure() -> Figure:
        scores = [row.figures["score"] for row in table.rows]
        names = [METHODS[row.name].label if row.name in METHODS else row.name for row in table.rows]
        bar = table.bars["score"]
        return render.intervals_chart(
            names,
            np.array([(x.low, x.mean, x.high) if table.images > 1 else (x.mean,) * 3 for x in scores]),
            label="faithfulness: area under insertion − area under deletion",
            reference=next(row for row in table.rows if row.name == bar).figures["score"].mean,
            reference_label=bar,
            marked=[row.leads["score"].low > 0 for row in table.rows],
            title=f"{title}, {table.images} images",
            theme=style.theme,
        )

    def arrays() -> dict[str, np.ndarray]:
        each = {f"{row.name}/{name}": x.numpy() for row in table.rows for name, x in row.each.items()}
        about = f"{title}: METHOD/FIGURE (n,), of {table.images} pictures, in their order"
        return each | {"README": np.array(about)}

    return Export(figure, arrays, table.records, markdown=lambda: table.markdown() + "\n")


def everything(subject: Subject, **view: Any) -> Export:
    """The whole trace: as arrays for the researcher (NPZ, see `ARRAYS` and the array "README" inside),
    or as one page that a browser opens offline (HTML). view: what the page shows first, such as layer=3, and
    what was measured of the model, as `explorer.show` takes it."""
    traced = subject.trace

    def arrays() -> dict[str, np.ndarray]:
        names = ("image", "tokens", "attn", "pool_attn", "logits", "attn_grad")
        found = {name: getattr(traced, name) for name in names}
        kept = {name: x.numpy() for name, x in found.items() if x is not None and x.numel()}
        kept |= {name: x.numpy() for name, x in traced.activations.items()}
        kept["grid_size"] = np.array(traced.grid_size)
        kept["num_prefix_tokens"] = np.array(traced.num_prefix_tokens)
        if traced.target is not None:
            kept["target"] = np.array(traced.target)
        if traced.contrast is not None:
            kept["contrast"] = np.array(traced.contrast)
        if subject.card.class_names:
            kept["class_names"] = np.array(subject.card.class_names)
        kept["picture"] = subject.picture
        lines = [f"{name} {ARRAYS.get(name, list(kept[name].shape))}" for name in kept]
        letters = "L layers, H heads, T tokens, D width, K classes, (h, w) patches"
        kept["README"] = np.array("\n".join([f"{subject.name}, {subject.card.name}. {letters}.", *lines]))
        return kept

    def page(path: Path) -> None:
        from explorer import show  # here: whoever wants no page needs no viewer

        title = f"{subject.name}, seen by {subject.card.name}"
        show(traced, subject.card, subject.model, title=title, **view).save(path)

    return Export(arrays=arrays, page=page)

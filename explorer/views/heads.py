"""What each head and each layer does with this picture. Choose a dot to see that head in the viewer."""

from collections.abc import Hashable

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from explorer import stats
from explorer.forms import told_apart
from explorer.look import Look, too_many_tokens
from explorer.payload import class_name
from explorer.render import percent
from explorer.roles import READ, RULES
from explorer.subject import what_is_read
from explorer.views.page import (
    LATEST,
    MODEL_QUEUE,
    QUIET,
    SLOW_QUEUE,
    Page,
)
from explorer.views.parts import (
    cells,
    dots,
    every_nth,
    lines,
    matrix,
    note,
    panel,
    picture_map,
    scale,
)
from explorer.views.prose import words
from vit.clips import Clip, preprocess_clip, sampled
from vit.config import ViTConfig
from vit.moves import moves_sample
from vit.pictures import preprocess
from vit.shapes import shapes_sample
from vit.trace import Trace

CKA_IMAGES, CKA_BATCH = 256, 64


def report(look: Look, target: int | None) -> str:
    """All panels of the page."""
    if not look.keeps_attention:
        return note(too_many_tokens("Figures of heads are")) + depth_panels(look, target)
    return f'<div class="vx-row">{head_panels(look)}{depth_panels(look, target)}</div>'


def head_panels(look: Look) -> str:
    trace, config = look.trace(exact=True), look.model.config
    prefix = trace.num_prefix_tokens
    effective = stats.effective_tokens(trace)[..., prefix:].mean(dim=-1)  # (L, H): rows of patches
    tokens = trace.tokens.shape[1]
    similar = look.remember("similarity", lambda: stats.head_similarity(trace))
    panels = [
        *distance_panels(trace),
        panel(
            "Effective tokens",
            dots(effective.numpy(), "tokens", line=float(tokens), line_name=f"all {tokens}"),
            "At how many tokens a patch looks, in effect, on average: one where the head points, all of them "
            "at the dashed line, where it averages over everything. (The exponential of the entropy of a "
            "patch's attention.)",
        ),
    ]
    if prefix:
        on_prefix = stats.prefix_share(trace).sum(dim=-1)  # (L, H)
        panels.append(
            panel(
                "Share on " + (config.prefix_names[0] if prefix == 1 else "prefix tokens"),
                dots(
                    on_prefix.numpy(),
                    "share of attention",
                    line=prefix / tokens,
                    line_name="uniform",
                ),
                "What patches give to the tokens that the picture does not show. "
                + resting(float(on_prefix[-1].mean()), prefix / tokens),
            )
        )
    panels += [
        panel(
            "Share on itself",
            dots(stats.self_share(trace).numpy(), "share of attention", line=1 / tokens, line_name="uniform"),
            "What patches give to themselves: high where a head copies.",
        ),
        panel(
            "Heads that do the same",
            matrix(similar.clip(0), [f"L{layer}" for layer in range(config.depth)]) + scale("0", "1"),
            f"Correlation between the attention of all {len(similar)} heads, layer by layer. Bright "
            "squares off the diagonal "
            "are heads that could stand in for each other.",
        ),
    ]
    return "".join(panels) + roles_panels(look)


def distance_panels(trace: Trace) -> list[str]:
    """How far heads look, in space and, in a clip, in time."""
    panels = [
        panel(
            "Attention distance",
            dots(
                stats.attention_distance(trace).numpy(),
                "pixels",
                unit=" px",
                line=stats.uniform_distance(trace),
                line_name="looking everywhere alike",
            ),
            "How far away patches look, on average. Near zero: a head that stays local, like a "
            "convolution. At the dashed "
            "line a head looks nowhere in particular. Prefix tokens are left out.",
        ),
    ]
    if trace.grid.frames > 1:
        uniform = stats.uniform_lags(trace.grid) * torch.arange(trace.grid.frames)
        panels.append(
            panel(
                "Times away",
                dots(
                    stats.time_distance(trace).numpy(),
                    "times",
                    line=float(uniform.sum()),
                    line_name="looking everywhere alike",
                ),
                "How far before or after its own time a patch looks, on average. Zero: a head that looks "
                "only at the frames of its own moment and sees no movement.",
            )
        )
    return panels


def roles_panels(look: Look) -> str:
    """What was measured of these heads over many pictures, if it was."""
    found = look.loaded.roles
    if found is None:
        return ""
    named = [
        f"<li><b>L{i}.H{j}</b> {', '.join(names)}</li>"
        for i, layer in enumerate(found.all_names())
        for j, names in enumerate(layer)
        if names
    ]
    rules = "; ".join(f"“{rule.name}”: {rule.about}" for rule in RULES)
    panels = [
        panel(
            "What heads do",
            f'<ul class="vx-roles">{"".join(named)}</ul>' if named else "None of them does one of these.",
            f"Measured over {found.pictures} pictures of {found.data}, not on yours. {rules}.",
        )
    ]
    if "object" in found.figures:
        aucs = np.array(found.figures["object"])
        panels.append(
            panel(
                "Heads that find things",
                dots(aucs, "AUC", line=0.5, line_name="chance"),
                f"How often a patch on the object gets more attention than one beside it, from {READ}, over "
                f"{found.pictures} pictures of {found.data} on which people had marked the object.",
            )
        )
    return "".join(panels)


def depth_panels(look: Look, target: int | None) -> str:
    """Through depth: the answer so far, and the length of tokens."""
    trace, model = look.trace(exact=True), look.model
    panels = []
    if target is not None:
        lens = look.card.values(look.remember("lens", lambda: stats.logit_lens(model, trace)))  # (L+1, K)
        likeliest = lens[-1].argsort(descending=True)[:2].tolist()
        leaders = lens.argmax(dim=-1).tolist()  # at every depth, the first ones first
        best = list(dict.fromkeys([target, *likeliest, *leaders]))[:5]
        depths = list(range(len(lens)))
        names = told_apart([class_name(look.card, index) for index in best])
        series = {name: (depths, lens[:, index].tolist()) for name, index in zip(names, best)}
        panels.append(
            panel(
                "Logit lens",
                lines(
                    series,
                    "layers passed",
                    look.card.value_name,
                    y_range=None if look.card.scores == "none" else (0, 1),
                    x_ticks=every_nth(len(depths)),
                ),
                "The answer if the model stopped after so many layers: final norm and head, early. "
                "Early layers speak "
                "another language; read which class leads, not small differences.",
            )
        )

        def said_by_patches() -> Tensor:  # (P,)
            said = look.card.values(stats.patch_lens(model, trace))  # (P, K)
            return said[:, target].clone()  # not a view of it

        patches = look.remember(("patch lens", target), said_by_patches)
        panels.append(
            panel(
                f"Patches that point to {class_name(look.card, target)}",
                picture_map(look.picture_address, patches.unflatten(0, trace.grid_size), ""),
                "The head reads each patch of the last layer alone, as if it were the token it was "
                f"taught to read. {taught(model.config)}",
            )
        )
    panels.append(norms_panel(look))
    return "".join(panels)


def taught(config: ViTConfig) -> str:
    """What the head reads where it answers, and what its reading of a patch is worth."""
    hint = "" if config.pool == "mean" else ": a hint, not an answer"
    return f"It was taught to read {what_is_read(config)}{hint}."


def norms_panel(look: Look) -> str:
    trace = look.trace(exact=True)
    norms, prefix = stats.token_norms(trace), trace.num_prefix_tokens
    patches = norms[:, prefix:]
    depths = list(range(len(norms)))
    series = {"largest patch": patches.amax(dim=-1), "median patch": patches.median(dim=-1).values}
    if prefix:
        series[look.model.config.prefix_names[0]] = norms[:, 0]
    found = stats.outliers(norms, prefix)[-1]
    words = (
        f"{(count := int(found.sum()))} {'patch' if count == 1 else 'patches'} of the last layer stand out "
        "(at least twice the median, and far outside the usual spread: 8 median absolute deviations): "
        if found.any()
        else "No patch stands out here: "
    )
    return panel(
        "Length of tokens",
        lines({name: (depths, x.tolist()) for name, x in series.items()}, "layers passed", "norm",
              x_ticks=every_nth(len(depths))),
        words + "large models that trained long keep notes in background patches, ten times as long "
        "as the others (Darcet et al. 2024); registers give them another place.",
    )  # fmt: skip


def cka_key(look: Look) -> Hashable:
    """Under which it is remembered for all: it is of the model, not of the visitor's picture."""
    return look.key, look.image_size, "cka"


def run_cka(look: Look, progress: gr.Progress) -> None:
    """Find which layers resemble each other, over many pictures: generated ones, which need no download."""
    config, size = look.model.config, look.image_size

    def drawn(index: int) -> Tensor:  # ([F,] 3, height, width)
        if not config.is_clip:
            return preprocess(shapes_sample(11, index)[0], look.card, size)
        frames = moves_sample(11, index)[0]
        clip = sampled(Clip(frames, tuple(range(len(frames)))), config.num_frames)
        return preprocess_clip(clip, look.card, size)

    def batches():
        for start in progress.tqdm(range(0, CKA_IMAGES, CKA_BATCH), desc="Layers over many pictures"):
            look.session.still_wanted(look.owner)
            yield torch.stack([drawn(index) for index in range(start, start + CKA_BATCH)])

    look.check_work(CKA_IMAGES)

    def make() -> np.ndarray:  # (L+1, L+1)
        return stats.layer_cka(look.model, batches()).numpy()

    look.session.remember(cka_key(look), make)


def cka_panel(look: Look) -> str:
    """What `run_cka` found of this model, if it was run."""
    if (found := look.session.remembered(cka_key(look))) is None:
        return ""
    return panel(
        "Layers that see alike (CKA)",
        cells(found.clip(0, 1), rows="", columns="", links=False) + scale("0", "1"),
        f"Unbiased linear CKA of what the head reads ({what_is_read(look.model.config)}), as one mean a "
        "picture, after the embedding (0) and each layer, over "
        f"{CKA_IMAGES} generated {'clips' if look.model.config.is_clip else 'pictures'}. Blocks of bright "
        "cells are layers that change little; grey: undefined, where all look the same, as [CLS] does before "
        "the first layer.",
    )


def resting(share: float, uniform: float) -> str:
    """What the last layer's mean share on prefix tokens says of this model."""
    found = f"In the last layer it is {percent(share)}, where looking everywhere alike would give "
    found += f"{percent(uniform)}: "
    if share > 2 * uniform:
        return found + "heads that have nothing to do rest there, as in most large models."
    return found + "these heads do not rest there, as those of most large models do."


def build(page: Page) -> None:
    words(__doc__)
    board = gr.HTML("", elem_id="heads-board", apply_default_css=False, min_height=480)
    ask = gr.Button(
        "Compare layers over many pictures (CKA)", elem_id="heads-cka", size="sm", variant="secondary"
    )
    alike = gr.HTML("", elem_id="heads-alike", apply_default_css=False)

    def on_open(shown, target, request: gr.Request):
        look = page.look(shown, request)
        return report(look, look.valid_target(target)), cka_panel(look)

    def on_cka(shown, request: gr.Request, progress=gr.Progress()):  # noqa: B008  # Gradio's own way
        """Only run it: by then the visitor may look at another model."""
        look = page.look(shown, request)
        run_cka(look, progress)

    def on_cka_run(shown, request: gr.Request):
        look = page.look(shown, request)
        return cka_panel(look)

    page.when_open("heads", on_open, [page.shown, page.target], [board, alike])
    run = ask.click(
        on_cka,
        [page.shown],
        None,
        show_progress_on=[alike],
        api_visibility="private",
        **LATEST,
        **SLOW_QUEUE,
    )
    run.success(on_cka_run, [page.shown], [alike], **QUIET, **MODEL_QUEUE)

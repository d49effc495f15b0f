"""Follow one number: from pixels to the answer, step by step, with the true tensors of this picture and
this model.

T tokens, H heads, D the width of a token, d the width of one head. Pin another patch in
the viewer, or choose it here, and everything below follows.
"""

from collections.abc import Sequence

import gradio as gr
import torch
import torch.nn.functional as F
from torch import Tensor

from explorer import stats
from explorer.look import Look
from explorer.payload import class_name
from explorer.subject import Subject, what_is_read
from explorer.views.page import MODEL_QUEUE, Page, kindly
from explorer.views.parts import color, escape, picture_map, table
from vit.pictures import as_picture
from vit.trace import Recorder

FIRST = 6  # numbers shown of a long vector
RIBBON = 96  # of its values as colours


def block_tensors(look: Look, layer: int) -> dict[str, Tensor]:
    """Every activation of one block, by name, made again from the residual stream in front of it: no
    forward pass."""

    def make() -> dict[str, Tensor]:
        seen = Recorder()
        trace = look.trace(exact=True)
        stream = trace.tokens[layer].to(next(look.model.parameters()))
        places = look.model.places(trace.grid)
        with torch.no_grad(), look.session.model_lock:
            look.model.run(stream[None], layer, layer + 1, places, seen)
        return {name: tensors[layer][0].float().cpu() for name, tensors in seen.seen.items()}

    return look.remember(("block", layer), make)


# drawing --------------------------------------------------------------------------------------------


def shape(x: Tensor | Sequence[int]) -> str:
    return " × ".join(str(n) for n in (x.shape if isinstance(x, Tensor) else x))


def numbers(x: Tensor, name: str = "") -> str:
    """The first values of a vector, and all of it as a ribbon of colours."""
    flat = x.flatten()
    values = "  ".join(f"{value:+.3f}" for value in flat[:FIRST].tolist())
    more = f"  … {len(flat) - FIRST} more" if len(flat) > FIRST else ""
    top = float(flat.abs().max()) or 1.0
    band = flat[:: max(1, -(-len(flat) // RIBBON))]
    cells = "".join(
        f'<i style="background:{color(0.5 + value / top / 2, True)}"></i>' for value in band.tolist()
    )
    prefix = f"{escape(name)} = " if name else ""
    words = f'<div class="vx-numbers">{prefix}[{values}{more}]</div>'
    return f'{words}<div class="vx-ribbon" aria-hidden="true">{cells}</div>'


def small_map(look: Look, values: Tensor, *, signed: bool = False) -> str:
    """One number per patch (P,), over the picture."""
    grid = values.unflatten(0, look.trace(exact=True).grid_size)
    return f'<div class="vx-small">{picture_map(look.picture_address, grid, "", signed=signed)}</div>'


def step(title: str, dims: str, words: str, body: str) -> str:
    return (
        f'<li class="vx-step"><div><h3>{escape(title)}</h3><p class="vx-shape">{escape(dims)}</p>'
        f"<p>{escape(words)}</p></div><div>{body}</div></li>"
    )


def patch_picture(look: Look, row: int, column: int) -> str:
    """The patch's pixels, large."""
    p = look.model.config.patch_size
    pixels = as_picture(look.image, look.card)[row * p : row * p + p, column * p : column * p + p]
    cells = "".join(
        f'<i style="background:rgb({r},{g},{b})" data-tip="({y}, {x}): red {r}, green {g}, blue {b}"></i>'
        for y, line in enumerate(pixels.tolist())
        for x, (r, g, b) in enumerate(line)
    )
    return f'<div class="vx-pixels" style="--columns:{p}">{cells}</div>'


# the story ------------------------------------------------------------------------------------------


def story(look: Look, row: int, column: int, layer: int, head: int) -> str:
    """Every step of the chosen patch through one head of one layer, to the logits."""
    trace, model, config = look.trace(exact=True), look.model, look.model.config
    prefix, (h, w) = trace.num_prefix_tokens, trace.grid_size
    T, D, d = trace.tokens.shape[1], config.embed_dim, config.head_dim
    patch = row * w + column
    token = prefix + patch
    x = block_tensors(look, layer)
    name_of = Subject(look.picture.stem, trace, model, look.card).token_name
    me = name_of(token)
    image = trace.image
    p = config.patch_size
    with torch.no_grad():
        weight = next(model.parameters())
        square = image[:, row * p : row * p + p, column * p : column * p + p].to(weight)
        embedded = model.patch_embed.proj(square[None]).flatten().float().cpu()  # (D,)
    marker = F.one_hot(torch.tensor(patch), h * w)
    attn = x["attn"][head, token]
    best = attn.argsort(descending=True)[:5].tolist()
    scores = x["scores"][head, token]
    looked = [[name_of(k), f"{float(scores[k]):+.3f}", f"{100 * float(attn[k]):.2f} %"] for k in best]
    added = trace.tokens[layer + 1][token] - trace.tokens[layer][token]
    read = "the token" if config.post_norm else "the normalised token"
    change = "This layer has changed" if config.post_norm else "Attention and MLP have added this to"
    steps = [
        step(
            "The picture", f"3 × {image.shape[1]} × {image.shape[2]}",
            f"Resized, cropped and normalised as the model's card says. It is cut into {h} × {w} "
            f"squares; ours is {me}.",
            small_map(look, marker),
        ),
        step(
            "One patch", f"3 × {p} × {p} = {3 * p * p} numbers",
            "The only thing that this token knows at first.",
            patch_picture(look, row, column) + numbers(square.float().cpu(), "pixels"),
        ),
        step(
            "Patch embedding", f"{3 * p * p} → D = {D}",
            "One linear layer, the same for every patch: a convolution whose stride is its size.",
            numbers(embedded, "embed"),
        ),
        step(
            "Position, and the tokens in front", f"T × D = {T} × {D}",
            "The position's vector is added: without it the picture would be a bag of patches. "
            + (f"In front: {', '.join(config.prefix_names)}." if prefix else "There is no [CLS] token."),
            numbers(trace.tokens[0, token], "x0"),
        ),
        step(
            f"Layer {layer}: query, key, value", f"each H × T × d = {config.num_heads} × {T} × {d}",
            f"Three linear views of {read}, cut into {config.num_heads} heads. This is "
            f"head {head}: what {me} "
            "asks for, what it offers, what it would carry.",
            "".join(numbers(x[name][head, token], name) for name in ("q", "k", "v")),
        ),
        step(
            "Scores", f"q · k / √{d}: {T} numbers",
            "How well the query of our patch fits the key of every token. "
            f"With the best, {name_of(best[0])}: {float(scores[best[0]]):+.3f}.",
            small_map(look, scores[prefix:], signed=True),
        ),
        step(
            "Softmax", f"{T} numbers ≥ 0, sum {float(attn.sum()):.4f}",
            "Scores become shares of attention: what Explore shows.",
            f'<div class="vx-pair">{small_map(look, attn[prefix:])}'
            + table(["looks at", "score", "attention"], looked, [1, 2]) + "</div>",
        ),
        step(
            "z: what the head brings home", f"d = {d}",
            "The values of all tokens, mixed by those shares.",
            numbers(x["z"][head, token], "z"),
        ),
        step(
            "All heads, written to the stream", f"H · d → D = {config.num_heads} · {d} → {D}",
            "The heads' z side by side, through one linear layer, and added to the token.",
            numbers(x["attn_out"][token], "attn_out"),
        ),
        step(
            "MLP", f"{D} → {config.mlp_dim} → {D}",
            f"Every token thinks alone. {int((x['mlp_post'][token] > 0).sum())} of "
            f"{x['mlp_post'].shape[-1]} hidden numbers "
            "are above zero.",
            numbers(x["mlp_pre"][token], "mlp_pre") + numbers(x["mlp_post"][token], "mlp_post"),
        ),
        step(
            f"After layer {layer}", f"T × D = {T} × {D}",
            f"{change} {me}: from length {float(trace.tokens[layer][token].norm()):.2f} "
            f"to {float(trace.tokens[layer + 1][token].norm()):.2f}. The next layer reads the result.",
            numbers(added, "added") + numbers(trace.tokens[layer + 1][token], f"x{layer + 1}"),
        ),
        answer_step(look),
    ]  # fmt: skip
    return f'<ol class="vx-steps">{"".join(steps)}</ol>'


READ_AS = {
    "softmax": " and a softmax over the classes.",
    "sigmoid": " and a sigmoid for each class by itself: several may be true, or none.",
    "none": ": a number, and no probability.",
}


def answer_step(look: Look) -> str:
    trace, config = look.trace(exact=True), look.model.config
    reads = what_is_read(config)
    if not len(trace.logits):
        return step(
            f"After layer {config.depth - 1}", f"{config.embed_dim}",
            f"This model has no head: its features are {reads} after the final norm.",
            numbers(stats.logit_lens(look.model, trace)[-1], "features"),
        )  # fmt: skip
    card, values = look.card, look.card.values(trace.logits)
    rows = [
        [class_name(card, i), f"{float(trace.logits[i]):+.3f}", card.written(float(values[i]), 1)]
        for i in trace.logits.argsort(descending=True)[:5].tolist()
    ]
    return step(
        "Logits", f"{config.embed_dim} → {len(trace.logits)}",
        f"After the last layer the head reads {reads}: final norm, "
        + ("a linear layer for each, their mean," if config.distillation else "one linear layer,")
        + READ_AS[card.scores],
        table(["class", "logit", card.value_name], rows, [1, 2]),
    )  # fmt: skip


# the page -------------------------------------------------------------------------------------------


def build(page: Page) -> None:
    gr.Markdown(__doc__, elem_classes="vx-lead")
    with gr.Row(elem_classes="vx-tools"):
        row = gr.Slider(0, 15, 8, step=1, label="Patch, row", elem_id="inside-row", buttons=[])
        column = gr.Slider(0, 15, 8, step=1, label="Patch, column", elem_id="inside-column", buttons=[])
        layer = gr.Slider(0, 11, 0, step=1, label="Layer", elem_id="inside-layer", buttons=[])
        head = gr.Slider(0, 11, 0, step=1, label="Head", elem_id="inside-head", buttons=[])
    told = gr.HTML("", elem_id="inside-story", apply_default_css=False, min_height=600)
    chosen = [row, column, layer, head]

    def clamp(look: Look, *values: float | None) -> list[int]:
        config, (h, w) = look.model.config, look.trace(exact=True).grid_size
        limits = (h, w, config.depth, config.num_heads)
        return [min(max(int(value or 0), 0), limit - 1) for value, limit in zip(values, limits)]

    def on_open(shown, picked, followed, row, column, layer, head, request: gr.Request):
        """The sliders go to a new pin of the viewer, once: then they are the visitor's."""
        look = page.look(shown, request)
        with kindly():
            (h, w), prefix = look.trace(exact=True).grid_size, look.model.config.num_prefix_tokens
            pin = picked if picked != followed else {}
            if pin.get("query", -1) >= prefix:
                row, column = divmod(pin["query"] - prefix, w)
            layer, head = pin.get("layer", layer), pin.get("head", head)
            at = clamp(look, row, column, layer, head)
            limits = (h, w, look.model.config.depth, look.model.config.num_heads)
            sliders = [gr.Slider(maximum=max(limit - 1, 1), value=value) for value, limit in zip(at, limits)]
            return [picked, *sliders, story(look, *at)]

    def on_choose(shown, row, column, layer, head, request: gr.Request):
        look = page.look(shown, request)
        with kindly():
            return story(look, *clamp(look, row, column, layer, head))

    followed = gr.State({})  # the pin where the sliders went last
    inputs = [page.shown, page.picked, followed, *chosen]
    page.when_open("inside", on_open, inputs, [followed, *chosen, told])
    page.viewer.pick(None, None, None, js="() => window.vitPage.move('inside')")  # it goes where the pin is
    for slider in chosen:
        slider.input(
            on_choose, [page.shown, *chosen], [told], show_progress="hidden", trigger_mode="always_last",
            api_visibility="private", **MODEL_QUEUE,
        )  # fmt: skip

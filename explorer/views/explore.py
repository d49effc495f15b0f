"""Point at a patch: every head answers. A click pins it<span class="vx-keys">, arrow keys step, `?` shows all
keys</span>.
"""

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr
from torch import Tensor

from explorer import maps, stats
from explorer.maps import METHODS, Method
from explorer.payload import embeddings_payload, head_payload, layer_payload, maps_payload
from explorer.session import Look, TooLarge
from explorer.views import take_home
from explorer.views.page import (
    EACH,
    LATEST,
    MODEL_QUEUE,
    QUIET,
    SLOW_QUEUE,
    Page,
    kindly,
    target_said,
    too_many_tokens,
    valid_target,
)
from explorer.views.parts import note
from vit.model import Hook
from vit.trace import MaskPatches, ZeroHeads

QUICK = 3e10  # operations that a method may take without having been asked for: about half a second


# what the viewer is given ---------------------------------------------------------------------------


def viewer_value(look: Look, edits: tuple[Hook, ...] = (), **more: Any) -> dict[str, Any]:
    """The addresses of a look's head and layers, and of the same after an intervention."""
    value = {**addresses(look), "nonce": secrets.token_hex(4), **more}  # the same once more is heard, too
    return value | {"after": addresses(look, edits)} if edits else value


def addresses(look: Look, edits: tuple[Hook, ...] = (), depth: int | None = None) -> dict[str, Any]:
    """Made when the browser asks for them: the first picture does not wait for the last layer.

    depth: of a model that need not be loaded yet.
    """
    layers = range(look.model.config.depth if depth is None else depth)
    return {
        "head": look.address(("head", edits), partial(make_head, look, edits)),
        "layers": [look.address(("layer", at, edits), partial(make_layer, look, at, edits)) for at in layers],
        "embeddings": look.address(("embeddings", edits), partial(make_embeddings, look, edits)),
    }


def make_head(look: Look, edits: tuple[Hook, ...] = ()) -> bytes:
    return head_payload(look.trace(edits=edits), look.card, look.model)


def make_embeddings(look: Look, edits: tuple[Hook, ...] = ()) -> bytes:
    return embeddings_payload(look.trace(edits=edits), look.model)


def make_layer(look: Look, layer: int, edits: tuple[Hook, ...] = ()) -> bytes:
    trace = look.trace(edits=edits)
    if not look.keeps_attention:
        return layer_payload(trace, layer, attn=look.attention(layer, edits))
    return layer_payload(trace, layer, rollout=rollouts(look, edits)[layer + 1])


def rollouts(look: Look, edits: tuple[Hook, ...] = ()) -> Tensor:
    """(L+1, T, T): attention rollout at every depth, made once for all layers."""
    return look.remember(("rollout", edits), lambda: maps.rollout_all(look.trace(edits=edits)))


# maps -----------------------------------------------------------------------------------------------


def refusal(look: Look, method: Method) -> str:
    """Why this method says nothing here, in one sentence; empty if it does."""
    if not look.keeps_attention:
        return too_many_tokens(f"{method.label} is")
    if why_not := method.refusal(look.model.config, look.cost.tokens):
        return why_not
    try:
        look.check_work(passes(look, method))
    except TooLarge as error:
        return str(error)
    return ""


def passes(look: Look, method: Method) -> int:
    """How many forward passes this method takes, where it is more than a few."""
    return method.passes + method.passes_per_patch * num_patches(look)


def num_patches(look: Look) -> int:
    """Of this picture, which may be shown larger than the model was trained on."""
    return look.cost.tokens - look.model.config.num_prefix_tokens


def cost_in_words(look: Look, method: Method) -> str:
    """What a method costs for this picture, such as "196 forwards"."""
    return method.cost.replace("P ", f"{num_patches(look)} ")


def is_quick(look: Look, method: Method) -> bool:
    """May this method run for this model without having been asked for?"""
    count = passes(look, method)
    if method.is_long and not count:  # of other work than passes, such as flow
        return False
    return count * look.cost.flops <= QUICK


def map_key(method: Method, target: int | None) -> tuple[str, str, int | None]:
    """Under which a look remembers this map."""
    return "map", method.name, target if method.class_specific else None


def must_wait(look: Look, method: Method, target: int | None) -> bool:
    """Is this map one that takes seconds and is not there yet?"""
    return not is_quick(look, method) and look.remembered(map_key(method, target)) is None


def map_of(look: Look, method: Method, target: int | None) -> Tensor:
    """(h, w): what this method says about the class; made once for all visitors."""
    *_, target = key = map_key(method, target)

    def make() -> Tensor:
        trace = look.trace(target) if method.needs_grad else look.trace()
        return method(trace, model=look.model, target=target)

    return look.remember(key, make)


def maps_value(look: Look, name: str, target: int | None, edits: tuple[Hook, ...]) -> dict[str, Any]:
    """The viewer's value with the map that was asked for and all that are there or cost next to nothing, or
    with what keeps it from coming."""
    asked = METHODS[name]
    if why_not := refusal(look, asked):
        return viewer_value(look, edits, refused={name: why_not})
    if must_wait(look, asked, target):
        return viewer_value(look, edits, progress=f"{asked.label} takes {cost_in_words(look, asked)} …")
    cheap = [m for m in METHODS.values() if not must_wait(look, m, target) and not refusal(look, m)]
    names = list(dict.fromkeys([name, *(m.name for m in cheap)]))
    for each in names:  # here, in the queue; the address makes again what was forgotten
        map_of(look, METHODS[each], target)
    address = look.address(("maps", *names, target), partial(make_maps, look, names, target))
    return viewer_value(look, edits, maps=[address])


def identity(look: Look) -> list[str]:
    """What tells this picture, model and size from others."""
    return [look.key, look.digest, look.size]


def make_maps(look: Look, names: Sequence[str], target: int | None) -> bytes:
    return maps_payload({name: map_of(look, METHODS[name], target) for name in names}, look.card, target)


# interventions --------------------------------------------------------------------------------------


def edits_of(look: Look, patches: Any, heads: Any) -> tuple[Hook, ...]:
    """What a browser asked to hide and to switch off, as far as this model has it."""
    config, patch_count = look.model.config, num_patches(look)
    hidden = sorted({p for p in as_ints(patches) if 0 <= p < patch_count})
    pairs = map(as_pair, heads if isinstance(heads, Sequence) else ())
    off = sorted({(a, b) for a, b in pairs if 0 <= a < config.depth and 0 <= b < config.num_heads})
    edits: list[Hook] = []
    if len(hidden) == patch_count:
        raise gr.Error("Leave at least one patch to see.", title="Nothing left", print_exception=False)
    if hidden:
        edits.append(MaskPatches(tuple(hidden), config.num_prefix_tokens))
    if off:
        edits.append(ZeroHeads(tuple(off)))
    return tuple(edits)


def as_ints(values: Any) -> list[int]:
    return [v for v in values if isinstance(v, int)] if isinstance(values, Sequence) else []


def as_pair(value: Any) -> tuple[int, int]:
    pair = as_ints(value)
    return (pair[0], pair[1]) if len(pair) == 2 else (-1, -1)


# the page -------------------------------------------------------------------------------------------


def check_strip(look: Look) -> str:
    """Green or red, with the number: is what the screen shows what the model did?"""
    if not look.keeps_attention:
        return note(too_many_tokens("The self-check is"))

    def make() -> list[stats.Check]:
        checks = stats.self_check(look.model, look.trace(exact=True))
        return [*checks, bf16_check(look)] if look.in_bf16 else checks

    checks = look.remember("checks", make)
    pills = "".join(
        f'<li class="{"vx-good" if check.ok else "vx-bad"}" data-tip="{check.about}">'
        f"<b>{'✓' if check.ok else '✗'}</b> {check.name}: <span>off by {check.value:.0e}</span></li>"
        for check in checks
    )
    return f'<ul class="vx-checks" aria-label="Self-check of this picture">{pills}</ul>'


def bf16_check(look: Look) -> stats.Check:
    """How far the look on the screen, in bf16, is from the float32 that the other checks are about."""
    shown, exact = look.trace(), look.trace(exact=True)

    def elsewhere(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().sum(dim=-1).mean()) / 2

    shares = [elsewhere(*layer) for layer in zip(shown.attn, exact.attn)]
    if len(exact.logits):
        shares.append(elsewhere(shown.logits.softmax(dim=-1), exact.logits.softmax(dim=-1)))
    about = "the share of attention, or of the answer, that lies elsewhere than in float32: the worst layer's"
    return stats.Check("bf16 ≈ float32", max(shares), 0.05, about)


def build(page: Page) -> None:
    checks = gr.HTML("", elem_id="checks", apply_default_css=False)

    def on_checks(shown, request: gr.Request):
        look = page.look(shown, request)
        with kindly():
            return check_strip(look)

    def on_need_maps(shown, edits, event: gr.EventData, request: gr.Request):
        look = page.look(shown, request)
        name = str(getattr(event, "method", ""))
        if name not in METHODS:
            raise gr.Error("This method does not exist.", print_exception=False)
        with kindly():
            said = target_said(event)
            target = valid_target(look, said)
            value = maps_value(look, name, target, edits_of(look, *edits))
            if target not in (None, said):  # a class that this model does not have
                value["state"] = {"target": target}
            waits = "maps" not in value and not refusal(look, METHODS[name])
        wish = {"look": identity(look), "method": name, "target": target, "stamp": secrets.token_hex(4)}
        return value, wish if waits else gr.skip()

    def on_slow_map(shown, wish, request: gr.Request):
        """Only make it: by then the visitor may look at something else."""
        look = page.look(shown, request)
        if wish.get("look") == identity(look):
            with kindly():
                map_of(look, METHODS[wish["method"]], wish["target"])

    def on_slow_map_made(shown, edits, wish, request: gr.Request):
        look = page.look(shown, request)
        if wish.get("look") != identity(look):
            return gr.skip()
        with kindly():
            return maps_value(look, wish["method"], wish["target"], edits_of(look, *edits))

    def on_said(event: gr.EventData):
        """Only hear it: of many strokes the last one tells all."""
        return getattr(event, "patches", ()), getattr(event, "heads", ())

    def on_edits(shown, said, request: gr.Request):
        look = page.look(shown, request)
        with kindly():
            edits = edits_of(look, *said)
            look.trace(edits=edits)
        return viewer_value(look, edits), said if edits else ((), ())

    def on_pick(event: gr.EventData):
        said = {name: getattr(event, name, None) for name in ("query", "layer", "head")}
        fuse = getattr(event, "fuse", None)
        picked = {name: x for name, x in said.items() if isinstance(x, int)}
        return picked | ({"fuse": fuse} if fuse in take_home.FUSES else {})

    page.when_open("explore", on_checks, [page.shown], [checks])
    wish = gr.State({})  # for a map that takes seconds, of the picture that is shown
    inputs = [page.shown, page.edits]
    page.viewer.need_maps(on_need_maps, inputs, [page.viewer, wish], **EACH, **QUIET, **MODEL_QUEUE)
    made = wish.change(on_slow_map, [page.shown, wish], None, **QUIET, **SLOW_QUEUE)
    made.success(on_slow_map_made, [*inputs, wish], [page.viewer], **QUIET, **MODEL_QUEUE)
    said = gr.State(((), ()))
    heard = page.viewer.edits(on_said, None, [said], queue=False, **EACH, **QUIET)
    edited = [page.viewer, page.edits]
    heard.success(on_edits, [page.shown, said], edited, **LATEST, **QUIET, **MODEL_QUEUE)
    pinned = page.viewer.pick(on_pick, None, [page.picked], queue=False, **EACH, **QUIET)
    take_home.build(page, pinned)

"""The first screen: the viewer says and shows it all; under it the self-check and files to take home."""

import secrets

import gradio as gr
from torch import Tensor

from explorer import stats
from explorer.look import Look, too_many_tokens
from explorer.methods import METHODS
from explorer.views.page import (
    EACH,
    HEARD,
    LATEST,
    MODEL_QUEUE,
    QUIET,
    SLOW_QUEUE,
    Edits,
    Page,
    at_frame,
    target_said,
)
from explorer.views.parts import note

UNANSWERED = "() => document.querySelector('#viewer .vit-viewer').viewer.unanswered()"

# the page -------------------------------------------------------------------------------------------


def check_strip(look: Look) -> str:
    """Is what the screen shows what the model did? One word, which opens to the numbers."""
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
    well = all(check.ok for check in checks)
    said = "✓ Checked: this is what the model computed" if well else "✗ A check of what is shown has failed"
    return (
        f'<details class="vx-check {"vx-good" if well else "vx-bad"}"{"" if well else " open"}>'
        f'<summary>{said}</summary><ul class="vx-checks" aria-label="Self-check of this picture">{pills}</ul>'
        "</details>"
    )


def bf16_check(look: Look) -> stats.Check:
    """How far the look on the screen, in bf16, is from the float32 that the other checks are about."""
    shown, exact = look.trace(), look.trace(exact=True)

    def elsewhere(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().sum(dim=-1).mean()) / 2

    shares = [elsewhere(*layer) for layer in zip(shown.attn, exact.attn)]
    if len(exact.logits):
        a, b = look.card.values(shown.logits), look.card.values(exact.logits)
        one_of_all = look.card.scores == "softmax"
        shares.append(
            elsewhere(a, b) if one_of_all else float((a - b).abs().max() / b.abs().max().clamp(min=1))
        )
    about = "the share of attention, or of the answer, that lies elsewhere than in float32: the worst layer's"
    return stats.Check("bf16 ≈ float32", max(shares), 0.05, about)


def build(page: Page) -> None:
    checks = gr.HTML("", elem_id="checks", apply_default_css=False)

    def on_checks(shown, request: gr.Request):
        look = page.look(shown, request)
        return check_strip(look)

    def on_need_maps(shown, edits, event: gr.EventData, request: gr.Request):
        look = page.look(at_frame(shown, event), request)
        name = str(getattr(event, "method", ""))
        if name not in METHODS:
            raise gr.Error("This method does not exist.", print_exception=False)
        said = target_said(event)
        target = look.valid_target(said)
        value = look.maps_value(name, target, look.edits(*edits))
        if target not in (None, said):  # a class that this model does not have
            value["state"] = {"target": target}
        waits = "maps" not in value and not look.refusal(METHODS[name])
        wish = {"look": look.identity, "method": name, "target": target, "stamp": secrets.token_hex(4)}
        return value, wish if waits else gr.skip()

    def on_slow_map(shown, wish, request: gr.Request):
        """Only make it: by then the visitor may look at something else."""
        look = page.look(shown, request)
        if wish.get("look") == look.identity:
            look.map(METHODS[wish["method"]], wish["target"])

    def on_slow_map_made(shown, edits, wish, request: gr.Request):
        look = page.look(shown, request)
        if wish.get("look") != look.identity:
            return gr.skip()
        return look.maps_value(wish["method"], wish["target"], look.edits(*edits))

    def on_said(event: gr.EventData):
        """Only hear it: of many strokes the last one tells all."""
        return Edits(*(getattr(event, name, usual) for name, usual in Edits()._asdict().items()))

    def on_edits(shown, said, request: gr.Request):
        look = page.look(shown, request)
        edits = look.edits(*said)
        look.trace(edits=edits)
        return look.viewer_value(edits), said if edits else Edits()

    page.when_open("explore", on_checks, [page.shown], [checks])
    wish = gr.State({})  # for a map that takes seconds, of the picture that is shown
    inputs = [page.shown, page.edits]
    page.viewer.need_maps(on_need_maps, inputs, [page.viewer, wish], **EACH, **QUIET, **MODEL_QUEUE)
    made = wish.change(on_slow_map, [page.shown, wish], None, **QUIET, **SLOW_QUEUE)
    made.success(on_slow_map_made, [*inputs, wish], [page.viewer], **QUIET, **MODEL_QUEUE)
    said = gr.State(Edits())
    heard = page.viewer.edits(on_said, None, [said], **HEARD)
    edited = [page.viewer, page.edits]
    answered = heard.success(on_edits, [page.shown, said], edited, **LATEST, **QUIET, **MODEL_QUEUE)
    answered.failure(None, None, None, js=UNANSWERED)

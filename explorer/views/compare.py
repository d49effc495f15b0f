"""The same picture, twice: two checkpoints, or two moments of one training. Choose a square on
one side, and the other follows."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from explorer.look import Look
from explorer.payload import class_name, written
from explorer.session import PUBLISHED
from explorer.viewer.host import attention_viewer
from explorer.views.page import (
    LATEST,
    MODEL_QUEUE,
    QUIET,
    Page,
    Shown,
    as_sent,
    as_text,
    told,
)
from explorer.views.parts import escape
from explorer.views.prose import words

LAST = -1  # the finished model; any other number is a step of its training
SAME = ""  # the model at the top
# on a phone both stand on the same spot, one at a time
ONE_SIDE = """
<fieldset class="vx-choice vx-one-side"><legend>Side</legend>
  <label><input type="radio" name="vx-side" value="A" checked><span>A</span></label>
  <label><input type="radio" name="vx-side" value="B"><span>B</span></label>
</fieldset>
"""


def moments(look: Look) -> list[tuple[str, int]]:
    """What can be chosen of a model: the end, and the snapshots before it."""
    found = [("finished", LAST)]
    for snapshot in reversed(look.session.snapshots(look.name)):
        accuracy = snapshot.metrics.get("accuracy")
        label = f"step {snapshot.step:,}" + (
            f", {100 * accuracy:.0f} % right" if accuracy is not None else ""
        )
        found.append((label, snapshot.step))
    return found


def early(steps: list[int]) -> int:
    """Of the steps of `moments`, newest first: the third snapshot, of fewer the last, or the end where none
    was kept; the newest, which is the end itself as a rule, only where there is no other."""
    return (steps[2:] or steps[1:] or steps)[-3:][0]


def answer(look: Look) -> str:
    """The likeliest class, in words."""
    trace = look.trace()
    if not len(trace.logits):
        return '<p class="vx-answer">no classification head</p>'
    best = int(trace.logits.argmax())
    said = written(look.card, float(look.card.values(trace.logits)[best]))
    return f'<p class="vx-answer"><b>{escape(class_name(look.card, best))}</b> {said}</p>'


def build(page: Page) -> None:
    session = page.session
    choices = [("the model at the top", SAME), *((name, name) for name in session.names())]
    choices += [(label, hub_id) for hub_id, label in PUBLISHED.items()]
    sides: list[tuple[gr.Dropdown, gr.Dropdown, gr.HTML, gr.HTML]] = []
    with gr.Column(elem_id="compare-models"):
        words(__doc__)
        gr.HTML(ONE_SIDE, apply_default_css=False, elem_id="compare-side")
        row = gr.Row(elem_classes="vx-sides", equal_height=False)
    with row:
        for side in ("A", "B"):
            with gr.Column(min_width=320, elem_classes=f"vx-side-{side}"):
                with gr.Row(elem_classes="vx-tools"):
                    model = gr.Dropdown(
                        choices,
                        value=SAME,
                        label=f"Model {side}",
                        allow_custom_value=True,
                        elem_id=f"compare-model-{side}",
                    )
                    moment = gr.Dropdown(
                        [("finished", LAST)],
                        value=LAST,
                        label=f"Moment {side}",
                        elem_id=f"compare-moment-{side}",
                    )
                # an address may name one before the list of moments is there; `one` takes what the model has
                as_sent(moment, lambda value: value)
                said = gr.HTML("", apply_default_css=False, elem_id=f"compare-answer-{side}")
                viewer = attention_viewer(
                    elem_id=f"compare-{side}",
                    name=f"Side {side}",
                    link="compare",
                    address=False,
                    lead=False,
                    state={"scale": "uniform"},  # one scale for all that stands together
                    intervene=False,
                    picture_height=360,
                    modes=("attention", "rollout", "embeddings"),
                )
                sides.append((model, moment, said, viewer))

    def one(
        shown: Shown | None,
        model: str,
        step: Any,
        request: gr.Request,
        default: Callable[[list[int]], int] = lambda steps: LAST,
        held: Any = None,
    ) -> list[Any]:
        """Values for moment, answer and viewer of one side; default: which moment to show where this model
        has none of that step. held: the moment that stands in the list, which is left alone where it is the
        one that is shown: by then there may be another."""
        seen = shown and shown._replace(model=as_text(model) or shown.model)
        if shown and seen and seen.model != shown.model:  # a visitor's classes are of one model
            seen = seen._replace(classes=None)
        finished = page.look(seen, request)
        offered = moments(finished)
        steps = [value for _, value in offered]
        chosen = step if step in steps else default(steps)
        look = finished if chosen == LAST else page.look(seen, request, chosen)
        value: dict[str, Any] = {} if chosen == held else {"value": chosen}
        return [gr.Dropdown(choices=offered, **value), answer(look), look.viewer_value()]

    def one_or_why(*asked: Any) -> list[Any]:
        """`one`, or why not: what one side cannot show does not hold up the other."""
        try:
            return one(*asked)
        except Exception as error:
            return [gr.skip(), f'<p class="vx-answer">{told(error).message}</p>', gr.skip()]

    def on_open(shown, model_a, moment_a, model_b, moment_b, request: gr.Request):
        """Side A: the model; side B: the same at an early moment, until the visitor chooses."""
        untouched = (model_a, moment_a, model_b, moment_b) == (SAME, LAST, SAME, LAST)
        first = one_or_why(shown, model_a, moment_a, request)
        second = one_or_why(shown, model_b, None if untouched else moment_b, request, early)
        return [*first, *second]

    def on_side(shown, model, moment, request: gr.Request):
        return one(shown, model, moment, request, held=moment)

    (model_a, moment_a, said_a, viewer_a), (model_b, moment_b, said_b, viewer_b) = sides
    page.when_open(
        "compare",
        on_open,
        [page.shown, model_a, moment_a, model_b, moment_b],
        [moment_a, said_a, viewer_a, moment_b, said_b, viewer_b],
        linked=([model_a, model_b], "(...models) => vitPage.sideModels(...models)"),
        js="(...x) => vitPage.sideInputs(...x)",
    )
    chosen_sides = [model_a, moment_a, model_b, moment_b]
    for model, moment, said, viewer in sides:
        inputs, outputs = [page.shown, model, moment], [moment, said, viewer]
        fetched, named_again = page.fetched(model, lambda shown: SAME)
        for chosen in (fetched.success, named_again.success, moment.input):
            shows = chosen(on_side, inputs, outputs, **LATEST, **QUIET, **MODEL_QUEUE)
            shows.success(None, chosen_sides, None, js="(...x) => { vitPage.keepSides(...x); }")

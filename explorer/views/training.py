"""How attention was learned: the same picture at moments of the training, from the weights that it began
with (random, or another model's) to the end. Move along the curve, or play it. A moment's accuracy may
have been measured on only some of the test pictures.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from explorer.look import Look
from explorer.refusals import without_paths
from explorer.session import Session, key_of
from explorer.viewer.host import attention_viewer
from explorer.views.page import LATEST, MODEL_QUEUE, QUIET, Page, as_text
from explorer.views.parts import lines, note
from explorer.views.prose import words
from vit.card import CheckpointError
from vit.checkpoint import earlier, read_history
from vit.library import folder_of

RUNS = Path("runs")  # where train.py writes, unless told otherwise
NOTHING = "This model kept no snapshots of its training. Those that train.py trained have them."

TIMELINE = """
<div class="vx-timeline">
  <div class="vx-timeline-bar">
    <button type="button" class="vx-play" aria-label="Play the training">▶</button>
    <input type="range" min="0" max="0" value="0" step="1" aria-label="Moment of training">
    <output aria-live="polite"></output>
  </div>
</div>
"""
TIMELINE_JS = (Path(__file__).parent / "timeline.js").read_text(encoding="utf-8")


# what is told ---------------------------------------------------------------------------------------


def timeline_value(session: Session, look: Look, name: str) -> dict[str, Any]:
    """The moments of a checkpoint or run for one picture, and its curves. Raises CheckpointError.

    They are its snapshots and, where it was measured with the last of them or later, its weights as they are
    now, which are finer than a snapshot's. The weights of a moment are loaded when the browser asks for what
    they make of the picture.
    """
    moments, damaged, history = [], list[str](), []
    name = session.allowed(name)
    folder = folder_of(name)
    try:
        history = [row for row in (read_history(folder) if folder else []) if "step" in row]
    except CheckpointError as error:  # the moments are there nevertheless
        damaged.append(str(error))
    taken = session.snapshots(name, damaged)
    left_out = [without_paths(sentence) for sentence in damaged]
    if not taken:
        return {"moments": [], "charts": charts_of(history, []), "left_out": left_out}
    now = session.model(name)

    def moment(step: int, metrics: Mapping[str, float], key: str, of: int | None) -> dict[str, Any]:
        then = replace(look, name=name, step=of, key=key, classes=None)
        shown = then.addresses(depth=now.model.config.depth)
        return {**shown, "step": step, "words": words_of(step, metrics)}

    for snapshot in earlier(taken, history):
        key = key_of(name, snapshot.step, snapshot.path)
        moments.append(moment(snapshot.step, snapshot.metrics, key, snapshot.step))
    if history and history[-1]["step"] >= taken[-1].step:
        moments.append(moment(int(history[-1]["step"]), history[-1], now.key, None))
    charts = charts_of(history, [moment["step"] for moment in moments])
    return {"moments": moments, "charts": charts, "left_out": left_out}


def words_of(step: int, metrics: Mapping[str, float]) -> str:
    parts = [f"step {step:,}"]
    if "epoch" in metrics:
        parts.append(f"epoch {metrics['epoch']:.3g}")
    if "accuracy" in metrics:
        parts.append(f"accuracy {100 * metrics['accuracy']:.1f} %")
    if "nearest" in metrics:  # it learned without labels
        parts.append(f"nearest neighbour right {100 * metrics['nearest']:.1f} %")
    if "loss" in metrics:
        parts.append(f"loss {metrics['loss']:.3g}")
    return " · ".join(parts)


def charts_of(history: list[dict[str, float]], steps: list[int]) -> str:
    """Accuracy and loss over the steps of a history's rows; the points are the moments. Of a run without
    labels: how often the test picture most like another is of its class."""
    drawn = []
    kinds = {"accuracy": ("accuracy",), "nearest neighbour": ("nearest",), "loss": ("loss", "test_loss")}
    for title, keys in kinds.items():
        series = {}
        for key in keys:
            points = [(row["step"], row[key]) for row in history if key in row and math.isfinite(row[key])]
            if points:
                series[key.replace("_", " ")] = ([x for x, _ in points], [y for _, y in points])
        if series:
            drawn.append(lines(series, "step", title, key="step", marks=steps, log=True, height=150))
    return "".join(f"<div>{chart}</div>" for chart in drawn)


def runs(session: Session) -> list[str]:
    """Runs of train.py on this machine that have something to show; strangers are not told of them."""
    if session.public:
        return []
    return sorted(str(path.parent) for path in RUNS.glob("*/snapshots"))


# the page -------------------------------------------------------------------------------------------


def build(page: Page) -> None:
    session = page.session
    follow = "" if session.public else " A run that is still going can be followed."
    words(str(__doc__).strip() + follow)
    with gr.Row(elem_classes="vx-tools", visible=not session.public):
        run = gr.Dropdown(
            [("the model at the top", "")],
            value="",
            label="Training run, or a folder that train.py writes to",
            allow_custom_value=True,
            scale=3,
            elem_id="training-run",
        )
        gr.Checkbox(label="follow a run while it trains", container=False, scale=1, elem_id="training-follow")
    nothing = gr.HTML("", elem_id="training-nothing", apply_default_css=False)
    timeline = gr.HTML(
        None,
        html_template=TIMELINE,
        js_on_load=TIMELINE_JS,
        elem_id="training-timeline",
        apply_default_css=False,
    )
    attention_viewer(
        elem_id="training-viewer",
        link="training",
        address=False,
        lead=False,
        state={"scale": "uniform"},  # one scale for all that stands together
        intervene=False,
        picture_height=360,
        predictions=True,
        modes=("attention", "rollout", "embeddings"),
    )
    gr.HTML(
        '<div class="vx-timeline-charts"></div>',
        js_on_load='element.dispatchEvent(new Event("vx-charted", { bubbles: true }));',
        elem_id="training-charts",
        apply_default_css=False,
    )
    inputs, outputs = [page.shown, run], [timeline, nothing]

    def tell(shown, run, request):
        look, typed = page.look(shown, request), as_text(run)
        value = timeline_value(session, look, typed or look.name)
        left_out = "".join(note(f"Left out: {sentence}") for sentence in value["left_out"])
        if value["moments"]:
            return value, left_out
        missing = typed and not folder_of(typed)
        return value, note(f"There is no folder {typed} here." if missing else NOTHING) + left_out

    def on_open(shown, run, request: gr.Request):
        choices = [("the model at the top", ""), *((name, name) for name in runs(session))]
        return gr.Dropdown(choices=choices), *tell(shown, run, request)

    def on_run(shown, run, request: gr.Request):
        return tell(shown, run, request)

    def on_follow(shown, run, seen, request: gr.Request):
        """New values if the run went on, else nothing; nobody asked, so nobody is told what goes wrong."""
        try:
            look = page.look(shown, request)
            name = as_text(run) or look.name
            steps = [snapshot.step for snapshot in session.snapshots(name)]
            folder = folder_of(name)
            rows = len(read_history(folder)) if folder else 0
            if (now := (name, look.digest, look.size, steps, rows)) == tuple(seen or ()):
                return gr.skip(), gr.skip(), gr.skip()
            return *tell(shown, run, request), now
        except (gr.Error, ValueError, OSError):
            return gr.skip(), gr.skip(), gr.skip()

    seen = gr.State(())
    linked = [run], "(run) => vitPage.runNamed(run)"
    page.when_open("training", on_open, inputs, [run, *outputs], linked)
    run.input(None, [run], None, js="(run) => void window.vitPage.say({ run })")
    run.input(on_run, inputs, outputs, **LATEST, **QUIET, **MODEL_QUEUE)
    timeline.follow(on_follow, [*inputs, seen], [*outputs, seen], **QUIET, **MODEL_QUEUE)

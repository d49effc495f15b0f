"""Two pictures in front of one model: which patch of one is like which of the other, and what of the first
picture's run brings its answer into the second's.
"""

import secrets
import tempfile
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import gradio as gr

from explorer import pairs, twins
from explorer import patching as patchings
from explorer.examples import suited
from explorer.look import Look
from explorer.patching import HEADS, MLP, STREAM, Patching
from explorer.payload import class_scores, written
from explorer.refusals import Left
from explorer.render import number
from explorer.subject import Subject
from explorer.viewer.host import pair_viewer
from explorer.views import prose
from explorer.views.page import (
    EACH,
    FILE_QUEUE,
    LATEST,
    MODEL_QUEUE,
    QUIET,
    Page,
    Shown,
    as_sent,
)
from explorer.views.parts import cells, file_row, panel, picture_map, scale

CARRIED = (  # what can be carried over, in everyday words first
    ("what one head adds (its output z)", HEADS),
    ("all that one token holds (the residual stream)", STREAM),
    ("what the MLP adds to one token", MLP),
)
ALL_TOKENS = -1
CARRY = "carry over"  # the task's name
FILES = (
    ("Pairs of patches", "match", (".png", ".svg", ".csv", ".npz")),
    ("What was carried over", "patch", (".png", ".svg", ".csv", ".npz")),
)
NO_SECOND = "Choose a second picture first."
PATCHING = (
    "What was computed of one picture takes its place in the run of the other, and the rest of the model "
    "runs on: what changes was caused by it (activation patching). The ledger on Why counts what a head did "
    "directly; this is all that it did."
)
CHOOSE_JS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-second]");
  if (button) trigger("choose", { example: button.dataset.second });
});
"""


# what is shown --------------------------------------------------------------------------------------


def pair_value(a: Look, b: Look) -> dict[str, Any]:
    """The viewer's value: addresses of both pictures and of what is alike at each depth."""
    pairs.check_pair(a.trace(), b.trace())
    depths = range(a.model.config.depth + 1)
    head = a.address(("pair", b.digest), lambda: pairs.pair_payload(a.trace(), b.trace(), a.card))
    at = [a.address(("pair", b.digest, depth), partial(make_depth, a, b, depth)) for depth in depths]
    return {"head": head, "depths": at, "nonce": secrets.token_hex(4)}


def make_depth(a: Look, b: Look, depth: int) -> bytes:
    return pairs.pair_depth_payload(a.trace(), b.trace(), depth)


def answer(look: Look) -> str:
    scores = class_scores(look.trace(), look.card)
    if not scores:
        return "no answer: this model has no classification head"
    return f"{scores[0]['name']} {written(look.card, scores[0]['value'])}"


def run_patching(a: Look, b: Look, what: str, token: int | None, step: patchings.Progress) -> Patching:
    """Made once for all who ask. Raises TooLarge, and whatever `step` raises."""
    config = a.model.config
    a.check_work(patchings.passes(config.depth, config.num_heads, a.cost.tokens, what))
    make = partial(patchings.patching, what=what, token=token, progress=step)
    return a.remember(
        patching_key(b, what, token), lambda: make(a.trace(exact=True), b.trace(exact=True), a.model)
    )


def patching_key(b: Look, what: str, token: int | None) -> tuple[str, str, str, int | None]:
    return "patching", b.digest, what, token


def report(a: Look, b: Look, found: Patching) -> str:
    """The effects as a picture, and the words that say how to read it. a gives, b takes."""
    words = (
        f"From {a.picture.stem} ({answer(a)}) into {b.picture.stem} ({answer(b)}). Watched: the "
        f"{found.asked(a.card)}: {number(found.receiver, '+.2f')} where it is carried to, "
        f"{number(found.source, '+.2f')} where it comes from. "
        "An effect of 1 (red) goes all the way, 0 changes nothing, below 0 (blue) leads away."
    )
    if found.what == HEADS:
        where = "" if found.token is None else f" at {a.trace().token_name(found.token)}"
        body = cells(found.effects.numpy(), signed=True, extra={"all": found.together.numpy()})
        title = f"What each head's output{where} brings along"
        return panel(title, body + legend(), words)
    top = float(found.maps().abs().max()) or 1.0
    figures = []
    for layer, values in enumerate(found.maps()):
        prefix = zip(found.prefix_names, found.effects[layer].tolist())
        parts = [f"{name} {number(value, '+.2f')}" for name, value in prefix]
        if found.what == MLP:
            parts.append(f"all tokens {number(found.together[layer], '+.2f')}")
        caption = f"<b>L{layer}</b>{escape(', '.join(parts))}"
        figures.append(picture_map(b.picture_address, values, caption, signed=True, top=top))
    title = "What each token brings along" + (", of what the MLP adds" if found.what == MLP else "")
    scaled = f" Full colour: {top:.2f}."
    return panel(title, f'<div class="vx-maps">{"".join(figures)}</div>{legend()}', words + scaled)


def legend() -> str:
    return scale(signed=True).replace("against", "away", 1).replace("for<", "brings it along<", 1)


def links(a: Look, b: Look, carried: tuple[str, int | None] | None) -> str:
    """A row of files per result; a browser that follows a link has the file made."""
    rows = []
    for label, name, endings in FILES:
        if name == "patch" and carried is None:
            continue
        called = f"{a.picture.stem}-{b.picture.stem}-{name}"
        addresses = {}
        for ending in endings:
            key = ("pair file", b.digest, a.picture.stem, b.picture.stem, name, ending, carried)
            made = partial(to_bytes, a, b, name, ending, carried)
            addresses[ending] = a.address(key, made, ending[1:])
        rows.append(file_row(label, called, addresses))
    return f'<ul class="vx-files">{"".join(rows)}</ul>'


def to_bytes(a: Look, b: Look, name: str, ending: str, carried: tuple[str, int | None] | None) -> bytes:
    subjects = [Subject(each.picture.stem, each.trace(exact=True), each.model, each.card) for each in (a, b)]
    if name == "match":
        made = twins.matched(*subjects)
    else:
        assert carried is not None
        what, token = carried
        known = run_patching(a, b, what, token, lambda done, total: a.session.still_wanted(a.owner))
        made = twins.patched(*subjects, what=what, token=token, known=known)
    with tempfile.TemporaryDirectory() as folder:
        return made.save(Path(folder) / f"{name}{ending}").read_bytes()


# the page -------------------------------------------------------------------------------------------


def strip(page: Page, look: Look, chosen: str) -> str:
    """Small pictures to choose the second one from."""
    buttons = [
        f'<button type="button" data-second="{escape(e.name)}" data-tip="{escape(e.label)}"'
        f' aria-label="{escape(e.label)}" aria-pressed="{str(str(e.path) == chosen).lower()}">'
        f'<img src="gradio_api/file={quote(str(e.thumb))}" alt=""></button>'
        for e in suited(dict(page.examples), look.card.data + look.name)
        if e.path != look.picture
    ]
    return f'<div class="vx-examples" role="group" aria-label="Second picture">{"".join(buttons)}</div>'


def build(page: Page) -> None:
    choice = gr.Radio(
        [("two models or moments", "models"), ("two pictures", "pictures")],
        value="models",
        label="Compare",
        elem_id="compare-choice",
    )
    named, second = (
        gr.Textbox("", visible=False),
        gr.State(""),
    )  # an example's name; the second picture's file
    with gr.Column(elem_id="compare-pictures"):
        prose.words(__doc__)
        with gr.Row(elem_classes="vx-tools"):
            thumbs = gr.HTML(
                "",
                js_on_load='// events: "choose"' + CHOOSE_JS,
                elem_id="pair-examples",
                apply_default_css=False,
            )
            own = gr.UploadButton(
                "A second picture of yours",
                file_types=["image"],
                elem_id="pair-upload",
                scale=0,
                min_width=260,
            )
            as_sent(own)
        said = gr.HTML("", apply_default_css=False, elem_id="pair-answers")
        viewer = pair_viewer("pair-viewer")
        patch = patching_part()
    outputs = [second, thumbs, said, viewer, patch.where, patch.result, patch.files]
    connect_pictures(page, (choice, named, second, thumbs, own), outputs)
    connect_patching(page, second, patch)


class Part(NamedTuple):
    """The widgets of patching."""

    what: gr.Dropdown
    where: gr.Dropdown
    back: gr.Checkbox
    start: gr.Button
    stop: gr.Button
    bar: gr.HTML
    result: gr.HTML
    files: gr.HTML


def patching_part() -> Part:
    gr.HTML('<h2 class="vx-h2">Carried from one into the other</h2>', apply_default_css=False)
    gr.HTML(f'<p class="vx-lead">{escape(PATCHING)}</p>', apply_default_css=False)
    with gr.Row(elem_classes="vx-tools"):
        what = gr.Dropdown(list(CARRIED), value=HEADS, label="Carry over", elem_id="patch-what", scale=2)
        where = gr.Dropdown([("all tokens", ALL_TOKENS)], value=ALL_TOKENS, label="At", elem_id="patch-where")
        back = gr.Checkbox(label="from the second into the first", container=False, elem_id="patch-back")
        start = gr.Button("Carry it over", variant="primary", elem_id="patch-start")
        stop = gr.Button("Stop", visible=False, elem_id="patch-stop")
    bar = gr.HTML("", elem_id="patch-progress", apply_default_css=False)
    result = gr.HTML("", elem_id="patch-result", apply_default_css=False)
    files = gr.HTML("", elem_id="pair-files", apply_default_css=False)
    return Part(what, where, back, start, stop, bar, result, files)


def both(page: Page, shown: Shown | None, second: Any, request: gr.Request) -> tuple[Look, Look]:
    """The two looks of this page, or one sentence about why not."""
    first = page.look(shown, request)
    if not isinstance(second, str) or not second:
        raise gr.Error(NO_SECOND, title="One picture", print_exception=False)
    assert shown is not None
    return first, page.look(shown._replace(picture=second), request)


def connect_pictures(page: Page, widgets: tuple[Any, ...], outputs: list[Any]) -> None:
    """Which pictures stand side by side: from the address, from a click, or the visitor's own."""
    choice, named, second, thumbs, own = widgets

    def tell(shown: Shown | None, file: str, request: gr.Request) -> list[Any]:
        a, b = both(page, shown, file, request)
        value = pair_value(a, b)
        words = f"First: <b>{escape(answer(a))}</b>. Second: <b>{escape(answer(b))}</b>."
        prefix = [(name, at) for at, name in enumerate(a.model.config.prefix_names)]
        places = gr.Dropdown([("all tokens", ALL_TOKENS), *prefix], value=ALL_TOKENS)
        shows = [strip(page, a, file), f'<p class="vx-answer">{words}</p>', value, places]
        return [file, *shows, "", links(a, b, None)]

    def on_open(shown, file, compares, example, request: gr.Request):
        """Only where two pictures are what is compared; at first the one that the address names."""
        if compares != "pictures":
            return [gr.skip()] * len(outputs)
        look = page.look(shown, request)
        if not file or Path(file) == look.picture:
            others = [
                e for e in suited(dict(page.examples), look.card.data + look.name) if e.path != look.picture
            ]
            named = page.examples.get(str(example))
            chosen = named if named and named.path != look.picture else others[0]
            file = str(chosen.path)
        return tell(shown, file, request)

    def on_choose(shown, event: gr.EventData, request: gr.Request):
        example = page.examples.get(str(getattr(event, "example", "")))
        if example is None:
            raise gr.Error("This example does not exist.", print_exception=False)
        return [*tell(shown, str(example.path), request), example.name]

    def on_own(shown, file, request: gr.Request):
        return [*tell(shown, file or "", request), ""]

    inputs = [page.shown, second, choice, named]
    js, linked = "(...x) => vitPage.pairInputs(...x)", ([choice], "(choice) => vitPage.compared(choice)")
    page.when_open("compare", on_open, inputs, outputs, linked, js=js)
    options = {**LATEST, **QUIET, **MODEL_QUEUE}
    told = choice.input(None, [choice], None, js="(choice) => { vitPage.compares(choice); }", **EACH, **QUIET)
    told.success(on_open, inputs, outputs, js=js, **options)
    brought = own.upload(page.on_file, [own], None, **EACH, **QUIET, **FILE_QUEUE)
    for chosen in (
        thumbs.choose(on_choose, [page.shown], [*outputs, named], **EACH, **QUIET, **MODEL_QUEUE),
        brought.success(on_own, [page.shown, own], [*outputs, named], **options),
    ):
        chosen.success(None, [named], None, js="(name) => { vitPage.keep('with', name); }")


def connect_patching(page: Page, second: gr.State, part: Part) -> None:
    """One button, progress and a stop, as for the race on Why."""

    def asked(
        shown: Any, file: Any, what: Any, where: Any, back: Any, request: gr.Request
    ) -> tuple[Any, ...]:
        """(who gives, who takes, what, the token)"""
        looks = both(page, shown, file, request)
        a, b = reversed(looks) if back else looks
        what = what if what in patchings.WHAT else HEADS
        known = isinstance(where, int) and 0 <= where < a.cost.tokens
        return a, b, what, where if known and what == HEADS else None

    def on_run(shown, file, what, where, back, request: gr.Request, progress=gr.Progress()):  # noqa: B008
        """Only run it: by then the visitor may look at something else."""
        a, b, what, token = asked(shown, file, what, where, back, request)

        def step(done: int, total: int) -> None:
            page.wanted(a.owner, CARRY)
            progress((done, total), desc="Carrying over")

        try:
            run_patching(a, b, what, token, step)
        except Left:
            gr.Info("It was stopped.")

    def on_done(shown, file, what, where, back, request: gr.Request):
        a, b, what, token = asked(shown, file, what, where, back, request)
        found = a.remembered(patching_key(b, what, token))
        if found is None:  # it was stopped
            return gr.skip(), gr.skip()
        return report(a, b, found), links(a, b, (what, token))

    inputs = [page.shown, second, part.what, part.where, part.back]
    ran = page.with_stop(CARRY, part.start, part.stop, part.bar, on_run, inputs)
    ran.success(on_done, inputs, [part.result, part.files], **QUIET, **MODEL_QUEUE)
    heads_only = lambda what: gr.Dropdown(interactive=what == HEADS)  # noqa: E731
    part.what.input(heads_only, [part.what], [part.where], queue=False, **QUIET)

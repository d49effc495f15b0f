"""This model has no answer of its own. If it was trained with texts, type what it shall tell apart; or show
it a few pictures of each class. From then on every page explains these classes.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from explorer.classes import ALIKE, MOST, MOST_PICTURES, Prototypes, Words, shown, typed, words_of
from explorer.look import TRAINED, Look
from explorer.refusals import Left
from explorer.render import number
from explorer.views import prose
from explorer.views.page import (
    FILE_QUEUE,
    HEARD,
    HUB_QUEUE,
    LATEST,
    MODEL_QUEUE,
    QUIET,
    SLOW_QUEUE,
    Page,
    as_sent,
    as_text,
    told,
)
from explorer.views.parts import note, panel, picture_map
from vit.words import CONTROL, Dense, dense_map

BOX = "Classes of your own"
ASKS = f"name or show classes in the box “{BOX}” below"


def where_report(look: Look) -> str:
    """A map of each typed word beside that of a prompt that means nothing."""
    words = look.classes
    if not isinstance(words, Words):
        return ""

    def make() -> Dense:
        plain, image = replace(look, classes=None).loaded, look.image
        with look.session.model_lock:
            tower = words.tower(plain.model, plain.card)
            return dense_map(tower, words.vectors, image, words.control)

    dense = look.remember("where", make)
    figures = []
    for name, values, alike in zip(words.names, dense.maps, dense.alike.tolist()):
        verdict = "hardly depends on the word" if alike > ALIKE else "depends on the word"
        figures.append(
            where_figure(look, values, name, f"{number(alike, '+.2f')} like the control: {verdict}")
        )
    figures.append(where_figure(look, dense.control, "control", f"“{CONTROL}”"))
    words_said = (
        "How well each patch fits the word (the cosine of their vectors; NACLIP's way, or TIPSv2's own "
        "patches), from its lowest to its highest value in this picture. The last map is a control, of "
        f"“{CONTROL}”, which means nothing: a map like it would be there whatever you typed."
    )
    return panel("Where each word is", f'<div class="vx-maps">{"".join(figures)}</div>', words_said)


def where_figure(look: Look, values: Tensor, name: str, told: str) -> str:
    """The map (h, w) of one word. Cosines differ by little: the lowest is where the colours begin."""
    low, high = float(values.min()), float(values.max())
    cosines = f"cosine {number(low, '.3f')} to {number(high, '.3f')}"
    caption = f"<b>{escape(name)}</b><span>{told}</span><span>{cosines}</span>"
    return picture_map(look.picture_address, values - low, caption)


def features_of(look: Look, files: Sequence[Path]) -> Tensor:
    """(n, D): what the model of this look makes of other pictures, each at the size that it was trained on.
    Raises TooLarge, Left where nobody waits for it, and what `explorer.classes.shown` does."""
    plain = replace(look, size=TRAINED, classes=None)
    plain.check_cost(None)
    plain.check_work(len(files))
    loaded, wanted = plain.loaded, partial(look.session.still_wanted, look.owner)
    return shown(loaded.model, loaded.card, files, look.session.model_lock, wanted)


def so_far(prototypes: Prototypes | None) -> str:
    """The classes that were shown, and how many pictures of each."""
    if prototypes is None:
        return ""
    parts = [f"{name} ({len(x)})" for name, x in zip(prototypes.names, prototypes.features)]
    more = "" if len(parts) > 1 else ": one more class, and they can be used"
    return note(f"Shown so far: {', '.join(parts)}{more}.")


def build(page: Page) -> None:
    with gr.Accordion(BOX, open=True, visible=False, elem_id="own-classes") as box:
        prose.words(__doc__)
        with gr.Row(elem_classes="vx-tools"):
            words = gr.Textbox(
                label="Words, with commas between them",
                placeholder="a dog, grass, a red ball",
                max_length=2000,
                elem_id="own-words",
                scale=3,
            )
            use_words = gr.Button("Use these words", variant="primary", elem_id="own-words-use", scale=1)
        with gr.Row(elem_classes="vx-tools"):
            name = gr.Textbox(
                label="Or show a class: what it is called", max_length=80, elem_id="own-name", scale=2
            )
            files = gr.UploadButton(
                f"Choose pictures of this class, at most {MOST_PICTURES}",
                file_count="multiple",
                file_types=["image"],
                elem_id="own-pictures",
                scale=1,
            )
            as_sent(files, lambda sent: [file.path for file in sent.root] if sent else [])
            use_shown = gr.Button(
                "Use the classes shown", elem_id="own-shown-use", scale=1, interactive=False
            )
        said = gr.HTML("", elem_id="own-said", apply_default_css=False)
    where = gr.HTML("", elem_id="where", apply_default_css=False)
    connect_words(page, words, use_words)
    connect_pictures(page, (name, files, use_shown, said))

    def on_open(shown_now, request: gr.Request):
        look = page.look(shown_now, request)
        bare = not page.session.model(look.name).model.config.num_classes
        return gr.Accordion(visible=bare), where_report(look)

    page.when_open("explore", on_open, [page.shown], [box, where])


def chosen_on(page: Page) -> list[Any]:
    """What changes with the classes."""
    return [page.shown, page.target, page.classes_chosen]


def connect_words(page: Page, words: gr.Textbox, use_words: gr.Button) -> None:
    asked: gr.State = gr.State(None)  # the words that were typed, or that a link named, last

    def on_say(text):
        return as_text(text)

    def on_link(event: gr.EventData):
        text = as_text(getattr(event, "words", ""))
        return (text, text.replace(",", ", ")) if text else (None, gr.skip())

    def on_tower(shown_now, text, request: gr.Request):
        """In HUB_QUEUE, in front of what needs the text tower: it is fetched here."""
        if text is not None:
            typed(as_text(text))  # or one sentence about why not
            page.session.fetch_tower(page.look(shown_now, request).name)

    def on_words(shown_now, text, request: gr.Request):
        """None: somebody went back to before there were any."""
        look = page.look(shown_now, request)
        if text is None:
            return shown_now._replace(classes=None), None, secrets.token_hex(2)
        names = typed(as_text(text))
        key = ("words", look.key, names)
        made = look.session.remember(key, lambda: words_of(page.session.tower(look.name), names), look.owner)
        return shown_now._replace(classes=made), None, made.key + secrets.token_hex(2)

    hub, slow = ({**LATEST, **QUIET, **queue} for queue in (HUB_QUEUE, SLOW_QUEUE))
    said = gr.on([use_words.click, words.submit], on_say, [words], [asked], **HEARD)
    linked = page.beacon.words(on_link, None, [asked, words], **HEARD)
    for heard in (said, linked):
        fetched = heard.success(on_tower, [page.shown, asked], None, **hub)
        put_on = fetched.success(on_words, [page.shown, asked], chosen_on(page), **slow)
    for step in (fetched, put_on):  # of the link
        step.failure(None, None, None, js="() => window.vitPage.failed()")


def connect_pictures(page: Page, widgets: tuple[Any, ...]) -> None:
    name, files, use_shown, said = widgets
    # (key of the model, Prototypes) while classes are shown one after the other
    kept: gr.State = gr.State(None)
    brought: gr.State = gr.State([])  # (class, files) that are still to be shown

    def on_bring(brought, name, sent):
        files = [Path(file) for file in sent if isinstance(file, str)] if isinstance(sent, list) else []
        brought[:] = [*brought, (as_text(name), files)][-MOST:]
        return ""

    def on_pictures(shown_now, kept_now, brought, request: gr.Request):
        """All that were brought by now, in their order; what cannot be shown leaves the others."""
        look = page.look(shown_now, request)
        earlier = kept_now[1] if kept_now and kept_now[0] == look.key else Prototypes((), ())
        now, problems = earlier, []
        while brought:
            called, files = brought.pop(0)
            try:
                if not called:
                    raise gr.Error("Give the class a name first.", title="No name", print_exception=False)
                now = now.and_also(called, features_of(look, files))
            except Left:
                raise
            except Exception as error:
                problems.append(told(error))
        if problems and now is earlier:
            raise problems[0]
        for problem in problems:
            gr.Warning(problem.message, title=problem.title)
        return (look.key, now), so_far(now), gr.Button(interactive=len(now.names) > 1)

    def on_shown(shown_now, kept_now, request: gr.Request):
        look = page.look(shown_now, request)
        if not kept_now or kept_now[0] != look.key or len(kept_now[1].names) < 2:
            raise gr.Error(
                f"Show pictures of at least two classes first, at most {MOST}.", print_exception=False
            )
        made = kept_now[1]
        return shown_now._replace(classes=made), None, made.key + secrets.token_hex(2)

    sent = files.upload(on_bring, [brought, name, files], [name], **HEARD)
    outputs = [kept, said, use_shown]
    sent.success(on_pictures, [page.shown, kept, brought], outputs, **LATEST, **QUIET, **FILE_QUEUE)
    use_shown.click(on_shown, [page.shown, kept], chosen_on(page), **LATEST, **QUIET, **MODEL_QUEUE)

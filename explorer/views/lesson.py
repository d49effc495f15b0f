"""How it works: one square of this picture, or clip, followed from pixels to the answer. Every number is this
model's own. Choose a square: it is yours in every step. *Next*, or the arrow keys, go on.
"""

import json
import math
import secrets
from functools import partial
from typing import Any

import gradio as gr
import segno

from explorer.front import Text
from explorer.lesson.answer import shared
from explorer.lesson.follow import Choice, Follow, liveliest
from explorer.lesson.script import lesson_script
from explorer.lesson.steps import lesson_of
from explorer.look import Look, too_many_tokens
from explorer.views.page import EACH, MODEL_QUEUE, QUIET, Page, kindly
from explorer.views.prose import words

SCRIPT = Text.own("js", lesson_script())  # the page fetches it when there is a picture to see
LONGEST = 2000  # characters of a link in a code
# Scope given by Gradio: element, trigger, props, watch. The quoted names are the component's events.
WIRING = """
const events = ["choose", "link"];
let lesson = null;
const emit = (name, detail) => events.includes(name) && trigger(name, detail);
const mount = () => ViTLesson.mount(element.querySelector(".les"), { address: true, emit });
const mounted = () => lesson ??= window.vitPage.script(props.script).then(mount);
const receive = () => mounted().then((shown) => shown.receive(props.value), () => { lesson = null; });
document.addEventListener("vit-seen", mounted, { once: true });
watch("value", receive);
"""


def lesson_bytes(look: Look, choice: Choice) -> bytes:
    """The lesson as JSON. What takes passes of its own is made once for the picture."""
    trace, model, card = look.trace(exact=True), look.model, look.card
    with look.session.model_lock:
        follow = Follow(trace, model, card, choice)
        once = look.remember("lesson", partial(shared, follow))
        lesson = lesson_of(trace, model, card, choice, once)
    return json.dumps(lesson, separators=(",", ":")).encode()


def lesson_value(look: Look, choice: Choice) -> dict[str, Any]:
    """For the component: where the lesson of this choice is, and the picture."""
    if not look.keeps_attention:
        raise ValueError(too_many_tokens("The lesson is"))
    choice = choice.within(look.trace(exact=True), look.model.config)
    address = look.address(("lesson", choice), partial(lesson_bytes, look, choice), "json")
    return {"lesson": address, "picture": look.frames_address}


def choice_of(asked: Any, start: Choice) -> Choice:
    """What a browser asked for; numbers that it leaves out stay."""
    given = asked if isinstance(asked, dict) else {}
    numbers = {name: x for name, x in given.items() if isinstance(x, int | float) and math.isfinite(x)}
    return Choice(*(int(numbers.get(name, getattr(start, name))) for name in ("patch", "layer", "head")))


def start_of(look: Look, picked: Any) -> Choice:
    """What is pinned in the viewer, else the middle of the picture, or what moves in the middle of a clip, in
    the middle layer."""
    traced, config = look.trace(exact=True), look.model.config
    pinned = picked if isinstance(picked, dict) else {}
    query = pinned.get("query", -1) - config.num_prefix_tokens
    layer, head = pinned.get("layer", config.depth // 2), pinned.get("head", 0)
    return Choice(query if 0 <= query < traced.grid.count else liveliest(traced, config), layer, head)


def code_of(url: Any) -> dict[str, str]:
    """The link as a QR code, an SVG. Raises ValueError for what is no web address."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or len(url) > LONGEST:
        raise ValueError("This link is no address that a phone could open.")
    picture = segno.make(url, error="m").svg_inline(scale=8, dark="#000", light="#fff", border=4)
    return {"url": url, "qr": picture}


def build(page: Page) -> None:
    words(__doc__)
    chosen = gr.State(None)  # the `Choice` that is followed; None: what is pinned
    lesson = gr.HTML(
        None,
        html_template='<div class="les"></div>',
        js_on_load=WIRING,
        script=SCRIPT.address,
        elem_id="lesson",
        apply_default_css=False,
        min_height=700,
    )

    def on_open(shown, picked, chosen, request: gr.Request):
        look = page.look(shown, request)
        with kindly():
            return lesson_value(look, chosen or start_of(look, picked))

    def on_choose(shown, picked, chosen, event: gr.EventData, request: gr.Request):
        look = page.look(shown, request)
        with kindly():
            choice = choice_of(event._data, chosen or start_of(look, picked))
            return lesson_value(look, choice), choice

    def on_failed():
        return {"failed": True, "nonce": secrets.token_hex(4)}  # each is heard

    def on_link(event: gr.EventData):
        asked = event._data if isinstance(event._data, dict) else {}
        with kindly():
            return {"qr": code_of(asked.get("url")), "nonce": secrets.token_hex(4)}  # each is shown

    page.when_open("lesson", on_open, [page.shown, page.picked, chosen], [lesson])
    inputs = [page.shown, page.picked, chosen]
    said = lesson.choose(on_choose, inputs, [lesson, chosen], **EACH, **QUIET, **MODEL_QUEUE)
    said.failure(on_failed, None, [lesson], queue=False, **QUIET)
    lesson.link(on_link, None, [lesson], queue=False, **QUIET)

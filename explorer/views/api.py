"""For programs: `/predict`, `/look` and `/map`, as `gradio_client` and a class's notebook call them.

    from gradio_client import Client, handle_file
    client = Client("http://127.0.0.1:7860")
    client.predict(picture=handle_file("cat.jpg"), api_name="/predict")

They take turns with the page's slow maps, and refuse with the same sentences. Every argument but the picture
may be left out.
"""

from typing import Any

import gradio as gr

from explorer.look import Look
from explorer.methods import METHODS
from explorer.payload import class_name, class_scores
from explorer.views.page import SLOW_QUEUE, Page, Shown, in_toast


def build(page: Page) -> None:
    target = gr.Number(-1, label="Class; -1 for the answer", precision=0, visible=False)
    method = gr.Dropdown(list(METHODS), value="rollout", label="Method", visible=False)
    answer = gr.JSON(label="Answer", visible=False)

    def asked(picture: str, model: str, size: str, request: gr.Request) -> Look:
        page.on_file(picture, request)
        return page.look(Shown(picture, model or page.session.names()[0], size), request)

    def predict(picture, model, size, request: gr.Request) -> dict[str, Any]:
        """What the model says of a picture: its likeliest classes, at most twenty. `scores` says what their
        values are: probabilities that sum to one (softmax), one for each class alone (sigmoid), or numbers
        (none)."""
        look = asked(picture, model, size, request)
        return {
            "model": look.name,
            "scores": look.card.scores,
            "classes": class_scores(look.trace(), look.card),
        }

    def look(picture, model, size, request: gr.Request) -> dict[str, Any]:
        """Where to fetch everything that the viewer shows of a picture, relative to the page's address: the
        head, every layer's attention, the embeddings, as explorer/schema.json describes them. The first fetch
        of each has it made; `explorer.payload.unpack` reads it."""
        shown = asked(picture, model, size, request)
        trace = shown.trace()
        return {
            "model": shown.name,
            "grid": list(trace.grid.shape),
            "tokens": [trace.token_name(token) for token in range(shown.cost.tokens)],
            **shown.addresses(),
        }

    def map_of(picture, model, size, method, target, request: gr.Request) -> dict[str, Any]:
        """One method's map of a class (the model's answer if none is named): a row of numbers per row of
        patches. A method that takes more than a moment takes it."""
        shown, row = asked(picture, model, size, request), METHODS.get(str(method))
        if row is None:
            raise gr.Error(f"There is no method {in_toast(str(method)[:80])}.", print_exception=False)
        if why_not := shown.refusal(row):
            raise gr.Error(why_not, print_exception=False)
        classes = shown.model.config.num_classes
        if target is not None and classes and not -1 <= target < classes:
            has = f"this model has {classes}, 0 to {classes - 1}"
            raise gr.Error(f"There is no class {target:g}: {has}.", print_exception=False)
        chosen = shown.valid_target(target)
        return {
            "model": shown.name,
            "method": method,
            "about": row.about,
            "target": chosen,
            "class": None if chosen is None else class_name(shown.card, chosen),
            "map": shown.map(row, chosen).tolist(),
        }

    inputs = [page.picture, page.model, page.size]
    options = {"triggers": [], "outputs": [answer], "show_progress": "hidden"}
    # a map may take a minute, a clip half of one to decode: no page's first picture waits for a program
    gr.on(fn=predict, inputs=inputs, api_name="predict", **options, **SLOW_QUEUE)
    gr.on(fn=look, inputs=inputs, api_name="look", **options, **SLOW_QUEUE)
    gr.on(fn=map_of, inputs=[*inputs, method, target], api_name="map", **options, **SLOW_QUEUE)

"""The lesson as a part of a page that holds all it shows: a file, or a cell of a notebook."""

import base64
from typing import Any

import torch

from explorer.lesson.answer import shared
from explorer.lesson.follow import Choice, Follow
from explorer.lesson.script import lesson_css, lesson_script
from explorer.lesson.steps import lesson_of
from explorer.payload import encode_image
from explorer.viewer import script_json
from vit.card import Card
from vit.model import ViT
from vit.trace import Trace

SECTION = """<style>{css}</style>
<main class="les-alone"><div class="les is-alone"></div></main>
<script>
{js}
{{
  const lessons = {lessons};
  const lesson = ViTLesson.mount(document.querySelector(".les"), {{ address: {address}, lessons }});
  lesson.receive({{ lesson: Object.values(lessons)[0], picture: "{picture}" }});
}}
</script>
"""
MOST_HEADS = 4  # whose numbers a page carries
TOLERANCE = 1e-3  # of a block made again


def is_of(trace: Trace, model: ViT, card: Card, choice: Choice) -> bool:
    """Is this trace what this model does by itself? One of an intervention has numbers of its own."""
    follow = Follow(trace, model, card, choice.within(trace, model.config))
    after = trace.tokens[follow.choice.layer + 1]
    scale = float(after.abs().max())
    same = torch.allclose(follow.here["resid_post"], after, atol=TOLERANCE * scale)
    with torch.no_grad():
        found = model(trace.image[None].to(next(model.parameters())))[0].float().cpu()
    return same and (not len(trace.logits) or torch.allclose(found, trace.logits, atol=TOLERANCE * 10))


def section(trace: Trace, model: ViT, card: Card, choice: Choice, address: bool = True) -> str:
    """HTML to stand below the viewer: the lesson of this choice, and the same in other heads of its layer,
    MOST_HEADS in all; nothing where the trace is of an intervention."""
    if not is_of(trace, model, card, choice):
        return ""
    choice = choice.within(trace, model.config)
    once = shared(Follow(trace, model, card, choice))
    others = [head for head in range(model.config.num_heads) if head != choice.head]
    lessons: dict[str, Any] = {}
    for head in [choice.head, *others][:MOST_HEADS]:
        at = Choice(choice.patch, choice.layer, head)
        lessons[f"{at.patch}.{at.layer}.{at.head}"] = lesson_of(trace, model, card, at, once)
    picture = encode_image(trace.image, card)
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    return SECTION.format(
        css=lesson_css(),
        js=lesson_script(),
        address=str(address).lower(),
        lessons=script_json(lessons),
        picture=f"data:image/{kind};base64,{base64.b64encode(picture).decode()}",
    )

"""What the lesson says of each kind of model: where a row of steps.py is not true of one, what stands there
instead.
"""

from collections.abc import Callable
from typing import Any

from explorer.lesson.follow import read_name_of, reads_of
from vit import model as code
from vit.config import ViTConfig

ATTEND = code.Attention.forward
Changes = dict[str, dict[str, Any]]  # of steps by their names: fields of `steps.Step`

OF_CLIPS: Changes = {
    "cut": dict(
        sentence="The clip falls apart into {h} × {w} squares at each of {t} times, {n_frames} deep. Choose "
        "one: it is ours in every step.",
        formula="{frames} frames of {height} × {width} pixels = {t} · {h} · {w} squares of {n_frames} with "
        "{p} · {p} pixels",
        lines=("kernel = ", "self.proj = nn.Conv3d"),
    ),
    "flatten": dict(
        sentence="Every pixel has a red, a green and a blue value, in {n_frames}. Our square becomes a "
        "list of {n} numbers.",
        formula="{n_frames} · {p} · {p} pixels · 3 colours = {n} numbers",
    ),
}
BY_DISTANCE: Changes = {"scores": dict(formula="q · k / √{d} + a number for the distance")}
NORM_LAST: Changes = {
    "heads": dict(
        formula="normalised (before + change) = after",
        note="The change is added, then all numbers are normalised: what was there before is part of them.",
    ),
    "mlp": dict(formula="{D} numbers → {count} detectors → {D} numbers, added again, then normalised"),
}
ONE_HEAD: Changes = {
    "ask": dict(formula="query, key, value: {d} numbers each, in the only head"),
    "heads": dict(
        title="The only head",
        sentence="This model has one head in each layer. What it found changes our token a little.",
    ),
    "times": dict(note="Go through the layers: which compare times, and which stay in their own?"),
}
ONE_LAYER: Changes = {
    "spans": dict(note="Go through the heads: does one stay in the present, does one compare distant times?"),
    "layers": dict(
        title="Before and after",
        sentence="This model has a single layer; others repeat its two moves. Watch which squares become "
        "more like ours.",
    ),
}
BY_MEAN: Changes = {  # the map is of what changed: there is no attention in it
    "read": dict(
        formula="average over {P} squares",
        lines=("patches = x", "pooled = patches"),
        note="All squares count the same here: what differs is what the last layer made of them.",
    ),
    "answer": dict(note="Hide what changed most: does the answer stay?"),
    "why": dict(
        formula="area under the curve: {looked} changed most first, {random} at random; smaller means they "
        "mattered",
        note="How much a square changed is a hint. What happens without it is the test.",
    ),
}
BY_QUERY: Changes = {
    "read": dict(
        formula="learned query · k / √d, then shares, then the mix",
        where=code.AttentionPool.forward,
        lines=("scores = tap", "read = ", "attn = tap", "pooled ="),
        note="The same drawing as before, now for a query that no token asks.",
    ),
}
BY_TWO_HEADS: Changes = {
    "answer": dict(
        sentence="Each of two heads keeps one list of numbers for each answer: one reads [CLS], one [DIST]. "
        "The best mean wins.",
        formula="(list · [CLS] + bias + list · [DIST] + bias) / 2 = logit",
        lines=("logits = self.head", "if self.head_dist", "logits = (logits"),
    ),
}
NONE_IN_FRONT: Changes = {"prefix": dict(note="Until the first layer has run no square knows of another.")}
SEVERAL_IN_FRONT: Changes = {
    "prefix": dict(note="Until the first layer has run they are the same, whatever is shown.")
}
NO_CLASSES: Changes = {
    "position": dict(note="Ask first: would it end with the same numbers, with the squares in any order?"),
    "prefix": dict(title="Who stands in front?"),
    "read": dict(chapter="The end", title="What the model ends with"),
    "answer": dict(
        chapter="The end",
        title="The numbers at the end",
        sentence="This model gives no answer: it ends with these numbers, for others to build on.",
        formula="{D} features",
        note="Who needs answers trains a small head that reads these numbers.",
    ),
}
# later rows change what earlier ones say
KINDS: tuple[tuple[Callable[[ViTConfig], bool], Changes], ...] = (
    (lambda config: config.is_clip, OF_CLIPS),
    (lambda config: config.rel_pos, BY_DISTANCE),
    (lambda config: config.post_norm, NORM_LAST),
    (lambda config: config.num_heads == 1, ONE_HEAD),
    (lambda config: config.depth == 1, ONE_LAYER),
    (lambda config: config.pool == "mean", BY_MEAN),
    (lambda config: config.pool == "attention", BY_QUERY),
    (lambda config: config.distillation, BY_TWO_HEADS),
    (lambda config: not config.prefix_names, NONE_IN_FRONT),
    (lambda config: len(config.prefix_names) > 1, SEVERAL_IN_FRONT),
    (lambda config: not config.num_classes, NO_CLASSES),
)
# by who pools: what the answer is read from; what a model without classes ends with
READ = {
    "cls": (
        "Now follow {read_name}, from which the answer is read: in the last layer it collects from these "
        "squares.",
        "Now follow {read_name}, whose numbers the model ends with: in the last layer it collects from these "
        "squares.",
    ),
    "mean": (
        "The answer is read from the average of all squares: here is how much the last layer changed each "
        "one.",
        "The model ends with the average of all squares: here is how much the last layer changed each one.",
    ),
    "attention": (
        "One learned query looks at {pooled} of the last layer: the answer is made from what it finds.",
        "One learned query looks at {pooled} of the last layer: the model ends with what it finds.",
    ),
}
COLLECTED = {
    "mean": "the average of all squares",
    "attention": "what one learned query collects from all squares",
}
TURN = dict(where=ATTEND, lines=("if turn is not None", "q, k = (rotate"))


def changes_of(config: ViTConfig) -> Changes:
    """What the steps of this model say otherwise."""
    found: Changes = {
        "position": position_of(config),
        "prefix": dict(sentence=front_of(config)),
        "read": dict(sentence=READ[config.pool][config.num_classes == 0]),
    }
    for is_so, changes in KINDS:
        if is_so(config):
            found |= {name: found.get(name, {}) | fields for name, fields in changes.items()}
    return found


def front_of(config: ViTConfig) -> str:
    """Who stands in front of the squares, and what for."""
    names, ends = config.prefix_names, config.num_classes == 0
    if not names:
        comes = "the model ends with" if ends else "in the end the answer comes from"
        return f"No extra token stands in front: {comes} {COLLECTED[config.pool]}."
    several = len(names) > 1
    who = f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
    who += f" {'stand' if several else 'stands'} in front of the squares. "
    if reads_of(config):
        return who + (
            "The model ends with {read_name}; it has seen nothing yet."
            if ends
            else "In the end {read_name} must answer; it has seen nothing yet."
        )
    if config.pool == "attention" and config.pool_prefix:
        return who + f"In the end one learned query reads {'them' if several else 'it'} and all squares."
    return who + ("They only help." if several else "It only helps.")


def position_of(config: ViTConfig) -> dict[str, Any]:
    """What is different in "Where am I?" where positions are not, or not only, added."""
    if config.rel_pos:
        added = config.pos_embed != "none"
        return dict(
            sentence=("Numbers for the place are added." if added else "Nothing is added here.")
            + " Every layer also adds to each score a learned number for how far apart two squares are.",
            formula="in every layer: q · k / √{d} + a number for the distance",
            where=ATTEND, lines=("scores = tap",),
        )  # fmt: skip
    if config.rope == "none":
        if config.pos_embed != "none" and config.is_clip:
            return dict(
                title="Where and when am I?",
                sentence="Numbers for place and time are added. Without them the model would know neither "
                "where a square was nor when.",
            )
        if config.pos_embed != "none":
            return {}
        return dict(
            sentence="This model is told no places: to it, the squares could stand in any order.",
            formula="embedding = what the first layer reads",
            where=code.ViT.embed, lines=("if self.pos_embed is not None",),
        )  # fmt: skip
    if config.pos_embed == "none":
        return TURN | dict(
            sentence="Nothing is added. Instead every layer turns what a square looks for and what it offers "
            "by angles that depend on its place.",
            formula="(turned q) · (turned k): what counts is how far apart two squares are",
        )
    return TURN | dict(
        sentence="Numbers for the place are added. Every layer also turns what a square looks for and offers "
        "by angles that depend on its place.",
        formula="embedding + position; in every layer (turned q) · (turned k)",
    )


def words_of_kind(config: ViTConfig) -> dict[str, str]:
    """What braces of these sentences stand for."""
    every = config.pool_prefix and config.prefix_names
    return {"read_name": read_name_of(config), "pooled": "all tokens" if every else "all squares"}

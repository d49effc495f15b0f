"""The steps of the lesson, one row each, and the JSON that the browser draws.

A sentence has at most 25 everyday words. Its braces, and those of the formula, take numbers of the step.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from explorer.lesson import answer, attention, through_time
from explorer.lesson.follow import Choice, Follow, Numbers, read_name_of, reads_of, strongest
from explorer.lesson.kinds import ATTEND, changes_of, words_of_kind
from explorer.payload import class_name
from explorer.render import COLORMAPS, DEFAULT, DEFAULT_SIGNED, OPACITY, number
from vit import model as code
from vit.card import Card
from vit.config import ViTConfig
from vit.model import ViT
from vit.trace import Trace

VERSION = 1
MOST_WORDS = 25
START = Choice()
OF_PASSES = ("order", "frozen", "why")  # steps whose numbers take passes of their own: `answer.shared`


@dataclass(frozen=True)
class Step:
    """One screen: what it says, the lines of code that do it, and its numbers."""

    name: str  # of its drawing
    chapter: str
    title: str
    sentence: str  # empty where every kind of model has its own: kinds.py
    formula: str
    numbers: Callable[[Follow], Numbers]
    where: Any  # what of vit/model.py, or near it, does it,
    lines: tuple[str, ...]  # and how those of its lines begin
    note: str = ""  # for who teaches
    needs: Callable[[ViTConfig], bool] = lambda config: True  # of the model, to have this step


def reads_clips(config: ViTConfig) -> bool:
    return config.is_clip


def answers(config: ViTConfig) -> bool:
    return config.num_classes > 0


STEPS = (
    Step(
        "cut", "Squares become numbers", "Cut",
        "The picture falls apart into {h} × {w} squares of {p} × {p} pixels. Choose one: it is ours "
        "in every step.",
        "{height} × {width} pixels = {h} · {w} squares of {p} · {p} pixels",
        attention.cut, code.PatchEmbed, ("self.proj = nn.Conv2d", "config.in_chans, config.embed_dim"),
        "Let the class choose the square: it stays theirs to the end.",
    ),
    Step(
        "flatten", "Squares become numbers", "Flatten",
        "Every pixel has a red, a green and a blue value. Our square becomes a list of {n} numbers.",
        "{p} · {p} pixels · 3 colours = {n} numbers",
        attention.flatten, code.PatchEmbed, ("patches = self.proj",),
        "Nothing else is known of the square: no edges, no names.",
    ),
    Step(
        "embed", "Squares become numbers", "Compare with patterns",
        "The square is compared with {D} learned patterns. How well each one fits becomes one of {D} "
        "new numbers.",
        "pattern · square + bias = one of {D} numbers",
        attention.embed, code.PatchEmbed, ("patches = self.proj",),
        "Point at a pattern: its products with the square add up to one number.",
    ),
    Step(
        "tubelet", "Squares become numbers", "Does it move?",
        "A pattern reaches through {n_frames}, too. Part of its result comes from what they share, "
        "part from what changes between them.",
        "pattern · mean of the frames + pattern · what changes + bias = one of {D} numbers",
        through_time.tubelet, code.PatchEmbed, ("kernel = ", "self.proj = nn.Conv3d"),
        "Choose a square in which something moves, then one in which nothing does.",
        lambda config: config.tubelet > 1,
    ),
    Step(
        "position", "Squares become numbers", "Where am I?",
        "Numbers for the place are added. Without them the model would not know where in the picture "
        "a square was.",
        "embedding + position = what the first layer reads",
        attention.position, code.ViT.embed, ("pos_embed = resample_pos_embed", "x = x + torch.cat"),
        "Ask first: would the answer be the same with the squares in any order?",
    ),
    Step(
        "prefix", "Squares become numbers", "Who will answer?", "",
        "{T} tokens = {before} in front + {P} squares",
        attention.prefix, code.ViT.embed, ("tokens = [token for token", "x = torch.cat"),
        "Until the first layer has run it is the same, whatever is shown.",
    ),
    Step(
        "ask", "One layer", "Ask, offer, carry",
        "From every token come three short lists: what it looks for, what it offers, and what it "
        "would pass on.",
        "query, key, value: {d} numbers each, in each of {H} heads",
        attention.ask, ATTEND, ("q, k, v = self.qkv", "q, k, v = tap"),
        "The three lists are three views of the same token.",
    ),
    Step(
        "scores", "One layer", "Does it fit?",
        "What our square looks for is compared with what each token offers: multiply number by "
        "number, then add.",
        "q · k / √{d}", attention.scores, ATTEND, ("scores = ",),
        "Point at another square and watch the sum change.",
    ),
    Step(
        "softmax", "One layer", "Shares of attention",
        "The scores become shares of attention: none is negative, and together they are 100 %. The "
        "slider makes them sharper or flatter.",
        "share = exp(score) / sum of all exp(score)", attention.softmax, ATTEND, ("attn = tap",),
        "Ask before the reveal: which squares will this head look at?",
    ),
    Step(
        "mix", "One layer", "Mix",
        "Our square collects what the others pass on, each weighted by its share. The sum is this "
        "head's result.",
        "z = share · value, added up over {T} tokens", attention.mix, ATTEND, ("z = tap",),
        "Most of the sum comes from a few tokens, or from very many: it depends on the head.",
    ),
    Step(
        "heads", "One layer", "All heads together",
        "All {H} heads do this at once, each in its own way. Together they change our token a little.",
        "before + change = after", attention.heads, ATTEND, ("return self.proj(z",),
        "The change is added: what was there before is still there.",
    ),
    Step(
        "mlp", "One layer", "Think alone",
        "Now every token is on its own: {count} small detectors look at its numbers, and {active} of "
        "them respond to ours.",
        "{D} numbers → {count} detectors → {D} numbers, added again",
        attention.mlp, code.Mlp.forward, ("x = tap", "return self.fc2"),
        "This is where most of the weights are.",
    ),
    Step(
        "times", "Through time", "Before, now, after",
        "All times stand in one row of tokens. Our square's attention goes to all of them at once: how much "
        "to which?",
        "share of a time = sum of the shares of its {h} · {w} squares", through_time.times, ATTEND,
        ("scores = ", "attn = tap"),
        "Step through the heads: which compare times, and which stay in their own?", reads_clips,
    ),
    Step(
        "spans", "Through time", "How far in time",
        "How far away in time do all squares of this layer look? Each head has a reach; the line is one that "
        "looks everywhere alike.",
        "share of a distance = attention between times so far apart, over all squares", through_time.spans,
        ATTEND, ("q, k, v = self.qkv", "attn = tap"),
        "Go through the layers: does a head stay in the present, does one compare distant times?",
        reads_clips,
    ),
    Step(
        "layers", "All layers", "Again and again",
        "The same two moves repeat in all {L} layers. Watch which squares become more and more like ours.",
        "how alike two tokens are: 1 the same direction, 0 nothing in common",
        attention.layers, code.ViT.run, ("for layer in range", "tokens = self.blocks"),
        "Play it. Squares of one thing often become alike.",
    ),
    Step(
        "read", "The answer", "What the answer is read from", "",
        "{read_name}: q · k / √{d}, then shares, then the mix",
        answer.read, code.ViT.read_out, ("pooled = x",),
        "The same drawing as before, now for what is read at the end.",
    ),
    Step(
        "answer", "The answer", "The answer",
        "For each answer the model keeps one list of numbers. The list that fits what was collected best "
        "wins.",
        "list · numbers + bias = logit",
        answer.answer, code.ViT.read_out, ("logits = self.head",),
        "Hide what it looked at: does the answer stay?",
    ),
    Step(
        "order", "The answer", "The frames in another order",
        "The same frames, backwards or shuffled. If the answer changes, it was read from their order, not "
        "just from what they show.",
        "position of a time + another frame = another token", lambda f: {}, code.ViT.embed,
        ("pos_embed = resample_pos_embed", "x = x + torch.cat"),
        "Let the class say first what the clip looks like backwards.",
        lambda config: reads_clips(config) and answers(config),
    ),
    Step(
        "frozen", "The answer", "Can one moment tell?",
        "{still} Is the answer the same?",
        "clip = one frame, {frames} times over", lambda f: {}, answer.with_frames,
        ("return trace",),
        "What survives a single frame was read from how things look, not from how they move.",
        lambda config: reads_clips(config) and answers(config),
    ),
    Step(
        "why", "The answer", "But is it why?",
        "Did it really need those squares? We take them away, one after the other, and watch the answer.",
        "area under the curve: {looked} looked at first, {random} at random; smaller means they mattered",
        lambda f: {}, code.ViT.forward, ("tokens = self.embed", "return self.read_out"),
        "Attention is a hint. What happens without the squares is the test.",
        answers,
    ),
)  # fmt: skip


def steps_for(model: ViT) -> tuple[Step, ...]:
    """Those that this model has, with the words and the lines of its kind."""
    config = model.config
    found = [step for step in STEPS if step.needs(config)]
    changes = changes_of(config)
    return tuple(replace(step, **changes.get(step.name, {})) for step in found)


@cache
def lines_of(step: Step) -> str:
    """The lines of code that do it, as they stand there."""
    source = inspect.cleandoc(inspect.getsource(step.where)).splitlines()
    found = [line for line in source if line.strip().startswith(step.lines)]
    return inspect.cleandoc("\n".join(found))


def words_of(f: Follow, data: dict[str, Numbers], shared: Numbers) -> dict[str, Any]:
    """What the braces of sentences and formulas stand for."""
    looked, random = shared.get("why", {}).get("areas", (0, 0))
    return words_of_model(f.config, size_of(f.trace)) | {
        "active": data["mlp"]["active"],
        "looked": number(looked, ".3f"),
        "random": number(random, ".3f"),
    }


def size_of(trace: Trace) -> tuple[int, int]:
    """(height, width) in pixels."""
    return trace.image.shape[-2], trace.image.shape[-1]


def words_of_model(config: ViTConfig, size: tuple[int, int]) -> dict[str, Any]:
    """Those of them that are the same for every picture or clip of this size, (height, width) in pixels."""
    grid, p, n = config.grid_at(size), config.patch_size, config.tubelet
    h, w = grid.space
    return {
        "t": grid.frames, "h": h, "w": w, "p": p, "frames": config.num_frames, "height": size[0],
        "width": size[1], "n": config.in_chans * n * p * p, "n_frames": f"{n} frame{'s' * (n > 1)}",
        "D": config.embed_dim, "d": config.head_dim, "H": config.num_heads, "L": config.depth,
        "P": grid.count, "T": len(config.prefix_names) + grid.count, "before": len(config.prefix_names),
        "count": config.mlp_dim // (2 if config.activation == "swiglu" else 1),
        "still": "A single frame is shown all the time: nothing moves."
        + (f" Then one time, {n} frames over and over." if n > 1 else ""),
    } | words_of_kind(config)  # fmt: skip


def questions(f: Follow, data: dict[str, Numbers], shared: Numbers) -> dict[str, Numbers]:
    """What is asked before the reveal, with the right answer."""
    shares = f.here["attn"][f.choice.head, f.token, f.prefix :]
    count = max(3, len(shares) // 10)
    asked: dict[str, Numbers] = {
        "softmax": {
            "kind": "squares",
            "ask": "Which squares will this head look at? Choose three.",
            "right": strongest(shares, count),
        }
    }
    if bag := shared.get("bag"):
        same = bag["with"]["name"] == bag["without"]["name"]
        told = "its place or time" if f.config.is_clip else "its place"
        asked["position"] = yes_or_no(f"If no square were told {told}: would the answer be the same?", same)
    if f.config.is_clip:
        asked |= questions_of_clips(f, data, shared)
    if f.config.num_classes > 2:
        top = strongest(f.trace.logits, 1)[0]
        others = strongest(f.trace.logits, 4)
        options = sorted(others)
        names = [class_name(f.card, k) for k in options]
        asked["answer"] = {
            "kind": "choice",
            "ask": "What will it say?",
            "options": names,
            "right": options.index(top),
        }
    if why := shared.get("why"):
        those = "that changed most" if data["read"]["kind"] == "mean" else "it looked at"
        asked["why"] = yes_or_no(
            f"Will the squares {those} matter more than squares picked at random?",
            why["areas"][0] < why["areas"][1],
        )
    return asked


def questions_of_clips(f: Follow, data: dict[str, Numbers], shared: Numbers) -> dict[str, Numbers]:
    """follows: another choice of patch, layer or head is another question."""
    ours, of_time = data["times"]["ours"], torch.tensor(data["times"]["times"])
    most = strongest(of_time, 1)[0]
    asked: dict[str, Numbers] = {
        "times": {
            "kind": "choice",
            "ask": "Which time does this head look at most?",
            "options": ["The square's own", "An earlier one", "A later one"],
            "right": 0 if most == ours else 1 if most < ours else 2,
            "follows": True,
        }
    }
    if "order" in shared:
        filmed, backwards, *_ = shared["order"]["asked"]
        asked["order"] = yes_or_no(
            "Played backwards: will it say the same?", filmed["says"] == backwards["says"]
        )
        frames = shared["frozen"]["asked"][: f.config.num_frames]
        some = any(held["says"] == filmed["says"] for held in frames)
        asked["frozen"] = yes_or_no("Is there a single frame that gives the same answer?", some)
    return asked


def yes_or_no(ask: str, yes: bool) -> Numbers:
    return {"kind": "choice", "ask": ask, "options": ["Yes", "No"], "right": 0 if yes else 1}


def lesson_of(
    trace: Trace, model: ViT, card: Card, choice: Choice = START, shared: Numbers | None = None
) -> dict[str, Any]:
    """The whole lesson of one choice as JSON. shared: what `answer.shared` gave for this picture, if it is
    there already."""
    follow = Follow(trace, model, card, choice.within(trace, model.config))
    shared = answer.shared(follow) if shared is None else shared
    data = {step.name: step.numbers(follow) for step in steps_for(model)}
    data |= {name: shared[name] for name in OF_PASSES if name in data}
    if "why" in data:
        data["answer"] |= {"without": shared["without"]}
        data["position"] |= {"bag": shared["bag"]}
    words, asked = words_of(follow, data, shared), questions(follow, data, shared)
    choice = follow.choice
    steps = [
        {
            **told(step),
            "sentence": step.sentence.format(**words),
            "formula": step.formula.format(**words),
            "question": asked.get(step.name),
            "data": data[step.name],
        }
        for step in steps_for(model)
    ]
    return {
        **frame_of(model, card, size_of(trace)),
        "choice": {"patch": choice.patch, "layer": choice.layer, "head": choice.head},
        "steps": steps,
    }


def told(step: Step) -> dict[str, str]:
    """What a step says whatever the picture."""
    return {
        "name": step.name,
        "chapter": step.chapter,
        "title": step.title,
        "file": step.where.__module__.replace(".", "/") + ".py",
        "code": lines_of(step),
        "note": step.note,
    }


def frame_of(model: ViT, card: Card, size: tuple[int, int]) -> dict[str, Any]:
    """What the lesson says of a model whatever the picture of this size."""
    config = model.config
    return {
        "version": VERSION,
        "model": card.name,
        "grid": list(config.grid_at(size).shape),  # (h, w), or (t, h, w)
        "frames": config.num_frames,
        "layers": config.depth,
        "heads": config.num_heads,
        "prefix": list(config.prefix_names),
        "size": list(size),
        "colours": {
            "map": COLORMAPS[DEFAULT].tobytes().hex(),
            "signed": COLORMAPS[DEFAULT_SIGNED].tobytes().hex(),
            "opacity": OPACITY,
        },
    }


class Later(dict[str, Any]):
    """Words of which those that are missing stay as they stand: "{active}"."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"


def outline_of(model: ViT, card: Card, size: tuple[int, int]) -> dict[str, Any]:
    """The lesson without its numbers, for whoever takes them elsewhere (explorer/site/js/lesson.js): `steps`
    without "question" and "data", whose sentences and formulas keep the braces that a picture fills; `frame`,
    what stands beside the steps; and what has to be known of the model to take the numbers."""
    words, config = Later(words_of_model(model.config, size)), model.config
    steps = [
        {
            **told(step),
            "sentence": step.sentence.format_map(words),
            "formula": step.formula.format_map(words),
        }
        for step in steps_for(model)
    ]
    return {
        "frame": frame_of(model, card, size),
        "steps": steps,
        "side": config.patch_size,
        "classes": config.num_classes,
        "reads": reads_of(config),
        "read_name": read_name_of(config),
        "pools": config.pool == "attention",
        "post_norm": config.post_norm,
        "pre_norm": config.pre_norm,
        "chance": answer.by_chance(config.grid_at(size)),
        "tubelet": config.tubelet,
        "orders": answer.orders_of(config.num_frames, config.tubelet) if config.is_clip else [],
        "held": answer.held_still(config.num_frames, config.tubelet) if config.is_clip else [],
    }

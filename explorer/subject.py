"""What is taken home: a picture that a model has looked at, in words and as it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from explorer.methods import METHODS
from explorer.payload import class_scores, explained, written
from vit.card import Card
from vit.config import ViTConfig
from vit.grid import Grid
from vit.model import Hook, ViT
from vit.objective import Contrast
from vit.pictures import as_picture
from vit.trace import Trace, trace


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture that a model has looked at: what every figure here is made from."""

    name: str  # of the picture
    trace: Trace
    model: ViT
    card: Card

    @cached_property
    def picture(self) -> np.ndarray:
        """(height, width, 3) uint8: the very pixels the model saw, in their true colours; of a clip the first
        frame of each time, side by side."""
        image = self.trace.image
        first = image[:: self.model.config.tubelet] if image.dim() > 3 else image
        return as_picture(first, self.card)

    def frame(self, time: int) -> np.ndarray:
        """(height, width, 3): one of the frames of `picture`."""
        width = self.trace.image.shape[-1]
        return self.picture[:, time * width : (time + 1) * width]

    def sheet(self, maps: Tensor) -> np.ndarray:
        """Maps (..., h, w) as they lie on `picture`; those of a clip, (..., t, h, w), side by side."""
        return (Grid.side_by_side(maps) if len(self.trace.grid.shape) > 2 else maps).numpy()

    def answers(self, count: int = 3) -> str:
        """The likeliest classes in words: "church 81 %, gas pump 9 %"."""
        likeliest = class_scores(self.trace, self.card)[:count]
        words = (f"{answer['name']} {written(self.card, answer['value'])}" for answer in likeliest)
        return ", ".join(words) or "no classes: this model has no head"

    def token_name(self, query: int | None) -> str:
        """The query in words; None is what the class is read from."""
        if query is None:
            return what_is_read(self.model.config)
        return self.trace.token_name(query)

    def patch(self, query: int | None) -> tuple[int, int] | None:
        """(row, column) of a token on `picture`; None for prefix tokens."""
        if query is None or query < self.trace.num_prefix_tokens:
            return None
        grid = self.trace.grid
        *time, row, column = grid.place(query - self.trace.num_prefix_tokens)
        return row, column + sum(time) * grid.shape[-1]


def what_is_read(config: ViTConfig) -> str:
    """What the head reads, in words: `explorer.ledger.pooled_rows`."""
    if config.pool == "mean":
        return "the mean over patches"
    if config.pool == "attention":
        return f"the {'tokens' if config.pool_prefix else 'patches'} that are pooled"
    return " and ".join(config.prefix_names[: config.num_class_tokens + config.distillation])


@dataclass(frozen=True)
class Style:
    """How figures look."""

    theme: str = "light"
    colormap: str | None = None
    smooth: bool = False
    lines: bool = False  # between patches


PLAIN = Style()


def subject_of(
    name: str,
    image: Tensor,
    model: ViT,
    card: Card,
    target: int | None = None,
    edits: Sequence[Hook] = (),
    contrast: Contrast = None,
) -> Subject:
    """Run the model on a preprocessed image (3, height, width); with a target, and perhaps what it is
    explained against, keep its gradients too; edits intervene."""
    return Subject(name, trace(model, image, target=target, contrast=contrast, edits=edits), model, card)


def readme(subject: Subject, *lines: str) -> dict[str, np.ndarray]:
    """The array of an NPZ that says what the others are of."""
    about = f"{subject.name}, {subject.card.name}: {subject.answers()}"
    return {"README": np.array("\n".join([about, *lines]))}


def map_title(name: str, traced: Trace, layer: int | None, head: int | None, fuse: str = "mean") -> str:
    """The method, and the layer and the heads that its map shows."""
    known, parts = METHODS[name].options, [METHODS[name].label]
    if "layer" in known:
        at = METHODS[name].default("layer") if layer is None else layer
        parts.append(f"L{at % (len(traced.tokens) - 1)}")
    if "head" in known and head is not None:
        parts.append(f"H{head % traced.attn.shape[1]}")
    elif "head" in known:
        parts.append(f"{fuse} of heads" if "fuse" in known else "all heads")
    return ", ".join(parts)


def what_was_asked(
    subject: Subject,
    methods: Sequence[str],
    query: int | None,
    target: int | None,
    contrast: Contrast = None,
) -> list[str]:
    """The query and the class in words, where one of the methods depends on them."""
    words = []
    if any("query" in METHODS[name].options for name in methods):
        words.append(f"query: {subject.token_name(query)}")
    if target is not None and any(METHODS[name].class_specific for name in methods):
        words.append(f"class explained: {explained(subject.card, target, contrast)}")
    return words

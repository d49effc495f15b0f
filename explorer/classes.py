"""Classes of a visitor's own: words that are typed, or pictures that are shown, in place of the model's.

For models without a head. Words need a tower that was trained with texts; pictures do with any. What is made
is a model with a head of these classes, which every method explains as it does others'.

K classes, E numbers of the space that pictures and texts share, D width, n pictures of a class.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from vit.card import Card, CheckpointError
from vit.config import ViTConfig
from vit.model import ViT
from vit.pictures import open_safely, preprocess
from vit.prototypes import with_means, without_head
from vit.words import CONTROL, Tower, text_vectors, with_words, words_in

MOST, LONGEST = 20, 80  # words, and letters of each: what a page asks for at once
MOST_PICTURES = 20  # of one class
ALIKE = 0.8  # correlation with the control's map from which on a word's map is no evidence of the word


@dataclass(frozen=True, eq=False)
class Head:
    """What a visitor's classes make of a model for one picture, without any of the model's own weights: it
    may be kept for as long as the visitor looks, and the model may be forgotten."""

    config: ViTConfig
    card: Card
    weight: Tensor = field(repr=False)  # (K, D)
    bias: Tensor = field(repr=False)  # (K,)

    @classmethod
    def of(cls, model: ViT, card: Card) -> "Head":
        assert isinstance(model.head, nn.Linear)
        return cls(model.config, card, model.head.weight, model.head.bias)

    def on(self, model: ViT) -> ViT:
        """This model with this head, in its precision: all other weights are shared."""
        like, worn = next(model.parameters()), copy(model)
        worn._modules = dict(model._modules)  # the blocks are the same, the list of them is not
        classes, width = self.weight.shape
        worn.head = nn.Linear(width, classes, device="meta")
        for name, x in (("weight", self.weight), ("bias", self.bias)):
            setattr(worn.head, name, nn.Parameter(x.to(like), requires_grad=False))
        worn.config = self.config
        if not self.config.distillation:
            worn.head_dist = None  # of the model that was: these classes are read from one token
        return worn.eval()


@dataclass(frozen=True, eq=False)
class Words:
    """Typed classes of one tower, whose model they do not hold."""

    names: tuple[str, ...]
    vectors: Tensor = field(repr=False)  # (K, E), each of length 1
    control: Tensor = field(repr=False)  # (E,) of a prompt that means nothing
    folder: Path  # this and the following: of the tower
    projection: Tensor | None = field(repr=False)  # (E, D)
    scale: float
    bias: float | None

    @classmethod
    def of(cls, tower: Tower, names: tuple[str, ...], vectors: Tensor, control: Tensor) -> "Words":
        return cls(names, vectors, control, tower.folder, tower.projection, tower.scale, tower.bias)

    @cached_property
    def key(self) -> str:
        """What tells them from others."""
        return digest([*self.names], self.vectors)

    @property
    def address(self) -> str:
        """What a link says of them: no word has a comma."""
        return ",".join(self.names)

    def put_on(self, model: ViT, card: Card, image: Tensor) -> tuple[ViT, Card]:
        """(model, card) that answers with them: exactly the tower's cosines for this image."""
        return with_words(self.tower(model, card), self.vectors.to(image), self.names, image)

    def tower(self, model: ViT, card: Card) -> Tower:
        """Their tower, with its model, which whoever asks holds."""
        projection = self.projection
        if projection is not None:
            projection = projection.to(next(model.parameters()))
        return Tower(card.name, model, card, self.folder, projection, self.scale, self.bias)


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Shown classes: the features (n, D) of a few pictures each."""

    names: tuple[str, ...]
    features: tuple[Tensor, ...] = field(repr=False)

    @cached_property
    def key(self) -> str:
        """What tells them from others."""
        return digest([*self.names], *self.features)

    @property
    def address(self) -> str:
        """No link can carry pictures."""
        return ""

    def put_on(self, model: ViT, card: Card, image: Tensor) -> tuple[ViT, Card]:
        """(model, card) whose answer is the nearest class."""
        means = torch.stack([each.mean(dim=0) for each in self.features])
        spread = sum(float((each - each.mean(dim=0)).square().sum()) for each in self.features)
        count = sum(map(len, self.features)) - len(self.features)
        return with_means(model, card, self.names, means, spread / max(count, 1))

    def and_also(self, name: str, features: Tensor) -> "Prototypes":
        """One class more, or one in the place of that of the same name. Raises ValueError for too many."""
        kept = dict(zip(self.names, self.features)) | {name: features}
        if len(kept) > MOST:
            raise ValueError(f"{len(kept)} classes are more than {MOST}.")
        return Prototypes(tuple(kept), tuple(kept.values()))


Classes = Words | Prototypes


def digest(names: Sequence[str], *tensors: Tensor) -> str:
    shapes = [list(x.shape) for x in tensors]  # where one ends and the next begins
    found = hashlib.sha256(json.dumps([list(names), shapes]).encode())
    for x in tensors:
        found.update(x.float().cpu().numpy().tobytes())
    return found.hexdigest()[:20]


def typed(text: str) -> tuple[str, ...]:
    """ "a dog, grass" -> words. Raises ValueError for none, for doubles, for too many or too long ones."""
    words = words_in(text)
    if len(words) > MOST:
        raise ValueError(f"{len(words)} words are more than {MOST}: leave some out.")
    if too_long := [word for word in words if len(word) > LONGEST]:
        raise ValueError(f"{too_long[0][:30]!r}… is longer than {LONGEST} letters: say it in fewer words.")
    return words


def words_of(tower: Tower, words: tuple[str, ...]) -> Words:
    """Their vectors, through the text tower. Raises CheckpointError."""
    both = text_vectors(tower, [*words, CONTROL] if CONTROL not in words else words)
    at = words.index(CONTROL) if CONTROL in words else len(words)
    return Words.of(tower, words, both[: len(words)], both[at])


@torch.no_grad()
def shown(
    model: ViT,
    card: Card,
    files: Sequence[str | Path],
    passing: AbstractContextManager,
    wanted: Callable[[], None] = lambda: None,
) -> Tensor:
    """(n, D): what the model makes of a class's pictures, each pass in `passing`: nobody's waits until the
    next picture is decoded. wanted: called before each, raises Left to end it. Raises PictureError,
    CheckpointError."""
    if not files:
        raise CheckpointError("Choose at least one picture of this class.")
    if len(files) > MOST_PICTURES:
        raise CheckpointError(f"{len(files)} pictures are more than {MOST_PICTURES} for one class.")
    bare, size = without_head(model), card.size_for(model.config)
    device = next(model.parameters()).device
    features = []
    for file in files:
        wanted()
        image = preprocess(open_safely(Path(file)), card, size).to(device)
        with passing:
            features.append(bare(image[None])[0].cpu())
    return torch.stack(features)

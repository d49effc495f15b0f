"""What a checkpoint may say of itself: the card beside its architecture, and the bounds of both."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vit.config import FIELDS, ViTConfig, fits

FORMAT, VERSION = "vit-explorer", 1
# larger than any published ViT: a config beyond these is broken or hostile, and is not built
LIMITS = {"depth": 200, "embed_dim": 32_768, "num_classes": 200_000, "num_registers": 999, "in_chans": 999}
LIMITS |= {"dropout": 1, "drop_path": 1, "norm_eps": 1, "num_frames": 4096, "pos_square": 1024}
MAX_TOKENS, MAX_PARAMETERS = 70_000, 8_000_000_000
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
# what transformers writes as problem_type: what a logit means (see Card.scores)
PROBLEMS = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "none",
}


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says why and what to do, in one sentence."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split())[:500])  # whatever a hostile file put into it


@dataclass(frozen=True)
class Card:
    """What a checkpoint says about itself beside its architecture."""

    name: str
    class_names: tuple[str, ...] = ()  # K names; empty for a model without a head
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # of the three channels, pixels in [0, 1]
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop_pct: float = 1.0  # share of the resized picture that the centre crop keeps
    interpolation: str = "bicubic"
    # (height, width) that a picture is brought to; None: the model's own
    image_size: tuple[int, int] | None = None
    accuracy: float | None = None  # in [0, 1], on the whole test split
    source: str = ""  # who trained it, on what
    command: str = ""  # the exact training command
    data: str = ""  # the data set, in words
    # what a logit means: "softmax", one class of all; "sigmoid", a yes or no for each class by itself;
    # "none", a number that is no probability
    scores: str = "softmax"

    @property
    def note(self) -> str:
        """What its user should know of a model from elsewhere: what was left out or assumed."""
        return "" if self.command else self.source

    def probabilities(self, logits: Tensor) -> Tensor:
        """What logits (..., K) say of each class, in [0, 1]. Raises ValueError where they are none."""
        if self.scores == "none":
            raise ValueError(f"{self.name} gives numbers, not probabilities.")
        return logits.sigmoid() if self.scores == "sigmoid" else logits.softmax(dim=-1)

    def values(self, logits: Tensor) -> Tensor:
        """What every screen, file and race takes of logits (..., K): probabilities, or else the logits."""
        return logits if self.scores == "none" else self.probabilities(logits)

    @property
    def value_name(self) -> str:
        """What `values` are, in words."""
        return "value" if self.scores == "none" else "probability"

    def size_for(self, config: ViTConfig) -> tuple[int, int]:
        """(height, width) of a picture for the model of this config."""
        return self.image_size or config.image_size


def told(path: Path) -> str:
    """A file as messages name it: in its folder, without the way there, which is nobody's business."""
    return "/".join(path.parts[-2:])


def parse_config(config: Mapping[str, Any], path: Path) -> tuple[ViTConfig, Card]:
    """config.json -> (ViTConfig, Card). Raises CheckpointError, naming the file and the field."""
    where, version = told(path), config.get("version")
    if not isinstance(version, int):
        raise CheckpointError(f"{where} has version {version!r}, which is no number: save it again.")
    if version > VERSION:
        raise CheckpointError(f"{where} has version {version!r}, newer than {VERSION}: update ViT Explorer.")
    shape, rest = config.get("model"), dict(config)
    for key in ("format", "version", "save_id", "model"):
        rest.pop(key, None)
    if not isinstance(shape, dict):
        raise CheckpointError(f'{where} has no "model": the description of the architecture is missing.')
    known = {"model": FIELDS, "card": tuple(f.name for f in fields(Card))}
    for part, keys in (("model", shape), ("card", rest)):
        for key in keys:
            if key not in known[part]:
                raise CheckpointError(f"{where}: unknown field {key!r}, remove it or update ViT Explorer.")
    try:
        model_config = checked(ViTConfig(**typed(ViTConfig, shape)))
        card = parse_card({"scores": scores_of(None, model_config.num_classes)} | rest)
        size = card.size_for(model_config)
        checked(replace(model_config, image_size=size))
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{where} describes no ViT that can be built: {error}") from error
    if len(card.class_names) not in (0, model_config.num_classes):
        names, classes = len(card.class_names), model_config.num_classes
        raise CheckpointError(f"{where} has {names} class_names for a model of {classes} classes.")
    return model_config, replace(card, image_size=size)


def parse_card(values: Mapping[str, Any]) -> Card:
    """A Card that a picture can be prepared by. Raises TypeError, ValueError, naming the field."""
    card = Card(**typed(Card, values))
    for name, low in (("mean", -10), ("std", 0.001)):
        numbers = getattr(card, name)
        if len(numbers) != 3 or not all(low <= x <= 10 for x in numbers):
            raise ValueError(f"{name} must be three numbers between {low} and 10, not {numbers}.")
    if not 0.1 <= card.crop_pct <= 1:
        raise ValueError(f"crop_pct must lie between 0.1 and 1, not {card.crop_pct}.")
    if card.accuracy is not None and not 0 <= card.accuracy <= 1:
        raise ValueError(f"accuracy must lie between 0 and 1, not {card.accuracy}.")
    if card.interpolation not in INTERPOLATIONS:
        known = ", ".join(INTERPOLATIONS)
        raise ValueError(f"interpolation must be one of {known}, not {card.interpolation!r}.")
    if card.scores not in PROBLEMS.values():
        raise ValueError(f"scores must be softmax, sigmoid or none, not {card.scores!r}.")
    return card


def scores_of(problem: Any, num_classes: int) -> str:
    """`Card.scores` by transformers' word for it and the number of outputs.

    Where nothing is said, one output is a yes or no: a softmax over it would be 1 whatever the picture.
    Raises ValueError for another word.
    """
    if problem is None:
        return "sigmoid" if num_classes == 1 else "softmax"
    if problem not in PROBLEMS:
        raise ValueError(f"problem_type must be one of {', '.join(PROBLEMS)}, not {problem!r}.")
    return "sigmoid" if num_classes == 1 and PROBLEMS[problem] == "softmax" else PROBLEMS[problem]


def typed(kind: type[ViTConfig | Card], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with JSON's lists as tuples, if each has its field's type. Raises TypeError."""
    tuples = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
    for f in fields(kind):
        if f.name in tuples and not fits(tuples[f.name], f.type):
            raise TypeError(f"{f.name} must be {f.type}, not {tuples[f.name]!r}.")
    return tuples


def checked(config: ViTConfig) -> ViTConfig:
    """The config itself, if it is of a size that a ViT can have. Raises ValueError."""
    for name, limit in LIMITS.items():
        if not 0 <= getattr(config, name) <= limit:
            raise ValueError(f"{name} must lie between 0 and {limit}, not {getattr(config, name)}.")
    if not 0 < config.mlp_ratio <= 64:
        raise ValueError(f"mlp_ratio must lie between 0 and 64, not {config.mlp_ratio}.")
    if config.num_patches > MAX_TOKENS:
        raise ValueError(f"{config.num_patches} patches are more than {MAX_TOKENS}.")
    both = 1.5 if config.activation == "swiglu" else 2  # of the MLP's two layers, in units of the first
    parameters = round(config.depth * config.embed_dim * (4 * config.embed_dim + both * config.mlp_dim))
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"About {parameters:,} parameters are more than {MAX_PARAMETERS:,}.")
    return config


def check_channels(config: ViTConfig, name: str) -> None:
    """Can this model look at pictures? Raises CheckpointError."""
    if config.in_chans != 3:
        raise CheckpointError(f"{name} reads {config.in_chans} channels: pictures here have 3.")

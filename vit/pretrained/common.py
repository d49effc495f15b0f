"""What the imports of all libraries share: how one refuses, renames, copies."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from vit.card import CheckpointError, checked, typed
from vit.model import ViTConfig

Renames = Sequence[tuple[str, str]]  # (regular expression, replacement), applied in this order

WINDOWS = "attends within windows, not across the whole image"
STAGES = "merges patches on the way, so that no one grid of tokens runs through it"
RELATIVE = "adds a learned relative position bias to its attention scores"
STEM = "has a convolutional stem where a plain ViT projects each patch once"
ROTARY = "rotates queries and keys by their position (RoPE)"
CHANNELS = "attends between channels, not between tokens"
VIDEO = "reads video, not pictures"
RMS = "normalises with RMSNorm, not LayerNorm"

# module of timm or model_type of transformers: why it is refused; other names are refused more shortly
REFUSED = {
    "beit": RELATIVE,
    "data2vec-vision": RELATIVE,
    "vision_transformer_relpos": RELATIVE,
    "vision_transformer_sam": WINDOWS,
    "sam": WINDOWS,
    "vitdet": WINDOWS,
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "swin_transformer": WINDOWS,
    "swin_transformer_v2": WINDOWS,
    "maxxvit": WINDOWS,
    "vision_transformer_hybrid": STEM,
    "vit_hybrid": STEM,
    "levit": STEM,
    "eva": ROTARY,
    "dinov3_vit": ROTARY,
    "vjepa2": VIDEO,
    "vivit": VIDEO,
    "videomae": VIDEO,
    "timesformer": VIDEO,
    "hiera": STAGES,
    "pvt": STAGES,
    "pvt_v2": STAGES,
    "mvitv2": STAGES,
    "segformer": STAGES,
    "cait": "mixes its heads with each other (talking heads)",
    "xcit": CHANNELS,
    "davit": CHANNELS,
    "aimv2": RMS,
    "siglip2": "packs pictures of many shapes into one padded sequence (NaFlex)",
}
NO_CONFIG = "A state dict does not say how many heads it has: give its config, too."


def refuse(what: str, why: str) -> NoReturn:
    raise CheckpointError(f"{what} cannot be loaded exactly, so it is not loaded: it {why}.")


@contextmanager
def one_sentence() -> Iterator[None]:
    """A config or tensors that trip us up are refused in one sentence, whatever they are."""
    try:
        yield
    except CheckpointError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"This describes no ViT that can be built: {error}") from error


def configured(**fields: Any) -> ViTConfig:
    """A ViTConfig whose fields have the types and sizes that a ViT can have. Raises TypeError, ValueError."""
    return checked(ViTConfig(**typed(ViTConfig, fields)))


def announce(note: str) -> None:
    """Say what was left behind, to whoever called from_timm and its like."""
    if note:
        warnings.warn(note, stacklevel=3)


@one_sentence()
def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own: training one model must not move the other."""
    return {name: x.detach().to("cpu", torch.float32, copy=True) for name, x in state.items()}


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of one number for both, or of two."""
    first, second = value if isinstance(value, list | tuple) else (value, value)
    return first, second


def renamed(state: Mapping[str, Tensor], table: Renames) -> dict[str, Tensor]:
    return {rename(name, table): x for name, x in state.items()}


def rename(name: str, table: Renames) -> str:
    for old, new in table:
        name = re.sub(old, new, name)
    return name


def fold_positions(state: dict[str, Tensor], name: str, start: int) -> None:
    """Ours have no position: theirs goes into the token itself, the same sum in the same order."""
    if name in state and "pos_embed" in state:
        pos_embed, end = state["pos_embed"], start + state[name].shape[1]
        state[name] = state[name] + pos_embed[:, start:end]
        state["pos_embed"] = torch.cat([pos_embed[:, :start], pos_embed[:, end:]], dim=1)

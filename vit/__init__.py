"""A plain Vision Transformer, what it did, and its checkpoints. Knows no picture and no page."""

from typing import TYPE_CHECKING

from vit.card import Card, CheckpointError
from vit.checkpoint import save
from vit.config import ViTConfig
from vit.library import load
from vit.model import ViT
from vit.trace import MaskPatches, Recorder, Replace, Trace, ZeroHeads

if TYPE_CHECKING:
    from vit.trace import trace
else:
    import vit.trace as trace  # the module; calling it calls its function

__all__ = [
    "Card",
    "CheckpointError",
    "MaskPatches",
    "Recorder",
    "Replace",
    "Trace",
    "ViT",
    "ViTConfig",
    "ZeroHeads",
    "load",
    "save",
    "trace",
]

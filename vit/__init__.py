"""A plain Vision Transformer, what it did, and its checkpoints. Knows no picture and no page."""

from vit.card import Card, CheckpointError
from vit.checkpoint import save
from vit.library import load
from vit.model import ViT, ViTConfig
from vit.trace import MaskPatches, Recorder, Replace, Trace, ZeroHeads, trace

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

"""A plain Vision Transformer, what it did, and its checkpoints. Knows no picture and no page."""

from vit.checkpoint import Card, CheckpointError, load, save
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

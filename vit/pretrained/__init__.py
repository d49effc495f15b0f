"""Weights of timm, torchvision and transformers in our ViT: exactly, or not at all.

Every import takes the same three steps: the other library's config says which plain ViT it is (or one
sentence says why it is none), a short table renames its tensors to ours, and `build` accepts them only if
every name and every shape agrees. What a model keeps beside the path from pixels to features (MAE's decoder,
CLIP's text tower, mask tokens) stays behind.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vit.card import CheckpointError
from vit.config import ViTConfig
from vit.pretrained.of_timm import describe_timm, from_timm, timm_skeleton
from vit.pretrained.of_torchvision import from_torchvision
from vit.pretrained.of_transformers import describe_transformers, from_transformers

__all__ = ["describe", "from_timm", "from_torchvision", "from_transformers"]


def describe(config: Mapping[str, Any], names: Iterable[str] = ()) -> tuple[ViTConfig, str]:
    """(config, what is left behind) of a config.json and the names of its tensors. Raises CheckpointError."""
    if "architecture" in config:
        return describe_timm(timm_skeleton(config), config)
    if "model_type" in config:
        return describe_transformers(config, names)
    raise CheckpointError("config.json says neither timm's architecture nor transformers' model_type.")

"""torchvision's VisionTransformer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vit.card import CheckpointError
from vit.checkpoint import build
from vit.model import ViT
from vit.pretrained.common import (
    NO_CONFIG,
    Renames,
    bare,
    configured,
    copied,
    one_sentence,
    pair,
    refuse,
    renamed,
    unwrapped,
)
from vit.pretrained.refused import STEM, WINDOWS

TORCHVISION: Renames = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)


def from_torchvision(model: nn.Module | Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> ViT:
    """torchvision's VisionTransformer -> ViT.

    model: a live module, or a state dict with the keywords of torchvision's constructor as `config`:
    image_size, patch_size, num_layers, num_heads, hidden_dim, mlp_dim, num_classes. Raises CheckpointError.
    """
    if config is None and not isinstance(model, nn.Module):
        raise CheckpointError(NO_CONFIG)
    if isinstance(model, nn.Module):
        model = unwrapped(model)
    state = model.state_dict() if isinstance(model, nn.Module) else bare(model)
    told, eps = dict(config or {}), 1e-6
    if isinstance(model, nn.Module):
        if type(model).__name__ != "VisionTransformer":
            family = type(model).__module__.rpartition(".")[2]
            why = WINDOWS if family in ("swin_transformer", "maxvit") else "is not a plain ViT"
            refuse(f"torchvision's {type(model).__name__}", why)
        encoder: Any = model.encoder
        eps = getattr(encoder.ln, "eps", 0.0)
        told = vars(model) | {"num_layers": len(encoder.layers), "num_heads": encoder.layers[0].num_heads}
    if "conv_proj.weight" not in state:
        refuse("This torchvision model", STEM)
    if any(name.startswith("heads.pre_logits") for name in state):
        refuse("This torchvision model", "has a head of more than one layer")
    if "encoder.ln.bias" not in state or not eps:
        refuse("This torchvision model", "does not normalise with LayerNorm")
    with one_sentence():
        vit_config = configured(
            image_size=pair(told["image_size"]),
            patch_size=told["patch_size"],
            num_classes=told.get("num_classes", 1000) if "heads.head.weight" in state else 0,
            embed_dim=told["hidden_dim"],
            depth=told["num_layers"],
            num_heads=told["num_heads"],
            mlp_ratio=told["mlp_dim"] / told["hidden_dim"],
            norm_eps=eps,
        )
    return build(vit_config, copied(renamed(state, TORCHVISION)), "This torchvision model")

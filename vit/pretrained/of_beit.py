"""timm's Beit: BEiT and BEiTv2, whose positions are relative."""

from collections.abc import Iterable
from typing import Any

from vit.config import ViTConfig
from vit.pretrained.common import configured, refuse
from vit.pretrained.of_eva import (
    activation_of,
    norms_of,
    shape_of,
    unlike_our_norms_and_pooling,
    unlike_our_patches,
)


def describe_beit(m: Any) -> ViTConfig:
    """The config of timm's Beit. Raises CheckpointError, naming the part that we have not."""
    for why in unlike_ours(m):
        refuse(f"timm's {type(m).__name__}", why)
    attn, mlp = m.blocks[0].attn, m.blocks[0].mlp
    gated = type(mlp).__name__ == "SwiGLU"
    width = 2 * mlp.fc1_g.out_features if gated else mlp.fc1.out_features
    return configured(
        **shape_of(m),
        mlp_ratio=width / m.embed_dim,
        pool="mean" if m.global_pool == "avg" else "cls",
        rel_pos=m.rel_pos_bias is not None or attn.relative_position_bias_table is not None,
        activation="swiglu" if gated else activation_of(mlp.act),
        qkv_bias=attn.q_bias is not None,
        **norms_of(m),
    )


def unlike_ours(m: Any) -> Iterable[str]:
    """Why this Beit is no ViT of ours, part by part, from pixels to logits."""
    attn, mlp = m.blocks[0].attn, m.blocks[0].mlp
    yield from unlike_our_patches(m.patch_embed)
    if attn.qkv.out_features != 3 * m.embed_dim:
        yield "has heads that do not share its width evenly"
    if type(mlp).__name__ != "SwiGLU" and not (type(mlp).__name__ == "Mlp" and activation_of(mlp.act)):
        yield f"has another MLP ({type(mlp).__name__})"
    yield from unlike_our_norms_and_pooling(m)

"""timm's Eva: EVA, EVA-02, DINOv3, EUPE, Perception Encoder the RoPE ViT study; attention pooling.

Rotary positions differ in how places are measured, in which numbers of a query turn together, and in what
comes first, rows or columns: ViTConfig's fields rope_* say which.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vit.config import ViTConfig
from vit.model import ACTIVATIONS
from vit.pretrained.common import RMS, STEM, configured, refuse


def describe_eva(m: Any) -> ViTConfig:
    """The config of timm's Eva. Raises CheckpointError, naming the part that we have not."""
    for why in unlike_ours(m):
        refuse(f"timm's {type(m).__name__}", why)
    block, attn, mlp = m.blocks[0], m.blocks[0].attn, m.blocks[0].mlp
    gated = type(mlp).__name__ in ("GluMlp", "SwiGLU")
    width = 2 * mlp.fc1_g.out_features if type(mlp).__name__ == "SwiGLU" else mlp.fc1.out_features
    qkv_bias = attn.q_proj.bias if attn.qkv is None else getattr(attn, "q_bias", None)
    qkv_bias = attn.qkv.bias if qkv_bias is None and attn.qkv is not None else qkv_bias
    return configured(
        image_size=tuple(m.patch_embed.img_size),
        patch_size=m.patch_embed.patch_size[0],
        in_chans=m.patch_embed.proj.in_channels,
        num_classes=m.head.out_features if m.global_pool and isinstance(m.head, nn.Linear) else 0,
        embed_dim=m.embed_dim,
        depth=len(m.blocks),
        num_heads=attn.num_heads,
        mlp_ratio=width / m.embed_dim,
        class_token=m.cls_token is not None,
        num_registers=0 if m.reg_token is None else m.reg_token.shape[1],
        norm_after_pool=isinstance(m.fc_norm, nn.LayerNorm),
        final_norm=isinstance(m.fc_norm, nn.LayerNorm) or isinstance(m.norm, nn.LayerNorm),
        pos_embed="none" if m.pos_embed is None else "learned",
        pos_embed_prefix=not m.no_embed_class,
        layer_scale=None if block.gamma_1 is None else 1.0,
        pre_norm=isinstance(m.norm_pre, nn.LayerNorm),
        activation="swiglu" if gated else name_of(mlp.act),
        mlp_norm=isinstance(mlp.norm, nn.LayerNorm),
        qkv_bias=qkv_bias is not None,
        qk_norm=isinstance(attn.q_norm, nn.LayerNorm),
        norm_eps=block.norm1.eps,
        **pooling_of(m),
        **rope_of(m),
    )


def pooling_of(m: Any) -> dict[str, Any]:
    """The fields of ViTConfig that say what the head of a timm module reads."""
    if m.attn_pool is not None:
        pool = m.attn_pool
        ratio = pool.mlp.fc1.out_features / m.embed_dim
        return {"pool": "attention", "pool_heads": pool.num_heads, "pool_mlp_ratio": ratio}
    return {"pool": "cls" if m.cls_token is not None and m.global_pool != "avg" else "mean"}


def unlike_our_norms_and_pooling(m: Any) -> Iterable[str]:
    """Of any of timm's ViTs: what its norms and its pooling do that ours cannot."""
    norms = [module for module in m.modules() if "Norm" in type(module).__name__]
    if not all(isinstance(norm, nn.LayerNorm) and norm.bias is not None for norm in norms):
        yield RMS
    if len({norm.eps for norm in norms}) > 1:
        yield "has norms of different eps"
    if isinstance(m.norm, nn.LayerNorm) and isinstance(m.fc_norm, nn.LayerNorm):
        yield "has two final norms"
    if m.attn_pool is not None and (why := unlike_our_pooling(m)):
        yield why
    if m.global_pool not in ("", "token", "avg", "map"):
        yield f"pools by {m.global_pool!r}"


def unlike_our_pooling(m: Any) -> str:
    """Why timm's attention pooling is none of ours; "" if it is one."""
    pool, act = m.attn_pool, m.blocks[0].mlp.act
    gated = isinstance(act, nn.SiLU)
    plain = isinstance(pool.norm, nn.LayerNorm) and isinstance(pool.q, nn.Linear) and pool.q.bias is not None
    alone = pool.latent_len == 1 and pool.latent_dim == m.embed_dim and pool.pos_embed is None
    if not (plain and alone and isinstance(pool.q_norm, nn.Identity)) or pool.mlp is None:
        return "pools by another attention"
    if name_of(pool.mlp.act) != ("gelu" if gated else name_of(act)):
        return "has another activation in its pooling than in its blocks"
    return ""


def rope_of(m: Any) -> dict[str, Any]:
    """The fields of ViTConfig that say how a timm module turns queries and keys."""
    rope, kind = m.rope, type(m.rope).__name__
    if rope is None:
        return {}
    fields = {"rope_theta": float(rope.temperature), "rope_columns_first": rope.grid_indexing == "xy"}
    fields["rope_neighbours"] = not m.blocks[0].attn.rotate_half
    if kind == "RotaryEmbeddingMixed":
        return fields | {"rope": "mixed"}
    if kind == "RotaryEmbeddingDinoV3":
        edge = 2 * math.pi
        return fields | {"rope": "axial", "rope_span": (-edge, edge), "rope_offset": 0.5 + rope.grid_offset}
    reference = rope.ref_feat_shape
    span = None if reference is None else (0.0, float(reference[0]))
    return fields | {"rope": "axial", "rope_span": span, "rope_offset": float(rope.grid_offset)}


def unlike_ours(m: Any) -> Iterable[str]:
    """Why this Eva is no ViT of ours, part by part, from pixels to logits."""
    stem, block = m.patch_embed, m.blocks[0]
    attn, mlp = block.attn, block.mlp
    if type(stem).__name__ != "PatchEmbed" or not isinstance(stem.norm, nn.Identity):
        yield STEM
    if stem.patch_size[0] != stem.patch_size[1] or stem.dynamic_img_pad:
        yield "has patches that are not square, or pads its pictures"
    if any(type(block).__name__ != "EvaBlock" for block in m.blocks):
        yield f"has blocks of another order ({type(block).__name__})"
    if not isinstance(attn.norm, nn.Identity):
        yield "normalises inside its attention, across heads (sub-LN)"
    groups = {getattr(block.attn, "num_kv_heads", None) for block in m.blocks} - {None, attn.num_heads}
    if type(attn).__name__ not in ("EvaAttention", "AttentionRope") or groups or attn.gate is not None:
        yield f"has another attention ({type(attn).__name__})"
    if attn.head_dim * attn.num_heads != m.embed_dim or attn.proj.bias is None:
        yield "has heads that do not share its width evenly, or a projection without bias"
    kind, silu = type(mlp).__name__, isinstance(getattr(mlp, "act", None), nn.SiLU)
    gated = silu and (kind == "SwiGLU" or (kind == "GluMlp" and not mlp.gate_last))
    if not gated and not (kind == "Mlp" and name_of(mlp.act)):
        yield f"has another MLP ({kind})"
    yield from unlike_our_norms_and_pooling(m)
    if type(m.rope).__name__ not in ROPES:
        yield f"has other rotary positions ({type(m.rope).__name__})"
    elif type(m.rope).__name__ == "RotaryEmbeddingCat":
        if m.rope.in_pixels or len({*(m.rope.ref_feat_shape or (1,))}) > 1:
            yield "measures places in pixels, or by a grid that is not square"
    elif getattr(m.rope, "normalize_coords", "separate") != "separate" or getattr(m.rope, "min_period", None):
        yield "measures places on both axes by one side"


ROPES = ("NoneType", "RotaryEmbeddingCat", "RotaryEmbeddingDinoV3", "RotaryEmbeddingMixed")


def eva_tensors(state: Mapping[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """Eva's state dict with the names of VisionTransformer's; others stay as they are."""
    ours: dict[str, Tensor] = {}
    for name, x in state.items():
        stem, _, end = name.rpartition(".")
        if end in ("q_bias", "v_bias"):
            continue
        if stem == "rope":
            ours |= {"rope_freqs": x} if end == "freqs" else {}
        elif end in ("gamma_1", "gamma_2"):
            ours[f"{stem}.ls{end[-1]}.gamma"] = x
        elif stem.endswith(".mlp.fc1_g"):
            ours[f"{stem.removesuffix('_g')}.{end}"] = torch.cat(
                [x, state[f"{stem.removesuffix('g')}x.{end}"]]
            )
        elif stem.endswith(".attn.q_proj"):
            part = stem.removesuffix("q_proj")
            others = (state.get(f"{part}{which}_proj.{end}", torch.zeros_like(x)) for which in "kv")
            ours[f"{part}qkv.{end}"] = torch.cat([x, *others])
        elif not stem.endswith((".mlp.fc1_x", ".attn.k_proj", ".attn.v_proj")):
            ours[name] = x
        if end == "weight" and f"{stem.removesuffix('.qkv')}.q_bias" in state and stem.endswith(".qkv"):
            q, v = (state[f"{stem.removesuffix('.qkv')}.{which}_bias"] for which in "qv")
            ours[f"{stem}.bias"] = torch.cat([q, torch.zeros_like(q), v])  # keys have none
    if config.layer_scale is not None:  # some scale attention alone
        for layer in range(config.depth):
            ours.setdefault(f"blocks.{layer}.ls2.gamma", torch.ones(config.embed_dim))
    return ours


def name_of(act: nn.Module) -> str:
    """Our name of an activation, found by what it does; "" if we have none that does the same."""
    if list(act.parameters()):  # one that learns, as PReLU does
        return ""
    x = torch.linspace(-6, 6, 241)
    alike = (
        name
        for name, f in ACTIVATIONS.items()
        if name != "swiglu" and torch.allclose(act(x), f(x), atol=1e-6)
    )
    return next(alike, "")

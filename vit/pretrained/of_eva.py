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
from vit.pretrained.common import BLOCKS, configured, filled, refuse
from vit.pretrained.refused import GROUPED, STEM, SUB_LN


def describe_eva(m: Any) -> ViTConfig:
    """The config of timm's Eva. Raises CheckpointError, naming the part that we have not."""
    for why in unlike_ours(m):
        refuse(f"timm's {type(m).__name__}", why)
    attn, mlp = m.blocks[0].attn, m.blocks[0].mlp
    gated = type(mlp).__name__ in ("GluMlp", "SwiGLU")
    width = 2 * mlp.fc1_g.out_features if type(mlp).__name__ == "SwiGLU" else mlp.fc1.out_features
    qkv_bias = attn.q_proj.bias if attn.qkv is None else getattr(attn, "q_bias", None)
    qkv_bias = attn.qkv.bias if qkv_bias is None and attn.qkv is not None else qkv_bias
    return configured(
        **shape_of(m),
        mlp_ratio=width / m.embed_dim,
        class_token=m.cls_token is not None,
        num_registers=0 if m.reg_token is None else m.reg_token.shape[1],
        pos_embed_prefix=not m.no_embed_class,
        activation="swiglu" if gated else activation_of(mlp.act),
        qkv_bias=qkv_bias is not None,
        **norms_of(m),
        **pooling_of(m),
        **rope_of(m),
    )


def shape_of(m: Any) -> dict[str, Any]:
    """The fields of ViTConfig that timm's Eva and Beit say in the same words."""
    block, patch_embed = m.blocks[0], m.patch_embed
    return {
        "image_size": filled(patch_embed.img_size, patch_embed.patch_size[0]),
        "patch_size": patch_embed.patch_size[0],
        "in_chans": patch_embed.proj.in_channels,
        "num_classes": m.head.out_features if m.global_pool and isinstance(m.head, nn.Linear) else 0,
        "embed_dim": m.embed_dim,
        "depth": len(m.blocks),
        "num_heads": block.attn.num_heads,
        "pos_embed": "none" if m.pos_embed is None else "learned",
        "layer_scale": None if block.gamma_1 is None else 1.0,
    }


def is_norm(module: Any) -> bool:
    """Is it one of the two norms that we have?"""
    return isinstance(module, nn.LayerNorm) or type(module).__name__ == "RmsNorm"


def norms_of(m: Any) -> dict[str, Any]:
    """The fields of ViTConfig that say where a timm module normalises, and how."""
    block = m.blocks[0]
    return {
        "norm": "layer" if isinstance(block.norm1, nn.LayerNorm) else "rms",
        "norm_eps": block.norm1.eps,
        "norm_after_pool": is_norm(m.fc_norm),
        "final_norm": is_norm(m.fc_norm) or is_norm(m.norm),
        "patch_norm": is_norm(m.patch_embed.norm),
        "pre_norm": is_norm(getattr(m, "norm_pre", None)),
        "mlp_norm": is_norm(block.mlp.norm),
        "qk_norm": is_norm(getattr(block.attn, "q_norm", None)),
    }


def pooling_of(m: Any) -> dict[str, Any]:
    """The fields of ViTConfig that say what the head of a timm module reads."""
    if getattr(m, "attn_pool", None) is not None:
        pool = m.attn_pool
        ratio = pool.mlp.fc1.out_features / m.embed_dim
        all_tokens = getattr(m, "pool_include_prefix", True) or not m.num_prefix_tokens
        fields = {"pool_prefix": all_tokens, "pool_heads": pool.num_heads, "pool_mlp_ratio": ratio}
        return {"pool": "attention"} | fields
    return {"pool": "cls" if m.cls_token is not None and m.global_pool != "avg" else "mean"}


def unlike_our_patches(stem: Any) -> Iterable[str]:
    """Of any of timm's ViTs: what its projection of patches does that ours cannot."""
    if type(stem).__name__ != "PatchEmbed":
        yield STEM
    if stem.patch_size[0] != stem.patch_size[1] or stem.dynamic_img_pad:
        yield "has patches that are not square, or pads its pictures"


def unlike_our_norms_and_pooling(m: Any) -> Iterable[str]:
    """Of any of timm's ViTs: what its norms and its pooling do that ours cannot."""
    norms = [module for module in m.modules() if "Norm" in type(module).__name__]
    kinds = {"LayerNorm" if isinstance(norm, nn.LayerNorm) else type(norm).__name__ for norm in norms}
    if kinds not in ({"LayerNorm"}, {"RmsNorm"}):
        yield f"normalises in another way ({', '.join(sorted(kinds - {'LayerNorm'}))})"
    elif any(
        norm.weight is None or (norm.bias is None if kinds == {"LayerNorm"} else False) for norm in norms
    ):
        yield "has norms without a scale or a bias"
    if len({norm.eps for norm in norms}) > 1:
        yield "has norms of different eps"
    if is_norm(m.norm) and is_norm(m.fc_norm):
        yield "has two final norms"
    if getattr(m, "attn_pool", None) is not None and (why := unlike_our_pooling(m)):
        yield why
    if m.global_pool not in ("", "token", "avg", "map"):
        yield f"pools by {m.global_pool!r}"


def unlike_our_pooling(m: Any) -> str:
    """Why timm's attention pooling is none of ours; "" if it is one."""
    pool, act = m.attn_pool, m.blocks[0].mlp.act
    gated = isinstance(act, nn.SiLU)
    plain = is_norm(pool.norm) and isinstance(pool.q, nn.Linear) and pool.q.bias is not None
    alone = pool.latent_len == 1 and pool.latent_dim == m.embed_dim and pool.pos_embed is None
    if not (plain and alone and isinstance(pool.q_norm, nn.Identity)) or pool.mlp is None:
        return "pools by another attention"
    if activation_of(pool.mlp.act) != ("gelu" if gated else activation_of(act)):
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
    attn, mlp = m.blocks[0].attn, m.blocks[0].mlp
    yield from unlike_our_patches(m.patch_embed)
    for order in {type(block).__name__ for block in m.blocks} - {"EvaBlock"}:
        yield f"has blocks of another order: {BLOCKS.get(order, order)}"
    if not isinstance(attn.norm, nn.Identity):
        yield SUB_LN
    groups = {getattr(block.attn, "num_kv_heads", None) for block in m.blocks} - {None, attn.num_heads}
    if type(attn).__name__ not in ("EvaAttention", "AttentionRope") or attn.gate is not None:
        yield f"has another attention ({type(attn).__name__})"
    if groups:
        yield GROUPED
    if attn.head_dim * attn.num_heads != m.embed_dim or attn.proj.bias is None:
        yield "has heads that do not share its width evenly, or a projection without bias"
    kind, silu = type(mlp).__name__, isinstance(getattr(mlp, "act", None), nn.SiLU)
    gated = silu and (kind == "SwiGLU" or (kind == "GluMlp" and not mlp.gate_last))
    if not gated and not (kind == "Mlp" and activation_of(mlp.act)):
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
        if end == "relative_position_bias_table":  # BEiT's: of all layers, or of one
            ours[f"rel_pos.{stem.split('.')[1] if '.' in stem else 'shared'}"] = x
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
            others = (f"{part}{which}_proj.{end}" for which in "kv")
            if end == "bias" and "blocks.0.attn.k_proj.bias" not in state:
                ours[f"{part}qkv.bias"] = torch.cat([x, torch.zeros_like(x), state[f"{part}v_proj.bias"]])
            else:
                ours[f"{part}qkv.{end}"] = torch.cat([x, *(state[other] for other in others)])
        elif not stem.endswith((".mlp.fc1_x", ".attn.k_proj", ".attn.v_proj")):
            ours[name] = x
        if end == "weight" and f"{stem.removesuffix('.qkv')}.q_bias" in state and stem.endswith(".qkv"):
            q, v = (state[f"{stem.removesuffix('.qkv')}.{which}_bias"] for which in "qv")
            ours[f"{stem}.bias"] = torch.cat([q, torch.zeros_like(q), v])  # keys have none
    if config.layer_scale is not None and "blocks.0.ls2.gamma" not in ours:  # some scale attention alone
        ours |= {f"blocks.{layer}.ls2.gamma": torch.ones(config.embed_dim) for layer in range(config.depth)}
    return ours


def activation_of(act: nn.Module) -> str:
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

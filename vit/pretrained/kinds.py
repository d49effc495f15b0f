"""Types of transformers with parts of their own: DINOv3, AIMv2, BEiT and data2vec, RADIO, ViViT, VideoMAE.

For each, the fields of ViTConfig in which it differs from a plain ViT, and how its tensors become ours.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from vit.pretrained.common import pair, refuse
from vit.pretrained.refused import STEM

DINOV2 = ("dinov2", "dinov2_with_registers", "tipsv2_vision_model")
BEITS = ("beit", "data2vec-vision")
# patch centres from -1 to 1, in turns of a circle
DINOV3 = dict(pos_embed="none", rope="axial", rope_span=(-2 * math.pi, 2 * math.pi), rope_offset=0.5)
AIMV2 = dict(norm="rms", patch_norm=True, pool_mlp=False, activation="swiglu")
RADIO_NOTE = (
    "RADIO's summary sets several class tokens side by side: the first is [CLS], others are registers."
)


def fields_of(kind: str, c: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """What differs in this type. c: its config with defaults; ours: the names of its tensors as ours, or
    nothing where they are not known yet. Raises CheckpointError."""
    if kind in DINOV2:
        return {"layer_scale": 1.0} | mlp_of(c)
    if kind == "dinov3_vit":
        return dinov3(c, ours)
    if kind == "pixio":
        return {"num_class_tokens": c.get("n_cls_tokens", 8)} | mlp_of(c)
    if kind == "aimv2_vision_model":
        return aimv2(c)
    if kind in BEITS:
        return beit(kind, c, ours)
    if kind in ("vivit", "videomae"):
        return clips(kind, c, ours)
    if kind in ("internvl_vision", "qianfan_ocr_vision", "janus_vision_model"):
        return tower(kind, c)
    if kind == "dpt" and c.get("is_hybrid"):
        refuse("This dpt model", STEM)
    return radio(c, ours) if kind == "radio" else {}


def clips(kind: str, c: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """ViViT (Arnab et al. 2021) and VideoMAE (Tong et al. 2022), which read clips."""
    if c["num_frames"] == 1:
        refuse(f"This {kind} model", "reads a single frame, through three axes")
    if kind == "vivit":
        return dict(num_frames=c["num_frames"], tubelet=c["tubelet_size"][0])
    said = dict(num_frames=c["num_frames"], tubelet=c["tubelet_size"], pos_embed="sincos", final_norm=True)
    if "head.weight" not in ours:
        said["final_norm"] = "norm.weight" in ours
    elif not c["use_mean_pooling"]:
        refuse("This videomae model", "reads its classes from one corner's patch alone")
    else:  # its blocks have another epsilon than the norm that torch makes by default
        said |= dict(norm_after_pool=True, pool_norm_eps=1e-5)
    return said


def tower(kind: str, c: Mapping[str, Any]) -> dict[str, Any]:
    """InternViT (Chen et al. 2024) and the tower of Janus (Wu et al. 2025), beside language models."""
    if c.get("use_qk_norm"):
        refuse(f"This {kind} model", "normalises queries and keys across heads")
    fields: dict[str, Any] = {"qkv_bias": bool(c["attention_bias"])}
    if kind == "janus_vision_model":
        return fields | mlp_of(c)
    final = not c.get("use_mean_pooling", True)
    if c.get("norm_type", "layer_norm") == "rms_norm":
        if final:
            refuse(f"This {kind} model", "has RMSNorm in its blocks and LayerNorm behind them")
        fields["norm"] = "rms"
    return fields | {
        "layer_scale": 1.0,
        "final_norm": final,
        "pos_embed": "learned" if c.get("use_absolute_position_embeddings", True) else "none",
    }


def mlp_of(c: Mapping[str, Any]) -> dict[str, Any]:
    """An MLP whose width is a ratio; gated, its halves have two thirds each, in multiples of 8."""
    width = int(c["hidden_size"] * c["mlp_ratio"])
    if not c.get("use_swiglu_ffn"):
        return {"mlp_ratio": width / c["hidden_size"]}
    return {"mlp_ratio": 2 * ((int(width * 2 / 3) + 7) // 8 * 8) / c["hidden_size"], "activation": "swiglu"}


def dinov3(c: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """DINOv3 (Siméoni et al. 2025): rotary positions, and a gated MLP in its larger models."""
    for part, usual in {"query": True, "key": False, "value": True}.items():
        held = f"blocks.0.attn.{part[0]}.bias" in ours
        if ours and held != bool(c.get(f"{part}_bias", usual)):
            one = "one" if held else "none"
            refuse(
                "This dinov3_vit model", f"has {part}_bias={not held} in its config, and {one} in its files"
            )
    fields = DINOV3 | {"rope_theta": float(c["rope_theta"]), "layer_scale": 1.0}
    if not c.get("use_gated_mlp"):
        return fields
    if c["hidden_act"] != "silu":
        refuse("This dinov3_vit model", f"gates its MLP with another activation ({c['hidden_act']})")
    return fields | {"mlp_ratio": 2 * c["intermediate_size"] / c["hidden_size"], "activation": "swiglu"}


def aimv2(c: Mapping[str, Any]) -> dict[str, Any]:
    """AIMv2 (Fini et al. 2024): RMSNorm, a norm on the patches, SwiGLU, pooling without an MLP."""
    if c.get("is_native"):
        refuse(
            "This aimv2 model", "computes its positions anew for every size of picture (native resolution)"
        )
    if c["hidden_act"] != "silu":
        refuse("This aimv2 model", f"gates its MLP with another activation ({c['hidden_act']})")
    if bool(c["qkv_bias"]) != bool(c["mlp_bias"]):
        refuse("This aimv2 model", "has projections with bias beside others without")
    return AIMV2 | {
        "norm_eps": c["rms_norm_eps"],
        "mlp_ratio": 2 * c["intermediate_size"] / c["hidden_size"],
        "proj_bias": bool(c["mlp_bias"]),
    }


def beit(kind: str, c: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """BEiT (Bao et al. 2022) and data2vec (Baevski et al. 2022): relative positions; the mean is normed."""
    relative = bool(c.get("use_relative_position_bias") or c.get("use_shared_relative_position_bias"))
    height, width = pair(c["image_size"])
    if relative and height != width:
        refuse(
            f"This {kind} model",
            "has relative positions on a picture that is not square, of which transformers mixes up rows and "
            "columns; in timm's layout such a model loads",
        )
    for which, table in {"": "rel_pos.0", "_shared": "rel_pos.shared"}.items():
        said = f"use{which}_relative_position_bias"
        if ours and (table in ours) != bool(c.get(said)):
            refuse(f"This {kind} model", f"has tables of relative positions other than its {said} says")
    mean = c.get("use_mean_pooling", True)
    after = mean and "norm.weight" not in ours  # one for masked patches has its norm on the tokens
    return {
        "rel_pos": relative,
        "pos_embed": "learned" if c.get("use_absolute_position_embeddings") else "none",
        "layer_scale": 1.0 if c.get("layer_scale_init_value", 0.1) > 0 else None,
        "pool": "mean" if mean else "cls",
        "norm_after_pool": after and (not ours or "fc_norm.weight" in ours),
        "final_norm": not after or not ours or "fc_norm.weight" in ours,  # its pooler holds it
    }


def radio(c: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """RADIO (Heinrich et al. 2025): no final norm, and positions that are cut out of a large square."""
    if c.get("video_temporal_patch_size"):
        refuse("This radio model", "has a second projection, for frames of a video")
    scaled = not ours or "blocks.0.ls1.gamma" in ours
    if not scaled and c.get("layerscale_value", 1.0) != 1:
        refuse("This radio model", "has a layer scale that its files do not hold")
    return mlp_of(c) | {
        "final_norm": False,
        "pos_embed_prefix": False,
        "pos_square": c.get("max_img_size", 2048) // pair(c["patch_size"])[0],
        "num_registers": c.get("num_cls_tokens", 3) + c.get("num_registers", 7) - 1,
        "layer_scale": 1.0 if scaled else None,
    }


def with_relative_tables(state: dict[str, Tensor], depth: int) -> None:
    """One table for all layers or one for each becomes `rel_pos` (L, differences, H); of both, the sum."""
    shared = state.pop("rel_pos.shared", None)
    own = [state.pop(f"rel_pos.{layer}", None) for layer in range(depth)]
    tables = [[x.float() for x in (each, shared) if x is not None] for each in own]
    if all(tables) and any(tables):
        state["rel_pos"] = torch.stack([torch.stack(found).sum(dim=0) for found in tables])


def with_radio_tensors(state: dict[str, Tensor], patch_size: int) -> None:
    """RADIO projects flat patches of pixels that it normalises itself: one convolution does both. Its class
    tokens and registers lie in one tensor."""
    if (tokens := state.pop("cls_register_token", None)) is not None:
        state |= {"cls_token": tokens[None, :1], "reg_token": tokens[None, 1:]}
    mean, std = (state.pop(f"input_conditioner.norm_{name}", None) for name in ("mean", "std"))
    if mean is None or std is None or "patch_embed.proj.weight" not in state:
        return
    weight = (
        state["patch_embed.proj.weight"].float().unflatten(1, (-1, patch_size, patch_size))
    )  # (D, 3, p, p)
    weight = weight / std.float().view(-1, 1, 1)
    state["patch_embed.proj.weight"] = weight
    state["patch_embed.proj.bias"] = -(weight * mean.float().view(-1, 1, 1)).sum(dim=(1, 2, 3))


def with_aimv2_pooling(state: dict[str, Tensor]) -> None:
    """AIMv2's query is not projected, which is a projection by the identity."""
    if "attn_pool.k.weight" not in state:
        return
    latent = state["attn_pool.latent"]
    state |= {
        "attn_pool.q.weight": torch.eye(latent.shape[-1]),
        "attn_pool.q.bias": torch.zeros(latent.shape[-1]),
    }
    zeros = torch.zeros(len(state["attn_pool.k.weight"]))
    for end in ("weight", "bias"):
        state[f"attn_pool.kv.{end}"] = torch.cat([state.pop(f"attn_pool.{x}.{end}", zeros) for x in "kv"])

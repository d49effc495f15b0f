"""transformers' ViTs, from DeiT to SigLIP, from ViViT to VideoMAE: one row per model type."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vit.card import CheckpointError
from vit.checkpoint import build
from vit.config import ViTConfig
from vit.model import ViT
from vit.positions import sincos_pos_embed
from vit.pretrained.common import (
    NO_CONFIG,
    Renames,
    announce,
    bare,
    bare_names,
    configured,
    copied,
    filled,
    fold_positions,
    one_sentence,
    pair,
    refuse,
    rename,
    renamed,
    unpacked,
    unread,
    unwrapped,
)
from vit.pretrained.kinds import (
    BEITS,
    DINOV2,
    RADIO_NOTE,
    fields_of,
    with_aimv2_pooling,
    with_radio_tensors,
    with_relative_tables,
)
from vit.pretrained.of_timm import from_timm
from vit.pretrained.refused import TRANSFORMERS as REFUSED

CLIP = dict(layer_norm_eps=1e-5, patch_size=32, hidden_act="quick_gelu")
EVA_CLIP = dict(
    layer_norm_eps=1e-6, patch_size=14, hidden_size=1408, intermediate_size=6144, num_hidden_layers=39,
    num_attention_heads=16,
)  # fmt: skip
INTERNVL = dict(layer_norm_eps=1e-6, image_size=448, patch_size=14, attention_bias=False)
SIGLIP = dict(layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh")
LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
# what is a CLIP: no bias in its projection of patches, a norm in front of the blocks
CLIPS: dict[str, dict[str, Any]] = {
    "clip_vision_model": CLIP,
    "metaclip_2_vision_model": CLIP,
    "chinese_clip_vision_model": CLIP,
    "altclip_vision_model": CLIP,
    "clipseg_vision_model": CLIP,
    "owlvit_vision_model": CLIP | dict(image_size=768),
    "owlv2_vision_model": CLIP | dict(image_size=768, patch_size=16),
    "git_vision_model": CLIP | dict(patch_size=16),
    "kosmos_2_vision_model": CLIP | LARGE | dict(patch_size=14),
    "idefics_vision": dict(
        layer_norm_eps=1e-5,
        patch_size=14,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
    ),
}
# model_type: what its config says where it says nothing (transformers writes only what differs)
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "vit": dict(layer_norm_eps=1e-12),
    "deit": dict(layer_norm_eps=1e-12),
    "vit_mae": dict(layer_norm_eps=1e-12),
    "vit_msn": dict(layer_norm_eps=1e-6),
    "ijepa": dict(layer_norm_eps=1e-12),
    "dinov2": dict(layer_norm_eps=1e-6, patch_size=14),
    "dinov2_with_registers": dict(layer_norm_eps=1e-6, num_register_tokens=4),
    "tipsv2_vision_model": dict(layer_norm_eps=1e-6, image_size=448, patch_size=14, num_register_tokens=1),
    "dinov3_vit": dict(
        layer_norm_eps=1e-5, hidden_size=384, intermediate_size=1536, num_attention_heads=6, rope_theta=100.0
    ),
    "pixio": dict(
        layer_norm_eps=1e-6, image_size=256, hidden_size=1280, num_hidden_layers=32, num_attention_heads=16
    ),
    **CLIPS,
    "blip_vision_model": dict(layer_norm_eps=1e-5, image_size=384),
    "blip_2_vision_model": EVA_CLIP,
    "instructblip_vision_model": EVA_CLIP,
    "instructblipvideo_vision_model": EVA_CLIP,
    "flava_image_model": dict(layer_norm_eps=1e-12),
    "dpt": dict(layer_norm_eps=1e-12, image_size=384),
    "internvl_vision": LARGE | INTERNVL,
    "qianfan_ocr_vision": LARGE | INTERNVL | dict(attention_bias=True),
    "janus_vision_model": LARGE | dict(layer_norm_eps=1e-6, image_size=384, attention_bias=True),
    "vivit": dict(layer_norm_eps=1e-6, hidden_act="gelu_fast", num_frames=32, tubelet_size=(2, 16, 16)),
    "videomae": dict(layer_norm_eps=1e-12, num_frames=16, tubelet_size=2, use_mean_pooling=True),
    "siglip_vision_model": SIGLIP,
    "granite_docling_vision": SIGLIP | dict(image_size=512),
    "aimv2_vision_model": dict(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=8, intermediate_size=2816, patch_size=14,
        hidden_act="silu", rms_norm_eps=1e-5, qkv_bias=False, mlp_bias=False, use_head=True,
    ),
    **{kind: dict(layer_norm_eps=1e-12) for kind in BEITS},
    "radio": dict(hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, layer_norm_eps=1e-6),
}  # fmt: skip
EVERYWHERE: dict[str, Any] = dict(
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    mlp_ratio=4,
    hidden_act="gelu",
    image_size=224,
    patch_size=16,
    num_channels=3,
    qkv_bias=True,
    num_register_tokens=0,
)
ACTS = {"gelu": "gelu", "quick_gelu": "quick_gelu"}
ACTS |= dict.fromkeys(("gelu_pytorch_tanh", "gelu_new", "gelu_fast"), "gelu_tanh")

# beside the path from pixels to features: towers and heads for texts, masks, depth, boxes
LEFT_BEHIND = re.compile(
    r"^((model|flava|vision_model)\.)?(text_model|text_encoder|text_decoder|text_projection|text_proj|visual_projection|"
    r"vision_proj|logit_scale|logit_bias|temperature|decoder|encoder_to_decoder|enc_to_dec_proj|language_model|"
    r"language_projection|multi_modal_projector|aligner|qformer|query_tokens|git|output|itm_head|"
    r"image_codebook|multimodal_model|mim_head|mlm_head|mmm_(image|text)_head|image_projection|"
    r"(image|text)_to_mm_projection|class_head|box_head|objectness_head|layer_norm|neck|fpn\d?|decode_head|"
    r"auxiliary_head|relative_head|metric_head|connector|head\.(head|conv\d*|projection))\b|"
    r"mask_token$|position_ids$|\bpooler\.(?!layernorm)|relative_position_index$|^lm_head\.|summary_idxs$"
)
# of those, what a whole model answers with: for boxes, masks or depth
HEADS = re.compile(
    r"^((?:class|box|objectness|decode|auxiliary|relative|metric)_head|head(?=\.(?:head|conv\d*|projection)\b))\."
)
# both generations of names: those of the files on the Hub, and those of today's modules
FROM_TRANSFORMERS: Renames = (
    (r"^(vit|deit|ijepa|dinov2|dinov2_with_registers|pixio|vivit|videomae|vision_model(\.model)?)\.", ""),
    (r"^(beit|data2vec_vision|dpt)\.", ""),
    (r"^radio_model\.(model\.)?(patch_generator\.)?", ""),  # RADIO, as in its files
    (r"^(cls_token\.token|embeddings\.cls_register_token)$", "cls_register_token"),
    (r"^(embedder|embeddings\.patch_projection)\.", "patch_embed.proj."),
    (r"^(?:encoder\.)?layers?\.(\d+)\..*relative_position_bias_table$", r"rel_pos.\1"),
    (r"^.*relative_position_bias_table$", "rel_pos.shared"),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"\.(?:lambda_|ls)([12])$", r".ls\1.gamma"),
    (r"^head\.cls_token$", "attn_pool.latent"),  # AIMv2's attention pooling
    (r"^head\.(k|v)_proj\.", r"attn_pool.\1."),
    (r"^head\.output_proj\.", "attn_pool.proj."),
    (r"^embeddings\.patch_embed\.", "patch_embed.proj."),
    (r"^embeddings\.rms_norm\.", "patch_embed.norm."),
    (r"(^|\.)(?:rms_)(norm[12]?)\.", r"\1\2."),
    (r"\.ffn\.", ".mlp."),
    (r"(\d)\.attention\.out_proj\.", r"\1.attn.proj."),
    (r"^head\.probe$", "attn_pool.latent"),  # SigLIP's attention pooling
    (r"^head\.attention\.in_proj_", "attn_pool.in_proj."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.(?:layer)?(norm|mlp)\.", r"attn_pool.\1."),
    (r"^embeddings\.(cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^(embeddings\.)?register_tokens$", "reg_token"),
    (r"^embeddings\.(position_embeddings|position_embedding(\.weight)?)$", "pos_embed"),
    (r"^embeddings\.(patch_embeddings\.projection|patch_embeddings|patch_embedding)\.", "patch_embed.proj."),
    (r"^(encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\2."),
    (r"^pre_lay(er|r)norm\.", "norm_pre."),  # some have it misspelt
    (r"^(layernorm|post_layernorm)\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.(attention|attention\.attention|self_attn)\.(q|query|q_proj)\.", ".attn.q."),
    (r"\.(attention|attention\.attention|self_attn)\.(k|key|k_proj)\.", ".attn.k."),
    (r"\.(attention|attention\.attention|self_attn)\.(v|value|v_proj)\.", ".attn.v."),
    (r"\.attention\.attention\.([qv])_bias$", r".attn.\1.bias"),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),  # BLIP
    (
        r"\.(attention|self_attn)\.(output\.dense|o_proj|out_proj|projection|projection_layer)\.",
        ".attn.proj.",
    ),
    (r"\.(intermediate\.dense|mlp\.(weights_in|c_fc|w12))\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.(weights_out|down_proj|c_proj|w3))\.", ".mlp.fc2."),
)
WITHOUT_CLASS_TOKEN = (
    "ijepa", "videomae", "siglip_vision_model", "granite_docling_vision", "aimv2_vision_model",
    "janus_vision_model",
)  # fmt: skip
# where a config of several parts describes the one that sees, and how the part's type ends
PARTS = {
    "vision_config": "_vision_model",
    "image_config": "_image_model",
    "backbone_config": "_backbone",
    "encoder": "_encoder",
}
# what transformers keeps apart and we keep in one matrix
JOINED = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "mlp.fc1": ("mlp.gate_proj", "mlp.up_proj")}


def from_transformers(model: nn.Module | Mapping[str, Tensor], config: Any = None) -> ViT:
    """transformers' ViT, DeiT, MAE, MSN, DINOv2 (with and without registers), CLIP, SigLIP, I-JEPA, ViViT,
    VideoMAE -> ViT.

    model: a live module, or a state dict with its `config` (theirs, or the dictionary of config.json).
    The features of a model without a head are its normed class token, or the mean of its patches where it
    has none. Raises CheckpointError for what is no plain ViT.
    """
    if isinstance(model, nn.Module):
        model = unwrapped(model)
        if type(model).__module__.startswith("timm."):  # it stood inside transformers' wrapper of it
            return from_timm(model)
        if not hasattr(model, "config"):
            raise CheckpointError(f"{type(model).__name__} is not of transformers: it carries no config.")
        config = model.config
    if config is None:
        raise CheckpointError(NO_CONFIG)
    state = unpacked(model.state_dict() if isinstance(model, nn.Module) else model)
    config = config if isinstance(config, Mapping) else config.to_dict()
    vit_config, note = describe_transformers(config, state.keys())
    announce(note)
    tensors = transformers_tensors(bare(state, beside(config)), vit_config)
    return build(vit_config, copied(tensors), "This transformers model")


@one_sentence()
def describe_transformers(config: Mapping[str, Any], names: Iterable[str]) -> tuple[ViTConfig, str]:
    """(config, what is left behind) of a config.json and its tensors' names. Raises CheckpointError."""
    names = list(names)
    heads = sorted({found[1] for name in bare_names(names).values() if (found := HEADS.search(name))})
    left = f"What stands on it stays behind ({', '.join(heads)})." if heads else ""
    seeing = bare_names(names, beside(config)).values()
    ours = {rename(name, FROM_TRANSFORMERS) for name in seeing if not LEFT_BEHIND.search(name)}
    labels = config.get("id2label")
    classes = config.get("num_labels", 2) if labels is None else len(labels)
    config, kind = tower_of(config)
    if kind not in TRANSFORMERS:
        refuse(f"The model type {kind!r}", why_refused(kind))
    c = EVERYWHERE | TRANSFORMERS[kind] | {key: x for key, x in config.items() if x is not None}
    is_dino, is_clip = kind in DINOV2, kind in CLIPS
    has_class_token = kind not in WITHOUT_CLASS_TOKEN
    pooling = "head.weight" not in ours and any(name.startswith("attn_pool.") for name in ours)
    pooling = pooling and bool(c.get("use_head", True) and c.get("vision_use_head", True))
    note = RADIO_NOTE if kind == "radio" else ""
    if is_dino and "head.weight" in ours:
        note = "DINOv2's classifier reads class token and mean patch at once: loaded without it."
    if is_clip and "head.weight" in ours:
        note = "CLIP's classifier reads patches without the final norm: loaded without it."
    classes = 0 if note or "head.weight" not in ours else classes
    two_heads = kind == "deit" and ("head_dist.weight" in ours or not classes)
    patch, other = pair(c["tubelet_size"][1:] if kind == "vivit" else c["patch_size"])
    if patch != other:
        refuse(f"This {kind} model", "has patches that are not square")
    width = c.get("embed_dim", c["hidden_size"]) if kind == "idefics_vision" else c["hidden_size"]
    own = fields_of(kind, c, ours)
    if c["hidden_act"] not in ACTS and own.get("activation") != "swiglu":
        refuse(f"This {kind} model", f"has another activation ({c['hidden_act']})")
    if own.get("proj_bias", True) and not (c.get("proj_bias", True) and c.get("mlp_bias", True)):
        refuse(f"This {kind} model", "has projections without bias")
    fields = dict(
        image_size=filled(pair(c["image_size"]), patch),
        patch_size=patch,
        in_chans=c["num_channels"],
        num_classes=classes,
        embed_dim=width,
        depth=c["num_hidden_layers"],
        num_heads=c["num_attention_heads"],
        mlp_ratio=c["intermediate_size"] / width,
        class_token=has_class_token,
        num_registers=c["num_register_tokens"] + (kind == "deit" and not two_heads),
        distillation=two_heads,
        pool="cls" if has_class_token else "attention" if pooling else "mean",
        pre_norm=is_clip,
        activation=ACTS.get(c["hidden_act"], "gelu"),
        qkv_bias=c.get("query_bias", c.get("qv_bias", c["qkv_bias"])),
        norm_eps=c.get("layer_norm_eps"),
    )
    model_config = configured(**fields | own)
    return model_config, " ".join(filter(None, (note, left, unread(pair(c["image_size"]), model_config))))


def tower_of(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """(config, type) of the part that sees: a tower beside one of texts, or what a neck and a head stand on.

    Of any other model its own.
    """
    kind = str(config.get("model_type"))
    if family(kind) in REFUSED or (kind in TRANSFORMERS and (kind != "dpt" or config.get("is_hybrid"))):
        return config, kind
    for part, end in PARTS.items():
        # transformers lets the old name have its way where a config has both
        inner = config.get(f"{part}_dict") or config.get(part) or {}
        if not isinstance(inner, Mapping):
            raise CheckpointError(f"config.json must hold a JSON object under {part}.")
        within = kind.replace("-", "_") + end
        if within in TRANSFORMERS:
            return inner, within
        if inner:
            return inner, str(inner.get("model_type"))
    return config, kind


def beside(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What is looked for beside the part that sees, in a model of several; None in one of a single part.

    A classifier of CLIP or SigLIP stands on that part; that of another model reads words, too.
    """
    inner, kind = tower_of(config)
    if inner is config:
        return None
    whole = str(config.get("model_type")).replace("-", "_")
    return ("classifier.",) if kind in [whole + end for end in PARTS.values()] else ()


def family(kind: str) -> str:
    """A type without what its parts' names end in."""
    return re.sub(r"(_vision)?(_model|_encoder)?$", "", kind)


def why_refused(kind: str) -> str:
    """Which part of this type of model is none of a plain ViT's."""
    return REFUSED.get(family(kind), "is not known to be a plain ViT")


@one_sentence()
def transformers_tensors(state: Mapping[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """transformers' state dict as ours: renamed, with q, k and v in one matrix."""
    state = renamed({name: x for name, x in state.items() if not LEFT_BEHIND.search(name)}, FROM_TRANSFORMERS)
    if not config.num_classes:
        state = {name: x for name, x in state.items() if not name.startswith(("head.", "head_dist."))}
    if config.pool != "attention":  # a classifier of SigLIP reads the mean patch
        state = {name: x for name, x in state.items() if not name.startswith("attn_pool.")}
    if "reg_token" in state and not state["reg_token"].numel():  # DINOv3 without registers keeps an empty one
        del state["reg_token"]
    with_radio_tensors(state, config.patch_size)
    with_relative_tables(state, config.depth)
    with_aimv2_pooling(state)
    for end in ("weight", "bias"):
        if (together := state.pop(f"attn_pool.in_proj.{end}", None)) is not None:
            q, k, v = together.chunk(3)
            state |= {f"attn_pool.q.{end}": q, f"attn_pool.kv.{end}": torch.cat([k, v])}
    biased = [name for name in state if name.endswith(".attn.q.bias")]
    for other in (
        "k",
        "v",
    ):  # DINOv3's keys have no bias, which is one of zero; damaged files miss it in one layer
        if f"blocks.0.attn.{other}.bias" not in state:
            state |= {name.replace(".q.", f".{other}."): torch.zeros_like(state[name]) for name in biased}
    if config.activation != "swiglu":
        state = {name.replace(".mlp.up_proj.", ".mlp.fc1."): x for name, x in state.items()}
    for whole, parts in JOINED.items():
        for first in [name for name in state if f".{parts[0]}." in name]:
            names = [first.replace(parts[0], part) for part in parts]
            if all(name in state for name in names):
                state[first.replace(parts[0], whole)] = torch.cat([state.pop(name) for name in names])
    for name, shape in (("cls_token", (1, -1, config.embed_dim)), ("pos_embed", (1, -1, config.embed_dim))):
        if name in state and state[name].numel() % config.embed_dim == 0:  # CLIP keeps them flat
            state[name] = state[name].reshape(shape)
    if config.is_clip and config.pos_embed == "sincos":  # never stored
        state["pos_embed"] = sincos_pos_embed(config.grid_size, config.embed_dim)
    if config.pre_norm:  # CLIP has no bias here, which is a bias of zero
        state.setdefault("patch_embed.proj.bias", torch.zeros(config.embed_dim))
    if "dist_token" in state and not config.distillation:  # without a head of its own it is a register
        state["reg_token"] = state.pop("dist_token")
        fold_positions(state, "reg_token", 1)
    return state

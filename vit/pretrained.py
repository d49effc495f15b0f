"""Weights of timm, torchvision and transformers in our ViT: exactly, or not at all.

Every import takes the same three steps: the other library's config says which plain ViT it is (or one
sentence says why it is none), a short table renames its tensors to ours, and `build` accepts them only if
every name and every shape agrees. What a model keeps beside the path from pixels to features (MAE's decoder,
CLIP's text tower, mask tokens) stays behind.
"""

import inspect
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from vit.card import LIMITS, CheckpointError, checked, typed
from vit.checkpoint import build
from vit.model import ACTIVATIONS, ViT, ViTConfig

Renames = Sequence[tuple[str, str]]  # (regular expression, replacement), applied in this order

WINDOWS = "attends within windows, not across the whole image"
STAGES = "merges patches on the way, so that no one grid of tokens runs through it"
RELATIVE = "adds a learned relative position bias to its attention scores"
STEM = "has a convolutional stem where a plain ViT projects each patch once"
ROTARY = "rotates queries and keys by their position (RoPE)"
CHANNELS = "attends between channels, not between tokens"
VIDEO = "reads video, not pictures"
RMS = "normalises with RMSNorm, not LayerNorm"

# module of timm or model_type of transformers: why it is refused; other names are refused more shortly
REFUSED = {
    "beit": RELATIVE,
    "data2vec-vision": RELATIVE,
    "vision_transformer_relpos": RELATIVE,
    "vision_transformer_sam": WINDOWS,
    "sam": WINDOWS,
    "vitdet": WINDOWS,
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "swin_transformer": WINDOWS,
    "swin_transformer_v2": WINDOWS,
    "maxxvit": WINDOWS,
    "vision_transformer_hybrid": STEM,
    "vit_hybrid": STEM,
    "levit": STEM,
    "eva": ROTARY,
    "dinov3_vit": ROTARY,
    "vjepa2": VIDEO,
    "vivit": VIDEO,
    "videomae": VIDEO,
    "timesformer": VIDEO,
    "hiera": STAGES,
    "pvt": STAGES,
    "pvt_v2": STAGES,
    "mvitv2": STAGES,
    "segformer": STAGES,
    "cait": "mixes its heads with each other (talking heads)",
    "xcit": CHANNELS,
    "davit": CHANNELS,
    "aimv2": RMS,
    "siglip2": "packs pictures of many shapes into one padded sequence (NaFlex)",
}
NO_CONFIG = "A state dict does not say how many heads it has: give its config, too."


def refuse(what: str, why: str) -> NoReturn:
    raise CheckpointError(f"{what} cannot be loaded exactly, so it is not loaded: it {why}.")


@contextmanager
def one_sentence() -> Iterator[None]:
    """A config or tensors that trip us up are refused in one sentence, whatever they are."""
    try:
        yield
    except CheckpointError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"This describes no ViT that can be built: {error}") from error


def configured(**fields: Any) -> ViTConfig:
    """A ViTConfig whose fields have the types and sizes that a ViT can have. Raises TypeError, ValueError."""
    return checked(ViTConfig(**typed(ViTConfig, fields)))


def announce(note: str) -> None:
    """Say what was left behind, to whoever called from_timm and its like."""
    if note:
        warnings.warn(note, stacklevel=3)


@one_sentence()
def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own: training one model must not move the other."""
    return {name: x.detach().to("cpu", torch.float32, copy=True) for name, x in state.items()}


# --- timm ---------------------------------------------------------------------------------------------


def from_timm(model: nn.Module | Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> ViT:
    """timm's VisionTransformer -> ViT: AugReg, DeiT, DeiT-III, DINO, MAE, DINOv2, CLIP, SigLIP, I-JEPA ...

    model: a live module, or a state dict with the `config` that timm writes to config.json, at least
    {"architecture": "vit_small_patch16_224"}. Raises CheckpointError for what is no plain ViT.
    """
    module = model if isinstance(model, nn.Module) else timm_skeleton(config or {})
    state = model.state_dict() if isinstance(model, nn.Module) else model
    vit_config, note = describe_timm(module)
    announce(note)
    return build(vit_config, copied(timm_tensors(state, vit_config)), "This timm model")


def timm_skeleton(config: Mapping[str, Any]) -> nn.Module:
    """The module that timm's config.json describes: shapes without memory. Raises CheckpointError."""
    try:
        import timm  # optional: only its own layout needs it, and only timm knows its thousand names
    except ImportError as error:
        raise CheckpointError("Only timm knows what its architectures are: pip install timm.") from error
    name = str(config.get("architecture", ""))
    if not re.fullmatch(r"\w+", name) or not timm.is_model(name):
        raise CheckpointError(
            f"The installed timm has no architecture {name!r}: update timm or correct config.json."
        )
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    if family not in ("vision_transformer", "deit"):
        refuse(f"timm's {name}", REFUSED.get(family, f"is not a plain ViT but timm's {family}"))
    arguments, about = config.get("model_args") or {}, config.get("pretrained_cfg") or config
    if not isinstance(arguments, Mapping) or not isinstance(about, Mapping):
        raise CheckpointError("config.json must hold JSON objects under model_args and pretrained_cfg.")
    known = inspect.signature(timm.models.VisionTransformer).parameters.keys() - {"device", "dtype"}
    for key in arguments.keys() - known:
        raise CheckpointError(f"config.json gives {name} an argument {key!r} that timm's ViT does not take.")
    told = {key: about[key] for key in ("num_classes", "input_size", "fixed_input_size") if key in about}
    told |= {"num_classes": config["num_classes"]} if "num_classes" in config else {}
    for number in numbers_in([arguments, told]):
        if not abs(number) < 100_000:
            raise CheckpointError(f"config.json gives {name} the number {number}, which no ViT has.")
    depth = arguments.get("depth", 1)
    if type(depth) is not int or not 0 < depth <= LIMITS["depth"]:
        raise CheckpointError(f"config.json gives {name} a depth of {depth}.")
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, pretrained_cfg=told, **arguments)
    except Exception as error:  # whatever a third party's constructor makes of a broken config
        raise CheckpointError(f"timm cannot build {name} as config.json describes it: {error}") from error


def numbers_in(value: Any) -> Iterable[float]:
    """Every number in a JSON value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, int | float):
        yield value


@one_sentence()
def describe_timm(m: Any) -> tuple[ViTConfig, str]:
    """(config, what is left behind) of timm's VisionTransformer. Raises CheckpointError, naming the part."""
    for why in unlike_ours(m):
        refuse(f"timm's {type(m).__name__}", why)
    block, attn, mlp, head = m.blocks[0], m.blocks[0].attn, m.blocks[0].mlp, m.head
    headless = m.global_pool in ("", "map") or not isinstance(head, nn.Linear)
    config = configured(
        image_size=tuple(m.patch_embed.img_size),
        patch_size=m.patch_embed.patch_size[0],
        in_chans=m.patch_embed.proj.in_channels,
        num_classes=0 if headless else head.out_features,
        embed_dim=m.embed_dim,
        depth=len(m.blocks),
        num_heads=attn.num_heads,
        mlp_ratio=mlp.fc1.out_features / m.embed_dim,
        class_token=m.cls_token is not None,
        num_registers=m.num_reg_tokens,
        distillation=type(m).__name__ == "VisionTransformerDistilled",
        pool="cls" if m.cls_token is not None and m.global_pool != "avg" else "mean",
        norm_after_pool=isinstance(m.fc_norm, nn.LayerNorm),
        pos_embed_prefix=not m.no_embed_class,
        layer_scale=None if isinstance(block.ls1, nn.Identity) else 1.0,
        pre_norm=isinstance(m.norm_pre, nn.LayerNorm),
        activation="swiglu" if type(mlp).__name__ == "GluMlp" else name_of(mlp.act),
        qkv_bias=attn.qkv.bias is not None,
        qk_norm=isinstance(attn.q_norm, nn.LayerNorm),
        norm_eps=block.norm1.eps,
    )
    if m.global_pool == "map":
        return config, "Its attention pooling is no part of a plain ViT: loaded without a head."
    return config, ""


def unlike_ours(m: Any) -> Iterable[str]:
    """Why this timm module is no ViT of ours, part by part, from pixels to logits."""
    kind, family = type(m).__name__, type(m).__module__.rpartition(".")[2]
    if kind not in ("VisionTransformer", "VisionTransformerDistilled"):
        yield REFUSED.get(family, "is not a plain ViT")
    stem, block = m.patch_embed, m.blocks[0]
    if type(stem).__name__ != "PatchEmbed":
        yield STEM
    if not isinstance(stem.norm, nn.Identity):
        yield "normalises its patches before it adds positions"
    if stem.patch_size[0] != stem.patch_size[1] or stem.dynamic_img_pad:
        yield "has patches that are not square, or pads its pictures"
    if m.pos_embed is None:
        yield "has no position embedding"
    if any(type(block).__name__ != "Block" for block in m.blocks):
        yield f"has blocks of another order ({type(block).__name__})"
    attn, mlp = block.attn, block.mlp
    if type(attn).__name__ != "Attention" or attn.gate is not None or not isinstance(attn.norm, nn.Identity):
        yield f"has another attention ({type(attn).__name__})"
    if attn.head_dim * attn.num_heads != m.embed_dim or attn.proj.bias is None:
        yield "has heads that do not share its width evenly, or a projection without bias"
    gated = type(mlp).__name__ == "GluMlp" and isinstance(mlp.act, nn.SiLU) and not mlp.gate_last
    plain = type(mlp).__name__ == "Mlp" and name_of(mlp.act)
    if not (gated or plain) or not isinstance(mlp.norm, nn.Identity):
        yield f"has another MLP ({type(mlp).__name__} with {type(mlp.act).__name__})"
    norms = [module for module in m.modules() if "Norm" in type(module).__name__]
    if not all(isinstance(norm, nn.LayerNorm) and norm.bias is not None for norm in norms):
        yield RMS
    if len({norm.eps for norm in norms}) > 1:
        yield "has norms of different eps"
    if not isinstance(m.norm, nn.LayerNorm) and not isinstance(m.fc_norm, nn.LayerNorm):
        yield "has no final norm"
    if m.global_pool not in ("", "token", "avg", "map"):
        yield f"pools by {m.global_pool!r}"
    if m.global_pool == "avg" and m.num_prefix_tokens and m.pool_include_prefix:
        yield "pools its class token together with the patches"
    if not isinstance(m.head, nn.Linear | nn.Identity):
        yield "has a head of more than one layer"


@one_sentence()
def timm_tensors(state: Mapping[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """timm's state dict as ours: the names are the same, two tensors may be missing or longer."""
    dropped = ("attn_pool.",) + (() if config.num_classes else ("head.", "head_dist."))
    state = {name: x for name, x in state.items() if not name.startswith(dropped)}
    if config.pre_norm:  # CLIP has no bias here, which is a bias of zero
        state.setdefault("patch_embed.proj.bias", torch.zeros(config.embed_dim))
    if config.num_registers and config.pos_embed_prefix:
        fold_positions(state, "reg_token", int(config.class_token))
    return state


def fold_positions(state: dict[str, Tensor], name: str, start: int) -> None:
    """Ours have no position: theirs goes into the token itself, the same sum in the same order."""
    if name in state and "pos_embed" in state:
        pos_embed, end = state["pos_embed"], start + state[name].shape[1]
        state[name] = state[name] + pos_embed[:, start:end]
        state["pos_embed"] = torch.cat([pos_embed[:, :start], pos_embed[:, end:]], dim=1)


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


# --- torchvision --------------------------------------------------------------------------------------

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
    state = model.state_dict() if isinstance(model, nn.Module) else model
    told, eps = dict(config or {}), 1e-6
    if isinstance(model, nn.Module):
        if type(model).__name__ != "VisionTransformer":
            family = type(model).__module__.rpartition(".")[2]
            refuse(f"torchvision's {type(model).__name__}", REFUSED.get(family, "is not a plain ViT"))
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


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of one number for both, or of two."""
    first, second = value if isinstance(value, list | tuple) else (value, value)
    return first, second


def renamed(state: Mapping[str, Tensor], table: Renames) -> dict[str, Tensor]:
    return {rename(name, table): x for name, x in state.items()}


def rename(name: str, table: Renames) -> str:
    for old, new in table:
        name = re.sub(old, new, name)
    return name


# --- transformers -------------------------------------------------------------------------------------

# model_type: what its config says where it says nothing (transformers writes only what differs)
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "vit": dict(layer_norm_eps=1e-12),
    "deit": dict(layer_norm_eps=1e-12),
    "vit_mae": dict(layer_norm_eps=1e-12),
    "vit_msn": dict(layer_norm_eps=1e-6),
    "ijepa": dict(layer_norm_eps=1e-12),
    "dinov2": dict(layer_norm_eps=1e-6, patch_size=14),
    "dinov2_with_registers": dict(layer_norm_eps=1e-6, num_register_tokens=4),
    "clip_vision_model": dict(layer_norm_eps=1e-5, patch_size=32, hidden_act="quick_gelu"),
    "siglip_vision_model": dict(layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh"),
}
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
ACTS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}

# beside the path from pixels to features; SigLIP's `head` is an attention pooling
LEFT_BEHIND = re.compile(
    r"^(text_model|text_projection|visual_projection|logit_scale|logit_bias|decoder|vision_model\.head|"
    r"head\.(probe|attention|layernorm|mlp))\b|mask_token$|position_ids$|\bpooler\."
)
# both generations of names: those of the files on the Hub, and those of today's modules
FROM_TRANSFORMERS: Renames = (
    (r"^(vit|deit|ijepa|dinov2|dinov2_with_registers|vision_model)\.", ""),
    (r"^embeddings\.(cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.(position_embeddings|position_embedding\.weight)$", "pos_embed"),
    (r"^embeddings\.(patch_embeddings\.projection|patch_embedding)\.", "patch_embed.proj."),
    (r"^(encoder\.)?layers?\.(\d+)\.", r"blocks.\2."),
    (r"^pre_layrnorm\.", "norm_pre."),  # their spelling
    (r"^(layernorm|post_layernorm)\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.(attention|attention\.attention|self_attn)\.(q|query|q_proj)\.", ".attn.q."),
    (r"\.(attention|attention\.attention|self_attn)\.(k|key|k_proj)\.", ".attn.k."),
    (r"\.(attention|attention\.attention|self_attn)\.(v|value|v_proj)\.", ".attn.v."),
    (r"\.(attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.weights_out|mlp\.down_proj)\.", ".mlp.fc2."),
)
# what transformers keeps apart and we keep in one matrix
JOINED = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "mlp.fc1": ("mlp.gate_proj", "mlp.up_proj")}


def from_transformers(model: nn.Module | Mapping[str, Tensor], config: Any = None) -> ViT:
    """transformers' ViT, DeiT, MAE, MSN, DINOv2 (with and without registers), CLIP, SigLIP, I-JEPA -> ViT.

    model: a live module, or a state dict with its `config` (theirs, or the dictionary of config.json).
    The features of a model without a head are its normed class token, or the mean of its patches where it
    has none. Raises CheckpointError for what is no plain ViT.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    config = model.config if isinstance(model, nn.Module) else config
    if config is None:
        raise CheckpointError(NO_CONFIG)
    config = config if isinstance(config, Mapping) else config.to_dict()
    vit_config, note = describe_transformers(config, state.keys())
    announce(note)
    return build(vit_config, copied(transformers_tensors(state, vit_config)), "This transformers model")


@one_sentence()
def describe_transformers(config: Mapping[str, Any], names: Iterable[str]) -> tuple[ViTConfig, str]:
    """(config, what is left behind) of a config.json and its tensors' names. Raises CheckpointError."""
    ours = {rename(name, FROM_TRANSFORMERS) for name in names if not LEFT_BEHIND.search(name)}
    labels, kind = config.get("id2label"), str(config.get("model_type"))
    classes = config.get("num_labels", 2) if labels is None else len(labels)
    if kind in ("clip", "siglip"):
        config, kind = config.get("vision_config") or {}, f"{kind}_vision_model"
    if kind not in TRANSFORMERS:
        refuse(f"The model type {kind!r}", REFUSED.get(kind, "is not known to be a plain ViT"))
    c = EVERYWHERE | TRANSFORMERS[kind] | {key: x for key, x in config.items() if x is not None}
    is_dino, is_clip = kind.startswith("dinov2"), kind == "clip_vision_model"
    has_class_token = kind not in ("ijepa", "siglip_vision_model")
    note = ""
    if kind == "siglip_vision_model" and "head.weight" not in ours and c.get("vision_use_head", True):
        note = "SigLIP's attention pooling is no part of a plain ViT: loaded without a head."
    if is_dino and "head.weight" in ours:
        note = "DINOv2's classifier reads class token and mean patch at once: loaded without it."
    if is_clip and "head.weight" in ours:
        note = "CLIP's classifier reads patches without the final norm: loaded without it."
    classes = 0 if note or "head.weight" not in ours else classes
    two_heads = kind == "deit" and ("head_dist.weight" in ours or not classes)
    patch, other = pair(c["patch_size"])
    if patch != other:
        refuse(f"This {kind} model", "has patches that are not square")
    if c["hidden_act"] not in ACTS:
        refuse(f"This {kind} model", f"has another activation ({c['hidden_act']})")
    mlp_dim, activation = c["intermediate_size"], ACTS[c["hidden_act"]]
    if is_dino:
        mlp_dim = int(c["hidden_size"] * c["mlp_ratio"])
    if is_dino and c.get("use_swiglu_ffn"):  # both halves: two thirds each, rounded up to a multiple of 8
        mlp_dim, activation = 2 * ((int(mlp_dim * 2 / 3) + 7) // 8 * 8), "swiglu"
    return configured(
        image_size=pair(c["image_size"]),
        patch_size=patch,
        in_chans=c["num_channels"],
        num_classes=classes,
        embed_dim=c["hidden_size"],
        depth=c["num_hidden_layers"],
        num_heads=c["num_attention_heads"],
        mlp_ratio=mlp_dim / c["hidden_size"],
        class_token=has_class_token,
        num_registers=c["num_register_tokens"] + (kind == "deit" and not two_heads),
        distillation=two_heads,
        pool="cls" if has_class_token else "mean",
        layer_scale=1.0 if is_dino else None,
        pre_norm=is_clip,
        activation=activation,
        qkv_bias=c["qkv_bias"],
        norm_eps=c["layer_norm_eps"],
    ), note


@one_sentence()
def transformers_tensors(state: Mapping[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """transformers' state dict as ours: renamed, with q, k and v in one matrix."""
    state = renamed({name: x for name, x in state.items() if not LEFT_BEHIND.search(name)}, FROM_TRANSFORMERS)
    if not config.num_classes:
        state = {name: x for name, x in state.items() if not name.startswith(("head.", "head_dist."))}
    for whole, parts in JOINED.items():
        for first in [name for name in state if f".{parts[0]}." in name]:
            names = [first.replace(parts[0], part) for part in parts]
            if all(name in state for name in names):
                state[first.replace(parts[0], whole)] = torch.cat([state.pop(name) for name in names])
    for name, shape in (("cls_token", (1, 1, -1)), ("pos_embed", (1, -1, config.embed_dim))):
        if name in state and state[name].numel() % config.embed_dim == 0:  # CLIP keeps them flat
            state[name] = state[name].reshape(shape)
    if config.pre_norm:  # CLIP has no bias here, which is a bias of zero
        state.setdefault("patch_embed.proj.bias", torch.zeros(config.embed_dim))
    if "dist_token" in state and not config.distillation:  # without a head of its own it is a register
        state["reg_token"] = state.pop("dist_token")
        fold_positions(state, "reg_token", 1)
    return state


# --- either layout of the Hub ---------------------------------------------------------------------------

IMAGENET = re.compile(r"in(1|12|21|22)k")  # in the name of a timm model: the data it was trained on


def describe(config: Mapping[str, Any], names: Iterable[str] = ()) -> tuple[ViTConfig, str]:
    """(config, what is left behind) of a config.json and the names of its tensors. Raises CheckpointError."""
    if "architecture" in config:
        return describe_timm(timm_skeleton(config))
    if "model_type" in config:
        return describe_transformers(config, names)
    raise CheckpointError("config.json says neither timm's architecture nor transformers' model_type.")


def imagenet_names(name: str, classes: int) -> list[str] | None:
    """The names of ImageNet's classes, for a timm model whose name says that it was trained on them."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    return list(ImageNetInfo(subset).label_descriptions()) if subset and IMAGENET.search(name) else None

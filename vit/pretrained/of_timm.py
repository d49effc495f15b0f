"""timm's VisionTransformer: AugReg, DeiT, DINO, MAE, DINOv2, CLIP, SigLIP, I-JEPA and what lies between."""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vit.card import LIMITS, CheckpointError
from vit.checkpoint import build
from vit.config import ViTConfig
from vit.model import ViT
from vit.pretrained.common import (
    BLOCKS,
    NO_CONFIG,
    announce,
    bare,
    configured,
    copied,
    filled,
    fold_positions,
    one_sentence,
    refuse,
    unread,
    unwrapped,
)
from vit.pretrained.kinds import with_relative_tables
from vit.pretrained.of_beit import describe_beit
from vit.pretrained.of_eva import (
    activation_of,
    describe_eva,
    eva_tensors,
    norms_of,
    pooling_of,
    unlike_our_norms_and_pooling,
    unlike_our_patches,
)
from vit.pretrained.refused import SUB_LN
from vit.pretrained.refused import TIMM as REFUSED

HEAD = re.compile(r"^(head|head_dist)\.\d+\.")  # a head of several modules, of which one is linear
IMAGENET = re.compile(r"in(1|12|21|22)k")  # in the tag of a timm model: the data it was trained on
TOWERS = re.compile(r"_clip_|_pe_core_")  # in the name of one that learned together with texts


def from_timm(model: nn.Module | Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> ViT:
    """timm's VisionTransformer -> ViT: AugReg, DeiT, DeiT-III, DINO, MAE, DINOv2, CLIP, SigLIP, I-JEPA ...

    model: a live module, or a state dict with the `config` that timm writes to config.json, at least
    {"architecture": "vit_small_patch16_224"}. Raises CheckpointError for what is no plain ViT.
    """
    if isinstance(model, nn.Module):
        module = unwrapped(model)
        state: Mapping[str, Tensor] = {HEAD.sub(r"\1.", name): x for name, x in module.state_dict().items()}
        head = linear_of(getattr(module, "head", None))
        if isinstance(head, nn.Linear) and head.bias is None:  # which is a bias of zero
            state = {**state, "head.bias": torch.zeros(head.out_features)}
        about = getattr(module, "pretrained_cfg", None) or {}
        config = {"architecture": about.get("architecture"), "pretrained_cfg": about}
    elif config is None:
        raise CheckpointError(f'{NO_CONFIG[:-1]}, at least {{"architecture": "vit_small_patch16_224"}}.')
    else:
        module, state = timm_skeleton(config), bare(model)
    vit_config, note = describe_timm(module, config)
    announce(note)
    return build(vit_config, copied(timm_tensors(state, vit_config)), "This timm model")


def timm_skeleton(config: Mapping[str, Any]) -> nn.Module:
    """The module that timm's config.json describes: shapes without memory. Raises CheckpointError."""
    try:
        import timm  # optional: only its own layout needs it, and only timm knows its thousand names
    except ImportError as error:
        raise CheckpointError("Only timm knows what its architectures are: pip install timm.") from error
    name, _ = name_and_tag(config)
    if not re.fullmatch(r"\w+", name) or not timm.is_model(name):
        raise CheckpointError(
            f"The installed timm has no architecture {name!r}: update timm or correct config.json."
        )
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    classes = {"eva": timm.models.eva.Eva, "beit": timm.models.beit.Beit}
    if family not in ("vision_transformer", "deit", *classes):
        refuse(f"timm's {name}", REFUSED.get(family, f"is not a plain ViT but timm's {family}"))
    arguments, about = config.get("model_args") or {}, config.get("pretrained_cfg") or config
    if not isinstance(arguments, Mapping) or not isinstance(about, Mapping):
        raise CheckpointError("config.json must hold JSON objects under model_args and pretrained_cfg.")
    module = classes.get(family, timm.models.VisionTransformer)
    known = inspect.signature(module).parameters.keys() - {"device", "dtype"}
    for key in arguments.keys() - known:
        raise CheckpointError(f"config.json gives {name} an argument {key!r} that timm's ViT does not take.")
    said = {**published(config), **about}
    told = {key: said[key] for key in ("num_classes", "input_size", "fixed_input_size") if key in said}
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


def name_and_tag(config: Mapping[str, Any]) -> tuple[str, str]:
    """What timm calls the architecture today, and the tag that says what it learned from, or nothing."""
    import timm

    name, about = str(config.get("architecture", "")), config.get("pretrained_cfg") or config
    name, _, tag = (timm.models.get_deprecated_models().get(name) or name).partition(".")
    return name, str((isinstance(about, Mapping) and about.get("tag")) or tag)


def published(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm says of the model that it publishes under this name; nothing where there is none."""
    import timm

    name, tag = name_and_tag(config)
    for full in (f"{name}.{tag}", name):
        if timm.models.is_model_pretrained(full) and (found := timm.get_pretrained_cfg(full)):
            return found.to_dict()
    return {}


def is_projection(config: Mapping[str, Any], classes: int) -> bool:
    """Is a head of so many outputs the projection of an image tower into the space of its texts, which timm
    keeps in the place of a classifier? It is as wide as that of a tower which timm publishes."""
    import timm

    (name, tag), about = name_and_tag(config), config.get("pretrained_cfg") or config
    if not TOWERS.search(name) or IMAGENET.search(tag) or "label_names" in {*config, *about}:
        return False
    towers = [full for full in timm.list_pretrained(f"{name}.*") if not IMAGENET.search(full)]
    return classes in {getattr(timm.get_pretrained_cfg(full), "num_classes", None) for full in towers}


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
def describe_timm(m: Any, about: Mapping[str, Any]) -> tuple[ViTConfig, str]:
    """(config, what is left behind) of timm's VisionTransformer, of which its config.json tells this much.
    Raises CheckpointError, naming the part."""
    kinds = {"Eva": describe_eva, "Beit": describe_beit}
    config, note = kinds.get(type(m).__name__, describe_plain)(m), ""
    if config.num_classes and is_projection(about, config.num_classes):
        config = replace(config, num_classes=0)
        note = "Its projection onto the space of its texts is no classifier: loaded without it."
    elif not m.global_pool and isinstance(linear_of(m.head), nn.Linear):
        note = "Its head answers for every token by itself, without pooling: loaded without it."
    return config, " ".join(filter(None, (note, unread(m.patch_embed.img_size, config))))


def describe_plain(m: Any) -> ViTConfig:
    """The config of timm's VisionTransformer itself. Raises CheckpointError, naming the part."""
    for why in unlike_ours(m):
        refuse(f"timm's {type(m).__name__}", why)
    block, attn, mlp, head = m.blocks[0], m.blocks[0].attn, m.blocks[0].mlp, linear_of(m.head)
    headless = not m.global_pool or not isinstance(head, nn.Linear)
    first = "fc1_g" if type(mlp).__name__ == "SwiGLU" else "fc1"
    gated = type(mlp).__name__ in ("GluMlp", "SwiGLU")
    width = getattr(mlp, first).out_features * (2 if first == "fc1_g" else 1)
    return configured(
        image_size=filled(m.patch_embed.img_size, m.patch_embed.patch_size[0]),
        patch_size=m.patch_embed.patch_size[0],
        in_chans=m.patch_embed.proj.in_channels,
        num_classes=0 if headless else head.out_features,
        embed_dim=m.embed_dim,
        depth=len(m.blocks),
        num_heads=attn.num_heads,
        mlp_ratio=width / m.embed_dim,
        class_token=m.cls_token is not None,
        num_registers=m.num_reg_tokens,
        distillation=type(m).__name__ == "VisionTransformerDistilled",
        pos_embed="none" if m.pos_embed is None else "learned",
        pos_embed_prefix=not m.no_embed_class,
        layer_scale=None if isinstance(block.ls1, nn.Identity) else 1.0,
        activation="swiglu" if gated else activation_of(mlp.act),
        qkv_bias=attn.qkv.bias is not None,
        proj_bias=attn.proj.bias is not None,
        **norms_of(m),
        **pooling_of(m),
    )


def unlike_ours(m: Any) -> Iterable[str]:
    """Why this timm module is no ViT of ours, part by part, from pixels to logits."""
    kind, family = type(m).__name__, type(m).__module__.rpartition(".")[2]
    if kind not in ("VisionTransformer", "VisionTransformerDistilled"):
        yield REFUSED.get(family, "is not a plain ViT")
    block = m.blocks[0]
    yield from unlike_our_patches(m.patch_embed)
    for order in {type(block).__name__ for block in m.blocks} - {"Block"}:
        yield f"has blocks of another order: {BLOCKS.get(order, order)}"
    attn, mlp = block.attn, block.mlp
    if type(attn).__name__ != "Attention" or attn.gate is not None:
        yield f"has another attention ({type(attn).__name__})"
    if not isinstance(attn.norm, nn.Identity):
        yield SUB_LN
    if attn.head_dim * attn.num_heads != m.embed_dim:
        yield "has heads that do not share its width evenly"
    kind, silu = type(mlp).__name__, isinstance(mlp.act, nn.SiLU)
    gated = silu and (kind == "SwiGLU" or (kind == "GluMlp" and not mlp.gate_last))
    if not gated and not (kind == "Mlp" and activation_of(mlp.act)):
        yield f"has another MLP ({kind} with {type(mlp.act).__name__})"
    first = mlp.fc1_g if kind == "SwiGLU" else mlp.fc1
    if len({x.bias is None for x in (attn.proj, first, mlp.fc2)}) > 1:
        yield "has projections with bias beside others without"
    yield from unlike_our_norms_and_pooling(m)
    if m.global_pool == "avg" and m.num_prefix_tokens and m.pool_include_prefix:
        yield "pools its class token together with the patches"
    if not isinstance(linear_of(m.head), nn.Linear | nn.Identity):
        yield "has a head of more than one layer"


def linear_of(head: Any) -> Any:
    """The linear layer of a head that only has a dropout in front of it; else the head itself."""
    if not isinstance(head, nn.Sequential):
        return head
    layers = [layer for layer in head if not isinstance(layer, nn.Dropout | nn.Identity)]
    return layers[0] if len(layers) == 1 else head


@one_sentence()
def timm_tensors(state: Mapping[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """timm's state dict as ours: the names are the same, two tensors may be missing or longer."""
    state = eva_tensors(state, config)
    with_relative_tables(state, config.depth)
    dropped = () if config.num_classes else ("head.", "head_dist.")
    state = {name: x for name, x in state.items() if not name.startswith(dropped)}
    if config.pre_norm:  # CLIP has no bias here, which is a bias of zero
        state.setdefault("patch_embed.proj.bias", torch.zeros(config.embed_dim))
    if config.num_registers and config.pos_embed_prefix:
        fold_positions(state, "reg_token", int(config.class_token))
    return state


def imagenet_names(config: Mapping[str, Any], classes: int) -> list[str] | None:
    """The names of ImageNet's classes, for a timm model whose tag says that it was trained on them."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None or not IMAGENET.search(name_and_tag(config)[1]):
        return None
    return list(ImageNetInfo(subset).label_descriptions())

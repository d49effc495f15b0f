"""What a run begins with: a network without a past, or a checkpoint's weights fitted to what it is to learn.

K classes, D width of a token.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vit.card import Card, check_channels
from vit.config import ViTConfig
from vit.library import load
from vit.masked import Masked
from vit.model import ViT
from vit.options import Options, flag
from vit.positions import resample_pos_embed, resample_relative
from vit.teacher import ConvTeacher

SHAPE = (
    *("patch_size", "num_frames", "tubelet"),
    *("embed_dim", "depth", "num_heads", "mlp_ratio", "num_registers", "distillation"),
)


@lru_cache(maxsize=1)
def beginning(name: str) -> tuple[ViT, Card]:
    """The checkpoint of --init, loaded once: it may come from far away."""
    return load(name)


def with_init(options: Options, told: dict[str, Any]) -> Options:
    """The options of a run; one that begins with a checkpoint has its shape, but for the heads that it was
    told. Raises ValueError."""
    if not options.init:
        return options
    config = beginning(options.init)[0].config
    if options.teacher and (config.pool != "cls" or config.norm_after_pool):
        raise ValueError(f"{options.init} has no class token to be taught: leave out --teacher.")
    shape = {name: getattr(config, name) for name in SHAPE}
    heads_are_alike = config.rope == "none" and not (config.rel_pos or config.qk_norm)
    for name in SHAPE:
        cut = name == "num_heads" and options.num_heads % shape[name] == 0 and heads_are_alike
        if cut and name in told:
            shape[name] = options.num_heads  # the same matrices, cut finer
        elif name in ("num_frames", "tubelet") and not config.is_clip:
            shape[name] = getattr(options, name)  # what knows pictures may begin with clips
        elif name == "distillation" and options.distillation and not shape[name]:
            raise ValueError(
                f"{options.init} has no distillation token: leave out --distillation, or --init."
            )
        elif told.get(name, shape[name]) != shape[name]:
            raise ValueError(f"{flag(name)} of {options.init} is {shape[name]}: leave the option out.")
    return replace(options, **shape)


def new_network(options: Options, class_names: Sequence[str]) -> ViT | Masked | ConvTeacher:
    """What these options train, with its first weights; one that learns without labels has no head."""
    if options.network == "conv":
        return ConvTeacher(len(class_names), options.stem, options.image_size)
    if options.mask:
        return Masked(build_model(options, ()), options.mask)
    return build_model(options, class_names)


def build_model(options: Options, class_names: Sequence[str]) -> ViT:
    """A new ViT, or the weights of `options.init` fitted to this picture size, these heads and classes."""
    new: dict[str, Any] = dict(
        image_size=options.image_size, num_classes=len(class_names), drop_path=options.drop_path
    )
    if not options.init:
        return ViT(ViTConfig(**new | {name: getattr(options, name) for name in SHAPE}))
    old, card = beginning(options.init)
    check_channels(old.config, options.init)
    new |= {name: getattr(options, name) for name in ("num_heads", "num_frames", "tubelet")}
    model = ViT(replace(old.config, **new))
    weights = old.state_dict()
    grids = old.config.grid_size, model.config.grid_size
    if old.config.pos_square:
        pass  # that table is resampled for each picture as it is
    elif old.config.pos_embed == "learned" and old.pos_embed is not None:
        weights["pos_embed"] = resample_pos_embed(old.pos_embed, *grids)
    elif model.pos_embed is not None:
        weights["pos_embed"] = model.pos_embed
    if old.rel_pos is not None:
        weights["rel_pos"] = torch.stack([resample_relative(table, *grids) for table in old.rel_pos])
    if model.config.is_clip and not old.config.is_clip:
        inflate(weights, model.config)
    if tuple(class_names) != card.class_names or len(class_names) != old.config.num_classes:
        heads = {name: x for name, x in model.state_dict().items() if name.startswith("head")}
        weights = {name: x for name, x in weights.items() if not name.startswith("head")} | heads
        then = {name: k for k, name in enumerate(card.class_names) if name in class_names}
        for name, k in then.items():  # of a class that it knew it keeps what it knew
            for part in heads:
                weights[part][class_names.index(name)] = old.state_dict()[part][k]
    model.load_state_dict(weights)
    return model


def inflate(weights: dict[str, Tensor], config: ViTConfig) -> None:
    """From pictures to clips, in place: every time begins like a picture (Arnab et al. 2021, ViViT, section
    3.4), and what tells the times apart begins at random."""
    filters = weights["patch_embed.proj.weight"] / config.tubelet  # (D, 3, p, p)
    weights["patch_embed.proj.weight"] = torch.stack([filters] * config.tubelet, dim=2)  # a frame each
    if config.pos_embed == "learned":
        grid, D = config.grid_size, config.embed_dim
        times = 0.02 * torch.randn(grid[0], 1, D).expand(-1, math.prod(grid[1:]), D)  # (t, h·w, D)
        weights["pos_embed"] = weights["pos_embed"].clone()
        weights["pos_embed"][:, -times.numel() // D :] += times.reshape(1, -1, D)

"""The shape of every tensor from pixels to logits: a dry run through the real model, without a number."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from explorer.subject import what_is_read
from vit.config import ViTConfig
from vit.model import ViT

SAYS = {  # what happened just before the hook saw the tensor
    "embed": "{P} patches of {p} x {p} pixels, each projected to {D} numbers",
    "pos": "{prefix}positions added",
    "norm1": "every token normalised",
    "q": "queries of {H} heads, {d} numbers per token",
    "k": "keys",
    "v": "values",
    "scores": "query times key over the square root of {d}",
    "attn": "softmax: every row sums to 1",
    "z": "attention times values",
    "attn_out": "heads joined and projected",
    "resid_mid": "added to the stream",
    "norm2": "normalised again",
    "mlp_pre": "{M} hidden numbers per token",
    "mlp_post": "{activation}",
    "resid_post": "back to {D}, added to the stream",
    "norm": "the final norm",
    "pool_scores": "a learned query times the key of every token",
    "pool_attn": "softmax: how much the head reads of every token",
    "pooled": "one vector for the head",
    "logits": "{read_out}",
}

Row = dict[str, Any]  # layer (None outside the blocks), name, shape, about


def shapes_of(config: ViTConfig, size: tuple[int, int] | None = None) -> list[Row]:
    """One row per named activation, in the order in which an image of `size` meets them."""
    size = size or config.image_size
    words = {
        "P": config.grid_at(size).count,
        "p": config.patch_size,
        "D": config.embed_dim,
        "H": config.num_heads,
        "d": config.head_dim,
        "M": config.mlp_dim,
        "activation": config.activation,
        "prefix": " and ".join(config.prefix_names) + " in front, " if config.prefix_names else "",
    }
    read = what_is_read(config)
    words["read_out"] = (
        f"the head reads {read}: one number per class" if config.num_classes else f"{read}: no head"
    )
    rows: list[Row] = []

    def note(name: str, layer: int | None, x: Tensor, about: str) -> Tensor:
        rows.append({"layer": layer, "name": name, "shape": str(list(x.shape)), "about": about})
        return x

    with torch.device("meta"):  # tensors with a shape and without memory
        model, image = ViT(config).eval(), torch.empty(1, *config.input_shape(size))
        note("image", None, image, "pixels, normalised")
        model(image, lambda name, layer, x: note(name, layer, x, SAYS[name].format(**words)))
    return rows


def lines_of(name: str, config: ViTConfig, rows: list[Row]) -> Iterator[str]:
    """The rows for people: one layer in full, and the whole way in one line at the end."""
    width = max(len(row["shape"]) for row in rows)
    for row in rows:
        if row["layer"] in (None, 0):
            yield f"{row['shape']:<{width}}  {row['name']:<11} {row['about']}"
        elif row["name"] == "norm1" and row["layer"] == 1:
            yield f"{'...':<{width}}  {'':<11} the same in layers 1 to {config.depth - 1}"
    shape = {row["name"]: row["shape"] for row in rows}
    stream = f"{config.depth} x {shape['resid_post']}"
    chain = " -> ".join([shape["image"], shape["embed"], shape["pos"], stream, shape["logits"]])
    with torch.device("meta"):
        count = sum(p.numel() for p in ViT(config).parameters())
    yield f"\n{name}: {chain}, {count / 1e6:.2f} million parameters"

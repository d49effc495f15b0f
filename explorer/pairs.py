"""Two pictures in front of one model: which patch of one is like which of the other.

Vectors are the residual stream's, at any depth, and alike means a large cosine, as where the viewer shows
what resembles a patch within one picture.

L layers, P and P' patches of the first and the second picture, (h, w) patches, D width.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.payload import cosine_bytes, encode_image, pack
from explorer.render import COLORMAPS, DEFAULT
from explorer.stats import principal
from vit.card import Card
from vit.grid import Grid
from vit.trace import Trace

MAX_PAIRS = 2**22  # of patches, P · P': beyond, too much to send and to look at


@dataclass(frozen=True, eq=False)
class Matches:
    """Patches that chose each other, the most alike first."""

    pairs: Tensor  # (M, 2) patch of the first picture, patch of the second
    cosine: Tensor  # (M,)


def check_pictures(grid: Grid) -> None:
    """Raises ValueError for the grid of a clip."""
    if len(grid.shape) != 2:
        raise ValueError("Two pictures are compared by a model of pictures: this one looks at clips.")


def check_pair(a: Trace, b: Trace) -> None:
    """Raises ValueError for traces of different models, or with too many patches to compare them all."""
    if len(a.tokens) != len(b.tokens) or a.tokens.shape[-1] != b.tokens.shape[-1]:
        raise ValueError("Patches can be compared where one model has looked at both pictures.")
    check_pictures(a.grid)
    if a.grid.count * b.grid.count > MAX_PAIRS:
        raise ValueError(
            f"{a.grid.count:,} patches times {b.grid.count:,} are too many to compare: choose a smaller size."
        )


def similarity(a: Trace, b: Trace, depth: int) -> Tensor:
    """(P, P'): cosine of every patch of the first picture with every patch of the second, at a depth.

    depth: 0 after the embedding, l after l blocks; -1 after the last. Raises ValueError as `check_pair`.
    """
    check_pair(a, b)
    ours, theirs = (F.normalize(each.tokens[depth, each.num_prefix_tokens :], dim=-1) for each in (a, b))
    return ours @ theirs.mT


def matches(cosines: Tensor) -> Matches:
    """Mutual nearest neighbours of cosines (P, P'): i and j with j the nearest to i, and i the nearest to j.

    A pair that only one side would choose is no match: what has no counterpart remains alone (the "best
    buddies" of Amir et al. 2021, "Deep ViT Features as Dense Visual Descriptors"). Of equal cosines the first
    patch is the nearest.
    """
    to_b, to_a = cosines.argmax(dim=1), cosines.argmax(dim=0)  # (P,), (P',)
    ours = torch.arange(len(to_b), device=cosines.device)
    mutual = to_a[to_b] == ours  # (P,)
    pairs = torch.stack([ours[mutual], to_b[mutual]], dim=1)  # (M, 2)
    values = cosines[pairs[:, 0], pairs[:, 1]]
    order = values.argsort(descending=True, stable=True)
    return Matches(pairs[order], values[order])


def colours(a: Trace, b: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(L+1, h, w, 3) and (L+1, h', w', 3) uint8: `shared_pca` as red, green and blue, each stretched so that
    1 % of all patches, at all depths, are at either end."""
    scores = [each.numpy() for each in shared_pca(a, b)]
    every = np.concatenate([each.reshape(-1, each.shape[-1]) for each in scores])
    low, high = np.quantile(every, (0.01, 0.99), axis=0)
    shares = (((each - low) / np.maximum(high - low, 1e-12)).clip(0, 1) for each in scores)
    ours, theirs = ((255 * share).round().astype(np.uint8) for share in shares)
    return ours, theirs


def shared_pca(a: Trace, b: Trace, components: int = 3) -> tuple[Tensor, Tensor]:
    """(L+1, h, w, C) and (L+1, h', w', C): principal components of the patches of both pictures in one basis.

    A colour means the same in both pictures and at every depth: mean, scale and directions are those of all
    patches together (`stats.patch_pca` of one picture; DINOv2, Oquab et al. 2023, figure 1, of several).
    """
    check_pair(a, b)
    patches = [each.tokens[:, each.num_prefix_tokens :] for each in (a, b)]  # each (L+1, P, D)
    scores, _ = principal(torch.cat(patches, dim=1), components, joint=True)  # (L+1, P + P', C)
    ours, theirs = scores.float().split([a.grid.count, b.grid.count], dim=1)
    return a.grid.unflatten(ours, 1), b.grid.unflatten(theirs, 1)


# ---- what the page is sent -------------------------------------------------------------------------------


def pair_payload(a: Trace, b: Trace, card: Card) -> bytes:
    """Both pictures, and their patches as colours at every depth."""
    ours, theirs = colours(a, b)
    images = [np.frombuffer(encode_image(each.image, card), np.uint8) for each in (a, b)]
    arrays = {"image": images[0], "image2": images[1], "colours": ours, "colours2": theirs}
    grids = [list(each.grid.shape) for each in (a, b)]
    sizes = [list(each.image.shape[-2:]) for each in (a, b)]
    meta = {
        "kind": "pair",
        "name": card.name,
        "grids": grids,
        "sizes": sizes,
        "num_layers": len(a.tokens) - 1,
    }
    return pack(arrays | {"colormap": COLORMAPS[DEFAULT]}, meta)


def pair_depth_payload(a: Trace, b: Trace, depth: int) -> bytes:
    """What is like what at one depth: 0 after the embedding, l after l blocks."""
    cosines = similarity(a, b, depth)
    found = matches(cosines)
    arrays = {
        "similarity": cosine_bytes(cosines),
        "matches": found.pairs.int().numpy(),
        "cosine": found.cosine.numpy(),
        "nearest": cosines.argmax(dim=1).int().numpy(),  # of the bytes several may be the largest
        "nearest2": cosines.argmax(dim=0).int().numpy(),
    }
    return pack(arrays, {"kind": "pair_depth", "depth": depth})

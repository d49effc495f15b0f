"""Maps that never saw the model: what a map has to beat before it is believed.

P patches, (h, w) patch grid, of a clip (t, h, w).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CENTRE, CONTRAST, BORDER, RANDOM = "centre prior", "centre and contrast", "unlike the border", "random"
CONTROLS = (CENTRE, CONTRAST, BORDER, RANDOM)


def controls_for(image: Tensor, grid_size: tuple[int, ...]) -> dict[str, Tensor]:
    """Name -> (h, w), of an image (3, height, width) whose patches are that grid; without the random ones."""
    return {
        CENTRE: centre_prior(grid_size),
        CONTRAST: centre_and_contrast(image, grid_size),
        BORDER: unlike_border(image, grid_size),
    }


def centre_prior(grid_size: tuple[int, ...]) -> Tensor:
    """(h, w) from 1 in the middle to 0 in the corners, in every frame: it has never seen the picture."""
    rows, columns = (torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in grid_size[-2:])
    return (1 - (rows[:, None].square() + columns.square()) / 2).repeat(*grid_size[:-2], 1, 1)


def centre_and_contrast(image: Tensor, grid_size: tuple[int, ...]) -> Tensor:
    """(h, w): the mean of two ranks, the centre prior's and that of the spread of a patch's pixels."""
    squares, means = patch_means(image.square(), grid_size), patch_means(image, grid_size)
    contrast = (squares - means.square()).clamp(min=0).sum(dim=0).sqrt()  # (h, w), of a clip (t, h, w)
    return (ranks(centre_prior(grid_size)) + ranks(contrast)) / 2


def unlike_border(image: Tensor, grid_size: tuple[int, ...]) -> Tensor:
    """(h, w): how far a patch's mean colour is from the median colour of the patches along the border, of all
    frames of a clip together."""
    colours = patch_means(image, grid_size)  # (3, h, w), of a clip (3, t, h, w)
    edge = torch.ones(grid_size, dtype=torch.bool)
    edge[..., 1:-1, 1:-1] = False
    usual = colours[:, edge].median(dim=1).values  # (3,)
    return (colours - usual.view(3, *[1] * len(grid_size))).norm(dim=0)


def random_map(grid_size: tuple[int, ...], seed: int) -> Tensor:
    """(h, w): a random order of the patches."""
    return torch.rand(grid_size, generator=torch.Generator().manual_seed(seed))


def patch_means(image: Tensor, grid_size: tuple[int, ...]) -> Tensor:
    """(C, height, width) -> (C, h, w); of a clip (F, C, height, width) -> (C, t, h, w)."""
    *time, h, w = grid_size
    means = F.adaptive_avg_pool2d(image.float().cpu(), (h, w))  # (C, h, w) or (F, C, h, w)
    return means.unflatten(0, (*time, -1)).mean(dim=1).movedim(0, 1) if time else means


def ranks(map: Tensor) -> Tensor:
    """(h, w) in [0, 1], the highest 1; equal values share their mean rank."""
    flat = map.flatten()
    below = (flat[None] < flat[:, None]).sum(dim=1)
    equal = (flat[None] == flat[:, None]).sum(dim=1) - 1
    return ((below + equal / 2) / max(1, len(flat) - 1)).view(map.shape)


def order_of(map: Tensor, seed: int = 0) -> Tensor:
    """(P,): patches of a map (h, w), the highest first. Ties are broken by lot, drawn from `seed`: by
    position they would favour the upper left corner, and one lot for all would favour its own corner."""
    shuffled = torch.randperm(map.numel(), generator=torch.Generator().manual_seed(seed))
    return shuffled[map.flatten()[shuffled].argsort(descending=True, stable=True)]


def coverage(mask: Tensor, grid_size: tuple[int, ...]) -> Tensor:
    """(h, w): the share of each patch's pixels that a mask (height, width) covers; of a clip (t, h, w), with
    one mask per frame, (F, height, width)."""
    return patch_means(mask[..., None, :, :], grid_size).squeeze(0)


def pointing(map: Tensor, covered: Tensor, seed: int = 0) -> float:
    """1 if the highest patch of the map touches the object, else 0 (Zhang et al. 2018)."""
    return float(covered.flatten()[order_of(map, seed)[0]] > 0)


def mass_on_object(map: Tensor, covered: Tensor) -> float:
    """The share of the map's positive mass that lies on the object; a flat map gets the object's area."""
    positive = map.clamp(min=0)
    total = positive.sum()
    return float((positive * covered).sum() / total) if total > 0 else float(covered.mean())

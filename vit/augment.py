"""Augmentation, a whole batch at a time. B pictures, (height, width) pixels.

Clips are (B, F, 3, height, width): all frames of one are changed alike.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_all(images: Tensor, size: tuple[int, int], chunk: int = 1024) -> Tensor:
    """uint8 (N, ..., height, width) -> uint8 (N, ..., *size), anti-aliased: the small pictures of progressive
    training."""
    if images.shape[-2:] == size:
        return images
    small = torch.empty(*images.shape[:-2], *size, dtype=torch.uint8, device=images.device)
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk].float().flatten(1, -3)  # (n, 3, ...), of clips (n, F·3, ...)
        part = F.interpolate(part, size, mode="bilinear", antialias=True)
        small[start : start + chunk] = part.round().clamp(0, 255).view(-1, *small.shape[1:])
    return small


def augment(
    images: Tensor,
    size: tuple[int, int],
    *,
    min_area: float = 1.0,
    aspect: float = 4 / 3,
    shift: float = 0.0,
    rotation: float = 0.0,
    colour: float = 0.0,
    cutout: float = 0.0,
    flip: bool = True,
) -> Tensor:
    """uint8 (B, ..., height, width) -> [0, 1] floats (B, ..., *size), each picture or clip in its own way.

    Crop (min_area: its smallest share of the picture; aspect: the largest ratio of its sides; shift: how
    far it may reach beyond the edge), rotation (degrees either way) and flip are one affine map per
    picture, so one `grid_sample` moves the pixels of the whole batch: 11 000 CIFAR pictures/s on one core. It
    is bicubic: bilinear sampling would blur the training pictures, and the test pictures are not sampled.
    colour: range of brightness, contrast and saturation. cutout: side of a grey square, as a share of the
    picture.
    """
    B, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(B, device=device) * (high - low) + low

    side = uniform(min_area, 1).sqrt()  # of the crop, as a share of the picture's
    stretch = torch.exp(uniform(-1, 1) * (math.log(aspect) / 2)).clamp(side, 1 / side)  # no edge beyond 1
    x_scale, y_scale = side * stretch, side / stretch
    x_shift, y_shift = (uniform(-1, 1) * (1 - scale + 2 * shift) for scale in (x_scale, y_scale))
    if min_area == 1 and not rotation:  # by whole pixels, 2 / size each: nothing is blurred
        x_shift, y_shift = ((x_shift / 2 * size[1]).round(), (y_shift / 2 * size[0]).round())
        x_shift, y_shift = x_shift * 2 / size[1], y_shift * 2 / size[0]
    angle = torch.deg2rad(uniform(-rotation, rotation))
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if flip else torch.ones(B, device=device)
    cos, sin = angle.cos(), angle.sin()
    rows = (cos * x_scale * mirror, -sin * y_scale, x_shift, sin * x_scale * mirror, cos * y_scale, y_shift)
    theta = torch.stack(rows, dim=1).view(B, 2, 3)
    grid = F.affine_grid(theta, [B, 3, *size], align_corners=False)
    x = images.float().flatten(1, -3) / 255  # (B, 3, ...), of clips (B, F·3, ...)
    x = F.grid_sample(x, grid, "bicubic", "reflection", align_corners=False).clamp(0, 1)
    x, each = x.view(*images.shape[:-2], *size), (B, *[1] * (images.dim() - 1))

    if colour:
        brightness, contrast, saturation = (1 + uniform(-colour, colour).view(each) for _ in range(3))
        grey = x.mean(dim=-3, keepdim=True)  # (B, 1, height, width), of clips (B, F, 1, height, width)
        x = grey + (x - grey) * saturation
        x = (x - 0.5) * contrast + 0.5 * brightness
        x = x.clamp(0, 1)
    if cutout:
        centre_x, centre_y = (uniform(0, 1).view(B, 1, 1) for _ in range(2))
        ys = (torch.arange(size[0], device=device).view(1, -1, 1) + 0.5) / size[0]
        xs = (torch.arange(size[1], device=device).view(1, 1, -1) + 0.5) / size[1]
        in_rows, in_columns = ((ys - centre_y).abs() < cutout / 2), ((xs - centre_x).abs() < cutout / 2)
        hole = in_rows & in_columns  # (B, height, width)
        x = x.masked_fill(hole.view(*each[:-2], *size), 0.5)
    return x

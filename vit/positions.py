"""Where tokens are: position embeddings, and the places that stay with tokens when others are left out.

B images, T tokens, P patches, D width, (h, w) patch grid, of a clip (t, h, w).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vit.grid import Grid


@dataclass(frozen=True, eq=False)
class Places:
    """Which places on the grid the tokens of a sequence hold; `places[kept]` are those of some of them."""

    grid: Grid
    index: Tensor  # (T,) or (B, T): patches are counted from 0, tokens in front of them have negative numbers

    @classmethod
    def of_all(cls, grid: Grid, num_prefix_tokens: int) -> "Places":
        """Those of a whole sequence: prefix tokens, then every patch."""
        return cls(grid, torch.arange(-num_prefix_tokens, grid.count))

    def __getitem__(self, kept: Tensor) -> "Places":
        """kept: (T',) or (B, T') numbers of tokens in this sequence."""
        return Places(self.grid, self.index[kept.to(self.index.device)])


def resample_pos_embed(
    pos_embed: Tensor, old: tuple[int, ...], new: tuple[int, ...], crop: bool = False
) -> Tensor:
    """Learned positions (1, prefix + h·w, D) on another grid: bicubic with anti-aliasing, as timm does it.

    Of a clip (1, prefix + t·h·w, D): so in every frame, and linear with anti-aliasing through time.
    crop: bilinear to a square of the new grid's longer side, of which the upper left part is taken (RADIO).
    """
    if old == new:
        return pos_embed
    prefix = pos_embed.shape[1] - math.prod(old)
    D, (t, *_), space = pos_embed.shape[-1], (math.prod(old[:-2]), *old), new[-2:]
    table = pos_embed[:, prefix:].float().reshape(t, *old[-2:], D).permute(0, 3, 1, 2)  # (t, D, h, w)
    if crop:
        table = F.interpolate(table, size=(max(space),) * 2, mode="bilinear")[..., : space[0], : space[1]]
    else:
        table = F.interpolate(table, size=space, mode="bicubic", antialias=True)
    if old[:-2] != new[:-2]:
        through = table.permute(1, 0, 2, 3).flatten(2)[None]  # (1, D, t, h'·w')
        size = (math.prod(new[:-2]), math.prod(space))
        through = F.interpolate(through, size=size, mode="bilinear", antialias=True)
        table = through[0].unflatten(2, space).permute(1, 0, 2, 3)  # (t', D, h', w')
    table = table.permute(0, 2, 3, 1).reshape(1, -1, D).to(pos_embed.dtype)  # (1, t'·h'·w', D)
    return torch.cat([pos_embed[:, :prefix], table], dim=1)


def sincos_pos_embed(grid_size: tuple[int, ...], dim: int) -> Tensor:
    """Fixed positions (1, h·w, D): sines and cosines of column, then of row (He et al. 2022, MAE).

    Of a clip (1, t·h·w, D): those of the patches' numbers, as VideoMAE has them.
    """
    if len(grid_size) > 2:
        return sinusoid_pos_embed(math.prod(grid_size), dim)
    h, w = grid_size
    omega = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in (column, row)]  # each (P, D/4)
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None].float()


def sinusoid_pos_embed(count: int, dim: int) -> Tensor:
    """Fixed positions (1, P, D): sines and cosines, in turn, of a patch's number (Vaswani et al. 2017,
    section 3.5; Tong et al. 2022, VideoMAE)."""
    omega = 10000 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * omega  # (P, D/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[None].float()


def rope_places(places: Places, span: tuple[float, float] | None, offset: float) -> Tensor:
    """(T, 2) or (B, T, 2): row and column of every token as rotary positions measure them, in float64.

    Tokens in front of the patches stand at 0, where nothing is rotated.
    """
    h, w = places.grid.shape
    index = places.index.clamp(min=0)
    at = torch.stack([index // w, index % w], dim=-1).double() + offset
    if span is not None:
        low, high = span
        at = low + at / torch.tensor([h, w]) * (high - low)
    return at * (places.index >= 0)[..., None]


def axial_frequencies(head_dim: int, theta: float) -> Tensor:
    """(2, 1, d/2): half of the pairs turn with the row, half with the column, the same in all heads."""
    quarter = head_dim // 4
    slower = theta ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    still = torch.zeros_like(slower)
    return torch.stack([torch.cat([slower, still]), torch.cat([still, slower])])[:, None]


def mixed_frequencies(heads: tuple[int, ...], head_dim: int, theta: float) -> Tensor:
    """(2, *heads, d/2): to begin with, each head looks in a direction of its own (Heo et al. 2024)."""
    length = theta ** -(torch.arange(head_dim // 4) / (head_dim // 4))
    turned = 2 * math.pi * torch.rand(*heads, 1)
    row = [length * (turned + side).cos() for side in (0, math.pi / 2)]
    column = [length * (turned + side).sin() for side in (0, math.pi / 2)]
    return torch.stack([torch.cat(row, dim=-1), torch.cat(column, dim=-1)])


Turn = tuple[Tensor, Tensor]  # cosine and sine of every token's angles, (T, d/2) for each head


def turn_of(at: Tensor, frequencies: Tensor) -> Turn:
    """Each ((B,) H or 1, T, d/2): the angles are row · frequency of rows + column · frequency of columns.

    at: (T, 2) or (B, T, 2), of `rope_places`; frequencies: (2, H or 1, d/2).
    """
    angles = torch.einsum("...tc,chf->...htf", at.to(frequencies.device), frequencies.double())
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, turn: Turn, neighbours: bool = False) -> Tensor:
    """Queries or keys (B, H, T, d): each pair, (i, i + d/2) or (2i, 2i + 1), turned by its angle."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1) if neighbours else x.chunk(2, dim=-1)  # (B, H, T, d/2)
    cos, sin = turn
    turned = (a * cos - b * sin, b * cos + a * sin)
    x_turned = torch.stack(turned, dim=-1).flatten(-2) if neighbours else torch.cat(turned, dim=-1)
    return x_turned.to(x.dtype)


def relative_count(grid_size: tuple[int, ...]) -> int:
    """How many ways two patches can lie to each other, and three more: see `relative_bias`."""
    return math.prod(2 * side - 1 for side in grid_size) + 3


def resample_relative(table: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """A table of `relative_bias` (relative_count, H) for another grid: bilinear, as transformers does it."""
    if old == new:
        return table
    before, after = ([2 * side - 1 for side in grid] for grid in (old, new))
    apart = F.interpolate(table[:-3].T.unflatten(1, before)[None].float(), after, mode="bilinear")
    return torch.cat([apart[0].flatten(1).T.to(table.dtype), table[-3:]])


def relative_bias(table: Tensor, grid_size: tuple[int, ...], places: Places) -> Tensor:
    """((B,) H, T, T): what is added to scores, by how far a query is from a key (Bao et al. 2022, BEiT).

    table: (relative_count, H), the differences of rows and columns of this grid, the smallest first; then a
    prefix token looking at a patch, a patch at a prefix token, and a prefix token at one.  On another grid it
    is resampled.
    """
    h, w = places.grid.space
    table = resample_relative(table, grid_size, (h, w))
    at = places.index.to(table.device)
    in_front, row, column = at < 0, at // w, at % w
    rows, columns = (x[..., :, None] - x[..., None, :] for x in (row, column))  # (T, T), query minus key
    number = (rows + h - 1) * (2 * w - 1) + columns + w - 1
    query, key = in_front[..., :, None], in_front[..., None, :]
    number = torch.where(query | key, len(table) - 3 + key + (query & key).long(), number)
    return table[number].movedim(-1, -3)

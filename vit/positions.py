"""Where tokens are: position embeddings, and the places that stay with tokens when others are left out.

B images, T tokens, P patches, D width, (h, w) patch grid.
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


def resample_pos_embed(pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Learned positions (1, prefix + h·w, D) on another grid: bicubic with anti-aliasing, as timm does it."""
    if old == new:
        return pos_embed
    prefix = pos_embed.shape[1] - math.prod(old)
    table = pos_embed[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)  # (1, D, h, w)
    table = F.interpolate(table, size=new, mode="bicubic", antialias=True)
    table = table.flatten(2).mT.to(pos_embed.dtype)  # (1, h'·w', D)
    return torch.cat([pos_embed[:, :prefix], table], dim=1)


def sincos_pos_embed(grid_size: tuple[int, int], dim: int) -> Tensor:
    """Fixed positions (1, h·w, D): sines and cosines of column, then of row (He et al. 2022, MAE)."""
    h, w = grid_size
    omega = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in (column, row)]  # each (P, D/4)
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None].float()

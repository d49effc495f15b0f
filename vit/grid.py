"""The patches of an image as a grid: how many there are, where each lies, how far apart two of them are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """P patches, counted from 0, row by row."""

    shape: tuple[int, int]  # (h, w); of a clip it will be (t, h, w), and nothing below changes

    @classmethod
    def of(cls, image_size: tuple[int, int], patch_size: int) -> "Grid":
        """That of an image of (height, width) pixels. Raises ValueError where patches do not fit evenly."""
        height, width = image_size
        if min(height, width) < patch_size or height % patch_size or width % patch_size:
            raise ValueError(
                f"Patches of {patch_size} pixels do not divide an image of {height} x {width} pixels evenly."
            )
        return cls((height // patch_size, width // patch_size))

    @property
    def count(self) -> int:
        """P, the number of patches."""
        return math.prod(self.shape)

    def place(self, patch: int) -> tuple[int, ...]:
        """(row, column) of a patch. Raises ValueError for one that there is not."""
        if not 0 <= patch < self.count:
            raise ValueError(f"There is no patch {patch}: this grid has {self.count}, 0 to {self.count - 1}.")
        place = []
        for side in reversed(self.shape):
            patch, at = divmod(patch, side)
            place.append(at)
        return tuple(reversed(place))

    def places(self) -> Tensor:
        """(P, 2): row and column of every patch."""
        return torch.cartesian_prod(*(torch.arange(side) for side in self.shape)).view(self.count, -1)

    def name(self, patch: int) -> str:
        """A patch in words."""
        return f"patch ({', '.join(map(str, self.place(patch)))})"

    def distances(self, pitch: Sequence[float]) -> Tensor:
        """(P, P): how far the centres of patches are from each other. pitch: from one row to the next, and
        from one column to the next, in the unit that the distances shall have."""
        centres = self.places() * torch.tensor(pitch, dtype=torch.float32)
        return (centres[:, None] - centres[None]).norm(dim=-1)

    def unflatten(self, x: Tensor, dim: int = -1) -> Tensor:
        """(..., P, ...) -> (..., h, w, ...)."""
        return x.unflatten(dim, self.shape)

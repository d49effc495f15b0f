"""The patches of an image or a clip as a grid: how many there are, where each lies, how far apart two are.

A clip is a stack of frames. A patch of it may reach through several of them (a tubelet; Arnab et al. 2021,
ViViT, section 3.2), so that t, the number of patches through time, is that of the frames or less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """P patches, counted from 0: of a clip frame by frame, in each row by row."""

    shape: tuple[int, ...]  # (h, w), or (t, h, w) of a clip

    @classmethod
    def of(
        cls, image_size: Sequence[int], patch_size: int, frames: int | None = None, tubelet: int = 1
    ) -> "Grid":
        """That of an image of (height, width) pixels, or of a clip of so many frames.

        Raises ValueError where patches do not fit evenly.
        """
        height, width = image_size
        if min(height, width) < patch_size or height % patch_size or width % patch_size:
            raise ValueError(
                f"Patches of {patch_size} pixels do not divide an image of {height} x {width} pixels evenly."
            )
        rows_columns = (height // patch_size, width // patch_size)
        if frames is None:
            return cls(rows_columns)
        if frames < tubelet or frames % tubelet:
            raise ValueError(f"Patches of {tubelet} frames do not divide a clip of {frames} frames evenly.")
        return cls((frames // tubelet, *rows_columns))

    @property
    def frames(self) -> int:
        """t: how many patches lie one behind the other in time; 1 in a picture."""
        return math.prod(self.shape[:-2])

    @property
    def space(self) -> tuple[int, int]:
        """(h, w), the patches of a picture or of one frame."""
        return self.shape[-2], self.shape[-1]

    @property
    def count(self) -> int:
        """P, the number of patches."""
        return math.prod(self.shape)

    def place(self, patch: int) -> tuple[int, ...]:
        """(row, column) of a patch, or (time, row, column). Raises ValueError for one that there is not."""
        if not 0 <= patch < self.count:
            raise ValueError(f"There is no patch {patch}: this grid has {self.count}, 0 to {self.count - 1}.")
        place = []
        for side in reversed(self.shape):
            patch, at = divmod(patch, side)
            place.append(at)
        return tuple(reversed(place))

    def number(self, place: Sequence[int]) -> int:
        """The patch at a place: the inverse of `place`. Raises ValueError for one that there is not."""
        if len(place) != len(self.shape) or not all(0 <= at < side for at, side in zip(place, self.shape)):
            axes = ("times", "rows", "columns")[-len(self.shape) :]
            told = ", ".join(f"{name} from 0 to {side - 1}" for name, side in zip(axes, self.shape))
            raise ValueError(f"There is no patch {','.join(map(str, place))}: this grid has {told}.")
        patch = 0
        for at, side in zip(place, self.shape):
            patch = patch * side + at
        return patch

    def places(self) -> Tensor:
        """(P, 2): row and column of every patch; of a clip (P, 3), with the time in front."""
        return torch.cartesian_prod(*(torch.arange(side) for side in self.shape)).view(self.count, -1)

    def name(self, patch: int) -> str:
        """A patch in words: patch (row, column), of a clip with its time."""
        *time, row, column = self.place(patch)
        return f"patch ({row}, {column})" + "".join(f" at time {t}" for t in time)

    def in_frame(self, time: int) -> range:
        """The patches of one time. Raises ValueError for one that there is not."""
        if not 0 <= time < self.frames:
            raise ValueError(f"There is no time {time}: this grid has {self.frames}, counted from 0.")
        each = math.prod(self.space)
        return range(time * each, (time + 1) * each)

    def through_time(self, patch: int) -> range:
        """The patches at a patch's row and column, one of each time. Raises ValueError as `place` does."""
        *_, row, column = self.place(patch)
        return range(row * self.shape[-1] + column, self.count, math.prod(self.space))

    def distances(self, pitch: Sequence[float]) -> Tensor:
        """(P, P): how far the centres of patches are from each other. pitch: from one row to the next, and
        from one column to the next, in the unit that the distances shall have; of a clip from one time to the
        next, too, which is 0 for distances within the frame alone."""
        centres = self.places() * torch.tensor(pitch, dtype=torch.float32)
        return (centres[:, None] - centres[None]).norm(dim=-1)

    @staticmethod
    def side_by_side(maps: Tensor) -> Tensor:
        """Maps of a clip (..., t, h, w) as sheets (..., h, t·w): what figures of pictures can draw."""
        return maps.movedim(-3, -2).flatten(-2)

    def unflatten(self, x: Tensor, dim: int = -1) -> Tensor:
        """(..., P, ...) -> (..., h, w, ...), or (..., t, h, w, ...)."""
        return x.unflatten(dim, self.shape)

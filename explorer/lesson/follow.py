"""What the lesson follows: one patch through one head of one layer, and the tensors on its way.

T tokens, P patches, L layers, H heads, D the width of a token, d that of one head, p the side of a patch, n
the frames that it reaches through: 1 in a picture.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vit.card import Card
from vit.config import ViTConfig
from vit.model import ViT
from vit.pictures import as_picture
from vit.positions import Turn, resample_pos_embed
from vit.trace import Recorder, Trace

DIGITS = 6  # significant ones of a number that is sent
FILTERS = 8  # of the patch embedding that are sent with their weights

Numbers = dict[str, Any]  # what one step shows, as JSON has it


@dataclass(frozen=True)
class Choice:
    """What a visitor follows; a patch counts from 0, row by row, of a clip frame by frame."""

    patch: int = 0
    layer: int = 0
    head: int = 0

    def within(self, trace: Trace, config: ViTConfig) -> "Choice":
        """The nearest choice that this model has."""
        limits = (trace.grid.count, config.depth, config.num_heads)
        found = (self.patch, self.layer, self.head)
        return Choice(*(min(max(int(value), 0), limit - 1) for value, limit in zip(found, limits)))


@dataclass(frozen=True, eq=False)
class Follow:
    """One picture or clip that a model has looked at, and the choice in it."""

    trace: Trace
    model: ViT
    card: Card
    choice: Choice

    @property
    def config(self) -> ViTConfig:
        return self.model.config

    @property
    def prefix(self) -> int:
        return self.trace.num_prefix_tokens

    @property
    def token(self) -> int:
        """The patch that is followed, as a token."""
        return self.prefix + self.choice.patch

    @property
    def reads(self) -> list[int]:
        """The tokens whose mean the head reads, or those of DeiT's two heads, which answer with their mean;
        none where it reads the patches' mean, or an attention of its own pools."""
        return reads_of(self.config)

    @property
    def read_name(self) -> str:
        """What the head reads, in words."""
        return read_name_of(self.config)

    @property
    def last(self) -> int:
        return self.config.depth - 1

    def name_of(self, token: int) -> str:
        return self.trace.token_name(token)

    def block(self, layer: int) -> dict[str, Tensor]:
        """Every activation of one block by name, without the axis of images: made again from the stream in
        front of it."""
        seen = Recorder()
        stream = self.trace.tokens[layer][None].to(next(self.model.parameters()))  # (1, T, D)
        with torch.no_grad():
            self.model.run(stream, layer, layer + 1, self.model.places(self.trace.grid), seen)
        return {name: found[layer][0].float().cpu() for name, found in seen.seen.items() if layer in found}

    @cached_property
    def here(self) -> dict[str, Tensor]:
        """The block that is chosen."""
        return self.block(self.choice.layer)

    @cached_property
    def end(self) -> dict[str, Tensor]:
        """The last block, from which the answer is read."""
        return self.here if self.choice.layer == self.last else self.block(self.last)

    @cached_property
    def projected(self) -> Tensor:
        """(P, D): every patch after the projection."""
        with torch.no_grad():
            image = self.trace.image[None].to(next(self.model.parameters()))
            image = image.transpose(1, 2) if self.config.is_clip else image  # (1, 3, F, height, width)
            return self.model.patch_embed.proj(image)[0].flatten(1).mT.float().cpu()

    @cached_property
    def embedded(self) -> Tensor:
        """(P, D): the same, normalised where this model does so."""
        with torch.no_grad():
            norm = self.model.patch_embed.norm
            return norm(self.projected.to(next(self.model.parameters()))).float().cpu()

    @cached_property
    def positions(self) -> Tensor | None:
        """(P, D) added to the patches; None where nothing is added."""
        table = getattr(self.model, "pos_embed", None)
        if table is None:
            return None
        table, c = table.detach().float().cpu(), self.config
        whole = resample_pos_embed(table, c.pos_grid, self.trace.grid_size, crop=c.pos_square > 0)
        return whole[0, -self.trace.grid.count :]

    def turn(self, layer: int, head: int) -> Turn | None:
        """Cosine and sine, (T, d/2) each, by which this head turns queries and keys; None where positions
        are not rotary."""
        turn = self.model.turn(layer, self.model.places(self.trace.grid))
        if turn is None:
            return None
        cos, sin = (x.cpu()[head if len(x) > 1 else 0] for x in turn)  # (H or 1, T, d/2) -> (T, d/2)
        return cos, sin

    def distances(self, layer: int, head: int) -> Tensor | None:
        """(T,): what this head adds to our token's score with each token, by how far apart they are; None
        where positions are not relative."""
        bias = self.model.bias(layer, self.model.places(self.trace.grid))
        return None if bias is None else bias[head, self.token].float().cpu()

    @property
    def pixels(self) -> Tensor:
        """(3, n, p, p): the patch as the model takes it, normalised."""
        return self.frames_of_patch.transpose(0, 1)

    @property
    def colours(self) -> list[Any]:
        """(n, p, p, 3): the same as 0 to 255."""
        return [as_picture(frame, self.card).tolist() for frame in self.frames_of_patch]

    @property
    def frames_of_patch(self) -> Tensor:
        """(n, 3, p, p)"""
        image = self.trace.image if self.config.is_clip else self.trace.image[None]  # (F, 3, height, width)
        *time, row, column = self.trace.grid.place(self.choice.patch)
        p, n, first = self.config.patch_size, self.config.tubelet, self.config.tubelet * sum(time)
        return image[first : first + n, :, row * p : row * p + p, column * p : column * p + p]


def liveliest(trace: Trace, config: ViTConfig) -> int:
    """The patch of a clip's middle time in which most changes from frame to frame; of a picture the middle
    one."""
    grid, p = trace.grid, config.patch_size
    middle = grid.number([side // 2 for side in grid.shape])
    if not config.is_clip:
        return middle
    time = grid.frames // 2
    near = trace.image[max(0, time * config.tubelet - 1) : (time + 1) * config.tubelet]  # (2 or more, 3, ...)
    change = near.diff(dim=0).abs().mean(dim=(0, 1))  # (height, width)
    return grid.in_frame(time)[int(F.avg_pool2d(change[None], p).argmax())]


def reads_of(config: ViTConfig) -> list[int]:
    """The tokens that the answer is read from; see `Follow.reads`."""
    return list(range(config.num_class_tokens + config.distillation)) if config.pool == "cls" else []


def read_name_of(config: ViTConfig) -> str:
    """What the head reads, in words."""
    reads = reads_of(config)
    if not reads:
        return "one learned query" if config.pool == "attention" else "the average of all squares"
    names = config.prefix_names[: len(reads)]
    if config.distillation:
        return f"the pair of {names[0]} and {names[1]}"
    return names[0] if len(names) == 1 else f"the mean of {names[0]} to {names[-1]}"


def rounded(x: Tensor | float | list[Any]) -> Any:
    """A number, or the nested lists of a tensor, to `DIGITS` significant digits: what is sent and shown."""
    values = x.tolist() if isinstance(x, Tensor) else x
    return [rounded(row) for row in values] if isinstance(values, list) else float(f"{values:.{DIGITS}g}")


def strongest(shares: Tensor, count: int) -> list[int]:
    """The tokens with the largest values, largest first."""
    found: list[int] = shares.argsort(descending=True, stable=True)[:count].tolist()
    return found

"""Learning without labels: a ViT sees a few patches of a picture, and the others are drawn from what it made
of them (He et al. 2022, "Masked autoencoders are scalable vision learners").

What is learned is what pictures are like. The part that draws is left behind in the end: another run begins
with the ViT (--init) and learns classes, from fewer labels or in fewer steps.

B pictures or clips, P patches, n of them visible, T tokens, D width of the ViT, W of what draws; a patch is
N = 3 · p · p numbers, of a clip as many for each of its frames.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit.config import ViTConfig
from vit.model import Block, ViT
from vit.positions import sincos_pos_embed

DEPTH = 2  # blocks of what draws, each half as wide as those of the ViT


class Masked(nn.Module):
    """masked(images) -> the loss: how wrong the patches are drawn that the ViT has not seen.

    encoder: the ViT that learns. hidden: the share of patches that are hidden from it.
    """

    def __init__(self, encoder: ViT, hidden: float):
        super().__init__()
        c = encoder.config
        step = math.lcm(4, c.num_heads)  # a sine and a cosine of row and column; all heads of one width
        width = math.ceil(c.embed_dim / 2 / step) * step
        config = ViTConfig(embed_dim=width, depth=DEPTH, num_heads=c.num_heads)
        self.encoder, self.hidden = encoder, hidden
        for pooling in filter(None, (encoder.attn_pool, encoder.fc_norm)):  # nothing is pooled
            pooling.requires_grad_(False)
        self.part = (0, 1)  # which of how many equal parts of a batch it is given
        self.narrow = nn.Linear(c.embed_dim, width)
        self.unseen = nn.Parameter(0.02 * torch.randn(width))  # stands for every patch that is hidden
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(DEPTH))
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, c.in_chans * c.tubelet * c.patch_size**2)
        for module in (self.narrow, *self.blocks.modules(), self.draw):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        c, (i, parts), B = self.encoder.config, self.part, len(images)
        grid = c.grid_of(images.shape)
        P = grid.count
        visible = min(max(1, round(P * (1 - self.hidden))), P - 1)
        lots = torch.rand(B * parts, P, device=images.device)[i * B : (i + 1) * B]
        order = lots.argsort(dim=1)  # (B, P): shuffled
        seen = order[:, :visible]  # (B, n)
        guessed = self.drawn(self.encode(images, seen), seen, grid.shape)
        error = (guessed.float() - even(patches_of(images, c))).square().mean(dim=2)  # (B, P)
        return error.gather(1, order[:, visible:]).mean()

    def encode(self, images: Tensor, seen: Tensor) -> Tensor:
        """The ViT's last tokens, (B, prefix + n, D), where it is given the patches `seen` (B, n) alone."""
        model, prefix = self.encoder, self.encoder.config.num_prefix_tokens
        tokens = model.embed(images)  # (B, T, D)
        front = torch.arange(prefix, device=seen.device).expand(len(seen), -1)
        kept = torch.cat([front, prefix + seen], dim=1)  # (B, prefix + n)
        places = model.places(model.config.grid_of(images.shape))[kept]
        return model.norm(model.run(taken(tokens, kept), places=places))

    def drawn(self, tokens: Tensor, seen: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, prefix + n, D) -> (B, P, N): all patches, as they are guessed from those seen (B, n)."""
        x = self.narrow(tokens)  # (B, prefix + n, W)
        B, _, W = x.shape
        prefix = self.encoder.config.num_prefix_tokens
        patches = self.unseen.to(x.dtype).expand(B, math.prod(grid), W)  # (B, P, W)
        patches = patches.scatter(1, seen[..., None].expand(-1, -1, W), x[:, prefix:])
        patches = patches + sincos_pos_embed(grid, W).to(x)
        x = torch.cat([x[:, :prefix], patches], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.draw(self.norm(x[:, prefix:]))


def taken(x: Tensor, which: Tensor) -> Tensor:
    """Of tokens (B, T, D) those with the numbers `which` (B, n): (B, n, D)."""
    return x.gather(1, which[..., None].expand(-1, -1, x.shape[2]))


def patches_of(images: Tensor, config: ViTConfig) -> Tensor:
    """(B, 3, height, width) -> (B, P, N): the pixels of each patch; clips are (B, F, 3, height, width)."""
    clips = images if images.dim() == 5 else images[:, None]
    pieces = clips.unflatten(1, (-1, config.tubelet)).flatten(2, 3)  # (B, t, frames · 3, height, width)
    pieces = F.pixel_unshuffle(pieces, config.patch_size)  # (B, t, N, h, w)
    return pieces.flatten(3).mT.flatten(1, 2)


def even(patches: Tensor) -> Tensor:
    """Each patch brought to mean 0 and variance 1, so that what is drawn is its pattern (section 4):
    whoever draws nothing but its mean has a loss of almost 1."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


@dataclass(frozen=True)
class Drawing:
    """drawing(net, images, targets) -> the loss of a network that draws; labels are not looked at."""

    bf16: bool

    def __call__(self, net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return net(images)


def vit_of(network: nn.Module) -> ViT | None:
    """The ViT of whatever is trained, as the explorer opens it; None where there is none."""
    inner = network.encoder if isinstance(network, Masked) else network
    return inner if isinstance(inner, ViT) else None

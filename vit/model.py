"""A Vision Transformer in one file, from pixels to logits.

B images, T tokens, P patches, H heads, D width, d width of one head, K classes, (h, w) patch grid.
The same model reads clips, which are stacks of F frames; their patches are a grid of (t, h, w).

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929).
Parameters are named as in timm, so that published weights load with `strict=True`.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit.config import ViTConfig
from vit.grid import Grid
from vit.positions import (
    Places,
    Turn,
    axial_frequencies,
    mixed_frequencies,
    relative_bias,
    relative_count,
    resample_pos_embed,
    rope_places,
    rotate,
    sincos_pos_embed,
    turn_of,
)
from vit.processor import slow_when_fused

# A hook is handed every named activation, as hook(name, layer, tensor); the model goes on with what it
# returns. The names, in the order an image meets them; layer is None outside the blocks.
HOOK_POINTS = (
    "embed", "pos",  # (B, P, D), (B, T, D)
    "norm1",  # (B, T, D); with post_norm, norm1 and norm2 come after the additions
    "q", "k", "v", "scores", "attn", "z",  # (B, H, T, d), but scores and attn (B, H, T, T)
    "attn_out", "resid_mid", "norm2",  # (B, T, D)
    "mlp_pre", "mlp_post",  # (B, T, 4D); SwiGLU halves mlp_post
    "resid_post",  # (B, T, D)
    "norm",  # (B, T, D), with norm_after_pool not yet normed
    "pool_scores", "pool_attn",  # (B, H', 1, T), only where attention pools
    "pooled", "logits",  # (B, D): what the head reads; (B, K)
)  # fmt: skip
Hook = Callable[[str, int | None, Tensor], Tensor]
Tap = Callable[[str, Tensor], Tensor]  # a hook that already knows its layer


def no_tap(name: str, x: Tensor) -> Tensor:
    """The tap of an ordinary forward pass: nobody asks for what flows through it."""
    return x


def tap_at(layer: int | None, hook: Hook | None) -> Tap:
    """The hook, told at which layer it is."""
    return no_tap if hook is None else lambda name, x: hook(name, layer, x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),  # OpenAI's CLIP
    # Shazeer 2020: halves the width
    "swiglu": lambda x: F.silu(x.chunk(2, dim=-1)[0]) * x.chunk(2, dim=-1)[1],
}


def norm_of(config: ViTConfig, width: int | None = None, eps: float = 0) -> nn.Module:
    """A norm over D numbers or another width: LayerNorm (Ba et al. 2016), or RMSNorm, which only divides by
    their root mean square (Zhang & Sennrich 2019)."""
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(width or config.embed_dim, eps or config.norm_eps)


class PatchEmbed(nn.Module):
    """Cut the image into squares and project each: a convolution whose stride is its kernel."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        p = config.patch_size
        self.proj: nn.Conv2d | nn.Conv3d
        if config.is_clip:
            kernel = (config.tubelet, p, p)
            self.proj = nn.Conv3d(config.in_chans, config.embed_dim, kernel, stride=kernel)
        else:
            self.proj = nn.Conv2d(config.in_chans, config.embed_dim, p, stride=p)
        self.norm = norm_of(config) if config.patch_norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.proj, nn.Conv3d):
            if images.dim() != 5:
                raise ValueError(f"Clips are (B, F, 3, height, width), not {tuple(images.shape)}.")
            images = images.transpose(1, 2)  # (B, F, C, height, width) -> (B, C, F, height, width)
        patches = self.proj(images).flatten(2).mT  # (B, C, height, width) -> (B, D, h, w) -> (B, P, D)
        return self.norm(patches)


class Attention(nn.Module):
    """softmax(q kᵀ / √d) v in H heads side by side (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        dim = config.embed_dim
        self.num_heads = config.num_heads
        self.rope_neighbours = config.rope_neighbours
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        norms = (norm_of(config, config.head_dim) if config.qk_norm else nn.Identity() for _ in "qk")
        self.q_norm, self.k_norm = norms
        self.proj = nn.Linear(dim, dim, bias=config.proj_bias)

    def forward(
        self, x: Tensor, tap: Tap = no_tap, turn: Turn | None = None, bias: Tensor | None = None
    ) -> Tensor:
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = (rotate(x, turn, self.rope_neighbours) for x in (q, k))
        q, k, v = tap("q", q), tap("k", k), tap("v", v)
        if tap is no_tap and not slow_when_fused(q):
            z = F.scaled_dot_product_attention(q, k, v, bias)  # (B, H, T, d): the (T, T) matrix never exists
        else:  # the same mathematics, spelled out and visible
            scores = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, H, T, T), row = query
            scores = tap("scores", scores if bias is None else scores + bias)
            attn = tap("attn", scores.softmax(dim=-1))  # (B, H, T, T), rows sum to 1
            z = tap("z", attn @ v)  # (B, H, T, d)
        return self.proj(z.transpose(1, 2).reshape(B, T, D))  # (B, H, T, d) -> (B, T, D)


class Mlp(nn.Module):
    """Two linear layers with a nonlinearity between them, on every token alone."""

    def __init__(self, config: ViTConfig, width: int, activation: str, norm: bool = False):
        super().__init__()
        dim, inner = config.embed_dim, width // 2 if activation == "swiglu" else width
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(dim, width, bias=config.proj_bias)
        self.norm = norm_of(config, inner) if norm else nn.Identity()
        self.fc2 = nn.Linear(inner, dim, bias=config.proj_bias)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        x = tap("mlp_pre", self.fc1(x))  # (B, T, 4D)
        x = tap("mlp_post", self.activation(x))  # (B, T, 4D); SwiGLU: half
        return self.fc2(self.norm(x))  # (B, T, D)


class AttentionPool(nn.Module):
    """One learned query looks at all tokens, and what it gathers is what the head reads (Zhai et al. 2022,
    "Scaling Vision Transformers"; SigLIP)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        dim = config.embed_dim
        width = round(dim * (config.pool_mlp_ratio or config.mlp_ratio))
        self.num_heads = config.pool_heads or config.num_heads
        self.past = 0 if config.pool_prefix else config.num_prefix_tokens
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        activation = "gelu" if config.activation == "swiglu" else config.activation
        self.norm = norm_of(config) if config.pool_mlp else nn.Identity()
        self.mlp = Mlp(config, width, activation) if config.pool_mlp else None

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        B, T, D = x.shape
        q = self.q(self.latent).view(1, 1, self.num_heads, -1).transpose(1, 2)  # (1, H', 1, d')
        k, v = self.kv(x).view(B, T, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H', T, d')
        scores = tap("pool_scores", (q * q.shape[-1] ** -0.5) @ k.mT)  # (B, H', 1, T)
        read = scores[..., self.past :].softmax(dim=-1)  # (B, H', 1, T), or of the patches alone
        attn = tap("pool_attn", F.pad(read, (self.past, 0)))  # (B, H', 1, T), rows sum to 1
        pooled = self.proj((attn @ v).reshape(B, D))  # (B, H', 1, d') -> (B, D)
        return pooled if self.mlp is None else pooled + self.mlp(self.norm(pooled))


class LayerScale(nn.Module):
    """A learned gain per channel (Touvron et al. 2021, "Going deeper with image transformers")."""

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Skip a whole branch for some images of the batch, in training (Huang et al. 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.part = rate, (0, 1)  # which of how many equal parts of a batch it is given

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        (i, parts), B = self.part, len(x)
        kept = torch.rand(B * parts, 1, 1, device=x.device)[i * B : (i + 1) * B] >= self.rate  # (B, 1, 1)
        return x * kept / (1 - self.rate)


class Block(nn.Module):
    """Attention moves information between tokens, the MLP works on each; both add to the residual stream."""

    def __init__(self, config: ViTConfig, layer: int):
        super().__init__()
        dim = config.embed_dim

        def scale() -> nn.Module:
            return nn.Identity() if config.layer_scale is None else LayerScale(dim, config.layer_scale)

        self.post_norm = config.post_norm
        self.norm1 = norm_of(config)
        self.attn = Attention(config)
        self.ls1 = scale()
        self.norm2 = norm_of(config)
        self.mlp = Mlp(config, config.mlp_dim, config.activation, config.mlp_norm)
        self.ls2 = scale()
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(config.drop_path * layer / max(1, config.depth - 1))

    def attend(self, x: Tensor, tap: Tap, turn: Turn | None, bias: Tensor | None) -> Tensor:
        """What attention adds to the residual stream."""
        return tap("attn_out", self.drop_path(self.dropout(self.ls1(self.attn(x, tap, turn, bias)))))

    def think(self, x: Tensor, tap: Tap) -> Tensor:
        """What the MLP adds to the residual stream."""
        return self.drop_path(self.dropout(self.ls2(self.mlp(x, tap))))

    def forward(
        self, x: Tensor, tap: Tap = no_tap, turn: Turn | None = None, bias: Tensor | None = None
    ) -> Tensor:  # (B, T, D)
        if self.post_norm:
            x = tap("resid_mid", tap("norm1", self.norm1(x + self.attend(x, tap, turn, bias))))
            return tap("resid_post", tap("norm2", self.norm2(x + self.think(x, tap))))
        x = tap("resid_mid", x + self.attend(tap("norm1", self.norm1(x)), tap, turn, bias))
        return tap("resid_post", x + self.think(tap("norm2", self.norm2(x)), tap))


class ViT(nn.Module):
    """A plain Vision Transformer.

    model(images) -> logits, by the fastest kernels; model(images, hook) -> the same numbers, with
    every named activation handed to hook(name, layer, tensor), which may return an edited one.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        dim = config.embed_dim
        norm, pool_norm = partial(norm_of, config), partial(norm_of, config, eps=config.pool_norm_eps)
        head = partial(nn.Linear, dim, config.num_classes) if config.num_classes else nn.Identity
        classes = config.num_class_tokens if config.class_token else 0
        with_position = classes + config.distillation if config.pos_embed_prefix else 0
        spectrum = (2, config.depth, config.num_heads, config.head_dim // 2)

        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, classes, dim)) if classes else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.distillation else None
        self.reg_token = (
            nn.Parameter(torch.zeros(1, config.num_registers, dim)) if config.num_registers else None
        )
        table = torch.zeros(1, with_position + math.prod(config.pos_grid), dim)
        self.pos_embed = None if config.pos_embed == "none" else nn.Parameter(table)
        self.rope_freqs = nn.Parameter(torch.zeros(spectrum)) if config.rope == "mixed" else None
        distances = (config.depth, relative_count(config.grid_size), config.num_heads)
        self.rel_pos = nn.Parameter(torch.zeros(distances)) if config.rel_pos else None
        self.norm_pre = norm() if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = norm() if config.final_norm and not config.norm_after_pool else nn.Identity()
        self.attn_pool = AttentionPool(config) if config.pool == "attention" else None
        self.fc_norm = pool_norm() if config.norm_after_pool else nn.Identity()
        self.head = head()
        self.head_dist = head() if config.distillation else None
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Truncated normal of 0.02 and biases 0, as timm has them in its linear layers (here the patch
        projection is one of them), and the paper's zero head."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for head in (self.head, self.head_dist):
            if isinstance(head, nn.Linear):
                nn.init.zeros_(head.weight)
        for token in (self.cls_token, self.dist_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        c = self.config
        if self.attn_pool is not None:
            nn.init.trunc_normal_(self.attn_pool.latent, std=c.embed_dim**-0.5)
        if self.rope_freqs is not None:
            self.rope_freqs.copy_(mixed_frequencies((c.depth, c.num_heads), c.head_dim, c.rope_theta))
        if self.pos_embed is not None and c.pos_embed == "learned":
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        elif self.pos_embed is not None:
            self.pos_embed[:, -c.num_patches :] = sincos_pos_embed(c.grid_size, c.embed_dim)  # (1, P, D)
            self.pos_embed.requires_grad_(False)

    def forward(self, images: Tensor, hook: Hook | None = None) -> Tensor:
        """(B, C, height, width) -> (B, K) logits, or (B, D) features where there is no head.

        Clips are (B, F, C, height, width). Any height and width that are multiples of the patch size, and any
        number of frames that is one of the tubelet, will do: positions are resampled.
        """
        tokens = self.embed(images, hook)
        places = self.places(self.config.grid_of(images.shape))
        return self.read_out(self.run(tokens, places=places, hook=hook), hook)

    def places(self, grid: Grid) -> Places:
        """Where the tokens of a whole image of this grid are."""
        return Places.of_all(grid, self.config.num_prefix_tokens)

    def run(
        self,
        tokens: Tensor,
        start: int = 0,
        stop: int | None = None,
        places: Places | None = None,
        hook: Hook | None = None,
    ) -> Tensor:
        """Residual stream (B, T, D) in front of block `start` -> that in front of block `stop`, (B, T, D).

        All that runs blocks runs them here. stop: after the last block by default. places: where these
        tokens are, `model.places(grid)` or, where some are left out, `model.places(grid)[kept]`; by default
        the tokens are all those of an image of the model's own size. Raises ValueError for blocks or
        numbers of tokens that do not fit.
        """
        depth = self.config.depth
        stop = depth if stop is None else stop
        if not 0 <= start <= stop <= depth:
            raise ValueError(f"Blocks from {start} up to {stop} do not exist: this model has {depth}.")
        if places is None and (self.config.rope != "none" or self.config.rel_pos):
            places = self.places(self.config.grid)
        if places is not None and places.index.shape[-1] != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens cannot have {places.index.shape[-1]} places.")
        for layer in range(start, stop):
            turn, bias = self.turn(layer, places), self.bias(layer, places)
            tokens = self.blocks[layer](tokens, tap_at(layer, hook), turn, bias)
        return tokens

    def turn(self, layer: int, places: Places | None) -> Turn | None:
        """By how much a layer turns queries and keys at these places; None where positions are not rotary."""
        c = self.config
        if c.rope == "none" or places is None:
            return None
        if self.rope_freqs is None:
            freqs = axial_frequencies(c.head_dim, c.rope_theta)
        else:
            freqs = self.rope_freqs[:, layer]
        freqs = freqs.flip(0) if c.rope_columns_first else freqs
        cos, sin = turn_of(rope_places(places, c.rope_span, c.rope_offset), freqs)
        device = self.patch_embed.proj.weight.device
        return cos.to(device), sin.to(device)

    def bias(self, layer: int, places: Places | None) -> Tensor | None:
        """What a layer adds to scores at these places; None where it adds nothing."""
        if self.rel_pos is None or places is None:
            return None
        return relative_bias(self.rel_pos[layer], self.config.grid_size, places)

    def embed(self, images: Tensor, hook: Hook | None = None) -> Tensor:
        """Pixels -> the tokens that the first block reads, (B, T, D)."""
        tap = tap_at(None, hook)
        grid = self.config.grid_of(images.shape)
        patches = tap("embed", self.patch_embed(images))  # (B, P, D)
        tokens = [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]
        B, P, D = patches.shape
        x = torch.cat([*(token.expand(B, -1, -1) for token in tokens), patches], dim=1)  # (B, T, D)

        if self.pos_embed is not None:
            c = self.config
            pos_embed = resample_pos_embed(self.pos_embed, c.pos_grid, grid.shape, crop=c.pos_square > 0)
            prefix = pos_embed.shape[1] - P  # tokens in front that have a position; registers have none
            nowhere = pos_embed.new_zeros(1, x.shape[1] - pos_embed.shape[1], D)
            x = x + torch.cat([pos_embed[:, :prefix], nowhere, pos_embed[:, prefix:]], dim=1)
        return tap("pos", self.norm_pre(x))

    def read_out(self, tokens: Tensor, hook: Hook | None = None) -> Tensor:
        """The residual stream (B, T, D) after any block -> logits (B, K): final norm, pooling, head."""
        tap = tap_at(None, hook)
        x = tap("norm", self.norm(tokens))
        patches = x[:, self.config.num_prefix_tokens :]  # (B, P, D)
        if self.attn_pool is not None:
            pooled = self.attn_pool(x, tap)  # (B, D)
        elif self.config.pool == "mean":
            pooled = patches.mean(dim=1)
        else:
            pooled = x[:, : self.config.num_class_tokens].mean(dim=1)  # (B, D): [CLS], or the mean of several
        logits = self.head(tap("pooled", self.fc_norm(pooled)))  # (B, K)
        if self.head_dist is not None:  # DeiT answers with the mean of its two heads
            logits = (logits + self.head_dist(x[:, 1])) / 2
        return tap("logits", logits)

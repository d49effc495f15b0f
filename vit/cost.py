"""What a look at one image will take, told before it is run."""

from dataclasses import dataclass

from vit.config import ViTConfig


@dataclass(frozen=True)
class Cost:
    """H heads, T tokens, L layers."""

    tokens: int  # T
    flops: int  # multiplications and additions in the matrix products of one forward pass
    layer_bytes: int  # one layer's attention (H, T, T) in float32: what `attention_at` needs
    attn_bytes: int  # every layer's (L, H, T, T): what `trace` keeps with "attn"


def from_every_layer(depth: int) -> float:
    """Forward passes that it takes to run a model of L layers once from each of them on: (L + … + 1) / L."""
    return (depth + 1) / 2


def cost(config: ViTConfig, image_size: tuple[int, int] | None = None, frames: int | None = None) -> Cost:
    """The cost of one image of (height, width), or of one clip, of its own number of frames or another.

    Raises ValueError where patches do not fit it evenly.
    """
    D, M, K = config.embed_dim, config.mlp_dim, config.num_classes * (1 + config.distillation)
    P = config.grid_at(image_size or config.image_size, frames).count
    T = config.num_prefix_tokens + P
    out = M // 2 if config.activation == "swiglu" else M
    block = T * D * (4 * D + M + out) + 2 * T * T * D  # qkv, proj and the MLP; q kᵀ and attn v
    pool, embed = 0, P * config.in_chans * config.tubelet * config.patch_size**2 * D
    if config.pool == "attention":
        width = round(D * (config.pool_mlp_ratio or config.mlp_ratio)) * config.pool_mlp
        pool = 2 * T * D * D + 2 * D * D + 2 * T * D + 2 * D * width  # k and v, q and proj, attn, the MLP
    layer_bytes = 4 * config.num_heads * T * T
    return Cost(T, 2 * (embed + config.depth * block + pool + D * K), layer_bytes, config.depth * layer_bytes)

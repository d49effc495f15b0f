"""Everything that tells one plain ViT from another.

L layers, H heads, D width, K classes, (h, w) patch grid, of a clip (t, h, w).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, get_args, get_origin

from vit.grid import Grid

# name: (embed_dim, depth, num_heads, width of the MLP), from Dosovitskiy et al. 2021, Table 1;
# Ti and S: Touvron et al. 2021, Table 1; g and G: Zhai et al. 2022, Table 2
VARIANTS = {
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
    "G": (1664, 48, 16, 8192),
}

ACTIVATION_NAMES = ("gelu", "gelu_tanh", "quick_gelu", "swiglu")
CHOICES = {
    "pool": ("cls", "mean", "attention"),
    "pos_embed": ("learned", "sincos", "none"),
    "rope": ("none", "axial", "mixed"),
    "activation": ACTIVATION_NAMES,
    "norm": ("layer", "rms"),
}

# from the first number on, below the second
BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("patch_size", "in_chans", "embed_dim", "depth", "num_heads"), (1, math.inf)),
    **dict.fromkeys(("num_frames", "tubelet"), (1, math.inf)),
    **dict.fromkeys(("num_classes", "num_registers", "mlp_ratio"), (0, math.inf)),
    **dict.fromkeys(("pool_heads", "pool_mlp_ratio", "pos_square"), (0, math.inf)),
    "num_class_tokens": (1, 100),
    **dict.fromkeys(("dropout", "drop_path", "pool_norm_eps"), (0, 1)),
}


@dataclass(frozen=True)
class ViTConfig:
    """Everything that tells one plain ViT from another. Raises ValueError for what cannot be built."""

    image_size: tuple[int, int] = (224, 224)  # (height, width) in pixels; one number means a square
    patch_size: int = 16
    num_frames: int = 1  # of a clip (Arnab et al. 2021, ViViT, model 1); 1: the model reads pictures
    tubelet: int = 1  # frames that a patch of a clip reaches through
    in_chans: int = 3
    num_classes: int = 1000  # K; 0: no head, the model returns its pooled features
    embed_dim: int = 768  # D
    depth: int = 12
    num_heads: int = 12  # H
    mlp_ratio: float = 4.0  # width of the MLP's first layer / D (both halves of it, for SwiGLU)
    class_token: bool = True
    num_class_tokens: int = 1  # where there are several, the head reads their mean (Pixio)
    num_registers: int = 0  # extra tokens without a position (Darcet et al. 2024)
    distillation: bool = False  # DeiT's second class token, with a head of its own
    pool: str = "cls"  # what the head reads: "cls", the "mean" of the patches, or "attention" over all tokens
    pool_prefix: bool = (
        True  # False: attention pools over the patches alone, past the tokens in front of them
    )
    pool_heads: int = 0  # of the attention that pools; 0: as many as num_heads
    pool_mlp: bool = True  # an MLP behind it
    pool_mlp_ratio: float = 0.0  # of that MLP; 0: as mlp_ratio
    final_norm: bool = True  # False: the head reads the residual stream as it is
    norm_after_pool: bool = False  # the final norm acts on the pooled vector (timm's fc_norm), not on tokens
    pool_norm_eps: float = 0.0  # of that norm after pooling; 0: norm_eps (VideoMAE has its own)
    pos_embed: str = "learned"  # or "sincos": fixed, as in MAE, of a clip as in VideoMAE; or "none"
    pos_embed_prefix: bool = True  # class and distillation token have a position too
    # side of a square position table that is resampled to each picture's longer side, of which the picture
    # takes the upper left part (RADIO); 0: the table is that of image_size
    pos_square: int = 0
    # queries and keys of patches rotate by their place (Su et al. 2021; Heo et al. 2024): "axial" with fixed
    # frequencies, "mixed" with learned ones
    rope: str = "none"
    rope_theta: float = 100.0  # the longest wavelength, in units of the shortest
    rope_span: tuple[float, float] | None = None  # places at a picture's two edges; None: patches are counted
    rope_offset: float = 0.0  # of a place in its patch: 0.5 is the middle
    rope_columns_first: bool = False  # the first half of the frequencies turns with the column, not the row
    rope_neighbours: bool = False  # what turns together: numbers 2i and 2i + 1, not i and i + d/2
    rel_pos: bool = False  # every layer adds a bias to scores, by how far apart two patches are (BEiT)
    layer_scale: float | None = None  # a gain per channel on both branches, starting here (CaiT, DINOv2)
    norm: str = "layer"  # LayerNorm, or "rms": RMSNorm, which takes no mean away and adds no bias (AIMv2)
    patch_norm: bool = False  # one more norm on the projected patches, before positions are added (AIMv2)
    pre_norm: bool = False  # one more norm in front of the blocks (CLIP)
    post_norm: bool = False  # norms after each addition: the order of Vaswani et al. 2017
    activation: str = "gelu"
    mlp_norm: bool = False  # a norm inside the MLP, after the nonlinearity (EVA-02)
    qkv_bias: bool = True
    proj_bias: bool = True  # behind attention and in the MLP
    qk_norm: bool = False  # a norm on every query and key (Dehghani et al. 2023)
    norm_eps: float = 1e-6
    dropout: float = 0.0  # after both branches, in training
    drop_path: float = 0.0  # chance to skip a branch in the last layer, rising linearly from 0 in the first

    def __post_init__(self) -> None:
        size = self.image_size
        size = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list) else size
        object.__setattr__(self, "image_size", size)
        for f in fields(self):
            if not fits(getattr(self, f.name), f.type):
                kind = f.type.__name__ if isinstance(f.type, type) else f.type
                raise ValueError(f"{f.name} must be {kind}, not {getattr(self, f.name)!r}.")
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value < high:
                most = "" if high == math.inf else f" and less than {high}"
                raise ValueError(f"{name} must be at least {low}{most}, not {value}.")
        if not (0 < self.norm_eps < math.inf and math.isfinite(self.layer_scale or 0)):
            raise ValueError("norm_eps must be above 0, and layer_scale a finite number.")
        if self.pool_norm_eps and not self.norm_after_pool:
            raise ValueError("pool_norm_eps is of the norm after pooling: it needs norm_after_pool=True.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}.")
        if self.mlp_dim < 1 or (self.activation == "swiglu" and self.mlp_dim % 2):
            must = "even: SwiGLU gates one half with the other" if self.mlp_dim > 0 else "at least 1"
            raise ValueError(f"The width of the MLP, embed_dim x mlp_ratio = {self.mlp_dim}, must be {must}.")
        if self.pool == "cls" and not self.class_token:
            raise ValueError('pool="cls" needs class_token=True; without a class token use pool="mean".')
        if self.distillation and (self.pool != "cls" or self.norm_after_pool or self.num_class_tokens > 1):
            raise ValueError('distillation=True needs pool="cls", one class token and norm_after_pool=False.')
        if self.norm_after_pool and not self.final_norm:
            raise ValueError("norm_after_pool=True is a final norm: it needs final_norm=True.")
        if not self.pool_prefix and self.pool != "attention":
            raise ValueError('pool_prefix=False is of attention that pools: it needs pool="attention".')
        if self.embed_dim % (self.pool_heads or 1):
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of pool_heads {self.pool_heads}.")
        if self.rope != "none" and self.head_dim % 4:
            raise ValueError(f"rope needs heads whose width is a multiple of 4, not {self.head_dim}.")
        if not (0 < self.rope_theta < math.inf and all(map(math.isfinite, self.rope_span or ()))):
            raise ValueError("rope_theta must be above 0, and rope_span two finite numbers.")
        if not math.isfinite(self.rope_offset):
            raise ValueError("rope_offset must be a finite number.")
        if self.pos_square and (self.pos_embed != "learned" or self.pos_embed_prefix):
            raise ValueError('pos_square needs pos_embed="learned" and pos_embed_prefix=False.')
        if self.pos_embed == "sincos" and self.embed_dim % 4:
            raise ValueError(
                f"sincos positions need an embed_dim that is a multiple of 4, not {self.embed_dim}."
            )
        if self.is_clip and (self.rope != "none" or self.rel_pos or self.pos_square):
            raise ValueError(
                "Rotary and relative positions, and pos_square, know rows and columns, not time: no clips."
            )
        if self.tubelet > 1 and not self.is_clip:
            raise ValueError("A tubelet of several frames needs a clip: num_frames above 1.")
        self.grid_at(self.image_size)

    @classmethod
    def variant(cls, name: str, **changes) -> "ViTConfig":
        """The papers' sizes: `ViTConfig.variant("S/16", num_classes=10)`."""
        size, _, patch = name.partition("/")
        if size not in VARIANTS or not patch.isdigit():
            raise ValueError(f"No variant {name!r}: write SIZE/PATCH with a size of {', '.join(VARIANTS)}.")
        dim, depth, heads, mlp = VARIANTS[size]
        shape = dict(embed_dim=dim, depth=depth, num_heads=heads, mlp_ratio=mlp / dim, patch_size=int(patch))
        return cls(**shape | changes)

    @property
    def is_clip(self) -> bool:
        """Does the model read clips (F, 3, height, width), and not pictures (3, height, width)?"""
        return self.num_frames > 1

    def input_shape(self, image_size: tuple[int, int] | None = None) -> tuple[int, ...]:
        """(3, height, width) of a picture, (F, 3, height, width) of a clip; by default of its own size."""
        return (self.num_frames,) * self.is_clip + (self.in_chans, *(image_size or self.image_size))

    def grid_at(self, image_size: Sequence[int], frames: int | None = None) -> Grid:
        """The patches at a size of (height, width), of a clip with its own number of frames or another.

        Raises ValueError where patches do not fit evenly.
        """
        if not self.is_clip:
            return Grid.of(image_size, self.patch_size)
        return Grid.of(image_size, self.patch_size, frames or self.num_frames, self.tubelet)

    def grid_of(self, shape: Sequence[int]) -> Grid:
        """The patches of an input of this shape, (..., 3, height, width) or (..., F, 3, height, width)."""
        return self.grid_at(shape[-2:], shape[-4] if self.is_clip else None)

    @property
    def grid(self) -> Grid:
        """The patches at `image_size` and `num_frames`."""
        return self.grid_at(self.image_size)

    @property
    def grid_size(self) -> tuple[int, ...]:
        """(h, w) of `grid`, or (t, h, w)."""
        return self.grid.shape

    @property
    def pos_grid(self) -> tuple[int, ...]:
        """Rows and columns of the position table."""
        return (self.pos_square, self.pos_square) if self.pos_square else self.grid_size

    @property
    def num_patches(self) -> int:
        return self.grid.count

    @property
    def prefix_names(self) -> tuple[str, ...]:
        """The tokens in front of the patches, in their order."""
        registers = tuple(f"[REG{i}]" for i in range(1, self.num_registers + 1))
        count = self.num_class_tokens if self.class_token else 0
        classes = ("[CLS]",) if count == 1 else tuple(f"[CLS{i}]" for i in range(1, count + 1))
        return classes + ("[DIST]",) * self.distillation + registers

    @property
    def num_prefix_tokens(self) -> int:
        return len(self.prefix_names)

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def mlp_dim(self) -> int:
        return round(self.embed_dim * self.mlp_ratio)


FIELDS = tuple(f.name for f in fields(ViTConfig))


def fits(x: Any, kind: Any) -> bool:
    """Is x of this kind: a plain type, a union, or a tuple of them?"""
    if isinstance(kind, UnionType):
        return any(fits(x, option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        kinds = kinds[:1] * len(x) if isinstance(x, tuple) and kinds[-1] is ... else kinds
        return isinstance(x, tuple) and len(x) == len(kinds) and all(map(fits, x, kinds))
    return type(x) in (int, float) if kind is float else type(x) is kind

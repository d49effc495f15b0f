"""What one forward pass did: recorders that look, edits that intervene, and the frozen `Trace`.

Recorders and edits are hooks (see vit/model.py): arguments of one forward pass, never state of the model, so
many threads may share one model.

L layers, H heads, T tokens, D width, K classes, (h, w) patches.
"""

import sys
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vit.config import ViTConfig
from vit.grid import Grid
from vit.model import HOOK_POINTS, Hook, ViT
from vit.objective import Contrast, Objective

# hook points that the model passes once, with layer None
OUTSIDE = ("embed", "pos", "norm", "pool_scores", "pool_attn", "pooled", "logits")


class Recorder:
    """A hook that keeps what it is handed, of the names and layers it is asked for: `seen[name][layer]`."""

    def __init__(self, names: Collection[str] | None = None, layers: Collection[int] | None = None):
        self.names, self.layers = names, layers
        self.seen: dict[str, dict[int | None, Tensor]] = {}

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        wanted_layer = layer is None or self.layers is None or layer in self.layers
        if wanted_layer and (self.names is None or name in self.names):
            self.seen.setdefault(name, {})[layer] = x
        return x

    def stack(self, name: str) -> Tensor:
        """Everything seen under this name, (L, B, ...); L is 1 outside the blocks."""
        return torch.stack(list(self.seen[name].values()))


@dataclass(frozen=True)
class ZeroHeads:
    """Switch heads off: their output z becomes 0. heads: ((layer, head), ...), counted from 0."""

    heads: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if any(number < 0 for pair in self.heads for number in pair):
            raise ValueError(f"Layers and heads to switch off are counted from 0, not {self.heads}.")

    def check(self, config: ViTConfig, grid: Grid) -> None:
        """Raises ValueError for a head that this model does not have."""
        for layer, head in self.heads:
            if layer >= config.depth or head >= config.num_heads:
                raise ValueError(
                    f"There is no head {head} in layer {layer} to switch off: this model has {config.depth} "
                    f"layers of {config.num_heads} heads, counted from 0."
                )

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        off = [head for at, head in self.heads if at == layer]
        if name != "z" or not off:
            return x
        gate = torch.ones(x.shape[1], 1, 1, dtype=x.dtype, device=x.device)
        gate[off] = 0
        return x * gate  # (B, H, T, d)


@dataclass(frozen=True)
class MaskPatches:
    """Make patches invisible: no token attends to them in any layer, and pooling leaves them out.

    patches: indices into the flattened grid, (h, w) or of a clip (t, h, w), from 0.
    """

    patches: tuple[int, ...]
    num_prefix_tokens: int

    def __post_init__(self) -> None:
        if any(patch < 0 for patch in self.patches):
            raise ValueError(f"Patches to hide are counted from 0, not {self.patches}.")

    def check(self, config: ViTConfig, grid: Grid) -> None:
        """Raises ValueError for a patch that this image does not have, where nothing is left to see, and for
        another number of prefix tokens."""
        if self.patches and max(self.patches) >= grid.count:
            raise ValueError(
                f"There is no patch {max(self.patches)} to hide: this image has {grid.count}, counted from 0."
            )
        alone = config.pool == "mean" or not (config.pool_prefix and config.num_prefix_tokens)
        if alone and len({*self.patches}) == grid.count:
            raise ValueError("This model answers from its patches alone: leave at least one of them to see.")
        if self.num_prefix_tokens != config.num_prefix_tokens:
            raise ValueError(
                f"This model has {config.num_prefix_tokens} tokens in front of its patches, not "
                f"{self.num_prefix_tokens}: MaskPatches(patches, model.config.num_prefix_tokens)."
            )

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        scores = name in ("scores", "pool_scores")
        if not self.patches or not (scores or name == "norm"):
            return x
        hidden = torch.zeros(x.shape[-1 if scores else 1], dtype=torch.bool, device=x.device)
        hidden[[self.num_prefix_tokens + patch for patch in self.patches]] = True
        if scores:
            return x.masked_fill(hidden, float("-inf"))  # columns: what is looked at
        seen = ~hidden
        seen[: self.num_prefix_tokens] = False
        mean = x[:, seen].sum(dim=1, keepdim=True) / seen.sum().clamp(min=1)
        return torch.where(hidden[:, None], mean, x)  # so the mean over all is that of the visible ones


@dataclass(frozen=True)
class FreezeTime:
    """Let a clip stand still: what one time holds (a tubelet of one or more frames) stands at all times.

    time: counted from 0 on the grid, which has so many `times`. Raises ValueError for one that there is not.
    """

    time: int
    times: int

    def __post_init__(self) -> None:
        if not 0 <= self.time < self.times:
            raise ValueError(f"There is no time {self.time} to freeze: there are {self.times}, from 0.")

    def check(self, config: ViTConfig, grid: Grid) -> None:
        """Raises ValueError for a picture, and for a clip of another number of times."""
        if not config.is_clip or grid.frames != self.times:
            raise ValueError(f"This has {grid.frames} times, not {self.times}: time cannot be frozen so.")

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        if name != "embed":
            return x
        times = x.unflatten(1, (self.times, -1))  # (B, P, D) -> (B, t, h·w, D)
        return times[:, self.time, None].expand_as(times).flatten(1, 2)


@dataclass(frozen=True, eq=False)
class Replace:
    """Put another tensor in an activation's place (activation patching).

    name: one of vit.model.HOOK_POINTS; layer: counted from 0, None outside the blocks.
    """

    name: str
    layer: int | None
    value: Tensor

    def __post_init__(self) -> None:
        if self.name not in HOOK_POINTS:
            raise ValueError(f"The model shows no {self.name!r}: replace one of {', '.join(HOOK_POINTS)}.")
        if self.layer is not None and self.layer < 0:
            raise ValueError(f"Layers to replace something in are counted from 0, not {self.layer}.")

    def check(self, config: ViTConfig, grid: Grid) -> None:
        """Raises ValueError for a layer that this model does not have, or that has no such activation."""
        if (self.layer is None) != (self.name in OUTSIDE):
            where = "outside the blocks: its layer is None"
            if self.layer is None:
                where = "in each block: say which"
            raise ValueError(f"{self.name!r} is {where}.")
        if self.name.startswith("pool_") and config.pool != "attention":
            raise ValueError(f"This model has no {self.name!r}: it does not pool by attention.")
        if self.layer is not None and self.layer >= config.depth:
            raise ValueError(
                f"There is no layer {self.layer} to replace {self.name!r} in: this model has {config.depth}, "
                "counted from 0."
            )

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        if (name, layer) != (self.name, self.layer):
            return x
        try:
            return self.value.to(x, copy=True).expand_as(x)
        except RuntimeError:
            shape, value = tuple(x.shape), tuple(self.value.shape)
            raise ValueError(f"{name!r} has the shape {shape}: {value} cannot take its place.") from None


@dataclass(frozen=True, eq=False)
class Trace:
    """One image through one ViT. L layers, H heads, T tokens, D width, K classes, (h, w) patches."""

    image: Tensor  # (3, height, width)  the normalised pixels the model saw; of a clip (F, 3, height, width)
    tokens: Tensor  # (L+1, T, D)   residual stream: after the embedding, then after each block
    attn: Tensor  # (L, H, T, T)  softmax(q kᵀ / √d); row = query, column = key; rows sum to 1; of kept layers
    logits: Tensor  # (K,)          empty for a model without a head
    grid: Grid  # the patches, (h, w) or (t, h, w)
    prefix_names: tuple[str, ...]  # of the tokens in front of the patches: [CLS], [DIST], [REG1] ...
    pool_attn: Tensor | None = None  # (H', T)  where attention pools: what the head reads of each token
    target: int | None = None  # the class that attn_grad explains,
    contrast: Contrast = None  # and what against, if anything
    attn_grad: Tensor | None = None  # (L, H, T, T)  d y / d attn, y = Objective(target, contrast)(logits)
    activations: Mapping[str, Tensor] = field(default_factory=dict)  # whatever else `keep` asked for

    @property
    def grid_size(self) -> tuple[int, ...]:
        """(h, w), or (t, h, w) of a clip."""
        return self.grid.shape

    @property
    def num_prefix_tokens(self) -> int:
        return len(self.prefix_names)

    def token_name(self, token: int) -> str:
        """A token in words: [CLS], or patch (row, column)."""
        prefix = self.num_prefix_tokens
        return self.prefix_names[token] if 0 <= token < prefix else self.grid.name(token - prefix)

    def all_attn(self) -> Tensor:
        """`attn` (L, H, T, T) for what needs every layer. Raises ValueError where some were not kept."""
        if len(self.attn) < len(self.tokens) - 1:
            raise ValueError(
                'This trace did not keep the attention of all layers: trace(..., keep=("attn",)), '
                "without `layers`."
            )
        return self.attn


def in_turn(*hooks: Hook) -> Hook:
    """One hook of several: each is handed what the one before it returned."""

    def hook(name: str, layer: int | None, x: Tensor) -> Tensor:
        for each in hooks:
            x = each(name, layer, x)
        return x

    return hook


def check_edits(edits: Sequence[Hook], config: ViTConfig, grid: Grid) -> None:
    """Those of the edits that can tell say whether they fit this model and image. Raises ValueError."""
    for edit in edits:
        check = getattr(edit, "check", None)
        if check is not None:
            check(config, grid)


def is_compiled(model: ViT) -> bool:
    """Has torch.compile been here, on the model or a part of it?"""
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())


def missing_gradient(model: ViT) -> ValueError:
    """The error where a gradient should be and is not, with its cause."""
    if is_compiled(model):
        cause = "torch.compile hides what happens inside: explain the model as it was before it was compiled."
    else:
        cause = "something in this model cuts them, such as detach() or a block under torch.no_grad()."
    return ValueError(f"Gradients do not reach what they are asked for: {cause}")


@contextmanager
def gradients_on(model: ViT) -> Iterator[None]:
    """Within it gradients are recorded, also inside the caller's torch.no_grad() or torch.inference_mode().

    Raises ValueError, with the cause, for a model that cannot have any.
    """
    if any(weight.is_inference() for weight in model.parameters()):
        raise ValueError(
            "This model was made inside torch.inference_mode(), so that gradients cannot flow through it: "
            "load it outside."
        )
    with torch.inference_mode(False), torch.enable_grad():
        yield


def asked_layers(
    config: ViTConfig,
    image: Tensor,
    target: int | None,
    contrast: Contrast,
    layers: Sequence[int] | None,
    keep: Collection[str],
) -> list[int] | None:
    """The layers that `trace` is asked to keep, counted from 0. Raises ValueError for what there is not."""
    if image.dim() != len(config.input_shape()):
        one = "clip is (F, 3, height, width)" if config.is_clip else "image is (3, height, width)"
        raise ValueError(f"One {one}, not {tuple(image.shape)}: pass images[i].")
    if unknown := {*keep} - {*HOOK_POINTS}:
        names = ", ".join(map(repr, sorted(unknown)))
        raise ValueError(f"The model shows no {names}: keep any of {', '.join(HOOK_POINTS)}.")
    if target is not None and not 0 <= target < config.num_classes:
        raise ValueError(f"Class {target} does not exist: this model has {config.num_classes} classes.")
    if target is not None:
        Objective(target, contrast).check(config.num_classes)
    elif contrast is not None:
        raise ValueError("A contrast is of one class with another: pass target=, too.")
    if target is not None and layers is not None:
        raise ValueError("Gradients are kept for all layers or none: leave out `layers` or `target`.")
    if layers is None:
        return None
    if not all(-config.depth <= layer < config.depth for layer in layers):
        raise ValueError(f"Not all of the layers {list(layers)} exist: this model has {config.depth}.")
    return [layer % config.depth for layer in layers]


def trace(
    model: ViT,
    image: Tensor,
    *,
    target: int | None = None,
    contrast: Contrast = None,
    edits: Sequence[Hook] = (),
    layers: Sequence[int] | None = None,
    keep: Collection[str] = ("attn", "resid_post"),
) -> Trace:
    """Run one image (3, height, width), or one clip (F, 3, height, width), and keep what the model did.

    target: also keep d logits[target] / d attn; against `contrast`, another class or "others", that of the
    difference (vit.objective). edits: hooks that intervene, in this order.
    layers: those whose attention and activations are kept, in the model's order (all by default, -1: the
    last; the residual stream is always kept). keep: names of activations (vit.model.HOOK_POINTS); what is not
    a field of Trace goes to `activations`. Everything returned is float32 on the CPU. Raises ValueError for
    a class, layer or name that there is not.
    """
    layers = asked_layers(model.config, image, target, contrast, layers, keep)
    grid = model.config.grid_of(image.shape)
    check_edits(edits, model.config, grid)
    stream = Recorder({"pos", "resid_post", "pool_attn"})
    kept = Recorder({*keep, "attn"} if target is not None else {*keep}, layers)

    def leaf(name: str, layer: int | None, x: Tensor) -> Tensor:
        """An edit may put a constant in attention's place: it has a gradient all the same."""
        constant = name == "attn" and target is not None and not x.requires_grad
        return x.detach().requires_grad_() if constant else x

    hook = in_turn(*edits, leaf, stream, kept)
    if target is None:
        with torch.no_grad():
            logits, gradients = model(image.to(next(model.parameters()))[None], hook)[0], None
    else:
        with gradients_on(model):
            images = image.detach().to(next(model.parameters()), copy=True)[None].requires_grad_()
            logits = model(images, hook)[0]
            y = Objective(target, contrast)(logits)
            gradients = attention_gradient(model, y, list(kept.seen["attn"].values()), edits)

    tokens = to_cpu(torch.cat([*stream.seen["pos"].values(), *stream.seen["resid_post"].values()]))
    pooling = stream.seen.get("pool_attn")
    none = torch.empty(0, model.config.num_heads, tokens.shape[1], tokens.shape[1])  # (0, H, T, T)
    attn = attn_to_cpu(kept.stack("attn")[:, 0]) if "attn" in kept.seen else none
    elsewhere = ("attn", "resid_post")  # the latter is in `tokens`
    seen = {name: to_cpu(kept.stack(name)[:, 0]) for name in kept.seen if name not in elsewhere}
    return Trace(
        image=to_cpu(image),
        tokens=tokens,
        attn=attn,
        logits=to_cpu(logits if model.config.num_classes else logits[:0]),
        grid=grid,
        prefix_names=model.config.prefix_names,
        pool_attn=attn_to_cpu(pooling[None][0, :, 0]) if pooling else None,
        target=target,
        contrast=contrast,
        attn_grad=None if gradients is None else to_cpu(gradients),
        activations=seen,
    )


def attention_gradient(model: ViT, y: Tensor, attn: Sequence[Tensor], edits: Sequence[Hook]) -> Tensor:
    """(L, H, T, T): d y / d attn of every layer (1, H, T, T).

    Never by .backward(), which would write into parameters that other threads share. Raises ValueError where
    a gradient is missing and no edit can be why: zeros would pass for a map.
    """
    if not y.requires_grad:  # an edit put a constant behind all of it
        found: Sequence[Tensor | None] = [None] * len(attn)
    else:
        found = torch.autograd.grad(y, attn, allow_unused=True)
    if any(gradient is None for gradient in found) and (not edits or is_compiled(model)):
        raise missing_gradient(model)
    # attention in front of an edit that put a constant there changes nothing
    filled = [torch.zeros_like(x) if grad is None else grad for x, grad in zip(attn, found)]
    return torch.stack(filled)[:, 0]


def to_cpu(x: Tensor) -> Tensor:
    return x.detach().float().cpu()


def attn_to_cpu(attn: Tensor) -> Tensor:
    """Attention as float32 on the CPU. Rows that bf16 has rounded sum to 1 again; what an edit made stays."""
    home = attn.detach().float().cpu()
    if attn.dtype in (torch.bfloat16, torch.float16):
        total = home.sum(dim=-1, keepdim=True)
        home /= torch.where((total - 1).abs() < 0.02, total, 1)
    return home


class _Found(Exception):
    """Ends a pass whose hook has what it came for."""


@torch.no_grad()
def attention_at(
    model: ViT, tokens: Tensor, layer: int, edits: Sequence[Hook] = (), grid: Grid | None = None
) -> Tensor:
    """One layer's attention (H, T, T) from the residual stream in front of it, `trace.tokens[layer]` (T, D).

    For models whose attention is too large to keep: half a block, not a forward pass. grid: of the image,
    `trace.grid`; by default that of the model's own size. Raises ValueError for a layer that there is not.
    """
    if not 0 <= layer < model.config.depth:
        last = model.config.depth - 1
        raise ValueError(f"There is no layer {layer}: this model has {last + 1}, 0 to {last}.")
    patches = tokens.shape[0] - model.config.num_prefix_tokens
    own = model.config.grid
    check_edits(edits, model.config, grid or (own if own.count == patches else Grid((1, patches))))
    found: list[Tensor] = []

    def find(name: str, layer: int | None, x: Tensor) -> Tensor:
        if name == "attn":
            found.append(x[0])
            raise _Found
        return x

    places = None if grid is None else model.places(grid)
    with suppress(_Found):
        stream = tokens.to(next(model.parameters()))[None]
        model.run(stream, layer, layer + 1, places, in_turn(*edits, find))
    return attn_to_cpu(found[0])


class _Module(types.ModuleType):
    """`vit.trace` is this module, and called it is its function: `from vit import trace` serves as both."""

    __call__ = staticmethod(trace)


sys.modules[__name__].__class__ = _Module

"""What one forward pass did: recorders that look, edits that intervene, and the frozen `Trace`.

Recorders and edits are hooks (see vit/model.py): arguments of one forward pass, never state of the model, so
many threads may share one model.

L layers, H heads, T tokens, D width, K classes, (h, w) patches.
"""

import sys
import types
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vit.grid import Grid
from vit.model import HOOK_POINTS, Hook, ViT
from vit.objective import Contrast, Objective


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

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        off = [head for at, head in self.heads if at == layer]
        if name != "z" or not off:
            return x
        gate = torch.ones(x.shape[1], 1, 1, dtype=x.dtype, device=x.device)
        gate[off] = 0
        return x * gate  # (B, H, T, d)


@dataclass(frozen=True)
class MaskPatches:
    """Make patches invisible: no token attends to them in any layer, and a mean pool leaves them out.

    patches: indices into the flattened (h, w) grid, from 0. Raises ValueError if nothing is left to see.
    """

    patches: tuple[int, ...]
    num_prefix_tokens: int

    def __post_init__(self) -> None:
        if any(patch < 0 for patch in self.patches):
            raise ValueError(f"Patches to hide are counted from 0, not {self.patches}.")

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        if not self.patches or name not in ("scores", "norm"):
            return x
        hidden = torch.zeros(x.shape[-1 if name == "scores" else 1], dtype=torch.bool, device=x.device)
        hidden[[self.num_prefix_tokens + patch for patch in self.patches]] = True
        if hidden.all():
            raise ValueError("This model has only patches to look at: leave at least one of them to see.")
        if name == "scores":
            return x.masked_fill(hidden, float("-inf"))  # columns: what is looked at
        seen = ~hidden
        seen[: self.num_prefix_tokens] = False
        mean = x[:, seen].sum(dim=1, keepdim=True) / seen.sum().clamp(min=1)
        return torch.where(hidden[:, None], mean, x)  # so the mean over all is that of the visible ones


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

    def __call__(self, name: str, layer: int | None, x: Tensor) -> Tensor:
        if (name, layer) != (self.name, self.layer):
            return x
        return self.value.to(x).expand_as(x)


@dataclass(frozen=True, eq=False)
class Trace:
    """One image through one ViT. L layers, H heads, T tokens, D width, K classes, (h, w) patches."""

    image: Tensor  # (3, height, width)  the normalised pixels the model saw
    tokens: Tensor  # (L+1, T, D)   residual stream: after the embedding, then after each block
    attn: Tensor  # (L, H, T, T)  softmax(q kᵀ / √d); row = query, column = key; rows sum to 1; of kept layers
    logits: Tensor  # (K,)          empty for a model without a head
    grid: Grid  # the patches, (h, w)
    prefix_names: tuple[str, ...]  # of the tokens in front of the patches: [CLS], [DIST], [REG1] ...
    target: int | None = None  # the class that attn_grad explains,
    contrast: Contrast = None  # and what against, if anything
    attn_grad: Tensor | None = None  # (L, H, T, T)  d y / d attn, y = Objective(target, contrast)(logits)
    activations: Mapping[str, Tensor] = field(default_factory=dict)  # whatever else `keep` asked for

    @property
    def grid_size(self) -> tuple[int, int]:
        """(h, w)."""
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
    """Run one image (3, height, width) through the model and keep what it did.

    target: also keep d logits[target] / d attn; against `contrast`, another class or "others", that of the
    difference (vit.objective). edits: hooks that intervene, in this order.
    layers: those whose attention and activations are kept, in the model's order (all by default, -1: the
    last; the residual stream is always kept). keep: names of activations (vit.model.HOOK_POINTS); what is not
    a field of Trace goes to `activations`. Everything returned is float32 on the CPU. Raises ValueError for
    a class, layer or name that there is not.
    """
    if image.dim() != 3:
        raise ValueError(f"One image is (3, height, width), not {tuple(image.shape)}: pass images[i].")
    if unknown := {*keep} - {*HOOK_POINTS}:
        names = ", ".join(map(repr, sorted(unknown)))
        raise ValueError(f"The model shows no {names}: keep any of {', '.join(HOOK_POINTS)}.")
    if target is not None and not 0 <= target < model.config.num_classes:
        classes = model.config.num_classes
        raise ValueError(f"Class {target} does not exist: this model has {classes} classes.")
    if target is not None:
        Objective(target, contrast).check(model.config.num_classes)
    elif contrast is not None:
        raise ValueError("A contrast is of one class with another: pass target=, too.")
    if target is not None and layers is not None:
        raise ValueError("Gradients are kept for all layers or none: leave out `layers` or `target`.")
    depth = model.config.depth
    if layers is not None:
        if not all(-depth <= layer < depth for layer in layers):
            raise ValueError(f"Not all of the layers {list(layers)} exist: this model has {depth}.")
        layers = [layer % depth for layer in layers]
    stream = Recorder({"pos", "resid_post"})
    kept = Recorder({*keep, "attn"} if target is not None else {*keep}, layers)

    def leaf(name: str, layer: int | None, x: Tensor) -> Tensor:
        """An edit may put a constant in attention's place: it has a gradient all the same."""
        constant = name == "attn" and target is not None and not x.requires_grad
        return x.detach().requires_grad_() if constant else x

    images = image.detach().to(next(model.parameters()))[None]  # (1, 3, height, width), bf16 for a bf16 model
    with torch.set_grad_enabled(target is not None):
        logits = model(images.requires_grad_(target is not None), in_turn(*edits, leaf, stream, kept))[0]
    gradients = None
    if target is not None:  # never .backward(): it would write into parameters that other threads share
        shown = list(kept.seen["attn"].values())
        if logits.requires_grad:  # attention in front of an edit that put a constant there changes nothing
            y = Objective(target, contrast)(logits)
            found = torch.autograd.grad(y, shown, allow_unused=True, materialize_grads=True)
        else:
            found = tuple(torch.zeros_like(attn) for attn in shown)
        gradients = torch.stack(found)[:, 0]  # (L, H, T, T)

    def to_cpu(x: Tensor) -> Tensor:
        return x.detach().float().cpu()

    tokens = to_cpu(torch.cat([*stream.seen["pos"].values(), *stream.seen["resid_post"].values()]))
    none = torch.empty(0, model.config.num_heads, tokens.shape[1], tokens.shape[1])  # (0, H, T, T)
    attn = attn_to_cpu(kept.stack("attn")[:, 0]) if "attn" in kept.seen else none
    elsewhere = ("attn", "resid_post")  # the latter is in `tokens`
    seen = {name: to_cpu(kept.stack(name)[:, 0]) for name in kept.seen if name not in elsewhere}
    return Trace(
        image=to_cpu(image),
        tokens=tokens,
        attn=attn,
        logits=to_cpu(logits if model.config.num_classes else logits[:0]),
        grid=Grid.of((image.shape[-2], image.shape[-1]), model.config.patch_size),
        prefix_names=model.config.prefix_names,
        target=target,
        contrast=contrast,
        attn_grad=None if gradients is None else to_cpu(gradients),
        activations=seen,
    )


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

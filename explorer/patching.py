"""Activation patching: what one picture's answer becomes when a part of its run is replaced by another's.

An activation of the *source*'s run is carried into the *receiver*'s, and the rest of the model runs on. What
changes was caused by it: the total, causal counterpart of the ledger, which books direct effects only. The
answer is read as the difference of two logits, y = logit[target] - logit[contrast], and the change of it as a
share of the difference between the two runs,

    effect = (y(patched) - y(receiver)) / (y(source) - y(receiver)):

0 where nothing changed, 1 where the receiver now answers as the source did; below 0 and above 1 happen. This
is the normalised logit difference of Zhang & Nanda 2024, "Towards Best Practices of Activation Patching in
Language Models" (arXiv 2309.16042); see Heimersheim & Nanda 2024, "How to use and interpret activation
patching" (arXiv 2404.15255), too: logits add up as the residual stream does, and a difference forgets what
raises all classes alike.

L layers, H heads, T tokens, D width, d width of one head, n runs side by side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.maps import Progress
from explorer.pairs import check_pictures
from explorer.payload import class_name
from vit.card import Card
from vit.cost import from_every_layer
from vit.grid import Grid
from vit.model import Hook, ViT
from vit.objective import Objective
from vit.trace import Recorder, Trace

HEADS, STREAM, MLP = "heads", "stream", "mlp"
WHAT = {  # what is carried, in words
    HEADS: "the output z of one head, at all tokens or at one",
    STREAM: "the residual stream in front of a layer, at one token",
    MLP: "what the MLP of a layer adds, at one token",
}
BATCH_BYTES = 2**28  # of what the runs side by side hold in one layer
NOTHING_BETWEEN = 1e-3  # of the logits' spread: two runs that differ by less have no difference to carry


@dataclass(frozen=True, eq=False)
class Patching:
    """Effects as shares of y(source) - y(receiver)."""

    what: str  # one of WHAT
    effects: Tensor  # (L, H) of heads, else (L, T)
    together: Tensor  # (L,) all heads, or all tokens, of a layer at once; of the stream always 1
    token: int | None  # of heads: where; None: at all tokens
    objective: Objective  # whose difference is watched
    source: float  # y of the run that gives
    receiver: float  # y of the run that takes
    grid: Grid
    prefix_names: tuple[str, ...]

    def columns(self) -> list[str]:
        """What the columns of `effects` stand for."""
        if self.what == HEADS:
            return [f"H{head}" for head in range(self.effects.shape[1])]
        return [*self.prefix_names, *(self.grid.name(patch) for patch in range(self.grid.count))]

    def table(self) -> list[dict[str, str | int | float]]:
        """One row per layer and head or token, and one for all of them at once."""
        kind, names = "head" if self.what == HEADS else "token", [*self.columns(), "all"]
        effects = torch.cat([self.effects, self.together[:, None]], dim=1).tolist()
        return [
            {"layer": layer, kind: name, "effect": value}
            for layer, row in enumerate(effects)
            for name, value in zip(names, row, strict=True)
        ]

    def maps(self) -> Tensor:
        """(L, h, w) of tokens: the patches' part of `effects`."""
        return self.grid.unflatten(self.effects[:, len(self.prefix_names) :])

    def asked(self, card: Card) -> str:
        """The difference that is watched, in words."""
        target = class_name(card, self.objective.target)
        if not isinstance(self.objective.contrast, int):
            return f"logit of {target}"
        return f"logit of {target} minus that of {class_name(card, self.objective.contrast)}"


def passes(depth: int, num_heads: int, num_tokens: int, what: str) -> float:
    """About how many forward passes it takes: each run begins at its own layer."""
    columns = num_heads if what == HEADS else num_tokens
    return (columns + 1) * from_every_layer(depth)


def difference(source: Trace, receiver: Trace, target: int | None = None) -> Objective:
    """What tells the two answers apart: the source's class (or `target`) minus the receiver's; where both say
    the same, the class by itself. Raises ValueError without classes."""
    if not len(source.logits):
        raise ValueError("Patching watches an answer, and this model has no classification head.")
    target = int(source.logits.argmax()) if target is None else target
    said = int(receiver.logits.argmax())
    return Objective(target, None if said == target else said)


@torch.no_grad()
def patching(
    source: Trace,
    receiver: Trace,
    model: ViT,
    what: str = HEADS,
    *,
    token: int | None = None,
    objective: Objective | None = None,
    progress: Progress | None = None,
    batch_bytes: int = BATCH_BYTES,
) -> Patching:
    """Every head's output, or every token's stream or MLP output, of every layer, carried from one run into
    the other, one at a time.

    Both traces are of `model`, without edits, at one size: a token keeps its place. token: of heads, where it
    is carried; None: at all tokens. objective: what is watched, `difference` by default. progress(runs, all)
    may raise to end it. Memory: two residual streams, and runs side by side up to `batch_bytes` in one layer.
    Cost: `passes`. Raises ValueError for traces that do not fit, or whose answers do not differ.
    """
    objective = difference(source, receiver) if objective is None else objective
    check(source, receiver, model, what, token, objective)
    y_source, y_receiver = (float(objective(each.logits.double())) for each in (source, receiver))
    spread = float(torch.cat([source.logits, receiver.logits]).std()) if len(source.logits) > 1 else 1.0
    if abs(y_source - y_receiver) <= NOTHING_BETWEEN * spread:
        raise ValueError(
            "Both pictures give this answer alike, so there is nothing to carry over: choose another picture."
        )
    depth, T = model.config.depth, source.tokens.shape[1]
    columns = model.config.num_heads if what == HEADS else T
    side_by_side = max(1, batch_bytes // bytes_of_a_run(model, T))
    found, total = torch.empty(depth, columns + 1, dtype=torch.float64), depth * (columns + 1)
    for layer in range(depth):
        given = activation(source, model, what, layer)
        for first in range(0, columns + 1, side_by_side):
            chosen = torch.arange(first, min(first + side_by_side, columns + 1))
            gate = gates(chosen, columns, what, T, token)
            logits = run_with(receiver, model, what, layer, given, gate)  # (n, K)
            found[layer, chosen] = objective(logits.double().cpu())
            if progress:
                progress(layer * (columns + 1) + int(chosen[-1]) + 1, total)
    shares = ((found - y_receiver) / (y_source - y_receiver)).float()
    return Patching(
        what, shares[:, :-1], shares[:, -1], token, objective, y_source, y_receiver, source.grid,
        source.prefix_names,
    )  # fmt: skip


def check(source: Trace, receiver: Trace, model: ViT, what: str, token: int | None, y: Objective) -> None:
    """Raises ValueError where there is nothing to carry, or no place for it."""
    if what not in WHAT:
        raise ValueError(f"There is no {what!r} to carry over: choose {', '.join(WHAT)}.")
    if source.grid != receiver.grid:
        raise ValueError(
            "A token keeps its place when it is carried over: show both pictures to the model at one size."
        )
    check_pictures(source.grid)
    tokens = source.tokens.shape[1]
    if token is not None and (what != HEADS or not 0 <= token < tokens):
        raise ValueError(f"One token is chosen for heads, from 0 to {tokens - 1}.")
    y.check(model.config.num_classes)


def bytes_of_a_run(model: ViT, num_tokens: int) -> int:
    """What one run holds in one layer, in float32: scores and their softmax, and the widest activations."""
    c = model.config
    return 4 * num_tokens * (2 * c.num_heads * num_tokens + 6 * c.embed_dim + 2 * c.mlp_dim)


def activation(source: Trace, model: ViT, what: str, layer: int) -> Tensor:
    """What the source gives: z (1, H, T, d), the stream (1, T, D), or the MLP's hidden layer (1, T, 4D), from
    which its output follows token by token."""
    stream = source.tokens[layer].to(next(model.parameters()))[None]
    if what == STREAM:
        return stream
    name = "z" if what == HEADS else "mlp_post"
    seen = Recorder({name})
    model.run(stream, layer, layer + 1, model.places(source.grid), seen)
    return seen.seen[name][layer]


def gates(chosen: Tensor, columns: int, what: str, num_tokens: int, token: int | None) -> Tensor:
    """Which entries of the receiver's activation give way, one run after the other: (n, H, T, 1) of z, else
    (n, T, 1). The column after the last one stands for all of them."""
    one = torch.nn.functional.one_hot(chosen, columns + 1).bool()
    one = one[:, :-1] | one[:, -1:]  # (n, H) or (n, T)
    if what != HEADS:
        return one[..., None]
    where = torch.ones(num_tokens, dtype=torch.bool)
    if token is not None:
        where = torch.arange(num_tokens) == token
    return (one[:, :, None] & where)[..., None]


def run_with(receiver: Trace, model: ViT, what: str, layer: int, given: Tensor, gate: Tensor) -> Tensor:
    """(n, K): the receiver's logits where, from this layer on, what the gate names is the source's."""
    places = model.places(receiver.grid)
    stream = receiver.tokens[layer].to(given).expand(len(gate), -1, -1)  # (n, T, D)
    gate = gate.to(given.device)
    if what == STREAM:
        stream = torch.where(gate, given, stream)
        return model.read_out(model.run(stream, layer, places=places))
    name = "z" if what == HEADS else "mlp_post"
    stream = model.run(stream, layer, layer + 1, places, carrying(name, given, gate))
    return model.read_out(model.run(stream, layer + 1, places=places))  # by the fast kernels


def carrying(name: str, given: Tensor, gate: Tensor) -> Hook:
    """A hook that puts `given` in an activation's place where the gate is open."""

    def hook(at: str, layer: int | None, x: Tensor) -> Tensor:
        return torch.where(gate, given, x) if at == name else x

    return hook

"""What heads do: names with the figures that say so, over many pictures.

L layers, H heads, T tokens, P patches, (h, w) patch grid, N pictures.

A name is given by a rule of `RULES`, and only for the weights that were measured: `heads.json` in the
checkpoint's folder carries their digest, and says nothing about others.  A head may have several names, or
none.  A name says what a head's attention is like, and not what the model does with it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from explorer import stats
from explorer.controls import coverage
from explorer.faithfulness import weights_digest
from explorer.ledger import pooled_rows
from explorer.objects import HALF, auc, measurable
from vit.card import CheckpointError
from vit.checkpoint import read_json, write_atomically
from vit.model import ViT
from vit.trace import Trace, trace

FILE = "heads.json"
READ = "what the answer is read from"  # [CLS], or the mean of `pooled_rows`


@dataclass(frozen=True)
class Rule:
    """A name, and the figure that has to be above (or below) a bar."""

    name: str
    about: str
    figure: str
    bar: float
    above: bool = True

    def holds(self, value: float) -> bool:
        return value >= self.bar if self.above else value <= self.bar


RULES = (
    Rule("finds the object", f"{READ} looks at patches on the object rather than beside it", "object", 0.75),
    Rule("background", f"{READ} looks beside the object rather than at it", "object", 0.35, above=False),
    Rule("local", "patches look near themselves, half as far as looking everywhere", "distance", 0.5, False),
    Rule("row", "patches look along their own row, twice as much as looking everywhere", "row", 2.0),
    Rule("column", "patches look along their own column, twice as much as looking everywhere", "column", 2.0),
    Rule("same colour", "the nearer a patch's colour, the more it is looked at", "colour", 0.3),
    Rule("sink", "patches give half of their attention to no patch, or half of the rest to one", "sink", 0.5),
)
FIGURES = {
    "object": "AUC of attention, from what the answer is read from, against the object",
    "distance": "mean distance over that of looking everywhere alike, and 1 for looking at no patch",
    "row": "share on the patch's own row over that of looking everywhere alike",
    "column": "share on its own column over that of looking everywhere alike",
    "colour": "correlation of attention with nearness in colour",
    "sink": "share on all tokens that are no patch, or of the rest on the most looked-at patch",
}


def head_figures(seen: Trace, model: ViT, mask: Tensor | None = None) -> dict[str, Tensor]:
    """{name of FIGURES: (L, H)} of one picture; where a mask (height, width) tells of an object that covers a
    part of the patches also "object", and (L,) "fused", the same of each layer's mean of heads."""
    attn, prefix = seen.all_attn(), seen.num_prefix_tokens
    patches = attn[..., prefix:, prefix:]  # (L, H, P, P)
    given = patches.sum(dim=-1, keepdim=True)  # (L, H, P, 1)
    patches = patches / given.clamp(min=1e-12)
    nowhere = (given <= 1e-12).float().mean(dim=(-2, -1))  # (L, H): of the patches, those that look at none
    if len(seen.grid.shape) > 2:
        raise ValueError("Heads are named by rows, columns and colours of one picture: a clip has no names.")
    h, w = seen.grid.shape
    rows, columns = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)  # (P,) each
    colours = F.adaptive_avg_pool2d(seen.image, (h, w)).flatten(1).T  # (P, 3)
    near = standardised(-torch.cdist(colours, colours))  # (P, P)
    found = {
        "distance": stats.attention_distance(seen) / stats.uniform_distance(seen) + nowhere,
        "row": (patches * (rows[:, None] == rows)).sum(dim=-1).mean(dim=-1) * h,
        "column": (patches * (columns[:, None] == columns)).sum(dim=-1).mean(dim=-1) * w,
        "colour": (standardised(patches) * near).mean(dim=(-2, -1)),
        "sink": torch.maximum(stats.prefix_share(seen).sum(dim=-1), patches.mean(dim=-2).amax(dim=-1)),
    }
    if mask is not None and measurable(covered := coverage(mask, (h, w))):
        reads = attn[:, :, pooled_rows(model, attn.shape[-1]), prefix:].mean(dim=2)  # (L, H, P)
        found["object"] = auc(reads, covered.flatten() >= HALF).float()
        found["fused"] = auc(reads.mean(dim=1), covered.flatten() >= HALF).float()
    return found


def standardised(x: Tensor) -> Tensor:
    """Every row with mean 0 and mean square 1, so that the mean of a product is a correlation."""
    x = x - x.mean(dim=-1, keepdim=True)
    return x / x.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-9)


@dataclass(frozen=True)
class Roles:
    """What every head of one checkpoint does."""

    weights: str  # digest of those that were measured
    data: str  # what the pictures were
    pictures: int
    figures: dict[str, list[list[float]]]  # of FIGURES, [layer][head], means over the pictures
    opening: dict[str, int]  # the layer, and the head where one is better alone, that find objects best

    def fit(self, model: ViT) -> bool:
        """Is there a figure for every head of such a model? A file may hold anything."""
        shape = {"layer": model.config.depth, "head": model.config.num_heads}
        try:
            values = [np.asarray(rows, dtype=float) for rows in self.figures.values()]
            opening = all(type(at) is int and 0 <= at < shape[part] for part, at in self.opening.items())
        except (AttributeError, LookupError, TypeError, ValueError):  # no objects, no numbers, no such part
            return False
        whole = all(each.shape == (*shape.values(),) and np.isfinite(each).all() for each in values)
        named = bool(values) and self.figures.keys() <= FIGURES.keys() and isinstance(self.data, str)
        return opening and whole and named and type(self.pictures) is int

    def names(self, layer: int, head: int) -> list[str]:
        """What this head is called, the most telling name first."""
        known = [rule for rule in RULES if rule.figure in self.figures]
        return [rule.name for rule in known if rule.holds(self.figures[rule.figure][layer][head])]

    def all_names(self) -> list[list[list[str]]]:
        """[layer][head]: `names`."""
        first = next(iter(self.figures.values()))
        return [[self.names(i, j) for j in range(len(row))] for i, row in enumerate(first)]


def measure(
    model: ViT,
    pictures: Iterable[tuple[Tensor, Tensor | None]],
    data: str,
    progress: Callable[[int], None] | None = None,
) -> Roles:
    """Measure every head over pictures, (normalised (3, height, width), mask (height, width) or None).

    Raises ValueError where there is none."""
    sums: dict[str, Tensor] = {}
    known: Counter[str] = Counter()  # pictures: not all have a mask
    count = 0
    for image, mask in pictures:
        for name, value in head_figures(trace(model, image, keep=("attn",)), model, mask).items():
            known[name] += 1
            if name in sums:
                # in place: small tensors kept for each picture would pin the memory between them
                sums[name] += value
            else:
                sums[name] = value
        count += 1
        if progress:
            progress(count)
    if not count:
        raise ValueError("Heads are named over pictures, and there was none.")
    means = {name: total / known[name] for name, total in sums.items()}
    fused = means.pop("fused", None)
    opening = {}
    if fused is not None:
        layer, head = divmod(int(means["object"].argmax()), means["object"].shape[1])
        opening = {"layer": int(fused.argmax())}
        if means["object"][layer, head] > fused.max():
            opening = {"layer": layer, "head": head}
    figures = {name: [[round(x, 4) for x in row] for row in value.tolist()] for name, value in means.items()}
    return Roles(weights_digest(model), data, count, figures, opening)


def write_roles(folder: Path, roles: Roles) -> Path:
    """Keep them beside the weights that they are of."""
    write_atomically(folder / FILE, (json.dumps(asdict(roles), indent=1) + "\n").encode())
    return folder / FILE


def read_roles(folder: Path | None, model: ViT) -> Roles | None:
    """Those of this model in its checkpoint's folder, or None: none were measured, or of other weights, or
    the file is damaged."""
    if folder is None or not (folder / FILE).exists():
        return None
    try:
        roles = Roles(**read_json(folder / FILE))
    except (CheckpointError, TypeError):
        return None
    return roles if roles.weights == weights_digest(model) and roles.fit(model) else None


def records(roles: Roles) -> list[dict[str, str | float]]:
    """A row for every head: its names, and its figures."""
    rows: list[dict[str, str | float]] = []
    for i, layer in enumerate(roles.all_names()):
        for j, names in enumerate(layer):
            figures = {name: values[i][j] for name, values in roles.figures.items()}
            rows.append({"head": f"L{i}.H{j}", "does": ", ".join(names) or "none of these", **figures})
    return rows

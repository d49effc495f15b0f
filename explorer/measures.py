"""What a model says while patches are hidden: in a map's order, all at once, or at random.

P patches, M maps, S points of a curve, K classes.

Hidden means painted grey ("grey": zero after normalisation, which a model may take for an object) or left out
of the sequence ("drop": no token can attend to it, positions stay): they can disagree, so there are both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vit.card import Card
from vit.model import ViT
from vit.trace import Trace

MODES = ("grey", "drop")
BATCH = 64  # images per forward pass
ROAD_SHARES = (0.2, 0.5, 0.8)  # of the patches, removed at once
ROAD_NOISE = 0.01  # standard deviation of what is added to what was filled in
SUBSET = 0.2  # of the patches, hidden at once for sensitivity-n
Reader = Callable[[Tensor], Tensor]  # logits (B, K) -> (B,)


# ---- hiding ----------------------------------------------------------------------------------------


def seen_through(model: ViT, trace: Trace, mode: str, read: Reader) -> Callable[[Tensor], Tensor]:
    """patches that are shown (M, n) -> what is read of the logits (M,), all other patches hidden."""
    if mode not in MODES:
        raise ValueError(f"Patches can be hidden by {' or '.join(MODES)}, not by {mode!r}.")
    image = trace.image.to(next(model.parameters()))[None]  # (1, 3, height, width), of a clip (1, F, 3, ...)
    return (_grey if mode == "grey" else _drop)(model, trace, image, read)


def _grey(model: ViT, trace: Trace, image: Tensor, read: Reader) -> Callable[[Tensor], Tensor]:
    def value(shown: Tensor) -> Tensor:
        found = []
        for some in shown.split(BATCH):
            gate = torch.zeros(len(some), trace.grid.count).scatter_(1, some, 1)
            gate = over_pixels(gate.to(image), trace)[..., None, :, :]  # (M, 1, height, width)
            found.append(read(model(image * gate).float()))
        return torch.cat(found).cpu()

    return value


def _drop(model: ViT, trace: Trace, image: Tensor, read: Reader) -> Callable[[Tensor], Tensor]:
    """A mean over no patch does not exist: there, nothing is what the model says of a grey image."""
    prefix = model.config.num_prefix_tokens
    tokens = model.embed(image)[0]  # (T, D)
    places = model.places(trace.grid)

    def value(shown: Tensor) -> Tensor:
        if not shown.shape[1] and model.config.pool != "cls":
            return _grey(model, trace, image, read)(shown)
        found = []
        for some in shown.split(BATCH):
            kept = torch.cat([torch.arange(prefix).expand(len(some), -1), some + prefix], dim=1)
            x = model.run(tokens[kept.to(tokens.device)], places=places[kept])  # (M, prefix + n, D)
            found.append(read(model.read_out(x).float()))
        return torch.cat(found).cpu()

    return value


# ---- one after another -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curves:
    """Probability of the class (of a model without any: its logit) while patches are hidden and shown, in one
    mode."""

    fractions: Tensor  # (S,) of the patches: hidden (deletion) or shown (insertion)
    deletion: Tensor  # (S,) lower is better
    insertion: Tensor  # (S,) higher is better

    @property
    def deletion_area(self) -> float:
        return float(torch.trapezoid(self.deletion, self.fractions))

    @property
    def insertion_area(self) -> float:
        return float(torch.trapezoid(self.insertion, self.fractions))


@torch.no_grad()
def perturbation_curves(
    model: ViT, trace: Trace, orders: Tensor, mode: str, points: int, card: Card | None = None
) -> list[Curves]:
    """Deletion and insertion of every order (M, P), at `points` steps from all to nothing."""
    M, P = orders.shape
    counts = torch.linspace(0, P, points).round().long().unique().tolist()
    value = seen_through(model, trace, mode, reader_of(trace, card))
    everything, nothing = value(torch.arange(P)[None]), value(orders[:1, :0])
    deletion = [everything.expand(M)]
    insertion = [nothing.expand(M)]
    for count in counts[1:-1]:
        deletion.append(value(orders[:, count:]))
        insertion.append(value(orders[:, :count]))
    deletion, insertion = [*deletion, nothing.expand(M)], [*insertion, everything.expand(M)]
    fractions = torch.tensor(counts) / P
    pairs = zip(torch.stack(deletion, dim=1), torch.stack(insertion, dim=1))
    return [Curves(fractions, *pair) for pair in pairs]


def reader_of(trace: Trace, card: Card | None) -> Reader:
    """What is watched: the probability of the trace's class, or the number that a model gives instead."""
    values = (card or Card("")).values
    return lambda logits: values(logits)[:, trace.target]


def mean_curves(curves: Sequence[Curves]) -> Curves:
    deletion = torch.stack([c.deletion for c in curves]).mean(dim=0)
    insertion = torch.stack([c.insertion for c in curves]).mean(dim=0)
    return Curves(curves[0].fractions, deletion, insertion)


# ---- sensitivity-n ---------------------------------------------------------------------------------


@torch.no_grad()
def sensitivity(
    model: ViT, trace: Trace, maps: Tensor, mode: str, subsets: int, seed: int = 0, share: float = SUBSET
) -> Tensor:
    """(M,): does a map say how much? Of maps (M, P), the correlation between the sum of its values over n
    patches and what the logit loses when these are hidden, over `subsets` random sets; 0 of a flat map.

    Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods", section 4
    (sensitivity-n), n a share of the patches. The sets are the same for all maps. Cost: `subsets` forwards.
    """
    P = maps.shape[1]
    n = min(P - 1, max(1, round(share * P)))
    orders = torch.rand(subsets, P, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    value = seen_through(model, trace, mode, lambda logits: logits[:, trace.target])
    lost = (value(torch.arange(P)[None]) - value(orders[:, n:])).double()  # (subsets,)
    told = torch.stack([maps.double()[:, some].sum(dim=1) for some in orders[:, :n]], dim=1)  # (M, subsets)
    lost, told = lost - lost.mean(), told - told.mean(dim=1, keepdim=True)
    length = told.norm(dim=1) * lost.norm()
    flat = (maps.amax(dim=1) - maps.amin(dim=1) <= 1e-12 * maps.abs().amax(dim=1)) | (length == 0)
    return torch.where(flat, 0.0, told @ lost / length.clamp(min=1e-300)).float()


# ---- ROAD ------------------------------------------------------------------------------------------


@torch.no_grad()
def road(model: ViT, trace: Trace, orders: Tensor, card: Card | None = None, seed: int = 0) -> Tensor:
    """(M,): of orders (M, P), how much more is left of the class without the least important patches than
    without the most important ones, the mean over ROAD_SHARES: 0 in the long run for random orders.

    Patches are not painted grey but filled in from their surroundings, so that their shape tells nothing.
    Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ROAD),
    sections 4 and 5.  Cost: 2 forwards and 2 sparse systems per order and share.
    """
    M, P = orders.shape
    read, found = reader_of(trace, card), []
    for share in ROAD_SHARES:
        n = min(P - 1, max(1, round(share * P)))
        pictures = [
            filled_in(trace.image, patches_to_pixels(gone, trace), seed)
            for order in orders
            for gone in (order[-n:], order[:n])
        ]
        weight = next(model.parameters())
        batches = torch.stack(pictures).split(BATCH)
        values = [read(model(some.to(weight)).float()).cpu() for some in batches]
        least, most = torch.cat(values).view(M, 2).unbind(dim=1)
        found.append(least - most)
    return torch.stack(found).mean(dim=0)


def patches_to_pixels(patches: Tensor, trace: Trace) -> Tensor:
    """Numbers of patches -> (height, width), true on their pixels; of a clip (F, height, width)."""
    gate = torch.zeros(trace.grid.count, dtype=torch.bool)
    gate[patches] = True
    return over_pixels(gate, trace)


def over_pixels(x: Tensor, trace: Trace) -> Tensor:
    """What is said of patches (..., P), of their pixels (..., height, width); of a clip (..., F, ...)."""
    p = trace.image.shape[-1] // trace.grid.shape[-1]
    over = trace.grid.unflatten(x).repeat_interleave(p, dim=-2).repeat_interleave(p, dim=-1)
    tubelet = len(trace.image) // trace.grid.frames
    return over.repeat_interleave(tubelet, dim=-3) if len(trace.grid.shape) > 2 else over


def filled_in(image: Tensor, gone: Tensor, seed: int = 0, noise: float = ROAD_NOISE) -> Tensor:
    """An image (3, height, width) whose pixels where `gone` (height, width) are the weighed mean of their
    eight neighbours, which may be gone, too, plus a little noise: ROAD's noisy linear imputation.

    Weights: 1/6 for the four at the sides, 1/12 for the four at the corners; at the border, of those there
    are. A clip (F, 3, height, width) is filled in frame by frame.
    """
    if image.dim() > 3:
        return torch.stack([filled_in(*frame, seed + at, noise) for at, frame in enumerate(zip(image, gone))])
    if not gone.any():
        return image.clone()
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    height, width = gone.shape
    hidden = gone.flatten().numpy()
    number = np.cumsum(hidden) - 1  # of each pixel among those that are gone
    here, there, weight = _neighbours(height, width)
    of_gone = hidden[here]
    here, there, weight = number[here[of_gone]], there[of_gone], weight[of_gone]
    count, known = int(hidden.sum()), ~hidden[there]
    total = np.bincount(here, weight, minlength=count)
    inside = (-weight[~known], (here[~known], number[there[~known]]))
    system = coo_array(inside, shape=(count, count)).tocsc()
    system.setdiag(total)
    pixels = image.double().flatten(1).numpy()  # (3, height · width)
    given = [np.bincount(here[known], weight[known] * one[there[known]], minlength=count) for one in pixels]
    # no diagonal is less than the rest of its row: one order serves rows and columns, without pivots
    solved = splu(system, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    values = torch.from_numpy(solved.solve(np.stack(given, axis=1)).T)  # (3, count)
    values += noise * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    out = image.clone()
    out[:, gone] = values.to(out)
    return out


@lru_cache(maxsize=4)
def _neighbours(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pixel, neighbour, weight) of all pairs, pixels counted row by row."""
    rows, columns = np.indices((height, width)).reshape(2, -1)
    here, there, weight = [], [], []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            to = rows + down, columns + right
            inside = (to[0] >= 0) & (to[0] < height) & (to[1] >= 0) & (to[1] < width)
            inside &= bool(down or right)
            here.append(np.flatnonzero(inside))
            there.append((to[0] * width + to[1])[inside])
            weight.append(np.full(inside.sum(), 1 / 12 if down and right else 1 / 6))
    return np.concatenate(here), np.concatenate(there), np.concatenate(weight)

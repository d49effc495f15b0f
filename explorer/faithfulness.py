"""Is a map true?  Hide the patches it calls important and see whether the answer goes.

P patches, (h, w) patch grid, M maps, S points of a curve.

Deletion hides patches, the highest of the map first, and records the probability of the class;
insertion shows them to a model that sees nothing yet (after Petsiuk et al. 2018, "RISE", whose
insertion begins with a blurred picture).  A true map has a low area under deletion and a high one
under insertion.  Hidden means painted grey ("grey": zero after normalisation, which a model may
take for an object) or left out of the sequence ("drop": no token can attend to it, positions stay):
they can disagree, so there are both.
Every map races against random orders and against a centre prior, which has never seen the picture:
a map that does not beat it has earned no belief.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.maps import METHODS, Progress
from vit.card import Card
from vit.grid import Grid
from vit.model import ViT, ViTConfig
from vit.trace import Trace, trace

MODES = ("grey", "drop")
CENTRE, RANDOM = "centre prior", "random"
BATCH = 64  # images per forward pass


# ---- controls and masks ----------------------------------------------------------------------------


def centre_prior(grid_size: tuple[int, int]) -> Tensor:
    """(h, w) from 1 in the middle, where photographers put things, to 0 in the corners: it has never
    seen the picture."""
    rows, columns = (torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in grid_size)
    return 1 - (rows[:, None].square() + columns.square()) / 2


def random_map(grid_size: tuple[int, int], seed: int) -> Tensor:
    """(h, w): a random order of the patches."""
    return torch.rand(grid_size, generator=torch.Generator().manual_seed(seed))


def order_of(map: Tensor) -> Tensor:
    """(P,): patches of a map (h, w), the highest first. Ties are broken at random, always the same way:
    by position they would favour the upper left corner, where no object is."""
    shuffled = torch.randperm(map.numel(), generator=torch.Generator().manual_seed(0))
    return shuffled[map.flatten()[shuffled].argsort(descending=True, stable=True)]


def coverage(mask: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """(h, w): the share of each patch's pixels that a mask (height, width) covers."""
    return F.adaptive_avg_pool2d(mask.float()[None, None], grid_size)[0, 0]


def pointing(map: Tensor, covered: Tensor) -> float:
    """1 if the highest patch of the map touches the object, else 0 (Zhang et al. 2018)."""
    return float(covered.flatten()[order_of(map)[0]] > 0)


def mass_on_object(map: Tensor, covered: Tensor) -> float:
    """The share of the map's positive mass that lies on the object; a flat map gets the object's area."""
    positive = map.clamp(min=0)
    total = positive.sum()
    return float((positive * covered).sum() / total) if total > 0 else float(covered.mean())


# ---- one picture -----------------------------------------------------------------------------------


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


@dataclass(frozen=True, eq=False)
class Runner:
    """One map of a race, with all that was measured."""

    name: str
    map: Tensor  # (h, w)
    curves: dict[str, Curves]  # by mode; of the random orders their mean
    pointing: float | None = None  # where the object's mask is known
    mass: float | None = None
    each: dict[str, list[Curves]] = field(default_factory=dict)  # by mode, of every single random order

    @property
    def score(self) -> float:
        """Insertion minus deletion area, the mean over modes: 0 in the long run for random orders."""
        areas = [c.insertion_area - c.deletion_area for c in self.curves.values()]
        return sum(areas) / len(areas)

    def figures(self) -> dict[str, float]:
        """Everything as one flat row."""
        row = {"score": self.score}
        for mode, curves in self.curves.items():
            row[f"deletion {mode}"] = curves.deletion_area
            row[f"insertion {mode}"] = curves.insertion_area
        if self.pointing is not None and self.mass is not None:
            row |= {"pointing": self.pointing, "mass on object": self.mass}
        return row


def race(
    model: ViT,
    trace: Trace,
    methods: Sequence[str] | None = None,
    *,
    card: Card | None = None,
    mask: Tensor | None = None,
    modes: Sequence[str] = MODES,
    points: int = 9,
    randoms: int = 3,
    seed: int = 0,
    map_of: Callable[[str], Tensor] | None = None,
    progress: Progress | None = None,
) -> list[Runner]:
    """All maps of one picture against each other and the controls, the most faithful first.

    trace: with a target, which is the class that is watched. methods: names of METHODS (all that work
    for this model by default). card: says what a logit means; without one, it is one class of all.
    mask: (height, width), true on the object. points: of each curve.
    randoms: how many random orders are averaged, drawn from `seed`. map_of: a method's map (h, w), where
    it may be at hand already. Cost: (points − 2) forwards per
    map, curve and mode, batched; in mode "drop" on half of the tokens.
    """
    if trace.target is None:
        raise ValueError("A race watches one class: trace(model, image, target=...) it first.")
    if not modes or not set(modes) <= set(MODES):
        raise ValueError(f"Patches can be hidden by {' or '.join(MODES)}, not by {list(modes)}.")
    if points < 3:
        raise ValueError("A curve needs at least 3 points: of all and of nothing every map shows the same.")
    names = usable_methods(model.config, trace.tokens.shape[1]) if methods is None else methods
    stages = len(names) + len(modes)
    maps = {}
    for name in names:
        maps[name] = map_of(name) if map_of else METHODS[name](trace, model=model)
        if progress:
            progress(len(maps), stages)
    maps[CENTRE] = centre_prior(trace.grid_size)
    controls = [random_map(trace.grid_size, seed + number) for number in range(randoms)]
    orders = torch.stack([order_of(map) for map in (*maps.values(), *controls)])  # (M, P)
    curves = {}
    for number, mode in enumerate(modes, start=1):
        curves[mode] = perturbation_curves(model, trace, orders, mode, points, card)
        if progress:
            progress(len(names) + number, stages)

    runners = []
    covered = None if mask is None else coverage(mask, trace.grid_size)
    for at, (name, map) in enumerate(maps.items()):
        runner = partial(Runner, name, map, {mode: curves[mode][at] for mode in modes})
        if covered is None:
            runners.append(runner())
        else:
            pointed = pointing(map, covered)
            runners.append(runner(pointing=pointed, mass=mass_on_object(map, covered)))
    if randoms:
        each = {mode: curves[mode][len(maps) :] for mode in modes}
        mean = {mode: _mean_curves(each[mode]) for mode in modes}
        area = None if covered is None else float(covered.mean())
        hit = None if covered is None else float((covered > 0).float().mean())
        runners.append(Runner(RANDOM, torch.stack(controls).mean(dim=0), mean, hit, area, each))
    return sorted(runners, key=lambda runner: -runner.score)


def usable_methods(config: ViTConfig, num_tokens: int) -> list[str]:
    """Names of the methods that this model and this many tokens allow."""
    return [name for name, method in METHODS.items() if not method.refusal(config, num_tokens)]


@torch.no_grad()
def perturbation_curves(
    model: ViT, trace: Trace, orders: Tensor, mode: str, points: int, card: Card | None = None
) -> list[Curves]:
    """Deletion and insertion of every order (M, P), at `points` steps from all to nothing."""
    M, P = orders.shape
    counts = torch.linspace(0, P, points).round().long().unique().tolist()
    visible = _visible_grey if mode == "grey" else _visible_drop
    weight = next(model.parameters())
    image = trace.image.to(weight)[None]  # (1, 3, height, width)
    values = (card or Card("")).values
    value = visible(model, image, lambda logits: values(logits.float())[:, trace.target])
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


def _visible_grey(model: ViT, image: Tensor, read: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """patches shown (M, n) -> what is read of the logits (M,), all others grey."""
    p = model.config.patch_size
    height, width = image.shape[-2:]

    def value(shown: Tensor) -> Tensor:
        found = []
        for some in shown.split(BATCH):
            gate = torch.zeros(len(some), (height // p) * (width // p)).scatter_(1, some, 1)
            gate = gate.unflatten(1, (height // p, width // p)).to(image)
            gate = gate.repeat_interleave(p, dim=1).repeat_interleave(p, dim=2)
            found.append(read(model(image * gate[:, None])))
        return torch.cat(found).cpu()

    return value


def _visible_drop(model: ViT, image: Tensor, read: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """patches shown (M, n) -> what is read of the logits (M,), all others left out of the sequence.

    A mean over no patch does not exist: there, nothing is what the model says of a grey image.
    """
    prefix = model.config.num_prefix_tokens
    tokens = model.embed(image)[0]  # (T, D)
    places = model.places(Grid.of((image.shape[-2], image.shape[-1]), model.config.patch_size))

    def value(shown: Tensor) -> Tensor:
        if not shown.shape[1] and model.config.pool == "mean":
            return _visible_grey(model, image, read)(shown)
        found = []
        for some in shown.split(BATCH):
            kept = torch.cat([torch.arange(prefix).expand(len(some), -1), some + prefix], dim=1)
            x = model.run(tokens[kept.to(tokens.device)], places=places[kept])  # (M, prefix + n, D)
            found.append(read(model.read_out(x)))
        return torch.cat(found).cpu()

    return value


def _mean_curves(curves: Sequence[Curves]) -> Curves:
    deletion = torch.stack([c.deletion for c in curves]).mean(dim=0)
    insertion = torch.stack([c.insertion for c in curves]).mean(dim=0)
    return Curves(curves[0].fractions, deletion, insertion)


# ---- a data set ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean over images, with its 95 % confidence interval (see `bootstrap`)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Row:
    """One method over a data set."""

    name: str
    figures: dict[str, Estimate]  # score, deletion grey, insertion grey, ..., pointing, mass on object
    beyond_centre: Estimate  # its score minus the centre prior's, image by image
    each: dict[str, Tensor] = field(default_factory=dict)  # (n,) what the figures are means of, in order

    @property
    def verdict(self) -> str:
        if self.name == CENTRE:
            return "the bar"
        if math.isinf(self.beyond_centre.high):
            return "too few pictures"
        if self.beyond_centre.low > 0:
            return "beats the centre"
        return "worse than the centre" if self.beyond_centre.high < 0 else "no better than the centre"


@dataclass(frozen=True)
class Table:
    """The faithfulness of every method over a data set, the most faithful first."""

    rows: list[Row]
    images: int

    def records(self) -> list[dict[str, str | float]]:
        """Flat rows for a CSV file: each figure with its interval."""
        records = []
        for row in self.rows:
            record: dict[str, str | float] = {"method": row.name, "verdict": row.verdict}
            for name, estimate in (row.figures | {"beyond centre": row.beyond_centre}).items():
                record |= {name: estimate.mean, f"{name} low": estimate.low, f"{name} high": estimate.high}
            records.append(record)
        return records

    def markdown(self) -> str:
        """The table for people: intervals for the score and its lead, means for the rest."""
        means = [name for name in self.rows[0].figures if name != "score"]
        header = ["map", "score [95 %]", "− centre prior [95 %]", *means, "verdict"]
        lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 2) + " --- |"]
        for row in self.rows:
            label = METHODS[row.name].label if row.name in METHODS else f"*{row.name}*"
            cells = [label, str(row.figures["score"]), str(row.beyond_centre)]
            cells += [f"{row.figures[name].mean:.3f}" for name in means]
            lines.append("| " + " | ".join([*cells, row.verdict]) + " |")
        return "\n".join(lines)


def table(
    model: ViT,
    images: Iterable[tuple[Tensor, Tensor | None]],
    methods: Sequence[str] | None = None,
    *,
    card: Card | None = None,
    modes: Sequence[str] = MODES,
    points: int = 9,
    randoms: int = 3,
    resamples: int = 2000,
    progress: Callable[[int], None] | None = None,
) -> Table:
    """Race all methods on many images (each (3, height, width), and the object's mask or None).

    The class watched is the one that the model answers. Intervals: `bootstrap` with
    `resamples` draws of images; the lead over the centre prior is taken image by
    image, so that easy and hard pictures cancel. progress(images done).
    """
    figures: list[dict[str, dict[str, float]]] = []  # per image, per method
    for image, mask in images:
        target = answer(model, image)
        t = trace(model, image, target=target)
        seed = (
            len(figures) * randoms
        )  # other random orders for every image: what they share would not average out
        options: dict[str, Any] = {"modes": modes, "points": points, "randoms": randoms, "seed": seed}
        runners = race(model, t, methods, card=card, mask=mask, **options)
        figures.append({runner.name: runner.figures() for runner in runners})
        if progress:
            progress(len(figures))
    if not figures:
        raise ValueError("A faithfulness table needs images: there was none.")
    rows = []
    for name in figures[0]:  # what is known of every image: pointing needs masks
        known = [key for key in figures[0][name] if all(key in row[name] for row in figures)]
        values = {key: _column(figures, name, key) for key in known}
        lead = values["score"] - _column(figures, CENTRE, "score")
        estimates = {key: bootstrap(value, resamples) for key, value in values.items()}
        rows.append(Row(name, estimates, bootstrap(lead, resamples), values))
    rows.sort(key=lambda row: -row.figures["score"].mean)
    return Table(rows, len(figures))


def bootstrap(values: Tensor, resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean of (n,) values with its percentile interval; the same draws for all figures.

    Of few values that interval is too narrow (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap"): its ends are moved out by Student's t over the normal's quantile, and by √(n / (n − 1)).
    One value says nothing about others: its interval is everything.
    """
    from scipy.special import ndtri, stdtrit  # here: not everybody who imports this draws a table

    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Estimate(mean, -math.inf, math.inf)
    draws = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    low, high = values[draws].mean(dim=1).quantile(torch.tensor([0.025, 0.975]).to(values)).tolist()
    wider = float(stdtrit(n - 1, 0.975) / ndtri(0.975)) * math.sqrt(n / (n - 1))
    return Estimate(mean, mean - wider * (mean - low), mean + wider * (high - mean))


def _column(figures: list[dict[str, dict[str, float]]], method: str, figure: str) -> Tensor:
    """(n,): one figure of one method on every image."""
    return torch.tensor([row[method][figure] for row in figures], dtype=torch.float64)


@torch.no_grad()
def answer(model: ViT, image: Tensor) -> int:
    """The class that the model says an image (3, height, width) is of."""
    return int(model(image.to(next(model.parameters()))[None])[0].argmax())

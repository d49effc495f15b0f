"""Is a map true?  Hide the patches it calls important and see whether the answer goes.

P patches, (h, w) patch grid, M maps, S points of a curve.

Deletion hides patches, the highest of the map first, and records the probability of the class;
insertion shows them to a model that sees nothing yet (after Petsiuk et al. 2018, "RISE", whose
insertion begins with a blurred picture).  A true map has a low area under deletion and a high one
under insertion: the score is their difference.  Two measures beside it ask otherwise: sensitivity-n
whether a map says how much, ROAD the same as the score with patches filled in from their surroundings.
Every map races against random orders and against maps that never saw the model (explorer/controls.py):
one that does not beat the best of them has earned no belief, and it has to do so by more than one measure.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explorer import measures
from explorer.controls import (
    CENTRE,
    CONTROLS,
    RANDOM,
    controls_for,
    coverage,
    mass_on_object,
    order_of,
    pointing,
    random_map,
)
from explorer.maps import Progress
from explorer.measures import MODES, ROAD_SHARES, Curves, mean_curves, perturbation_curves
from explorer.methods import METHODS
from vit.card import Card
from vit.config import ViTConfig
from vit.model import ViT
from vit.trace import Trace, trace

MOST_POINTS = 33  # of a curve, where there are more patches than that
ROAD = "ROAD"


@dataclass(frozen=True)
class Plan:
    """What a race measures. points: of each curve; None: one per patch, up to 33. randoms: how many random
    orders are averaged, drawn from `seed`, as all lots are. subsets: random sets of sensitivity-n; 0: without
    it. road: whether ROAD is measured, too. half: whether what is left of a picture is looked at in bf16; the
    maps are float32's in any case. Raises ValueError for what is no race."""

    modes: tuple[str, ...] = MODES
    points: int | None = None
    randoms: int = 3
    subsets: int = 64
    road: bool = False
    seed: int = 0
    half: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", tuple(self.modes))
        if not self.modes or not set(self.modes) <= set(MODES):
            raise ValueError(f"Patches can be hidden by {' or '.join(MODES)}, not by {list(self.modes)}.")
        if self.points is not None and self.points < 3:
            raise ValueError(
                "A curve needs at least 3 points: of all and of nothing every map shows the same."
            )
        if self.subsets and self.subsets < 8:
            raise ValueError(f"Sensitivity-n needs at least 8 sets of patches, not {self.subsets}.")

    def points_for(self, patches: int) -> int:
        return min(patches + 1, MOST_POINTS) if self.points is None else self.points

    @property
    def measures(self) -> tuple[str, ...]:
        """The figures by which maps are judged."""
        of_modes = tuple(f"sensitivity {mode}" for mode in self.modes) if self.subsets else ()
        return ("score", *of_modes, *((ROAD,) if self.road else ()))

    @property
    def stages(self) -> int:
        """Steps of a race after its maps, as `progress` hears of them."""
        return len(self.modes) * (2 if self.subsets else 1) + self.road


def race_cost(plan: Plan, maps: int, patches: int) -> float:
    """Forward passes of a race of so many methods' maps, without what the maps themselves take; with half of
    the patches left out a pass is about half as long."""
    runners = maps + len(CONTROLS) - 1 + plan.randoms
    curve = 2 * (plan.points_for(patches) - 2) * runners
    each = sum(curve + plan.subsets if mode == "grey" else curve / 2 + plan.subsets for mode in plan.modes)
    return each + plan.road * 2 * len(ROAD_SHARES) * runners


# ---- one picture -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Runner:
    """One map of a race, with all that was measured."""

    name: str
    map: Tensor  # (h, w)
    curves: dict[str, Curves]  # by mode; of the random orders their mean
    more: dict[str, float] = field(default_factory=dict)  # sensitivity, ROAD, pointing, mass on object
    each: dict[str, list[Curves]] = field(default_factory=dict)  # by mode, of every single random order
    order: Tensor | None = None  # (P,) in which its patches went; of random orders there are several

    @property
    def score(self) -> float:
        """Insertion minus deletion area, the mean over modes: 0 in the long run for random orders."""
        areas = [c.insertion_area - c.deletion_area for c in self.curves.values()]
        return sum(areas) / len(areas)

    @property
    def is_flat(self) -> bool:
        """Does the map say nothing, the same of every patch?"""
        return bool(self.map.max() == self.map.min())

    def figures(self) -> dict[str, float]:
        """Everything as one flat row."""
        row = {"score": self.score}
        for mode, curves in self.curves.items():
            row[f"deletion {mode}"] = curves.deletion_area
            row[f"insertion {mode}"] = curves.insertion_area
        return row | self.more


def race(
    model: ViT,
    trace: Trace,
    methods: Sequence[str] | None = None,
    plan: Plan | None = None,
    *,
    card: Card | None = None,
    mask: Tensor | None = None,
    map_of: Callable[[str], Tensor] | None = None,
    progress: Progress | None = None,
) -> list[Runner]:
    """All maps of one picture against each other and the controls, the most faithful first.

    trace: with a target, which is the class that is watched. methods: names of METHODS (all that work
    for this model by default). card: says whether the class has a probability. mask: (height, width), true
    on the object. map_of: a method's map (h, w), where it may be at hand already. Cost: `race_cost`.
    """
    plan = plan or Plan()
    if trace.target is None:
        raise ValueError("A race watches one class: trace(model, image, target=...) it first.")
    names = usable_methods(model.config, trace.tokens.shape[1]) if methods is None else methods
    done, stages = 0, len(names) + plan.stages

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, stages)

    maps: list[tuple[str, Tensor]] = []
    for name in names:
        maps.append((name, map_of(name) if map_of else METHODS[name](trace, model=model)))
        step()
    maps += controls_for(trace.image, trace.grid_size).items()
    maps += [(RANDOM, random_map(trace.grid_size, plan.seed + number)) for number in range(plan.randoms)]
    lots = [1000 * plan.seed + number for number in range(len(maps))]
    orders = torch.stack([order_of(map, lot) for (_, map), lot in zip(maps, lots)])  # (M, P)
    watched = deepcopy(model).bfloat16() if plan.half else model
    curves: dict[str, list[Curves]] = {}
    more: list[dict[str, float]] = [{} for _ in maps]
    points = plan.points_for(trace.grid.count)
    for mode in plan.modes:
        curves[mode] = perturbation_curves(watched, trace, orders, mode, points, card)
        step()
    flat = torch.stack([map.flatten() for _, map in maps])  # (M, P)
    for name, values in _further_measures(watched, trace, flat, orders, plan, card):
        for figures, value in zip(more, values.tolist()):
            figures[name] = value
        step()
    if mask is not None:
        covered = coverage(mask, trace.grid_size)
        for figures, (_, map), lot in zip(more, maps, lots):
            pointed = pointing(map, covered, lot)
            figures |= {"pointing": pointed, "mass on object": mass_on_object(map, covered)}
    runners = [
        Runner(name, map, {mode: curves[mode][at] for mode in plan.modes}, more[at], order=orders[at])
        for at, (name, map) in enumerate(maps)
    ]
    return sorted(_with_mean_of_randoms(runners), key=lambda runner: -runner.score)


def _further_measures(
    model: ViT, trace: Trace, maps: Tensor, orders: Tensor, plan: Plan, card: Card | None
) -> Iterator[tuple[str, Tensor]]:
    """(figure, (M,)) of sensitivity-n and ROAD of maps and orders (M, P), as far as they are planned."""
    if plan.subsets:
        for mode in plan.modes:
            found = measures.sensitivity(model, trace, maps, mode, plan.subsets, plan.seed)
            yield f"sensitivity {mode}", found
    if plan.road:
        yield ROAD, measures.road(model, trace, orders, card, plan.seed)


def _with_mean_of_randoms(runners: list[Runner]) -> list[Runner]:
    """One runner in place of all random orders, with their mean in every figure."""
    chance = [runner for runner in runners if runner.name == RANDOM]
    others = [runner for runner in runners if runner.name != RANDOM]
    if not chance:
        return others
    each = {mode: [runner.curves[mode] for runner in chance] for mode in chance[0].curves}
    more = {key: sum(runner.more[key] for runner in chance) / len(chance) for key in chance[0].more}
    mean = {mode: mean_curves(several) for mode, several in each.items()}
    map = torch.stack([runner.map for runner in chance]).mean(dim=0)
    return [*others, Runner(RANDOM, map, mean, more, each)]


def usable_methods(config: ViTConfig, num_tokens: int) -> list[str]:
    """Names of the methods that this model and this many tokens allow."""
    return [name for name, method in METHODS.items() if not method.refusal(config, num_tokens)]


def best_control(runners: Sequence[Runner]) -> Runner:
    """The map that never saw the model and did best: the bar."""
    return max((r for r in runners if r.name in CONTROLS), key=lambda runner: runner.score)


def beliefs(runners: Sequence[Runner]) -> dict[str, list[str]]:
    """Of one picture: the measures by which each method's map is ahead of every control, without the one that
    hides patches as the method itself does."""
    rows = {runner.name: runner.figures() for runner in runners}
    judged = [name for name in next(iter(rows.values())) if name in ("score", ROAD) or "sensitivity" in name]
    bars = {name: max(rows[control][name] for control in rows.keys() & CONTROLS) for name in judged}
    return {
        name: [by for by in judged if row[by] > bars[by] and by != f"sensitivity {METHODS[name].judged_by}"]
        for name, row in rows.items()
        if name in METHODS
    }


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
    """One map over a data set."""

    name: str
    figures: dict[str, Estimate]  # score, deletion grey, insertion grey, ..., pointing, mass on object
    leads: dict[str, Estimate]  # by measure, over the control that is best by it, picture by picture
    beyond_centre: Estimate  # of the score, over the centre prior
    behind_first: Estimate  # of the score, to the map that leads the table
    each: dict[str, Tensor]  # every figure of every image, (n,)
    empty: float = 0.0  # share of pictures on which the map said the same of every patch

    @property
    def own(self) -> tuple[str, ...]:
        """Measures that hide patches in the very way that the method is made of: no evidence of its own."""
        way = METHODS[self.name].judged_by if self.name in METHODS else ""
        return (f"sensitivity {way}",) if way else ()

    @property
    def label(self) -> str:
        return METHODS[self.name].label if self.name in METHODS else self.name

    @property
    def verdict(self) -> str:
        """By all measures that are fair to it."""
        if self.name in CONTROLS:
            return "a control"
        fair = {name: lead for name, lead in self.leads.items() if name not in self.own}
        if any(math.isinf(lead.low) for lead in fair.values()):
            return "too few pictures"
        ahead = [name for name, lead in fair.items() if lead.low > 0]
        behind = [name for name, lead in fair.items() if lead.high < 0]
        if ahead and behind:
            return "the measures disagree"
        if behind:
            return "worse than a control"
        if not ahead:
            return "no better than a control"
        if len(ahead) == 1:
            return f"beats the controls by {ahead[0]} alone"
        return "beats every control"


@dataclass(frozen=True)
class Sample:
    """One picture of a data set."""

    image: Tensor  # (3, height, width)
    mask: Tensor | None = None  # (height, width), true on the object, where that is known
    target: int | None = None  # the class to watch; None: the one that the model answers


@dataclass(frozen=True)
class Table:
    """The faithfulness of every method over a data set, the most faithful first."""

    rows: list[Row]
    images: int
    bars: dict[str, str]  # by measure: the control that is best by it

    def records(self) -> list[dict[str, str | float]]:
        """Flat rows for a CSV file: each figure with its interval."""
        records = []
        for row in self.rows:
            record: dict[str, str | float] = {"method": row.name, "verdict": row.verdict, "empty": row.empty}
            leads = {f"{name} beyond {self.bars[name]}": lead for name, lead in row.leads.items()}
            leads |= {"beyond centre": row.beyond_centre, "behind first": row.behind_first}
            for name, estimate in (row.figures | leads).items():
                record |= {name: estimate.mean, f"{name} low": estimate.low, f"{name} high": estimate.high}
            records.append(record)
        return records

    def markdown(self) -> str:
        """The table for people: intervals for the score and its leads, means for the rest."""
        means = [name for name in self.rows[0].figures if name != "score"]
        bar = self.bars["score"]
        header = ["map", "score [95 %]", f"− {bar} [95 %]", "− the first [95 %]", *means, "verdict"]
        lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 2) + " --- |"]
        for row in self.rows:
            label = f"*{row.label}*" if row.name in CONTROLS else row.label + " †" * bool(row.own)
            cells = [label, str(row.figures["score"]), str(row.leads["score"]), str(row.behind_first)]
            for name in means:
                marked = name in row.leads and row.leads[name].low > 0
                cells.append(f"{'**' * marked}{row.figures[name].mean:.3f}{'**' * marked}")
            lines.append("| " + " | ".join([*cells, row.verdict]) + " |")
        return "\n".join([*lines, "", *self.notes()])

    def notes(self) -> list[str]:
        """What the table alone does not say, a sentence each."""
        named = [f"{bar} by {measure}" for measure, bar in self.bars.items()]
        notes = [f"The best control: {', '.join(named)}; bold: ahead of it beyond chance."]
        own = [row for row in self.rows if row.own]
        if own:
            notes.append(
                "† is judged in part by the operation that it is made of (hiding patches one way): "
                + "; ".join(f"{row.label}, {row.own[0].split()[-1]}" for row in own)
                + ". The verdict leaves that column out."
            )
        notes += [
            f"{row.label} said nothing on {100 * row.empty:.0f} % of the pictures: the same of every patch."
            for row in self.rows
            if row.empty
        ]
        return [f"{note}  " for note in notes]


def table(
    model: ViT,
    samples: Iterable[Sample],
    methods: Sequence[str] | None = None,
    plan: Plan | None = None,
    *,
    card: Card | None = None,
    resamples: int = 2000,
    keep: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Table:
    """Race all methods on many pictures.

    Intervals: `bootstrap` with `resamples` draws of images; leads are taken picture by picture, so that easy
    and hard pictures cancel. keep: a file for the figures of each picture as it is done; what it holds
    already, of the same weights and plan, is not measured again. progress(images done). Raises ValueError
    where there is no picture, or where `keep` holds figures of something else.
    """
    plan = plan or Plan()
    kept = Kept(keep, fingerprint(model, methods, plan))
    done = 0
    for number, sample in enumerate(samples):
        watched = "" if sample.target is None else f" class {sample.target}"
        if not kept.has(number, of := tensor_digest(sample.image) + watched):
            target = answer(model, sample.image) if sample.target is None else sample.target
            own = Plan(**(asdict(plan) | {"seed": plan.seed + number * max(1, plan.randoms)}))  # other lots
            traced = trace(model, sample.image, target=target)
            runners = race(model, traced, methods, own, card=card, mask=sample.mask)
            kept.add(of, {runner.name: runner.figures() | {"empty": runner.is_flat} for runner in runners})
        done = number + 1
        if progress:
            progress(done)
    return table_of(kept.figures[:done], plan.measures, resamples)


def table_of(figures: list[dict[str, dict[str, float]]], by: Sequence[str], resamples: int = 2000) -> Table:
    """From figures per picture, map and measure to the table."""
    if not figures:
        raise ValueError("A faithfulness table needs images: there was none.")
    means = {name: float(_column(figures, name, "score").mean()) for name in figures[0]}
    first = max((name for name in means if name in METHODS), key=means.__getitem__, default=CENTRE)
    bars = {}
    for measure in by:
        controls = {name: _column(figures, name, measure).mean() for name in means if name in CONTROLS}
        bars[measure] = max(controls, key=controls.__getitem__)
    rows = []
    for name in sorted(means, key=lambda name: -means[name]):
        # what is known of every image: pointing needs masks
        known = [
            key for key in figures[0][name] if key != "empty" and all(key in row[name] for row in figures)
        ]
        values = {key: _column(figures, name, key) for key in known}

        def beyond(other: str, measure: str = "score", values: dict[str, Tensor] = values) -> Estimate:
            return bootstrap(values[measure] - _column(figures, other, measure), resamples)

        rows.append(
            Row(
                name,
                {key: bootstrap(value, resamples) for key, value in values.items()},
                {measure: beyond(bars[measure], measure) for measure in by},
                beyond(CENTRE),
                beyond(first),
                values,
                float(_column(figures, name, "empty").mean()),
            )
        )
    return Table(rows, len(figures), bars)


class Kept:
    """Figures per picture, and the file that holds them, a line each, so that a run can be taken up again."""

    def __init__(self, path: Path | None, key: str):
        self.path = path
        self.pictures: list[str] = []  # which they are of
        self.figures: list[dict[str, dict[str, float]]] = []
        if path is None:
            return
        if path.exists():
            first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
            if first != key:
                raise ValueError(
                    f"{path} holds figures of other weights, methods or settings: name another file, or "
                    "remove it."
                )
            whole = [line for line in lines if line.endswith("}}]")]  # the last one may have been cut off
            for of, figures in map(json.loads, whole):
                self.pictures.append(of)
                self.figures.append(figures)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = map(json.dumps, zip(self.pictures, self.figures))
        path.write_text("".join(f"{line}\n" for line in [key, *rows]), encoding="utf-8")

    def has(self, number: int, of: str) -> bool:
        """Are the figures of this picture here? Raises ValueError where in its place are those of another."""
        if number < len(self.pictures) and self.pictures[number] != of:
            what = "other pictures or of other classes"
            raise ValueError(f"{self.path} holds figures of {what}: name another file, or remove it.")
        return number < len(self.pictures)

    def add(self, of: str, figures: dict[str, dict[str, float]]) -> None:
        self.pictures.append(of)
        self.figures.append(figures)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([of, figures]) + "\n")


def fingerprint(model: ViT, methods: Sequence[str] | None, plan: Plan) -> str:
    """What figures belong to, in one line."""
    about: dict[str, Any] = asdict(plan) | {"methods": methods, "weights": weights_digest(model)}
    return json.dumps(about)


def weights_digest(model: ViT) -> str:
    """What tells these weights from others."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(as_bytes(value))
    return digest.hexdigest()[:16]


def tensor_digest(x: Tensor) -> str:
    """What tells a tensor, such as a picture, from others."""
    return hashlib.sha256(as_bytes(x)).hexdigest()[:16]


def as_bytes(x: Tensor) -> bytes:
    return x.detach().float().cpu().contiguous().numpy().tobytes()


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

"""Does attention land on things?  Maps against the object's true place, over many pictures.

L layers, H heads, P patches, (h, w) patch grid, N pictures, M maps.

Every map, which a head, a layer or a method draws, is held against the patches that lie on an object, known
from a mask or from boxes:

    AUC       how often a patch on the object has a higher value than one beside it; ties count half, so a
              flat map has 0.5 (Mann & Whitney 1947, divided by the number of pairs)
    pointing  how often the map's highest patch touches the object (Zhang et al. 2018)
    gain      the share of the map that lies on the object over the object's share of the picture:
              1 for a flat map

Two controls stand beside them: the centre prior, which has never seen the picture (photographers put things
in the middle), and a model of the same shape that has learned nothing.  The best of many heads owes a part
of its lead to luck: it is chosen on one half of the pictures and measured on the other, and the other way
round.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from explorer.controls import CENTRE, centre_prior, coverage
from explorer.faithfulness import Estimate, answer, bootstrap
from explorer.ledger import pooled_rows
from explorer.methods import METHODS
from vit.model import ViT
from vit.pictures import to_pixels
from vit.trace import trace

FIGURES = ("auc", "pointing", "gain")
HALF = 0.5  # a patch lies on the object if so much of it does
HEADS, LAYERS, UNTRAINED = "heads", "layers", "untrained"


# ---- one picture -----------------------------------------------------------------------------------


def auc(maps: Tensor, on: Tensor) -> Tensor:
    """(...,): the chance that a patch on the object outranks one beside it. maps (..., P), on (P,) bool.

    NaN where all patches are on the object, or none.
    """
    inside, outside = maps[..., on].double(), maps[..., ~on].double()
    above = (inside[..., :, None] > outside[..., None, :]).sum(dim=(-2, -1))
    level = (inside[..., :, None] == outside[..., None, :]).sum(dim=(-2, -1))
    return (above.double() + level.double() / 2) / (inside.shape[-1] * outside.shape[-1])


def pointing(maps: Tensor, covered: Tensor) -> Tensor:
    """(...,): 1 if the highest patch touches the object, else 0; the mean over patches that are equally
    high. maps (..., P), covered (P,)."""
    highest = maps == maps.amax(dim=-1, keepdim=True)
    return (highest & (covered > 0)).sum(dim=-1).double() / highest.sum(dim=-1)


def gain(maps: Tensor, covered: Tensor) -> Tensor:
    """(...,): the share of the positive mass on the object over the object's share of the picture.
    maps (..., P), covered (P,); a map that is nowhere positive says nothing: 1."""
    positive = maps.clamp(min=0).double()
    total = positive.sum(dim=-1)
    share = (positive * covered).sum(dim=-1) / total / covered.double().mean()
    return torch.where(total > 0, share, torch.ones_like(share))


def figures_of(maps: Tensor, covered: Tensor) -> dict[str, Tensor]:
    """The FIGURES of many maps (..., h, w) of one picture, (...,) each. covered: (h, w), see `coverage`.

    Of a clip (..., t, h, w): the object has to be found in space and time.
    """
    flat, covered = maps.flatten(-covered.dim()), covered.flatten()
    values = (auc(flat, covered >= HALF), pointing(flat, covered), gain(flat, covered))
    return dict(zip(FIGURES, values))


def measurable(covered: Tensor) -> bool:
    """Is there a patch on the object, and one beside it?"""
    return bool((covered >= HALF).any() and (covered < HALF).any())


@torch.no_grad()
def head_maps(model: ViT, images: Tensor) -> Tensor:
    """(B, L, H, h, w): where the rows that the class is read from look, in every head, for (B, 3, ...); of
    clips (B, L, H, t, h, w)."""
    kept: list[Tensor] = []
    prefix = model.config.num_prefix_tokens

    def keep_rows(name: str, layer: int | None, x: Tensor) -> Tensor:
        if name == "attn":
            rows = pooled_rows(model, x.shape[-1])
            kept.append(x[:, :, rows, prefix:].mean(dim=2).float().cpu())  # (B, H, P)
        return x

    model(images.to(next(model.parameters())), keep_rows)
    return model.config.grid_of(images.shape).unflatten(torch.stack(kept, dim=1))


# ---- many pictures ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One head, layer, method or control over all pictures."""

    name: str
    figures: dict[str, Estimate]  # of FIGURES
    beyond_centre: Estimate  # its AUC minus the centre prior's, picture by picture
    beyond_untrained: Estimate | None = None  # minus that of the same, with weights that learned nothing


@dataclass(frozen=True, eq=False)
class Objects:
    """Where a model's attention lands, over N pictures."""

    rows: list[Row]  # the best head, layers, the controls and methods
    heads: dict[str, Tensor]  # of FIGURES, (N, L, H)
    centre: Tensor  # (N,): the AUC of the centre prior
    untrained: Tensor  # (N, L, H): the AUC of heads that have learned nothing
    left_out: int  # pictures with no patch on the object, or none beside it

    @property
    def pictures(self) -> int:
        """N, without those left out."""
        return len(self.centre)

    def records(self) -> list[dict[str, str | float]]:
        """Flat rows for a CSV file, every head among them: each figure with its interval."""
        records = []
        for row in [*self.rows, *self.head_rows()]:
            record: dict[str, str | float] = {"map": row.name}
            beyond = {"beyond centre": row.beyond_centre, "beyond untrained": row.beyond_untrained}
            for name, found in {**row.figures, **beyond}.items():  # every row has all columns
                mean, low, high = (found.mean, found.low, found.high) if found else ("", "", "")
                record |= {name: mean, f"{name} low": low, f"{name} high": high}
            records.append(record)
        return records

    def head_rows(self) -> Iterator[Row]:
        """A row for every head."""
        for layer, head in product(*map(range, self.heads["auc"].shape[1:])):
            values = {name: x[:, layer, head] for name, x in self.heads.items()}
            yield _row(f"L{layer}.H{head}", values, self.centre, self.untrained[:, layer, head])

    def markdown(self) -> str:
        """The table for people."""
        header = ["map", "AUC [95 %]", "− centre prior [95 %]", "− untrained [95 %]", "pointing", "gain"]
        lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
        for row in self.rows:
            bare = "" if row.beyond_untrained is None else str(row.beyond_untrained)
            means = [f"{row.figures[name].mean:.2f}" for name in FIGURES[1:]]
            cells = [row.name, str(row.figures["auc"]), str(row.beyond_centre), bare, *means]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def measure(
    model: ViT,
    pictures: Iterable[tuple[Tensor, Tensor]],
    methods: Sequence[str] = (),
    *,
    seed: int = 0,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Objects:
    """Hold a model's maps against true places. pictures: (normalised (3, height, width), where the object
    is (height, width) in [0, 1]), or clips with a mask for each frame.
    methods: names of METHODS, each one pass or more for every picture.
    seed: of the weights that have learned nothing. progress(pictures done). Raises ValueError where there
    is nothing to measure."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bare = ViT(model.config).eval().requires_grad_(False).to(next(model.parameters()))
    seen: dict[str, list[dict[str, Tensor]]] = defaultdict(list)  # map: figures of each picture
    done = left_out = 0
    for images, masks in _batches(pictures, batch):
        both = head_maps(model, images), head_maps(bare, images)  # (B, L, H, h, w) each
        for image, mask, maps, bare_maps in zip(images, masks, *both):
            done += 1
            covered = coverage(mask, maps.shape[2:])
            if not measurable(covered):
                left_out += 1
                continue
            drawn = {HEADS: maps, LAYERS: maps.mean(dim=1)}
            drawn |= {f"{UNTRAINED} {HEADS}": bare_maps, f"{UNTRAINED} {LAYERS}": bare_maps.mean(dim=1)}
            drawn |= {CENTRE: centre_prior(maps.shape[2:])}
            for name, drawing in (drawn | _method_maps(model, image, methods)).items():
                seen[name].append(figures_of(drawing, covered))
        if progress:
            progress(done)
    if not seen:
        raise ValueError("There is no picture with an object that covers a part of it: nothing to measure.")
    values = {name: {f: torch.stack([one[f] for one in all]) for f in FIGURES} for name, all in seen.items()}
    heads, bare_heads = values.pop(HEADS), values.pop(f"{UNTRAINED} {HEADS}")
    layers, bare_layers = values.pop(LAYERS), values.pop(f"{UNTRAINED} {LAYERS}")
    centre = values[CENTRE]["auc"]
    best, best_bare = best_of_halves(heads), best_of_halves(bare_heads)
    rows = [_row("best head", best, centre, best_bare["auc"])]
    for layer in range(model.config.depth):
        figures = {name: x[:, layer] for name, x in layers.items()}
        rows.append(_row(f"L{layer}, mean of heads", figures, centre, bare_layers["auc"][:, layer]))
    rows += [_row(name, figures, centre) for name, figures in values.items()]
    rows.append(_row(f"{UNTRAINED}: best head", best_bare, centre))
    return Objects(rows, heads, centre, bare_heads["auc"], left_out)


def best_of_halves(heads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Figures (N, L, H) -> (N,): of the head whose AUC is the best on the other half of the pictures.

    The halves are every other picture, so that classes in order fall into both.
    """
    flat = {name: x.flatten(1) for name, x in heads.items()}  # (N, L·H)
    N = len(flat["auc"])
    picked = flat["auc"].mean(dim=0).argmax().expand(N).clone()  # one picture has no other half
    for half in (0, 1) if N > 1 else ():
        picked[half::2] = flat["auc"][1 - half :: 2].mean(dim=0).argmax()
    return {name: x[torch.arange(N), picked] for name, x in flat.items()}


def _row(name: str, figures: dict[str, Tensor], centre: Tensor, bare: Tensor | None = None) -> Row:
    estimates = {figure: bootstrap(values) for figure, values in figures.items()}
    lead = None if bare is None else bootstrap(figures["auc"] - bare)
    return Row(name, estimates, bootstrap(figures["auc"] - centre), lead)


def _method_maps(model: ViT, image: Tensor, methods: Sequence[str]) -> dict[str, Tensor]:
    """Label -> map (h, w) of each method, for the class that the model answers."""
    if not methods:
        return {}
    target = answer(model, image) if model.config.num_classes else None
    seen = trace(model, image, target=target)
    return {METHODS[name].label: METHODS[name](seen, model=model) for name in methods}


def _batches(pictures: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Pictures a few at a time."""
    some: list[tuple[Tensor, Tensor]] = []
    for pair in pictures:
        some.append(pair)
        if len(some) == size:
            yield torch.stack([image for image, _ in some]), [mask for _, mask in some]
            some = []
    if some:
        yield torch.stack([image for image, _ in some]), [mask for _, mask in some]


# ---- places that people have marked ---------------------------------------------------------------


@dataclass(frozen=True)
class Boxes:
    """Rectangles around the objects of one picture, (x0, y0, x1, y1) in pixels of (width, height)."""

    rectangles: tuple[tuple[float, float, float, float], ...]
    size: tuple[int, int]

    def mask(self) -> Image.Image:
        """White inside a rectangle, black elsewhere."""
        drawn, (width, height) = Image.new("RGB", self.size), self.size
        pen = ImageDraw.Draw(drawn)
        for x0, y0, x1, y1 in self.rectangles:
            left, top = min(round(x0), width - 1), min(round(y0), height - 1)
            right, bottom = max(left, round(x1) - 1), max(top, round(y1) - 1)  # at least one pixel
            pen.rectangle((left, top, right, bottom), fill="white")
        return drawn


def read_boxes(path: Path) -> dict[str, Boxes]:
    """Picture's path -> its boxes, from a table `path,x0,y0,x1,y1,width,height` with one row for each box.

    Raises ValueError: one sentence that names the line.
    """
    found: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = ("path", "x0", "y0", "x1", "y1", "width", "height")
        if not {*columns} <= {*(reader.fieldnames or ())}:
            raise ValueError(f"{path} needs the columns {','.join(columns)}.")
        for number, line in enumerate(reader, start=2):
            try:
                x0, y0, x1, y1 = (float(line[name]) for name in columns[1:5])
                size = (int(line["width"]), int(line["height"]))
            except (TypeError, ValueError) as problem:
                raise ValueError(f"{path}, line {number}: a number is missing or is none.") from problem
            if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
                raise ValueError(f"{path}, line {number}: the box does not lie in its picture.")
            found[line["path"]].append((x0, y0, x1, y1))
            sizes[line["path"]] = size
    if not found:
        raise ValueError(f"{path} holds no box.")
    return {name: Boxes(tuple(boxes), sizes[name]) for name, boxes in found.items()}


def on_object(mask: Image.Image, size: tuple[int, int], crop_pct: float = 1.0) -> Tensor:
    """A mask, resized and cropped as the model's picture is: (height, width) in [0, 1]."""
    return to_pixels(mask.convert("RGB"), size, crop_pct, "bilinear")[0].float() / 255

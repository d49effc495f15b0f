"""What was measured of a checkpoint's maps, kept beside its weights: which map to believe, and by how much.

`python -m explorer faithfulness --record` writes it; the app chooses its method by it, and the page
docs/faithfulness.md is printed from it.  It belongs to the very weights that it was measured on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from explorer.controls import CONTROLS
from explorer.faithfulness import Estimate, Table, weights_digest
from explorer.methods import METHODS
from vit.checkpoint import read_json, write_atomically
from vit.model import ViT

FILE = "faithfulness.json"
BEST = "beats every control"


@dataclass(frozen=True)
class Found:
    """One map's figures: means with their 95 % intervals."""

    name: str
    verdict: str
    score: Estimate
    lead: Estimate  # over the best control


@dataclass(frozen=True)
class Record:
    """One table, as far as the app and the docs need it."""

    weights: str  # digest
    data: str
    images: int
    bar: str  # the best control by score
    found: tuple[Found, ...]  # the most faithful first
    table: str  # Markdown
    about: str  # the model in words

    def leader(self, quick: bool = False) -> Found | None:
        """The method that leads among those that beat every control, by more than one measure and behind in
        none; None: there is none. quick: among those that take a few passes at most."""
        able = [found for found in self.found if found.name in METHODS and found.verdict == BEST]
        return next((found for found in able if not (quick and METHODS[found.name].is_long)), None)

    @property
    def believed(self) -> str:
        """The quick method whose maps lead, which the viewer opens on; empty where none does."""
        leader = self.leader(quick=True)
        return leader.name if leader else ""

    def of(self, name: str) -> Found | None:
        return next((found for found in self.found if found.name == name), None)


def record_of(table: Table, model: ViT, data: str, about: str) -> Record:
    found = tuple(
        Found(row.name, row.verdict, row.figures["score"], row.leads["score"]) for row in table.rows
    )
    bar = table.bars["score"]
    return Record(weights_digest(model), data, table.images, bar, found, table.markdown(), about)


def save_record(record: Record, folder: Path) -> Path:
    path = folder / FILE
    write_atomically(path, (json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n").encode())
    return path


def load_record(folder: Path | None, model: ViT | None = None) -> Record | None:
    """What was measured of the checkpoint in this folder; None if nothing was, or not of this model."""
    if folder is None or not (folder / FILE).exists():
        return None
    try:
        told = read_json(folder / FILE)
        rows = [found_of(each) for each in told.pop("found")]
        texts(told, *(told.keys() - {"images"}))
        record = Record(**told | {"images": int(told["images"])}, found=tuple(rows))
    except (ValueError, TypeError, LookupError, OverflowError):  # a broken file tells nothing
        return None
    return None if model is not None and record.weights != weights_digest(model) else record


def found_of(told: Mapping[str, Any]) -> Found:
    """One row of the file. Raises as `texts` and `estimate` do."""
    name, verdict = texts(told, "name", "verdict")
    return Found(name, verdict, estimate(told["score"]), estimate(told["lead"]))


def texts(told: Mapping[str, Any], *keys: str) -> list[str]:
    """What stands under these keys. Raises TypeError where it is no text, KeyError where there is nothing."""
    if not all(isinstance(told[key], str) for key in keys):
        raise TypeError("a name is no text")
    return [told[key] for key in keys]


def estimate(told: Mapping[str, Any]) -> Estimate:
    """Raises TypeError, ValueError for what is no three numbers."""
    return Estimate(**{name: float(value) for name, value in {**told}.items()})


# ---- the page of the docs --------------------------------------------------------------------------


def page_with_records(page: str, records: Mapping[str, Record]) -> str:
    """docs/faithfulness.md with its sections written anew. Raises ValueError if it has no place for them."""
    begin, end = "<!-- measured -->\n", "<!-- end of measured -->"
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"The page needs the lines {begin.strip()} and {end} around its tables.")
    sections = [section(name, record) for name, record in records.items()]
    together = [summary(records)] if len(records) > 1 else []
    return before + begin + "\n".join([*sections, *together]) + end + after


def section(name: str, record: Record) -> str:
    command = f"python -m explorer faithfulness --record --model {name} --images {record.images}"
    return f"## {name}\n\n{record.about}\n\n```\n{command}\n```\n\n{record.table}\n"


def summary(records: Mapping[str, Record]) -> str:
    """Verdicts side by side: the order changes with the data."""
    names: Sequence[str] = sorted(
        {found.name for record in records.values() for found in record.found} - {*CONTROLS},
        key=lambda name: -_mean_lead(name, records),
    )
    lines = [
        "## All of them together",
        "",
        "The lead of the score over the best control, and the verdict by all measures.",
        "",
        "| map | " + " | ".join(records) + " |",
        "| --- |" + " --- |" * len(records),
    ]
    for name in names:
        cells = [f"{found.lead.mean:+.3f}, {found.verdict}" if (found := record.of(name)) else "not raced"
                 for record in records.values()]  # fmt: skip
        lines.append(f"| {METHODS[name].label} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _mean_lead(name: str, records: Mapping[str, Record]) -> float:
    leads = [found.lead.mean for record in records.values() if (found := record.of(name))]
    return sum(leads) / len(leads)

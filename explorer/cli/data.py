"""Commands about many pictures: are maps true, how far do heads look, what is taken for what."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from explorer import export, faithfulness
from explorer.cli.arguments import methods_of, parse_target
from explorer.cli.request import NOTHING, OK, PARTIAL, Command, Request, Usage
from explorer.cli.sources import (
    answer_of,
    check_endings,
    images_of,
    load_model,
    model_and_size,
    progress_bar,
    read_image,
    read_or_name,
    read_some,
    write,
)
from explorer.forms import Export
from explorer.record import load_record, page_with_records, record_of, save_record
from explorer.subject import subject_of
from vit.card import Card
from vit.data import DATASETS, drawn_from, find_pictures
from vit.library import folder_of, list_checkpoints, resolve
from vit.model import ViT
from vit.pictures import preprocess
from vit.processor import native_bf16

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE, RUNS = ROOT / "docs" / "faithfulness.md", Path("runs", "faithfulness")
RECORDED = 200  # pictures of each bundled model's record


def run_faithfulness(request: Request, command: Command) -> int:
    """One picture: the race of its maps, curve by curve. A folder or data set: the table."""
    one = len(request.pictures) == 1 and not Path(request.pictures[0]).is_dir()
    if request.pictures and request.data is not None:
        raise Usage("Name pictures or --data, not both.")
    if request.pictures and request.watch == "truth":
        raise Usage(
            "--watch truth needs labels, which named pictures have not: give --data, or leave it out."
        )
    if one and request.keep is not None:
        raise Usage("--keep is for a table over many pictures: leave it out.")
    if one and request.images is not None:
        raise Usage("--images draws from a folder or a data set, and this is one picture: leave it out.")
    if not one and request.target is not None:
        raise Usage("--target is for one picture: over many, the class watched is each one's own answer.")
    check_endings(request, command)
    if request.record:
        return run_record(request)
    model, card, size = model_and_size(request)
    if not model.config.num_classes:
        raise Usage(f"{card.name} has no classification head, so there is no class to explain.")
    failed: list[str] = []
    found = (race_of_one if one else table_of_many)(request, model, card, size, failed)
    if found is None:
        return NOTHING
    name, made = found
    if request.out:
        write(made, request, name, command.endings[0])
    print(made.as_markdown())
    return PARTIAL if failed else OK


def race_of_one(
    request: Request, model: ViT, card: Card, size: tuple[int, int], failed: list[str]
) -> tuple[str, Export] | None:
    """(the picture's name, the curves of its maps); None if it cannot be read."""
    path = Path(request.pictures[0])
    read = read_or_name(path, partial(read_image, path, model.config, card, size), failed)
    if read is None:
        return None
    image = read[1]
    target = answer_of(model, image, parse_target(request.target, card, model.config.num_classes))
    made = export.race(
        subject_of(path.stem, image, model, card, target),
        methods_of(request, model.config, size),
        plan=plan_of(request, randoms=8),
        style=request.style,
        progress=progress_bar("maps and curves"),
    )
    return path.stem, made


def plan_of(request: Request, randoms: int = 3) -> faithfulness.Plan:
    """What is measured."""
    modes = tuple(request.modes or faithfulness.MODES)
    return faithfulness.Plan(modes, request.points, randoms, road=request.road)


def table_of_many(
    request: Request, model: ViT, card: Card, size: tuple[int, int], failed: list[str]
) -> tuple[str, Export]:
    """(name of the data, each method's figures over it)."""
    name, found = measured(request, model, card, size, failed)
    return name, export.faithfulness_table(found, f"{card.name} on {name}", style=request.style)


def measured(
    request: Request, model: ViT, card: Card, size: tuple[int, int], failed: list[str]
) -> tuple[str, faithfulness.Table]:
    """(name of the data, the table of all methods over it)."""
    name, count, images = images_of(request, model.config, card, size, failed, card.class_names)
    bar = progress_bar("images")
    found = faithfulness.table(
        model,
        images,
        methods_of(request, model.config, size),
        replace(plan_of(request), half=native_bf16(next(model.parameters()).device)),
        card=card,
        keep=None if request.keep is None else Path(request.keep),
        progress=lambda done: bar(done, count),
    )
    return name, found


def run_record(request: Request) -> int:
    """Bundled models measured on their own test pictures: into their checkpoints, and onto the docs' page."""
    others = (request.pictures, request.data, request.out, request.modes, request.watch != Request.watch)
    if any((*others, request.points, request.size, request.keep)) or request.methods != ("all",):
        raise Usage(
            "--record measures every method on the model's own data: leave out what would change that."
        )
    if not PAGE.is_file():
        raise Usage("--record writes docs/faithfulness.md, which pip does not install: use a clone.")
    bundled = list_checkpoints()
    if request.model is not None and request.model not in bundled:
        raise Usage(f"--record is for the bundled models: {', '.join(bundled)}.")
    for name in [request.model] if request.model else bundled:
        one = replace(request, model=name, road=True)
        model, card, size = model_and_size(one)
        data = next((key for key, known in DATASETS.items() if known.class_names == card.class_names), None)
        if data is None:
            print(f"{name}: no data set is known that it was trained on.", file=sys.stderr)
            continue
        failed: list[str] = []
        one = replace(one, data=data, images=request.images or RECORDED)
        # of another number other pictures are drawn
        kept = RUNS / f"{name}-{faithfulness.weights_digest(model)}-{one.images}.jsonl"
        table = measured(replace(one, keep=str(kept)), model, card, size, failed)[1]
        accuracy = "" if card.accuracy is None else f"{100 * card.accuracy:.2f} % test accuracy, "
        config, grid = model.config, model.config.grid_at(size)
        read = "clips" if config.is_clip else "pictures"
        about = (
            f"{accuracy}{size[0]} × {size[1]} pixels, {grid.count} patches, {config.depth} layers × "
            f"{config.num_heads} heads; {table.images} test {read}, drawn at random."
        )
        folder = resolve(name).folder
        assert folder is not None
        print(save_record(record_of(table, model, data, about), folder))
    records = {name: load_record(folder_of(name)) for name in bundled}
    page = PAGE.read_text(encoding="utf-8")
    known = {name: record for name, record in records.items() if record}
    PAGE.write_text(page_with_records(page, known), encoding="utf-8")
    print(PAGE)
    return OK


def run_heads(request: Request, command: Command) -> int:
    """Figures of heads and layers over many pictures."""
    check_endings(request, command)
    if request.pictures and request.data is not None:
        raise Usage("Name pictures or --data, not both.")
    model, card, size = model_and_size(request)
    failed: list[str] = []
    name, count, images = images_of(request, model.config, card, size, failed)
    bar = progress_bar("images")
    seen = (sample.image for sample in images)
    made = export.heads(model, card, seen, name, style=request.style, progress=lambda done: bar(done, count))
    write(made, request, name, command.endings[0])
    return PARTIAL if failed else OK


def run_confusion(request: Request, command: Command) -> int:
    """What the model takes for what, over a test split."""
    check_endings(request, command)
    assert request.data is not None
    model, card = load_model(request.model)
    pictures, names = find_pictures(request.data, "test")
    if card.scores != "softmax":
        raise Usage(f"{card.name} does not choose one class of a picture, so it takes none for another.")
    if names != card.class_names:
        raise Usage(f"{card.name} knows other classes than {request.data}: name the data it was trained on.")
    bar, counts = progress_bar("images"), np.zeros((len(names), len(names)), int)
    chosen = drawn_from(len(pictures), request.images or 500)
    failed: list[str] = []
    for picture, label in read_some(pictures, request.data, chosen, failed):
        counts[label, answer_of(model, preprocess(picture, card), None)] += 1
        bar(int(counts.sum()) + len(failed), len(chosen))
    if not counts.any():
        raise Usage(f"No picture of {request.data} could be read: choose other data.")
    title = f"{card.name}: {100 * counts.trace() / counts.sum():.1f} % of {counts.sum()} right"
    made = export.confusion(counts, names, title=title, style=request.style)
    write(made, request, card.name, command.endings[0])
    return PARTIAL if failed else OK

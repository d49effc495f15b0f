"""Commands about many pictures: are maps true, how far do heads look, what is taken for what."""

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
    read_or_name,
    read_some,
    write,
)
from explorer.forms import Export
from explorer.subject import subject_of
from vit.card import Card
from vit.data import drawn_from, find_pictures
from vit.model import ViT
from vit.pictures import open_picture, preprocess


def run_faithfulness(request: Request, command: Command) -> int:
    """One picture: the race of its maps, curve by curve. A folder or data set: the table."""
    one = len(request.pictures) == 1 and not Path(request.pictures[0]).is_dir()
    if request.pictures and request.data is not None:
        raise Usage("Name pictures or --data, not both.")
    if one and request.images is not None:
        raise Usage("--images draws from a folder or a data set, and this is one picture: leave it out.")
    if not one and request.target is not None:
        raise Usage("--target is for one picture: over many, the class watched is each one's own answer.")
    check_endings(request, command)
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
    picture = read_or_name(path, partial(open_picture, path), failed)
    if picture is None:
        return None
    image = preprocess(picture, card, size)
    target = answer_of(model, image, parse_target(request.target, card, model.config.num_classes))
    made = export.race(
        subject_of(path.stem, image, model, card, target),
        methods_of(request, model.config, size),
        modes=request.modes or faithfulness.MODES,
        points=request.points,
        style=request.style,
        progress=progress_bar("maps and curves"),
    )
    return path.stem, made


def table_of_many(
    request: Request, model: ViT, card: Card, size: tuple[int, int], failed: list[str]
) -> tuple[str, Export]:
    """(name of the data, each method's figures over it)."""
    name, count, images = images_of(request, card, size, failed, card.class_names)
    bar = progress_bar("images")
    found = faithfulness.table(
        model,
        images,
        methods_of(request, model.config, size),
        card=card,
        modes=request.modes or faithfulness.MODES,
        points=request.points,
        progress=lambda done: bar(done, count),
    )
    return name, export.faithfulness_table(found, f"{card.name} on {name}", style=request.style)


def run_heads(request: Request, command: Command) -> int:
    """Figures of heads and layers over many pictures."""
    check_endings(request, command)
    if request.pictures and request.data is not None:
        raise Usage("Name pictures or --data, not both.")
    model, card, size = model_and_size(request)
    failed: list[str] = []
    name, count, images = images_of(request, card, size, failed)
    bar = progress_bar("images")
    seen = (image for image, _ in images)
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

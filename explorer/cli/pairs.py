"""Commands about two pictures in front of one model."""

from collections.abc import Callable
from pathlib import Path

from explorer import twins
from explorer.cli.arguments import check_index, parse_contrast, parse_query, parse_target
from explorer.cli.request import OK, Command, Request, Usage
from explorer.cli.sources import check_endings, model_and_size, outputs, progress_bar
from explorer.cli.words import classes_of
from explorer.forms import Export
from explorer.pairs import check_pictures
from explorer.patching import HEADS, difference
from explorer.subject import Subject, subject_of
from vit.objective import Objective
from vit.pictures import open_picture, preprocess


def run_match(request: Request, command: Command) -> int:
    """Which patches are each other's nearest."""

    def make(a: Subject, b: Subject) -> Export:
        check_index("layer", request.layer, a.model.config.depth)
        layer = -1 if request.layer is None else request.layer
        count, least = request.count, request.least
        return twins.matched(a, b, layer=layer, count=count, least=least, style=request.style)

    return on_two_pictures(request, command, make)


def run_patch(request: Request, command: Command) -> int:
    """What is caused by what the first picture's run gives to the second's."""

    def make(a: Subject, b: Subject) -> Export:
        config, card = a.model.config, a.card
        if request.query is not None and request.what != HEADS:
            raise Usage(
                f"--query means nothing to --what {request.what}, which shows every token: leave it out."
            )
        grid = a.trace.grid
        token = parse_query(request.query, config, grid.shape)
        target = parse_target(request.target, card, config.num_classes)
        contrast = parse_contrast(request.contrast, card, config.num_classes)
        objective = difference(a.trace, b.trace, target)
        if contrast is not None:
            objective = Objective(objective.target, contrast)
        return twins.patched(
            a,
            b,
            what=request.what,
            token=token,
            objective=objective,
            style=request.style,
            progress=progress_bar("runs"),
        )

    return on_two_pictures(request, command, make)


def on_two_pictures(request: Request, command: Command, make: Callable[[Subject, Subject], Export]) -> int:
    """Both pictures in front of the same model, and what is made of them."""
    check_endings(request, command)
    model, card, size = model_and_size(request)
    check_pictures(model.config.grid)
    classes = classes_of(request, model, card)
    first, second = (Path(name) for name in request.pictures)
    images = [preprocess(open_picture(path), card, size) for path in (first, second)]
    model, card = classes(images[1])  # what is watched is the second picture's answer
    a, b = (
        subject_of(path.stem, image, model, card) for path, image in zip((first, second), images, strict=True)
    )
    made = make(a, b)
    for out in outputs(request, f"{first.stem}-{second.stem}", command.endings[0]):
        print(made.save(out))
    for each in (a, b):
        if len(each.trace.logits):
            print(f"{each.name}: {each.answers()}")
    return OK

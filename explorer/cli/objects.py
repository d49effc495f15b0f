"""Does attention land on things, and what do heads do: over many pictures with boxes or masks."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from explorer import faithfulness, render, roles
from explorer.cli.arguments import SOME, methods_of
from explorer.cli.request import OK, PARTIAL, Command, Request, Usage
from explorer.cli.sources import (
    MASKED,
    check_endings,
    drawn_for,
    find_files,
    model_and_size,
    progress_bar,
    read_or_name,
    write,
)
from explorer.forms import Export
from explorer.objects import Objects, measure, on_object, read_boxes
from explorer.subject import Style
from vit.card import Card
from vit.config import ViTConfig
from vit.data import DATASETS, ClipSet, drawn_from
from vit.library import folder_of
from vit.pictures import open_picture, preprocess

Place = tuple[Path, Callable[[], Image.Image]]  # a picture, and what reads its mask: white on the object


def run_objects(request: Request, command: Command) -> int:
    """The table of every head, layer and method that was asked for."""
    check_endings(request, command)
    model, card, size = model_and_size(request)
    failed: list[str] = []
    name, count, pictures = pictures_of(request, model.config, card, size, failed)
    bar = progress_bar("pictures")
    methods = methods_of(request, model.config, size)
    found = measure(model, pictures, methods, progress=lambda done: bar(done, count))
    made = objects_table(found, f"{card.name} on {name}", style=request.style)
    if request.out:
        write(made, request, name, command.endings[0])
    print(made.as_markdown())
    return PARTIAL if failed else OK


def run_roles(request: Request, command: Command) -> int:
    """What each head does, named and, if asked, kept beside its weights."""
    check_endings(request, command)
    model, card, size = model_and_size(request)
    folder = folder_of(request.model or card.name)
    if request.record and folder is None:
        raise Usage("--record writes beside the weights: name a checkpoint on this machine.")
    failed: list[str] = []
    name, count, pictures = pictures_of(request, model.config, card, size, failed)
    bar = progress_bar("pictures")
    found = roles.measure(model, pictures, name, progress=lambda done: bar(done, count))
    made = Export(rows=lambda: roles.records(found))
    if request.out:
        write(made, request, name, command.endings[0])
    if request.record and folder:
        print(roles.write_roles(folder, found))
    print(made.as_markdown())
    return PARTIAL if failed else OK


def pictures_of(
    request: Request, config: ViTConfig, card: Card, size: tuple[int, int], failed: list[str]
) -> tuple[str, int, Iterator[tuple[Tensor, Tensor]]]:
    """(name, how many, (image, where the object is) ...); files that cannot be read go to `failed`."""
    data = request.data or drawn_for(card)
    if (request.boxes or request.masks) and (request.data is None or data in MASKED):
        raise Usage("--boxes and --masks are of a folder of pictures: name it with --data.")
    if config.is_clip and not isinstance(DATASETS.get(data or ""), ClipSet):
        raise Usage(f"{card.name} reads clips: --data moves is what knows where its objects are.")
    if data in MASKED:
        if isinstance(DATASETS[data], ClipSet) != config.is_clip:
            raise Usage(f"{data} holds clips, and this takes pictures: name another data set.")
        count = request.images or SOME
        samples = MASKED[data](card, size, count)
        return data, count, ((sample.image, sample.mask) for sample in samples if sample.mask is not None)
    if data is None or (request.boxes is None) == (request.masks is None):
        raise Usage("Name a folder of pictures with --data, and its objects with --boxes CSV or --masks DIR.")
    if not (root := Path(data)).is_dir():
        raise Usage(f"There is no folder {root}: --data names the one that holds the pictures.")
    places = dict(
        boxed(root, Path(request.boxes)) if request.boxes else masked(root, Path(request.masks or ""))
    )
    paths = [[*places][i] for i in drawn_from(len(places), request.images or len(places))]

    def one(path: Path) -> tuple[Tensor, Tensor]:
        image = preprocess(open_picture(path), card, size)
        return image, on_object(places[path](), size, card.crop_pct)

    read = (read_or_name(path, partial(one, path), failed) for path in paths)
    return root.resolve().name, len(paths), (found for found in read if found is not None)


def boxed(root: Path, table: Path) -> Iterator[Place]:
    """(picture, its mask). Raises Usage where the table names no picture of the folder."""
    if not table.is_file():
        raise Usage(f"There is no table {table}.")
    boxes = read_boxes(table)
    there = {name: found for name, found in boxes.items() if (root / name).is_file()}
    if not there:
        raise Usage(f"{table} names no picture of {root}: its paths begin below --data.")
    for name, found in there.items():
        yield root / name, found.mask


def masked(root: Path, masks: Path) -> Iterator[Place]:
    """(picture, its mask), where there are both. Raises Usage where there is no pair."""
    if not masks.is_dir():
        raise Usage(f"There is no folder {masks}.")
    pairs = []
    for _, picture in find_files([str(root)]):
        mask = masks / picture.relative_to(root).with_suffix(".png")
        if mask.is_file() and not picture.is_relative_to(masks):
            pairs.append((picture, mask))
    if not pairs:
        raise Usage(f"{masks} holds no mask of a picture of {root}: of train/cat.jpg it is train/cat.png.")
    for picture, mask in pairs:
        yield picture, partial(open_picture, mask)


def objects_table(found: Objects, title: str, *, style: Style) -> Export:
    """Where attention lands: the AUC of every map with its confidence interval. An NPZ has each figure of
    every head and picture, (N, L, H)."""

    def figure() -> Figure:
        scores = [row.figures["auc"] for row in found.rows]
        return render.intervals_chart(
            [row.name for row in found.rows],
            np.array([(x.low, x.mean, x.high) if found.pictures > 1 else (x.mean,) * 3 for x in scores]),
            label="AUC: patches on the object above patches beside it",
            reference=float(found.centre.mean()),
            reference_label=faithfulness.CENTRE,
            marked=[row.beyond_centre.low > 0 for row in found.rows],
            title=f"{title}, {found.pictures} images",
            theme=style.theme,
        )

    def arrays() -> dict[str, np.ndarray]:
        each = {name: x.numpy() for name, x in found.heads.items()}
        each |= {"untrained auc": found.untrained.numpy(), "centre auc": found.centre.numpy()}
        about = f"{title}: figures (N, L, H) of {found.pictures} pictures, in their order; centre (N,)"
        return each | {"README": np.array(about)}

    return Export(figure, arrays, found.records, markdown=lambda: found.markdown() + "\n")

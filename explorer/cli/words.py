"""Classes that are typed or shown instead of learned, and where words are in a picture."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from explorer import render
from explorer.cli.arguments import check_memory, parse_size
from explorer.cli.request import NOTHING, OK, PARTIAL, Command, Request, Usage
from explorer.cli.sources import (
    check_endings,
    default_picture,
    find_files,
    first_checkpoint,
    outputs,
    read_or_name,
)
from explorer.forms import Export, Rows, told_apart
from vit.card import Card
from vit.model import ViT
from vit.pictures import as_picture, open_picture, preprocess
from vit.prototypes import with_prototypes
from vit.words import CONTROL, Dense, Tower, dense_map, load_tower, text_vectors, with_words, words_in

Classes = Callable[[Tensor | None], tuple[ViT, Card]]


def words_given(text: str) -> tuple[str, ...]:
    """The words of --words: "a dog, grass", or those of a text file, with commas or line breaks between them.
    Raises Usage, CheckpointError."""
    if os.path.isfile(text):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Usage(f"{text} cannot be read as a text of words: save it as UTF-8.") from error
    return words_in(text)


def classes_of(request: Request, model: ViT, card: Card) -> Classes:
    """image (3, height, width) or None -> the (model, card) to explain it by: the model's own classes, those
    of --words, whose logits are scaled by the picture, or those of --prototypes."""
    if request.words and request.prototypes:
        raise Usage("Classes are either --words or --prototypes: give one of them.")
    if request.words:
        words = words_given(request.words)
        tower = load_tower(request.model or first_checkpoint())
        vectors = text_vectors(tower, words)
        return lambda image: with_words(tower, vectors, words, image)
    if request.prototypes:
        model, card = with_prototypes(model, card, request.prototypes)
    return lambda image: (model, card)


def run_where(request: Request, command: Command) -> int:
    """Where each word is, patch by patch, and whether that depends on the word."""
    if not request.words:
        raise Usage('Say what to look for: --words "a dog, grass".')
    files = find_files(request.pictures)
    check_endings(request, command, len(files))
    words = words_given(request.words)
    tower = load_tower(request.model or first_checkpoint())
    size = parse_size(request.size, tower.model.config.patch_size, tower.card.size_for(tower.model.config))
    check_memory(tower.model.config, size)
    vectors, control = text_vectors(tower, words), text_vectors(tower, [CONTROL])[0]
    failed: list[str] = []
    looked_at: Sequence[tuple[str, Path | None]] = files or [("", None)]
    for name, path in looked_at:
        picture: Image.Image | None
        if path is None:
            name, picture = default_picture(tower.card)
        else:
            picture = read_or_name(path, partial(open_picture, path), failed)
        if picture is None:
            continue
        image = preprocess(picture, tower.card, size)
        dense = dense_map(tower, vectors, image, control)
        made = where(name, image, tower, words, dense, request)
        saved = [made.save(out) for out in outputs(request, name, command.endings[0])]
        for word, alike in zip(words, dense.alike.tolist()):
            tqdm.write(f"{name}: {word}, {render.number(alike, '+.2f')} like {CONTROL!r}")
        for out in saved:
            tqdm.write(f"  {out}")
    return OK if not failed else PARTIAL if len(failed) < len(files) else NOTHING


def where(
    name: str, image: Tensor, tower: Tower, words: tuple[str, ...], dense: Dense, request: Request
) -> Export:
    """The map of each word beside that of a prompt that means nothing. A CSV has one row per patch."""
    maps = [*dense.maps.cpu().numpy(), dense.control.cpu().numpy()]  # each (h, w)
    alike = [
        f"{word} ({render.number(x, '+.2f')} like the control)"
        for word, x in zip(words, dense.alike.tolist())
    ]

    def figure() -> Figure:
        drawn = dict(zip([*alike, f"{CONTROL} (control)"], maps))
        return render.maps_figure(
            as_picture(image, tower.card),
            drawn,
            without_query=set(drawn),
            title=name,
            caption=f"{tower.name}: cosine of each patch with the words, each map on its own scale",
            colormap=request.colormap,
            smooth=request.smooth,
            grid=request.lines,
            theme=request.theme,
        )

    def rows() -> Rows:
        h, w = dense.control.shape
        row, column, *names = told_apart(["row", "column", *words, CONTROL])
        return [
            {row: r, column: c} | {name: float(x[r, c]) for name, x in zip(names, maps)}
            for r in range(h)
            for c in range(w)
        ]

    def arrays() -> dict[str, np.ndarray]:
        about = f"{tower.name} on {name}: WORD (h, w), cosine of each patch; alike (K,), correlation of each"
        about += f" word's map with that of {CONTROL!r}"
        names = told_apart(["alike", "README", *words, CONTROL])
        return dict(zip(names, [dense.alike.cpu().numpy(), np.array(about), *maps]))

    return Export(figure=figure, arrays=arrays, rows=rows)

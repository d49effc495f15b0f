"""Where models and pictures come from, and where results go."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from explorer import faithfulness
from explorer.cli.arguments import SOME, check_memory, parse_size
from explorer.cli.request import Command, Request, Usage
from explorer.examples import photographs
from explorer.faithfulness import Sample
from explorer.forms import Export
from vit.card import Card, check_channels
from vit.clips import Clip, ClipError, as_clip, clips_in, preprocess_clip, sampled
from vit.config import ViTConfig
from vit.data import DATASETS, ClipSet, Pictures, drawn_from, find_pictures
from vit.folders import pictures_in, readable
from vit.library import list_checkpoints, load
from vit.model import ViT
from vit.moves import FRAMES, MOVES_CLASSES, moves_sample
from vit.pictures import PictureError, open_picture, preprocess, to_pixels
from vit.shapes import SHAPES_CLASSES, shapes_sample

T = TypeVar("T")

EXAMPLE, TEST_SPLIT = 7, 1  # seeds of generated shapes: the app's example; what train.py tests on

# ---- models ----------------------------------------------------------------------------------------


def load_model(name: str | None) -> tuple[ViT, Card]:
    """The model by name, folder or Hub id; without a name the one that the app opens with."""
    model, card = load(name or first_checkpoint())
    check_channels(model.config, card.name)
    if card.note:
        print(f"{card.name}: {card.note}", file=sys.stderr)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), card


def first_checkpoint() -> str:
    names = list_checkpoints()
    if not names:
        raise Usage("No checkpoint is bundled: train one (python train.py shapes) or name one with --model.")
    return names[0]


def model_and_size(request: Request) -> tuple[ViT, Card, tuple[int, int]]:
    """(model, card, (height, width)) as asked for, if that fits into memory."""
    model, card = load_model(request.model)
    size = parse_size(request.size, model.config.patch_size, card.size_for(model.config))
    check_memory(model.config, size)
    return model, card, size


def answer_of(model: ViT, image: Tensor, target: int | None) -> int:
    """The class to explain: the one asked for, else what the model says."""
    if not model.config.num_classes:
        raise Usage("This model has no classification head: choose a method that explains no class.")
    return faithfulness.answer(model, image) if target is None else target


# ---- pictures --------------------------------------------------------------------------------------


def default_picture(card: Card) -> tuple[str, Image.Image]:
    """A picture of the kind the model knows, there without a download: drawn, or brought by pip."""
    if card.class_names == SHAPES_CLASSES:
        return "shape", shapes_sample(EXAMPLE, 0)[0]
    for name, _, path in photographs():
        return name, open_picture(path)
    raise Usage(
        "Name a picture: the example photographs come with scikit-image and gradio, which are not installed."
    )


def read_image(path: Path | None, config: ViTConfig, card: Card, size: tuple[int, int]) -> tuple[str, Tensor]:
    """(name, what the model reads) of a file, or without one of an example: a picture, or a clip's frames.

    A picture is a clip that stands still, for a model of clips. Raises PictureError.
    """
    if not config.is_clip:
        name, picture = default_picture(card) if path is None else ("", open_picture(path))
        return name, preprocess(picture, card, size)
    if path is None:
        name, clip = "clip", Clip(moves_sample(EXAMPLE, 0)[0], tuple(i / 8 for i in range(FRAMES)))
    else:
        name, clip = "", as_clip(path)
    return name, preprocess_clip(sampled(clip, config.num_frames), card, size)


def find_files(sources: Sequence[str], clips: bool = False) -> list[tuple[str, Path]]:
    """(name, path) of every picture among files and folders, or of every clip, of which a folder of pictures
    is one; the names are unique, for the results."""
    found: dict[str, Path] = {}
    for source in map(Path, sources):
        paths = [source]
        if source.is_dir():
            inside_it = (clips_in if clips else pictures_in)(source)
            paths = inside_it.files
            if left_out := inside_it.said():
                print(f"{readable(str(source))}: left out {left_out}.", file=sys.stderr)
            if not paths:
                raise Usage(f"There is no {'clip' if clips else 'picture'} in the folder {source}.")
        for path in paths:
            inside = path.relative_to(source) if source.is_dir() and path != source else Path(path.name)
            stem = name = readable("-".join((inside if path.is_dir() else inside.with_suffix("")).parts))
            number = 2
            while name in found:
                name, number = f"{stem}-{number}", number + 1
            found[name] = path
    return list(found.items())


def read_or_name(where: str | Path, read: Callable[[], T], failed: list[str]) -> T | None:
    """What `read` returns; a picture that cannot be read is named and noted, and does not stop the others."""
    try:
        return read()
    except (PictureError, ClipError) as error:
        failed.append(str(where))
        tqdm.write(f"{readable(str(where))}: {error}", file=sys.stderr)
        return None


def read_some(
    pictures: Pictures, data: str, chosen: Sequence[int], failed: list[str]
) -> Iterator[tuple[Image.Image, int]]:
    """(picture, label) of the chosen ones that can be read."""
    for i in chosen:
        found = read_or_name(f"test picture {i} of {data}", partial(pictures.__getitem__, i), failed)
        if found is not None:
            yield found


def images_of(
    request: Request,
    config: ViTConfig,
    card: Card,
    size: tuple[int, int],
    failed: list[str],
    known: Sequence[str] = (),
) -> tuple[str, int, Iterator[Sample]]:
    """(name, how many, the pictures or clips) of a folder or a data set's test split; those
    that cannot be read go to `failed`. Only generated ones have masks. known: classes of which the data
    must have one, if any are named."""
    if request.pictures:
        files = [path for _, path in find_files(request.pictures, config.is_clip)]
        paths = [files[i] for i in drawn_from(len(files), request.images or SOME)]
        opened = (read_or_name(path, partial(read_image, path, config, card, size), failed) for path in paths)
        images = (Sample(read[1]) for read in opened if read is not None)
        return Path(request.pictures[0]).name, len(paths), images
    data = request.data or drawn_for(card)
    if data is None:
        raise Usage(
            "Which clips? Name a folder, or --data moves."
            if config.is_clip
            else "Which pictures? Name a folder, or --data imagenette, photos, catsdogs, cifar10 or shapes."
        )
    if config.is_clip and not isinstance(DATASETS.get(data), ClipSet):
        raise Usage(f"{card.name} reads clips: name a folder of clips, or --data moves.")
    generated = MASKED.get(data) if isinstance(DATASETS.get(data), ClipSet) == config.is_clip else None
    if generated:
        check_known(card, data, DATASETS[data].class_names, known)
        count = request.images or SOME
        return data, count, generated(card, size, count, request.watch == "truth")
    pictures, names = find_pictures(data, "test")
    check_known(card, data, names, known)
    chosen = drawn_from(len(pictures), request.images or SOME)
    some = read_some(pictures, data, chosen, failed)
    true = request.watch == "truth"
    if true and names != card.class_names:
        raise Usage(f"{card.name} knows other classes than {data}: leave out --watch truth.")
    samples = (
        Sample(preprocess(picture, card, size), target=label if true else None) for picture, label in some
    )
    return data, len(chosen), samples


def check_known(card: Card, data: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raises Usage where classes are known, and the data has none of them."""
    if known and not set(names) & set(known):
        raise Usage(f"{card.name} knows no class of {data}: name a folder of pictures, or another --model.")


def shapes_with_masks(card: Card, size: tuple[int, int], count: int, true: bool = False) -> Iterator[Sample]:
    """Generated test pictures with their masks; true: the class that is watched is their own."""
    for index in range(count):
        picture, label, mask = shapes_sample(TEST_SPLIT, index)
        inside = Image.fromarray(np.asarray(mask).astype(np.uint8) * 255).convert("RGB")
        covered = to_pixels(inside, size, card.crop_pct, "nearest")[0] > 127
        yield Sample(preprocess(picture, card, size), covered, label if true else None)


def clips_with_masks(card: Card, size: tuple[int, int], count: int, true: bool = False) -> Iterator[Sample]:
    """Generated test clips with a mask for each frame, as `shapes_with_masks`."""
    for index in range(count):
        frames, label, masks = moves_sample(TEST_SPLIT, index)
        covered = torch.from_numpy(masks)[None].float()  # (1, F, 64, 64)
        covered = F.interpolate(covered, size, mode="nearest")[0] > 0.5
        clip = preprocess_clip(Clip(frames, ()), card, size)
        yield Sample(clip, covered, label if true else None)


# generated data sets that know where their objects are
MASKED = {"shapes": shapes_with_masks, "moves": clips_with_masks}
DRAWN = {SHAPES_CLASSES: "shapes", MOVES_CLASSES: "moves"}


def drawn_for(card: Card) -> str | None:
    """The generated data set that a model was trained on, if it was one."""
    return DRAWN.get(card.class_names)


# ---- results ---------------------------------------------------------------------------------------


def check_endings(request: Request, command: Command, pictures: int = 1) -> None:
    """Before anything is computed: can each --out be written, is there one file per picture, and is none of
    them what is read?"""
    read = [Path(name) for name in (*request.pictures, request.boxes) if name]
    if request.words and os.path.isfile(request.words):  # else they are typed, and may be too long for a path
        read.append(Path(request.words))
    files = [file for one in read for file in (one.rglob("*") if one.is_dir() else [one])]
    for out in request.out:
        suffix = ending_of(out)
        if suffix and suffix not in command.endings:
            raise Usage(
                f"{command.name} cannot write {suffix}: let --out end in {', '.join(command.endings)}."
            )
        if suffix and pictures > 1 and "{name}" not in out:
            raise Usage(
                f'{pictures} pictures need {pictures} files: write --out "{{name}}{suffix}" or a folder.'
            )
        for file in files:
            if suffix and Path(out.replace("{name}", file.stem)).resolve() == file.resolve():
                raise Usage(f"{file} is what is read: give another --out.")


def outputs(request: Request, name: str, ending: str) -> list[Path]:
    """Where the results for one picture, model or data set go. An --out without an ending is a folder."""
    name = Path(name).resolve().name  # of a folder's path, or of owner/model
    file = f"{name}{ending}" if ending == f".{request.command}" else f"{name}-{request.command}{ending}"
    places = [(Path(out.replace("{name}", name)), ending_of(out)) for out in request.out or ["."]]
    return [place if suffix else place / file for place, suffix in places]


def ending_of(out: str) -> str:
    """ ".png" of a file, nothing of a folder (also of one called "v1.2/")."""
    return "" if out.endswith(("/", "\\")) or Path(out).is_dir() else Path(out).suffix.lower()


def write(made: Export, request: Request, name: str, ending: str) -> None:
    """Write every file that was asked for, and say where it is."""
    for out in outputs(request, name, ending):
        print(made.save(out))


def progress_bar(words: str) -> Callable[[int, int], None]:
    """progress(done, total) as a bar on stderr that shows itself when the work takes over a second."""
    bar: tqdm | None = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None or bar.total != total:
            bar = tqdm(total=total, desc=words, delay=1, leave=False)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            bar = None

    return progress

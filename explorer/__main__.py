"""Figures without a browser: `python -m explorer map cat.jpg`. The same functions that the app calls."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from explorer import export, faithfulness, films, methods
from explorer.export import Style, Subject
from explorer.forms import Export
from explorer.methods import METHODS
from explorer.render import DIVERGING, SCALES, SEQUENTIAL, THEMES
from vit.card import Card, check_channels
from vit.checkpoint import list_snapshots, load_snapshot, read_history
from vit.cost import cost
from vit.data import Pictures, drawn_from, find_pictures
from vit.grid import Grid
from vit.library import folder_of, list_checkpoints, load, resolve
from vit.model import VARIANTS, Hook, ViT, ViTConfig
from vit.pictures import SUFFIXES, PictureError, open_picture, preprocess, to_pixels
from vit.shapes import SHAPES_CLASSES, shapes_sample
from vit.trace import MaskPatches, ZeroHeads, trace

T = TypeVar("T")

OK, PARTIAL, NOTHING = 0, 1, 2  # exit codes
MAX_ATTENTION = 8 * 2**30  # bytes
SOME = 50  # pictures of a faithfulness table
EXAMPLE, TEST_SPLIT = 7, 1  # seeds of generated shapes: the app's example; what train.py tests on

EXAMPLES = """\
examples
  python -m explorer map
      where the model looks on a picture that is already there, with the bundled checkpoint
  python -m explorer map cat.jpg --method rollout,relevance,occlusion --out cat.png --out cat.npz
      three methods side by side, as a figure and as numbers
  python -m explorer map cat.jpg --query 4,7 --layer 3 --head 2
      where the patch in row 4, column 7 looks (counted from 0), in head 2 of layer 3
  python -m explorer map photos/ --method relevance --target "golf ball" --out "maps/{name}.svg"
      what speaks for one class, on a whole folder
  python -m explorer map cat.jpg --method rollout,relevance --off "L3.H2 L4.H0" --hide "4,7 4,8"
      the same after an intervention: two heads switched off, two patches hidden
  python -m explorer grid cat.jpg --model facebook/dino-vits8
      every head of every layer on one sheet, for a model from the Hugging Face Hub
  python -m explorer film cat.jpg --out cat.gif
      play through depth
  python -m explorer film cat.jpg --through training --out learning.mp4
      or through training, snapshot by snapshot
  python -m explorer html cat.jpg
      one file that anyone can open offline and explore with the mouse
  python -m explorer faithfulness --model shapes --data shapes --images 100 --out table.md
      which maps are true? measured over a data set, with confidence intervals
  python -m explorer heads --model imagenette --data imagenette --images 200 --out heads.png --out heads.csv
      how far each head looks, as means over pictures, and how alike layers are
  python -m explorer shapes --variant B/16
      the shape of every tensor from pixels to logits

The ending of --out chooses the format. `python -m explorer map --help` tells a command's options.
Exit code: 0 all well, 1 some pictures could not be read, 2 nothing could be done.
"""


class Usage(ValueError):
    """What was asked for cannot be done; one sentence that says what to do instead."""


# ---- what to look at -------------------------------------------------------------------------------


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


def default_picture(card: Card) -> tuple[str, Image.Image]:
    """A picture of the kind the model knows, there without a download: drawn, or brought by pip."""
    if card.class_names == SHAPES_CLASSES:
        return "shape", shapes_sample(EXAMPLE, 0)[0]
    package = find_spec("gradio")  # found, not imported: only its photographs are wanted
    if package is None or package.origin is None:
        raise Usage("Name a picture: the example photographs come with gradio, which is not installed.")
    return "lion", open_picture(Path(package.origin).parent / "media_assets" / "images" / "lion.jpg")


def find_files(sources: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, path) of every picture among files and folders; the names are unique, for the results."""
    found: dict[str, Path] = {}
    for source in map(Path, sources):
        paths = [source]
        if source.is_dir():
            paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
            if not paths:
                raise Usage(f"There is no picture in the folder {source}.")
        for path in paths:
            inside = path.relative_to(source) if source.is_dir() else Path(path.name)
            stem = name = "-".join(inside.with_suffix("").parts)
            number = 2
            while name in found:
                name, number = f"{stem}-{number}", number + 1
            found[name] = path
    return list(found.items())


def parse_size(text: str | None, patch_size: int, usual: tuple[int, int]) -> tuple[int, int]:
    """ "224", or "224x336" for height x width; without a text the usual size."""
    if text is None:
        return usual
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise Usage(f"--size {text} is no size: write 224, or HEIGHTxWIDTH such as 224x336.")
    size = int(parts[0]), int(parts[-1])
    Grid.of(size, patch_size)
    return size


def check_memory(config: ViTConfig, size: tuple[int, int], traces: int = 1) -> None:
    """Before anything is allocated: figures are made from the attention of all layers at once."""
    needed = traces * cost(config, size).attn_bytes
    if needed > MAX_ATTENTION:
        raise Usage(
            f"{size[0]} x {size[1]} pixels need {needed / 2**30:,.1f} GiB of attention at once, more than "
            f"{MAX_ATTENTION / 2**30:.0f}: give a smaller --size or a model with larger patches."
        )


def model_and_size(args: argparse.Namespace) -> tuple[ViT, Card, tuple[int, int]]:
    """(model, card, (height, width)) as asked for, if that fits into memory."""
    model, card = load_model(args.model)
    size = parse_size(args.size, model.config.patch_size, card.size_for(model.config))
    check_memory(model.config, size)
    return model, card, size


def parse_query(text: str | None, config: ViTConfig, grid_size: tuple[int, int]) -> int | None:
    """ "cls", "reg1" or "row,column" -> the token's index; None stays None: what the class is read from."""
    if text is None:
        return None
    names = [name.strip("[]").lower() for name in config.prefix_names]
    if text.strip("[]").lower() in names:
        return names.index(text.strip("[]").lower())
    h, w = grid_size
    try:
        row, column = (int(part) for part in text.split(","))
    except ValueError:
        known = f" or {', '.join(names)}" if names else ""
        raise Usage(f"--query {text} is no token of this model: write ROW,COLUMN{known}.") from None
    if not (0 <= row < h and 0 <= column < w):
        raise Usage(
            f"There is no patch {row},{column}: rows go from 0 to {h - 1}, columns from 0 to {w - 1}."
        )
    return config.num_prefix_tokens + row * w + column


def parse_edits(args: argparse.Namespace, config: ViTConfig, grid_size: tuple[int, int]) -> tuple[Hook, ...]:
    """--off "L3.H2 L4.H0" and --hide "4,7 4,8" -> hooks that intervene."""
    edits: list[Hook] = []
    if args.off:
        found = [re.fullmatch(r"L(\d+)\.H(\d+)", word, re.IGNORECASE) for word in args.off.split()]
        pairs = [(int(match[1]), int(match[2])) for match in found if match]
        if not all(found) or not all(i < config.depth and j < config.num_heads for i, j in pairs):
            last = f"L{config.depth - 1}.H{config.num_heads - 1}"
            raise Usage(f"--off {args.off} names no heads: write L0.H0 to {last}, with spaces between them.")
        edits.append(ZeroHeads(tuple(pairs)))
    if args.hide:
        tokens = [parse_query(word, config, grid_size) or 0 for word in args.hide.split()]
        patches = [token - config.num_prefix_tokens for token in tokens]
        if min(patches) < 0:
            raise Usage("Patches can be hidden, and nothing else: write ROW,COLUMN.")
        if len({*patches}) == math.prod(grid_size):
            raise Usage("Leave at least one patch to see.")
        edits.append(MaskPatches(tuple(patches), config.num_prefix_tokens))
    again = [METHODS[name].label for name in args.method if METHODS[name].needs_model]
    if edits and again:
        raise Usage(f"{again[0]} runs the model as it is: leave out --off and --hide, or the method.")
    return tuple(edits)


def changed(args: argparse.Namespace) -> str:
    """The intervention in words, for titles."""
    words = [f"{args.off} off"] * bool(args.off) + [f"{args.hide} hidden"] * bool(args.hide)
    return f" ({', '.join(words)})" if words else ""


def parse_target(text: str | None, card: Card, num_classes: int) -> int | None:
    """A class by name, by number, or by the unmistakable beginning of its name; None stays None."""
    if text is None:
        return None
    if not num_classes:
        raise Usage(f"{card.name} has no classification head, so there is no class to explain.")
    names = [name.lower() for name in card.class_names]
    exact = [k for k, name in enumerate(names) if name == text.lower()]
    if not exact and text.isdecimal() and int(text) < num_classes:
        return int(text)
    found = exact or [k for k, name in enumerate(names) if name.startswith(text.lower())]
    if len(found) != 1:
        some = ", ".join(card.class_names[:12]) + (", ..." if len(names) > 12 else "")
        problem = "may be several classes" if found else "is no class"
        choices = f" or one of {some}" if names else ""
        raise Usage(f"{text!r} {problem} of {card.name}: give a number below {num_classes}{choices}.")
    return found[0]


def parse_methods(text: str) -> list[str]:
    """ "rollout,relevance" -> names of METHODS, or "all"."""
    names = text.split(",")
    for name in names:
        if name not in METHODS and name != "all":
            raise argparse.ArgumentTypeError(f"no method {name!r}: choose from {', '.join(METHODS)}, or all")
    return names


def methods_of(args: argparse.Namespace, config: ViTConfig, size: tuple[int, int]) -> list[str]:
    """The methods asked for; "all" means those that this model, this size and a film through depth allow."""
    if "all" not in args.method:
        return args.method
    usable = faithfulness.usable_methods(config, cost(config, size).tokens)
    through_depth = args.command == "film" and args.through == "depth"
    return [name for name in usable if "layer" in METHODS[name].options or not through_depth]


def read_or_name(where: str | Path, read: Callable[[], T], failed: list[str]) -> T | None:
    """What `read` returns; a picture that cannot be read is named and noted, and does not stop the others."""
    try:
        return read()
    except PictureError as error:
        failed.append(str(where))
        tqdm.write(f"{where}: {error}", file=sys.stderr)
        return None


def need_gradients(methods: Sequence[str]) -> bool:
    return any(METHODS[name].needs_grad for name in methods)


def check_heard(args: argparse.Namespace) -> None:
    """An option of the maps that no method on this figure listens to would be ignored in silence."""
    if args.command == "film" and args.through == "depth" and args.layer is not None:
        raise Usage("A film through depth shows every layer: leave out --layer, or add --through training.")
    heard = {option for name in args.method for option in METHODS[name].options}
    if any(METHODS[name].class_specific for name in args.method):
        heard.add("target")
    if args.scale == "uniform" and not any(METHODS[name].rows_sum_to_1 for name in args.method):
        able = ", ".join(method.label for method in METHODS.values() if method.rows_sum_to_1)
        raise Usage(f"--scale uniform is for rows that sum to 1 ({able}): leave it out.")
    for option in ("query", "layer", "head", "target"):
        if getattr(args, option) is not None and option not in heard:
            labels = ", ".join(METHODS[name].label for name in args.method)
            raise Usage(f"--{option} means nothing to {labels}: leave it out or choose another --method.")


def check_index(what: str, index: int | None, count: int) -> None:
    if index is not None and not -count <= index < count:
        raise Usage(f"There is no {what} {index}: this model has {count}, 0 to {count - 1}.")


# ---- commands about pictures -----------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A row of COMMANDS: from a look at one picture to something to take home."""

    about: str
    endings: tuple[str, ...]  # the first is the default
    make: Callable[[Subject, argparse.Namespace], Export]


def make_map(subject: Subject, args: argparse.Namespace) -> Export:
    return export.maps(
        subject,
        args.method,
        query=args.token,
        layer=args.layer,
        head=args.head,
        target=args.target_index,
        scale=args.scale,
        style=args.style,
        progress=progress_bar(f"{subject.name}: passes"),
    )


def make_grid(subject: Subject, args: argparse.Namespace) -> Export:
    return export.grid(subject, query=args.token, scale=args.scale, style=args.style)


def make_matrix(subject: Subject, args: argparse.Namespace) -> Export:
    layer = -1 if args.layer is None else args.layer
    return export.matrix(subject, layer=layer, head=args.head, style=args.style)


def make_stats(subject: Subject, args: argparse.Namespace) -> Export:
    return export.figures_of_heads(subject, style=args.style)


def make_ledger(subject: Subject, args: argparse.Namespace) -> Export:
    return export.ledger(subject, target=args.target_index, style=args.style)


def make_ablation(subject: Subject, args: argparse.Namespace) -> Export:
    bar = progress_bar(f"{subject.name}: layers")
    return export.ablation(subject, target=args.target_index, style=args.style, progress=bar)


def make_film(subject: Subject, args: argparse.Namespace) -> Export:
    options = {
        "query": args.token,
        "head": args.head,
        "target": args.target_index,
        "style": args.style,
        "fps": args.fps,
        "progress": progress_bar(f"{subject.name}: frames"),
    }
    if args.through == "depth":
        return films.film(subject, args.method, **options)
    moments = []
    target = args.target_index if need_gradients(args.method) else None
    folder = folder_of(args.model or first_checkpoint())
    snapshots = list_snapshots(folder) if folder else []
    height, width = subject.trace.image.shape[-2:]
    check_memory(subject.model.config, (height, width), len(snapshots))
    for snapshot in snapshots:
        model, _ = load_snapshot(snapshot.path)
        then = trace(model, subject.trace.image, target=target)
        accuracy = snapshot.metrics.get("accuracy")
        words = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
        title = f"training step {snapshot.step:,}{words}"
        moments.append((title, replace(subject, trace=then, model=model)))
    if not moments:
        raise Usage(f"{subject.card.name} kept no snapshots of its training to play through.")
    return films.training_film(moments, args.method, layer=args.layer, **options)


def make_html(subject: Subject, args: argparse.Namespace) -> Export:
    view: dict[str, Any] = {} if args.token is None else {"query": args.token}
    if args.layer is not None:
        view["layer"] = args.layer
    if args.head is not None:
        view |= {"head": args.head, "fuse": "one"}
    return export.everything(subject, **view)


FIGURE = (".png", ".svg", ".npz", ".csv", ".md")
COMMANDS = {
    "map": Command("where the model looks, or what speaks for a class", FIGURE, make_map),
    "grid": Command("every head of every layer on one sheet", FIGURE, make_grid),
    "matrix": Command("one head's attention, token by token", FIGURE, make_matrix),
    "stats": Command("how far, and at how many tokens, heads look", FIGURE, make_stats),
    "ledger": Command("what every head and MLP gave to the logit", FIGURE, make_ledger),
    "ablation": Command("what the logit loses without each head", FIGURE, make_ablation),
    "film": Command("play through depth, or through training", (".gif", ".mp4"), make_film),
    "html": Command("one page to explore offline, or all numbers", (".html", ".npz"), make_html),
}


def run_on_pictures(args: argparse.Namespace) -> int:
    """One command on one picture or many; a picture that cannot be read does not stop the others."""
    command = COMMANDS[args.command]
    files = find_files(args.pictures)
    check_endings(args.out, args.command, command.endings, len(files))
    model, card, size = model_and_size(args)
    args.token = parse_query(args.query, model.config, Grid.of(size, model.config.patch_size).shape)
    asked = parse_target(args.target, card, model.config.num_classes)
    check_index("layer", args.layer, model.config.depth)
    check_index("head", args.head, model.config.num_heads)
    args.method = methods_of(args, model.config, size)
    if args.method:
        check_heard(args)
    edits = parse_edits(args, model.config, Grid.of(size, model.config.patch_size).shape)

    whole = args.command == "html" and model.config.num_classes > 0  # the page explains the answer, too
    explains = whole or any(METHODS[name].class_specific for name in args.method)
    failed: list[str] = []
    looked_at: Sequence[tuple[str, Path | None]] = files or [("", None)]
    for name, path in tqdm(looked_at, desc="pictures", disable=len(files) < 2, delay=1):
        picture: Image.Image | None
        if path is None:
            name, picture = default_picture(card)
        else:
            picture = read_or_name(path, partial(open_picture, path), failed)
        if picture is None:
            continue
        image = preprocess(picture, card, size)
        args.target_index = answer_of(model, image, asked) if explains else asked
        target = args.target_index if whole or need_gradients(args.method) else None
        subject = export.look(name + changed(args), image, model, card, target, edits)
        made = command.make(subject, args)
        if edits:
            tqdm.write(f"{name}: {export.look(name, image, model, card).answers()}")
        tqdm.write(f"{subject.name}: {subject.answers()}")
        for out in outputs(args.out, args.command, name, command.endings[0]):
            tqdm.write(f"  {made.save(out)}")
    return OK if not failed else PARTIAL if len(failed) < len(files) else NOTHING


def answer_of(model: ViT, image: Tensor, target: int | None) -> int:
    """The class to explain: the one asked for, else what the model says."""
    if not model.config.num_classes:
        raise Usage("This model has no classification head: choose a method that explains no class.")
    return faithfulness.answer(model, image) if target is None else target


def check_endings(outs: Sequence[str], command: str, endings: Sequence[str], pictures: int) -> None:
    """Before anything is computed: can each --out be written, and is there one file per picture?"""
    for out in outs:
        suffix = ending_of(out)
        if suffix and suffix not in endings:
            raise Usage(f"{command} cannot write {suffix}: let --out end in {', '.join(endings)}.")
        if suffix and pictures > 1 and "{name}" not in out:
            raise Usage(
                f'{pictures} pictures need {pictures} files: write --out "{{name}}{suffix}" or a folder.'
            )


def outputs(outs: Sequence[str], command: str, name: str, ending: str) -> list[Path]:
    """Where the results for one picture, model or data set go. An --out without an ending is a folder."""
    name = Path(name).resolve().name  # of a folder's path, or of owner/model
    file = f"{name}{ending}" if ending == f".{command}" else f"{name}-{command}{ending}"
    places = [(Path(out.replace("{name}", name)), ending_of(out)) for out in outs or ["."]]
    return [place if suffix else place / file for place, suffix in places]


def ending_of(out: str) -> str:
    """ ".png" of a file, nothing of a folder (also of one called "v1.2/")."""
    return "" if out.endswith(("/", "\\")) or Path(out).is_dir() else Path(out).suffix.lower()


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


# ---- faithfulness ----------------------------------------------------------------------------------


def run_faithfulness(args: argparse.Namespace) -> int:
    """One picture: the race of its maps, curve by curve. A folder or data set: the table."""
    one = len(args.pictures) == 1 and not Path(args.pictures[0]).is_dir()
    if args.pictures and args.data is not None:
        raise Usage("Name pictures or --data, not both.")
    if one and args.images is not None:
        raise Usage("--images draws from a folder or a data set, and this is one picture: leave it out.")
    if not one and args.target is not None:
        raise Usage("--target is for one picture: over many, the class watched is each one's own answer.")
    check_endings(args.out, "faithfulness", ENDINGS["faithfulness"], 1)
    model, card, size = model_and_size(args)
    if not model.config.num_classes:
        raise Usage(f"{card.name} has no classification head, so there is no class to explain.")
    methods, modes = methods_of(args, model.config, size), args.mode or faithfulness.MODES
    failed: list[str] = []
    if one:
        picture = read_or_name(args.pictures[0], partial(open_picture, args.pictures[0]), failed)
        if picture is None:
            return NOTHING
        image = preprocess(picture, card, size)
        target = answer_of(model, image, parse_target(args.target, card, model.config.num_classes))
        name = Path(args.pictures[0]).stem
        subject = export.look(name, image, model, card, target)
        settings = {"modes": modes, "points": args.points, "progress": progress_bar("maps and curves")}
        made = export.race(subject, methods, style=args.style, **settings)
    else:
        name, count, images = images_of(args, card, size, failed, card.class_names)
        bar = progress_bar("images")
        found = faithfulness.table(
            model,
            images,
            methods,
            card=card,
            modes=modes,
            points=args.points,
            progress=lambda done: bar(done, count),
        )
        made = export.faithfulness_table(found, f"{card.name} on {name}", style=args.style)
    print(made.as_markdown())
    for out in outputs(args.out, "faithfulness", name, ".md") if args.out else []:
        print(made.save(out))
    return PARTIAL if failed else OK


def images_of(
    args: argparse.Namespace,
    card: Card,
    size: tuple[int, int],
    failed: list[str],
    known: Sequence[str] = (),
) -> tuple[str, int, Iterator[tuple[Tensor, Tensor | None]]]:
    """(name, how many, (image, object mask or None) ...) of a folder or a data set's test split; pictures
    that cannot be read go to `failed`. Only generated shapes have masks. known: classes of which the data
    must have one, if any are named."""
    if args.pictures:
        files = [path for _, path in find_files(args.pictures)]
        paths = [files[i] for i in drawn_from(len(files), args.images or SOME)]
        opened = (read_or_name(path, partial(open_picture, path), failed) for path in paths)
        images = ((preprocess(picture, card, size), None) for picture in opened if picture is not None)
        return Path(args.pictures[0]).name, len(paths), images
    data = args.data or ("shapes" if card.class_names == SHAPES_CLASSES else None)
    if data is None:
        raise Usage("Which pictures? Name a folder, or --data imagenette, cifar10 or shapes.")
    pictures, names = find_pictures(data, "test")
    if known and not set(names) & set(known):
        raise Usage(f"{card.name} knows no class of {data}: name a folder of pictures, or another --model.")
    if data == "shapes":
        count = args.images or SOME

        def drawn() -> Iterator[tuple[Tensor, Tensor]]:
            for index in range(count):
                picture, _, mask = shapes_sample(TEST_SPLIT, index)
                inside = Image.fromarray(np.asarray(mask).astype(np.uint8) * 255).convert("RGB")
                covered = to_pixels(inside, size, card.crop_pct, "nearest")[0] > 127
                yield preprocess(picture, card, size), covered

        return "shapes", count, drawn()
    chosen = drawn_from(len(pictures), args.images or SOME)
    some = read_some(pictures, data, chosen, failed)
    return data, len(chosen), ((preprocess(picture, card, size), None) for picture, _ in some)


def read_some(
    pictures: Pictures, data: str, chosen: Sequence[int], failed: list[str]
) -> Iterator[tuple[Image.Image, int]]:
    """(picture, label) of the chosen ones that can be read."""
    for i in chosen:
        found = read_or_name(f"test picture {i} of {data}", partial(pictures.__getitem__, i), failed)
        if found is not None:
            yield found


def run_heads(args: argparse.Namespace) -> int:
    """Figures of heads and layers over many pictures."""
    check_endings(args.out, "heads", ENDINGS["heads"], 1)
    if args.pictures and args.data is not None:
        raise Usage("Name pictures or --data, not both.")
    model, card, size = model_and_size(args)
    failed: list[str] = []
    name, count, images = images_of(args, card, size, failed)
    bar = progress_bar("images")
    seen = (image for image, _ in images)
    made = export.heads(model, card, seen, name, style=args.style, progress=lambda done: bar(done, count))
    finish(made, args, name, ".png")
    return PARTIAL if failed else OK


# ---- commands about a model ------------------------------------------------------------------------


def run_weights(args: argparse.Namespace) -> int:
    check_endings(args.out, "weights", ENDINGS["weights"], 1)
    model, card = load_model(args.model)
    return finish(export.weights(model, card, style=args.style), args, card.name, ".png")


def run_training(args: argparse.Namespace) -> int:
    """The curves of a run, finished or not."""
    check_endings(args.out, "training", ENDINGS["training"], 1)
    name = args.model or first_checkpoint()
    if not (folder := resolve(name).folder):
        raise Usage(f"{name} is a model of the Hub, which keeps no history here: name the folder of a run.")
    if not (rows := read_history(folder)):
        file = folder / "history.csv"
        raise Usage(f"{file} is missing or has no rows yet: train.py writes it beside the weights of a run.")
    return finish(export.history(rows, title=folder.name, style=args.style), args, folder.name, ".png")


def run_confusion(args: argparse.Namespace) -> int:
    """What the model takes for what, over a test split."""
    check_endings(args.out, "confusion", ENDINGS["confusion"], 1)
    model, card = load_model(args.model)
    pictures, names = find_pictures(args.data, "test")
    if card.scores != "softmax":
        raise Usage(f"{card.name} does not choose one class of a picture, so it takes none for another.")
    if names != card.class_names:
        raise Usage(f"{card.name} knows other classes than {args.data}: name the data it was trained on.")
    bar, counts = progress_bar("images"), np.zeros((len(names), len(names)), int)
    chosen = drawn_from(len(pictures), args.images)
    failed: list[str] = []
    for picture, label in read_some(pictures, args.data, chosen, failed):
        counts[label, answer_of(model, preprocess(picture, card), None)] += 1
        bar(int(counts.sum()) + len(failed), len(chosen))
    if not counts.any():
        raise Usage(f"No picture of {args.data} could be read: choose other data.")
    title = f"{card.name}: {100 * counts.trace() / counts.sum():.1f} % of {counts.sum()} right"
    finish(export.confusion(counts, names, title=title, style=args.style), args, card.name, ".png")
    return PARTIAL if failed else OK


def finish(made: Export, args: argparse.Namespace, name: str, ending: str) -> int:
    for out in outputs(args.out, args.command, name, ending):
        print(made.save(out))
    return OK


# ---- shapes ----------------------------------------------------------------------------------------

SAYS = {  # what happened just before the hook saw the tensor
    "embed": "{P} patches of {p} x {p} pixels, each projected to {D} numbers",
    "pos": "{prefix}positions added",
    "norm1": "every token normalised",
    "q": "queries of {H} heads, {d} numbers per token",
    "k": "keys",
    "v": "values",
    "scores": "query times key over the square root of {d}",
    "attn": "softmax: every row sums to 1",
    "z": "attention times values",
    "attn_out": "heads joined and projected",
    "resid_mid": "added to the stream",
    "norm2": "normalised again",
    "mlp_pre": "{M} hidden numbers per token",
    "mlp_post": "{activation}",
    "resid_post": "back to {D}, added to the stream",
    "norm": "the final norm",
    "logits": "{read_out}",
}


def run_shapes(args: argparse.Namespace) -> int:
    """A dry run through the real model: the hook prints every shape. No number is computed."""
    check_endings(args.out, "shapes", ENDINGS["shapes"], 1)
    if args.variant and args.model:
        raise Usage("Name a paper's --variant or a --model, not both.")
    if args.variant:
        config, name = ViTConfig.variant(args.variant), f"ViT-{args.variant}"
        usual = config.image_size
    else:
        model, card = load_model(args.model)
        config, name, usual = model.config, card.name, card.size_for(model.config)
    size = parse_size(args.size, config.patch_size, usual)
    with torch.device("meta"):  # tensors with a shape and without memory
        model, image = ViT(config).eval(), torch.empty(1, config.in_chans, *size)
    rows = shapes_of(model, image)
    width = max(len(row["shape"]) for row in rows)
    for row in rows:
        if row["layer"] in (None, 0):
            print(f"{row['shape']:<{width}}  {row['name']:<11} {row['about']}")
        elif row["name"] == "norm1" and row["layer"] == 1:
            print(f"{'...':<{width}}  {'':<11} the same in layers 1 to {config.depth - 1}")
    shape = {row["name"]: row["shape"] for row in rows}
    stream = f"{config.depth} x {shape['resid_post']}"
    chain = " -> ".join([shape["image"], shape["embed"], shape["pos"], stream, shape["logits"]])
    count = sum(p.numel() for p in model.parameters())
    print(f"\n{name}: {chain}, {count / 1e6:.2f} million parameters")
    for out in outputs(args.out, "shapes", name.replace("/", "-"), ".md") if args.out else []:
        print(Export(rows=lambda: rows).save(out))
    return OK


def shapes_of(model: ViT, image: Tensor) -> list[dict[str, Any]]:
    """One row per named activation, in the order in which the image meets them."""
    config = model.config
    h, w = Grid.of((image.shape[-2], image.shape[-1]), config.patch_size).shape
    words = {
        "P": h * w,
        "p": config.patch_size,
        "D": config.embed_dim,
        "H": config.num_heads,
        "d": config.head_dim,
        "M": config.mlp_dim,
        "activation": config.activation,
        "prefix": " and ".join(config.prefix_names) + " in front, " if config.prefix_names else "",
    }
    read = export.what_is_read(config)
    words["read_out"] = (
        f"the head reads {read}: one number per class" if config.num_classes else f"{read}: no head"
    )
    rows: list[dict[str, Any]] = [
        {"layer": None, "name": "image", "shape": str(list(image.shape)), "about": "pixels, normalised"}
    ]

    def hook(name: str, layer: int | None, x: Tensor) -> Tensor:
        about = SAYS[name].format(**words)
        rows.append({"layer": layer, "name": name, "shape": str(list(x.shape)), "about": about})
        return x

    model(image, hook)
    return rows


# ---- the command line ------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m explorer",
        description="See inside a Vision Transformer without a browser.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    unsaid = ("query", "layer", "head", "target", "size", "model", "colormap", "off", "hide")
    nothing = {name: None for name in unsaid}
    parser.set_defaults(**nothing, method=None, scale="map", theme="light", smooth=False, lines=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, about: str, *options: str) -> argparse.ArgumentParser:
        endings = COMMANDS[name].endings if name in COMMANDS else ENDINGS[name]
        sub = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}. Writes {', '.join(endings)}.",
            epilog=METHODS_HELP if "method" in options else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for option in ("model", "out", *options):
            flags, keywords = OPTIONS[option]
            sub.add_argument(*flags, **keywords)
        return sub

    drawn = ("pictures", "size", "theme", "colormap")
    on_picture = (*drawn, "smooth", "lines")
    edits = ("off", "hide")
    asked = ("method", "query", "layer", "head", "target")
    map_ = add("map", COMMANDS["map"].about, *on_picture, *asked, *edits)
    full = "what full colour stands for: each map's own maximum (map, default) or 8 x uniform attention"
    map_.add_argument("--scale", choices=["map", "uniform"], default="map", help=full)
    grid = add("grid", COMMANDS["grid"].about, *drawn, "query", *edits)
    full = "what full colour stands for: the maximum of each map, layer, or all (default), or 8 x uniform"
    grid.add_argument("--scale", choices=list(SCALES), default="all", help=full)
    add("matrix", COMMANDS["matrix"].about, *drawn, "layer", "head", *edits)
    add("stats", COMMANDS["stats"].about, "pictures", "size", "theme")
    add("ledger", COMMANDS["ledger"].about, "pictures", "size", "theme", "target")
    add("ablation", COMMANDS["ablation"].about, "pictures", "size", "theme", "target")
    film = add("film", COMMANDS["film"].about, *on_picture, "method", "query", "head", "target")
    film.add_argument("--layer", type=int, help="through training: from 0; -1 is the last (default)")
    through = "layer by layer (default), or snapshot by snapshot as train.py left them"
    film.add_argument("--through", choices=["depth", "training"], default="depth", help=through)
    film.add_argument("--fps", type=frame_rate, default=2, help="frames per second (default 2)")
    add("html", COMMANDS["html"].about, "pictures", "size", "query", "layer", "head", "target")
    true = add("faithfulness", "which maps are true, measured", "size", "theme", "method", "target")
    raced = "one file: the race of its maps; folders or several files: a table over them, as with --data"
    true.add_argument("pictures", nargs="*", metavar="PICTURE", help=raced)
    many = add("heads", "how far heads look, and how alike layers are, over many pictures", "size", "theme")
    many.add_argument("pictures", nargs="*", metavar="PICTURE", help="files or folders, in place of --data")
    for command in (true, many):
        command.add_argument(
            "--data", help="test split to measure on: shapes, imagenette, cifar10 or a folder of classes"
        )
        command.add_argument("--images", type=positive, help=f"how many of them (default {SOME})")
    both = "hide patches by painting them grey or by leaving them out (default both)"
    true.add_argument("--mode", action="append", choices=faithfulness.MODES, help=both)
    true.add_argument("--points", type=positive, default=9, help="points of each curve (default 9)")
    add("weights", "patch filters and positions, as they were learned", "theme")
    add("training", "a training run's curves", "theme")
    taken = add("confusion", "what the model takes for what", "theme")
    data = "test split: shapes, imagenette, cifar10 or a folder of classes"
    taken.add_argument("--data", required=True, help=data)
    taken.add_argument("--images", type=positive, default=500, help="how many of them (default 500)")
    shapes = add("shapes", "the shape of every tensor from pixels to logits", "size")
    sizes = f"a paper's model instead, such as B/16; sizes: {', '.join(VARIANTS)}"
    shapes.add_argument("--variant", metavar="SIZE/PATCH", help=sizes)
    return parser


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive whole number")
    return int(text)


def frame_rate(text: str) -> float:
    """Frames per second, as far as a GIF can hold them."""
    try:
        fps = float(text)
    except ValueError:
        fps = 0
    if not 0.01 <= fps <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no number between 0.01 and 100")
    return fps


METHODS_HELP = f"methods\n  ({methods.LETTERS})\n{methods.plain()}"
OPTIONS: dict[str, tuple[tuple[str, ...], dict]] = {
    "pictures": (
        ("pictures",),
        {"nargs": "*", "metavar": "PICTURE", "help": "files or folders; none: an example"},
    ),
    "model": (("--model", "-m"), {"help": "checkpoint: bundled name, folder or Hub id (default: the app's)"}),
    "size": (("--size",), {"help": "pixels the model is given: 224 or HEIGHTxWIDTH (default: its own)"}),
    "out": (
        ("--out", "-o"),
        {
            "action": "append",
            "default": [],
            "metavar": "PATH",
            "help": "file, or folder; {name} stands for the picture's name; may be given several times "
            "(default: in the current folder, named after the picture and the command)",
        },
    ),
    "method": (
        ("--method",),
        {
            "action": "extend",
            "type": parse_methods,
            "metavar": "NAMES",
            "help": "one, several with commas, or all, see below (default: attention,rollout for map, "
            "attention for film, all for faithfulness)",
        },
    ),
    "query": (
        ("--query", "-q"),
        {
            "help": "token that looks: cls, reg1 ... or ROW,COLUMN of a patch, from 0 (default: what the "
            "head reads)"
        },
    ),
    "layer": (("--layer",), {"type": int, "help": "from 0; -1 is the last (default)"}),
    "head": (("--head",), {"type": int, "help": "from 0 (default: mean of all)"}),
    "target": (("--target",), {"help": "class to explain, by name or number (default: the model's answer)"}),
    "off": (("--off",), {"metavar": "HEADS", "help": 'heads to switch off: "L3.H2 L4.H0"'}),
    "hide": (("--hide",), {"metavar": "PATCHES", "help": 'patches that no token may see: "4,7 4,8"'}),
    "theme": (("--theme",), {"choices": list(THEMES), "default": "light", "help": "of the figure"}),
    "colormap": (("--colormap",), {"choices": [*SEQUENTIAL, *DIVERGING], "help": "colours of the maps"}),
    "smooth": (("--smooth",), {"action": "store_true", "help": "interpolate between patches, and say so"}),
    "lines": (("--lines",), {"action": "store_true", "help": "draw the lines between patches"}),
}
OTHERS = {
    "faithfulness": run_faithfulness,
    "heads": run_heads,
    "weights": run_weights,
    "training": run_training,
    "confusion": run_confusion,
    "shapes": run_shapes,
}
ENDINGS = {  # of what these write
    "faithfulness": (".md", ".csv", ".png", ".svg", ".npz"),
    "heads": FIGURE,
    "weights": (".png", ".svg", ".npz"),
    "training": FIGURE,
    "confusion": FIGURE,
    "shapes": (".md", ".csv"),
}
DEFAULT_METHODS = {"map": ["attention", "rollout"], "film": ["attention"], "faithfulness": ["all"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = build_parser().parse_args(argv)
    args.method = args.method or DEFAULT_METHODS.get(args.command, [])
    args.style = Style(args.theme, args.colormap, args.smooth, args.lines)
    try:
        return OTHERS.get(args.command, run_on_pictures)(args)
    except (ValueError, OSError) as error:  # every error of the house is a ValueError with one sentence
        print(f"python -m explorer: {error}", file=sys.stderr)
        return NOTHING
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

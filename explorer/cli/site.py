"""The command that writes the explorer for a browser alone: a folder for any web host, or one file."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from explorer.classes import words_of
from explorer.cli.request import OK, PARTIAL, Command, Request, Usage
from explorer.cli.sources import find_files, first_checkpoint, load_model, read_or_name
from explorer.cli.words import words_given
from explorer.examples import Example, make_examples, suited
from explorer.record import load_record
from explorer.roles import read_roles
from explorer.site.folder import Shared, is_export, write_site
from explorer.site.onefile import write_one_file
from explorer.site.pictures import Picture, open_any
from explorer.site.spaces import check_space, next_step, write_app_space
from vit.checkpoint import Snapshot, earlier_snapshots
from vit.clips import is_clip
from vit.library import resolve
from vit.words import load_tower

EXAMPLES = 6  # pictures, where none are named; for a model of clips what the app has, a few more
MOST_WORDS = 100  # a visitor ticks them one by one


def run_space(request: Request, command: Command) -> int:
    """Write the folder of a Space, check it, and say what would be done with it."""
    where = Path(request.folder)
    if request.kind == "static":
        code = run_site(request, command)
    else:
        code = OK
        told = request.models or request.pictures or request.words or request.runtime or request.webgpu
        if told or (request.title, request.moments) != (Request.title, Request.moments):
            raise Usage(
                f"--kind {request.kind} takes the app with its bundled models: leave out all but --kind."
            )
        check_free(where, (where / "explorer/site/spaces.py").is_file())
        write_app_space(where, request.kind)
    for line in check_space(where, request.kind):
        print(f"✓ {line}")
    print(next_step(where, request.kind))
    return code


def check_free(where: Path, ours: bool) -> None:
    """Raises Usage for a folder that holds something else than what we wrote there before."""
    holds = where.is_dir() and any(where.iterdir()) and not ours
    if where.is_file() or holds or (where / ".git").exists():
        raise Usage(f"{where} is there and holds something else: name a new folder.")


def run_site(request: Request, command: Command) -> int:
    where = Path(request.folder)
    if request.one_file and where.suffix.lower() != ".html":
        raise Usage(f"One file needs a name that ends in .html, not {where}.")
    if not request.one_file:
        if where.suffix.lower() == ".html":
            raise Usage(f"{where} is the name of one file: add --one-file, or name a folder.")
        check_free(where, is_export(where))
    if request.moments < 0:
        raise Usage(f"The number of moments is 0 or more, not {request.moments}.")
    words = words_given(request.words) if request.words else ()
    if len(words) > MOST_WORDS:
        raise Usage(
            f"{len(words)} words are more than a visitor can choose among: give at most {MOST_WORDS}."
        )
    names = distinct(request.models or [first_checkpoint()])
    models = [shared(name, request.moments, words) for name in names]
    if words and not any(each.words for each in models):
        raise Usage("None of these models takes words: name one that was trained with texts, such as CLIP.")
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = pictures_for(request, models, Path(folder), failed)
        write = write_one_file if request.one_file else write_site
        with tqdm(total=0, bar_format="{desc}", leave=False, file=sys.stderr) as bar:
            write(
                where,
                models,
                pictures,
                title=request.title,
                runtime=Path(request.runtime) if request.runtime else None,
                webgpu=request.webgpu,
                progress=bar.set_description_str,
            )
    if request.one_file:
        print(
            f"{where} ({where.stat().st_size / 1e6:.0f} MB): open it in a browser, with or without a network."
        )
    else:
        size = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
        print(f"{where} ({size / 1e6:.0f} MB): see it with  python {shlex.quote(str(where / 'serve.py'))}")
    return PARTIAL if failed else OK


def distinct(names: Sequence[str]) -> list[str]:
    """Each model once, by whatever name it was given again. Raises CheckpointError."""
    found: dict[str, str] = {}
    for name in names:
        place = resolve(name)
        file = place.weights
        found.setdefault(str(file.parent.resolve() / file.name) if file else place.name, name)
    return list(found.values())


def shared(name: str, moments: int, words: tuple[str, ...] = ()) -> Shared:
    """A model and at most so many moments of its training, evenly among those that were kept, the first and
    the last among them; where it has no classes of its own, with these words. Raises CheckpointError."""
    model, card = load_model(name)
    if words and not model.config.num_classes:
        tower = load_tower(name)
        return Shared.speaking(tower, words_of(tower, words))
    folder = resolve(name).folder
    kept: list[Snapshot] = earlier_snapshots(folder) if folder else []
    if len(kept) > moments:
        kept = [kept[round(i * (len(kept) - 1) / max(1, moments - 1))] for i in range(moments)]
    chosen = [(snapshot.step, snapshot.path) for snapshot in kept]
    record = load_record(folder, model)
    roles, believed = read_roles(folder, model), record.believed if record else ""
    return Shared(Path(card.name).name, model.cpu(), card, chosen, roles, believed)


def pictures_for(
    request: Request, models: Sequence[Shared], folder: Path, failed: list[str]
) -> list[Picture]:
    """The pictures and clips that were named, but for those that cannot be read, which go to `failed`; else
    examples: those that suit the first model of pictures, and the first of clips."""
    if request.pictures:
        files = find_files(request.pictures)
        read = [(name, read_or_name(path, partial(open_any, path), failed)) for name, path in files]
        pictures = [Picture(name, name, picture) for name, picture in read if picture is not None]
        if not pictures:
            raise Usage("None of these pictures can be read: name others.")
        return pictures
    examples, found = make_examples(folder), dict[str, Example]()
    firsts = {each.model.config.is_clip: each for each in reversed(models)}
    for of_clips, first in reversed(firsts.items()):
        suiting = suited(examples, first.card.data + first.name)
        chosen = suiting if of_clips else [each for each in suiting if not is_clip(each.path)][:EXAMPLES]
        found |= {each.name: each for each in chosen}
    return [Picture(each.name, each.label, open_any(each.path)) for each in found.values()]

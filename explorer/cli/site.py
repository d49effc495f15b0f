"""The command that writes the explorer for a browser alone: a folder for any web host, or one file."""

import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from explorer.cli.request import OK, Command, Request, Usage
from explorer.cli.sources import find_files, first_checkpoint, load_model
from explorer.examples import make_examples, suited
from explorer.site.folder import Picture, Shared, write_site
from explorer.site.onefile import write_one_file
from vit.checkpoint import Snapshot, list_snapshots
from vit.library import resolve
from vit.pictures import open_picture

MOMENTS = 6  # of a training run that come along, the first and the last among them
EXAMPLES = 6  # pictures, where none are named


def run_site(request: Request, command: Command) -> int:
    where = Path(request.folder)
    if request.one_file and where.suffix.lower() != ".html":
        raise Usage(f"One file needs a name that ends in .html, not {where}.")
    taken = where.is_file() or (
        where.is_dir() and any(where.iterdir()) and not (where / "site.json").is_file()
    )
    if taken and not request.one_file:
        raise Usage(f"{where} is there and holds something else: name a new folder.")
    models = [shared(name) for name in request.models or [first_checkpoint()]]
    with tempfile.TemporaryDirectory() as folder:
        pictures = pictures_for(request, models[0], Path(folder))
        bar = tqdm(total=0, bar_format="{desc}", leave=False, file=sys.stderr)
        write = write_one_file if request.one_file else write_site
        write(
            where,
            models,
            pictures,
            title=request.title,
            runtime=Path(request.runtime) if request.runtime else None,
            progress=bar.set_description_str,
        )
        bar.close()
    if request.one_file:
        print(
            f"{where} ({where.stat().st_size / 1e6:.0f} MB): open it in a browser, with or without a network."
        )
    else:
        size = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
        print(f"{where} ({size / 1e6:.0f} MB): see it with  python {where / 'serve.py'}")
    return OK


def shared(name: str) -> Shared:
    """A model and some moments of its training, evenly among those that were kept."""
    model, card = load_model(name)
    folder = resolve(name).folder
    kept: list[Snapshot] = list_snapshots(folder) if folder else []
    if len(kept) > MOMENTS:
        kept = [kept[round(i * (len(kept) - 1) / (MOMENTS - 1))] for i in range(MOMENTS)]
    moments = [(snapshot.step, dict(snapshot.metrics), snapshot.path) for snapshot in kept]
    return Shared(Path(card.name).name, model.cpu(), card, moments)


def pictures_for(request: Request, first: Shared, folder: Path) -> list[Picture]:
    """The pictures that were named, else examples that suit the first model."""
    if request.pictures:
        return [Picture(name, name, open_picture(path)) for name, path in find_files(request.pictures)]
    examples = make_examples(folder)
    chosen = suited(examples, first.card.data + first.name)[:EXAMPLES]
    return [Picture(e.name, e.label, open_picture(e.path)) for e in chosen]

"""The explorer without a server, lent by the app: the folder of a model, written when it is first asked for.

With it the camera is watched live, by the browser's own engine: thirty phones do not wait for one processor.
The same folder as one file is something to take home. One folder is written at a time, by a process of its
own, and few are kept.
"""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from html import escape
from pathlib import Path

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from explorer.refusals import sentence_of
from explorer.session import key_of
from explorer.site.folder import Shared, check, plain
from explorer.site.onefile import packed
from explorer.site.runtime import SiteError
from explorer.site.serve import HEADERS, Handler
from vit.card import Card, CheckpointError
from vit.library import BUNDLED, resolve
from vit.model import ViT

KEPT = 3  # folders
PATIENCE = 900  # seconds that writing one may take
ROOT = Path(__file__).resolve().parents[2]
AROUND = 5.5e6  # bytes of a folder without weights: the runtime, the page, pictures to begin with
PER_PARAMETER = 1.9  # bytes, half precision, packed
WAITING = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>ViT Explorer</title>{again}<body style="font: 18px/1.5 system-ui, sans-serif; margin: 2em">
<p role="status">{words}</p></body></html>"""


def can_be_lent(name: str, names: Sequence[str], model: ViT, card: Card) -> bool:
    """Is this model one of the app's own, and one that a browser can run?"""
    with suppress(SiteError):
        check(Shared(name, model, card))
        return name in names
    return False


def site_address(name: str) -> str:
    """The last part of the address of a model as it is now: a bundled one's name; else no other model has it,
    nor where capitals count for nothing, nor has the same once its weights were written again."""
    file = None
    with suppress(CheckpointError):
        place = resolve(name)
        if place.folder == BUNDLED / plain(name):
            return plain(name)
        file = place.weights
    return f"{plain(name)}_{short(name)}_{short(key_of(name, None, file))}"  # plain has no "_"


def short(text: str) -> str:
    """What tells one text from another, in eight letters that any address takes."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def lasting(address: str) -> str:
    """What stays of an address when the weights are written again."""
    return address.rpartition("_")[0] or address


def live_link(name: str) -> Markup:
    """The way to a model's page, with the camera on."""
    link = Markup('<a class="vx-live" href="site/{}/?camera=1" target="_blank" rel="noopener">{}</a>')
    return link.format(site_address(name), "Watch your camera live, in your browser")


def megabytes(model: ViT) -> int:
    """About how large its page of one file is."""
    parameters = sum(p.numel() for p in model.parameters())
    return round((AROUND + PER_PARAMETER * parameters) * 4 / 3 / 1e6)


def write_apart(name: str, folder: Path) -> None:
    """Write the folder of a model by a process of its own, whose memory goes with it. Raises SiteError."""
    command = [sys.executable, "-m", "explorer", "site", str(folder), "--model", name, "--moments", "0"]
    if nice := shutil.which("nice"):  # who looks at the page comes first
        command = [nice, *command]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=PATIENCE
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise SiteError(
            "This model could not be made ready for a browser in time: try again later."
        ) from error
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2].rpartition("python -m explorer: ")
        raise SiteError(said[2] if said[1] else "This model could not be made ready for a browser.")


class Shelf:
    """The folders that are written, by the last part of their address. names: the models on offer."""

    def __init__(
        self,
        folder: Path,
        names: Callable[[], Sequence[str]],
        write: Callable[[str, Path], None] = write_apart,
    ):
        self.folder, self.names, self.write = folder, names, write
        self._made: OrderedDict[str, Future[Path]] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="site")
        self._lock = threading.Lock()
        self._packing = threading.Lock()  # takes long: nobody who asks for a folder waits for it

    def find(self, address: str) -> Future[Path] | None:
        """The folder of the model at this address, begun now if it is not there; None for no such model. A
        folder stays as it was written: of a run that has gone on, the next address leads to another.

        What failed is told once, and tried again by who asks then.
        """
        with self._lock:
            made = self._made.get(address)
            if made is None:
                now = {site_address(name): name for name in self.names()}
                address = next((each for each in now if lasting(each) == lasting(address)), "")
                if not address:
                    return None
                made = self._made.get(address)
            if made is None:
                made = self._made[address] = self._pool.submit(self._make, address, now[address])
            elif made.done() and made.exception():
                del self._made[address]
            else:
                self._made.move_to_end(address)
            return made

    def _make(self, address: str, name: str) -> Path:
        where = self.folder / address
        shutil.rmtree(where, ignore_errors=True)
        self.write(name, where)
        with self._lock:
            ready = [key for key, made in self._made.items() if made.done() and key != address]
            for old in ready[: max(0, len(ready) + 1 - KEPT)]:
                del self._made[old]
                shutil.rmtree(self.folder / old, ignore_errors=True)
        return where

    def one_file(self, address: str, folder: Path) -> Path:
        """The folder as one file, packed when it is first asked for."""
        file = folder / "one-file.html"
        with self._packing:
            if not file.is_file():
                packed(folder, file)
        return file


def routes(shelf: Shelf) -> list[Route]:
    """Where the app serves them: /site/MODEL/ and /site/MODEL.html."""

    async def one_file(request: Request) -> Response:
        address = request.path_params["model"]
        made = shelf.find(address)
        if made is None:
            return missing()
        try:
            folder = await asyncio.wrap_future(made)
            file = await run_in_threadpool(shelf.one_file, address, folder)
        except FileNotFoundError:  # others have had the room meanwhile
            return PlainTextResponse("This has been put away again: ask for it once more.", 503)
        except (SiteError, OSError) as error:
            return PlainTextResponse(sentence_of(error) or "", 503)
        return FileResponse(file, media_type="text/html", filename=f"{address.partition('_')[0]}.html")

    async def page(request: Request) -> Response:
        address, path = request.path_params["model"], request.path_params["path"] or "index.html"
        made = shelf.find(address)
        if made is None:
            return missing()
        if not made.done():
            words = "This model is being made ready for your browser: this takes up to a minute, once."
            again = '<meta http-equiv="refresh" content="2">'
            return HTMLResponse(
                WAITING.format(words=words, again=again), 202 if path == "index.html" else 503
            )
        try:
            folder = made.result()
        except SiteError as error:
            return HTMLResponse(WAITING.format(words=escape(str(error)), again=""), 503)
        file = (folder / path).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            return missing()
        kind = Handler.extensions_map.get(file.suffix, "application/octet-stream")
        return FileResponse(file, media_type=kind, headers=dict(HEADERS))

    async def slash(request: Request) -> Response:
        return RedirectResponse(request.url.path.rpartition("/")[2] + "/", 307)

    return [
        Route("/site/{model}.html", one_file),
        Route("/site/{model}/{path:path}", page),
        Route("/site/{model}", slash),
    ]


def missing() -> Response:
    return PlainTextResponse("There is no such page: go back to the app.", 404)

"""Models and traces, memoised: the only shared mutable state of the project.

Thirty people who look at the same picture cost one forward pass; a person who leaves takes along
what only they needed; whatever is kept is bounded in bytes, the oldest goes first.
"""

import ctypes
import hashlib
import hmac
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch

from explorer import zero
from explorer.cache import EVERYONE, Cache, MiB
from explorer.classes import Classes
from explorer.look import TRAINED, Loaded, Look
from explorer.refusals import Left, sentence_of
from vit import library
from vit.card import Card, CheckpointError, check_channels
from vit.checkpoint import MAX_BYTES, Snapshot, list_snapshots, load_snapshot, snapshot_path
from vit.clips import Clip, open_clip_safely
from vit.hub import fetch, is_id, read_pretrained
from vit.library import BUNDLED, folder_of, list_checkpoints, load, resolve
from vit.model import ViT
from vit.pictures import open_safely
from vit.words import Tower, tower_folder, tower_in

V = TypeVar("V")
ROUTE = "shard"  # where the app serves what was promised
MAX_PROMISES = 20_000
TRIES = 3  # to open a file that others drive out
MAX_PAGES = 2_000  # whose state is kept
MAX_GONE = 1_000  # visitors who have left: something of theirs may still be in the making
DAY = 24 * 3600.0  # seconds

# published models worth a look beside the bundled ones, as the picker names them
PUBLISHED = {model.name: model.title for model in library.PUBLISHED}


@dataclass(eq=False)
class Session:
    """Everything that visitors share. public: strangers can reach it, so folders stay closed to them."""

    public: bool = False
    extra: tuple[str, ...] = ()  # checkpoints that the owner named on the command line
    result_bytes: int = 2048 * MiB  # room for a trace of ATTENTION_LIMIT and one with gradients, twice that
    model_bytes: int = 4096 * MiB
    shard_bytes: int = 2048 * MiB  # files of theirs
    film_bytes: int = 1024 * MiB  # and of pictures and clips that were decoded
    hub_models: int = 8  # how many different Hub models strangers may make this process fetch in a day,
    hub_bytes: int = 1024 * MiB  # and how large each may be
    model_lock: threading.Lock = field(default_factory=threading.Lock)  # all cores go to one pass at a time

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vit-explorer-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)  # at the latest at exit
        self.lent = self.folder / "hub"  # what strangers had fetched
        self._secret = secrets.token_bytes(32)
        self._fetched: dict[str, float] = {}  # Hub models that strangers asked for, and when
        self._fetching = threading.Lock()
        self._decoding = threading.Lock()  # one clip of a stranger's at a time
        self.gone: set[str] = set()  # owners whose tab was closed
        self.stopped: dict[str, set[str]] = {}  # owners who pressed Stop, and of which tasks
        self.late: set[str] = set()  # those for whom something was still made: it goes with the next look
        self.coming: list[str] = []  # names of models that are being fetched, once for each who waits
        self._arrived: set[str] = set()  # names of models whose files are here
        self._folders: dict[str, Path] = {}  # where those of the Hub are
        self._towers: dict[str, Path] = {}  # and those whose text towers are here, too
        # open pages, each under its owner's name, held by the address that it was opened from
        self.pages: Cache[str] = Cache(MAX_PAGES, lambda page: 1)
        self.models: Cache[Loaded] = Cache(self.model_bytes, self.weight_of)
        self.results: Cache[Any] = Cache(self.result_bytes, party=self.address_of)
        self.promises: Cache[Callable[[], bytes]] = Cache(MAX_PROMISES, lambda make: 1, party=self.address_of)
        self.shards: Cache[Path] = Cache(
            self.shard_bytes,
            lambda path: path.stat().st_size,
            lambda path: path.unlink(missing_ok=True),
            self.address_of,
        )
        self.films: Cache[Path] = Cache(
            self.film_bytes,
            lambda path: path.stat().st_size,
            lambda path: path.unlink(missing_ok=True),
            self.address_of,
        )
        self.broken: dict[str, str] = {}  # checkpoints that are here and cannot be opened, and why
        self._on_offer = set(PUBLISHED)  # and what was found to be: no folder is read twice for it

    # models ------------------------------------------------------------------------------------

    def weight_of(self, loaded: Loaded) -> int:
        """What a model counts in the cache: half of the room at most, so that one too large for it is not
        read anew at every question, and the two of a comparison do not drive each other out. So an owner's
        models may take more: two of `vit.checkpoint.MAX_BYTES`."""
        return min(loaded.nbytes, self.model_bytes // 2)

    def names(self) -> list[str]:
        """Checkpoints that are on this machine: those named by the owner first, then the bundled ones."""
        extra = [name.removeprefix("hf-hub:") for name in self.extra]
        bundled = (name for name in list_checkpoints() if name not in extra and name not in self.broken)
        return [*extra, *bundled]

    def open_bundled(self) -> None:
        """Open every bundled checkpoint once: what cannot be opened is not offered; `broken` says why."""
        for folder in sorted(BUNDLED.glob("*/")):
            try:
                load(folder)
            except (CheckpointError, OSError) as error:
                self.broken[folder.name] = f"{folder.name}: {sentence_of(error)}"

    def model(self, name: str, step: int | None = None) -> Loaded:
        """A model by name, folder or Hub id, or as it was at a step of training. Raises CheckpointError."""
        name = self.allowed(name)
        place = resolve(name)
        file = place.weights
        if step is not None:
            file = snapshot_path(place.folder, step) if place.folder else None
            if not file or not file.is_file():
                raise CheckpointError(f"{name} has no snapshot of step {step}: choose one from its timeline.")
        key = key_of(name, step, file)

        def make() -> Loaded:
            try:
                model, card = load_snapshot(file) if step is not None and file else self.load(name)
                check_channels(model.config, name)
            except Exception:  # of no use
                self.remove_files(name)
                raise
            device = "cuda" if torch.cuda.is_available() and not zero.HERE else "cpu"
            return Loaded(model.to(device), card, key, place.folder if step is None else None)

        loaded = self.models.get(key, make)
        self._arrived.add(name)
        return loaded

    def loaded(self, key: str, name: str, step: int | None) -> Loaded:
        """These very weights: no file is read while they are held. Raises CheckpointError if there are others
        of this name by now."""
        held = self.models.peek(key)
        loaded = held[0] if held else self.model(name, step)
        if loaded.key != key:
            raise CheckpointError(f"{name} was written again in the meantime: choose the picture once more.")
        return loaded

    def fetch_tower(self, name: str) -> Path:
        """See to it that the files of this model's text tower are here: in this folder. Raises
        CheckpointError."""
        name = self.allowed(name)
        if name not in self._towers:
            if self.public and not self.is_on_offer(name):
                self._towers[name] = tower_folder(name, self.hub_bytes, self.lent, token=False)
            else:
                self._towers[name] = tower_folder(name, token=self.token_for(name))
        return self._towers[name]

    def tower(self, name: str) -> Tower:
        """The image tower of a model that was trained with texts, with the weights that are held of it, and
        where its text tower is, which is here. Raises CheckpointError for a model that knows no words."""
        name, loaded = self.allowed(name), self.model(name)
        folder = folder_of(name) or self._towers.get(name)
        if folder is None:
            raise CheckpointError(
                f"The text tower of {name} is not here yet: use the words again, and it is fetched."
            )
        return tower_in(folder, name, loaded.model, loaded.card)

    def fetch(self, name: str) -> None:
        """See to it that this model is here. Raises CheckpointError."""
        self.coming.append(name)
        try:
            self.model(name)
        finally:
            self.coming.remove(name)

    def load(self, name: str) -> tuple[ViT, Card]:
        """A checkpoint that nobody holds. The Hub is asked for a model once: what was pushed out of memory is
        read again from where it was put, without waiting for the Hub."""
        place = resolve(name)
        if place.folder or place.snapshot:
            return load(name)
        offered = not self.public or self.is_on_offer(name)
        most = MAX_BYTES if offered else self.hub_bytes
        if name not in self._folders:
            token = self.token_for(name)
            folder = fetch(name, most, token=token) if offered else self.fetch_for_strangers(name)
            self._folders[name] = folder
        return read_pretrained(self._folders[name], name, most)

    def token_for(self, name: str) -> bool | None:
        """Whose rights at the Hub fetch this model: None, the owner's; False, nobody's, or it would open to
        strangers what is closed."""
        return None if not self.public or name in self.names() else False

    def fetch_for_strangers(self, name: str) -> Path:
        """The folder of what they ask the Hub for: only few models a day, and small ones."""
        self.forget_fetched()
        with self._fetching:
            if name not in self._fetched and len(self._fetched) >= self.hub_models:
                raise CheckpointError(
                    "This server has fetched all the Hub models it may in a day: choose from the list."
                )
            self._fetched.setdefault(name, time.monotonic())
        try:
            return fetch(name, self.hub_bytes, self.lent, token=False)
        except CheckpointError:  # it has not come, so it is not counted
            with self._fetching:
                self._fetched.pop(name, None)
            raise

    def forget_fetched(self) -> None:
        """What strangers had fetched goes after a day, whether or not somebody asks for more."""
        with self._fetching:
            now = time.monotonic()
            for name in [name for name, at in self._fetched.items() if now - at >= DAY]:
                del self._fetched[name]
                self.remove_files(name)

    def remove_files(self, name: str) -> None:
        """Of a model that a stranger had fetched: they would fill the disk."""
        self._arrived.discard(name)
        self._folders.pop(name, None)
        self._towers.pop(name, None)
        shutil.rmtree(self.lent / f"models--{name.replace('/', '--')}", ignore_errors=True)

    def is_here(self, name: str) -> bool:
        """Is this model on this machine, so that it need not be fetched?"""
        return name in self._arrived or folder_of(name) is not None

    def snapshots(self, name: str, damaged: list[str] | None = None) -> list[Snapshot]:
        """The moments of training that this checkpoint kept, in order; none for a model from elsewhere.

        damaged: takes a sentence for each that cannot be read.
        """
        folder = folder_of(self.allowed(name))
        return list_snapshots(folder, [] if damaged is None else damaged) if folder else []

    def allowed(self, name: str) -> str:
        """The one name of this model, or one sentence about why this visitor may not have it
        (CheckpointError)."""
        name = name.strip().removeprefix("hf-hub:")
        if not self.public or self.is_on_offer(name):
            return name
        if not is_id(name) or "@" in name or os.path.exists(name):
            raise CheckpointError(
                f"{name[:80]!r} is not a model on offer here: write a Hub id such as facebook/dino-vits16."
            )
        return name

    def is_on_offer(self, name: str) -> bool:
        """May anyone have this model, because the owner or this project offers it?"""
        if name not in self._on_offer:
            self._on_offer |= set(self.names())
        return name in self._on_offer

    # pictures ----------------------------------------------------------------------------------

    def look(
        self,
        picture: str | Path,
        name: str,
        step: int | None = None,
        owner: str = EVERYONE,
        size: str = TRAINED,
        frame: int = 0,
        classes: Classes | None = None,
    ) -> Look:
        """Put a picture's file, or the frame of a clip's, in front of a model, with classes of the visitor's.
        Raises CheckpointError."""
        digest = digest_of(picture)
        name = self.allowed(name)
        self.gone.discard(owner)  # a phone that slept comes back
        self.late.discard(owner)
        for left in list(self.late):
            self.late.discard(left)
            self.results.release(left)
        key = self.model(name, step).key
        return Look(self, name, step, key, Path(picture), digest, owner, size, frame, classes)

    def pixels(self, file: str | Path, digest: str, owner: str = EVERYONE) -> np.ndarray:
        """(height, width, 3) of a picture's file, by the digest of its bytes: decoded once for all who ask.

        It may take `vit.pictures.SECONDS`: asked for first where no look waits. Raises PictureError.
        """

        def decode() -> Clip:
            return Clip(np.asarray(open_safely(file))[None], (0.0,))

        return self.keep_decoded(digest, decode, owner).frames[0]

    def clip(self, file: str | Path, digest: str, owner: str = EVERYONE) -> Clip:
        """The frames of a clip's file, as `pixels`, but only one clip at a time. It may take
        `vit.clips.SECONDS`. Raises ClipError."""

        def decode() -> Clip:
            with self._decoding:
                self.still_wanted(owner)
                return open_clip_safely(file)

        return self.keep_decoded(digest, decode, owner)

    def keep_decoded(self, digest: str, decode: Callable[[], Clip], owner: str = EVERYONE) -> Clip:
        """The clip under this digest, or the picture as one of one frame. What was decoded lies in a file,
        too: where memory has no room for it, it is read again at once, whoever asks."""

        def make() -> Clip:
            fresh: list[Clip] = []

            def write() -> Path:
                path = self.folder / f"{secrets.token_hex(16)}.npz"
                fresh.append(clip := decode())
                try:
                    np.savez(path, frames=clip.frames, times=clip.times)
                except OSError:  # such as a disk that is full
                    path.unlink(missing_ok=True)
                    raise
                return path

            while True:
                path = self.films.get(digest, write, owner)
                if fresh:
                    return fresh[0]
                with suppress(FileNotFoundError), np.load(path) as found:  # forgotten meanwhile: once more
                    return Clip(found["frames"], tuple(found["times"].tolist()))

        return self.remember(("decoded", digest), make, owner)

    def is_decoded(self, file: str | Path) -> bool:
        """Are the pixels of this file at hand? Those of the examples are as good as that."""
        digest = digest_of(file)
        held = self.results.peek(("decoded", digest)) or self.films.peek(digest)
        return held is not None or Path(file).is_relative_to(self.folder)

    def came_from(self, owner: str, address: str) -> None:
        """Whoever opens many pages is one visitor: what all of them hold is counted together."""
        self.pages.get(owner, lambda: owner, address)

    def address_of(self, owner: str) -> str:
        found = self.pages.peek(owner)
        return next(iter(found[1])) if found else owner

    def still_wanted(self, owner: str) -> None:
        """Raises Left where nobody waits for the work any more: called between its steps."""
        if owner in self.gone:
            raise Left

    def remember(self, key: Hashable, make: Callable[[], V], owner: str = EVERYONE) -> V:
        """A result, made once for all who ask, and kept until they have left or there is no more room."""
        mine = False

        def made() -> V:
            nonlocal mine
            mine = True
            return make()

        while True:
            try:
                value = self.results.get(key, made, owner)
                break
            except Left:  # who was making it; this visitor may only have waited for them
                if mine:
                    raise
                self.still_wanted(owner)
        if owner in self.gone:  # closed the tab while it was made
            self.late.add(owner)
        return value

    def remembered(self, key: Hashable) -> Any:
        """This result if it is there, else None: nothing is made."""
        found = self.results.peek(key)
        return found and found[0]

    # what browsers fetch -----------------------------------------------------------------------

    def promise(
        self, key: Hashable, make: Callable[[], bytes], suffix: str = "bin", owner: str = EVERYONE
    ) -> str:
        """An address, relative to the page, under a name that only this process can derive.

        make asks for what it needs when it runs, and holds no tensor: promises are counted, not weighed. Of
        two who promise the same the later one keeps it: the earlier one's picture may be gone by then.
        """
        name = hmac.new(self._secret, repr(key).encode(), "sha256").hexdigest() + "." + suffix
        self.promises.put(name, make, owner)
        if owner in self.gone:
            self.promises.release(owner)
        return f"{ROUTE}/{name}"

    def is_made(self, name: str) -> bool:
        """Is what is behind this address there already?"""
        return self.shards.peek(name) is not None

    def open_promise(self, name: str) -> BinaryIO | None:
        """What is behind an address, made when first asked for, as an open file: it may be too large to hold.
        None if nobody was promised it."""
        promised = self.promises.peek(name)
        if promised is None:
            return None
        make, owners = promised
        opened: list[BinaryIO] = []

        def write() -> Path:  # a name of its own: removing what was forgotten never hits what was made anew
            path, content = self.folder / secrets.token_hex(16), make()
            try:
                path.write_bytes(content)
                opened.append(path.open("rb"))  # now: a file too large to keep is removed at once
            except OSError:  # such as a disk that is full
                path.unlink(missing_ok=True)
                raise
            return path

        for _ in range(TRIES):
            path = self.shards.get(name, write, *owners)
            for owner in owners & self.gone:
                self.shards.release(owner)
            if opened:
                return opened.pop()
            with suppress(FileNotFoundError):  # forgotten between finding and opening it
                return path.open("rb")
        return None

    def release(self, owner: str) -> None:
        """A tab was closed: forget what nobody else is looking at, also what is only just being made."""
        if len(self.gone) >= MAX_GONE:
            self.gone.clear()
        self.gone.add(owner)
        self.stopped.pop(owner, None)
        if owner not in self.pages:  # it never asked for anything: Gradio keeps something even so
            self.pages.dropped(owner)
        for kept in (self.results, self.promises, self.shards, self.films):
            kept.release(owner)


def digest_of(file: str | Path) -> str:
    """What tells the content of one file from another's."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def key_of(name: str, step: int | None, file: Path | None) -> str:
    """What a model is kept under; a run that is going on writes its file again, and is another model then."""
    written = file.stat().st_mtime_ns if file and file.is_file() else 0
    return f"{name}@{step}#{written}"


def give_back_memory() -> None:
    """Freed memory goes back to the system; glibc would keep it: 130 MiB after thirty visitors, measured."""
    with suppress(OSError, AttributeError):  # another libc, which does as it likes
        ctypes.CDLL("libc.so.6").malloc_trim(0)

"""Models and traces, memoised: the only shared mutable state of the project.

Thirty people who look at the same picture cost one forward pass; a person who leaves takes along
what only they needed; whatever is kept is bounded in bytes, the oldest goes first.
"""

import ctypes
import hashlib
import hmac
import math
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vit.card import Card, CheckpointError, check_channels
from vit.checkpoint import Snapshot, list_snapshots, load_snapshot, snapshot_path
from vit.hub import fetch, read_pretrained
from vit.library import folder_of, list_checkpoints, load, resolve
from vit.model import Hook, ViT, native_bf16
from vit.pictures import open_picture, preprocess
from vit.trace import Cost, Trace, attention_at, cost, trace

V = TypeVar("V")
MiB = 2**20
EVERYONE = ""  # an owner who never leaves: what the house itself keeps
ROUTE = "shard"  # where the app serves what was promised
MAX_PROMISES = 20_000
MAX_GONE = 1_000  # visitors who have left: something of theirs may still be in the making
DAY = 24 * 3600.0  # seconds
ATTENTION_LIMIT = 640 * MiB  # beyond this, attention is made again layer by layer from the residual stream
PASS_LIMIT = (8192 * MiB, 20e12)  # (bytes at once, operations) of a forward pass that is begun at all,
PUBLIC_PASS_LIMIT = (1024 * MiB, 2e12)  # and where strangers may begin it
PUBLIC_WORK_LIMIT = 1e13  # operations of all passes that a stranger may ask for at once: a minute or two here
BF16_FROM = 20e9  # operations of a forward pass; below, float32 is quick and exact (benchmarks/visitors.py)

# Small published models worth a look beside the bundled ones; fetched on first use.
PUBLISHED = {
    "facebook/dino-vits8": "DINO S/8: heads that found objects without labels",
    "facebook/dino-vits16": "DINO S/16",
    "facebook/dinov2-with-registers-small": "DINOv2 S/14 with registers",
    "facebook/dinov2-small": "DINOv2 S/14: look for high-norm tokens",
    "facebook/deit-tiny-patch16-224": "DeiT Ti/16, ImageNet-1k",
    "timm/vit_small_patch16_224.augreg_in21k_ft_in1k": "AugReg S/16, ImageNet-1k",
    "google/vit-base-patch16-224": "ViT B/16, ImageNet-1k",
}


# How large a picture is shown to the model; positions are resampled to the grid that results.
TRAINED, WHOLE, DOUBLE, WHOLE_DOUBLE = (
    "as trained",
    "whole picture",
    "twice as large",
    "whole, twice as large",
)
SIZES = (TRAINED, WHOLE, DOUBLE, WHOLE_DOUBLE)


def nbytes(value: Any) -> int:
    """What a value holds in memory: its tensors and arrays, wherever they lie; everything else is small."""
    if isinstance(value, Tensor | np.ndarray):
        return value.nbytes
    if isinstance(value, nn.Module):
        return sum(nbytes(x) for x in value.state_dict().values())
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, Mapping):
        return 64 + sum(nbytes(x) for x in value.values())
    if isinstance(value, Sequence | set):
        return 64 + sum(nbytes(x) for x in value)
    if is_dataclass(value):
        return 64 + sum(nbytes(getattr(value, f.name)) for f in fields(value))
    return 64


@dataclass
class Entry(Generic[V]):
    value: V
    size: int
    owners: set[str]


class Cache(Generic[V]):
    """Values by key: made once however many ask at once, and forgotten, oldest first, beyond `max_bytes`.

    A value larger than the bound is given to those who asked and not kept, and drives nothing out.
    `dropped` hears of every value that is forgotten, of one too large to keep, too.
    """

    def __init__(
        self,
        max_bytes: int,
        size: Callable[[V], int] = nbytes,
        dropped: Callable[[V], None] = lambda value: None,
    ):
        self.max_bytes, self.size, self.dropped = max_bytes, size, dropped
        self.held = 0  # bytes
        self._entries: OrderedDict[Hashable, Entry[V]] = OrderedDict()
        self._making: dict[Hashable, Future[V]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, make: Callable[[], V], *owners: str) -> V:
        """The value under this key, made now if nobody has it; an error in making it reaches all who wait.

        It is kept until its owners have left; without an owner, until there is no more room.
        """
        owners = owners or (EVERYONE,)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                self._entries[key].owners.update(owners)
                return self._entries[key].value
            waiting = self._making.get(key)
            if waiting is None:
                mine = self._making[key] = Future()
        if waiting is not None:
            value = waiting.result()
            with self._lock:
                if key in self._entries:
                    self._entries[key].owners.update(owners)
            return value
        try:
            value = make()
            size = self.size(value)
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        forgotten = []
        with self._lock:
            del self._making[key]
            if size > self.max_bytes:
                forgotten.append(value)
            else:
                self._entries[key] = Entry(value, size, set(owners))
                self.held += size
            while self.held > self.max_bytes:
                forgotten.append(self._forget(next(iter(self._entries))))
        mine.set_result(value)
        for old in forgotten:
            self.dropped(old)
        return value

    def peek(self, key: Hashable) -> tuple[V, set[str]] | None:
        """(value, owners) if it is there; who looks at it uses it, so it will not be the next to go."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry.value, set(entry.owners)

    def put(self, key: Hashable, value: V, *owners: str) -> None:
        """Keep this value from now on, in place of the one that was there, whose owners stay."""
        with self._lock:
            if (entry := self._entries.get(key)) is not None:
                self.held += self.size(value) - entry.size
                entry.value, entry.size = value, self.size(value)
                entry.owners.update(owners or (EVERYONE,))
                self._entries.move_to_end(key)
                return
        self.get(key, lambda: value, *owners)

    def _forget(self, key: Hashable) -> V:
        entry = self._entries.pop(key)
        self.held -= entry.size
        return entry.value

    def release(self, owner: str) -> None:
        """This owner has left: forget what nobody else holds."""
        with self._lock:
            for entry in self._entries.values():
                entry.owners.discard(owner)
            orphans = [key for key, entry in self._entries.items() if not entry.owners]
            forgotten = [self._forget(key) for key in orphans]
        for old in forgotten:
            self.dropped(old)


def runs_in_bf16(model: ViT) -> bool:
    """Does a first look run in bf16? Where the processor is made for it, and the pass long."""
    device = next(model.parameters()).device
    return device.type == "cpu" and native_bf16(device) and cost(model.config).flops >= BF16_FROM


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready to be looked into. key tells two versions of the same checkpoint apart."""

    model: ViT
    card: Card
    key: str

    @cached_property
    def half(self) -> ViT:
        """The same model in bf16. Autocast would round all weights anew at every look: 1.7 x its time."""
        return deepcopy(self.model).bfloat16()

    @property
    def nbytes(self) -> int:
        """With the copy in bf16, where there will be one."""
        return nbytes(self.model) * (3 if runs_in_bf16(self.model) else 2) // 2


@dataclass(frozen=True, eq=False)
class Look:
    """One picture in front of one model: what every view is given, and asks for what it shows.

    Nothing is computed until asked for, and nothing twice. A Look is small and holds no tensor: what
    it asks for may have been forgotten in the meantime, and is then made again.
    """

    session: "Session"
    name: str  # of the model
    step: int | None  # of its training, or as it is
    key: str  # of these very weights
    picture: Path
    digest: str  # of the picture's bytes
    owner: str
    size: str  # one of SIZES

    @property
    def loaded(self) -> Loaded:
        loaded = self.session.model(self.name, self.step)
        if loaded.key != self.key:
            raise CheckpointError(
                f"{self.name} was written again in the meantime: choose the picture once more."
            )
        return loaded

    @property
    def model(self) -> ViT:
        return self.loaded.model

    @property
    def card(self) -> Card:
        return self.loaded.card

    def remember(self, what: Hashable, make: Callable[[], V]) -> V:
        """A result that depends on this picture, this model and `what`."""
        value = self.session.results.get((self.key, self.digest, self.size, what), make, self.owner)
        if self.owner in self.session.gone:  # closed the tab while it was made
            self.session.late.add(self.owner)
        return value

    def remembered(self, what: Hashable) -> Any:
        """This result if it is there, else None: nothing is made."""
        found = self.session.results.peek((self.key, self.digest, self.size, what))
        return found and found[0]

    def address(self, what: Hashable, make: Callable[[], bytes], suffix: str = "bin") -> str:
        """Where a browser finds these bytes, made when it first asks for them."""
        return self.session.promise((self.key, self.digest, self.size, what), make, suffix, self.owner)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels: as the model was trained, or what its `size` makes of that."""
        height, width = map(float, self.card.size_for(self.model.config))
        if self.size in (WHOLE, WHOLE_DOUBLE):  # as many pixels, in the picture's own shape
            wide, tall = self.remember("shape", lambda: open_picture(self.picture).size)
            shape = min(max(wide / tall, 1 / 3), 3.0)
            height, width = math.sqrt(height * width / shape), math.sqrt(height * width * shape)
        factor = 2 if self.size in (DOUBLE, WHOLE_DOUBLE) else 1

        def in_patches(side: float) -> int:
            patch = self.model.config.patch_size
            return max(1, round(factor * side / patch)) * patch

        return in_patches(height), in_patches(width)

    @property
    def image(self) -> Tensor:
        """(3, height, width): the picture as the model takes it."""
        whole = self.size in (WHOLE, WHOLE_DOUBLE)
        card = replace(self.card, crop_pct=1.0) if whole else self.card  # of the whole, nothing is cut off
        return self.remember("image", lambda: preprocess(open_picture(self.picture), card, self.image_size))

    def trace(self, target: int | None = None, edits: tuple[Hook, ...] = (), exact: bool = False) -> Trace:
        """What the forward pass did; with a target, also its gradients; with edits, after them.

        exact: in float32 also where a look at this model runs in bf16. Raises TooLarge.
        """
        self.check_cost(target)
        exact = exact or target is not None or not self.in_bf16
        keep = ("attn", "resid_post") if self.keeps_attention else ("resid_post",)

        def make() -> Trace:
            image, loaded = self.image, self.loaded
            with self.session.model_lock:
                model = loaded.model if exact else loaded.half
                return trace(model, image, target=target, edits=edits, keep=keep)

        return self.remember(("trace", target, edits, exact), make)

    def check_cost(self, target: int | None) -> None:
        """Raises TooLarge where one pass would take more than this machine may give it."""
        most_bytes, most_flops = PUBLIC_PASS_LIMIT if self.session.public else PASS_LIMIT
        at_once = 3 * self.cost.layer_bytes  # one layer's scores, their softmax, and the copy to take home
        smaller = "choose a smaller size or a model with fewer tokens."
        if at_once > most_bytes or self.cost.flops > most_flops:
            work = f"{at_once / 2**30:.1f} GiB at once and {self.cost.flops / 1e12:.1f} trillion operations"
            raise TooLarge(f"This look needs {work}, too much here: {smaller}")
        if target is not None and not self.keeps_attention:
            needed = self.cost.attn_bytes / 2**30
            raise TooLarge(f"This needs {needed:.1f} GiB of attention at once: {smaller}")

    def check_work(self, passes: float) -> None:
        """Raises TooLarge where strangers share this machine and so many passes would make them wait."""
        work = passes * self.cost.flops
        if self.session.public and work > PUBLIC_WORK_LIMIT:
            raise TooLarge(
                f"This needs {work / 1e12:.0f} trillion operations, too much where others wait: "
                "choose a smaller size or a smaller model."
            )

    @property
    def cost(self) -> Cost:
        return cost(self.model.config, self.image_size)

    @property
    def in_bf16(self) -> bool:
        """Does a first look run in bf16?"""
        return runs_in_bf16(self.model)

    @property
    def keeps_attention(self) -> bool:
        return self.cost.attn_bytes <= ATTENTION_LIMIT

    def attention(self, layer: int, edits: tuple[Hook, ...] = ()) -> Tensor:
        """One layer's attention (H, T, T), also where there is too much of it to keep it all."""
        traced = self.trace(edits=edits)
        if self.keeps_attention:
            return traced.attn[layer]
        with self.session.model_lock:
            return attention_at(self.model, traced.tokens[layer], layer, edits)


class TooLarge(ValueError):
    """A look takes more memory or work than it may; the message says how much and what to do."""


@dataclass(eq=False)
class Session:
    """Everything that visitors share. public: strangers can reach it, so folders stay closed to them."""

    public: bool = False
    extra: tuple[str, ...] = ()  # checkpoints that the owner named on the command line
    result_bytes: int = 2048 * MiB  # room for a trace of ATTENTION_LIMIT and one with gradients, twice that
    model_bytes: int = 4096 * MiB
    shard_bytes: int = 2048 * MiB  # files of theirs
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
        self.gone: set[str] = set()  # owners whose tab was closed
        self.late: set[str] = set()  # those for whom something was still made: it goes with the next look
        self.coming: list[str] = []  # names of models that are being fetched, once for each who waits
        self._arrived: set[str] = set()  # names of models whose files are here
        self.models: Cache[Loaded] = Cache(self.model_bytes, lambda loaded: loaded.nbytes)
        self.results: Cache[Any] = Cache(self.result_bytes)
        self.promises: Cache[Callable[[], bytes]] = Cache(MAX_PROMISES, lambda make: 1)
        self.shards: Cache[Path] = Cache(
            self.shard_bytes, lambda path: path.stat().st_size, lambda path: path.unlink(missing_ok=True)
        )

    # models ------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Checkpoints that are on this machine: those named by the owner first, then the bundled ones."""
        extra = [name.removeprefix("hf-hub:") for name in self.extra]
        return [*extra, *(name for name in list_checkpoints() if name not in extra)]

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
            return Loaded(model.to("cuda" if torch.cuda.is_available() else "cpu"), card, key)

        loaded = self.models.get(key, make)
        self._arrived.add(name)
        return loaded

    def fetch(self, name: str) -> None:
        """See to it that this model is here. Raises CheckpointError."""
        self.coming.append(name)
        try:
            self.model(name)
        finally:
            self.coming.remove(name)

    def load(self, name: str) -> tuple[ViT, Card]:
        """A checkpoint that nobody holds yet; of what strangers ask the Hub for, only few and small ones."""
        if not self.public or name in self.names() or name in PUBLISHED:
            return load(name)
        with self._fetching:
            now = time.monotonic()
            for known in [known for known, at in self._fetched.items() if now - at >= DAY]:
                del self._fetched[known]
                self.remove_files(known)
            if name not in self._fetched and len(self._fetched) >= self.hub_models:
                raise CheckpointError(
                    "This server has fetched all the Hub models it may in a day: choose from the list."
                )
            self._fetched.setdefault(name, now)
        try:
            folder = fetch(name, self.hub_bytes, self.lent)
        except CheckpointError:  # it has not come, so it is not counted
            with self._fetching:
                self._fetched.pop(name, None)
            raise
        return read_pretrained(folder, name, self.hub_bytes)

    def remove_files(self, name: str) -> None:
        """What a stranger had fetched goes when it is of no use, or after a day: it would fill the disk."""
        self._arrived.discard(name)
        shutil.rmtree(self.lent / f"models--{name.replace('/', '--')}", ignore_errors=True)

    def is_here(self, name: str) -> bool:
        """Is this model on this machine, so that it need not be fetched?"""
        return name in self._arrived or folder_of(name) is not None

    def snapshots(self, name: str) -> list[Snapshot]:
        """The moments of training that this checkpoint kept, in order; none for a model from elsewhere."""
        folder = folder_of(self.allowed(name))
        return list_snapshots(folder) if folder else []

    def allowed(self, name: str) -> str:
        """The one name of this model, or one sentence about why this visitor may not have it
        (CheckpointError)."""
        name = name.strip().removeprefix("hf-hub:")
        if not self.public or name in self.names() or name in PUBLISHED:
            return name
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or os.path.exists(name):
            raise CheckpointError(
                f"{name[:80]!r} is not a model on offer here: write a Hub id such as facebook/dino-vits16."
            )
        return name

    # pictures ----------------------------------------------------------------------------------

    def look(
        self,
        picture: str | Path,
        name: str,
        step: int | None = None,
        owner: str = EVERYONE,
        size: str = TRAINED,
    ) -> Look:
        """Put a picture's file in front of a model. Raises CheckpointError."""
        digest = hashlib.sha256(Path(picture).read_bytes()).hexdigest()
        name = self.allowed(name)
        self.gone.discard(owner)  # a phone that slept comes back
        for left in self.late & self.gone:
            self.late.discard(left)
            self.results.release(left)
        return Look(self, name, step, self.model(name, step).key, Path(picture), digest, owner, size)

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

    def keep_promise(self, name: str) -> bytes | None:
        """What is behind an address, made when first asked for; None if nobody was promised it."""
        file = self.open_promise(name)
        if file is None:
            return None
        with file:
            return file.read()

    def open_promise(self, name: str) -> BinaryIO | None:
        """The same as an open file, for what is too large to hold."""
        try:
            path = self._file_of(name)
            return path.open("rb") if path else None
        except FileNotFoundError:  # forgotten between finding and opening it: a tab was closed at this moment
            path = self._file_of(name)
            return path.open("rb") if path else None

    def _file_of(self, name: str) -> Path | None:
        promised = self.promises.peek(name)
        if promised is None:
            return None
        make, owners = promised

        def write() -> Path:  # a name of its own: removing what was forgotten never hits what was made anew
            path = self.folder / secrets.token_hex(16)
            path.write_bytes(make())
            return path

        path = self.shards.get(name, write, *owners)
        for owner in owners & self.gone:
            self.shards.release(owner)
        return path

    def release(self, owner: str) -> None:
        """A tab was closed: forget what nobody else is looking at, also what is only just being made."""
        if len(self.gone) >= MAX_GONE:
            self.gone.clear()
        self.gone.add(owner)
        for kept in (self.results, self.promises, self.shards):
            kept.release(owner)
        give_back_memory()


def key_of(name: str, step: int | None, file: Path | None) -> str:
    """What a model is kept under; a run that is going on writes its file again, and is another model then."""
    written = file.stat().st_mtime_ns if file and file.is_file() else 0
    return f"{name}@{step}#{written}"


def give_back_memory() -> None:
    """Freed memory goes back to the system; glibc would keep it: 130 MiB after thirty visitors, measured."""
    with suppress(OSError, AttributeError):  # another libc, which does as it likes
        ctypes.CDLL("libc.so.6").malloc_trim(0)

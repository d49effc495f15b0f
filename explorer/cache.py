"""Values by key: made once however many ask, bounded in bytes, the oldest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

V = TypeVar("V")
MiB = 2**20
EVERYONE = ""  # an owner who never leaves: what is kept for all


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

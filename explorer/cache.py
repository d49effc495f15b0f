"""Values by key: made once however many ask, bounded in bytes, the oldest goes first."""

import threading
from collections import Counter, OrderedDict
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
    party: str = EVERYONE  # whose account it is on
    booked: int = 0  # bytes of it that are on that account


class Cache(Generic[V]):
    """Values by key: made once however many ask at once, and forgotten beyond `max_bytes`: the oldest of
    whoever holds most, so that nobody pushes out what others look at.

    A value larger than the bound is given to those who asked and not kept, and drives nothing out.
    `dropped` hears of every value that is forgotten, of one too large to keep, too.
    party: who an owner is, where one visitor may come under many names.
    """

    def __init__(
        self,
        max_bytes: int,
        size: Callable[[V], int] = nbytes,
        dropped: Callable[[V], None] = lambda value: None,
        party: Callable[[str], str] = str,
    ):
        self.max_bytes, self.size, self.dropped, self.party = max_bytes, size, dropped, party
        self.held_by: Counter[str] = Counter()  # bytes that only this party holds; EVERYONE: that several do
        self._entries: OrderedDict[Hashable, Entry[V]] = OrderedDict()
        self._making: dict[Hashable, Future[V]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held(self) -> int:
        """Bytes."""
        return self.held_by.total()

    def get(self, key: Hashable, make: Callable[[], V], *owners: str) -> V:
        """The value under this key, made now if nobody has it; an error in making it reaches all who wait.

        It is kept until its owners have left; without an owner, until there is no more room.
        """
        owners = owners or (EVERYONE,)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                self._hold(self._entries[key], *owners)
                return self._entries[key].value
            waiting = self._making.get(key)
            if waiting is None:
                mine = self._making[key] = Future()
        if waiting is not None:
            value = waiting.result()
            with self._lock:
                if key in self._entries:
                    self._hold(self._entries[key], *owners)
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
                self._entries[key] = Entry(value, size, set())
                self._hold(self._entries[key], *owners)
            while self.held > self.max_bytes:
                forgotten.append(self._forget(self._next_to_go()))
        mine.set_result(value)
        for old in forgotten:
            self.dropped(old)
        return value

    def __contains__(self, key: Hashable) -> bool:
        """Whether it is there; its turn to go is no later for it."""
        return key in self._entries

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
                entry.value, entry.size = value, self.size(value)
                self._hold(entry, *(owners or (EVERYONE,)))
                self._entries.move_to_end(key)
                return
        self.get(key, lambda: value, *owners)

    def _hold(self, entry: Entry[V], *owners: str) -> None:
        """These owners hold it, too."""
        entry.owners.update(owners)
        self._book(entry)

    def _book(self, entry: Entry[V]) -> None:
        """Put it on the account of the party that its owners are, or of EVERYONE where they are several."""
        parties = {self.party(owner) for owner in entry.owners}
        self._weigh(entry.party, -entry.booked)
        entry.party, entry.booked = parties.pop() if len(parties) == 1 else EVERYONE, entry.size
        self._weigh(entry.party, entry.booked)

    def _weigh(self, party: str, size: int) -> None:
        self.held_by[party] += size
        if not self.held_by[party]:
            del self.held_by[party]

    def _next_to_go(self) -> Hashable:
        """The oldest of the party that holds most."""
        ((most, _),) = self.held_by.most_common(1)
        return next(key for key, entry in self._entries.items() if entry.party == most)

    def _forget(self, key: Hashable) -> V:
        entry = self._entries.pop(key)
        self._weigh(entry.party, -entry.booked)
        return entry.value

    def release(self, owner: str) -> None:
        """This owner has left: forget what nobody else holds."""
        with self._lock:
            for entry in self._entries.values():
                if owner in entry.owners:
                    entry.owners.discard(owner)
                    self._book(entry)
            orphans = [key for key, entry in self._entries.items() if not entry.owners]
            forgotten = [self._forget(key) for key in orphans]
        for old in forgotten:
            self.dropped(old)

"""What a process leaves behind, and when it is removed: one temporary folder per process, swept on start, by
age, and on stop, whichever way it ends. Imported before Gradio, which takes its folder from the environment.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

PREFIX = "vit-explorer-"
LOCK = "lock"  # held by the process whose folder it is
DAY = 24 * 3600.0  # seconds
KEPT = 3600.0  # seconds that an upload stays
CUT_OFF = 600.0  # and what came only in part
EVERY = 60.0  # seconds between two sweeps
OFTEN = 4  # times as often as that what costs little is done


def upload_folder() -> Path:
    """Where Gradio puts what visitors send."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")


class Workplace:
    """The folder of this process: all temporary files, its own and Gradio's, lie in it.

    A folder of its own, so that nobody else who uses this machine is in the way; locked, so that the next
    start removes what a killed process has left. It lies in $GRADIO_TEMP_DIR, where that is set.
    """

    def __init__(self) -> None:
        parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        remove_left_behind(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = lock(self.folder / LOCK)
        self._before = tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")
        tempfile.tempdir = str(self.folder)
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder / "uploads")

    def close(self) -> None:
        tempfile.tempdir, uploads = self._before
        if uploads is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = uploads
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def lock(path: Path) -> BinaryIO | None:
    """The file, locked until it is closed or the process ends; None if another process holds it."""
    file = path.open("wb")
    try:
        import fcntl
    except ImportError:  # Windows: an open file cannot be removed there
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def remove_left_behind(parent: Path) -> None:
    """Folders of processes that were killed: their lock is free."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's
            if not (folder / LOCK).exists():  # just being made, or made by a test or a notebook
                if time.time() - folder.stat().st_mtime > DAY:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            held = lock(folder / LOCK)
            if held is not None:
                held.close()
                shutil.rmtree(folder, ignore_errors=True)


class Kept:
    """Whose uploads lie on the disk, each in a folder of its own: where there are too many, the oldest go.

    What lies there is known from when it came and from the last `look_again`: it is not asked of the disk for
    every upload, which would take as long as there are files.
    """

    def __init__(self, of_one: int):
        self.of_one = of_one  # bytes of one address
        self.folders: OrderedDict[Path, tuple[str, int]] = OrderedDict()  # whose, and bytes; the oldest first
        self.others = 0  # bytes of all else, such as what has come only in part
        self._lock = threading.RLock()

    def add(self, address: str, files: Iterable[Path]) -> None:
        """Files that came from this address; its oldest ones go where it has too many."""
        with self._lock:
            for file in files:
                self.folders[file.parent] = address, size_in(file.parent)
                self.folders.move_to_end(file.parent)
            self.bound(address)

    def bound(self, address: str) -> None:
        """This address's oldest ones go where it has too many."""
        while self.held()[address] > self.of_one:
            self.drop_oldest(address)

    def make_room(self, size: int) -> None:
        """Remove so many bytes, the oldest of whoever holds most, as far as there are any."""
        with self._lock:
            while size > 0 and (held := self.held()):
                size -= self.drop_oldest(held.most_common(1)[0][0])

    def held(self) -> Counter[str]:
        """Bytes by address."""
        held: Counter[str] = Counter()
        with self._lock:
            for address, size in self.folders.values():
                held[address] += size
        return held

    def in_all(self, smallest: int) -> int:
        """Bytes, of each folder at least so many."""
        with self._lock:
            return self.others + sum(max(size, smallest) for _, size in self.folders.values())

    def drop_oldest(self, address: str) -> int:
        """Remove it; returns the bytes that this gave back."""
        folder = next(folder for folder, (of, _) in self.folders.items() if of == address)
        size = size_in(folder)
        shutil.rmtree(folder, ignore_errors=True)
        del self.folders[folder]
        return size

    def look_again(self, uploads: Path) -> None:
        """Measure what lies here once more: uploads go, and clips are made of some. For a thread: it asks for
        every file."""
        with self._lock:
            known = set(self.folders)
        sizes, others = {folder: size_in(folder) for folder in known}, 0
        with suppress(OSError), os.scandir(uploads) as entries:
            for entry in entries:
                if (path := Path(entry.path)) not in known:
                    with suppress(OSError):
                        others += size_in(path) if entry.is_dir() else entry.stat().st_size
        with self._lock:
            self.others = others
            for folder in sizes.keys() & self.folders.keys():
                address, _ = self.folders[folder]
                self.folders[folder] = address, sizes[folder]  # in its place
                if not sizes[folder]:
                    del self.folders[folder]
            for address in self.held():
                self.bound(address)


def size_in(folder: Path) -> int:
    """Bytes of the files in a folder and below it, which may go at any moment."""
    total = 0
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                total += size_in(path) if path.is_dir() else path.stat().st_size
    return total


def sweep(uploads: Path, now: float | None = None) -> None:
    """Remove uploads of more than an hour ago, and what came only in part."""
    now = time.time() if now is None else now
    for path in list(uploads.rglob("*")) if uploads.is_dir() else ():
        with suppress(OSError):
            if path.is_dir():
                if not any(path.iterdir()) and now - path.stat().st_mtime > CUT_OFF:
                    path.rmdir()
                continue
            part = path.parent == uploads and path.name.startswith("tmp")
            if now - path.stat().st_mtime > (CUT_OFF if part else KEPT):
                path.unlink()


def keep_swept(*also: Callable[[], Any]) -> None:
    """Sweep the uploads every minute, and call these four times as often, as long as the process runs."""

    def run() -> None:
        for turn in count(1):
            time.sleep(EVERY / OFTEN)
            if turn % OFTEN == 0:
                sweep(upload_folder())
            for call in also:
                with suppress(Exception):  # this thread must go on
                    call()

    threading.Thread(target=run, name="upkeep", daemon=True).start()


def many_descriptors() -> None:
    """As many open files and connections as the system allows this process: its usual number is small."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))


def most_descriptors() -> int:
    """How many files and connections this process may have open."""
    try:
        import resource
    except ImportError:  # Windows, where nothing has to be done for it
        return 8192
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def stop_on_term() -> None:
    """What a container or a service manager sends ends the app as Ctrl-C does: files are removed."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)

"""How much memory there is, told before it is spent."""

import os
from pathlib import Path

import torch


def free_memory() -> float:
    """Bytes that this process may still take: of the machine, of its container, of its own limit.

    Infinite where the system does not say.
    """
    return min(of_the_machine(), of_the_container(), of_this_process())


def is_short_of_memory(problem: BaseException) -> bool:
    """Whether an error says that there was no memory left; PyTorch's own does on a CPU only in words."""
    said = "can't allocate memory" in str(problem) or "not enough memory" in str(problem)
    return said or isinstance(problem, MemoryError | torch.OutOfMemoryError)


def of_the_machine() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return float("inf")


def of_the_container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """A container's limit less what it holds; files that it has read do not count, they can be let go."""
    try:
        limit = int((folder / "memory.max").read_text())
        held = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - int(held["anon"]) - int(held.get("shmem", 0))
    except (OSError, KeyError, ValueError):  # "max" is no number: no limit
        return float("inf")


def of_this_process() -> float:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError):
        return float("inf")
    return float("inf") if limit == resource.RLIM_INFINITY else limit - pages * os.sysconf("SC_PAGE_SIZE")

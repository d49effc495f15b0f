"""A training run's folder and its processes: what is kept, who may write, how it stops and goes on."""

import csv
import errno
import io
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from torch import Tensor, nn

from vit.card import Card
from vit.checkpoint import (
    CONFIG,
    NEXT_CONFIG,
    WEIGHTS,
    is_ours,
    remove_half_written,
    save,
    save_snapshot,
    snapshot_files,
    write_atomically,
)
from vit.data import Split
from vit.folders import readable
from vit.masked import vit_of
from vit.memory import is_short_of_memory
from vit.options import FREE, Options, flag
from vit.processor import native_bf16
from vit.schedule import Schedule
from vit.teacher import FILE as TEACHER

STATE = 2  # the version of state.pt: of steps that go on as this file makes them


class RunError(ValueError):
    """A run cannot go on; the message says why and what to do, in one sentence."""


class Run:
    """A run in its folder: all that its steps so far have made."""

    def __init__(
        self,
        options: Options,
        card: Card,
        data: Split,
        folder: Path,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
    ):
        self.options, self.card, self.folder = options, card, folder
        self.images, self.content = len(data), data.content  # of the training split
        self.teacher = ""  # which one it learns from: its fingerprint
        self.model, self.optimizers = model, optimizers
        self.ema = deepcopy(model).eval().requires_grad_(False)
        device = next(model.parameters()).device
        self.bf16 = options.precision == "bf16" or (options.precision == "auto" and native_bf16(device))
        self.step, self.minutes = 0, 0.0
        self.commands: list[tuple[int, str]] = []  # (the step from which it was followed, as it was typed)
        self.losses: list[Tensor] = []  # since the last evaluation
        self.history: list[dict[str, float]] = []

    def save_state(self) -> None:
        """All that the next step depends on, in one file that is whole at every moment."""
        state = dict(version=STATE, options=asdict(self.options), commands=self.commands)
        state |= dict(bf16=self.bf16, step=self.step, minutes=self.minutes)
        state |= dict(class_names=list(self.card.class_names), images=self.images, content=self.content)
        state |= dict(losses=self.losses, mean=self.card.mean, std=self.card.std, teacher=self.teacher)
        state |= dict(history=self.history, model=self.model.state_dict(), ema=self.ema.state_dict())
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.folder / "state.pt", buffer.getvalue())

    def load_state(self, device: torch.device) -> None:
        """Go on where the last complete state was written. Raises RunError if that was another run."""
        path = self.folder / "state.pt"
        if not path.is_file():
            return
        try:
            with zipfile.ZipFile(path) as parts:
                if parts.testzip():  # torch itself does not look whether a tensor is what was written
                    raise TypeError("a part of it has changed")
            state = torch.load(path, map_location=device, weights_only=True)
            check_form(state, self.folder)
            self.check_that_it_goes_on(state)
            self.restore(state)
        except (RunError, OSError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as problem:  # whatever torch makes of garbage, and of what is no state of ours
            raise RunError(f"{path} is damaged: put a copy of it back, or --fresh begins again.") from problem

    def check_that_it_goes_on(self, state: dict[str, Any]) -> None:
        """Whether these options and pictures are those of the run so far. Raises RunError."""
        advice = "go on with the same options, give another --out, or --fresh to begin again."
        for name, then in state["options"].items():
            now = getattr(self.options, name)
            if name not in FREE and now != then:
                raise RunError(f"{self.folder} holds a run with {flag(name)} {then}, not {now}: {advice}")
        others = (state["class_names"], state["images"]) != (list(self.card.class_names), self.images)
        if others or not are_same(state.get("content", self.content), self.content):
            there = f"{state['images']} pictures of {len(state['class_names'])} classes"
            back = "put the pictures back that it began with, give another --out, or --fresh to begin again."
            raise RunError(f"{self.folder} holds a run on {there}, which have changed since: {back}")
        if state.get("teacher", self.teacher) != self.teacher:
            back = "put the teacher back that it began with, give another --out, or --fresh to begin again."
            raise RunError(f"{self.folder} holds a run with a teacher that has changed since: {back}")
        schedule, then = Schedule(self.options, self.images), Options(**state["options"])
        complete = state["step"] == Schedule(then, self.images).total
        if state["step"] > schedule.total or (state["step"] == schedule.total and not complete):
            epoch = state["step"] / schedule.per_epoch
            raise RunError(f"{self.folder} is at epoch {epoch:g} already: give more --epochs than that.")
        if state["step"] == schedule.total:
            # all is learned, so others change nothing
            self.options = replace(then, test_size=self.options.test_size)

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `save_state` wrote."""
        self.bf16, self.step, self.minutes = state["bf16"], state["step"], state["minutes"]
        self.commands = state["commands"]
        if "mean" in state:  # whatever the checkpoint that it began with says by now
            self.card = replace(self.card, mean=state["mean"], std=state["std"])
        self.losses, self.history = state["losses"], state["history"]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, old in zip(self.optimizers, state["optimizers"], strict=True):
            groups = optimizer.state_dict()["param_groups"]  # as the options say, which are the same
            optimizer.load_state_dict({"state": old["state"], "param_groups": groups})
            if len({frozenset(kept) for kept in optimizer.state.values()}) > 1:
                raise TypeError("an optimizer keeps for one parameter what it does not keep for another")
            for p, kept in optimizer.state.items():
                if any(not isinstance(x, Tensor) or (x.ndim and x.shape != p.shape) for x in kept.values()):
                    raise TypeError("an optimizer's state is not of the shape of its parameter")

    def forget_later_snapshots(self) -> None:
        """Those of steps that were lost with the process that took them, and may now come out otherwise."""
        for step, file in reversed(snapshot_files(self.folder).items()):  # each differs from the one before
            if step > self.step:
                file.unlink()

    def follow(self, command: str) -> None:
        """Say on the card that the steps to come, if there are any, are those of this command."""
        coming = self.step < Schedule(self.options, self.images).total
        if coming and command not in [typed for _, typed in self.commands[-1:]]:
            self.commands = [c for c in self.commands if c[0] < self.step] + [(self.step, command)]
        lines = [f"{typed}{f'  # from step {step}' if step else ''}" for step, typed in self.commands]
        self.card = replace(self.card, command="\n".join(lines))

    def record(self, row: dict[str, float], snapshot: bool) -> None:
        """One evaluation: history.csv, the weights of now, perhaps a snapshot. The explorer can follow."""
        self.history.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, row, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        if model := vit_of(self.ema):
            try:
                save(self.folder, model, self.card)
            except ValueError as problem:
                advice = "begin again with --fresh and a smaller --lr."
                raise RunError(f"The weights grew beyond fp16 before step {self.step}: {advice}") from problem
            if snapshot:
                save_snapshot(self.folder, model, self.card, self.step, row)
        write_atomically(self.folder / "history.csv", text.getvalue().encode())


def check_form(state: Any, folder: Path) -> None:
    """Whether this is all that `save_state` writes. Raises RunError for another version, and TypeError."""
    if (version := state["version"]) != STATE:
        age = "a newer" if isinstance(version, int) and version > STATE else "an older"
        advice = "go on with that one, give another --out, or --fresh to begin again."
        raise RunError(f"{folder} holds a run of {age} version of train.py: {advice}")
    if strange := state["options"].keys() - {f.name for f in fields(Options)}:
        advice = "go on with that one, give another --out, or --fresh to begin again."
        raise RunError(f"{folder} holds a run of a version of train.py with {flag(min(strange))}: {advice}")
    kinds = dict(step=int, minutes=float, bf16=bool, images=int, class_names=list, commands=list, losses=list)
    kinds |= dict(history=list, model=dict, ema=dict, optimizers=list, options=dict)
    wrong = [name for name, kind in kinds.items() if not isinstance(state[name], kind)]
    rows, losses, commands = state["history"], state["losses"], state["commands"]
    colours = [*state.get("mean", ()), *state.get("std", ())]  # an older state does not say them
    if len(colours) not in (0, 6) or not all(isinstance(x, int | float) for x in colours):
        raise TypeError("its colours are not three numbers each")
    if wrong or state["step"] < 0 or not all(isinstance(x, Tensor) and x.ndim == 0 for x in losses):
        raise TypeError(f"no state of a run: {wrong}")
    for row in rows:
        if row.keys() != rows[0].keys() or not all(isinstance(x, int | float) for x in row.values()):
            raise TypeError("a row of its history is not all numbers")
    for step, typed in commands:
        if not (isinstance(step, int) and isinstance(typed, str)):
            raise TypeError("a command is no text")


@dataclass(frozen=True)
class Team:
    """The processes that torchrun started, of which this is one; alone otherwise."""

    rank: int = 0
    world: int = 1
    accumulate: int = 1  # parts into which each process cuts its share, for little memory

    def any(self, asked: bool, device: torch.device) -> bool:
        """Whether any process is asked to stop: all have to stop after the same step."""
        if self.world == 1:
            return asked
        flag = torch.tensor(float(asked), device=device)
        dist.all_reduce(flag)
        return flag.item() > 0

    def share(self, batch: Tensor) -> list[Tensor]:
        """This process's part of a global batch, in pieces."""
        return list(batch.chunk(self.world)[self.rank].chunk(self.accumulate))


# The folder ------------------------------------------------------------------------------------------


def are_same(then: str, now: str) -> bool:
    """Whether the digests of joined data sets are the same: of those that a state of before knows."""
    return all(old in ("", new) for old, new in zip(then.split(" "), now.split(" "), strict=True))


def check_folder(folder: Path, fresh: bool) -> None:
    """Is this a folder for a run? Raises ValueError."""
    is_run = (folder / "state.pt").is_file()
    is_checkpoint = not is_run and is_ours(folder)
    if is_checkpoint and not fresh:
        advice = "give another --out, or --fresh."
        raise ValueError(f"{folder} holds a checkpoint, not a run to go on with: {advice}")
    if not (is_run or is_checkpoint) and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise ValueError(f"{folder} holds other files: give --out a folder of its own.")


def tidy(folder: Path, fresh: bool) -> None:
    """Remove what a killed process left half-written and, if asked to begin again, the run so far."""
    for place in (folder, folder / "snapshots"):
        remove_half_written(place)
    if fresh:
        others = ("history.csv", "README.md", TEACHER, WEIGHTS, NEXT_CONFIG)
        for file in (*folder.glob("snapshots/step_*"), *(folder / name for name in others)):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # there is none, or others' files are in it
            (folder / "snapshots").rmdir()
        for name in (CONFIG, "state.pt"):  # by which `check_folder` knows it, if it is killed meanwhile
            (folder / name).unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path, team: Team) -> Iterator[None]:
    """Keep a run's folder to this process (or to this team's) until it ends. Raises ValueError."""
    if team.rank > 0:  # the first process, which writes, holds it for all
        yield
        return
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        advice = "wait until it ends, or give another --out."
        raise ValueError(f"Another process trains in {folder} already: {advice}") from error


# The process ------------------------------------------------------------------------------------------


class StopSignal:
    """The first Ctrl-C (or SIGTERM) asks to stop after the step; the second stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def together(team: Team) -> Iterator[None]:
    """What ends one process of a team ends all, each with one sentence. Raises RunError.

    They part only when all is done: torchrun's store still has the addresses of a first meeting at a second.
    """
    try:
        yield
        if team.world > 1:
            dist.destroy_process_group()
    except RuntimeError as problem:
        if team.world > 1 and (isinstance(problem, dist.DistError) or "gloo" in str(problem)):
            advice = "the same command goes on from the last save, with any number of processes."
            raise RunError(f"Another process of this run has ended: {advice}") from problem
        raise


def join_team(device: torch.device) -> torch.device:
    """Meet the other processes of torchrun, if they have not met yet; returns this one's device."""
    patience = timedelta(hours=2)  # while the first one downloads and decodes
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        dist.init_process_group(backend, timeout=patience, device_id=bound)
    return device


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Whatever a person can mend is told in one sentence. Raises SystemExit."""
    try:
        yield
    except ValueError as problem:  # and DataError, CheckpointError, RunError
        raise SystemExit(f"train.py: {problem}") from problem
    except OSError as problem:
        advice = "the same command, without --fresh, goes on."
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            full = "The disk is full. Nothing is lost: free some space;"
            raise SystemExit(f"train.py: {full} {advice}") from problem
        file = f"{readable(str(problem.filename))}: " if problem.filename else ""
        said = f"{file}{problem.strerror or problem}; when that is mended, {advice}"
        raise SystemExit(f"train.py: {said}") from problem
    except (MemoryError, RuntimeError) as problem:
        if not is_short_of_memory(problem):
            raise
        advice = "cut each step in parts with --accumulate 2, or more; or give a smaller --batch-size."
        raise SystemExit(f"train.py: There is too little memory: {advice}") from problem


def usable(name: str) -> torch.device:
    """The device of this name. Raises ValueError."""
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # "meta" has no numbers
        return probe.device
    except (RuntimeError, AssertionError) as problem:
        raise ValueError(f"--device {name} cannot be used here: give cpu, or leave it out.") from problem


def tune_malloc() -> None:
    """Start again with an allocator that keeps its memory: training on a CPU gets 10 to 40 % faster.

    glibc gives large tensors back to the kernel after every step, which clears them for the next one. It
    reads these settings only when a process starts.
    """
    settings = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "MALLOC_MMAP_THRESHOLD_": str(2**32)}
    settings |= {"MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28)}
    if sys.platform == "linux" and not torch.cuda.is_available() and not settings.keys() & os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, os.environ | settings)

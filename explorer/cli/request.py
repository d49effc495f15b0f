"""What one command line asks for, and what a command is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from explorer.forms import Export
from explorer.patching import HEADS
from explorer.subject import Style, Subject
from explorer.twins import COUNT
from vit.model import Hook
from vit.objective import Contrast

OK, PARTIAL, NOTHING = 0, 1, 2  # exit codes


class Usage(ValueError):
    """What was asked for cannot be done; one sentence that says what to do instead."""


@dataclass(frozen=True)
class Request:
    """A command line as it was typed; `Asked` is what it means to one model. The defaults of all options."""

    command: str
    pictures: Sequence[str] = ()
    model: str | None = None
    out: Sequence[str] = ()
    size: str | None = None
    methods: Sequence[str] = ()
    query: str | None = None
    layer: int | None = None
    head: int | None = None
    target: str | None = None
    contrast: str | None = None
    off: str | None = None
    hide: str | None = None
    scale: str = "map"
    theme: str = "light"
    colormap: str | None = None
    smooth: bool = False
    lines: bool = False
    through: str = "depth"
    fps: float = 2
    data: str | None = None
    boxes: str | None = None
    masks: str | None = None
    images: int | None = None
    modes: Sequence[str] = ()
    points: int | None = None
    road: bool = False
    watch: str = "answer"
    keep: str | None = None
    record: bool = False
    variant: str | None = None
    words: str | None = None
    what: str = HEADS
    count: int = COUNT
    least: float = -1
    prototypes: str | None = None
    folder: str = ""
    models: Sequence[str] = ()
    title: str = "ViT Explorer"
    runtime: str | None = None
    one_file: bool = False
    moments: int = 6
    kind: str = "static"
    webgpu: bool = False

    @property
    def style(self) -> Style:
        return Style(self.theme, self.colormap, self.smooth, self.lines)


@dataclass(frozen=True)
class Asked:
    """The same in the terms of one model at one size."""

    methods: Sequence[str] = ()
    token: int | None = None  # that looks
    target: int | None = None  # class to explain
    contrast: Contrast = None  # what it is explained against
    edits: tuple[Hook, ...] = ()


class Option:
    """A row of the options: how it is written, and what argparse is told of it."""

    def __init__(self, *flags: str, **keywords: Any):
        self.flags, self.keywords = flags, keywords

    def but(self, **keywords: Any) -> "Option":
        """The same option as one command understands it."""
        return Option(*self.flags, **self.keywords | keywords)


@dataclass(frozen=True)
class Command:
    """A row of COMMANDS: all that there is to know of one command."""

    name: str
    about: str
    run: Callable[[Request, "Command"], int]
    endings: tuple[str, ...]  # of the files it writes; the first is the default
    options: tuple[Option, ...] = ()  # beside --model and, where files have endings, --out
    make: Callable[[Subject, Request, Asked], Export] | None = None  # of commands about single pictures
    defaults: Mapping[str, Any] = field(default_factory=dict)  # where they differ from Request's

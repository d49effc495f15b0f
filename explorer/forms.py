"""One result in all the forms that a file can hold it in, each made only when a file asks for it."""

import csv
import io
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from explorer import render

Rows = Sequence[Mapping[str, object]]


class ExportError(ValueError):
    """A file cannot be written; the message says why and what to do, in one sentence."""


@dataclass(frozen=True)
class Export:
    """Something to take home. `save` looks at the ending of the file's name."""

    figure: Callable[[], Figure] | None = None  # .png .svg
    arrays: Callable[[], Mapping[str, np.ndarray]] | None = None  # .npz
    rows: Callable[[], Rows] | None = None  # .csv .md
    frames: Callable[[], Sequence[np.ndarray]] | None = None  # .gif .mp4
    page: Callable[[Path], object] | None = None  # .html: is given the path to write to
    markdown: Callable[[], str] | None = None  # .md, where it is to look otherwise than its rows
    fps: float = 2
    colormap: str = render.DEFAULT  # of the frames

    @property
    def endings(self) -> tuple[str, ...]:
        """What its files may be called."""
        forms = {
            (".png", ".svg"): self.figure,
            (".gif", ".mp4"): self.frames,
            (".npz",): self.arrays,
            (".csv",): self.rows,
            (".md",): self.markdown or self.rows,
            (".html",): self.page,
        }
        return tuple(ending for endings, form in forms.items() if form for ending in endings)

    def save(self, path: str | Path) -> Path:
        """Write the file whole or not at all. Raises ExportError."""
        path = Path(path)
        ending = path.suffix.lower()
        if ending not in self.endings:
            raise ExportError(f"{path.name} cannot hold this: let its name end in {either(self.endings)}.")
        with atomic(path) as temporary:
            if ending == ".png" and self.figure:
                temporary.write_bytes(render.png(self.figure()))
            elif ending == ".svg" and self.figure:
                temporary.write_bytes(render.svg(self.figure()))
            elif ending == ".gif" and self.frames:
                temporary.write_bytes(render.gif(self.frames(), self.fps, self.colormap))
            elif ending == ".mp4" and self.frames:
                render.mp4(temporary, self.frames(), self.fps)
            elif ending == ".npz" and self.arrays:
                write_npz(temporary, self.arrays())
            elif ending == ".csv" and self.rows:
                temporary.write_text(to_csv(self.rows()), encoding="utf-8")
            elif ending == ".md":
                temporary.write_text(self.as_markdown(), encoding="utf-8")
            elif self.page:
                self.page(temporary)
        return path

    def as_markdown(self) -> str:
        """A table for people."""
        return self.markdown() if self.markdown else to_markdown(self.rows()) if self.rows else ""


def either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when all went well. Raises ExportError."""
    temporary = path.with_name(f".{secrets.token_hex(4)}{path.suffix.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """What np.savez writes, of arrays of any name: its own arguments have names, too."""
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asarray(array), allow_pickle=False)


def to_csv(rows: Rows) -> str:
    """A header and one line per row; numbers with all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(as_text, rows[0]))
    writer.writerows(map(as_text, row.values()) for row in rows)
    return text.getvalue()


def as_text(value: object) -> object:
    """A name that begins as a formula does, in quotes that keep it text in a spreadsheet: names of classes
    are data of others."""
    risky = isinstance(value, str) and re.match(r"\s*[=+\-@＝＋－＠]|[\t\r]", value)
    return f"'{value}" if risky else value


def told_apart(names: Sequence[str]) -> list[str]:
    """The same names, the second of one name as "crane (2)": keys of a row must not fall together."""
    found: dict[str, None] = {}
    for name in names:
        given, number = name, 2
        while given in found:
            given, number = f"{name} ({number})", number + 1
        found[given] = None
    return list(found)


def to_markdown(rows: Rows) -> str:
    """The same as a table that a README shows, numbers shortened and flush right."""
    names = list(rows[0])
    numeric = [all(isinstance(row[name], int | float) for row in rows) for name in names]
    cells = [[_cell(row[name]) for name in names] for row in rows]
    heads = [_cell(name) for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *cells)]

    def line(parts: Sequence[str]) -> str:
        padded = (f"{p:>{n}}" if right else f"{p:<{n}}" for p, n, right in zip(parts, widths, numeric))
        return f"| {' | '.join(padded)} |\n"

    rule = ["-" * (n - 1) + (":" if right else "-") for n, right in zip(widths, numeric)]
    return line(heads) + line(rule) + "".join(map(line, cells))


def _cell(value: object) -> str:
    """What stands between two bars, in one line."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else " ".join(str(value).split()).replace("|", "\\|")

"""What a visitor is told when something does not work: one sentence, and nothing of this machine."""

import errno
import re

# an absolute path, as messages of the file system and of this project write them: all but its last two names
NAME = r"[^\s'\"<>|:/\\]+"
PATH = re.compile(rf"(?<![\w:/.~\\-])(?:/|[A-Za-z]:[\\/])(?:{NAME}[\\/])*(?={NAME}[\\/]{NAME})")


class Left(Exception):
    """Nobody waits for the answer: who asked has closed the page, pressed Stop, or been told already."""


def without_paths(text: str) -> str:
    """The text with the folders left out in which the files it names lie."""
    return PATH.sub("", text)


def sentence_of(error: BaseException) -> str | None:
    """What this error means to a visitor, in a sentence; None if it is a fault of the program.

    What the project itself refuses is a ValueError with a sentence; libraries end theirs without a full stop.
    """
    ours = type(error).__module__.partition(".")[0] in ("vit", "explorer") or str(error).endswith(".")
    if isinstance(error, ValueError) and ours:
        return without_paths(str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return "There is not enough memory for this here: choose a smaller size or a smaller model."
    if isinstance(error, FileNotFoundError):
        return "The picture is no longer there: choose it once more."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk of this server is full: try again later."
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return f"A file could not be used ({reason}): try again, or tell who runs this page."
    return None

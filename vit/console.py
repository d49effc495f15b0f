"""What the command lines share."""

import sys


def spell_what_it_can() -> None:
    """A console that cannot spell a name, as Windows' in a pipe, shows the rest of the line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

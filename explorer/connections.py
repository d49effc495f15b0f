"""Connections that say nothing or take nothing: how many may be open, and for how long.

They lie below every request, where the doors never see them. uvicorn waits for a first request, and for a
reader who has stopped reading, as long as they like; and when no descriptor is left, asyncio writes traceback
after traceback, thousands a second.
"""

import asyncio
import errno
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol

from explorer.upkeep import most_descriptors

LOG = logging.getLogger(__name__)
SPEAK_WITHIN = 10.0  # seconds from the opening of a connection, or its last answer, to a whole request
READ_WITHIN = 60.0  # seconds in which a reader takes some of what is on its way
MAX_CONNECTIONS = 4096
SAID_AGAIN = 60.0  # seconds between two lines in the log about the same thing


def most_connections() -> int:
    """How many may be open: the rest of the descriptors is for files."""
    return min(MAX_CONNECTIONS, most_descriptors() * 3 // 4)


class Connection(H11Protocol):
    """One visitor's connection: closed where it is silent or stalled for long, or the idlest of too many."""

    idle_since = 0.0  # by the loop's clock
    timer: asyncio.TimerHandle | None = None
    unread = math.inf  # bytes on their way when it was last looked at

    @property
    def idle(self) -> bool:
        """Is no request of it being answered?"""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.wait_for_request()
        if len(self.connections) > most_connections():
            idle = (one for one in self.connections if isinstance(one, Connection) and one.idle)
            idlest = min(idle, key=lambda one: one.idle_since)  # at the worst this one
            self.connections.discard(idlest)  # at once: the next one may come before it is gone
            idlest.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.wait_for_request()

    def wait_for_request(self) -> None:
        self.idle_since, self.unread = self.loop.time(), math.inf
        self.look_again_in(SPEAK_WITHIN)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.transport.get_write_buffer_size()
        self.look_again_in(READ_WITHIN)

    def look_again_in(self, seconds: float) -> None:
        self.forget_timer()
        self.timer = self.loop.call_later(seconds, self.close_if_nothing_comes)

    def close_if_nothing_comes(self) -> None:
        if not self.idle and not self.flow.write_paused:
            return
        left = self.transport.get_write_buffer_size()
        if 0 < left < self.unread:  # a slow reader, who reads
            self.unread = left
            self.look_again_in(READ_WITHIN)
        else:
            self.transport.abort()

    def forget_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget_timer()
        super().connection_lost(exc)


def guard_connections() -> None:
    """From now on every server that Gradio starts in this process takes connections so."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"


def in_few_words(
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """A loop's exception handler: that no descriptor is left is said in one line, once a minute."""
    said = -SAID_AGAIN

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif clock() - said >= SAID_AGAIN:
            said = clock()
            LOG.warning("Too many files and connections are open: new visitors wait until some are closed.")

    return handler

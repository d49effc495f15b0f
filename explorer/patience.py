"""Work that lets all other work go first: threads with little claim to the processor.

For what takes long, and for whoever asks for much at once: they get what the others leave.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

V = TypeVar("V")
THREADS = 8  # more than the lanes of a queue let one address have at work
NICE = 10  # a tenth of the claim of a thread as usual
REST = 0.01  # seconds between two steps

# whether the work that is being done here lets others go first
PATIENT: ContextVar[bool] = ContextVar("patient", default=False)


def step_back() -> None:
    """Where a thread has a claim of its own, which torch's threads that it starts take over: on Linux."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def rest() -> None:
    """Between two steps of patient work: a step may hold Python's lock as long as it takes, which no claim to
    the processor changes, and others need it often."""
    if PATIENT.get():
        time.sleep(REST)


POOL = ThreadPoolExecutor(THREADS, "patient", step_back)


def with_patience(call: Callable[..., V], *values: Any) -> V:
    """The call's answer, made by a patient thread where `PATIENT` says so."""
    if not PATIENT.get():
        return call(*values)
    return POOL.submit(copy_context().run, call, *values).result()

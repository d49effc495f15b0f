"""What the benchmarks share: jobs that take turns, and a page that is served by a process of its own."""

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Job = Callable[[], object]


def rounds_of(
    jobs: dict[str, Job], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[dict[str, float]]:
    """Seconds of each job in each round, after two rounds that warm up; every round reverses the order."""
    names, seconds = list(jobs), []
    random.Random(0).shuffle(names)
    for _ in range(rounds + 2):
        names.reverse()
        took = {}
        for name in names:
            start = clock()
            jobs[name]()
            took[name] = clock() - start
        seconds.append(took)
    return seconds[2:]


def median(seconds: list[dict[str, float]], job: str) -> float:
    return statistics.median(took[job] for took in seconds)


def ratio(seconds: list[dict[str, float]], job: str, base: str) -> float:
    """The median of the ratios within the rounds: a busy machine slows both sides of each alike."""
    return statistics.median(took[job] / took[base] for took in seconds)


def serve(command: list[str]) -> tuple[subprocess.Popen, str]:
    """`python COMMAND`, ready to be visited: (process, address)."""
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-u", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout
    for line in process.stdout:
        if "http://" in line:
            threading.Thread(target=process.stdout.read, daemon=True).start()  # nobody else empties the pipe
            return process, line[line.index("http://") :].strip()
    raise SystemExit("The app did not start: run `python app.py` to see why.")

"""Thirty visitors at once, each with a picture of their own: errors, mix-ups, waiting, memory.

    python benchmarks/visitors.py [--visitors 30] [--checkpoint NAME]

The app runs in a process of its own; visitors are raw HTTP clients that upload, wait for their turn, and
fetch all that their viewer would, each from an address of their own. A mix-up is an answer that holds another
visitor's picture. The table also has everything asked again, thirty behind one address as a class is, one
picture asked by all, a hundred visitors, thirty of whom a third race, and a third who race and leave; and the
processor time that the app spent on each visitor, which a busy machine does not change much. The median is
also given as a ratio, to what it would be if the app did nothing but the model's forward passes, one after
the other, as fast as they are made before it starts. Then one visitor's looks while another one attacks the
page in each of the ways of benchmarks/attacks.py: how many times as long they take as alone, right before and
after. Then what the app holds before, with all, and a minute after they left, and what a request costs where
strangers may ask. It ends by itself; `--only attacks` or `--only crowds` leaves the other half out.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.attacks import ATTACKS  # noqa: E402  # after the path is set
from benchmarks.client import Client  # noqa: E402
from benchmarks.common import serve  # noqa: E402
from explorer.payload import unpack  # noqa: E402
from explorer.upkeep import LOCK  # noqa: E402
from vit.library import list_checkpoints, load  # noqa: E402
from vit.pictures import preprocess  # noqa: E402
from vit.trace import trace  # noqa: E402

KEPT = (
    "What visitors sent stays on the disk for an hour (explorer/upkeep.py), and in memory the moments of "
    "training that were asked for."
)
LOOKS = 6  # before and after an attack; twice as many in it
COLOURS = 97  # a prime: consecutive visitors get colours far apart


def memory(process: subprocess.Popen) -> float:
    """MiB that the app holds."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def processor(process: subprocess.Popen) -> float:
    """Seconds of processor time that the app has spent."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class App:
    process: subprocess.Popen
    url: str
    forward: float  # seconds of a forward pass, before it started


@dataclass(frozen=True)
class Visit:
    first: float  # seconds to the first picture
    own: bool  # was it the visitor's own
    error: str = ""


def colour_of(visitor: int) -> np.ndarray:
    """A colour that tells one visitor's picture from all others."""
    code = (visitor * COLOURS) % 512
    return np.array([code // 64, code // 8 % 8, code % 8]) * 30 + 20


def picture_of(visitor: int, folder: Path) -> Path:
    path = folder / f"{visitor}.png"
    noise = np.random.default_rng(visitor).integers(-15, 16, (224, 224, 3))
    Image.fromarray((colour_of(visitor) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def address_number(place: int) -> str:
    """Whom a proxy in front of the app would name."""
    return f"10.0.{place // 200}.{place % 200 + 1}"


def visit(
    url: str, picture: Path, visitor: int, checkpoint: str, gate: threading.Barrier, address: str = ""
) -> Visit:
    """One upload with everything that follows."""
    with Client(url, address) as client:
        client.events  # noqa: B018  # asked for once, before the clock runs
        gate.wait()
        began = time.perf_counter()
        try:
            viewer = client.show(picture.read_bytes(), checkpoint)
            arrays, _ = unpack(client.get(viewer["head"]))
            client.get(viewer["layers"][-1])
            first = time.perf_counter() - began
            for address in viewer["layers"][:-1]:
                client.get(address)
        except Exception as error:  # a benchmark counts what went wrong, whatever it was
            return Visit(0.0, False, f"{type(error).__name__}: {error}")
    shown = np.asarray(Image.open(io.BytesIO(arrays["image"].tobytes())).convert("RGB")).mean(axis=(0, 1))
    return Visit(first, bool(np.abs(shown - colour_of(visitor)).max() < 15))


def race(url: str, checkpoint: str, picture: Path, leave: bool, address: str) -> float:
    """Seconds that a race of this picture takes, waiting included; with `leave` the tab is closed in it."""
    with Client(url, address, timeout=600) as client:
        client.show(picture.read_bytes(), checkpoint)
        client.ask("on_start", [])
        began = time.perf_counter()
        if leave:
            client.line.timeout = 2
            with suppress(TimeoutError):
                client.ask("on_race", [])
        else:
            client.ask("on_race", [])
        return time.perf_counter() - began


def held(process: subprocess.Popen) -> dict[str, int]:
    """What the app holds of the machine."""
    folder = Path(f"/proc/{process.pid}")
    locks = [file.resolve() for file in (folder / "fd").iterdir() if file.resolve().name == LOCK]
    files = [file for lock in locks for file in lock.parent.rglob("*") if file.is_file()]
    return {
        "MiB": round(memory(process)),
        "threads": len(list((folder / "task").iterdir())),
        "descriptors": len(list((folder / "fd").iterdir())),
        "MiB on the disk": round(sum(file.stat().st_size for file in files) / 2**20),
    }


def forward_seconds(name: str) -> float:
    """Of one look at a picture by the model alone, all attention kept, on all cores; the median of 20."""
    model, card = load(name)
    image, times = preprocess(Image.new("RGB", (224, 224)), card), []
    for _ in range(25):
        began = time.perf_counter()
        trace(model, image)
        times.append(time.perf_counter() - began)
    return statistics.median(times[5:])


def round_of(
    app: App,
    pictures: list[Path],
    owners: list[int],
    checkpoint: str,
    together: bool = False,
) -> dict[str, str]:
    """All at once, together behind one address or each at their own; one row of the table."""
    process = app.process
    places = ["" if together else address_number(place) for place in range(len(pictures))]
    gate = threading.Barrier(len(pictures) + 1)
    spent = processor(process)
    with ThreadPoolExecutor(len(pictures)) as pool:
        jobs = [
            pool.submit(visit, app.url, picture, owner, checkpoint, gate, place)
            for picture, owner, place in zip(pictures, owners, places)
        ]
        gate.wait()
        began = time.perf_counter()
        visits = [job.result() for job in jobs]
        seconds = time.perf_counter() - began
    spent = processor(process) - spent
    waited = sorted(v.first for v in visits if not v.error)
    errors = [v.error for v in visits if v.error]
    if errors:
        print("first error:", errors[0], file=sys.stderr)
    return {
        "errors": str(len(errors)),
        "mix-ups": str(sum(not v.own and not v.error for v in visits)),
        "first picture, median": f"{statistics.median(waited):.2f} s" if waited else "-",
        "times the model alone": f"{statistics.median(waited) / (app.forward * len(waited) / 2):.1f}"
        if waited
        else "-",
        "95 %": f"{waited[int(0.95 * (len(waited) - 1))]:.2f} s" if waited else "-",
        "served": f"{len(waited) / seconds:.1f} / s",
        "processor, each": f"{1000 * spent / len(visits):.0f} ms",
    }


def with_races(app: App, pictures: list[Path], checkpoint: str, leave: bool) -> dict[str, str]:
    """A third of the visitors race, each their own picture, while the others look."""
    racers, owners = len(pictures) // 3, list(range(len(pictures) // 3, len(pictures)))
    with ThreadPoolExecutor(racers) as pool:
        races = [
            pool.submit(race, app.url, checkpoint, picture, leave, address_number(1000 + place))
            for place, picture in enumerate(pictures[:racers])
        ]
        time.sleep(3)  # they race by now
        row = round_of(app, pictures[racers:], owners, checkpoint)
        seconds = sorted(one.result() for one in races if not one.exception())
    failed = sum(one.exception() is not None for one in races)
    row["errors"] = str(int(row["errors"]) + failed)
    return row | {"race, median": f"{statistics.median(seconds):.0f} s" if seconds and not leave else "-"}


def request(url: str, checkpoint: str, picture: Path) -> float:
    """Seconds of a map that is there already, the median of 20."""
    with Client(url) as client:
        file, times = client.send(picture.read_bytes()), []
        for _ in range(21):
            began = time.perf_counter()
            client.ask("map", [file, checkpoint, "as trained", "rollout"])
            times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def requests(public: str, checkpoint: str) -> list[float]:
    """[where only the owner asks, where strangers do]: seconds of such a map, both asked in turn."""
    process, address = serve(["app.py", "--checkpoint", checkpoint, "--no-public"])
    try:
        with TemporaryDirectory() as folder:
            picture = picture_of(1, Path(folder))
            rounds = [
                [request(url, checkpoint, picture) for url in (address + "/", public)] for _ in range(7)
            ]
    finally:
        process.terminate()
        process.wait()
    return [statistics.median(seconds) for seconds in zip(*rounds)]


def under_attack(app: App, name: str, pictures: Iterator[Path], checkpoint: str) -> dict[str, str]:
    """One visitor's looks while another one does this; one row of the table."""
    url = app.url

    def looks(count: int) -> list[float]:
        gate = threading.Barrier(1)
        visits = [visit(url, next(pictures), 0, checkpoint, gate) for _ in range(count)]
        wrong.extend(one.error for one in visits if one.error)
        return [one.first for one in visits if not one.error]

    wrong: list[str] = []
    alone = looks(LOOKS)
    command = [sys.executable, str(ROOT / "benchmarks" / "attacks.py"), name, url, checkpoint]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert attacker.stdout
        attacker.stdout.readline()  # it begins
        time.sleep(5)
        during = sorted(looks(2 * LOOKS))
    finally:
        attacker.kill()
        attacker.wait()
    time.sleep(3)
    base = statistics.median(alone + looks(LOOKS))
    if wrong:
        print("first error:", wrong[0], file=sys.stderr)
    median = statistics.median(during) if during else float("nan")
    print(f"{name}: {median:.2f} s, alone {base:.2f} s", file=sys.stderr)
    return {
        "errors": str(len(wrong)),
        "first picture, median": f"{median:.2f} s",
        "95 %": f"{during[int(0.95 * (len(during) - 1))]:.2f} s" if during else "-",
        "times as long as alone": f"{median / base:.1f}",
    }


def all_attacks(app: App, checkpoint: str) -> dict[str, dict[str, str]]:
    """A row for each attack."""
    with TemporaryDirectory() as folder:
        pictures = (picture_of(visitor, Path(folder)) for visitor in range(20_000, 30_000))
        return {f"attack: {name}": under_attack(app, name, pictures, checkpoint) for name in ATTACKS}


def all_rounds(app: App, visitors: int, checkpoint: str) -> dict[str, dict[str, str]]:
    """The rows of the table."""
    with TemporaryDirectory() as folder:
        warm = picture_of(10_000, Path(folder))
        pictures = [picture_of(visitor, Path(folder)) for visitor in range(max(100, visitors))]
        few, owners = pictures[:visitors], list(range(visitors))
        round_of(app, [warm], [10_000], checkpoint)
        return {
            "distinct pictures": round_of(app, few, owners, checkpoint),
            "the same again": round_of(app, few, owners, checkpoint),
            "behind one address": round_of(app, few, owners, checkpoint, together=True),
            "one picture for all": round_of(app, [warm] * visitors, [10_000] * visitors, checkpoint),
            "a hundred at once": round_of(app, pictures[:100], list(range(100)), checkpoint),
            "a third race": with_races(app, few, checkpoint, leave=False),
            "a third race and leave": with_races(app, few, checkpoint, leave=True),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--checkpoint", default=None, help="a bundled name or a folder (default: the app's)")
    parser.add_argument("--only", choices=("crowds", "attacks"), help="half of the table")
    options = parser.parse_args()
    checkpoint = options.checkpoint or next(iter(list_checkpoints()), None)
    if checkpoint is None:
        raise SystemExit("There is no checkpoint: train one with `python train.py shapes`, or name a folder.")
    forward = forward_seconds(checkpoint)
    process, address = serve(["app.py", "--checkpoint", checkpoint, "--public"])
    app, rows = App(process, address + "/", forward), {}
    try:
        private, public = requests(app.url, checkpoint)
        before = held(process)
        if options.only != "attacks":
            rows |= all_rounds(app, options.visitors, checkpoint)
        if options.only != "crowds":
            rows |= all_attacks(app, checkpoint)
        during = held(process)
        time.sleep(60)  # closed tabs are noticed at the next heartbeat
        after = held(process)
    finally:
        process.terminate()
        process.wait()
    busy = ", ".join(f"{value:.0f}" for value in os.getloadavg())
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    machine = f"{os.cpu_count()} cores, load {busy}, {1000 * forward:.0f} ms a forward pass"
    print(f"\n{options.visitors} visitors at once, {checkpoint}, {machine}\n")
    print("| | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row.get(column, "-") for column in columns) + " |")
    print("\n| | before | with all | a minute after |\n| --- | ---: | ---: | ---: |")
    for name in before:
        print(f"| {name} | {before[name]} | {during[name]} | {after[name]} |")
    print("\n" + KEPT)
    print(
        f"\nA map that is there: {1000 * private:.0f} ms, where strangers ask {1000 * public:.0f} ms: "
        f"{public / private:.2f} times."
    )


if __name__ == "__main__":
    main()

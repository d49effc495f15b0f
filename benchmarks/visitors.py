"""Thirty visitors at once, each with a picture of their own: errors, mix-ups, waiting, memory.

    python benchmarks/visitors.py [--visitors 30] [--checkpoint NAME]

The app runs in a process of its own; visitors are raw HTTP clients that upload, wait for their turn, and
fetch all that their viewer would. A mix-up is an answer that holds another visitor's picture. The table
also has everything asked again and one picture asked by all, and the processor time that the app spent on
each visitor, which a busy machine does not change much.
"""

import argparse
import io
import json
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import serve  # noqa: E402  # after the path is set
from explorer.payload import unpack  # noqa: E402
from vit.library import list_checkpoints  # noqa: E402

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


def visit(url: str, picture: Path, visitor: int, checkpoint: str, gate: threading.Barrier) -> Visit:
    """One upload with everything that follows."""
    session = secrets.token_hex(8)
    with (
        httpx.Client(base_url=url, timeout=300) as http,
        http.stream("GET", f"gradio_api/heartbeat/{session}"),
    ):
        gate.wait()  # the open heartbeat is the open tab
        began = time.perf_counter()
        try:
            viewer = look(http, session, picture, checkpoint)
            arrays, _ = unpack(http.get(viewer["head"]).raise_for_status().content)
            http.get(viewer["layers"][-1]).raise_for_status()
            first = time.perf_counter() - began
            for address in viewer["layers"][:-1]:
                http.get(address).raise_for_status()
        except Exception as error:  # a benchmark counts what went wrong, whatever it was
            return Visit(0.0, False, f"{type(error).__name__}: {error}")
    shown = np.asarray(Image.open(io.BytesIO(arrays["image"].tobytes())).convert("RGB")).mean(axis=(0, 1))
    return Visit(first, bool(np.abs(shown - colour_of(visitor)).max() < 15))


def look(http: httpx.Client, session: str, picture: Path, checkpoint: str) -> dict:
    """Upload, queue, answer: the viewer's value."""
    uploaded = http.post("gradio_api/upload", files={"files": picture.read_bytes()}).raise_for_status().json()
    dependencies = http.get("config").json()["dependencies"]
    event = next(d for d in dependencies if d["api_name"] == "look")
    data = [{"path": uploaded[0], "meta": {"_type": "gradio.FileData"}}, checkpoint, "as trained"]
    data += [None] * (len(event["inputs"]) - len(data))  # states, which the server fills in
    asked = {"data": data, "fn_index": event["id"], "session_hash": session}
    http.post("gradio_api/queue/join", json=asked).raise_for_status()
    with http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as answers:
        for line in answers.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                if not message["success"]:
                    raise RuntimeError(message["output"])
                return message["output"]["data"][0]
    raise RuntimeError("the queue closed without an answer")


def round_of(
    app: tuple[subprocess.Popen, str], pictures: list[Path], owners: list[int], checkpoint: str
) -> dict[str, str]:
    """All at once; one row of the table."""
    process, url = app
    gate = threading.Barrier(len(pictures) + 1)
    spent = processor(process)
    with ThreadPoolExecutor(len(pictures)) as pool:
        jobs = [pool.submit(visit, url, *one, checkpoint, gate) for one in zip(pictures, owners)]
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
        "95 %": f"{waited[int(0.95 * (len(waited) - 1))]:.2f} s" if waited else "-",
        "served": f"{len(waited) / seconds:.1f} / s",
        "processor, each": f"{1000 * spent / len(visits):.0f} ms",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--checkpoint", default=None, help="a bundled name or a folder (default: the app's)")
    options = parser.parse_args()
    checkpoint = options.checkpoint or next(iter(list_checkpoints()), None)
    if checkpoint is None:
        raise SystemExit("There is no checkpoint: train one with `python train.py shapes`, or name a folder.")
    process, address = serve(["app.py", "--checkpoint", checkpoint])
    url = address + "/"
    rows = {}
    try:
        with TemporaryDirectory() as folder:
            everyone = list(range(options.visitors))
            warm = picture_of(10_000, Path(folder))
            round_of((process, url), [warm], [10_000], checkpoint)
            before = memory(process)
            pictures = [picture_of(visitor, Path(folder)) for visitor in everyone]
            rows["distinct pictures"] = round_of((process, url), pictures, everyone, checkpoint)
            during = memory(process)
            rows["the same again"] = round_of((process, url), pictures, everyone, checkpoint)
            rows["one picture for all"] = round_of(
                (process, url), [warm] * len(everyone), [10_000] * len(everyone), checkpoint
            )
            time.sleep(25)  # closed tabs are noticed at the next heartbeat
            after = memory(process)
    finally:
        process.terminate()
        process.wait()
    columns = list(next(iter(rows.values())))
    print(f"\n{options.visitors} visitors at once, {checkpoint}, {os.cpu_count()} cores\n")
    print("| | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row.values()) + " |")
    print(
        f"\nMemory of the app: {before:.0f} MiB before, {during:.0f} with all, {after:.0f} after they left."
    )


if __name__ == "__main__":
    main()

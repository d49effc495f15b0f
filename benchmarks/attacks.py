"""One visitor who wants all of the app for themselves, while another one looks: how much slower that is.

    python benchmarks/attacks.py NAME URL CHECKPOINT      one of ATTACKS, until it is ended

Each goes on as fast as it can, from one address, with as many pages as it likes. `benchmarks/visitors.py`
starts them one after the other, each as a process of its own with the least claim to the processor: what is
measured is the work that they make the app do, not their own.
"""

import argparse
import io
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.client import Client  # noqa: E402  # after the path is set

ADDRESS = "203.0.113.9"  # the one that all of it comes from, as a proxy in front of the app would name it
PAGES = 12


def small(seed: int) -> bytes:
    return saved(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8), "PNG")


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def heavy_pictures() -> list[bytes]:
    """Small to send, and as much to decode as is let in."""
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    grey = np.kron(noise, np.ones((30, 30), np.uint8))  # 81 million pixels
    transparent = np.zeros((9000, 9000, 4), np.uint8)
    return [
        with_scans(saved(grey[:4000, :4000], "JPEG", progressive=True, quality=5), 90),
        saved(transparent, "PNG", compress_level=1),
        saved(grey, "TIFF", compression="tiff_lzw"),
        saved(grey, "WEBP", quality=1, method=0),
    ]


def with_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


def many(work: Callable[[int], None], count: int = PAGES) -> None:
    """The same from many pages at once, for ever, whatever the app says to it. Says so when it begins."""

    def forever(page: int) -> None:
        while True:
            try:
                work(page)
            except Exception:  # it was refused, or shown the door
                time.sleep(0.2)

    threads = [threading.Thread(target=forever, args=(page,), daemon=True) for page in range(count)]
    print("begins", flush=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pictures(url: str, checkpoint: str) -> None:
    """Pictures that take all the time and memory that one may, sent once and looked at for ever."""
    with Client(url, ADDRESS) as sender:
        files = [sender.send(content) for content in heavy_pictures()]

    def look(page: int) -> None:
        with Client(url, ADDRESS) as client:
            while True:
                file = files[(page + random.randrange(4)) % len(files)]
                with suppress(RuntimeError):
                    client.ask("on_file", [file])
                with suppress(RuntimeError):
                    client.ask("on_show", [file, checkpoint, "as trained"])

    many(look)


def own_classes(url: str, checkpoint: str) -> None:
    """The same as the pictures of classes, twenty at once."""
    with Client(url, ADDRESS) as sender:
        heavy, first = [sender.send(content) for content in heavy_pictures()], sender.send(small(0))

    def show(page: int) -> None:
        with Client(url, ADDRESS) as client:
            client.ask("on_show", [first, checkpoint, "as trained"])
            while True:
                with suppress(RuntimeError):
                    client.ask("on_pictures", [None, None, "a class", 20 * [heavy[page % 2 + 2]]])

    many(show)


def clips(url: str, checkpoint: str) -> None:
    """Clips that take as long to decode as one may."""
    import cv2

    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (1920, 1080))
        for at in range(900):
            frame = np.full((1080, 1920, 3), at % 251, np.uint8)
            frame[:, at % 1900 : at % 1900 + 20] = 255
            writer.write(frame)
        writer.release()
        content = path.read_bytes()

    def bring(page: int) -> None:
        with Client(url, ADDRESS) as client:  # each is another file
            file = client.send(content + random.randbytes(8), "clip.mp4")
            client.ask("on_clip", [file])

    many(bring)


def moments(url: str, checkpoint: str) -> None:
    """All that is promised of a training, everything at once, with another picture each time."""

    def fetch(page: int) -> None:
        with Client(url, ADDRESS) as client:
            client.show(small(random.randrange(10**9)), checkpoint)
            value = client.ask("on_open_4", [])[1]  # the timeline of Training
            addresses = [address for one in value["moments"] for address in (one["head"], *one["layers"])]
            random.shuffle(addresses)
            for address in addresses:
                client.get(address)

    many(fetch, 2 * PAGES)


def races(url: str, checkpoint: str) -> None:
    """Races of all methods, two from each page."""

    def run(page: int) -> None:
        with Client(url, ADDRESS) as client:
            client.show(small(random.randrange(10**9)), checkpoint)
            client.ask("on_start", [])
            client.join("on_race", [None, None, True])
            client.ask("on_race", [None, None, True])

    many(run, 32)


def posts(url: str, checkpoint: str) -> None:
    """Cheap posts that fill the queue, round it and through it, each from a page of its own; large bodies."""
    junk = b'{"data": [' + b"[" * 900_000

    def post(page: int) -> None:
        with Client(url, ADDRESS) as client:
            for name in ("on_show", "on_race", "on_pick", "on_checks", "on_cka", "on_open_2"):
                client.join(name, [])
            client.answer("POST", "gradio_api/run/on_show", b'{"data": []}', "application/json").read()
            client.answer("POST", "gradio_api/queue/join", junk).read()

    many(post)


def pins(url: str, checkpoint: str) -> None:
    """Pins with the list of files open, and pages that are only opened."""

    def pin(page: int) -> None:
        with Client(url, ADDRESS) as client:
            client.show(small(page), checkpoint)
            for query in range(10**6):
                picked = {"query": query % 60, "layer": query % 6, "head": query % 3, "fuse": "one"}
                client.ask("on_pick", [], picked)
                client.ask("on_news_1", [True])
                client.get("")

    many(pin)


def connections(url: str, checkpoint: str) -> None:
    """Connections that say nothing, ask slowly, or never read what they asked for."""
    place = urlsplit(url)
    host, port = str(place.hostname), int(place.port or 80)
    forwarded = f"Host: {place.netloc}\r\nX-Forwarded-For: {ADDRESS}\r\n"
    kinds = ("", "GET / HTTP/1.1\r\nHost: ", f"GET / HTTP/1.1\r\n{forwarded}\r\n" * 20)

    def hold(page: int) -> None:
        with ExitStack() as stack:
            for at in range(100):
                one = stack.enter_context(socket.create_connection((host, port)))
                one.sendall(kinds[at % 3].encode())
            time.sleep(15)

    many(hold, 6)


def uploads(url: str, checkpoint: str) -> None:
    """Ten megabytes of anything, whole and cut off in the middle."""
    place = urlsplit(url)
    content = random.randbytes(9_900_000)

    def send(page: int) -> None:
        if page % 2:
            with Client(url, ADDRESS) as client:
                client.send(content)
            return
        with socket.create_connection((str(place.hostname), int(place.port or 80))) as one:
            head = (
                f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nX-Forwarded-For: {ADDRESS}\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000000\r\n\r\n--x\r\n"
                'Content-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
            )
            one.sendall(head.encode() + content[:5_000_000])

    many(send)


ATTACKS: dict[str, Callable[[str, str], None]] = {
    each.__name__: each
    for each in (pictures, own_classes, clips, moments, races, posts, pins, connections, uploads)
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "attacks.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=ATTACKS, help="the attack")
    parser.add_argument("url", help="of the app, with its last slash")
    parser.add_argument("checkpoint", help="a bundled name or a folder that the app offers")
    args = parser.parse_args(argv)
    with suppress(AttributeError, OSError):  # where there is such a thing
        os.nice(19)
    ATTACKS[args.name](args.url, args.checkpoint)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What may come in: the ways that the page needs are open, and each of them takes only so much.

An ASGI layer in front of Gradio, which serves more than this page needs and bounds neither the size of a
message nor how much one visitor may leave on the disk. Nothing here knows a widget or a model.
"""

import asyncio
import ipaddress
import json
import os
import shutil
import socket
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from explorer.cache import MiB
from explorer.connections import in_few_words
from explorer.upkeep import Kept, most_descriptors

MAX_FILE = 10 * MiB  # bytes of one uploaded picture
MAX_MESSAGE = MiB // 4  # bytes of any other request, many times what a page says
MAX_UPLOADED = 100 * MiB  # bytes that one address may upload in WINDOW seconds
WINDOW = 600.0
SMALLEST = MiB // 4  # what an upload counts at least: files are counted, too
MAX_KEPT_OF_ONE = 150 * MiB  # bytes of one address's uploads that lie on the disk: its oldest go first
MAX_KEPT = 2048 * MiB  # and of all: the oldest of the address that has most go first
MIN_FREE = 256 * MiB  # bytes that stay free on the disk
MOST_PAGES = 240  # that one address may open in a minute: as many as a class reloads
MANY_PAGES = "Very many pages were opened from your address: reload this one in a minute."
AT_ONCE, PACE = 400, 40.0  # what one address may send at once, then a second: a class that opens its pages
MAX_OPEN = 400  # requests of one address that are answered at the same time: a class behind one address
MAX_OPEN_IN_ALL = 3000
REST = 20.0  # seconds between two looks at what lies on the disk
SEND_WITHIN = 60.0  # seconds in which some more of a body comes
MAX_ADDRESSES = 4096  # of which something is remembered

API = "/gradio_api/"
UPLOAD = API + "upload"
# Everything that the page, the API page and gradio_client ask for. All else that Gradio serves is closed:
# calls that go round the queue, code editing, proxies, links written to the disk, statistics, reloading.
OPEN = (
    "/assets/",
    "/own/",
    "/static/",
    "/svelte/",
    "/shard/",
    "/site/",
    "/turn/",
    API + "call/",
    API + "custom_component/",
    API + "file=",
    API + "heartbeat/",
)
CALLS = (  # run/predict: of what is answered without the queue; Gradio refuses it for all else (`open_queue`)
    "app_id cancel info login_check openapi.json queue/data queue/join queue/status reset run/predict "
    "startup-events theme.css upload upload_progress user"
)
PAGES = "/config /favicon.ico /gradio_api /manifest.json /robots.txt /theme.css"
OPEN_EXACTLY = {"", *PAGES.split(), *(API + call for call in CALLS.split())}


NOT_OURS = "This page is not known under this name: use the machine's own, or set GRADIO_ROOT_PATH."


class Refused(Exception):
    """A request that is not answered: what is said instead."""

    def __init__(self, status: int, words: str):
        self.status, self.words = status, words


def address_of(scope: MutableMapping[str, Any]) -> str:
    """Who asks, as far as it can be known; behind a proxy, whom it names."""
    client = scope.get("client")
    host = client[0] if client else ""
    forwarded = Headers(scope=scope).get("x-forwarded-for", "")  # type: ignore[arg-type]
    return household(forwarded.rpartition(",")[2].strip() if forwarded and is_a_proxy(host) else host)


def path_of(scope: MutableMapping[str, Any]) -> str:
    """The address that is asked for, below where a proxy has put the app; of no request, ""."""
    path: str = scope.get("path", "")
    return path.removeprefix(scope.get("root_path", ""))


def household(host: str) -> str:
    """Whose address it is: of IPv6 the /64 network, in which one visitor may take any address."""
    with suppress(ValueError):
        found = ipaddress.IPv6Address(host)
        if not found.ipv4_mapped:
            return str(ipaddress.ip_network((found, 64), strict=False))
        return str(found.ipv4_mapped)
    return host


def is_a_proxy(host: str) -> bool:
    """May who asks from this address say for whom? This machine may; a private network only where a proxy is
    known to be in it: in one of a school anybody may ask as anybody."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or (address.is_private and behind_a_proxy())


def behind_a_proxy() -> bool:
    """Was the app told that one stands in front of it, or is it on a Space, where one does?"""
    return bool(os.environ.get("GRADIO_ROOT_PATH") or os.environ.get("SPACE_ID"))


def names_of_this_machine() -> set[str]:
    name = socket.gethostname().lower()
    return {"localhost", name, name.partition(".")[0], f"{name.partition('.')[0]}.local", "testserver"}


class PerMinute:
    """How much each has done in the minute that it is."""

    def __init__(self) -> None:
        self.done: defaultdict[str, set[Hashable]] = defaultdict(set)
        self.minute = 0

    def with_this(self, who: str, what: Hashable) -> int:
        """How many things, with this one, whether or not it is among them already."""
        if (minute := int(time.monotonic() // 60)) != self.minute:
            self.minute = minute
            self.done.clear()
        self.done[who].add(what)
        return len(self.done[who])


class Pace:
    """How long each has to wait before the next thing: AT_ONCE may come together, then PACE a second."""

    def __init__(self) -> None:
        self.even: OrderedDict[str, float] = OrderedDict()  # when all that each has sent is paid for

    def wait(self, who: str) -> float:
        """Seconds before this one; at most what all that may be open at once would take."""
        now = time.monotonic()
        even = max(self.even.get(who, 0.0), now - AT_ONCE / PACE) + 1 / PACE
        self.even[who] = min(even, now + MAX_OPEN / PACE)
        self.even.move_to_end(who)
        while len(self.even) > MAX_ADDRESSES:
            self.even.popitem(last=False)
        return max(0.0, self.even[who] - now)


class Doors:
    """The layer. guarded: the app answers only to its own names (see `check_origin`)."""

    def __init__(self, app: ASGIApp, uploads: Callable[[], Path], guarded: bool = False):
        self.app, self.uploads, self.guarded = app, uploads, guarded
        self.names = names_of_this_machine()
        self.max_open_in_all = min(MAX_OPEN_IN_ALL, most_descriptors() // 2)
        self.max_open = min(MAX_OPEN, self.max_open_in_all // 2)
        self.open: defaultdict[str, int] = defaultdict(int)  # requests by address
        self.uploaded: OrderedDict[str, list[tuple[float, int]]] = OrderedDict()  # (when, bytes) by address
        self.kept = Kept(MAX_KEPT_OF_ONE)
        self.pages = PerMinute()  # opened, by address
        self.pace = Pace()  # of what is sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; this page uses no web sockets
            if scope["type"] == "lifespan":
                asyncio.get_running_loop().set_exception_handler(in_few_words())
                looking = asyncio.create_task(self.look_after_uploads())
                await self.app(scope, receive, send)
                looking.cancel()
            return
        address, path, started, said = address_of(scope), "", False, b""

        async def sent(message: Message) -> None:
            nonlocal started, said
            if path == UPLOAD:  # it names the files
                said += message.get("body", b"")
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        self.open[address] += 1
        try:
            path = self.check(scope, address)
            limit = 2 * MAX_FILE if path == UPLOAD else MAX_MESSAGE
            if scope["method"] == "POST":
                await asyncio.sleep(self.pace.wait(address))
            await self.app(scope, self.bounded(scope, receive, limit), sent)
            if path == UPLOAD:
                await run_in_threadpool(self.kept.add, address, files_named(said, self.uploads()))
        except ClientDisconnect:
            pass  # in the middle of what it sent: nothing for the log
        except Refused as refused:
            if not started:  # closed afterwards: the rest of a body must not be taken for a request
                answer = PlainTextResponse(refused.words, refused.status, {"Connection": "close"})
                await answer(scope, receive, send)
        finally:
            self.open[address] -= 1
            if not self.open[address]:
                del self.open[address]

    async def look_after_uploads(self) -> None:
        """Now and then, in a thread. Threads that have answered wait for more, each with a team of torch's
        own; who has waited for long ends only when another is asked for something (anyio), as here."""
        while True:
            await asyncio.sleep(REST)
            await run_in_threadpool(self.look_at_uploads)

    def look_at_uploads(self) -> None:
        """What was made of uploads since they came is counted, and bounded as they are."""
        self.kept.look_again(self.uploads())
        self.kept.make_room(self.kept.in_all(SMALLEST) - MAX_KEPT)

    def check(self, scope: Scope, address: str) -> str:
        """The path of a request that may come in. Raises Refused."""
        headers = Headers(scope=scope)
        path = path_of(scope).rstrip("/")
        if self.guarded:
            self.check_origin(scope["method"], headers)
        elsewhere = path.lower().startswith(API + "file=http")  # which Gradio would fetch for anyone
        if elsewhere or (path not in OPEN_EXACTLY and not path.startswith(OPEN)):
            raise Refused(404, "There is nothing here.")
        if self.open[address] > self.max_open:
            raise Refused(429, "Too many pages are open from your address: close some and reload this one.")
        if sum(self.open.values()) > self.max_open_in_all:
            raise Refused(503, "Too many pages are open at once: reload this one in a minute.")
        if path in ("", "/config"):
            self.count_page(address)
        if scope["method"] == "POST" and path == UPLOAD:
            self.check_upload(address, headers)
        return path

    def count_page(self, address: str) -> None:
        """Raises Refused where this address has opened very many pages just now."""
        if self.pages.with_this(address, object()) > MOST_PAGES:
            raise Refused(429, MANY_PAGES)

    def check_origin(self, method: str, headers: Headers) -> None:
        """Only pages of this app may use an app on this machine: another site's page must neither send to it,
        nor reach it under a name of its own that leads here (DNS rebinding). Raises Refused."""
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
        if not self.is_ours(host):
            raise Refused(421, NOT_OURS)
        origin = headers.get("origin")
        cross = headers.get("sec-fetch-site") == "cross-site" or (
            origin is not None and urlsplit(origin).netloc != headers.get("host")
        )
        if cross and method not in ("GET", "HEAD"):
            raise Refused(403, "Another site's page may not use this one.")

    def is_ours(self, host: str) -> bool:
        """Is this a name that nobody else can lead here: this machine's own, or a bare address?"""
        if host in self.names or host.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def check_upload(self, address: str, headers: Headers) -> None:
        """Raises Refused where this address has sent much already, or the disk has no room."""
        size = max(int(headers.get("content-length") or MAX_FILE), SMALLEST)
        now, folder = time.monotonic(), self.uploads()
        recent = [(at, sent) for at, sent in self.uploaded.get(address, ()) if now - at < WINDOW]
        if sum(sent for _, sent in recent) + size > MAX_UPLOADED:
            raise Refused(429, "You have sent many pictures: wait some minutes before the next one.")
        more = self.kept.in_all(SMALLEST) + size - MAX_KEPT
        self.kept.make_room(max(more, size + MIN_FREE - free_at(folder)))
        if free_at(folder) - size < MIN_FREE:
            raise Refused(
                507, "The disk of this server is full: choose one of the examples, or try again later."
            )
        self.uploaded[address] = [*recent, (now, size)]
        self.uploaded.move_to_end(address)
        while len(self.uploaded) > MAX_ADDRESSES:
            self.uploaded.popitem(last=False)

    def bounded(self, scope: Scope, receive: Receive, limit: int) -> Receive:
        """`receive` that gives no more than `limit` bytes of a body, whatever its header says."""
        if int(Headers(scope=scope).get("content-length") or 0) > limit:
            raise Refused(413, f"This is more than {limit / MiB:g} MB: send less.")
        seen, whole = 0, False

        async def bounded_receive() -> Message:
            nonlocal seen, whole
            if whole:  # what comes now is that the visitor has left, at any time
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), SEND_WITHIN)
            except TimeoutError:
                raise Refused(408, "This did not come in time: send it once more.") from None
            whole = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > limit:
                raise Refused(413, f"This is more than {limit / MiB:g} MB: send less.")
            return message

        return bounded_receive


def free_at(folder: Path) -> int:
    """Bytes that are free on the disk on which the folder is, or will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def files_named(answer: bytes, folder: Path) -> list[Path]:
    """The uploaded files that an answer of Gradio's names, each in a folder of its own in this one: whose
    folder is removed one day."""
    try:
        names = json.loads(answer)
    except ValueError:  # it was refused
        return []
    files = [Path(name) for name in names] if isinstance(names, list) else []
    return [file for file in files if file.parent.parent == folder and ".." not in file.parts]

"""What a browser gets first: the page's own scripts and styles, as files that it keeps, and all that Gradio
asks for only when it gets there, asked for at once: a slow line is full from the start.

An ASGI layer around Gradio's page, and routes beside it. It knows no widgets and no models.
"""

import asyncio
import gzip
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import brotli
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from explorer.doors import path_of

LOG = logging.getLogger(__name__)
FOREVER = "public, max-age=31536000, immutable"  # of what has a hash of its content in its name
AGAIN = "no-cache"  # and of what is asked for each time
QUALITY = 5  # of brotli, 0 to 11, where somebody waits for it: 5 ms for the page
KEPT_PAGES = 16  # that are kept as they were written, a quarter of a MiB each
WRITTEN = {"": "page.html", "/": "page.html", "/config": "config.json"}  # by Gradio, for each who asks
# what Gradio takes into them of a request beside its address (gradio.route_utils.get_root_url)
PLACE = ("x-forwarded-host", "x-forwarded-proto", "x-gradio-server")
AT_HAND = 0.3  # seconds that the page waits to hear what is shown first
LATE = Path(__file__).with_name("late.json")  # printed by benchmarks/first.py
# type, for windows wide enough for it (views/page.css): to be said behind how wide a phone's window is
TYPE = "".join(
    '<link rel="preload" as="font" type="font/woff2" crossorigin media="(min-width: 821px)"'
    f' href="./static/fonts/IBMPlexSans/IBMPlexSans-{weight}.woff2">'
    for weight in ("Regular", "Bold")
)
KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html", "json": "application/json"}


class Text:
    """What travels compressed: a script or a style sheet, at an address that changes with its content, or a
    page. quality: of brotli."""

    def __init__(self, address: str, content: bytes, quality: int = 11):
        self.address, self.content, self.quality = address, content, quality
        self.kind = address.rpartition(".")[2]

    @classmethod
    def own(cls, kind: str, text: str) -> "Text":
        return cls(f"own/{sha256(text.encode()).hexdigest()[:16]}.{kind}", text.encode())

    @cached_property
    def brotli(self) -> bytes:
        return brotli.compress(self.content, quality=self.quality)

    @cached_property
    def gzip(self) -> bytes:
        return gzip.compress(self.content)

    def answer(self, request: Request, cached: str = FOREVER) -> Response:
        accepted = request.headers.get("accept-encoding", "")
        encoding = next((name for name in ("br", "gzip") if name in accepted), "")
        headers = {"Cache-Control": cached, "Vary": "Accept-Encoding"}
        if encoding:
            headers["Content-Encoding"] = encoding
        content = {"br": lambda: self.brotli, "gzip": lambda: self.gzip, "": lambda: self.content}[encoding]()
        return Response(content, headers=headers, media_type=KINDS[self.kind])

    @property
    def route(self) -> Route:
        return Route(f"/{self.address}", self.answer)


def late_files() -> list[Text]:
    """What Gradio's page asks for by and by until the first picture, in that order; another release than the
    one that `LATE` was printed for names its files otherwise, and they come as Gradio has it."""
    spec = find_spec("gradio")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "templates" / "frontend"
    names = json.loads(LATE.read_text(encoding="utf-8"))["files"]
    return [Text(name, (folder / name).read_bytes()) for name in names if (folder / name).is_file()]


def hint(kind: str, address: str) -> str:
    """A tag that has a browser fetch this at once, as it will be asked for."""
    if kind == "module":
        return f'<link rel="modulepreload" crossorigin href="./{address}">'
    crossorigin = " crossorigin" if kind == "fetch" else ""
    return f'<link rel="preload" as="{kind}"{crossorigin} href="./{address}">'


class Front:
    """The first files, and the layer that has them in the page's head.

    own: scripts and style sheets that the page has from its start; later: what it asks for itself.
    first_value: what the viewer shows first at an address's query, if that is at hand.
    """

    def __init__(
        self, own: Sequence[Text], later: Sequence[Text], first_value: Callable[[Mapping[str, str]], Any]
    ):
        self.first_value = first_value
        late = late_files()
        self.scripts = [file for file in late if file.kind == "js"]
        styles = [file for file in late if file.kind == "css"]
        one = Text.own("css", "\n".join(file.content.decode() for file in styles))  # one file, not thirty
        # links that Gradio finds, so that it does not fetch what they lead to
        self.there = "".join(f'<link rel="stylesheet" disabled href="./{file.address}">' for file in styles)
        self.own = [one, *own]
        self.routes = [file.route for file in (*self.own, *self.scripts, *later)]

    def ready(self) -> None:
        """Compress everything now, so that no visitor waits for it."""
        for file in (*self.own, *self.scripts):
            _ = file.brotli

    def page(self, page: bytes, first: Any) -> bytes:
        """Gradio's page with our own in its head: hints at the start, what they are for at the end."""
        before, _, after = page.partition(b"<head>")
        rest, _, body = after.rpartition(b"</head>")
        hints = [hint("script" if file.kind == "js" else "style", file.address) for file in self.own]
        if first:
            hints.append(hint("fetch", first["head"]))
        if theme := re.search(rb'"theme_hash":"(\w+)"', rest):
            hints.append(hint("style", f"theme.css?v={theme[1].decode()}"))
        if b'src="./assets/' in rest:  # else Gradio's files are elsewhere, as in a page that is shared
            hints += [hint("module", file.address) for file in self.scripts]
        said = json.dumps(first).replace("<", "\\u003c")
        tag = {"js": '<script defer src="./{}"></script>', "css": '<link rel="stylesheet" href="./{}">'}
        own = "".join(tag[file.kind].format(file.address) for file in self.own)
        own = f"<script>window.vitFirst = {said};</script>{TYPE}{self.there}{own}"
        return b"".join([before, b"<head>", "".join(hints).encode(), rest, own.encode(), b"</head>", body])

    async def at_hand(self, scope: Scope) -> Any:
        """What is shown first, if that is known by now; a page comes whatever its address asks for."""
        query = QueryParams(scope.get("query_string", b""))
        try:
            return await asyncio.wait_for(run_in_threadpool(self.first_value, query), AT_HAND)
        except TimeoutError:
            return None
        except Exception:
            LOG.exception("What is shown first is not known.")
            return None


class Headed:
    """The layer: Gradio's page as `front` has it, and the list of its parts. Gradio writes both anew for each
    who asks, which takes 25 ms in which little else is done; here all who would get the same get the same."""

    def __init__(self, app: ASGIApp, front: Front):
        self.app, self.front = app, front
        self.kept: OrderedDict[Hashable, Text] = OrderedDict()  # the one asked for last at the end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope)
        if scope["type"] != "http" or scope["method"] != "GET" or path not in WRITTEN:
            return await self.app(scope, receive, send)
        name = WRITTEN[path]
        first = await self.front.at_hand(scope) if name == "page.html" else None
        # the query is for our own scripts: of this page Gradio knows no second one, and no deep links
        asked = Request({**scope, "query_string": b""})
        key = (name, first and first["head"], str(asked.url), *map(asked.headers.get, PLACE))
        if key not in self.kept:
            messages = await said(self.app, asked.scope, receive)
            if messages[0]["status"] != 200:
                for message in messages:
                    await send(message)
                return
            content = b"".join(message.get("body", b"") for message in messages[1:])
            content = self.front.page(content, first) if name == "page.html" else content
            self.kept[key] = Text(name, content, QUALITY)
        text = self.kept[key]
        self.kept.move_to_end(key)
        while len(self.kept) > KEPT_PAGES:
            self.kept.popitem(last=False)
        answer = await run_in_threadpool(text.answer, asked, AGAIN)
        await answer(scope, receive, send)


async def said(app: ASGIApp, scope: Scope, receive: Receive) -> list[Message]:
    """All that an app answers to this."""
    messages: list[Message] = []

    async def sent(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, sent)
    return messages

"""How the page is served: its own addresses, the doors in front of Gradio, and turns for all who wait."""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from explorer.cache import MiB
from explorer.doors import MAX_FILE, Doors, address_of, behind_a_proxy, path_of
from explorer.forms import ExportError
from explorer.front import Front, Headed
from explorer.look import AHEAD, PICTURE
from explorer.patience import PATIENT, with_patience
from explorer.refusals import Left, sentence_of
from explorer.session import MAX_PAGES, ROUTE, Session
from explorer.site.lent import Shelf
from explorer.site.lent import routes as lent_routes
from explorer.turns import AtOnce, Gate, let_by, place_of, take_turns
from explorer.upkeep import upload_folder

FILES_AT_ONCE = 2  # files to take home that are made at the same time; each may take a GiB
SHARDS_AT_ONCE = max(2, os.cpu_count() or 1)  # and of what a viewer shows
PIECE = 2**18  # bytes of a file that are read at once: what one who stops reading can make us hold
THREADS = 40  # of Gradio: events that are answered at the same time, in all lanes together


class Squeezed:
    """Text that is promised travels compressed, at an eighth of its size; a binary shard already is."""

    def __init__(self, app: ASGIApp):
        self.app, self.gzip = app, GZipMiddleware(app, minimum_size=1000, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope)
        text = path.startswith(f"/{ROUTE}/") and path.endswith(".json")
        await (self.gzip if text else self.app)(scope, receive, send)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """An open file as the network takes it: a large one is never in memory as a whole."""
    with file:
        while piece := file.read(PIECE):
            yield piece


def shard_route(session: Session) -> Route:
    """Where browsers find what they were promised."""
    taken_home, looked_at = Gate(FILES_AT_ONCE), Gate(SHARDS_AT_ONCE)

    async def made(request: Request, name: str) -> BinaryIO | None:
        """The open file, made in the turn of who asks; None where they have left by then."""
        gate = looked_at if name.endswith((".bin", ".json", PICTURE)) else taken_home
        address = address_of(request.scope)
        if name.endswith(AHEAD):
            await let_by(request.app.get_blocks()._queue, "model")
        async with gate.turn(address):
            if await request.is_disconnected():
                return None
            PATIENT.set(gate is taken_home or gate.asks_for_much(address))
            return await run_in_threadpool(with_patience, session.open_promise, name)

    async def shard(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            if session.is_made(name):
                file = await run_in_threadpool(session.open_promise, name)
            else:
                file = await made(request, name)
        except ExportError:
            return PlainTextResponse("This file could not be made here: take another kind.", 503)
        except (FileNotFoundError, Left):  # what it was made from is gone, or who asked
            file = None
        except Exception as error:
            if (sentence := sentence_of(error)) is None:
                raise
            return PlainTextResponse(sentence, 507 if isinstance(error, OSError) else 422)
        if file is None:
            return PlainTextResponse("This picture is no longer kept: choose it once more.", 404)
        kind = "image/png" if name.endswith(".png") else "application/octet-stream"
        size = str(os.fstat(file.fileno()).st_size)
        headers = {"Cache-Control": "private, max-age=3600, immutable", "Content-Length": size}
        return StreamingResponse(pieces(file), media_type=kind, headers=headers)

    return Route(f"/{ROUTE}/{{name}}", shard)


async def turn(request: Request) -> Response:
    """How many are served before this page."""
    queue = request.app.get_blocks()._queue
    return JSONResponse({"before": place_of(queue, request.path_params["page"])})


def options(session: Session, front: Front, shared: bool) -> dict[str, Any]:
    """Arguments of `launch`: nothing from elsewhere, nothing kept without a bound. shared: Gradio's tunnel
    leads here, too."""
    guarded = not session.public and not shared and not behind_a_proxy()  # else it has other names, too
    doors = Middleware(Doors, uploads=upload_folder, guarded=guarded)
    lent = lent_routes(Shelf(session.folder / "sites", session.names))
    routes = [shard_route(session), Route("/turn/{page}", turn), *front.routes, *lent]
    headed = Middleware(Headed, front=front)
    return {
        "app_kwargs": {
            "routes": routes,
            "middleware": [doors, Middleware(AtOnce), Middleware(Squeezed), headed],
        },
        "max_file_size": f"{MAX_FILE // MiB}mb",
        "max_threads": THREADS,
        "state_session_capacity": 2 * MAX_PAGES,  # `open_queue` has them forgotten before
        "footer_links": ["api"],
        "enable_monitoring": False,
        "run_history": False,
        "show_error": False,
        "ssr_mode": False,
        "pwa": False,
        # else Gradio ends the app if its own page does not answer within 3 s: where visitors wait for a
        # restart, or a proxy is set for everything
        "_frontend": False,
    }


def open_queue(demo: Any, session: Session) -> None:
    """The only way to the handlers of a `gr.Blocks`: its queue, in which visitors take turns."""

    def forget(page: str) -> None:
        """What Gradio keeps of a page: of too many, the oldest of the address that has most open."""
        demo.state_holder.session_data.pop(page, None)
        demo.state_holder.time_last_used.pop(page, None)
        session.stopped.pop(page, None)

    session.pages.dropped = forget
    demo.queue(api_open=False, default_concurrency_limit=4)
    take_turns(demo._queue, session.came_from)

"""Connections that say nothing, take nothing, or are too many, against a server of its own."""

import asyncio
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from anyio._backends._asyncio import WorkerThread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.config import HTTP_PROTOCOLS

from explorer import connections, doors
from explorer.connections import Connection, guard_connections, in_few_words
from explorer.doors import Doors

ASKED = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 16 * 2**20  # bytes: more than the system's buffers take


BEGUN = threading.Event()


async def slow(request: Request) -> PlainTextResponse:
    BEGUN.set()
    await asyncio.sleep(1.0)
    return PlainTextResponse("slow")


def in_thread(request: Request) -> PlainTextResponse:
    time.sleep(0.1)
    return PlainTextResponse("done")


async def large(request: Request) -> StreamingResponse:
    return StreamingResponse(b"x" * 2**16 for _ in range(LARGE // 2**16))


async def echo(request: Request) -> Response:
    return Response(await request.body())


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[tuple[str, int]]:
    """(host, port) of a server that waits no longer than tests do."""
    monkeypatch.setattr(connections, "SPEAK_WITHIN", 0.3)
    monkeypatch.setattr(connections, "READ_WITHIN", 0.3)
    monkeypatch.setattr(doors, "REST", 0.05)
    routes = [
        Route("/shard/slow", slow),
        Route("/shard/large", large),
        Route("/shard/thread", in_thread),
        Route("/shard/echo", echo, methods=["POST"]),
        Route("/config", PlainTextResponse("here")),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Doors, uploads=lambda: tmp_path)])
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=Connection, log_level="error")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    until(lambda: running.started)
    yield running.servers[0].sockets[0].getsockname()
    running.should_exit = True
    thread.join(10)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def connect(server: tuple[str, int], sent: bytes = b"") -> socket.socket:
    opened = socket.create_connection(server, timeout=20)
    opened.sendall(sent)
    return opened


def all_of(opened: socket.socket) -> bytes:
    """What comes until the other side closes; it may break off."""
    parts = []
    try:
        while part := opened.recv(2**16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("said", [b"", b"GET /config HTTP/1.1\r\nHost:"], ids=["nothing", "half a request"])
def test_who_says_nothing_is_not_waited_for(server, said: bytes) -> None:
    assert all_of(connect(server, said)) == b""


def test_who_says_half_a_second_request_is_not_waited_for_either(server) -> None:
    opened = connect(server, ASKED % b"config")
    answer = b""
    while not answer.endswith(b"here"):
        answer += opened.recv(2**16)
    opened.sendall(b"GET")  # which ends uvicorn's own patience with idle connections
    assert all_of(opened) == b""


def test_an_answer_may_take_longer_than_a_question(server) -> None:
    answer = all_of(connect(server, ASKED % b"shard/slow"))
    assert b"200 OK" in answer and answer.endswith(b"slow")


def test_who_stops_reading_is_let_go_and_who_reads_slowly_is_not(server, monkeypatch) -> None:
    monkeypatch.setattr(connections, "READ_WITHIN", 1.0)
    stalled = connect(server, ASKED % b"shard/large")
    reader, came = connect(server, ASKED % b"shard/large"), 0
    for _ in range(20):  # for longer than a stalled reader is waited for
        came += len(reader.recv(2**19, socket.MSG_WAITALL))
        time.sleep(0.1)
    assert came + len(all_of(reader)) > LARGE
    assert len(all_of(stalled)) < LARGE


def test_of_too_many_connections_the_idlest_makes_room(server, monkeypatch) -> None:
    monkeypatch.setattr(connections, "SPEAK_WITHIN", 60.0)
    monkeypatch.setattr(connections, "most_connections", lambda: 4)
    BEGUN.clear()
    busy = connect(server, ASKED % b"shard/slow")
    BEGUN.wait(20)
    idle = [connect(server) for _ in range(6)]
    opened = connect(server, ASKED % b"config")
    assert b"200 OK" in opened.recv(2**16)
    assert all(all_of(one) == b"" for one in idle[:3])
    assert b"200 OK" in busy.recv(2**16), "who is being answered is not idle"


def test_a_body_that_does_not_come_is_not_waited_for(server, monkeypatch) -> None:
    monkeypatch.setattr(doors, "SEND_WITHIN", 0.2)
    head = b"POST /shard/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    answer = all_of(connect(server, head + b"abc"))
    assert b"408" in answer and answer.endswith(b"This did not come in time: send it once more.")


def test_threads_go_when_nobody_asks(server, monkeypatch) -> None:
    """A page's visitors leave a thread for each that was served at once, which nobody ends by themselves."""
    monkeypatch.setattr(WorkerThread, "MAX_IDLE_TIME", 0.2)
    asked = [connect(server, ASKED % b"shard/thread") for _ in range(8)]
    assert all(b"200 OK" in all_of(one) for one in asked)
    until(lambda: sum(thread.name == "AnyIO worker thread" for thread in threading.enumerate()) <= 1)


def test_that_no_descriptor_is_left_is_said_once_a_minute(caplog) -> None:
    now, loop = [0.0], asyncio.new_event_loop()
    handler = in_few_words(lambda: now[0])
    full = {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "full")}
    with caplog.at_level(logging.WARNING):
        for second in range(100):
            now[0] = float(second)
            for _ in range(20):
                handler(loop, full)
        assert [record.message.split(":")[0] for record in caplog.records] == [
            "Too many files and connections are open"
        ] * 2
        handler(loop, {"message": "another fault", "exception": OSError(errno.EIO, "broken")})
    assert "another fault" in caplog.records[-1].message
    loop.close()


def test_the_app_starts_its_server_so(monkeypatch) -> None:
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    guard_connections()
    config = uvicorn.Config(Starlette(), host="127.0.0.1")  # as Gradio makes it
    config.load()
    assert config.http_protocol_class is Connection

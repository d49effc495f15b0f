"""What comes in: only what the page needs, and only so much of it. Turns, temporary files, refusals."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState, StateHolder
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from explorer import doors, turns, upkeep
from explorer.doors import MAX_MESSAGE, Doors, address_of
from explorer.patience import PATIENT, with_patience
from explorer.refusals import sentence_of, without_paths
from explorer.turns import in_turn, refusal, take_turns
from explorer.views.page import guard

ROOT = Path(__file__).resolve().parent.parent


async def anything(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def client(folder: Path, **options: Any) -> TestClient:
    layer = Middleware(Doors, uploads=lambda: folder, **options)
    way = Route("/{path:path}", anything, methods=["GET", "POST", "HEAD"])
    return TestClient(Starlette(routes=[way], middleware=[layer]), base_url="http://127.0.0.1:7860")


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """[the time of the doors], in seconds: it stands."""
    now = [100.0]
    monkeypatch.setattr(doors, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[TestClient]:
    yield client(tmp_path, guarded=True)


# ---- doors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/run/on_show",
        "gradio_api/api/on_show",
        "gradio_api/deep_link",
        "gradio_api/dev/reload",
        "gradio_api/proxy=https://example.org/x",
        "gradio_api/file=https://example.org/x",
        "gradio_api/file=HTTP://example.org/x",
        "gradio_api/vibe-edit/",
        "gradio_api/process_recording",
        "gradio_api/component_server/",
        "gradio_api/queue/join/../../run/x",
        "monitoring",
        "monitoring/summary",
        "docs",
    ],
)
def test_ways_that_the_page_does_not_need_are_closed(inside: TestClient, path: str) -> None:
    for answer in (inside.get("/" + path), inside.post("/" + path, content=b"{}")):
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "path", ["", "config", "gradio_api/queue/join", "gradio_api/file=/a.png", "shard/x.bin"]
)
def test_ways_that_it_needs_are_open(inside: TestClient, path: str) -> None:
    answer = inside.get("/" + path)
    assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"


def test_a_message_is_small_whatever_its_header_says(inside: TestClient) -> None:
    join = "/gradio_api/queue/join"
    assert inside.post(join, content=b"x" * MAX_MESSAGE).text == str(MAX_MESSAGE)
    assert inside.post(join, content=b"x" * (MAX_MESSAGE + 1)).status_code == 413
    read = []

    def endless() -> Iterator[bytes]:  # without a length
        for _ in range(100):
            read.append(1)
            yield b"x" * MAX_MESSAGE

    assert inside.post(join, content=endless()).status_code == 413


@pytest.mark.anyio
async def test_who_leaves_in_the_middle_of_an_upload_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    async def upload(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": doors.UPLOAD, "headers": [], "client": ("1.1.1.1", 1)}
    layer = Doors(upload, lambda: tmp_path)
    await layer(scope, gone, None)  # type: ignore[arg-type]
    assert not layer.open


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""])
def test_an_app_on_this_machine_has_no_other_name(inside: TestClient, host: str) -> None:
    """A name of somebody else's that leads here makes their page's script one of ours (DNS rebinding)."""
    assert inside.get("/config", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "192.168.1.7:80", "lab.localhost"]
)
def test_its_own_names_and_bare_addresses_are_answered(inside: TestClient, host: str) -> None:
    assert inside.get("/config", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_another_sites_page_sends_nothing_to_an_app_on_this_machine(inside, tmp_path, headers) -> None:
    for way in ("/gradio_api/upload", "/gradio_api/queue/join"):
        assert inside.post(way, content=b"{}", headers=headers).status_code == 403
        assert inside.post(way, content=b"{}", headers={"origin": "http://127.0.0.1:7860"}).status_code == 200
    assert client(tmp_path).post("/gradio_api/queue/join", headers=headers).status_code == 200, "public"


def test_uploads_are_bounded_for_each_visitor_and_in_all(tmp_path: Path, monkeypatch) -> None:
    page, way = client(tmp_path), "/gradio_api/upload"
    monkeypatch.setattr(doors, "MAX_UPLOADED", 3 * doors.SMALLEST)

    def send(name: str) -> int:
        return page.post(way, content=b"x", headers={"x-forwarded-for": name}).status_code

    monkeypatch.setattr(doors, "is_a_proxy", lambda host: True)
    assert [send("ann") for _ in range(4)] == [200, 200, 200, 429] and send("bob") == 200
    (tmp_path / "kept").write_bytes(b"x")
    monkeypatch.setattr(doors, "MAX_KEPT", doors.SMALLEST)
    assert send("cid") == 200, "there is room to be made"
    monkeypatch.setattr(doors.shutil, "disk_usage", lambda folder: SimpleNamespace(free=doors.MIN_FREE))
    answer = page.post(way, content=b"x", headers={"x-forwarded-for": "dan"})
    assert answer.status_code == 507 and answer.text.startswith("The disk of this server is full")
    monkeypatch.undo()
    assert page.post(way, content=b"x").status_code == 200, "all is well again when there is room"


def test_who_has_sent_much_may_send_again_when_a_window_has_passed(
    tmp_path: Path, monkeypatch, clock
) -> None:
    monkeypatch.setattr(doors, "MAX_UPLOADED", 2 * doors.SMALLEST)
    page = client(tmp_path)

    def sends_at(moment: float) -> int:
        clock[0] = 1000 + moment
        return page.post(doors.UPLOAD, content=b"x").status_code

    assert [sends_at(0), sends_at(doors.WINDOW / 2), sends_at(doors.WINDOW - 1)] == [200, 200, 429]
    assert [sends_at(doors.WINDOW), sends_at(doors.WINDOW + 1)] == [200, 429], "the first one alone is over"
    assert sends_at(doors.WINDOW * 3 / 2) == 200


def test_who_is_refused_is_shown_the_door(inside: TestClient) -> None:
    """The rest of what they send must not be taken for their next request."""
    answers = [inside.get("/docs"), inside.post("/gradio_api/queue/join", content=b"x" * (MAX_MESSAGE + 1))]
    assert [answer.status_code for answer in answers] == [404, 413]
    assert [answer.headers["connection"] for answer in answers] == ["close"] * 2
    assert "connection" not in inside.get("/config").headers


def test_an_addresss_oldest_uploads_make_room_for_its_new_ones(tmp_path, monkeypatch) -> None:
    """Gradio puts each file into a folder of its own and names it in its answer; folders elsewhere stay."""
    uploads, elsewhere = tmp_path / "uploads", tmp_path / "elsewhere" / "x.png"
    for folder in (uploads, elsewhere.parent):
        folder.mkdir()
    elsewhere.write_bytes(b"x" * 10**4)

    async def upload(request: Request) -> JSONResponse:
        body = await request.body()
        file = uploads / body[:1].decode() / "x.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(body)
        around = uploads / ".." / "elsewhere" / "x.png", uploads / ".." / "x.png"
        return JSONResponse([str(file), str(elsewhere), *map(str, around)])

    monkeypatch.setattr(doors, "MAX_KEPT_OF_ONE", 250)
    monkeypatch.setattr(doors, "SMALLEST", 1)
    monkeypatch.setattr(doors, "is_a_proxy", lambda host: True)
    layer = Middleware(Doors, uploads=lambda: uploads)
    page = TestClient(Starlette(routes=[Route(doors.UPLOAD, upload, methods=["POST"])], middleware=[layer]))

    def lie_there_after(who: str, name: str) -> str:
        page.post(doors.UPLOAD, content=name.encode() * 100, headers={"x-forwarded-for": who})
        return "".join(sorted(path.name for path in uploads.iterdir()))

    assert lie_there_after("bob", "b") == "b"
    assert [lie_there_after("ann", name) for name in "cde"] == ["bc", "bcd", "bde"]
    monkeypatch.setattr(doors, "MAX_KEPT", 350)
    assert lie_there_after("cid", "f") == "bef", "of the address that has most"
    assert elsewhere.exists()


def test_an_upload_does_not_ask_the_disk_for_all_others(tmp_path: Path, monkeypatch) -> None:
    """A thousand files of an hour must not make the next one wait; what else lies there is counted, too."""
    kept, asked = upkeep.Kept(10**6), []
    count = upkeep.size_in
    monkeypatch.setattr(upkeep, "size_in", lambda folder: asked.append(folder) or count(folder))

    def add(number: int) -> int:
        file = tmp_path / str(number) / "x.png"
        file.parent.mkdir()
        file.write_bytes(b"x" * 10)
        asked.clear()
        kept.add("ann", [file])
        return len(asked)

    assert {add(number) for number in range(100)} == {1} and kept.held() == {"ann": 1000}
    assert kept.in_all(1) == 1000 and kept.in_all(20) == 2000
    (tmp_path / "tmp-part").write_bytes(b"x" * 7)
    for file in (tmp_path / "0" / "x.png", tmp_path / "1" / "x.png"):
        file.unlink()  # by age
    shutil.rmtree(tmp_path / "2")
    kept.look_again(tmp_path)
    assert kept.held() == {"ann": 970} and kept.in_all(1) == 977
    kept.make_room(15)
    assert kept.held() == {"ann": 950} and not (tmp_path / "3").exists() and (tmp_path / "5").exists()
    kept.look_again(tmp_path / "nowhere")
    assert kept.in_all(1) == 950


def test_all_that_lies_among_uploads_is_counted_folders_too(tmp_path: Path) -> None:
    kept = upkeep.Kept(10**6)
    mine, unknown = tmp_path / "mine" / "x.png", tmp_path / "unknown" / "deep" / "x.png"
    for file, size in ((mine, 10), (unknown, 300), (unknown.parent.parent / "y.png", 20)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
    (tmp_path / "tmp-part").write_bytes(b"x" * 7)
    kept.add("ann", [mine])
    assert kept.in_all(1) == 10, "nobody has looked yet"
    kept.look_again(tmp_path)
    assert kept.others == 327 and kept.in_all(1) == 337 and kept.held() == {"ann": 10}


def test_what_is_made_of_an_upload_is_bounded_as_it_is(tmp_path: Path, monkeypatch) -> None:
    """A clip lies beside the file that it was made of, many times as large, and comes after it."""
    layer = Doors(anything, lambda: tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(layer, "kept", upkeep.Kept(250))
    monkeypatch.setattr(doors, "SMALLEST", 1)
    for who, name in (("bob", "a"), ("ann", "b"), ("ann", "c"), ("ann", "d")):
        file = tmp_path / name / "x.mp4"
        file.parent.mkdir()
        file.write_bytes(b"x" * 10)
        layer.kept.add(who, [file])
    for name in "ac":
        clip = tmp_path / name / "0123" / "clip.webp"
        clip.parent.mkdir()
        clip.write_bytes(b"x" * 200)

    def lie_there_after_a_look() -> str:
        layer.look_at_uploads()
        return "".join(sorted(path.name for path in tmp_path.iterdir()))

    assert lie_there_after_a_look() == "abcd" and layer.kept.held() == {"bob": 210, "ann": 230}
    (tmp_path / "d" / "more.webp").write_bytes(b"x" * 100)
    assert lie_there_after_a_look() == "ad" and layer.kept.held() == {"bob": 210, "ann": 110}
    monkeypatch.setattr(doors, "MAX_KEPT", 200)
    assert lie_there_after_a_look() == "d", "in all: of the address that has most"


def test_pages_are_written_only_so_often_for_one_address(tmp_path: Path, monkeypatch, clock) -> None:
    monkeypatch.setattr(doors, "MOST_PAGES", 2)
    monkeypatch.setattr(doors, "is_a_proxy", lambda host: True)
    page = client(tmp_path)

    def opens(who: str, path: str = "/") -> int:
        return page.get(path, headers={"x-forwarded-for": who}).status_code

    assert [opens("ann"), opens("ann", "/config"), opens("ann"), opens("bob")] == [200, 200, 429, 200]
    assert opens("ann", "/assets/x.js") == 200, "all else that a page takes"
    clock[0] += 60
    assert opens("ann") == 200


def test_open_requests_are_bounded_for_each_visitor_and_in_all(tmp_path: Path, monkeypatch) -> None:
    layer = Doors(anything, lambda: tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(layer, "max_open", 2)
    monkeypatch.setattr(layer, "max_open_in_all", 4)

    def enters(address: str) -> int:
        layer.open[address] += 1
        scope = {"type": "http", "path": "/config", "headers": [], "method": "GET"}
        try:
            layer.check(scope, address)
        except doors.Refused as refused:
            return refused.status
        return 200

    assert [enters("ann") for _ in range(3)] == [200, 200, 429]
    assert [enters("bob"), enters("cid")] == [200, 503]


@pytest.mark.parametrize(
    ("client", "forwarded", "who"),
    [
        ("9.9.9.9", "", "9.9.9.9"),
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),  # nobody's proxy: it may say what it likes
        ("127.0.0.1", "1.1.1.1, 8.8.8.8", "8.8.8.8"),  # what the nearest proxy saw
        ("::ffff:127.0.0.1", "8.8.8.8", "8.8.8.8"),
        ("::1", "8.8.8.8", "8.8.8.8"),
        ("10.0.0.2", "8.8.8.8", "10.0.0.2"),  # a neighbour: anybody in a network may ask from there
        ("127.0.0.1", "", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),  # any address of their network is theirs
        ("::ffff:9.9.9.9", "", "9.9.9.9"),
    ],
)
def test_who_asks_is_not_whom_they_say_they_are(client: str, forwarded: str, who: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert address_of({"type": "http", "client": (client, 1), "headers": headers}) == who


@pytest.mark.parametrize("name", ["GRADIO_ROOT_PATH", "SPACE_ID"])
def test_a_proxy_of_the_network_says_for_whom_it_asks_where_there_is_one(monkeypatch, name: str) -> None:
    def who(client: str) -> str:
        headers = [(b"x-forwarded-for", b"1.1.1.1, 8.8.8.8")]
        return address_of({"type": "http", "client": (client, 1), "headers": headers})

    monkeypatch.setenv(name, "/vit")
    assert [who("10.0.0.2"), who("::ffff:10.0.0.2"), who("9.9.9.9")] == ["8.8.8.8", "8.8.8.8", "9.9.9.9"]


# ---- turns -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("xyz")), max_size=30))
def test_everybody_has_a_turn_before_anybody_has_the_next(waiting: list[tuple[str, str]]) -> None:
    events = list(enumerate(waiting))
    served = in_turn(events, lambda event: event[1])
    assert sorted(served) == events
    addresses = [address for _, (address, _) in served]
    rows = [addresses, *([page for _, (of, page) in served if of == address] for address in "ABC")]
    for row in rows:  # of addresses, and of the pages of each
        for place, name in enumerate(row):
            others = set(row[place:]) - {name}
            assert all(row[:place].count(name) <= row[:place].count(other) for other in others)
    for key in set(waiting):  # what one page asks for is answered in its order
        mine = [number for number, other in served if other == key]
        assert mine == sorted(mine)


def test_a_new_visitor_comes_next_however_much_another_waits_for() -> None:
    served = in_turn([*[("attacker", "a")] * 60, ("new", "b")], lambda event: event)
    assert served.index(("new", "b")) == 1


def test_a_page_may_ask_for_as_much_as_a_hand_can() -> None:
    mine, other = ("1.1.1.1", "page"), ("2.2.2.2", "page")
    assert refusal([mine] * 2, mine, "slow", 2) and not refusal([mine] * 2, other, "slow", 2)
    assert not refusal([mine] * 10, mine, "model", 10)
    many = [("1.1.1.1", str(i)) for i in range(turns.MOST_OF_AN_ADDRESS)]
    assert refusal(many, ("1.1.1.1", "new"), "model", 0) and not refusal(many, other, "model", 0)
    assert refusal([], mine, "model", turns.MOST_WAITING)


async def pushed(queue: Any, page: str, address: str = "1.1.1.1") -> Any:
    request = SimpleNamespace(scope={"type": "http", "client": (address, 1), "headers": []})
    body = SimpleNamespace(fn_index=0, session_hash=page)
    return await queue.push(body=body, request=request, username=None)


class Fake:
    """As much of Gradio's queue as turns know."""

    def __init__(self, lane: str, limit: int, *told: Any) -> None:
        self.name = lane
        self.lane = SimpleNamespace(queue=[], current_concurrency=0, concurrency_limit=limit)
        self.event_queue_per_concurrency_id = {lane: self.lane}
        pages = SimpleNamespace(session_data={}, blocks=None)
        self.blocks = SimpleNamespace(fns={0: SimpleNamespace(concurrency_id=lane)}, state_holder=pages)
        self.pending_messages_per_session: dict[str, Any] = {}
        self.pending_event_ids_session: dict[str, Any] = {}
        self.event_ids_to_events: dict[str, Any] = {}
        self.patient: list[bool] = []
        take_turns(self, *told)

    def __len__(self) -> int:
        return len(self.lane.queue)

    async def push(self, body: Any, request: Any, username: Any) -> Any:
        event = SimpleNamespace(request=request, session_hash=body.session_hash, concurrency_id=self.name)
        self.lane.queue.append(event)
        return True, "id", "success"

    async def process_events(self, events: list, batch: bool, begin_time: float, fn: Any) -> None:
        self.patient.append(PATIENT.get())
        self.lane.current_concurrency -= 1

    def begun(self: Any) -> list[Any]:
        """The events that are begun now, until there are no more places."""
        found = []
        while answer := self.get_events():
            self.lane.current_concurrency += 1
            found += answer[0]
        return found

    def compute_analytics_summary(self, records: list) -> dict:
        raise AssertionError("statistics of ten thousand events after each of them")

    async def finish(self, event: Any) -> None:
        self.compute_analytics_summary([])
        await asyncio.create_task(self.process_events([event], False, 0.0, None))


@pytest.mark.anyio
async def test_the_queue_serves_in_turn_and_refuses_with_a_sentence() -> None:
    queue = Fake("slow", 1)
    for page in ("a", "a", "b"):
        assert (await pushed(queue, page))[0]
    assert [event.session_hash for event in queue.lane.queue] == ["a", "b", "a"]
    queue.lane.current_concurrency = 1
    assert [turns.place_of(queue, page) for page in ("a", "b", "c")] == [1, 2, None]
    assert not queue.begun()
    ok, why_not, state = await pushed(queue, "a")
    assert not ok and state == "error" and why_not.endswith(".") and len(queue) == 3


@pytest.mark.anyio
async def test_what_nothing_answers_is_refused_and_the_queue_goes_on() -> None:
    queue = Fake("slow", 1)
    request = SimpleNamespace(scope={"type": "http", "client": ("1.1.1.1", 1), "headers": []})
    for index in (None, 9999):
        body = SimpleNamespace(fn_index=index, session_hash="x")
        ok, why_not, state = await queue.push(body=body, request=request, username=None)
        assert not ok and state == "error" and why_not.endswith(".")
    assert (await pushed(queue, "a"))[0]
    assert [event.session_hash for event in queue.begun()] == ["a"]


@pytest.mark.anyio
async def test_who_names_no_page_has_one_that_everybody_knows() -> None:
    told: list[tuple[str, str]] = []
    queue = Fake("slow", 1, lambda page, address: told.append((page, address)))
    for _ in range(2):
        assert (await pushed(queue, ""))[0]
    pages = [event.session_hash for event in queue.lane.queue]
    assert pages == [page for page, _ in told] and all(pages) and len({*pages}) == 2


@pytest.mark.anyio
async def test_an_address_sends_only_so_many_new_pages_a_minute(monkeypatch, clock) -> None:
    monkeypatch.setattr(turns, "MOST_PAGES", 2)
    queue = Fake("model", 2)
    queue.blocks.state_holder.session_data["old"] = "what Gradio keeps of it"
    said = [await pushed(queue, page) for page in ("a", "b", "a", "c", "old")]
    assert [each[0] for each in said] == [True, True, True, False, True]
    assert said[3][1].endswith("reload this one in a minute.")
    assert (await pushed(queue, "d", "2.2.2.2"))[0], "another address"


@pytest.mark.anyio
async def test_who_asks_beside_the_queue_is_as_welcome_as_in_it(monkeypatch, clock) -> None:
    monkeypatch.setattr(turns, "MOST_PAGES", 2)
    told: list[tuple[str, str]] = []
    queue = Fake("model", 2, lambda page, address: told.append((page, address)))
    queue.blocks.fns[0].api_name, queue.blocks._queue = "look", queue
    queue.blocks.fns[0].api_visibility = "public"
    queue.blocks.fns[1] = SimpleNamespace(api_name="on_show", api_visibility="private")

    async def answer(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    routes = [
        Route(path, answer, methods=["POST"])
        for path in ("/gradio_api/run/predict", "/gradio_api/call/{name}")
    ]
    inside = Starlette(routes=routes, middleware=[Middleware(turns.AtOnce)])
    inside.get_blocks = lambda: queue.blocks  # type: ignore[attr-defined]
    page = TestClient(inside)

    def status(path: str, **said: Any) -> int:
        sent = (
            {"json": {"data": [], "fn_index": 0, **said}} if "body" not in said else {"content": said["body"]}
        )
        found = page.post(f"/gradio_api/{path}", **sent)
        if found.status_code == 200:
            assert found.content == found.request.content, "all of it comes in"
        else:
            assert found.json()["error"].endswith(".")
        return found.status_code

    asked = [status("run/predict", session_hash=each) for each in ("a", "b", "a", "c", "d" * 65)]
    assert asked == [200, 200, 200, 429, 429]
    assert [page for page, _ in told] == ["a", "b", "a"]
    nothing = [
        {"fn_index": 9},
        {"fn_index": [0]},
        {"session_hash": None},
        {"body": b"no JSON"},
        {"body": b"[" * 9999},
    ]
    assert [status("run/predict", **{"session_hash": "a", **said}) for said in nothing] == [404] * 5
    assert [status(f"call/{name}") for name in ("look", "none", "on_show")] == [200, 404, 404]
    assert "64 letters" in (await pushed(queue, "e" * 65))[1]


@pytest.mark.anyio
async def test_what_a_page_says_beside_the_queue_is_heard_in_its_order() -> None:
    queue = Fake("model", 2)
    queue.blocks._queue = queue
    held, heard = asyncio.Event(), []

    async def answer(scope, receive, send) -> None:
        said = json.loads((await receive())["body"])["said"]
        if said == "first":
            await held.wait()
        heard.append(said)

    layer = turns.AtOnce(answer)

    def say(page: str, said: str) -> Awaitable[None]:
        body = json.dumps({"fn_index": 0, "session_hash": page, "said": said}).encode()
        scope = {"type": "http", "method": "POST", "path": "/gradio_api/run/predict", "headers": []}
        scope |= {"client": ("1.1.1.1", 1), "app": SimpleNamespace(get_blocks=lambda: queue.blocks)}
        return asyncio.create_task(layer(scope, turns.once_more(body, held.wait), None))  # type: ignore[arg-type]

    said = [say("a", "first"), say("a", "second"), say("b", "another page's")]
    await said[-1]
    assert heard == ["another page's"]
    held.set()
    await asyncio.gather(*said)
    assert heard == ["another page's", "first", "second"] and not layer.hearing


@pytest.mark.anyio
async def test_a_page_is_told_of_an_event_after_the_end_of_its_stream(monkeypatch) -> None:
    """Else it waits for the answer at the stream that has ended: Gradio's own script opens no other."""
    queue, slept, sleep = Fake("model", 2), [], asyncio.sleep
    queue.blocks._queue = queue

    async def answer(scope, receive, send) -> None:
        for said in ("process_completed", "close_stream"):
            assert not queue.ended
            await send({"type": "http.response.body", "body": f'data: {{"msg":"{said}"}}\n\n'.encode()})

    async def sent(message) -> None:
        assert (b"close" in message["body"]) == (queue.ended == {"a"})

    async def waited(seconds: float) -> None:
        slept.append(seconds)

    scope = {"type": "http", "method": "GET", "path": "/gradio_api/queue/data", "headers": []}
    scope |= {"query_string": b"session_hash=a", "app": SimpleNamespace(get_blocks=lambda: queue.blocks)}
    await turns.AtOnce(answer)(scope, None, sent)  # type: ignore[arg-type]
    monkeypatch.setattr(asyncio, "sleep", waited)
    for page in "ba":
        assert (await pushed(queue, page))[0]
    assert slept == [turns.END_HEARD]
    while queue.ended:
        await sleep(0.01)


@pytest.mark.anyio
async def test_the_session_hears_which_page_is_whose_before_anything_is_made_for_it() -> None:
    """What is kept is on the account of an address: page and address must not change places."""
    heard: list[tuple[str, str]] = []
    queue = Fake("slow", 1, lambda page, address: heard.append((page, address)))
    for page, address in (("a", "1.1.1.1"), ("b", "2.2.2.2"), ("a", "1.1.1.1")):
        await pushed(queue, page, address)
    assert heard == [("a", "1.1.1.1"), ("b", "2.2.2.2"), ("a", "1.1.1.1")]
    await pushed(queue, "a")
    assert len(heard) == 3, "it was refused"


def test_of_a_new_page_gradio_keeps_what_it_needs_and_no_description_of_every_component() -> None:
    with gr.Blocks() as demo:
        size, seen = gr.Dropdown(["small", "large"]), gr.State([])
    holder = StateHolder()
    holder.set_blocks(demo)
    assert len(holder["as Gradio does it"].config_values) >= 2
    turns.describe_no_page(demo)
    turns.describe_no_page(demo)
    page = holder["a"]
    assert not page.config_values and page[size._id] is size and page[seen._id] == []
    page[seen._id] = ["kept"]
    assert holder["a"][seen._id] == ["kept"]
    page._update_value_in_config(size._id, "large")  # as with every event that brings it
    assert not any(page.config_values.values()) and demo.default_config.config_for_block(size._id, [], size)


@pytest.mark.anyio
async def test_what_is_fetched_ahead_lets_those_by_who_see_nothing_yet_but_not_for_ever(monkeypatch) -> None:
    queue, done = Fake("model", 1), []

    async def fetch(name: str) -> None:
        await turns.let_by(queue, "model")
        done.append(name)

    await fetch("nobody waits")
    await pushed(queue, "a")
    waits = asyncio.create_task(fetch("waited"))
    await asyncio.sleep(0.15)
    assert done == ["nobody waits"]
    queue.begun()
    await asyncio.wait_for(waits, 30)
    await pushed(queue, "b")
    monkeypatch.setattr(turns, "LET_BY", 0.1)
    await asyncio.wait_for(fetch("long enough"), 30)
    assert done == ["nobody waits", "waited", "long enough"]


@pytest.mark.anyio
async def test_no_address_has_all_places_of_a_lane() -> None:
    queue = Fake("slow", 2)
    for page in "abcdef":
        await pushed(queue, page, "1.1.1.1")
    (first,) = queue.begun()
    assert first.session_hash == "a" and not queue.begun(), "asked again, too"
    await pushed(queue, "new", "2.2.2.2")
    (other,) = queue.begun()
    assert other.session_hash == "new"
    for event in (first, other):
        await queue.finish(event)
    assert queue.patient == [True, True], "what is slow lets all else go first"
    assert [event.session_hash for event in queue.begun()] == ["b"]


@pytest.mark.anyio
async def test_who_asks_for_much_at_once_lets_others_go_first() -> None:
    queue = Fake("quick", 2)
    for page in range(turns.MUCH + 2):
        await pushed(queue, str(page), "1.1.1.1")
    await pushed(queue, "new", "2.2.2.2")
    for event in queue.begun():
        await queue.finish(event)
    assert queue.patient == [True, False]


@pytest.mark.anyio
async def test_answers_that_nobody_reads_are_thrown_away(monkeypatch) -> None:
    monkeypatch.setattr(turns, "UNREAD", 0.01)
    queue = Fake("quick", 2)
    queue.event_ids_to_events["x"] = SimpleNamespace(session_hash="works")

    async def answered(page: str) -> asyncio.Queue[str]:
        await pushed(queue, page, page)
        queue.pending_messages_per_session[page] = messages = asyncio.Queue[str]()
        messages.put_nowait("first")
        messages.put_nowait("second")
        (event,) = queue.begun()
        await queue.finish(event)
        return messages

    (await answered("reads")).get_nowait()
    await answered("works")
    await answered("does not")  # the last of those that are looked after
    async with asyncio.timeout(30):
        while "does not" in queue.pending_messages_per_session:
            await asyncio.sleep(0.01)
    assert set(queue.pending_messages_per_session) == {"reads", "works"}


@pytest.mark.anyio
async def test_a_gate_lets_in_few_and_of_no_address_all() -> None:
    gate, inside = turns.Gate(4), Counter[str]()
    go_on = asyncio.Event()

    async def go(address: str) -> None:
        async with gate.turn(address):
            inside[address] += 1
            await go_on.wait()

    many = [asyncio.create_task(go("1.1.1.1")) for _ in range(9)]
    await asyncio.sleep(0)
    assert inside["1.1.1.1"] == 2 and gate.asks_for_much("1.1.1.1") and not gate.asks_for_much("2.2.2.2")
    many[8].cancel()  # who leaves before their turn
    many[0].cancel()  # or within it
    other = asyncio.create_task(go("2.2.2.2"))
    await asyncio.sleep(0.01)
    assert inside["2.2.2.2"] == 1
    go_on.set()
    await asyncio.gather(*many, other, return_exceptions=True)
    assert inside["1.1.1.1"] == 8 and not gate.waiting and not gate.at_work


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no claim of its own")
def test_patient_work_has_less_claim_to_the_processor_and_the_same_answer() -> None:
    def claim(value: int) -> tuple[int, int]:
        return value, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    usual = with_patience(claim, 7)
    PATIENT.set(True)
    try:
        value, nice = with_patience(claim, 7)
        with pytest.raises(ZeroDivisionError):
            with_patience(lambda: 1 // 0)
    finally:
        PATIENT.set(False)
    assert usual[0] == value == 7 and nice > usual[1]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# ---- temporary files -------------------------------------------------------------------------------------

WORKER = """
import sys, time
from explorer.upkeep import Workplace, stop_on_term
stop_on_term()
place = Workplace()
(place.folder / "uploads").mkdir()
try:
    print(place.folder, flush=True)  # from here on it may be stopped
    time.sleep(60)
except KeyboardInterrupt:
    pass
finally:
    place.close()
"""


def worker(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_nothing_is_left_after_a_stop_and_the_next_start_removes_what_a_kill_left(tmp_path: Path) -> None:
    stopped, its = worker(tmp_path)
    stopped.send_signal(signal.SIGTERM)
    stopped.wait(20)
    assert not its.exists()
    killed, left = worker(tmp_path)
    living, kept = worker(tmp_path)
    killed.kill()
    killed.wait(20)
    assert left.exists()
    third, _ = worker(tmp_path)
    assert not left.exists() and kept.exists(), "what a living process uses stays"
    for process in (living, third):
        process.terminate()
        process.wait(20)
    assert not list(tmp_path.glob("vit-explorer-*"))


def test_gradio_gets_a_folder_of_this_process_so_that_another_users_is_not_in_the_way(monkeypatch) -> None:
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    before = upkeep.tempfile.tempdir
    place = upkeep.Workplace()
    assert upkeep.upload_folder().parent == place.folder
    place.close()
    assert not place.folder.exists() and upkeep.tempfile.tempdir == before
    assert "GRADIO_TEMP_DIR" not in os.environ


def test_what_else_lies_where_uploads_are_to_be_is_nobodys_to_remove(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "given"))
    place = upkeep.Workplace()
    theirs = tmp_path / "given" / "thesis.txt"
    theirs.write_text("mine")
    os.utime(theirs, (0, 0))
    assert upkeep.upload_folder().is_relative_to(tmp_path / "given")
    upkeep.sweep(upkeep.upload_folder())
    place.close()
    assert [*(tmp_path / "given").iterdir()] == [theirs]
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path / "given")


def test_what_came_in_part_goes_soon_and_the_rest_after_an_hour(tmp_path: Path) -> None:
    (tmp_path / "abc").mkdir()
    part, whole = tmp_path / "tmpx1", tmp_path / "abc" / "cat.png"
    for file in (part, whole):
        file.write_bytes(b"x")
    upkeep.sweep(tmp_path)
    assert part.exists() and whole.exists()
    upkeep.sweep(tmp_path, time.time() + upkeep.CUT_OFF + 5)
    assert not part.exists() and whole.exists()
    upkeep.sweep(tmp_path, time.time() + upkeep.KEPT + 5)
    upkeep.sweep(tmp_path, time.time() + 2 * upkeep.KEPT)
    assert not list(tmp_path.iterdir())


def test_only_what_came_in_part_goes_soon(tmp_path: Path) -> None:
    """Halves lie beside the folders; a picture in one may be called anything, and a folder may be new."""
    named_so, whole, part = tmp_path / "abc" / "tmp.png", tmp_path / "cat.png", tmp_path / "tmp1"
    named_so.parent.mkdir()
    (tmp_path / "new").mkdir()
    for file in (named_so, whole, part):
        file.write_bytes(b"x")
    upkeep.sweep(tmp_path, time.time() + upkeep.CUT_OFF - 60)
    assert part.exists() and (tmp_path / "new").exists()
    upkeep.sweep(tmp_path, time.time() + upkeep.CUT_OFF + 5)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["abc", "cat.png", "tmp.png"]
    upkeep.sweep(tmp_path, time.time() + upkeep.KEPT - 60)
    assert named_so.exists() and whole.exists()


# ---- words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/home/ann/vit/checkpoints/shapes/config.json is cut short.", "shapes/config.json is cut short."),
        ("The file '/tmp/a/b/c.png' is gone.", "The file 'b/c.png' is gone."),
        (r"C:\Users\ann\vit\run\x.csv is odd.", r"run\x.csv is odd."),
        ("facebook/dino-vits8 has no card.", "facebook/dino-vits8 has no card."),
        ("See https://huggingface.co/a/b/c for it.", "See https://huggingface.co/a/b/c for it."),
        ("There is no folder runs/a/b here.", "There is no folder runs/a/b here."),
        ("3 and/or 4.", "3 and/or 4."),
    ],
)
def test_messages_name_files_and_not_where_they_lie(text: str, said: str) -> None:
    assert without_paths(text) == said


def test_each_error_is_a_sentence_or_a_fault_of_the_program() -> None:
    assert sentence_of(ValueError("Choose another model.")) == "Choose another model."
    assert sentence_of(OSError(28, "No space left on device")) == (
        "The disk of this server is full: try again later."
    )
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")):
        assert "not enough memory" in str(sentence_of(error))
    for error in (ValueError("operands could not be broadcast"), KeyError("x"), RuntimeError("shape")):
        assert sentence_of(error) is None


@pytest.mark.anyio
async def test_what_a_list_does_not_offer_is_a_sentence_and_nothing_for_the_log() -> None:
    with gr.Blocks() as demo:
        size = gr.Dropdown(["small", "large"])
        size.input(lambda size: None, [size], None)
    guard(demo)
    with pytest.raises(gr.Error, match="not in the list") as caught:
        await demo.preprocess_data(demo.fns[0], ["huge"], SessionState(demo))
    assert not caught.value.print_exception


def test_who_sends_without_end_waits_and_nobody_else_does() -> None:
    pace = doors.Pace()
    waits = [pace.wait("a") for _ in range(doors.AT_ONCE + 3 * round(doors.PACE))]
    assert not any(waits[: doors.AT_ONCE]), "a class opens its pages at once"
    assert 2 < waits[-1] <= 3 and pace.wait("b") == 0
    assert max(pace.wait("a") for _ in range(2 * doors.MAX_OPEN)) <= doors.MAX_OPEN / doors.PACE


def test_what_is_sent_too_fast_is_answered_later(inside: TestClient, monkeypatch) -> None:
    monkeypatch.setattr(doors, "AT_ONCE", 2)
    monkeypatch.setattr(doors, "PACE", 20.0)
    began = time.monotonic()
    for _ in range(6):
        assert inside.post("/gradio_api/queue/join", content=b"{}").status_code < 500
    assert time.monotonic() - began > 0.15

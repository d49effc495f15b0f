"""Whose turn it is: visitors in turn, whatever each of them asks for, and only so much from each.

Gradio serves what waits in the order in which it came: one visitor's sixty events come before the next one's
first. Here those who wait take turns, first by their address, then by their page, and no address has all
places of a lane: whoever else comes finds one. Nothing is refused while a visitor asks no more than a page
does.
"""

import asyncio
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from explorer.doors import API, MANY_PAGES, MOST_PAGES, PerMinute, address_of, path_of
from explorer.patience import PATIENT

E = TypeVar("E")
MOST_WAITING = 2000  # events, of all visitors
MOST_OF_AN_ADDRESS = 400  # of them
MOST_OF_A_PAGE = {"model": 24, "slow": 2, "hub": 4}  # by lane; more than a hand can ask for
MOST_ELSEWHERE = 64  # in any other lane
MUCH = 4  # events of an address that wait: more than a page asks for at once, and they let others go first
LET_BY = 3.0  # seconds that somebody who sees something already waits for those who see nothing yet
LONGEST_NAME = 64  # letters of a page's name; Gradio's have a dozen, those of programs 36
RUN, CALL = API + "run/", API + "call/"  # what is answered without the queue; what comes to it by name
NO_SUCH_NAME = 'There is no such question: the page "Use via API" has the names of all.'
NO_QUESTION = "There is no such question: reload the page."
STREAM, END = API + "queue/data", b'"close_stream"'  # what a page is answered, and its last message
# seconds in which a page hears that; told of an event before, it opens no other stream, and waits for ever
END_HEARD = 0.1
UNREAD = 60.0  # seconds after which answers that a page has not begun to read are thrown away


def in_turn(waiting: Sequence[E], key_of: Callable[[E], tuple[Hashable, Hashable]]) -> list[E]:
    """Those who wait in the order in which they are served: address by address, and of each page by page.

    The place of an event in its own page's row does not change. key_of: (address, page) of an event.
    """
    by_page: defaultdict[Hashable, int] = defaultdict(int)  # events of this page before this one
    rounds: list[tuple[int, int, E]] = []
    for number, event in enumerate(waiting):
        rounds.append((by_page[key_of(event)], number, event))
        by_page[key_of(event)] += 1
    rounds.sort(key=lambda row: row[:2])  # the first events of all pages, then the second ones
    by_address: defaultdict[Hashable, count] = defaultdict(count)
    turns = [(next(by_address[key_of(event)[0]]), number, event) for _, number, event in rounds]
    return [event for *_, event in sorted(turns, key=lambda row: row[:2])]


def refusal(waiting: Sequence[tuple[str, str]], key: tuple[str, str], lane: str, total: int) -> str:
    """Why one more event of this (address, page) may not wait in this lane, in a sentence; empty if it may.

    waiting: (address, page) of those who wait in it. total: how many wait in all lanes.
    """
    if sum(other == key for other in waiting) >= MOST_OF_A_PAGE.get(lane, MOST_ELSEWHERE):
        if lane == "slow":
            return "What you asked for before is still running: wait for it, or stop it."
        return "This page has asked for more than can be answered: wait a moment."
    if sum(address == key[0] for address, _ in waiting) >= MOST_OF_AN_ADDRESS or total >= MOST_WAITING:
        return "Too many visitors are waiting: try again in a minute."
    return ""


def doorkeeper(queue: Any, came_from: Callable[[str, str], None]) -> Callable[[tuple[str, str]], str]:
    """welcome((address, page)) -> why it may ask for nothing yet, in a sentence; empty if it may, and then it
    is known: something is kept of each page that is new. came_from: told each (page, address)."""
    newcomers = PerMinute()  # pages, by address

    def welcome(key: tuple[str, str]) -> str:
        address, page = key
        if len(page) > LONGEST_NAME:
            return f"A page's name has {LONGEST_NAME} letters at most: reload the page."
        known = page in queue.blocks.state_holder.session_data
        if not known and newcomers.with_this(address, page) > MOST_PAGES:
            return MANY_PAGES
        came_from(page, address)
        describe_no_page(queue.blocks)
        return ""

    return welcome


class Undescribed:
    """What Gradio knows of the components of a page, but for their descriptions."""

    def __init__(self, config: Any):
        self.config = config

    def __copy__(self) -> "Undescribed":
        return Undescribed(copy(self.config))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)

    def config_for_block(self, *about: Any, **more: Any) -> dict:
        return {}


def describe_no_page(blocks: Any) -> None:
    """Of each page that is new, of each that nobody has opened and somebody closes, and of what events bring
    and take, Gradio keeps a description of every component, for deep links, which there are none of here. For
    a new page it takes 25 ms in which nobody else is served, 5 more for its first picture, and 0.3 MiB. From
    now on it keeps none."""
    pages = blocks.state_holder
    if pages.blocks is blocks:  # of which a page's state takes these two
        pages.blocks = SimpleNamespace(default_config=Undescribed(blocks.default_config), blocks=())


def place_of(queue: Any, page: str) -> int | None:
    """How many events are served before the first one of this page; None if none of its waits."""
    lanes = queue.event_queue_per_concurrency_id.values()
    places = [
        place + lane.current_concurrency
        for lane in lanes
        for place, event in enumerate(lane.queue)
        if event.session_hash == page
    ]
    return min(places, default=None)


async def let_by(queue: Any, lane: str) -> None:
    """Wait while anybody waits in this lane, but not for long: for what is fetched before it is looked at."""
    for _ in range(round(LET_BY / 0.1)):
        if not (lane in (lanes := queue.event_queue_per_concurrency_id) and lanes[lane].queue):
            return
        await asyncio.sleep(0.1)


def share(places: int | None) -> int:
    """How many of a lane's places one address may have at work."""
    return 10**6 if places is None else max(1, places // 2)


def key_of(event: Any) -> tuple[str, str]:
    """(address, page) of one of Gradio's events."""
    if not hasattr(event, "visitor"):
        event.visitor = address_of(event.request.scope), str(event.session_hash)
    visitor: tuple[str, str] = event.visitor
    return visitor


def take_turns(queue: Any, came_from: Callable[[str, str], None] = lambda page, address: None) -> None:
    """Make a `gradio.queueing.Queue` serve those who wait in turn. came_from: told each (page, address).

    For `AtOnce` it gets `welcome`, by which come those who ask for what is answered without it, and `ended`.
    """
    push, process = queue.push, queue.process_events
    lanes = queue.event_queue_per_concurrency_id
    at_work: Counter[tuple[str, str]] = Counter()  # events, by lane and address
    queue.ended = ended = set[str]()  # pages that are just told of the end of their stream
    queue.welcome = welcome = doorkeeper(queue, came_from)
    changed = set[str]()  # lanes in which somebody may have got a place: Gradio asks every millisecond

    async def push_in_turn(body: Any, request: Any, username: Any) -> Any:
        function = queue.blocks.fns.get(body.fn_index)
        if function is None:  # of a page that is older than the app, say
            return False, NO_QUESTION, "error"
        body.session_hash = body.session_hash or secrets.token_hex(16)  # who names no page is one
        lane = str(function.concurrency_id)
        waiting = [key_of(event) for event in lanes[lane].queue] if lane in lanes else []
        key = (address_of(request.scope), str(body.session_hash))
        if why_not := refusal(waiting, key, lane, len(queue)) or welcome(key):
            return False, why_not, "error"
        answer = await push(body=body, request=request, username=username)
        if known := lanes.get(lane):
            known.queue[:] = in_turn(known.queue, key_of)
        changed.add(lane)
        if key[1] in ended:  # by then it has heard of that, and opens another
            await asyncio.sleep(END_HEARD)
        return answer

    def next_event() -> tuple[list[Any], bool, str] | None:
        """As Gradio's own, but of those alone whose address has a place left."""
        while changed:
            lane = lanes[name := next(iter(changed))]
            full = lane.concurrency_limit is not None and lane.current_concurrency >= lane.concurrency_limit
            for event in () if full else lane.queue:
                key = (name, key_of(event)[0])
                if at_work[key] < share(lane.concurrency_limit):
                    at_work[key] += 1
                    lane.queue.remove(event)
                    return [event], False, name
            changed.discard(name)
        return None

    async def process_in_turn(events: list[Any], batch: bool, begin_time: float, fn: Any) -> None:
        (address, page), lane = key_of(events[0]), str(events[0].concurrency_id)
        waiting = sum(key_of(event)[0] == address for one in lanes.values() for event in one.queue)
        PATIENT.set(lane == "slow" or waiting > MUCH)
        try:
            await process(events, batch, begin_time, fn)
        finally:
            changed.add(lane)
            at_work[lane, address] -= 1
            if not at_work[lane, address]:
                del at_work[lane, address]
            asyncio.get_running_loop().call_later(UNREAD, forget_unread, queue, page, unread(queue, page))

    queue.push, queue.get_events, queue.process_events = push_in_turn, next_event, process_in_turn
    # after every event, of the last 10,000, and nobody is shown it (`enable_monitoring`)
    queue.compute_analytics_summary = lambda records: {}


class AtOnce:
    """The layer before what Gradio answers without its queue: who asks there is as welcome as in it, a
    question that nothing answers is refused before Gradio fails at it, and what one page says is heard in the
    order in which it came: of two choices the later one stands."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.hearing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope).rstrip("/")
        if scope["type"] == "http" and path == STREAM:
            return await self.app(scope, receive, hearing_of_the_end(scope, send))
        if scope["type"] != "http" or scope["method"] != "POST" or not path.startswith((RUN, CALL)):
            return await self.app(scope, receive, send)
        blocks, why_not, status = scope["app"].get_blocks(), "", 404
        if path.startswith(CALL):
            open_to_all = [each for each in blocks.fns.values() if each.api_visibility == "public"]
            names = {function.api_name for function in open_to_all}
            why_not = "" if path.rpartition("/")[2] in names else NO_SUCH_NAME
        else:
            body = await Request(scope, receive).body()
            receive = once_more(body, receive)
            asked = dict_in(body)
            number, page = asked.get("fn_index"), asked.get("session_hash")
            if (
                not isinstance(number, int)
                or number not in blocks.fns
                or not (isinstance(page, str) and page)
            ):
                why_not = NO_QUESTION
            elif why_not := blocks._queue.welcome((address_of(scope), page)):
                status = 429
            else:
                async with self.hearing.setdefault(page, asyncio.Lock()):
                    return await self.app(scope, receive, send)
        answer = JSONResponse({"error": why_not}, status) if why_not else self.app
        await answer(scope, receive, send)


def hearing_of_the_end(scope: Scope, send: Send) -> Send:
    """`send` of a page's stream: the queue knows of its end for as long as it takes to be heard."""
    ended, page = scope["app"].get_blocks()._queue.ended, Request(scope).query_params.get("session_hash", "")

    async def send_and_note(message: Message) -> None:
        if END in message.get("body", b""):
            ended.add(page)
            asyncio.get_running_loop().call_later(END_HEARD, ended.discard, page)
        await send(message)

    return send_and_note


def dict_in(body: bytes) -> dict[str, Any]:
    """What a request says as JSON; nothing where it is something else."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def once_more(body: bytes, receive: Receive) -> Receive:
    """`receive` after a body was read: it comes again, as a whole."""
    whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def receive_again() -> Message:
        nonlocal whole
        message, whole = whole, None
        return message or await receive()

    return receive_again


def unread(queue: Any, page: str) -> Any:
    """The first message that waits for this page to read it; None if none does."""
    messages = queue.pending_messages_per_session.get(page)
    return messages._queue[0] if messages is not None and not messages.empty() else None


def forget_unread(queue: Any, page: str, first: Any) -> None:
    """Throw away what a page is told that has not read the first of it, which was waiting long ago."""
    busy = any(event.session_hash == page for event in queue.event_ids_to_events.values())
    if first is not None and not busy and unread(queue, page) is first:
        queue.pending_messages_per_session.pop(page, None)
        queue.pending_event_ids_session.pop(page, None)


class Gate:
    """So many at a time go through, in turn, and no address has all places. For one event loop."""

    def __init__(self, places: int):
        self.places = places
        self.at_work: Counter[str] = Counter()  # by address
        self.waiting: list[tuple[tuple[str, str], asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(self, address: str, page: str = "") -> AsyncIterator[None]:
        """Wait for it, and have it."""
        mine = (address, page), asyncio.get_running_loop().create_future()
        self.waiting.append(mine)
        self.let_in()
        try:
            await mine[1]
            yield
        finally:
            if mine in self.waiting:  # who left before their turn
                self.waiting.remove(mine)
            else:
                self.at_work[address] -= 1
                if not self.at_work[address]:
                    del self.at_work[address]
            self.let_in()

    def let_in(self) -> None:
        for one in in_turn(self.waiting, lambda one: one[0]):
            (address, _), turn = one
            if self.at_work.total() >= self.places:
                return
            if self.at_work[address] < share(self.places):
                self.at_work[address] += 1
                self.waiting.remove(one)
                turn.set_result(None)

    def asks_for_much(self, address: str) -> bool:
        return sum(of == address for (of, _), _ in self.waiting) > MUCH

"""Whose turn it is: visitors in turn, whatever each of them asks for, and only so much from each.

Gradio serves what waits in the order in which it came: one visitor's sixty events come before the next one's
first. Here those who wait take turns, first by their address, then by their page. Nothing is refused while a
visitor asks no more than a page does.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from typing import Any, TypeVar

from explorer.doors import address_of

E = TypeVar("E")
MOST_WAITING = 2000  # events, of all visitors
MOST_OF_AN_ADDRESS = 400  # of them
MOST_OF_A_PAGE = {"model": 24, "slow": 2, "hub": 4}  # by lane; more than a hand can ask for
MOST_ELSEWHERE = 64  # in any other lane


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


def take_turns(queue: Any, came_from: Callable[[str, str], None] = lambda page, address: None) -> None:
    """Make a `gradio.queueing.Queue` serve those who wait in turn. came_from: told each (page, address)."""
    push = queue.push

    def key_of(event: Any) -> tuple[str, str]:
        return address_of(event.request.scope), str(event.session_hash)

    async def push_in_turn(body: Any, request: Any, username: Any) -> Any:
        function = queue.blocks.fns.get(body.fn_index)
        lane = str(function.concurrency_id) if function else ""
        known = queue.event_queue_per_concurrency_id.get(lane)
        waiting = [key_of(event) for event in known.queue] if known else []
        key = (address_of(request.scope), str(body.session_hash))
        if why_not := refusal(waiting, key, lane, len(queue)):
            return False, why_not, "error"
        came_from(key[1], key[0])
        answer = await push(body=body, request=request, username=username)
        if known := queue.event_queue_per_concurrency_id.get(lane):
            known.queue[:] = in_turn(known.queue, key_of)
        return answer

    queue.push = push_in_turn

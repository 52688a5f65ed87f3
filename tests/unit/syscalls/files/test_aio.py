"""Asynchronous I/O, where memory of the program has to be fetched first."""

from __future__ import annotations

from collections.abc import Callable

from sentry.abi.aio import IO_EVENT
from sentry.kernel.aio import Request, aio_of
from tests.world import Program

Fetch = Callable[[int], None]


def test_one_context_is_made_where_its_place_has_to_be_fetched_first(
    task: Program, fetched_first: Fetch
) -> None:
    place = task.place(bytes(8))
    fetched_first(place)
    task.ok("io_setup", 7, place)
    address = int.from_bytes(task.read(place, 8), "little")
    assert task.world.vfs.budget.aio_contexts == 1
    task.ok("io_destroy", address)
    assert task.world.vfs.budget.aio_events == 0


def test_no_event_is_lost_where_the_place_of_later_ones_has_to_be_fetched_first(
    task: Program, fetched_first: Fetch
) -> None:
    place, events = task.place(bytes(8)), task.buffer(10 * IO_EVENT.size)
    task.ok("io_setup", 1, place)
    address = int.from_bytes(task.read(place, 8), "little")
    context = aio_of(task.task).find(task.task, address)
    for _ in range(context.nr - 5):  # the next ones lie at the end of the ring and at its start
        context.complete(Request(context, 0, 0, None), 0)
        context.taken(1)
    for number in range(10):
        context.complete(Request(context, 0, number, None), 0)
    fetched_first(events + 5 * IO_EVENT.size)
    assert task.ok("io_getevents", address, 10, 10, events, 0) == 10
    told = IO_EVENT.unpack_all(task.read(events, 10 * IO_EVENT.size))
    assert [event.data for event in told] == list(range(10))

"""Asynchronous I/O, where memory of the program has to be fetched first."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from sentry.abi.aio import IO_EVENT, IOCB, IOCB_CMD_PREAD
from sentry.abi.fcntl import O_CREAT, O_RDWR
from sentry.kernel.aio import Context, Request, aio_of
from sentry.mm.errors import NeedsFault
from sentry.mm.manager import MemoryManager
from sentry.wait.fiber import Mode, park
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


def made(task: Program) -> tuple[int, Context]:
    place = task.place(bytes(8))
    task.ok("io_setup", 1, place)
    address = int.from_bytes(task.read(place, 8), "little")
    return address, aio_of(task.task).find(task.task, address)


def read_of(program: Program, fd: int, buf: int) -> int:
    """A list of one request for a byte."""
    iocb = IOCB.pack(0, 0, 0, IOCB_CMD_PREAD, 0, fd, buf, 1, 0, 0, 0, 0)
    return program.place(program.place(iocb).to_bytes(8, "little"))


def test_file_closed_while_the_request_is_fetched_is_read_and_closed_once(
    task: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, buf = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644), task.buffer(1)
    task.ok("write", fd, task.place(b"x"), 1)
    file, (address, context) = task.task.files.get(fd), made(task)
    requests, closer, write = read_of(task, fd, buf), task.thread(), MemoryManager.write

    async def fetched() -> None:
        monkeypatch.setattr(MemoryManager, "write", write)
        await park(Mode.KILLABLE, 0)

    def store(mm: MemoryManager, addr: int, data: bytes) -> None:
        raise NeedsFault(fetched)

    monkeypatch.setattr(MemoryManager, "write", store)
    before = task.world.vfs.budget.files
    call = task.begin("io_submit", address, 1, requests)
    assert not call.done
    closer.ok("close", fd)
    assert call.wait() == 1
    assert task.read(buf, 1) == b"x"
    assert context.events == 1
    assert (file.refs, task.world.vfs.budget.files) == (0, before - 1)


def test_requests_that_threads_are_submitting_have_places_in_the_ring(task: Program) -> None:
    address, context = made(task)
    for _ in range(context.nr - 2):
        context.complete(Request(context, 0, 0, None), 0)
    ends = task.buffer(8)
    task.ok("pipe", ends)
    requests, other = read_of(task, task.read(ends, 1)[0], task.buffer(1)), task.thread()
    call = task.begin("io_submit", address, 1, requests)
    assert not call.done
    assert other.call("io_submit", address, 1, requests) == -errno.EAGAIN
    other.ok("write", task.read(ends + 4, 1)[0], other.place(b"x"), 1)
    assert call.wait() == 1
    assert context.events == context.nr - 1

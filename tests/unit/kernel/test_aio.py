"""The ring of a context, whose head is the program's word; requests and their ceilings."""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.aio import IO_EVENT, IoEvent
from sentry.abi.poll import EPOLLIN
from sentry.errors import EAGAIN, EINVAL
from sentry.fs.eventfd import EventFile
from sentry.kernel.aio import AioTable, Context, Request
from sentry.kernel.services import Services
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import munmap
from sentry.mm.ramfile import RamFile
from sentry.platform.memory import AddressSpace, Ram
from sentry.vfs import budget as budgets
from sentry.vfs.vfs import Vfs


@pytest.fixture
def task() -> Iterator[Any]:
    """A task of a kernel that has nothing but memory."""
    later: list[Any] = []
    ram = Ram.from_memfd(1 << 30)
    vfs = Vfs(None, lambda: RamFile(ram), lambda: 0)
    loop = SimpleNamespace(call_soon=later.append, later=later)
    kernel = SimpleNamespace(vfs=vfs, cpus=2, services=Services(), loop=loop)
    mm = MemoryManager.empty(lambda: AddressSpace(ram))
    yield SimpleNamespace(kernel=kernel, mm=mm)
    mm.release()
    del vfs, kernel
    gc.collect()  # the last files give their frames back
    ram.close()


def events(task: Any, context: Context, count: int) -> list[IoEvent]:
    return list(IO_EVENT.unpack_all(context.take(count)))


def test_the_ring_wraps_and_keeps_the_order(task: Any) -> None:
    context = Context(task.kernel, 0, 1)
    for number in range(4 * context.nr):
        context.complete(Request(context, 0x1000, number, None), number)
        if number % 2:
            found = events(task, context, 2)
            context.taken(len(found))
            if len(found) == 1:  # at the end of the ring
                found += events(task, context, 1)
                context.taken(1)
            assert [(e.data, e.res) for e in found] == [(number - 1,) * 2, (number,) * 2]
    assert context.events == 0


def test_no_more_is_submitted_than_the_ring_holds(task: Any) -> None:
    context = Context(task.kernel, 0, 1)
    for _ in range(context.nr - 1):
        context.check_room()
        context.complete(Request(context, 0, 0, None), 0)
    with pytest.raises(EAGAIN):
        context.check_room()
    context.taken(1)
    context.check_room()


@pytest.mark.parametrize("head", [1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_head_that_is_nonsense_stays_within_the_ring(task: Any, head: int) -> None:
    context = Context(task.kernel, 0, 1)
    context.complete(Request(context, 0, 0, None), 0)
    context.memory.write(8, struct.pack("<I", head))
    assert 0 <= context.events < context.nr
    taken = events(task, context, 1 << 40)
    assert len(taken) < context.nr
    context.taken(len(taken))
    context.complete(Request(context, 0, 0, None), 0)


def test_a_context_is_found_where_its_ring_is_mapped_and_dies_with_the_memory(task: Any) -> None:
    table = task.mm.aio = AioTable(task.kernel)
    address = table.setup(task, 10)
    assert table.find(task, address).max_requests == 10
    assert task.kernel.vfs.budget.aio_events == 10
    for wrong in (0, address + 4096, address + 8, 1 << 50):
        with pytest.raises(EINVAL):
            table.find(task, wrong)
    munmap(task.mm.map, address, 4096)
    with pytest.raises(EINVAL):
        table.find(task, address)
    table.close()
    assert (task.kernel.vfs.budget.aio_events, task.kernel.vfs.budget.aio_contexts) == (0, 0)


def test_a_poll_completes_once_and_gives_everything_back(task: Any) -> None:
    context = Context(task.kernel, 0, 1)
    watched, told = EventFile(task.kernel.vfs, 0, 0), EventFile(task.kernel.vfs, 0, 0)
    watched.incref()
    told.incref()
    request = Request(context, 0x1000, 5, told)
    request.poll(watched, EPOLLIN)
    assert (watched.refs, context.events, context.budget.aio_requests) == (2, 0, 1)
    watched.add(3)
    watched.add(3)
    assert [(e.data, e.obj, e.res) for e in events(task, context, 9)] == [(5, 0x1000, EPOLLIN)]
    for call in task.kernel.loop.later:
        call()
    assert (watched.refs, told.refs, told.value) == (1, 1, 1)
    assert (context.budget.aio_requests, len(context.waiting)) == (0, 0)


def test_a_request_that_is_over_is_freed(task: Any) -> None:
    context = Context(task.kernel, 0, 1)
    watched = EventFile(task.kernel.vfs, 0, 0).incref()
    gc.collect()
    gc.disable()
    Request(context, 0x1000, 5, None).poll(watched, EPOLLIN)
    watched.add(3)
    for call in task.kernel.loop.later:
        call()
    left = sum(isinstance(each, Request) for each in gc.get_objects())
    gc.enable()
    assert left == 0


def test_a_killed_context_cancels_what_waits(task: Any) -> None:
    context = Context(task.kernel, 0, 1)
    watched = EventFile(task.kernel.vfs, 0, 0)
    watched.incref()
    for address in (1, 2):
        Request(context, address, 0, None).poll(watched, EPOLLIN)
    assert context.cancel(2)
    assert not context.cancel(2)
    context.kill()
    assert context.budget.aio_requests == 0
    assert len(watched.queue) == 0


def test_what_programs_can_make_has_ceilings(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = AioTable(task.kernel)
    with pytest.raises(EINVAL):
        table.setup(task, 0x7FFFFFFF)
    with pytest.raises(EAGAIN):
        table.setup(task, 65537)
    monkeypatch.setattr("sentry.kernel.aio.MAX_CONTEXTS", 1)
    context = table.find(task, table.setup(task, 1))
    with pytest.raises(EAGAIN):
        table.setup(task, 1)
    monkeypatch.setattr(budgets, "MAX_AIO_REQUESTS", 0)
    watched = EventFile(task.kernel.vfs, 0, 0)
    with pytest.raises(EAGAIN):
        Request(context, 0, 0, None).poll(watched, EPOLLIN)
    assert watched.refs == 0
    table.close()

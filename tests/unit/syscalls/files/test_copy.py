"""Copies between descriptors, where memory of the program has to be fetched first."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from sentry.abi.fcntl import F_GETPIPE_SZ, F_SETFL, O_CREAT, O_NONBLOCK, O_RDWR
from sentry.abi.ioctl import FIONREAD
from sentry.abi.resource import RLIMIT_FSIZE
from sentry.abi.signal import SIGPIPE, SIGXFSZ
from sentry.abi.socket import AF_UNIX, SOCK_STREAM
from sentry.wait.again import settled
from sentry.wait.fiber import Mode, park
from tests.world import Program

Fetch = Callable[[int], None]
CALLS: dict[str, Callable[[int, int, int], tuple[str, tuple[Any, ...]]]] = {
    "sendfile": lambda source, target, offset: ("sendfile", (target, source, offset, 4)),
    "splice": lambda source, target, offset: ("splice", (source, offset, target, 0, 4, 0)),
}


@pytest.mark.parametrize("call", CALLS)
def test_bytes_are_copied_once_where_the_offset_has_to_be_fetched_first(
    task: Program, fetched_first: Fetch, call: str
) -> None:
    file = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    task.ok("write", file, b"abcdefgh", 8)
    ends = task.buffer(8)
    task.ok("pipe", ends)
    reader, writer = task.read(ends, 1)[0], task.read(ends + 4, 1)[0]
    offset = task.place((2).to_bytes(8, "little"))
    fetched_first(offset)
    name, values = CALLS[call](file, writer, offset)
    assert task.ok(name, *values) == 4
    assert task.read(offset, 8) == (6).to_bytes(8, "little")
    found = task.buffer(16)
    assert task.ok("read", reader, found, 16) == 4
    assert task.read(found, 4) == b"cdef"


def test_range_is_copied_once_where_the_offset_has_to_be_fetched_first(
    task: Program, fetched_first: Fetch
) -> None:
    source = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    task.ok("write", source, b"abcdefgh", 8)
    task.ok("lseek", source, 2, 0)
    target = task.ok("open", b"/g", O_CREAT | O_RDWR, 0o644)
    offset = task.place(bytes(8))
    fetched_first(offset)
    assert task.ok("copy_file_range", source, 0, target, offset, 4, 0) == 4
    assert task.ok("lseek", source, 0, 1) == 6
    found = task.buffer(16)
    assert task.ok("pread64", target, found, 16, 0) == 4
    assert task.read(found, 4) == b"cdef"


def test_range_ends_where_files_may_end(task: Program) -> None:
    source = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    task.ok("write", source, task.place(bytes(20)), 20)
    target = task.ok("open", b"/g", O_CREAT | O_RDWR, 0o644)

    def copy(start: int, end: int, goal: int, count: int) -> int:
        places = (task.place(at.to_bytes(8, "little")) for at in (start, goal))
        return task.call("copy_file_range", source, next(places), end, next(places), count, 0)

    task.block(SIGXFSZ)
    task.task.group.limits.set(RLIMIT_FSIZE, 10, 10)
    assert copy(0, target, 0, 20) == 10
    assert not task.take_signals()
    for start, count in ((0, 0), (20, 5), (0, 5)):
        assert copy(start, target, 10, count) == -errno.EFBIG
        assert task.take_signals() == [SIGXFSZ]
    assert copy(4, source, 6, 10) == -errno.EINVAL
    assert copy(0, source, 6, 10) == 4


def test_ranges_overlap_also_where_less_would_be_copied(task: Program) -> None:
    file = task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644)
    task.ok("ftruncate", file, 8 << 30)
    start = task.place((3 << 30).to_bytes(8, "little"))
    goal = task.place(bytes(8))
    size = 7 << 29
    assert task.call("copy_file_range", file, start, file, goal, size, 0) == -errno.EINVAL


def pipe(task: Program) -> tuple[int, int]:
    ends = task.buffer(8)
    task.ok("pipe", ends)
    return task.read(ends, 1)[0], task.read(ends + 4, 1)[0]


def fill(task: Program, writer: int) -> None:
    assert task.ok("write", writer, task.place(bytes(1 << 16)), 1 << 16) == 1 << 16


def test_range_of_a_file_whose_size_takes_long_is_copied_though_it_is_closed(
    task: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (task.ok("open", name, O_CREAT | O_RDWR, 0o644) for name in (b"/f", b"/g"))
    task.ok("write", one, task.place(b"abcd"), 4)
    task.ok("lseek", one, 0, 0)
    source, target = task.task.files.get(one), task.task.files.get(other)
    stat = type(source).stat

    async def answered() -> None:
        await park(Mode.KILLABLE, 0)

    def slow(file: Any) -> Any:
        settled((file, "slow"), answered)
        return stat(file)

    monkeypatch.setattr(type(source), "stat", slow)
    closer, budget = task.thread(), task.world.vfs.budget
    before = budget.files
    call = task.begin("copy_file_range", one, 0, other, 0, 4, 0)
    assert not call.done
    for fd in (one, other):
        closer.ok("close", fd)
    task.world.settle()
    assert call.result == 4
    assert (source.refs, target.refs, budget.files) == (0, 0, before - 2)


def test_splice_waits_on_where_another_reader_was_faster(task: Program) -> None:
    reader, writer = pipe(task)
    out, full = pipe(task)
    task.ok("write", writer, task.place(b"one"), 3)
    fill(task, full)
    other = task.thread()
    call = task.begin("splice", reader, 0, full, 0, 3, 0)
    found = other.buffer(1 << 16)
    assert other.ok("read", reader, found, 3) == 3
    assert other.ok("read", out, found, 1 << 16) == 1 << 16
    task.world.settle()
    assert not call.done
    other.ok("write", writer, other.place(b"two"), 3)
    assert call.wait() == 3
    assert other.ok("read", out, found, 3) == 3
    assert other.read(found, 3) == b"two"


def _sockets(task: Program) -> tuple[int, int]:
    """Two that are connected."""
    found = task.buffer(8)
    task.ok("socketpair", AF_UNIX, SOCK_STREAM, 0, found)
    return task.read(found, 1)[0], task.read(found + 4, 1)[0]


def _held(task: Program, pipe: int) -> int:
    """How many bytes are in a pipe."""
    found = task.buffer(4)
    task.ok("ioctl", pipe, FIONREAD, found)
    return int.from_bytes(task.read(found, 4), "little")


def test_splice_that_waits_for_bytes_keeps_their_room_in_the_pipe(task: Program) -> None:
    reader, writer = pipe(task)
    near, far = _sockets(task)
    capacity = task.ok("fcntl", writer, F_GETPIPE_SZ, 0)
    splicing = task.thread().begin("splice", near, 0, writer, 0, capacity, 0)
    other = task.thread()
    writing = other.begin("write", writer, other.buffer(capacity), capacity)
    task.ok("write", far, b"come", 4)
    assert splicing.wait() == 4
    task.world.settle()
    assert _held(task, reader) <= capacity
    task.ok("read", reader, task.buffer(capacity), capacity)
    assert writing.wait() == capacity


def test_bytes_that_splice_puts_back_have_their_room_in_the_pipe(task: Program) -> None:
    task.block(SIGPIPE)
    reader, writer = pipe(task)
    near, far = _sockets(task)
    capacity = task.ok("fcntl", writer, F_GETPIPE_SZ, 0)
    task.ok("fcntl", near, F_SETFL, O_NONBLOCK)
    while task.call("write", near, task.buffer(capacity), capacity) > 0:
        pass
    task.ok("fcntl", near, F_SETFL, 0)
    task.ok("write", writer, task.buffer(capacity), capacity)
    splicing = task.thread().begin("splice", reader, 0, near, 0, capacity, 0)
    other = task.thread()
    writing = other.begin("write", writer, other.buffer(capacity), capacity)
    task.ok("close", far)
    assert splicing.wait() == -errno.EPIPE
    task.world.settle()
    assert not writing.done
    assert _held(task, reader) == capacity

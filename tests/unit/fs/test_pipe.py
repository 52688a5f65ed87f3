"""Pipes and FIFOs."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from sentry.abi.fcntl import (
    F_GETPIPE_SZ,
    F_SETPIPE_SZ,
    O_CREAT,
    O_DIRECT,
    O_NONBLOCK,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
)
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.signal import SIGPIPE
from sentry.abi.stat import S_IFIFO
from sentry.auth.credentials import Credentials
from sentry.control.meter import Meter
from sentry.control.profile import timed
from sentry.mm.errors import NeedsFault


def pipe(task: Any, flags: int = 0) -> tuple[int, int]:
    buf = task.buffer(8)
    task.ok("pipe2", buf, flags)
    r, w = struct.unpack("<ii", task.read(buf, 8))
    return r, w


def write(task: Any, fd: int, data: bytes) -> int:
    return int(task.call("write", fd, task.place(data), len(data)))


def read(task: Any, fd: int, count: int) -> bytes | int:
    buf = task.buffer(count)
    n = task.call("read", fd, buf, count)
    return n if n < 0 else bytes(task.read(buf, n))


def revents(task: Any, fd: int) -> int:
    buf = task.place(struct.pack("<ihh", fd, POLLIN | POLLOUT, 0))
    task.ok("poll", buf, 1, 0)
    return int(struct.unpack("<ihh", task.read(buf, 8))[2])


def test_bytes_come_out_in_order(task: Any) -> None:
    r, w = pipe(task)
    assert write(task, w, b"hello ") == 6
    assert write(task, w, b"world") == 5
    assert read(task, r, 8) == b"hello wo"
    assert read(task, r, 8) == b"rld"
    task.ok("close", w)
    assert read(task, r, 8) == b""


def test_reader_sleeps_until_a_write(task: Any) -> None:
    r, w = pipe(task)
    buf = task.buffer(4)
    other = task.thread()
    reader = task.begin("read", r, buf, 4)
    assert not reader.done
    write(other, w, b"ab")
    assert reader.wait() == 2


def test_a_write_without_readers_is_a_broken_pipe(task: Any) -> None:
    r, w = pipe(task)
    task.ok("close", r)
    task.block(SIGPIPE)
    assert write(task, w, b"x") == -errno.EPIPE
    assert task.take_signals() == [SIGPIPE]
    assert revents(task, w) & POLLERR


def test_nonblocking_ends_do_not_sleep(task: Any) -> None:
    r, w = pipe(task, O_NONBLOCK)
    assert read(task, r, 1) == -errno.EAGAIN
    assert write(task, w, bytes(65536)) == 65536
    assert write(task, w, b"x") == -errno.EAGAIN
    assert not revents(task, w) & POLLOUT
    assert len(read(task, r, 100)) == 100  # type: ignore[arg-type]
    assert write(task, w, bytes(4096)) == -errno.EAGAIN
    assert write(task, w, bytes(5000)) == 100


def test_big_write_sleeps_until_all_is_read(task: Any) -> None:
    r, w = pipe(task)
    data = bytes(range(256)) * 400
    other = task.fork()
    writer = task.begin("write", w, task.place(data), len(data))
    assert not writer.done
    got = b""
    while len(got) < len(data):
        part = read(other, r, 30000)
        assert isinstance(part, bytes)
        got += part
        task.world.settle()
    assert got == data
    assert writer.result == len(data)


def test_packets_keep_their_bounds(task: Any) -> None:
    r, w = pipe(task, O_DIRECT)
    write(task, w, b"first")
    write(task, w, b"second")
    assert read(task, r, 3) == b"fir"
    assert read(task, r, 100) == b"second"


def test_size_is_a_power_of_two_pages(task: Any) -> None:
    r, w = pipe(task)
    assert task.ok("fcntl", r, F_GETPIPE_SZ, 0) == 65536
    assert task.ok("fcntl", w, F_SETPIPE_SZ, 5000) == 8192
    assert write(task, w, bytes(8192)) == 8192
    assert task.call("fcntl", w, F_SETPIPE_SZ, 4096) == -errno.EBUSY


def test_fifo_without_a_partner(task: Any) -> None:
    task.ok("mknod", b"/p", S_IFIFO | 0o600, 0)
    assert task.call("open", b"/p", O_WRONLY | O_NONBLOCK, 0) == -errno.ENXIO
    r = task.ok("open", b"/p", O_RDONLY | O_NONBLOCK, 0)
    assert not revents(task, r) & POLLHUP
    w = task.ok("open", b"/p", O_WRONLY | O_NONBLOCK, 0)
    write(task, w, b"x")
    task.ok("close", w)
    assert revents(task, r) & (POLLHUP | POLLIN) == POLLHUP | POLLIN
    assert read(task, r, 9) == b"x"
    task.ok("close", r)
    task.ok("close", task.ok("open", b"/p", O_RDWR, 0))


def test_fifo_open_waits_for_the_other_side(task: Any) -> None:
    task.ok("mknod", b"/p", S_IFIFO | 0o600, 0)
    other = task.sibling()
    reader = task.begin("open", b"/p", O_RDONLY, 0)
    assert not reader.done
    other.ok("open", b"/p", O_WRONLY, 0)
    assert reader.wait() == 0


@pytest.mark.parametrize("flags", [O_RDONLY, O_RDONLY | O_CREAT])
@pytest.mark.parametrize("meanwhile", ["renamed", "forbidden"])
def test_fifo_that_waits_for_the_other_side_is_the_one_that_was_found(
    task: Any, flags: int, meanwhile: str
) -> None:
    task.ok("mknod", b"/p", S_IFIFO | 0o600, 0)
    other, user = task.sibling(), task.sibling(uid=1000)
    task.ok("chown", b"/p", 1000, 1000)
    reader = user.begin("open", b"/p", flags, 0o600)
    assert not reader.done
    if meanwhile == "renamed":
        other.ok("rename", b"/p", b"/moved")
    else:
        other.ok("chown", b"/p", 0, 0)
    writer = other.ok("open", b"/moved" if meanwhile == "renamed" else b"/p", O_WRONLY, 0)
    assert reader.wait() == 0
    write(other, writer, b"x")
    assert read(user, 0, 1) == b"x"
    assert other.call("access", b"/p", 0) == (-errno.ENOENT if meanwhile == "renamed" else 0)


def test_mount_with_a_fifo_that_somebody_waits_to_open_is_busy(task: Any) -> None:
    task.ok("mkdir", b"/m", 0o755)
    task.ok("mount", b"none", b"/m", b"tmpfs", 0, 0)
    task.ok("mknod", b"/m/p", S_IFIFO | 0o600, 0)
    other = task.sibling()
    reader = task.begin("open", b"/m/p", O_RDONLY, 0)
    assert other.call("umount2", b"/m", 0) == -errno.EBUSY
    writer = other.ok("open", b"/m/p", O_WRONLY, 0)
    assert reader.wait() == 0
    other.ok("close", writer)
    assert other.call("umount2", b"/m", 0) == -errno.EBUSY
    task.ok("close", 0)
    other.ok("umount2", b"/m", 0)


def test_fifo_for_which_there_is_no_number_any_more_has_no_reader(task: Any) -> None:
    task.ok("mknod", b"/p", S_IFIFO | 0o600, 0)
    other = task.sibling()
    reader = task.begin("open", b"/p", O_RDONLY, 0)
    task.task.group.limits.set(RLIMIT_NOFILE, 0, 0)
    writer = other.ok("open", b"/p", O_WRONLY, 0)
    assert reader.wait() == -errno.EMFILE
    other.block(SIGPIPE)
    assert write(other, writer, b"x") == -errno.EPIPE


def test_pipes_of_a_user_without_rights_are_short_beyond_the_soft_limit(task: Any) -> None:
    task.world.vfs.pipes.user_pages_soft = 20
    task.task.creds = Credentials(uid=1000, euid=1000)
    first, _ = pipe(task)
    second, _ = pipe(task)
    assert task.ok("fcntl", first, F_GETPIPE_SZ) == 65536
    assert task.ok("fcntl", second, F_GETPIPE_SZ) == 8192
    assert task.call("fcntl", second, F_SETPIPE_SZ, 65536) == -errno.EPERM
    task.ok("close", first)


def test_pipe_beyond_the_hard_limit_is_refused(task: Any) -> None:
    task.world.vfs.pipes.user_pages_hard = 10
    pipe(task)
    task.task.creds = Credentials(uid=1000, euid=1000)
    assert task.call("pipe2", task.buffer(8), 0) == -errno.ENFILE


def test_one_write_wakes_one_reader_and_who_leaves_something_the_next(world: Any) -> None:
    task = world.program()
    r, w = pipe(task)
    readers = [task.thread() for _ in range(4)]
    calls = [one.begin("read", r, one.buffer(2), 2) for one in readers]
    write(task, w, b"abc")
    world.settle()
    assert [call.done for call in calls] == [True, True, False, False]
    assert [call.result for call in calls[:2]] == [2, 1]
    write(task, w, b"d")
    write(task, w, b"e")
    world.settle()
    assert calls[2].result == 2
    assert not calls[3].done
    task.ok("close", w)
    world.settle()
    assert calls[3].result == 0


def test_reader_whose_memory_is_bad_leaves_the_bytes_to_the_next(world: Any) -> None:
    task = world.program()
    r, w = pipe(task)
    one, other = task.thread(), task.thread()
    page = task.ok("mmap", 0, 4096, 3, 0x22, -1 & 0xFFFFFFFF, 0)
    bad, good = one.begin("read", r, page, 1), other.begin("read", r, other.buffer(1), 1)
    task.ok("munmap", page, 4096)
    write(task, w, b"x")
    world.settle()
    assert bad.result == -errno.EFAULT
    assert good.result == 1


def test_reader_that_a_signal_ends_takes_no_wake_with_it(world: Any) -> None:
    task = world.program()
    r, w = pipe(task)
    one, other = task.fork(), task.fork()
    one.begin("read", r, one.buffer(1), 1)
    waiting = other.begin("read", r, other.buffer(1), 1)
    one.task.group.exit(9)  # it is the first in line, and has not gone yet
    write(task, w, b"x")
    world.settle()
    assert waiting.result == 1


def test_writers_go_on_one_after_the_other_as_there_is_room(world: Any) -> None:
    task = world.program()
    r, w = pipe(task)
    size = task.ok("fcntl", w, F_GETPIPE_SZ, 0)
    write(task, w, bytes(size))
    writers = [task.thread() for _ in range(3)]
    calls = [one.begin("write", w, one.place(b"x" * 4096), 4096) for one in writers]
    room = task.buffer(size)
    task.ok("read", r, room, 4096)
    world.settle()
    assert [call.done for call in calls] == [True, False, False]
    task.ok("read", r, room, size)
    world.settle()
    assert all(call.result == 4096 for call in calls)


def test_reader_sleeps_in_a_coroutine_of_somebody_else_too(world: Any, task: Any) -> None:
    """As while somebody measures, or watches: sentry.control.profile."""
    kernel = world.kernel
    plain = kernel.calls
    kernel.calls = [
        timed(plain, number, Meter()) if call is not None else None
        for number, call in enumerate(plain)
    ]
    r, w = pipe(task)
    buf = task.buffer(4)
    other = task.thread()
    reader = task.begin("read", r, buf, 4)
    assert not reader.done
    write(other, w, b"ab")
    assert reader.wait() == 2


def test_write_whose_memory_is_away_in_the_middle_counts_what_went(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its start it would write that twice."""
    r, w = pipe(task)
    reader = task.thread()
    writing = task.begin("write", w, task.buffer(100_000), 100_000)
    assert not writing.done

    async def come_back() -> None:
        monkeypatch.undo()

    def away(*_: object) -> bytes:
        raise NeedsFault(come_back)

    monkeypatch.setattr("sentry.mm.buffers.UserSource.get", away)
    assert len(read(reader, r, 4096)) == 4096
    task.world.settle()
    assert writing.wait() == 65536
    task.ok("close", w)
    assert len(read(reader, r, 100_000)) == 65536 - 4096
    assert read(reader, r, 1) == b""

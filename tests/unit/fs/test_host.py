"""Donated descriptors: pipes, regular files, terminals of the host."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sentry.abi.fcntl import O_RDONLY, O_RDWR, O_WRONLY, RWF_NOWAIT
from sentry.abi.ioctl import TCGETS, TCSETSW, TIOCGWINSZ, TIOCSTI
from sentry.abi.poll import POLLIN, POLLOUT
from sentry.abi.resource import RLIMIT, RLIMIT_FSIZE
from sentry.abi.signal import SIGXFSZ
from sentry.fs.host.file import donated
from sentry.mm.buffers import UserSource
from sentry.mm.errors import NeedsFault
from sentry.platform.host_io import THREADS, HostIO, HostThreads


def give(task: Any, fd: int, flags: int) -> int:
    return int(task.task.files.install(donated(task.world.vfs, fd, flags), 100))


def test_pipe_of_the_host_is_waited_for(task: Any) -> None:
    r, w = os.pipe()
    fd, buf = give(task, r, O_RDONLY), task.buffer(10)
    reader = task.begin("read", fd, buf, 10)
    assert not reader.done
    os.write(w, b"hello")
    assert reader.wait() == 5
    assert task.read(buf, 5) == b"hello"
    os.close(w)
    assert task.ok("read", fd, buf, 10) == 0
    assert not fcntl.fcntl(r, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(r)


def test_full_pipe_of_the_host_is_not_ready(task: Any) -> None:
    r, w = os.pipe()
    fd = give(task, w, O_WRONLY)
    where = task.place(struct.pack("<ihh", fd, POLLOUT, 0))
    assert task.ok("poll", where, 1, 0) == 1
    total = 0
    other = task.thread()
    writer = task.begin("write", fd, task.buffer(100_000), 100_000)
    assert other.ok("poll", where, 1, 0) == 0
    while not writer.done:
        total += len(os.read(r, 30_000))
        task.world.settle()
    while total < 100_000:
        total += len(os.read(r, 30_000))
    assert writer.result == 100_000
    os.close(r)
    os.close(w)


def test_regular_file_shares_the_position_of_the_caller(task: Any, tmp_path: Path) -> None:
    host = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    os.write(host, b"before ")
    fd = give(task, host, O_RDWR)
    task.ok("write", fd, task.place(b"inside "), 7)
    os.write(host, b"after")
    assert (tmp_path / "out").read_bytes() == b"before inside after"
    assert task.ok("lseek", fd, 0, 0) == 0
    buf = task.buffer(6)
    assert task.ok("read", fd, buf, 6) == 6
    assert task.read(buf, 6) == b"before"
    os.close(host)


def test_regular_file_grows_no_larger_than_the_program_may_make_one(
    task: Any, tmp_path: Path
) -> None:
    host = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    fd = give(task, host, O_RDWR)
    task.ok("prlimit64", 0, RLIMIT_FSIZE, task.place(RLIMIT.pack(10, 10)), 0)
    task.ok("rt_sigprocmask", 0, task.place((1 << SIGXFSZ - 1).to_bytes(8, "little")), 0, 8)
    text = task.place(b"0123456789abc")
    assert task.call("pwrite64", fd, text, 13, 1 << 37) == -errno.EFBIG
    assert task.call("ftruncate", fd, 11) == -errno.EFBIG
    assert task.ok("pwrite64", fd, text, 13, 8) == 2
    assert task.ok("write", fd, text, 0) == 0
    assert task.ok("write", fd, text, 13) == 10
    assert task.call("write", fd, text, 1) == -errno.EFBIG
    assert (tmp_path / "out").read_bytes() == b"0123456789"
    task.ok("ftruncate", fd, 4)
    assert (tmp_path / "out").read_bytes() == b"0123"
    os.close(host)


@pytest.mark.parametrize("flags", [RWF_NOWAIT, 0], ids=["from memory", "by a thread"])
def test_regular_file_is_read_at_a_position(task: Any, tmp_path: Path, flags: int) -> None:
    (tmp_path / "in").write_bytes(bytes(range(200)) * 50)
    host = os.open(tmp_path / "in", os.O_RDONLY)
    threads = HostThreads(task.world.loop, lambda name: name)
    try:
        task.world.vfs.host_io = HostIO(threads)
        fd, buf = give(task, host, O_RDONLY), task.buffer(10_000)
        task.task.files.get(fd)._nowait = flags
        assert task.ok("pread64", fd, buf, 10_000, 0) == 10_000
        assert task.read(buf, 10_000) == bytes(range(200)) * 50
        assert task.ok("pread64", fd, buf, 10_000, 9_990) == 10
        assert task.ok("pread64", fd, buf, 10_000, 20_000) == 0
        assert task.ok("lseek", fd, 0, 1) == 0
    finally:
        task.world.vfs.host_io = None
        threads.close()
        os.close(host)


@pytest.mark.parametrize("name", ["pread64", "pwrite64"])
def test_file_closed_while_a_call_waits_for_its_turn_is_that_of_the_call(
    task: Any, tmp_path: Path, name: str
) -> None:
    loop, vfs = task.world.loop, task.world.vfs
    threads = HostThreads(loop, lambda fiber: fiber, 1)
    silent, w = os.pipe()
    try:
        vfs.host_io = HostIO(threads)
        loop.spawn(vfs.host_io.read(silent, 1, None), "who has the thread")
        loop.turn()
        (tmp_path / "first").write_bytes(b"first")
        host = os.open(tmp_path / "first", os.O_RDWR)
        file = donated(vfs, host, O_RDWR, closes=True)
        file._nowait = 0
        fd, buf = int(task.task.files.install(file, 100)), task.place(b"12345")
        closer = task.thread()
        call = task.begin(name, fd, buf, 5, 0)
        assert not call.done
        closer.ok("close", fd)
        (tmp_path / "other").write_bytes(b"other")
        other = os.open(tmp_path / "other", os.O_RDWR)  # with its number, if that is free
        os.write(w, b"x")
        assert call.wait() == 5
        if name == "pread64":
            assert task.read(buf, 5) == b"first"
        assert (tmp_path / "other").read_bytes() == b"other"
        assert not vfs.donated
        os.close(other)
    finally:
        vfs.host_io = None
        threads.close()
        os.close(silent)
        os.close(w)


def test_terminal_passes_settings_but_never_input(task: Any) -> None:
    master, slave = pty.openpty()
    fd = give(task, slave, O_RDWR)
    buf = task.buffer(36)
    task.ok("ioctl", fd, TCGETS, buf)
    task.ok("ioctl", fd, TIOCGWINSZ, buf)
    assert task.call("ioctl", fd, TIOCSTI, task.place(b"x")) < 0
    task.ok("write", fd, task.place(b"prompt\n"), 7)
    assert os.read(master, 100) == b"prompt\r\n"
    os.write(master, b"line\n")
    where = task.place(struct.pack("<ihh", fd, POLLIN, 0))
    assert task.ok("poll", where, 1, 1000) == 1
    assert task.ok("read", fd, buf, 36) == 5
    os.close(master)
    os.close(slave)


def test_terminal_that_nobody_reads_leaves_threads_to_files(task: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"from a file")
    host, (master, slave) = os.open(tmp_path / "in", os.O_RDONLY), pty.openpty()
    threads = HostThreads(task.world.loop, lambda name: object())  # nobody has a share
    writer = threading.Thread(target=_write_until_it_hangs_up, args=(slave,))
    task.world.vfs.host_io = HostIO(threads)
    terminal, fd, buf = give(task, slave, O_RDWR), give(task, host, O_RDONLY), task.buffer(36)
    task.task.files.get(fd)._nowait = 0
    task.ok("ioctl", terminal, TCGETS, buf)
    writer.start()
    while _can_write(slave):
        time.sleep(0.001)
    waiting = [task.thread().begin("ioctl", terminal, TCSETSW, buf) for _ in range(THREADS)]
    try:
        assert not any(each.done for each in waiting)
        assert task.ok("pread64", fd, buf, 36, 0) == 11
    finally:
        os.close(master)
        writer.join()
        for each in waiting:
            each.wait()
        task.world.vfs.host_io = None
        threads.close()
        os.close(host)
        os.close(slave)


def _write_until_it_hangs_up(slave: int) -> None:
    with suppress(OSError):
        os.write(slave, bytes(1 << 18))


def _can_write(slave: int) -> bool:
    """No: somebody else has it, and waits."""
    fd = os.open(os.ttyname(slave), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        os.write(fd, b"x")
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_second_reader_goes_on_after_the_first_took_what_woke_both(task: Any) -> None:
    r, w = os.pipe()
    fd = give(task, r, O_RDONLY)
    other = task.thread()
    readers = [one.begin("read", fd, one.buffer(10), 10) for one in (task, other)]
    os.write(w, b"hello")
    task.world.settle()
    assert [reader.done for reader in readers].count(True) == 1
    os.write(w, b"hello")
    assert [reader.wait() for reader in readers] == [5, 5]
    os.close(r)
    os.close(w)


def test_pipe_has_a_number_of_our_own_by_all_its_descriptors(task: Any) -> None:
    r, w = os.pipe()
    other = os.dup(r)
    vfs = task.world.vfs
    file = donated(vfs, r, O_RDONLY, closes=True)
    same = donated(vfs, other, O_RDONLY, closes=True)
    assert file.inode.ino == same.inode.ino != os.fstat(w).st_ino
    assert file.inode.stat().ino == file.inode.ino
    for each in (file, same):
        each.incref()
        each.decref()
    assert not vfs.donated_inos
    os.close(w)


def test_write_whose_memory_is_away_in_the_middle_counts_what_went(
    task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its start it would write that twice."""
    monkeypatch.setattr("sentry.fs.host.file.PIECE", 4096)
    threads = HostThreads(task.world.loop, lambda name: name, 1)
    task.world.vfs.host_io = HostIO(threads)
    host = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    fd = give(task, host, O_WRONLY)
    take, calls = UserSource.get, []

    async def come_back() -> None:
        pass

    def away(source: UserSource, count: int) -> bytes:
        calls.append(count)
        if len(calls) == 2:
            raise NeedsFault(come_back)
        return take(source, count)

    monkeypatch.setattr(UserSource, "get", away)
    assert task.ok("write", fd, task.buffer(8192), 8192) == 4096
    assert (tmp_path / "out").read_bytes() == bytes(4096)
    threads.close()
    os.close(host)

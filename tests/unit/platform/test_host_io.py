"""Host calls by threads: pipes that nobody writes to are files whose server does not answer."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import EBADF
from sentry.loop import HostOnly, Loop
from sentry.mm.buffers import KernelSource
from sentry.platform import host_io
from sentry.platform.host_io import SHARE, THREADS, HostIO, HostThreads, has_writer
from sentry.wait.fiber import Fiber, Killed, Mode


class Host:
    """A loop with a pool; fibers are named as their owner."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.loop = Loop(HostOnly(), lambda _name, error: self.outcomes.append(error))
        self.threads = HostThreads(self.loop, lambda name: name)
        self.io = HostIO(self.threads, "silent")
        self.outcomes: list[Any] = []
        self._begun: list[Fiber] = []
        self.silent, self._writer = os.pipe()

    def close(self) -> None:
        for fiber in self._begun:
            fiber.interrupt(Killed(), Mode.KILLABLE)
        while self.loop.fibers:
            self.turn()
        for fd in (self._writer, self.silent):
            os.close(fd)
        self.threads.close()
        self.stack.close()

    def go_on(self, count: int) -> None:
        """The server answers so many."""
        os.write(self._writer, bytes(count))

    def begin(self, owner: str, call: Any) -> Fiber:
        def done(result: Any, error: BaseException | None) -> None:
            self.outcomes.append(error if error is not None else result)

        self._begun.append(self.loop.spawn(call, owner, done))
        return self._begun[-1]

    def hang(self, owner: str, count: int = 1) -> list[Fiber]:
        """Reads that are not answered yet."""
        fibers = [self.begin(owner, self.io.read(self.silent, 1, None)) for _ in range(count)]
        while not all(fiber.parked for fiber in fibers):
            self.turn()
        return fibers

    def turn(self) -> None:
        self.loop.call_soon(lambda: None)
        self.loop.turn()

    def finish(self, count: int) -> list[Any]:
        while len(self.outcomes) < count:
            self.loop.turn()
        return self.outcomes

    def file(self, data: bytes = b"contents") -> int:
        fd = os.memfd_create("file")
        self.stack.callback(os.close, fd)
        os.write(fd, data)
        return fd


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def test_file_is_written_and_read(host: Host) -> None:
    fd = host.file()

    async def both() -> bytes:
        assert await host.io.write(fd, KernelSource(b"CONTRARY"), 3, 0) == 3
        return await host.io.read(fd, 100, 0)

    host.begin("a", both())
    assert host.finish(1) == [b"CONtents"]


def test_error_of_the_host_is_that_of_the_call(host: Host) -> None:
    host.begin("a", host.io.sync(10**6))
    assert isinstance(host.finish(1)[0], EBADF)
    assert len(host.threads) == 0


def test_one_process_leaves_threads_to_the_others(host: Host) -> None:
    """A thousand threads of one, whose server does not answer."""
    host.hang("attacker", 1000)
    assert len(host.threads) == SHARE

    host.begin("other", host.io.read(host.file(), 100, 0))

    assert host.finish(1) == [b"contents"]
    assert host.threads.waiting == 1000 - SHARE


def test_processes_take_turns_when_a_thread_is_free(host: Host) -> None:
    for owner in ("one", "two", "three"):
        host.hang(owner, 100)
    assert len(host.threads) == THREADS // 2
    host.begin("other", host.io.read(host.file(), 100, 0))
    host.turn()
    assert host.outcomes == []

    host.go_on(4)  # one for each of them at most, then it is its turn

    assert b"contents" in host.finish(5)


def test_server_that_never_answers_leaves_threads_to_files_of_others(host: Host) -> None:
    """Of however many processes: their own other files, too."""
    for number in range(2 * THREADS):
        host.hang(f"process {number}")
    assert len(host.threads) == THREADS // 2

    host.begin(f"process {THREADS}", host.io.at("disk").read(host.file(), 100, 0))

    assert host.finish(1) == [b"contents"]


def test_who_waits_in_line_holds_no_bytes_and_no_descriptor(host: Host) -> None:
    host.hang("a", SHARE)
    before = os.listdir("/proc/self/fd")
    source = KernelSource(b"bytes")
    host.begin("a", host.io.write(host.file(), source, 100, 0))
    host.turn()
    assert source.count == 5
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1  # the file of the test

    host.go_on(SHARE)

    assert 5 in host.finish(SHARE + 1)


def test_killed_in_line_leaves_the_line(host: Host) -> None:
    *_, last = host.hang("a", SHARE + 3)
    assert host.threads.waiting == 3

    assert last.interrupt(Killed(), Mode.KILLABLE)

    assert isinstance(host.finish(1)[0], Killed)
    assert (len(host.threads), host.threads.waiting) == (SHARE, 2)


def test_descriptors_are_closed_by_threads_however_many(host: Host) -> None:
    closed: list[int] = []
    fds = [os.dup(host.silent) for _ in range(SHARE + 20)]
    for fd in fds:
        host.io.close_fd(fd, lambda: closed.append(1))
    while len(closed) < len(fds):
        host.loop.turn()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_descriptors_that_no_memory_asks_for_are_closed_and_keep_no_turn(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    with monkeypatch.context() as full:
        full.setattr(host_io, "lib", SimpleNamespace(hostio_submit=lambda *_: -errno.ENOMEM))
        for _ in range(SHARE + 1):
            host.io.close_fd(os.dup(host.silent), lambda: closed.append(1))
    assert len(closed) == SHARE
    while len(closed) <= SHARE:
        host.turn()
    assert host.threads.waiting == 0


def test_writer_of_a_fifo_is_known_and_nothing_is_taken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    found = [has_writer(reader)]
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    found.append(has_writer(reader))
    os.write(writer, b"abc")
    found.append(has_writer(reader))
    os.close(writer)
    found.append(has_writer(reader))

    assert os.read(reader, 10) == b"abc"
    found.append(has_writer(reader))
    os.close(reader)
    assert found == [False, True, True, True, False]
    with pytest.raises(EBADF):
        has_writer(reader)

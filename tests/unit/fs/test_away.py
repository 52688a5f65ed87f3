"""Reads into memory that is away for a moment (it has to be read itself, or mappings change in
steps): what was taken is not lost. A check before the call does not help who has slept since."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from sentry.abi.fcntl import O_RDONLY
from sentry.abi.inotify import IN_CREATE
from sentry.abi.socket import AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM
from sentry.fs.host.file import donated
from sentry.mm.buffers import UserDest
from sentry.mm.errors import NeedsFault
from sentry.platform.host_io import HostIO, HostThreads


class Away:
    """The memory is away at one `put`, counted from 1 on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        before, self.count = UserDest.put, 0

        def put(dest: UserDest, data: Any) -> int:
            self.count += 1
            if self.count == at:
                raise NeedsFault(self._come_back)
            return before(dest, data)

        monkeypatch.setattr(UserDest, "put", put)

    async def _come_back(self) -> None:
        """At once."""


def pair(task: Any, name: str, *values: int) -> tuple[int, int]:
    buf = task.buffer(8)
    task.ok(name, *(buf if value < 0 else value for value in values))
    one, other = struct.unpack("<ii", task.read(buf, 8))
    return one, other


def read_all(task: Any, fd: int, size: int) -> bytes:
    """In as many reads as it takes."""
    found, buf = b"", task.buffer(size)
    while len(found) < size:
        found += task.read(buf, task.ok("read", fd, buf, size))
    return found


PAIRS = {"pipe": ("pipe2", -1, 0), "unix": ("socketpair", AF_UNIX, SOCK_STREAM, 0, -1)}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("at", [1, 2])
def test_stream_loses_nothing(
    task: Any, monkeypatch: pytest.MonkeyPatch, kind: str, at: int
) -> None:
    r, w = pair(task, *PAIRS[kind])
    for letter in (b"a", b"b"):
        task.ok("write", w, task.place(letter * 5000), 5000)
    away = Away(monkeypatch, at)
    assert read_all(task, r, 10_000) == b"a" * 5000 + b"b" * 5000
    assert away.count > at


def test_timer_loses_no_expiry(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = task.ok("timerfd_create", 1, 0)
    task.ok("timerfd_settime", fd, 0, task.place(struct.pack("<4q", 0, 0, 0, 1)), 0)
    away = Away(monkeypatch, 1)
    assert read_all(task, fd, 8) == (1).to_bytes(8, "little")
    assert away.count == 2


@pytest.mark.parametrize("at", [1, 2])
def test_inotify_loses_no_event(task: Any, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    fd = task.ok("inotify_init1", 0)
    task.ok("inotify_add_watch", fd, b"/", IN_CREATE)
    for name in (b"/one", b"/two"):
        task.ok("mknod", name, 0o100644, 0)
    away = Away(monkeypatch, at)
    found = read_all(task, fd, 64)
    assert found.index(b"one") < found.index(b"two")
    assert away.count == 3


def test_datagram_stays(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task.ok("socket", AF_INET, SOCK_DGRAM, 0)
    here = task.place(struct.pack("<H", AF_INET) + bytes((0x30, 0x39, 127, 0, 0, 1)) + bytes(8))
    task.ok("bind", one, here, 16)
    task.ok("sendto", one, task.place(b"told"), 4, 0, here, 16)
    away = Away(monkeypatch, 1)
    assert read_all(task, one, 4) == b"told"
    assert away.count == 2


def test_file_of_the_host_is_read_once(
    task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = HostThreads(task.world.loop, lambda name: name, 1)
    task.world.vfs.host_io = HostIO(threads)
    (tmp_path / "in").write_bytes(b"first other")
    host = os.open(tmp_path / "in", os.O_RDONLY)
    fd = int(task.task.files.install(donated(task.world.vfs, host, O_RDONLY), 100))
    away = Away(monkeypatch, 1)
    assert read_all(task, fd, 5) == b"first"
    assert away.count == 2
    threads.close()
    os.close(host)

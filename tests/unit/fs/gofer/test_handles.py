"""Handles: who reads and writes what the host has to fetch first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sentry.abi.fcntl import RWF_NOWAIT
from sentry.errors import EOPNOTSUPP
from sentry.fs.gofer.handles import Handle, Storage
from sentry.fs.gofer.pace import SLOW_NS, Pace
from sentry.mm.buffers import KernelDest
from sentry.wait.again import NotNow


class Silent(KernelDest):
    """Into it from a host that does not say whether a read waits, as overlayfs does not."""

    def from_host(self, fd: int, offset: int | None, flags: int = 0) -> int:
        if flags & RWF_NOWAIT:
            raise EOPNOTSUPP
        return super().from_host(fd, offset, flags)


class Host:
    """A disk, one read of which takes `takes_ns` and waits."""

    def __init__(self) -> None:
        self.ns = 1
        self.takes_ns = 0
        self.reads = 0

    def now(self) -> int:
        self.ns += self.takes_ns
        return self.ns

    def waits(self) -> int:
        self.reads += 1
        return self.reads


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def handle(host: Host, tmp_path: Path) -> Iterator[Handle]:
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    place = SimpleNamespace(
        io=SimpleNamespace(at=lambda _: SimpleNamespace()),
        pace=Pace(),
        read_pace=Pace(host.now, host.waits),
        storage=(1, Storage.DISK),
    )
    owner = cast("Any", SimpleNamespace(key=(1, 2), sb=place))
    with path.open("rb") as file:
        yield Handle(owner, file.fileno(), -1, writable=False)


def read(handle: Handle) -> bytes:
    dest = Silent(100)
    n = handle.read(dest, 0)
    return bytes(dest.data)[:n]


def test_what_does_not_say_whether_it_waits_is_read_in_place_while_that_is_quick(
    handle: Handle,
) -> None:
    assert [read(handle), read(handle)] == [b"contents"] * 2


def test_and_by_a_thread_after_it_was_slow(handle: Handle, host: Host) -> None:
    host.takes_ns = SLOW_NS + 1
    assert [read(handle), read(handle)] == [b"contents"] * 2  # the second one is looked at
    with pytest.raises(NotNow):
        read(handle)

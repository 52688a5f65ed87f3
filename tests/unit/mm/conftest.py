"""Address spaces without KVM, and open files to map."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sentry.abi.mman import MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE
from sentry.mm.backing import HostBacking
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.ramfile import RamFile
from sentry.platform.memory import AddressSpace, Ram

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


class OpenFile:
    """What mmap needs of a file description."""

    has_max_offset = True

    def __init__(self, backing: HostBacking | RamFile, readable: bool, writable: bool) -> None:
        self.backing = backing
        self.readable = readable
        self.writable = writable
        self.refs = 1

    def incref(self) -> OpenFile:
        self.refs += 1
        return self

    def decref(self) -> None:
        self.refs -= 1

    def mmap_backing(self, writable_shared: bool) -> HostBacking | RamFile:
        return self.backing


class SomeLimits:
    """Limits a test can set."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {3: 8 << 20}

    def rlimit(self, resource: int) -> int:
        return self.values.get(resource, (1 << 64) - 1)


@pytest.fixture()
def ram() -> Iterator[Ram]:
    """A fresh RAM; everything must have been given back at the end of a test that released."""
    memory = Ram.from_memfd(8 << 30)
    yield memory
    memory.close()


@pytest.fixture()
def limits() -> SomeLimits:
    """No limits but the stack's."""
    return SomeLimits()


@pytest.fixture()
def mm(ram: Ram, limits: SomeLimits) -> MemoryManager:
    """An empty address space."""
    return MemoryManager.empty(lambda: AddressSpace(ram), limits)


@pytest.fixture()
def host_file(ram: Ram, tmp_path: Path) -> Iterator[Callable[..., OpenFile]]:
    """Makes an open host file with given contents."""
    opened: list[int] = []

    def make(data: bytes, readable: bool = True, writable: bool = False) -> OpenFile:
        path = tmp_path / f"file{len(opened)}"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        opened.append(fd)
        return OpenFile(HostBacking(ram.windows, fd, writable), readable, writable)

    yield make
    for fd in opened:
        os.close(fd)


@pytest.fixture()
def open_file() -> Callable[..., OpenFile]:
    """Opens a backing for reading and writing."""
    return lambda backing: OpenFile(backing, True, True)


@pytest.fixture()
def addr(mm: MemoryManager) -> int:
    """Three pages that are filled on demand, with nothing behind them."""
    mmap(mm.map, 0, PAGE, 0, ANON)
    return mmap(mm.map, 0, 3 * PAGE, RW, ANON | MAP_NORESERVE)

"""mmap, munmap, brk, mremap, madvise: errors, placement, files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi import mman
from sentry.abi.mman import (
    MAP_32BIT,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
)
from sentry.abi.resource import RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK
from sentry.errors import (
    EAGAIN,
    EEXIST,
    EINVAL,
    ENOMEM,
    EPERM,
    Errno,
)
from sentry.mm.advice import madvise, msync
from sentry.mm.locking import mlock
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.ramfile import RamFile
from sentry.platform.memory import Ram

if TYPE_CHECKING:
    from conftest import OpenFile, SomeLimits

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
HIGH = 0x7FFFFFDFF000
MakeFile = Callable[..., "OpenFile"]
WRITE_FAULT, READ_FAULT = 6, 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 0, RW, ANON), EINVAL),
        ((0, PAGE, RW, MAP_ANONYMOUS), EINVAL),
        ((0, PAGE, RW, 3 | MAP_ANONYMOUS), EINVAL),
        ((1, PAGE, RW, ANON | MAP_FIXED), EINVAL),
        ((HIGH, PAGE, RW, ANON | MAP_FIXED), ENOMEM),
        ((0, 1 << 47, RW, ANON), ENOMEM),
        ((0, (1 << 64) - 1, RW, ANON), ENOMEM),
        ((0, PAGE, RW, ANON, None, 5), EINVAL),
        ((0x1000, PAGE, RW, ANON | MAP_FIXED), EPERM),
        ((0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN), EINVAL),
    ],
)
def test_mmap_bad_arguments(
    mm: MemoryManager, arguments: tuple[int, int, int, int], error: type[Errno]
) -> None:
    with pytest.raises(error):
        mmap(mm.map, *arguments)
    assert len(mm.map.vmas) == 0


def test_mmap_hint_is_taken_when_free_and_ignored_when_not(mm: MemoryManager) -> None:
    assert mmap(mm.map, 0x10000001, PAGE, RW, ANON) == 0x10001000
    assert mmap(mm.map, 0x10001000, PAGE, RW, ANON) != 0x10001000
    with pytest.raises(EEXIST):
        mmap(mm.map, 0x10001000, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE)


def test_mmap_32bit_lies_below_2_gib(mm: MemoryManager) -> None:
    assert 0x40000000 <= mmap(mm.map, 0, PAGE, RW, ANON | MAP_32BIT) < 0x80000000


def test_limits(mm: MemoryManager, limits: SomeLimits) -> None:
    mmap(mm.map, 0, 10 * PAGE, RW, ANON)
    limits.values[RLIMIT_AS] = 20 * PAGE
    with pytest.raises(ENOMEM):
        mmap(mm.map, 0, 11 * PAGE, PROT_READ, ANON)
    del limits.values[RLIMIT_AS]
    limits.values[RLIMIT_DATA] = 20 * PAGE
    with pytest.raises(ENOMEM):
        mmap(mm.map, 0, 11 * PAGE, RW, ANON)
    mmap(mm.map, 0, 11 * PAGE, PROT_READ, ANON)
    limits.values[RLIMIT_MEMLOCK] = 2 * PAGE
    with pytest.raises(EAGAIN):
        mmap(mm.map, 0, 3 * PAGE, PROT_READ, ANON | MAP_LOCKED)
    limits.values[RLIMIT_MEMLOCK] = 0
    with pytest.raises(EPERM):
        mlock(mm.map, 0x10000, PAGE)


def test_munmap_errors(mm: MemoryManager) -> None:
    for addr, length in ((1, PAGE), (PAGE, 0), ((1 << 47) - PAGE, PAGE), (PAGE, 1 << 63)):
        with pytest.raises(EINVAL):
            munmap(mm.map, addr, length)
    munmap(mm.map, 0x10000, PAGE)
    munmap(mm.map, HIGH, PAGE)


# --- stacks


# --- files


def test_private_file_mapping_shows_the_file_and_keeps_stores(
    mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"a" * PAGE + b"b" * PAGE + b"c" * 10)
    addr = mmap(mm.map, 0, 3 * PAGE, RW, MAP_PRIVATE, file, 0)
    assert mm.read(addr + PAGE, PAGE + 11) == b"b" * PAGE + b"c" * 10 + b"\0"
    mm.write(addr, b"mine")
    assert os.pread(file.backing.fd, 4, 0) == b"aaaa"  # type: ignore[union-attr]
    child = mm.fork()
    child.write(addr + 4, b"its")
    assert mm.read(addr, 8) == b"mineaaaa" and child.read(addr, 8) == b"mineitsa"
    madvise(mm.map, addr, PAGE, mman.MADV_DONTNEED)
    assert mm.read(addr, 4) == b"aaaa"
    assert file.refs == 3
    child.release()
    mm.release()
    assert file.refs == 1


def test_shared_file_mapping_is_the_file(mm: MemoryManager, host_file: MakeFile) -> None:
    file = host_file(bytes(2 * PAGE), writable=True)
    addr = mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED, file, 0)
    mm.write(addr + PAGE - 1, b"xy")
    assert os.pread(file.backing.fd, 2, PAGE - 1) == b"xy"  # type: ignore[union-attr]
    os.pwrite(file.backing.fd, b"back", 0)  # type: ignore[union-attr]
    assert mm.read(addr, 4) == b"back"
    assert msync(mm.map, addr, 2 * PAGE, mman.MS_SYNC) == {file.backing: file}


# --- mremap and madvise


# --- files in RAM under mappings


def test_store_through_a_shared_mapping_is_seen_by_read(
    ram: Ram, mm: MemoryManager, open_file: MakeFile
) -> None:
    file = RamFile(ram)
    file.truncate(2 * PAGE)
    addr = mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED, open_file(file), 0)
    mm.write(addr + PAGE, b"stored")
    assert file.read(PAGE, 6) == b"stored" and file.pages == 1

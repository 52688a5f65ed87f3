"""Buffers and vectors, in user memory and in the kernel's."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from sentry.errors import (
    EFAULT,
    EINVAL,
)
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.mm.errors import NeedsFault
from sentry.mm.manager import MemoryManager

PAGE = 4096


def test_buffer_ends_where_access_ends(mm: MemoryManager, addr: int) -> None:
    dest = mm.buffer_out(addr + 2 * PAGE, 2 * PAGE)
    assert (dest.count, dest.wanted) == (PAGE, 2 * PAGE)
    assert dest.put(b"1" * 10) == 10 and dest.put(b"2" * PAGE) == PAGE - 10
    assert dest.put(b"3") == 0
    assert mm.read(addr + 2 * PAGE, PAGE) == b"1" * 10 + b"2" * (PAGE - 10)


def test_vectors_are_consumed_in_order(mm: MemoryManager, addr: int) -> None:
    vector = struct.pack("<6Q", addr + 100, 3, addr + 200, 0, addr + PAGE - 1, 2)
    mm.write(addr, vector)
    dest = mm.buffer_out_iov(addr, 3)
    assert dest.put(b"ab") == 2 and dest.put(b"cdefgh") == 3
    source = mm.buffer_in_iov(addr, 3)
    assert source.count == 5 and source.get(4) == b"abcd" and source.get(4) == b"e"
    for bad, error in (
        (struct.pack("<2Q", addr, 1 << 63), EINVAL),
        (struct.pack("<2Q", 1 << 62, 8), EFAULT),
    ):
        mm.write(addr, bad)
        with pytest.raises(error):
            mm.buffer_out_iov(addr, 1)
    with pytest.raises(EINVAL):
        mm.buffer_in_iov(addr, 1025)


def test_vector_ends_where_access_ends_or_with_what_it_may_hold(
    mm: MemoryManager, addr: int
) -> None:
    mm.write(addr, struct.pack("<6Q", addr + 100, 3, addr + 2 * PAGE, 2 * PAGE, addr, 9))
    source = mm.buffer_in_iov(addr, 3)
    assert (source.count, source.wanted) == (3 + PAGE, 12 + 2 * PAGE)
    mm.iov_most = 5
    source = mm.buffer_in_iov(addr, 2)
    assert (source.segments, source.count, source.wanted) == (
        [(addr + 100, 3), (addr + 2 * PAGE, 2)], 5, 5,
    )  # fmt: skip
    mm.iov_most = -1
    with pytest.raises(EFAULT):
        mm.buffer_in_iov(addr + 3 * PAGE - 16, 2)
    with pytest.raises(EFAULT):
        mm.buffer_in_iov(1 << 62, 1)


def test_bytes_that_have_to_wait_midway_are_put_once(
    mm: MemoryManager, addr: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mm.write(addr, struct.pack("<6Q", addr + 100, 3, addr + 200, 3, addr + 300, 3))
    dest, missing = mm.buffer_out_iov(addr, 3), {addr + 200}
    write = MemoryManager.write

    async def fetch() -> None:
        missing.clear()

    def store(mm: MemoryManager, addr: int, data: bytes) -> None:
        if addr in missing:
            raise NeedsFault(fetch)
        write(mm, addr, data)

    monkeypatch.setattr(MemoryManager, "write", store)
    with pytest.raises(NeedsFault):
        dest.put(b"abcdef")
    missing.clear()
    assert (dest.put(b"abcdef"), dest.put(b"ghi"), dest.count) == (6, 3, 0)
    assert [mm.read(addr + at, 3) for at in (100, 200, 300)] == [b"abc", b"def", b"ghi"]


def test_host_transfers(mm: MemoryManager, addr: int, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(range(256)) * 40)
    with path.open("r+b") as file:
        dest = mm.buffer_out(addr + 5, 2 * PAGE)
        assert dest.from_host(file.fileno(), 7) == 2 * PAGE
        assert mm.read(addr + 5, 2 * PAGE) == path.read_bytes()[7 : 7 + 2 * PAGE]
        source = mm.buffer_in(addr + 5, 100)
        assert source.to_host(file.fileno(), 0) == 100 and source.count == 0
        assert path.read_bytes()[:100] == mm.read(addr + 5, 100)


def test_stream_is_not_read_twice(mm: MemoryManager, addr: int) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"12345678")
        mm.write(addr, struct.pack("<4Q", addr + PAGE, 4, addr + 2 * PAGE, 100))
        dest = mm.buffer_out_iov(addr, 2)
        assert dest.from_host(reader, None) == 8
        assert mm.read(addr + 2 * PAGE, 4) == b"5678"
        os.write(writer, b"abcd")
        dest = mm.buffer_out_iov(addr, 2)
        assert dest.from_host(reader, None) == 4
    finally:
        os.close(reader)
        os.close(writer)


def test_kernel_buffers_behave_alike(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with path.open("r+b") as file:
        dest = KernelDest(6)
        assert dest.put(b"ab") == 2 and dest.from_host(file.fileno(), 3) == 4 and dest.count == 0
        assert bytes(dest.data) == b"ab3456"
        source = KernelSource(b"XYZ")
        assert source.get(1) == b"X" and source.to_host(file.fileno(), 0) == 2
    assert path.read_bytes()[:3] == b"YZ2"

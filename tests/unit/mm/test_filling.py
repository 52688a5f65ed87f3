"""What is mapped before it is touched."""

from __future__ import annotations

import pytest

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.mm.filling import FILL_PIECE
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_fresh_anonymous_memory_needs_no_fault(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 300 << 10, RW, ANON)
    assert mm.space.check(addr, 300 << 10, True) == 300 << 10
    lazy = mmap(mm.map, 0, 300 << 10, RW, ANON | MAP_NORESERVE)
    assert mm.space.check(lazy, PAGE, False) == 0
    none = mmap(mm.map, 0, PAGE, PROT_NONE, ANON)
    assert mm.space.entry(none) == 0


def test_what_takes_longer_than_a_step_is_left_to_faults(
    mm: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    lazy = mmap(mm.map, 0, 3 * FILL_PIECE, RW, ANON)
    assert 0 < mm.space.check(lazy, 3 * FILL_PIECE, True) <= FILL_PIECE
    mm.write(lazy + 3 * FILL_PIECE - 5, b"ready")
    assert mm.read(lazy + 3 * FILL_PIECE - 6, 6) == b"\0ready"


def test_long_mapping_is_filled_piece_by_piece(
    mm: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 10**12)
    whole = mmap(mm.map, 0, 3 * FILL_PIECE + PAGE, RW, ANON)
    assert mm.space.check(whole, 3 * FILL_PIECE + PAGE, True) == 3 * FILL_PIECE + PAGE

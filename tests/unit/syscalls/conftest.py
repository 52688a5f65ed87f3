"""Memory of the program that has to be fetched first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sentry.mm.errors import NeedsFault
from sentry.mm.manager import MemoryManager

Fetch = Callable[[int], None]


@pytest.fixture
def fetched_first(monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """`fetched_first(addr)`: the next store to `addr` finds no page, the one after that does."""
    missing: set[int] = set()
    write = MemoryManager.write

    async def fetch() -> None:
        missing.clear()

    def store(mm: MemoryManager, addr: int, data: bytes) -> None:
        if addr in missing:
            raise NeedsFault(fetch)
        write(mm, addr, data)

    monkeypatch.setattr(MemoryManager, "write", store)
    return missing.add

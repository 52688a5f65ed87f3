"""Writes to regular files that have to wait midway."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sentry.abi.fcntl import O_CREAT, O_RDWR, O_SYNC
from sentry.mm.buffers import UserSource
from sentry.mm.errors import NeedsFault
from tests.world import World


def test_short_write_goes_on_where_it_was_if_its_source_has_to_be_fetched_midway(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, missing = world.program(), set[int]()
    to_frames = UserSource.to_frames

    async def fetch() -> None:
        missing.clear()

    def take(source: UserSource, *rest: Any) -> tuple[int, int]:
        if next(addr for addr, length in source.segments if length) in missing:
            raise NeedsFault(fetch)
        return to_frames(source, *rest)

    monkeypatch.setattr(UserSource, "to_frames", take)
    fd = program.ok("open", b"/f", O_CREAT | O_RDWR | O_SYNC, 0o644)
    first, second = program.place(b"abcd"), program.place(b"efgh")
    missing.add(second)
    vector = program.place(struct.pack("<4Q", first, 4, second, 4))
    assert program.ok("writev", fd, vector, 2) == 8
    assert not missing
    found = program.buffer(16)
    assert program.ok("pread64", fd, found, 16, 0) == 8
    assert program.read(found, 8) == b"abcdefgh"

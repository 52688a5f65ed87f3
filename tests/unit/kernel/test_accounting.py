from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.kernel.accounting import Accounting, compressed, terminal_of
from sentry.wait.eager import eager


@pytest.mark.parametrize(("number", "packed"), [
    (0, 0),
    (8191, 8191),
    (8192, 1 << 13 | 1024),
    (8195, 1 << 13 | 1024),
    (8196, 1 << 13 | 1025),
    (65532, 2 << 13 | 1024),  # rounded up to what needs another step
    (1 << 40, 0xFFFF),
])  # fmt: skip
def test_numbers_are_packed_in_sixteen_bits(number: int, packed: int) -> None:
    assert compressed(number) == packed


@pytest.mark.parametrize(("rdev", "shown"), [(None, 0), (0x8805, 0x8805), (0x403, 0x403)])
def test_terminal_is_shown_in_the_old_form(rdev: int | None, shown: int) -> None:
    terminal = SimpleNamespace(rdev=rdev) if rdev is not None else None
    group: Any = SimpleNamespace(session=SimpleNamespace(terminal=terminal))

    assert terminal_of(group) == shown


class File:
    """A file on a file system with so much room."""

    def __init__(self, free: int) -> None:
        self.creds = None
        self.free = free
        self.records: list[bytes] = []
        self.inode = SimpleNamespace(fs=self)

    def incref(self) -> File:
        return self

    async def statfs(self) -> Any:
        return SimpleNamespace(blocks=100, blocks_free=self.free)

    def write(self, _: Any, source: Any) -> int:
        self.records.append(bytes(source.get(source.count)))
        return len(self.records[-1])


def test_a_full_file_system_stops_it_until_there_is_room() -> None:
    file: Any = File(2)
    accounting = Accounting(file)

    def write(free: int) -> int:
        file.free = free
        eager(accounting.look())
        eager(accounting.write(b"record"))
        return len(file.records)

    assert write(2) == 0
    assert write(3) == 0
    assert write(4) == 1
    assert write(3) == 2
    assert write(2) == 2

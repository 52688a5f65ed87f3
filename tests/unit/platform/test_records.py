"""Records that C puts together are those of the messages, byte by byte. How a ring turns and fills:
tests/unit/gofer/p9/test_journal.py."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import pytest

from gofer.p9.codec import Message
from gofer.p9.constants import NOTAG
from gofer.p9.extensions import Tnamex, Trevertx, Tsetattrx
from gofer.p9.messages import Tclunk, Tunlinkat
from sentry.platform.records import ATTRIBUTES, FID, NAME, REMOVAL, JournalWriter

LAST = 0xFFFFFFFF
LONG = b"n" * 255


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (NAME, (1, 2, b"name", 4, 0o644, LAST, 3, -5), Tnamex(1, 2, b"name", 0o644, LAST, 3, -5)),
        (NAME, (LAST, 0, LONG, 255, 0, 0, 0, 1 << 62), Tnamex(LAST, 0, LONG, 0, 0, 0, 1 << 62)),
        (
            ATTRIBUTES, (1, b"", 0, 0x1A0, 0o7777, 5, 6, -1, 1 << 60),
            Tsetattrx(1, b"", 0x1A0, 0o7777, 5, 6, 0, -1, 1 << 60),
        ),
        (
            ATTRIBUTES, (LAST, LONG, 255, 7, 0, LAST, LAST, 0, 0),
            Tsetattrx(LAST, LONG, 7, 0, LAST, LAST, 0, 0, 0),
        ),
        (REMOVAL, (7, b"gone", 4, 0x200), Tunlinkat(7, b"gone", 0x200)),
        (FID, (Tclunk.type, 9), Tclunk(9)),
        (FID, (Trevertx.type, LAST), Trevertx(LAST)),
    ],
)  # fmt: skip
def test_record_is_that_of_its_message(
    kind: Callable[..., int], fields: tuple[Any, ...], message: Message
) -> None:
    one, other = mmap.mmap(-1, 4096), mmap.mmap(-1, 4096)
    writer, wanted = JournalWriter(one), JournalWriter(other)
    for _ in range(30):  # it turns
        size = kind(writer.ring, *fields)
        assert size == wanted.append(message.encode(NOTAG)) - wanted.executed
        assert one[:] == other[:]
        for each in (writer, wanted):
            each.reached(each.position)


def test_record_that_does_not_fit_is_not_written() -> None:
    memory = mmap.mmap(-1, 4096)
    writer = JournalWriter(memory)
    while NAME(writer.ring, 1, 2, LONG, 255, 0, 0, 0, 0):
        pass
    before, position = memory[:], writer.position
    assert writer.free < 16 + 7 + 30 + 255
    assert not REMOVAL(writer.ring, 1, b"n" * 256, 256, 0)
    writer.close()
    assert not FID(writer.ring, Tclunk.type, 1)
    assert (memory[:], writer.position) == (before, position)

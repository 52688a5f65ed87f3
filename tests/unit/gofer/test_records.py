"""What was made and removed again within a batch is left out, and nothing else."""

from __future__ import annotations

import mmap
import os

import pytest

from gofer.hot import Hot
from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.constants import NOTAG
from gofer.p9.extensions import (
    Tlinkx,
    Tmakex,
    Tnamex,
    Trenamex,
    Trevertx,
    Tsetattrx,
    Tsetxattrx,
    Twalkx,
)
from gofer.p9.messages import Tclunk, Tunlinkat
from gofer.records import Records
from sentry.platform.records import JournalWriter

LINK = Tlinkx(7, b"", 0, b"a")
MAKE = Tmakex(0, b"a", b"", 0o10644, 0, 0, 0)
MAKE_DIRECTORY = Tmakex(0, b"a", b"", 0o40755, 0, 0, 0)
REMOVE = Tunlinkat(0, b"a", 0)
REMOVE_DIRECTORY = Tunlinkat(0, b"a", c.AT_REMOVEDIR)
NAME = Tnamex(7, 0, b"a", 0o600, 0, 0, 0)
REVERT = Trevertx(7)
OTHER = Tmakex(0, b"b", b"", 0o40755, 0, 0, 0)


def left(*requests: Message) -> list[Message]:
    """What is to be done of these, when C has sorted them and carries out nothing."""
    ring = os.memfd_create("ring", os.MFD_CLOEXEC)
    try:
        os.ftruncate(ring, 4096)
        with mmap.mmap(ring, 4096) as memory:
            writer = JournalWriter(memory)
            writer.append(*[request.encode(NOTAG) for request in requests])
            writer.close()
        records, hot = Records(ring, 4096), Hot()
        assert records.read() and records.sort()
        found, at = [], 0
        while (at := records.run(hot, -1, at, len(records))) < len(records):
            found.append(records[at][1])
            at += 1
        return found
    finally:
        os.close(ring)


@pytest.mark.parametrize("made", [LINK, MAKE])
def test_made_and_removed_is_left_out(made: Message) -> None:
    assert left(OTHER, made, Tsetattrx(7, b"", 1, 0, 0, 0, 0, 0, 0), REMOVE, OTHER) == [
        OTHER, Tsetattrx(7, b"", 1, 0, 0, 0, 0, 0, 0), OTHER,
    ]  # fmt: skip


def test_made_and_removed_twice_is_left_out_twice() -> None:
    assert left(LINK, REMOVE, LINK, REMOVE) == []


@pytest.mark.parametrize(
    "between",
    [
        Tsetattrx(0, b"a", 1, 0o600, 0, 0, 0, 0, 0),
        Tsetxattrx(1, b"a", b"user.x", 0, b""),
        Trenamex(0, b"a", 0, b"c", 0),
        Trenamex(0, b"c", 1, b"a", 0),
        Tlinkx(0, b"a", 0, b"c"),
        Tlinkx(8, b"", 1, b"a"),
        Tmakex(1, b"a", b"", 0o40755, 0, 0, 0),
        Twalkx(0, 9, c.NOOPEN, 0, [b"a"]),
        Twalkx(3, 0, c.NOOPEN, 0, [b"dir"]),
        Tclunk(0),
        Tunlinkat(1, b"a", 0),
    ],
)
def test_name_that_was_used_between_is_made(between: Message) -> None:
    """Or one that may be the same, or may be in another directory by now."""
    assert left(LINK, between, REMOVE) == [LINK, between, REMOVE]


def test_removal_of_what_was_there_stays() -> None:
    assert left(REMOVE, LINK) == [REMOVE, LINK]
    assert left(REMOVE, LINK, REMOVE) == [REMOVE]


@pytest.mark.parametrize("requests", [(MAKE_DIRECTORY, REMOVE), (MAKE, REMOVE_DIRECTORY)])
def test_removal_that_is_refused_stays(requests: tuple[Message, ...]) -> None:
    assert left(*requests) == list(requests)
    assert left(MAKE_DIRECTORY, REMOVE_DIRECTORY) == []


def test_spare_that_vanishes_is_given_back() -> None:
    assert left(NAME, OTHER, REMOVE) == [Tclunk(7), OTHER]
    assert left(NAME, Tclunk(0), REMOVE) == [NAME, Tclunk(0), REMOVE]


def test_what_is_reverted_is_left_out_whatever_was_between() -> None:
    """Its fid is used again."""
    again = Tnamex(7, 1, b"a", 0, 0, 0, 0)
    assert left(NAME, OTHER, REVERT, again) == [OTHER, again]
    assert left(NAME, Tlinkx(8, b"", 0, b"a"), REVERT) == [Tlinkx(8, b"", 0, b"a")]
    assert left(NAME, REVERT, again, REVERT) == []
    assert left(REVERT, NAME) == [NAME]

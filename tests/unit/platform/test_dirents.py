"""Records that C makes, against those that struct does."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.errors import EIO
from sentry.platform.dirents import LONGEST, pack
from sentry.vfs.dirents import Dirents, dirent

entries = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=40), st.integers(0, (1 << 64) - 1), st.integers(0, 0o177777)
    ),
    min_size=1,
    max_size=20,
)


@given(entries, st.integers(0, 1 << 40), st.binary(max_size=30))
def test_records_are_those_of_linux_dirent64(
    listed: list[tuple[bytes, int, int]], position: int, before: bytes
) -> None:
    data, ends = bytearray(before), array("Q", [len(before)])
    pack(listed, position, data, ends)
    made = [dirent(entry, position + at) for at, entry in enumerate(listed, 1)]
    assert data == before + b"".join(made)
    assert list(ends) == [
        len(before) + sum(map(len, made[:count])) for count in range(len(made) + 1)
    ]


def test_longest_name_and_one_that_is_longer() -> None:
    data, ends = bytearray(), array("Q")
    pack([(b"n" * LONGEST, 1, 0)], 0, data, ends)
    assert data == dirent((b"n" * LONGEST, 1, 0), 1)
    with pytest.raises(EIO):
        pack([(b"n" * (LONGEST + 1), 1, 0)], 0, data, ends)


@given(entries, st.integers(0, 25), st.integers(0, 300))
def test_reading_on_from_anywhere_gives_what_fits(
    listed: list[tuple[bytes, int, int]], index: int, room: int
) -> None:
    made = [dirent(entry, at) for at, entry in enumerate(listed, 3)]
    room += 64
    records, count = Dirents(listed).records(index, room)
    assert bytes(records) == b"".join(made[index : index + count])
    rest = made[index + count :]
    assert not rest or len(records) + len(rest[0]) > room

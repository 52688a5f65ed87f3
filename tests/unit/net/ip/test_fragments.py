"""Fragments, in any order, and what is wrong with some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.ip import fragments
from sentry.net.ip.fragments import Key, Piece, Reassembly, TooLarge, Whole, split
from tests.unit.net.wired import SECOND_NS, ip4, ip6

KEY = Key(ip4(1), ip4(2), 17, 7, 2)
HEAD = b"h" * 20


def piece(offset: int, data: bytes, *, more: bool = True, tos: int = 0) -> Piece:
    return Piece(offset, more, data, HEAD + bytes([offset & 255]), tos)


def add(made: Reassembly, *pieces: Piece, key: Key = KEY) -> Whole | None:
    whole = None
    for each in pieces:
        whole = made.add(0, key, each)
    return whole


@given(st.binary(min_size=1, max_size=2000), st.integers(8, 300), st.randoms())
def test_pieces_in_any_order_and_twice_make_the_whole(data: bytes, room: int, chance) -> None:  # type: ignore[no-untyped-def]
    pieces = [piece(at, part, more=more) for at, more, part in split((data,), room)]
    chance.shuffle(pieces)
    made = Reassembly(4)
    for each in pieces[:-1]:
        assert made.add(0, KEY, each) is None
        assert made.add(0, KEY, each) is None
    whole = made.add(0, KEY, pieces[-1])
    assert whole is not None and whole.data == data and whole.head == HEAD + b"\0"
    assert not len(made) and not made.charged and made.timer() is None


@pytest.mark.parametrize("other", [
    piece(4, bytes(16)), piece(0, bytes(24)), piece(8, bytes(8), more=False), piece(16, b""),
], ids=["over the end", "over all", "an earlier end", "empty"])  # fmt: skip
def test_what_contradicts_the_rest_takes_all_with_it(other: Piece) -> None:
    made = Reassembly(4)
    assert add(made, piece(0, bytes(16)), piece(24, bytes(8)), other) is None
    assert not len(made) and not made.charged


def test_piece_behind_the_end_takes_all_with_it() -> None:
    made = Reassembly(4)
    add(made, piece(8, bytes(8), more=False), piece(16, bytes(8)))
    assert not len(made)


def test_packets_do_not_mix() -> None:
    made = Reassembly(4)
    add(made, piece(0, bytes(8)))
    for change in ({"identification": 8}, {"protocol": 6}, {"source": ip4(3)}, {"interface": 3}):
        assert add(made, piece(8, bytes(8), more=False), key=KEY._replace(**change)) is None  # type: ignore[arg-type]
    assert len(made) == 5


def test_what_is_too_large_or_odd_is_said() -> None:
    for wrong in (piece(65528, bytes(8)), piece(0, bytes(9))):
        with pytest.raises(TooLarge):
            add(Reassembly(4), wrong)
    with pytest.raises(TooLarge):
        add(Reassembly(6), piece(65528, bytes(8)), key=Key(ip6(1), ip6(2), 0, 7, 2))


def test_what_does_not_become_whole_is_given_up_after_its_time() -> None:
    made = Reassembly(4)
    made.add(0, KEY, piece(0, bytes(8)))
    made.add(SECOND_NS, KEY._replace(identification=9), piece(8, bytes(8)))
    assert made.timer() == 30 * SECOND_NS
    assert made.timeout(30 * SECOND_NS - 1) == []
    assert made.timeout(31 * SECOND_NS) == [(KEY, HEAD + b"\0", bytes(8))]
    assert not len(made) and not made.charged


def test_what_is_kept_is_bounded() -> None:
    made = Reassembly(4)
    for number in range(20_000):
        made.add(0, KEY._replace(identification=number), piece(0, bytes(1400)))
    assert made.charged <= fragments.HIGH_THRESHOLD + 2 * 1400
    for offset in range(8, 65000, 8):
        for number in range(200):
            made.add(0, KEY._replace(identification=number), piece(offset, bytes(8)))
        if made.charged > 2 * fragments.HIGH_THRESHOLD:
            break
    assert made.charged <= 2 * fragments.HIGH_THRESHOLD + 1400


@pytest.mark.parametrize(("marks", "tos"), [
    ((0, 0), 0), ((1, 1), 1), ((1, 2), 1), ((1, 3), 3), ((3, 3), 3), ((0, 1), None), ((0, 3), None),
])  # fmt: skip
def test_marks_of_ecn_are_joined(marks: tuple[int, int], tos: int | None) -> None:
    first, last = marks
    whole = add(Reassembly(4), piece(0, bytes(8), tos=first), piece(8, b"x", more=False, tos=last))
    assert (whole.tos if whole is not None else None) == tos


@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 20), st.booleans()), max_size=40))
def test_any_pieces_make_a_whole_of_its_size_or_none(steps: list[tuple[int, int, bool]]) -> None:
    made = Reassembly(6)
    key = Key(ip6(1), ip6(2), 0, 7, 2)
    for offset, size, more in steps:
        data = bytes(size // 8 * 8 if more else size)
        whole = made.add(0, key, Piece(offset * 8, more, data, HEAD, 0))
        assert whole is None or len(whole.data) <= 80 * 8 + 20
    assert (made.charged > 0) == bool(len(made))

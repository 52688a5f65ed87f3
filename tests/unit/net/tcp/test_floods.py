"""Floods of segments cost what each of them changes. Calls are counted: no clock matters."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sentry.net.tcp.scoreboard import MAX_RECORDS
from sentry.net.tcp.segment import FIN, RST, SYN
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.hand import Hand
from tests.unit.net.tcp.pair import MS, SECOND

PIECE = 200
EACH = 300
"""Calls, of Python and of C, of a step of a flood, on the average."""
ONCE = 25 * MAX_RECORDS
"""Of the step in which all that was piled up is cleared away."""

Steps = Iterator[Callable[[], object]]


def counted(step: Callable[[], object]) -> int:
    """How many functions a step calls."""
    calls = 0

    def profile(frame: Any, event: str, what: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        step()
    finally:
        sys.setprofile(None)
    return calls


def full() -> Hand:
    """As many records under way as may be."""
    hand = Hand(tuning=Tuning(sndbuf=1 << 24, nodelay=True))
    hand.one.snd_wnd = hand.one.max_window = hand.one.cc.window = 1 << 24
    while not hand.one.board.is_full:
        hand.now += 1000
        hand.send(bytes(PIECE))
    return hand


def pieces_that_do_not_touch() -> Steps:
    hand = Hand()
    for at in range(3, 9000, 2):
        yield lambda at=at: hand.hear(seq=at, data=b"x")


def pieces_from_behind() -> Steps:
    hand = Hand()
    for at in range(9000, 3, -2):
        yield lambda at=at: hand.hear(seq=at, data=b"x")


def pieces_and_what_fills_them() -> Steps:
    hand = Hand()
    for _ in range(4):
        start = hand.one.rcv.next - hand.one.irs
        for at in range(start + 2, start + 1500, 2):
            yield lambda at=at: hand.hear(seq=at, data=b"x")
        yield lambda: hand.hear(data=bytes(1600))
        yield hand.read


def overlapping_pieces() -> Steps:
    hand, chance = Hand(), random.Random(1)
    for _ in range(3000):
        at, size = chance.randrange(2, 50_000), chance.randrange(1, 1460)
        yield lambda at=at, size=size: hand.hear(seq=at, data=bytes(size))


def blocks_that_say_the_same() -> Steps:
    hand = full()
    end = hand.one.snd_nxt - hand.one.iss
    for _ in range(1000):
        yield lambda: hand.hear(ack=1, sacks=((1 + PIECE, end),), after=0.001)


def blocks_with_holes() -> Steps:
    hand = full()
    for at in range(0, MAX_RECORDS - 8, 8):
        blocks = tuple((1 + PIECE * (at + i), 1 + PIECE * (at + i + 1)) for i in (1, 3, 5, 7))
        yield lambda blocks=blocks: hand.hear(ack=1, sacks=blocks, after=0.001)
    for _ in range(500):
        yield lambda: hand.hear(ack=1, sacks=((1 + PIECE, PIECE * MAX_RECORDS),))


def blocks_anywhere() -> Steps:
    hand, chance = full(), random.Random(2)
    end = PIECE * MAX_RECORDS
    for _ in range(1500):
        starts = [chance.randrange(1, end) for _ in range(4)]
        blocks = tuple((at, at + chance.randrange(1, end)) for at in starts)
        yield lambda blocks=blocks: hand.hear(ack=1, sacks=blocks, after=0.001)


def acknowledgements_of_a_byte() -> Steps:
    hand = full()
    for at in range(2, 3000):
        yield lambda at=at: hand.hear(ack=at)


def timeouts() -> Steps:
    hand = full()
    for _ in range(50):
        yield lambda: hand.wait(SECOND // SECOND)
    yield hand.hear


def paths_that_get_smaller() -> Steps:
    hand = full()
    for mtu in range(1499, 200, -1):
        yield lambda mtu=mtu: hand.one.path_mtu(hand.now, (hand.one.iss + 1) & 0xFFFFFFFF, mtu)


def resets_and_syns() -> Steps:
    hand = Hand()
    for at in range(2, 2000):
        for flags in (RST, SYN, SYN | FIN):
            yield lambda at=at, flags=flags: hand.hear(flags, seq=at)


def tiny_segments() -> Steps:
    hand = Hand()
    for _ in range(5000):
        yield lambda: hand.hear(data=b"x")
    yield hand.read


FLOODS = (
    pieces_that_do_not_touch, pieces_from_behind, pieces_and_what_fills_them, overlapping_pieces,
    blocks_that_say_the_same, blocks_with_holes, blocks_anywhere, acknowledgements_of_a_byte,
    timeouts, paths_that_get_smaller, resets_and_syns, tiny_segments,
)  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_flood_costs_what_it_changes(flood: Callable[[], Steps]) -> None:
    costs = [counted(step) for step in flood()]

    assert max(costs) < ONCE
    assert sum(costs) < len(costs) * EACH


def test_what_was_marked_lost_twice_is_kept_once() -> None:
    hand = full()
    for mtu in range(1499, 1000, -1):
        hand.one.mtu = 1500
        hand.one.path_mtu(hand.now, (hand.one.iss + 1) & 0xFFFFFFFF, mtu // 10)

    assert len(hand.one.board._lost) <= 2 * MAX_RECORDS
    assert hand.now > 5000 * MS

"""Where a bridge knows somebody to be, for how long, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from sentry.abi.netlink import (
    NTF_EXT_LEARNED,
    NTF_STICKY,
    NUD_NOARP,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_NEWNEIGH,
)
from sentry.net.virtual.fdb import AGEING_NS, MAX_KNOWN, MAX_SET, STEP, Entry, Fdb
from tests.unit.net.wired import hardware

ONE: Any = SimpleNamespace()
TWO: Any = SimpleNamespace()


def place(fdb: Fdb, number: int, now_ns: int) -> Any:
    found = fdb.find(hardware(number), now_ns)
    return found.port if found is not None else None


class Told:
    """What has been told."""

    def __init__(self, fdb: Fdb) -> None:
        self.found: list[tuple[int, int]] = []
        fdb.on_change = self.hear

    def hear(self, entries: Sequence[Entry], kind: int) -> None:
        self.found += [(kind, each.hardware[-1]) for each in entries]


def test_who_moves_is_found_at_the_new_place() -> None:
    fdb = Fdb()
    told = Told(fdb)
    fdb.learn(hardware(1), ONE, 0)
    fdb.learn(hardware(1), ONE, 0)
    fdb.learn(hardware(1), TWO, 1)

    assert place(fdb, 1, 1) is TWO
    assert place(fdb, 2, 1) is None
    assert told.found == [(RTM_NEWNEIGH, 1), (RTM_NEWNEIGH, 1)]


def test_who_is_silent_for_long_is_forgotten() -> None:
    fdb = Fdb()
    told = Told(fdb)
    fdb.learn(hardware(1), ONE, 5)

    assert place(fdb, 1, 4 + AGEING_NS) is ONE
    assert place(fdb, 1, 5 + AGEING_NS) is None
    assert told.found[-1] == (RTM_DELNEIGH, 1)


def test_who_is_silent_is_forgotten_by_a_timer_too_some_at_a_time() -> None:
    fdb, asked = Fdb(), []
    fdb.on_deadline = lambda: asked.append(fdb.timer())
    for number in range(STEP + 1):
        fdb.learn(hardware(number), ONE, number)
    assert asked == [AGEING_NS]
    told = Told(fdb)

    fdb.timeout(AGEING_NS - 1)
    assert told.found == []
    fdb.timeout(AGEING_NS + 100)
    assert told.found == [(RTM_DELNEIGH, number) for number in range(STEP)]
    assert fdb.timer() == STEP + AGEING_NS
    fdb.timeout(AGEING_NS + 100)
    assert fdb.timer() is None and list(fdb) == []


def test_port_that_goes_takes_all_behind_it_along() -> None:
    fdb = Fdb()
    fdb.learn(hardware(1), ONE, 0)
    fdb.learn(hardware(2), TWO, 0)
    fdb.put(Entry(hardware(3), ONE, NUD_NOARP))
    fdb.forget(ONE)

    assert place(fdb, 1, 0) is None and place(fdb, 2, 0) is TWO and place(fdb, 3, 0) is ONE
    fdb.drop(ONE)
    assert place(fdb, 3, 0) is None and place(fdb, 2, 0) is TWO


def test_of_too_many_who_was_heard_of_longest_ago_goes() -> None:
    fdb = Fdb()
    fdb.learn(hardware(1), ONE, 0)
    fdb.learn(hardware(2), ONE, 0)
    fdb.learn(hardware(1), ONE, 1)
    for number in range(MAX_KNOWN - 1):
        fdb.learn(b"\x06" + number.to_bytes(5), TWO, 2)

    assert place(fdb, 1, 2) is ONE
    assert place(fdb, 2, 2) is None
    assert len(list(fdb)) == MAX_KNOWN


def test_what_is_set_does_not_age_and_moves_unless_it_is_to_stay() -> None:
    fdb = Fdb()
    fdb.put(Entry(hardware(1), ONE, NUD_NOARP))
    fdb.put(Entry(hardware(2), ONE, NUD_NOARP, NTF_STICKY))
    fdb.put(Entry(hardware(3), ONE, NUD_PERMANENT))
    for number in (1, 2, 3):
        fdb.learn(hardware(number), TWO, 1)
    fdb.timeout(10 * AGEING_NS)

    assert [place(fdb, number, 9 * AGEING_NS) for number in (1, 2, 3)] == [TWO, ONE, ONE]
    assert fdb.get(hardware(3)) is not None and fdb.timer() is None


def test_what_a_program_has_learned_ages_once_it_is_heard_elsewhere() -> None:
    fdb = Fdb()
    fdb.put(Entry(hardware(1), ONE, flags=NTF_EXT_LEARNED))
    assert fdb.timer() is None
    fdb.learn(hardware(1), TWO, 7)
    found = fdb.get(hardware(1))
    assert found is not None and found.flags == 0 and fdb.timer() == 7 + AGEING_NS


def test_room_for_what_is_set_has_an_end() -> None:
    fdb = Fdb()
    for number in range(MAX_SET):
        assert fdb.has_room()
        fdb.put(Entry(number.to_bytes(6), ONE, NUD_NOARP))
    assert not fdb.has_room()


def test_nobody_hears_of_one_that_has_ended() -> None:
    fdb = Fdb()
    told = Told(fdb)
    fdb.learn(hardware(1), ONE, 0)
    fdb.end()
    fdb.learn(hardware(2), ONE, 0)
    assert told.found == [(RTM_NEWNEIGH, 1)]

"""Where a bridge knows somebody to be, and for how long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sentry.net.virtual.fdb import AGEING_NS, MAX_KNOWN, Fdb
from tests.unit.net.wired import hardware

ONE: Any = SimpleNamespace()
TWO: Any = SimpleNamespace()


def test_who_moves_is_found_at_the_new_place() -> None:
    fdb = Fdb()
    fdb.learn(hardware(1), ONE, 0)
    fdb.learn(hardware(1), TWO, 1)

    assert fdb.find(hardware(1), 1) is TWO
    assert fdb.find(hardware(2), 1) is None


def test_who_is_silent_for_long_is_forgotten() -> None:
    fdb = Fdb()
    fdb.learn(hardware(1), ONE, 5)

    assert fdb.find(hardware(1), 4 + AGEING_NS) is ONE
    assert fdb.find(hardware(1), 5 + AGEING_NS) is None


def test_port_that_goes_takes_all_behind_it_along() -> None:
    fdb = Fdb()
    fdb.learn(hardware(1), ONE, 0)
    fdb.learn(hardware(2), TWO, 0)
    fdb.forget(ONE)

    assert fdb.find(hardware(1), 0) is None
    assert fdb.find(hardware(2), 0) is TWO


def test_of_too_many_who_was_heard_of_longest_ago_goes() -> None:
    fdb = Fdb()
    fdb.learn(hardware(1), ONE, 0)
    fdb.learn(hardware(2), ONE, 0)
    fdb.learn(hardware(1), ONE, 1)
    for number in range(MAX_KNOWN - 1):
        fdb.learn(b"\x06" + number.to_bytes(5), TWO, 2)

    assert fdb.find(hardware(1), 2) is ONE
    assert fdb.find(hardware(2), 2) is None

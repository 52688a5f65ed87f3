"""Ports that ended connections hold: until when, and how many."""

from __future__ import annotations

import pytest

from sentry.abi.socket import AF_INET, BPF_TCP_FIN_WAIT2, BPF_TCP_TIME_WAIT
from sentry.net.inet import time_wait
from sentry.net.inet.address import LOOPBACK4, Endpoint
from sentry.net.inet.time_wait import MOST, TIME_WAIT_SECONDS, Remains, TimeWait


class Clock:
    """CLOCK_MONOTONIC, moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def monotonic_ns(self) -> int:
        return self.now_ns

    def pass_seconds(self, seconds: int) -> None:
        self.now_ns += seconds * 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time_wait, "time", made)
    return made


def remains(port: int) -> Remains:
    local, remote = Endpoint(LOOPBACK4, port), Endpoint(LOOPBACK4, 80)
    return Remains(local, remote, AF_INET, set(), False, 0, BPF_TCP_FIN_WAIT2, 0)


def test_a_port_is_held_for_its_time(clock: Clock) -> None:
    table = TimeWait()
    one = remains(7)
    table.add(one, 5)
    clock.pass_seconds(4)
    assert list(table.at(7)) == [one] == list(table)
    clock.pass_seconds(1)
    assert not table.at(7)


def test_the_other_fin_begins_time_wait(clock: Clock) -> None:
    table = TimeWait()
    one = remains(7)
    table.add(one, 5)
    clock.pass_seconds(4)
    table.finish(one)
    assert one.state == BPF_TCP_TIME_WAIT
    clock.pass_seconds(TIME_WAIT_SECONDS - 1)
    assert table.at(7)
    clock.pass_seconds(1)
    assert not table.at(7)


def test_a_fin_that_comes_late_changes_nothing(clock: Clock) -> None:
    table = TimeWait()
    one = remains(7)
    table.add(one, 5)
    clock.pass_seconds(5)
    table.finish(one)
    assert not table.at(7)


def test_the_oldest_give_way(clock: Clock) -> None:
    table = TimeWait()
    for port in range(MOST + 3):
        table.add(remains(port), 60)
    assert len(list(table)) == MOST
    assert not table.at(2)
    assert table.at(3)


def test_what_is_over_is_forgotten(clock: Clock) -> None:
    table = TimeWait()
    table.add(remains(1), 0)
    table.add(remains(2), 5)
    clock.pass_seconds(6)
    table.add(remains(3), 60)
    assert [one.local.port for one in table] == [3]
    table.remove(remains(3))
    assert table.at(3)

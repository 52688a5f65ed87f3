"""Neighbours by their states: RFC 4861, 7.3, with Linux's times."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.abi.netlink import (
    NUD_DELAY,
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_PROBE,
    NUD_REACHABLE,
    NUD_STALE,
)
from sentry.net.link import neighbours
from sentry.net.link.neighbours import SECOND_NS, Claim, Neighbours

ONE, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
IP = b"\x0a\0\0\x02"


class Packet(bytes):
    @property
    def size(self) -> int:
        return len(self)


class Wishes:
    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.sent: list[tuple[Any, bytes]] = []
        self.failed: list[Any] = []

    def solicit(self, now_ns: int, ip: bytes, hardware: bytes) -> None:
        self.asked.append((ip, hardware))

    def transmit(self, packet: Any, hardware: bytes) -> None:
        self.sent.append((packet, hardware))

    def unreachable(self, now_ns: int, ip: bytes, packet: Any) -> None:
        self.failed.append(packet)


class Table:
    def __init__(self) -> None:
        self.wishes = Wishes()
        self.table = Neighbours(self.wishes, 0x8000)
        self.now_ns = 100 * SECOND_NS

    def state(self, ip: bytes = IP) -> int:
        found = self.table.get(ip)
        assert found is not None
        return found.state

    def ask(self, data: bytes = b"x", ip: bytes = IP) -> bytes | None:
        return self.table.resolve(self.now_ns, ip, Packet(data))

    def hear(self, hardware: bytes, state: int = NUD_REACHABLE, **how: bool) -> None:
        self.table.heard(self.now_ns, Claim(IP, hardware, state, **how))

    def wait(self, seconds: float) -> None:
        until_ns = self.now_ns + int(seconds * SECOND_NS)
        while (first_ns := self.table.timer()) is not None and first_ns <= until_ns:
            self.now_ns = first_ns
            self.table.timeout(first_ns)
        self.now_ns = until_ns


@pytest.fixture
def table() -> Table:
    return Table()


def test_packets_wait_for_the_answer_and_go_in_their_order(table: Table) -> None:
    assert table.ask(b"a") is None and table.ask(b"b") is None
    assert table.state() == NUD_INCOMPLETE and table.wishes.asked == [(IP, b"")]
    table.hear(ONE)
    assert table.wishes.sent == [(b"a", ONE), (b"b", ONE)]
    assert table.state() == NUD_REACHABLE and table.ask() == ONE


def test_who_does_not_answer_three_questions_fails_and_is_asked_again_later(table: Table) -> None:
    table.ask(b"a")
    table.wait(2.9)
    assert len(table.wishes.asked) == 3 and not table.wishes.failed
    table.wait(0.2)
    assert table.wishes.failed == [b"a"] and table.state() == NUD_FAILED
    assert table.table.timer() is None
    table.ask(b"b")
    assert table.state() == NUD_INCOMPLETE and len(table.wishes.asked) == 4


def test_unused_neighbour_becomes_stale_and_one_in_use_is_asked_alone(table: Table) -> None:
    table.ask()
    table.hear(ONE)
    table.wait(31)
    assert table.state() == NUD_STALE and table.table.timer() is None
    assert table.ask() == ONE and table.state() == NUD_DELAY
    table.wait(5.1)
    assert table.state() == NUD_PROBE and table.wishes.asked[1:] == [(IP, ONE)]
    table.wait(2)
    assert table.wishes.asked[1:] == [(IP, ONE)] * 3
    assert table.ask() == ONE  # so long it is believed
    table.wait(1)
    assert table.state() == NUD_FAILED


def test_who_is_heard_of_above_is_not_asked(table: Table) -> None:
    table.ask()
    table.hear(ONE)
    table.wait(31)
    table.ask()
    table.wait(3)
    table.table.confirm(table.now_ns, IP)
    table.wait(3)
    assert table.state() == NUD_REACHABLE and len(table.wishes.asked) == 1


def test_answer_to_a_probe_makes_it_reachable(table: Table) -> None:
    table.ask()
    table.hear(ONE)
    table.wait(31)
    table.ask()
    table.wait(5.1)
    table.hear(ONE)
    assert table.state() == NUD_REACHABLE
    table.wait(10)
    assert table.state() == NUD_REACHABLE


def test_other_address_is_believed_with_override_alone(table: Table) -> None:
    table.ask()
    table.hear(ONE)
    table.hear(OTHER)
    assert table.ask() == ONE and table.state() == NUD_REACHABLE
    table.hear(OTHER, unsettles=True)
    assert table.state() == NUD_STALE and table.ask() == ONE
    table.hear(OTHER, NUD_STALE, override=True)
    assert table.ask() == OTHER


def test_same_address_unasked_changes_nothing(table: Table) -> None:
    table.ask()
    table.hear(ONE)
    table.hear(ONE, NUD_STALE, override=True)
    assert table.state() == NUD_REACHABLE


def test_static_neighbour_is_never_asked_nor_changed(table: Table) -> None:
    table.ask(b"a")
    table.table.set_static(IP, ONE)
    assert table.wishes.sent == [(b"a", ONE)]
    table.hear(OTHER, override=True)
    table.wait(100)
    assert table.ask() == ONE and len(table.wishes.asked) == 1


def test_unknown_who_says_something_stays_unknown(table: Table) -> None:
    table.hear(ONE, override=True)
    assert table.table.get(IP) is None
    table.hear(ONE, NUD_STALE, creates=True)
    assert table.state() == NUD_STALE


def test_what_waits_for_one_is_bounded_and_the_oldest_goes(table: Table) -> None:
    size = 64_000
    for number in range(8):
        table.ask(bytes([number]) * size)
    table.hear(ONE)
    assert [packet[0] for packet, _ in table.wishes.sent] == [5, 6, 7]


def test_what_waits_for_all_is_bounded(table: Table) -> None:
    for number in range(200):
        table.ask(bytes(60_000), bytes([10, 1, 0, number]))
    waiting = sum(each.waiting_bytes for each in table.table)
    assert waiting == table.table._waiting_bytes <= neighbours.MAX_WAITING_OF_ALL
    table.wait(10)
    assert table.table._waiting_bytes == 0


def test_full_table_forgets_who_is_not_needed_or_takes_no_more(table: Table) -> None:
    most = neighbours.MAX_NEIGHBOURS
    addresses = [bytes([10, 2, n >> 8, n & 255]) for n in range(most + 1)]
    for ip in addresses[:most]:
        table.ask(ip=ip)
    assert table.ask(ip=addresses[most]) is None
    assert len(table.table) == most and table.table.get(addresses[most]) is None
    for _ in range(most):  # a bounded number of timers a call
        table.table.timeout(table.now_ns + SECOND_NS)
    table.wait(60)
    table.ask(ip=addresses[most])
    assert table.state(addresses[most]) == NUD_INCOMPLETE and len(table.table) == most
    assert table.table.get(addresses[0]) is None

"""What was sent before programs ended."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.abi.socket import SHUT_WR
from sentry.net.inet.last_words import PATIENCE_NS, is_left, when_said
from sentry.net.stack import Stack
from tests.unit.net.streams import Line, Streams


class Loop:
    """A clock that goes on to the next timer."""

    def __init__(self) -> None:
        self.ns = 0
        self.timers: list[tuple[int, Any]] = []

    def now_ns(self) -> int:
        return self.ns

    def call_at(self, at_ns: int, callback: Any) -> None:
        self.timers.append((at_ns, callback))

    def next(self) -> None:
        self.ns, callback = self.timers.pop(0)
        callback()


@pytest.fixture
def line() -> Line:
    return Line(Streams(1), Streams(2))


def acknowledged(line: Line) -> None:
    """Also what the other end takes its time for."""
    line.settle()
    line.wait(100_000_000)


def test_bytes_are_left_until_they_are_acknowledged_and_so_is_an_end(line: Line) -> None:
    _, client, _ = line.connected()
    left = line.hosts[0]
    acknowledged(line)
    assert not is_left(left.stack)
    left.send(client, b"x")
    assert is_left(left.stack)
    acknowledged(line)
    assert not is_left(left.stack)
    client.shutdown(SHUT_WR)
    assert is_left(left.stack)
    acknowledged(line)
    assert not is_left(left.stack)


def test_it_is_called_once_all_is_said(line: Line) -> None:
    _, client, _ = line.connected()
    left, loop = line.hosts[0], Loop()
    called: list[int] = []
    left.send(client, b"x")
    when_said(left.stack, loop, lambda: called.append(loop.ns))
    loop.next()
    assert not called
    acknowledged(line)
    loop.next()
    assert len(called) == 1 and not loop.timers
    when_said(left.stack, loop, lambda: called.append(loop.ns))
    assert len(called) == 2 and not loop.timers


def test_who_does_not_answer_is_waited_for_a_moment(line: Line) -> None:
    _, client, _ = line.connected()
    left, loop = line.hosts[0], Loop()
    called: list[int] = []
    left.send(client, b"x")
    when_said(left.stack, loop, lambda: called.append(loop.ns))
    while not called:
        loop.next()
    assert called == [PATIENCE_NS]


def test_stack_without_links_has_nothing_to_say() -> None:
    assert not is_left(Stack(None, {}))

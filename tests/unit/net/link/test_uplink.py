"""Frames by a descriptor and the loop: a pair of sockets of packets stands for a packet socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from sentry.loop import HostOnly, Loop
from sentry.net.ip.seam import Outgoing
from sentry.net.link import uplink
from sentry.net.link.sender import Sender
from sentry.net.link.uplink import Uplink
from tests.unit.net.wired import Host, hardware, ip4

TEST = 253


class Line:
    def __init__(self, *, has_sender: bool) -> None:
        self.host = Host(1)
        self.host.link.neighbours4.set_static(ip4(2), hardware(2))
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        self.ours = ours
        self.loop = Loop(HostOnly(), self.failed)
        self.after: list[int] = []
        self.sender = Sender(self.loop) if has_sender else None
        self.uplink = Uplink(
            ours.fileno(), self.host.link, self.loop, lambda: self.after.append(1), self.sender
        )

    def failed(self, name: object, error: BaseException) -> None:
        raise error

    def send(self, count: int, size: int = 100) -> None:
        for number in range(count):
            data = number.to_bytes(4) + bytes(size)
            self.host.layer.send(0, Outgoing(ip4(2), TEST, (data,)))

    def heard(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.theirs.recv(1 << 17))
            except BlockingIOError:
                return found

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.loop.call_soon(lambda: None)
            self.loop.turn()

    def until_heard(self, count: int) -> list[bytes]:
        """So many frames, which a thread may send."""
        found: list[bytes] = []
        while len(found) < count:
            self.turns(1)
            found += self.heard()
        return found

    def close(self) -> None:
        if self.sender is not None:
            self.sender.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line(has_sender=False)
    yield made
    made.close()


def numbers(frames: list[bytes]) -> list[int]:
    return [int.from_bytes(each[44:48]) for each in frames]


def frame_for(line: Line, data: bytes) -> bytes:
    other = Host(2)
    other.link.neighbours4.set_static(ip4(1), hardware(1))
    other.layer.send(0, Outgoing(ip4(1), TEST, (data,)))
    return bytes(10) + other.frames()[0]


def test_frames_of_a_turn_go_together_and_in_their_order(line: Line) -> None:
    line.send(3)
    assert not line.heard()
    line.turns(1)
    assert [int.from_bytes(each[44:48]) for each in line.heard()] == [0, 1, 2]
    assert line.after and not line.host.link.outgoing


def test_what_does_not_fit_goes_when_there_is_room(line: Line) -> None:
    line.send(900, 1000)
    line.turns(1)
    heard = line.heard()
    assert 0 < len(heard) <= uplink.FRAMES_OUT
    while line.host.link.outgoing:
        line.turns(1)
        heard += line.heard()
    assert [int.from_bytes(each[44:48]) for each in heard] == list(range(900))


def test_full_socket_is_waited_for(line: Line) -> None:
    line.send(900, 1000)
    line.turns(20)
    waiting = len(line.host.link.outgoing)
    assert waiting
    line.turns(5)
    assert len(line.host.link.outgoing) == waiting
    heard = line.heard()
    while line.host.link.outgoing:
        line.turns(1)
        heard += line.heard()
    line.turns(1)
    assert len(heard + line.heard()) == 900


def test_frames_in_are_taken_in_batches(line: Line) -> None:
    kept = line.host.keep(TEST)
    for number in range(uplink.FRAMES_IN + 3):
        line.theirs.send(frame_for(line, bytes([number])))
    line.turns(1)
    assert len(kept.packets) == uplink.FRAMES_IN
    line.turns(1)
    assert [each.payload[0] for each in kept.packets] == list(range(uplink.FRAMES_IN + 3))


def test_frame_that_is_too_large_is_dropped(line: Line) -> None:
    kept = line.host.keep(TEST)
    line.theirs.send(frame_for(line, b"x") + bytes(uplink.MAX_FRAME))
    line.theirs.send(frame_for(line, b"y"))
    line.turns(1)
    assert [bytes(each.payload) for each in kept.packets] == [b"y"]


def test_socket_that_takes_nothing_more_loses_frames_and_holds_nothing_up(line: Line) -> None:
    line.theirs.close()
    line.send(3)
    line.turns(3)
    assert line.host.link.lost == 3 and not line.host.link.outgoing
    assert line.uplink.close() == line.ours.fileno()
    line.send(1)
    line.turns(1)
    assert len(line.host.link.outgoing) == 1


def test_answer_that_is_there_is_taken_at_once_and_seldom_looked_for_where_none_is() -> None:
    host, soon = Host(1), list[Callable[[], None]]()
    host.link.neighbours4.set_static(ip4(2), hardware(2))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    loop = SimpleNamespace(watch=lambda *_: None, call_soon=soon.append, now_ns=lambda: 0)
    Uplink(ours.fileno(), host.link, loop, lambda: None)
    kept = host.keep(TEST)
    other = Host(2)
    other.link.neighbours4.set_static(ip4(1), hardware(1))

    def exchange(*, is_answered: bool) -> bool:
        before = len(kept.packets)
        host.layer.send(0, Outgoing(ip4(2), TEST, (b"ask",)))
        if is_answered:
            other.layer.send(0, Outgoing(ip4(1), TEST, (b"answer",)))
            theirs.send(bytes(10) + other.frames()[0])
        soon.pop()()
        theirs.recv(1000)
        return len(kept.packets) > before

    assert all(exchange(is_answered=True) for _ in range(5))
    assert not any(exchange(is_answered=False) for _ in range(200))
    looked = [exchange(is_answered=True) for _ in range(100)]
    assert looked.index(True) <= 64 and all(looked[looked.index(True) :])
    ours.close()
    theirs.close()

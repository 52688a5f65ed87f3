"""The thread sends frames of an uplink, in their order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.net.link import uplink
from sentry.net.link.uplink import Uplink
from tests.unit.net.link.test_uplink import TEST, Line, frame_for, numbers


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Much has just come."""
    monkeypatch.setattr(uplink, "MUCH", 1)
    made = Line(has_sender=True)
    made.host.keep(TEST)
    made.theirs.send(frame_for(made, b"x"))
    made.turns(1)
    yield made
    made.close()


def test_thread_sends_frames_in_their_order(threaded: Line) -> None:
    heard: list[bytes] = []
    for _ in range(20):  # four times the outbox, and ends of it in the middle of a frame
        threaded.send(180, 1200)
        heard += threaded.until_heard(180)
    assert numbers(heard) == [*range(180)] * 20
    assert all(each[48:] == bytes(1200) for each in heard)


def test_what_comes_later_goes_behind_what_the_thread_has(threaded: Line) -> None:
    threaded.send(600, 1200)
    threaded.turns(30)  # the socket is full, and so is the outbox
    waiting = len(threaded.host.link.outgoing)
    assert waiting
    threaded.send(1)
    threaded.turns(5)
    assert len(threaded.host.link.outgoing) == waiting + 1
    assert numbers(threaded.until_heard(601)) == [*range(600), 0]


def test_thread_tells_of_what_a_socket_refuses(threaded: Line) -> None:
    threaded.theirs.close()
    threaded.send(100, 1200)
    while threaded.host.link.lost < 100:
        threaded.turns(1)
    assert not threaded.host.link.outgoing


def test_closed_uplink_has_its_descriptor_to_itself(threaded: Line) -> None:
    threaded.send(180, 1200)
    threaded.turns(1)
    assert threaded.uplink.close() == threaded.ours.fileno()
    heard = threaded.heard()
    assert numbers(heard) == [*range(len(heard))]
    threaded.turns(3)
    assert not threaded.heard()


def test_thread_answers_only_where_much_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(has_sender=True)
    line.send(1)
    line.turns(1)
    assert numbers(line.heard()) == [0]

    monkeypatch.setattr(uplink, "MUCH", 4000)
    kept = line.host.keep(TEST)
    for _ in range(4):
        line.theirs.send(frame_for(line, bytes(1200)))
    line.turns(1)
    assert len(kept.packets) == 4
    monkeypatch.delattr(Uplink, "_send")
    line.send(3)
    assert numbers(line.until_heard(3)) == [0, 1, 2]
    line.close()


def test_thread_sends_much_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(has_sender=True)
    monkeypatch.setattr(uplink, "MUCH_OUT", 4000)
    line.send(3, 1200)
    line.turns(1)
    assert numbers(line.heard()) == [0, 1, 2]  # in the same turn
    monkeypatch.delattr(Uplink, "_send")
    line.send(4, 1200)
    assert numbers(line.until_heard(4)) == [0, 1, 2, 3]
    line.close()

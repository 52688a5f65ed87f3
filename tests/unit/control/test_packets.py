"""Who looks at packets gets them in batches, and what there is no room for is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sentry.abi.socket import PACKET_HOST, PACKET_OUTGOING
from sentry.control import packets
from sentry.control.answers import Packets
from sentry.control.packets import Capture
from sentry.errors import EBUSY, ENODEV
from sentry.net.interfaces import Interface
from sentry.net.packets import Frame
from sentry.net.stack import Stack


class World:
    """A stack whose loop turns when the test says so."""

    def __init__(self) -> None:
        self.stack = Stack(None, {})
        for index in (2, 3):
            self.stack.interfaces.insert(Interface(index, f"eth{index}"))
        self.soon: list[Callable[[], object]] = []
        self.told: list[Packets] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for each in soon:
            each()

    def look(self, name: str = "") -> Capture:
        return Capture(self.stack, name, self, self.told.append)

    def frame(
        self, index: int = 2, data: bytes = b"x" * 20, kind: int = PACKET_HOST, header: int = 14
    ) -> None:
        for tap in list(self.stack.taps):
            tap.hear(Frame(data, 0x800, kind, len(data), index, header, 77))

    def heard(self) -> list[tuple[int, bool]]:
        self.turn()
        return [(each.index, each.outgoing) for told in self.told for each in told.frames]


@pytest.fixture
def world() -> World:
    return World()


def test_frames_of_a_turn_are_told_together_to_who_asks(world: World) -> None:
    capture = world.look()
    world.frame()
    assert not world.soon
    capture.ask(ends=False)
    world.frame(3, kind=PACKET_OUTGOING, header=0)
    assert world.heard() == [(2, False), (3, True)] and len(world.told) == 1
    told = world.told[0]
    assert [(each.index, each.name, each.has_header) for each in told.interfaces] == [
        (2, "eth2", True), (3, "eth3", False)
    ]  # fmt: skip
    assert told.frames[0].at_ns == 77 and told.frames[0].data == b"x" * 20
    world.frame()
    world.turn()
    assert len(world.told) == 1
    capture.ask(ends=False)
    world.turn()
    assert [each.seen for each in world.told[1].interfaces] == [2]


def test_one_interface_alone_and_the_loopback_once(world: World) -> None:
    world.look("eth3").ask(ends=False)
    world.frame()
    world.frame(3)
    assert world.heard() == [(3, False)]
    world.told.clear()
    world.look("lo").ask(ends=False)
    world.frame(1, kind=PACKET_OUTGOING)
    world.frame(1)
    assert world.heard() == [(1, False)]
    with pytest.raises(ENODEV):
        world.look("eth9")


@pytest.mark.parametrize("size", [20, 60_000])
def test_who_does_not_ask_loses_what_there_is_no_room_for(world: World, size: int) -> None:
    capture = world.look()
    for _ in range(10_000):
        world.frame(data=bytes(size))
    seen = 0
    while True:
        capture.ask(ends=True)
        world.turn()
        last = world.told[-1]
        if not last.frames:
            break
        seen += len(last.frames)
        assert len(last.frames) <= packets.BATCH_FRAMES
        assert sum(len(each.data) for each in last.frames) <= packets.BATCH_BYTES + size
    (counted,) = world.told[0].interfaces
    assert counted.seen == 10_000 and counted.lost == 10_000 - seen
    assert seen == min(packets.MAX_FRAMES, packets.MAX_BYTES // size)


def test_question_behind_a_question_is_answered_at_once(world: World) -> None:
    capture = world.look()
    capture.ask(ends=False)
    capture.ask(ends=True)
    assert world.told == [Packets()]
    world.frame()
    world.turn()
    assert world.told == [Packets(), Packets()] and not world.stack.taps


def test_interfaces_and_who_looks_at_them_have_ceilings(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = world.look()
    monkeypatch.setattr(packets, "MAX_INTERFACES", 1)
    world.frame()
    world.frame(3)
    world.frame(9)
    capture.ask(ends=True)
    assert world.heard() == [(2, False)]
    for _ in range(packets.MAX_CAPTURES):
        world.look()
    with pytest.raises(EBUSY):
        world.look()

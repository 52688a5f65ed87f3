"""Deliveries to many sockets: in steps, in order, at the cost of who sends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.kernel.thread_group import Usage
from sentry.loop import Charged
from sentry.net import fan_out
from sentry.net.fan_out import MAX_BACKLOG, STEP_NS, FanOut
from sentry.net.inet.address import Endpoint
from sentry.net.inet.udp import to_everybody
from sentry.net.packets import Packet
from sentry.wait.fiber import Killed, Mode

PIECE_NS = STEP_NS // 4


class World:
    """A clock that only deliveries move, and a loop whose turns are made by hand."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.soon: list[Callable[[], None]] = []
        self.heard: list[str] = []
        loop = SimpleNamespace(call_soon=self.soon.append)
        self.fan_out = FanOut(SimpleNamespace(loop=loop))

    def monotonic_ns(self) -> int:
        return self.now_ns

    def turn(self) -> None:
        """What is to come."""
        soon, self.soon[:] = [*self.soon], []
        for call in soon:
            call()

    def send(self, name: str, sockets: int) -> None:
        """A packet that so many sockets hear, each for a quarter of a step."""

        def work() -> Iterator[None]:
            for n in range(sockets):
                self.now_ns += PIECE_NS
                self.heard.append(f"{name}{n}")
                yield

        self.fan_out.begin(work())


class Sender(Charged):
    """A task that pays."""

    __slots__ = ()

    def __init__(self) -> None:
        self.sys_time_ns = 0
        self.used = Usage()


class File:
    """A socket in use."""

    refs = 1

    def decref(self) -> None:
        self.refs -= 1


class Clock:
    """For fibers: who is woken runs at once when the test says so."""

    def __init__(self) -> None:
        self.fibers = self.step_ns = 0
        self.woken: list[Any] = []

    def ready(self, fiber: Any) -> None:
        self.woken.append(fiber)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(fan_out, "time", made)
    return made


def test_few_sockets_hear_at_once(world: World) -> None:
    world.send("a", 2)

    assert world.heard == ["a0", "a1"]
    assert world.fan_out.awaited(File(), Sender(), 5) == 5


def test_many_sockets_hear_in_steps_and_a_later_packet_after_them(world: World) -> None:
    world.send("a", 10)
    world.send("b", 1)
    steps = [len(world.heard)]
    while world.soon:
        world.turn()
        steps.append(len(world.heard))

    assert world.heard == [*(f"a{n}" for n in range(10)), "b0"]
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 4


def test_short_deliveries_of_one_turn_share_its_time(world: World) -> None:
    for _ in range(100):
        world.send("a", 1)

    assert len(world.heard) <= 5
    for _ in range(100):
        world.turn()
    assert len(world.heard) == 100 and not world.soon


def test_sender_waits_and_pays(world: World) -> None:
    sender, file, clock, ends = Sender(), File(), Clock(), []
    world.send("a", 10)
    wait = world.fan_out.awaited(file, sender, 5)
    wait.begin(clock, sender, lambda result, error: ends.append((result, error)))
    assert file.refs == 2 and wait.mode is Mode.KILLABLE

    while world.soon:
        world.turn()
    for fiber in clock.woken:
        fiber.run()

    assert ends == [(5, None)]
    assert file.refs == 1
    assert sender.sys_time_ns == 6 * PIECE_NS


def test_packet_comes_though_its_sender_is_killed(world: World) -> None:
    clock, ends = Clock(), []
    world.send("a", 10)
    wait = world.fan_out.awaited(File(), Sender(), 5)
    wait.begin(clock, None, lambda _, error: ends.append(error))

    wait.interrupt(Killed(), Mode.KILLABLE)
    clock.woken.pop().run()
    while world.soon:
        world.turn()

    assert isinstance(ends[0], Killed)
    assert len(world.heard) == 10


def test_who_has_sent_nothing_that_is_on_its_way_does_not_wait(world: World) -> None:
    world.send("a", 10)
    world.fan_out.awaited(File(), Sender(), 5)

    assert world.fan_out.awaited(File(), Sender(), 6) == 6


def test_packets_beyond_the_backlog_are_lost(world: World) -> None:
    world.send("a", 10)
    for _ in range(2 * MAX_BACKLOG):
        world.send("b", 1)
    while world.soon:
        world.turn()

    assert len(world.heard) == 10 + MAX_BACKLOG - 1


def test_who_is_a_member_of_a_group_is_looked_for_in_steps() -> None:
    looked: list[int] = []

    def everybody() -> Iterator[object]:
        for each in range(10):
            looked.append(each)
            yield None

    group = Endpoint(bytes(10) + b"\xff\xff" + bytes([224, 0, 0, 5]), 1)
    ports: Any = SimpleNamespace(everybody=everybody, at=lambda port: [])
    next(to_everybody(ports, Packet(b"", group, group)))
    assert looked == [0]

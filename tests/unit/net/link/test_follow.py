"""Links come and go with the interfaces of the host."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sentry.abi.netlink import (
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    IFF_UP,
    NDA_DST,
    NDA_LLADDR,
    NLMSGHDR,
    NUD_PERMANENT,
    NUD_STALE,
    RTM_NEWNEIGH,
)
from sentry.abi.socket import AF_INET, AF_PACKET
from sentry.errors import EMFILE, ENODEV
from sentry.net.interfaces import Address, Interface
from sentry.net.ip.layer import IpLayer
from sentry.net.ip.seam import Outgoing
from sentry.net.link.follow import Uplinks
from sentry.net.stack import Stack
from tests.unit.net.wired import SECOND_NS, hardware, ip4

REFUSED = {8: ENODEV(), 9: EMFILE("no packet socket is left")}


class Process:
    """It gives a descriptor for each interface."""

    def __init__(self) -> None:
        self.given: dict[int, int] = {}
        self.given_back: list[int] = []

    def give_back(self, index: int) -> None:
        self.given_back.append(index)

    async def uplink(self, index: int) -> int:
        if index in REFUSED:
            raise REFUSED[index]
        self.given[index] = os.open("/dev/null", os.O_RDWR)
        return self.given[index]


class Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    def __init__(self) -> None:
        self.watched: dict[int, int] = {}
        self.timers: list[tuple[int, Any, Timer]] = []
        self.soon: list[Any] = []

    def watch(self, fd: int, events: int, callback: Any = None) -> None:
        self.watched[fd] = events

    def now_ns(self) -> int:
        return SECOND_NS

    def call_at(self, at_ns: int, callback: Any) -> Timer:
        timer = Timer()
        self.timers.append((at_ns, callback, timer))
        return timer

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)


class World:
    def __init__(self) -> None:
        self.logged: list[str] = []
        self.stack = Stack(cast(Any, SimpleNamespace(log=self)), {})
        self.layer = self.stack.ip = IpLayer(self.stack.interfaces, {}, os.urandom)
        self.process, self.loop = Process(), Loop()
        self.uplinks = Uplinks(self.stack, self.layer, self.process, self.loop)  # type: ignore[arg-type]

    def write(self, text: str) -> None:
        self.logged.append(text)

    def show(self, index: int, flags: int = IFF_UP, kind: int = ARPHRD_ETHER) -> Interface:
        made = Interface(index, f"eth{index}", kind, flags, 1500, hardware(index))
        made.addresses = [Address(AF_INET, ip4(index), 24, 0)]
        self.stack.interfaces.insert(made)
        return made

    def follow(self, *parts: bytes) -> None:
        rest = self.uplinks.follow(list(parts))
        with pytest.raises(StopIteration):
            while rest.send(None).deadline_ns == 0:  # others would run in between
                pass


@pytest.fixture
def world() -> World:
    return World()


def test_each_ethernet_interface_that_is_up_has_a_link(world: World) -> None:
    world.show(2)
    world.show(3, flags=0)
    world.show(4, kind=ARPHRD_LOOPBACK)
    world.show(8)  # it has gone
    world.show(9)  # there is no socket for it
    world.follow()
    assert world.logged == ["eth9: reaches nobody: no packet socket is left\n"]
    assert [*world.layer.links] == [2] and [*world.process.given] == [2]
    world.show(3)
    world.follow()
    assert sorted(world.layer.links) == [2, 3]
    assert world.layer.is_local(ip4(3))
    world.uplinks.close()


def test_link_goes_with_its_interface_and_its_descriptor_too(world: World) -> None:
    world.show(2)
    world.follow()
    fd = world.process.given[2]
    world.stack.interfaces.remove(2)
    world.follow()
    assert not world.layer.links and world.loop.watched[fd] == 0
    assert world.process.given_back == [2]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_other_hardware_address_is_followed(world: World) -> None:
    world.show(2)
    world.follow()
    world.show(2).hardware = hardware(7)
    world.follow()
    assert world.layer.links[2].hardware == hardware(7)
    world.uplinks.close()


def test_interface_that_was_made_again_with_its_number_has_a_link_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of one that has gone is bound to none, and would be silent for ever."""
    world.show(2)
    world.follow()
    first = world.layer.links[2]
    bound = {world.process.given[2]: 2}
    monkeypatch.setattr(
        "sentry.net.host.calls.name",
        lambda fd, *, peer: struct.pack("<HHi12x", AF_PACKET, 0, bound.get(fd, 2)),
    )
    world.follow()
    assert world.layer.links[2] is first
    bound[world.process.given[2]] = -1
    world.follow()
    assert world.layer.links[2] is not first
    assert world.process.given_back == [2]
    world.uplinks.close()


def test_link_that_comes_when_the_namespace_has_ended_is_closed(world: World) -> None:
    world.show(2)
    ended: list[int] = []
    uplink = world.process.uplink

    async def late(index: int) -> int:
        world.uplinks.close()
        ended.append(await uplink(index))
        return ended[-1]

    world.process.uplink = late  # type: ignore[method-assign]
    world.follow()
    assert not world.layer.links
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(ended[0])


def neighbour(ip: bytes, hardware: bytes, state: int, index: int = 2) -> bytes:
    body = struct.pack("<BxxxiHBB", AF_INET, index, state, 0, 1)
    for kind, value in ((NDA_DST, ip), (NDA_LLADDR, hardware)):
        body += struct.pack("<HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), RTM_NEWNEIGH, 0, 0, 0) + body


def test_neighbours_that_the_host_was_given_are_taken_over_and_forgotten(world: World) -> None:
    world.show(2)
    set_by_hand = neighbour(ip4(7), hardware(7), NUD_PERMANENT)
    others = neighbour(ip4(8), hardware(8), NUD_STALE) + neighbour(ip4(9), b"", NUD_PERMANENT)
    world.follow(set_by_hand + others + neighbour(ip4(7), hardware(7), NUD_PERMANENT, 5))
    (known,) = world.layer.links[2].neighbours4
    assert (known.ip, known.hardware, known.state) == (ip4(7), hardware(7), NUD_PERMANENT)
    world.follow(others[:-5])
    assert not len(world.layer.links[2].neighbours4)
    world.uplinks.close()


def test_first_timer_of_the_layer_is_one_of_the_loop(world: World) -> None:
    world.show(2)
    world.follow()
    assert not world.loop.timers
    world.layer.send(SECOND_NS, Outgoing(ip4(9), 253, (b"x",)))
    (flush,) = world.loop.soon
    flush()
    ((at_ns, due, timer),) = world.loop.timers
    assert at_ns == 2 * SECOND_NS and not timer.cancelled
    due()
    assert [each[0] for each in world.loop.timers] == [2 * SECOND_NS] * 2
    world.uplinks.close()
    assert world.loop.timers[-1][2].cancelled

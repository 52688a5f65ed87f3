"""The FDB of a bridge in netlink, and notices of it and of neighbours."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.abi import netlink as abi
from sentry.abi.netlink import RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH
from sentry.abi.socket import AF_BRIDGE, AF_INET
from sentry.errors import EEXIST, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EPERM, Errno
from sentry.net.link import arp, ethernet
from sentry.net.link.link import EthernetLink
from sentry.net.link.neighbours import SECOND_NS, Neighbours
from sentry.net.netlink.message import attribute, parse_attributes, u32
from sentry.net.virtual.fdb import AGEING_NS
from tests.unit.net.virtual.harness import NEW, Cable, Kernel, Net
from tests.unit.net.wired import hardware, ip4

CREATE, REPLACE, BULK = abi.NLM_F_CREATE, abi.NLM_F_REPLACE, abi.NLM_F_BULK
MASTER, SELF = abi.NTF_MASTER, abi.NTF_SELF


class World:
    """A bridge with two ports, whose hardware addresses are 1 and 2."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.net = Net(self.kernel)
        self.bridge = self.net.add("br0", "bridge", up=True)
        self.ports = [Cable(self.net, f"p{number}", number) for number in (1, 2)]
        for name in ("p1", "p2"):
            self.net.turn(name)
            self.net.set(name, u32(abi.IFLA_MASTER, self.bridge.interface.index))

    def change(
        self, kind: int, number: int, name: str = "p1", state: int = abi.NUD_NOARP,
        flags: int = MASTER, asked: int = CREATE,
    ) -> None:  # fmt: skip
        head = abi.NDMSG.pack(AF_BRIDGE, 0, 0, self.net.link(name).index, state, flags, 0)
        self.net.ask(kind, head + attribute(abi.NDA_LLADDR, hardware(number)), asked)

    def listed(self, *more: bytes, name: str = "") -> list[tuple[int, str, int]]:
        """(last byte of the hardware address, interface, state) of what is asked for."""
        index = self.net.link(name).index if name else 0
        head = abi.NDMSG.pack(AF_BRIDGE, 0, 0, index, 0, 0, 0)
        return [self.read(body) for body in self.net.dump(RTM_GETNEIGH, head + b"".join(more))]

    def read(self, body: bytes) -> tuple[int, str, int]:
        head = abi.NDMSG.unpack(body)
        found = parse_attributes(body[abi.NDMSG.size :])
        assert found[abi.NDA_MASTER] == self.bridge.interface.index.to_bytes(4, "little")
        names = {link.index: link.name for link in self.net.stack.interfaces}
        return found[abi.NDA_LLADDR][-1], names[head.ndm_ifindex], head.ndm_state

    def told(self) -> list[tuple[int, tuple[int, str, int]]]:
        """Notices that have come."""
        self.kernel.loop.settle()
        told, self.net.told = self.net.told, []
        return [(kind, self.read(body)) for kind, body in told]

    def hear(self, port: int, source: int, target: int = 99) -> None:
        head = ethernet.build(hardware(target), hardware(source), 0x88B5)
        self.ports[port].hear(head + bytes(46))


@pytest.fixture
def world() -> World:
    return World()


def test_addresses_of_ports_are_there_for_ever(world: World) -> None:
    assert world.listed() == [(1, "p1", abi.NUD_PERMANENT), (2, "p2", abi.NUD_PERMANENT)]


def test_who_was_heard_is_listed_behind_the_port(world: World) -> None:
    world.hear(0, 7)
    heard = (7, "p1", abi.NUD_REACHABLE)
    assert heard in world.listed()
    assert world.listed(name="p1") == [(1, "p1", abi.NUD_PERMANENT), heard]
    assert world.listed(name="p2") == [(2, "p2", abi.NUD_PERMANENT)]
    index = world.bridge.interface.index
    assert len(world.listed(u32(abi.NDA_MASTER, index))) == 3
    assert world.listed(u32(abi.NDA_MASTER, index + 100)) == []


def test_who_asks_as_one_asks_for_links_is_understood(world: World) -> None:
    head = abi.IFINFOMSG.pack(AF_BRIDGE, 0, 0, world.net.link("p2").index, 0, 0)
    bodies = world.net.dump(RTM_GETNEIGH, head)
    assert [world.read(body) for body in bodies] == [(2, "p2", abi.NUD_PERMANENT)]


def test_frames_go_where_a_program_has_said(world: World) -> None:
    world.change(RTM_NEWNEIGH, 7, "p2")
    for port in world.ports:
        port.taken()
    third = Cable(world.net, "p3", 3)
    world.net.turn("p3")
    world.net.set("p3", u32(abi.IFLA_MASTER, world.bridge.interface.index))
    third.taken()
    world.ports[1].taken()

    world.hear(0, 8, 7)

    assert len(world.ports[1].taken()) == 1 and third.taken() == []
    world.change(RTM_DELNEIGH, 7, "p2")
    world.hear(0, 8, 7)
    assert len(world.ports[1].taken()) == 1 and len(third.taken()) == 1


def test_what_is_permanent_is_the_bridge_itself(world: World) -> None:
    world.change(RTM_NEWNEIGH, 7, "br0", abi.NUD_PERMANENT, SELF)
    world.ports[1].taken()
    before = world.net.link("br0").received[0]
    world.hear(0, 8, 7)
    assert world.ports[1].taken() == [] and world.net.link("br0").received[0] == before + 1
    assert (7, "br0", abi.NUD_PERMANENT) in world.listed(name="br0")


def test_changes_are_told_and_what_ages_too(world: World) -> None:
    world.net.join(abi.RTNLGRP_NEIGH)
    world.hear(0, 7)
    world.hear(0, 7)
    world.hear(1, 7)
    world.change(RTM_NEWNEIGH, 8)
    world.change(RTM_NEWNEIGH, 8)
    world.change(RTM_DELNEIGH, 8)
    reachable = abi.NUD_REACHABLE
    assert world.told() == [
        (RTM_NEWNEIGH, (7, "p1", reachable)), (RTM_NEWNEIGH, (7, "p2", reachable)),
        (RTM_NEWNEIGH, (8, "p1", abi.NUD_NOARP)), (RTM_DELNEIGH, (8, "p1", abi.NUD_NOARP)),
    ]  # fmt: skip
    world.kernel.loop.advance(AGEING_NS + SECOND_NS)
    assert (RTM_DELNEIGH, (7, "p2", reachable)) in world.told()


def test_port_that_leaves_takes_what_is_set_along(world: World) -> None:
    world.change(RTM_NEWNEIGH, 7)
    world.net.join(abi.RTNLGRP_NEIGH)
    world.net.set("p1", u32(abi.IFLA_MASTER, 0))
    assert world.told() == [(RTM_DELNEIGH, (7, "p1", abi.NUD_NOARP))]


def flush(world: World, name: str, flags: int, state: int = 0, mask: int = 0) -> None:
    head = abi.NDMSG.pack(AF_BRIDGE, 0, 0, world.net.link(name).index, state, flags, 0)
    more = attribute(abi.NDA_NDM_STATE_MASK, mask.to_bytes(2, "little")) if mask else b""
    world.net.ask(RTM_DELNEIGH, head + more, BULK)


def test_all_are_forgotten_at_once_or_some(world: World) -> None:
    world.hear(0, 7)
    world.hear(1, 8)
    world.change(RTM_NEWNEIGH, 9)
    flush(world, "br0", SELF, 0, abi.NUD_NOARP)
    assert [each[0] for each in world.listed()] == [1, 9, 2]
    world.hear(1, 8)
    flush(world, "p1", MASTER)
    assert [each[0] for each in world.listed()] == [1, 2, 8]
    flush(world, "br0", SELF)
    assert [each[0] for each in world.listed()] == [1, 2]


def test_one_is_asked_for(world: World) -> None:
    world.hear(0, 7)
    more = attribute(abi.NDA_LLADDR, hardware(7))
    head = abi.NDMSG.pack(AF_BRIDGE, 0, 0, world.net.link("p1").index, 0, MASTER, 0)
    ((_, body),) = world.net.ask(RTM_GETNEIGH, head + more)
    assert world.read(body) == (7, "p1", abi.NUD_REACHABLE)
    by_bridge = abi.NDMSG.pack(AF_BRIDGE, 0, 0, 0, 0, 0, 0)
    index = u32(abi.NDA_MASTER, world.bridge.interface.index)
    assert len(world.net.ask(RTM_GETNEIGH, by_bridge + more + index)) == 1
    with pytest.raises(ENOENT):
        world.net.ask(RTM_GETNEIGH, head + attribute(abi.NDA_LLADDR, hardware(77)))
    with pytest.raises(EINVAL):
        world.net.ask(RTM_GETNEIGH, by_bridge + more)


@pytest.mark.parametrize(("error", "options"), [
    (ENOENT, {"asked": 0}),
    (EEXIST, {"number": 1}),
    (EINVAL, {"number": 7, "state": abi.NUD_STALE}),
    (EINVAL, {"name": "br0", "flags": SELF}),
    (EINVAL, {"flags": MASTER | abi.NTF_STICKY, "state": abi.NUD_PERMANENT}),
    (EINVAL, {"name": "br0", "flags": SELF | abi.NTF_USE, "state": abi.NUD_PERMANENT}),
    (EOPNOTSUPP, {"flags": SELF}),
    (EOPNOTSUPP, {"name": "br0", "flags": MASTER}),
])  # fmt: skip
def test_what_is_wrong_is_refused(
    world: World, error: type[Errno], options: dict[str, Any]
) -> None:
    with pytest.raises(error):
        world.change(RTM_NEWNEIGH, **{"number": 7, **options})


def test_other_requests_that_are_wrong(world: World) -> None:
    world.change(RTM_NEWNEIGH, 7)
    with pytest.raises(EEXIST):
        world.change(RTM_NEWNEIGH, 7, asked=NEW)
    with pytest.raises(ENOENT):
        world.change(RTM_DELNEIGH, 7, "p2")
    with pytest.raises(EOPNOTSUPP):
        world.change(RTM_DELNEIGH, 1)
    world.net.turn("p2", on=False)
    with pytest.raises(EPERM):
        world.change(RTM_NEWNEIGH, 8, "p2", abi.NUD_REACHABLE)
    head = abi.NDMSG.pack(AF_BRIDGE, 0, 0, 999, 0, MASTER, 0)
    for kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
        with pytest.raises(ENODEV):
            world.net.ask(kind, head + attribute(abi.NDA_LLADDR, hardware(7)), CREATE)
        with pytest.raises(EINVAL):
            own = abi.NDMSG.pack(AF_BRIDGE, 0, 0, world.net.link("p1").index, 0, MASTER, 0)
            world.net.ask(kind, own, CREATE)


# --- neighbours of IP


class Packet:
    """One that goes to a neighbour."""

    size = 100


class Asked:
    """An interface with the address 10.0.0.1, and who hears of its neighbours."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.net = Net(self.kernel)
        self.cable = Cable(self.net, "eth0", 1)
        self.net.turn("eth0")
        self.net.address("eth0", ip4(1), 24)
        self.net.join(abi.RTNLGRP_NEIGH)

    def table(self) -> Neighbours:
        """Of IPv4."""
        link = self.cable.link
        assert isinstance(link, EthernetLink)
        return link.neighbours4

    def told(self) -> list[tuple[int, int, int]]:
        """(kind, last byte of the address, state)."""
        self.kernel.loop.settle()
        told, self.net.told = self.net.told, []
        return [
            (kind, parse_attributes(body[abi.NDMSG.size :])[abi.NDA_DST][-1],
             abi.NDMSG.unpack(body).ndm_state)
            for kind, body in told if body[0] == AF_INET
        ]  # fmt: skip

    def asks(self, number: int) -> None:
        packet = arp.ArpPacket(arp.REQUEST, hardware(number), ip4(number), bytes(6), ip4(1))
        head = ethernet.build(ethernet.BROADCAST, hardware(number), 0x806)
        self.cable.hear(head + arp.build(packet))


def test_who_is_learned_from_a_question_is_told_once() -> None:
    world = Asked()
    world.asks(2)
    world.asks(2)
    assert world.told() == [(RTM_NEWNEIGH, 2, abi.NUD_STALE)]


def test_states_are_told_as_they_are_on_linux() -> None:
    world = Asked()
    world.asks(2)
    table = world.table()
    table.resolve(world.kernel.loop.now_ns(), ip4(2), Packet())
    world.cable.layer.on_deadline()
    world.told()
    world.kernel.loop.advance(20 * SECOND_NS)

    found = world.told()
    assert found == [(RTM_NEWNEIGH, 2, abi.NUD_PROBE), (RTM_NEWNEIGH, 2, abi.NUD_FAILED)]
    table.drop(ip4(2))
    assert world.told() == [(RTM_DELNEIGH, 2, abi.NUD_FAILED)]


def test_what_an_administrator_sets_is_told_once() -> None:
    world = Asked()
    index = world.net.link("eth0").index
    head = abi.NDMSG.pack(AF_INET, 0, 0, index, abi.NUD_PERMANENT, 0, 0)
    who = attribute(abi.NDA_DST, ip4(3))
    world.net.ask(RTM_NEWNEIGH, head + who + attribute(abi.NDA_LLADDR, hardware(3)), CREATE)
    assert world.told() == [(RTM_NEWNEIGH, 3, abi.NUD_PERMANENT)]
    world.net.ask(RTM_DELNEIGH, head + who)
    assert world.told() == [
        (RTM_NEWNEIGH, 3, abi.NUD_FAILED), (RTM_DELNEIGH, 3, abi.NUD_FAILED)
    ]  # fmt: skip


def test_link_that_goes_tells_only_that() -> None:
    world = Asked()
    world.asks(2)
    world.told()
    world.net.remove("eth0")
    assert world.told() == []


def test_without_listeners_no_message_is_made() -> None:
    world = Asked()
    world.net.stack.netlink_groups.clear()
    world.asks(2)
    assert world.told() == []

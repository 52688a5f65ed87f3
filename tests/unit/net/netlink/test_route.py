"""Routes that programs set: tables, several next hops, other families, ways that lead nowhere."""

from __future__ import annotations

import struct

import pytest

from sentry.abi import netlink as abi
from sentry.abi.netlink import RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.errors import (
    EACCES,
    EHOSTUNREACH,
    EINVAL,
    ENETDOWN,
    ENETUNREACH,
    ENOBUFS,
    ENOENT,
    EOPNOTSUPP,
    ERANGE,
    ESRCH,
    Errno,
)
from sentry.net.ip.layer import IpLayer
from sentry.net.ip.seam import Outgoing
from sentry.net.link.link import EthernetLink
from sentry.net.netlink.message import attribute, parse_attributes, u32
from sentry.net.routes import MAX_HOPS
from sentry.net.rules import RouteKey
from tests.unit.net.virtual.harness import NEW, Cable, Kernel, Net
from tests.unit.net.wired import hardware, ip4, ip6, local6

FAR4, FAR6 = b"\xc6\x33\x64\x09", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x09"
NEAR = bytes((10, 0, 1, 1))
"""The address at the second interface; 10.0.0.1 is that at the first one."""


class World:
    """Two interfaces, with 10.0.0.1/24, fd00::1/64 and 10.0.1.1/24."""

    def __init__(self) -> None:
        self.net = Net(Kernel())
        self.one, self.two = (Cable(self.net, f"eth{number}", number) for number in (0, 1))
        for name in ("eth0", "eth1"):
            self.net.turn(name)
        self.net.address("eth0", ip4(1), 24)
        self.net.address("eth0", ip6(1), 64)
        self.net.address("eth1", NEAR, 24)
        self.indexes = [each.interface.index for each in (self.one, self.two)]

    @property
    def layer(self) -> IpLayer:
        layer = self.net.stack.ip
        assert layer is not None
        return layer

    def change(
        self, *attributes: bytes, to: bytes = b"", kind: int = abi.RTN_UNICAST, asked: int = NEW,
        what: int = RTM_NEWROUTE, source: bytes = b"", family: int = AF_INET,
    ) -> None:  # fmt: skip
        """The whole family is meant, or one address."""
        head = abi.RTMSG.pack(
            family, len(to) * 8, len(source) * 8, 0, 0, abi.RTPROT_BOOT, 0, kind, 0
        )
        more = attribute(abi.RTA_DST, to) if to else b""
        more += attribute(abi.RTA_SRC, source) if source else b""
        self.net.ask(what, head + more + b"".join(attributes), asked)

    def shown(self, table: int = abi.RT_TABLE_MAIN, family: int = AF_INET) -> list[bytes]:
        self.net.flags_set = {abi.NETLINK_GET_STRICT_CHK}
        head = abi.RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        return [
            body for body in self.net.dump(RTM_GETROUTE, head + u32(abi.RTA_TABLE, table))
            if abi.RTMSG.unpack(body).rtm_protocol == abi.RTPROT_BOOT
        ]  # fmt: skip


def by(index: int, gateway: bytes = b"") -> bytes:
    found = u32(abi.RTA_OIF, index)
    return found + (attribute(abi.RTA_GATEWAY, gateway) if gateway else b"")


def hops(*each: tuple[int, bytes, int]) -> bytes:
    """RTA_MULTIPATH of (interface, gateway, weight)."""
    made = b""
    for index, gateway, weight in each:
        more = attribute(abi.RTA_GATEWAY, gateway) if gateway else b""
        made += abi.RTNEXTHOP.pack(abi.RTNEXTHOP.size + len(more), 0, weight - 1, index) + more
    return attribute(abi.RTA_MULTIPATH, made)


@pytest.fixture
def world() -> World:
    return World()


def test_other_tables_are_not_asked_without_a_rule(world: World) -> None:
    world.change(by(world.indexes[0], ip4(9)), u32(abi.RTA_TABLE, 100))
    with pytest.raises(ENETUNREACH):
        world.layer.path(0, FAR4)
    assert len(world.shown(100)) == 1 and world.shown() == []
    assert parse_attributes(world.shown(100)[0][12:])[abi.RTA_TABLE] == b"d\0\0\0"
    with pytest.raises(ENOENT):
        world.shown(101)
    assert world.shown(101, AF_INET6) == []


def test_flow_takes_one_of_several_next_hops(world: World) -> None:
    one, two = world.indexes
    far = bytes((10, 0, 1, 9))
    world.change(hops((one, ip4(9), 1), (two, far, 1)))
    paths = {
        world.layer.path(0, b"\x08\x08" + bytes(divmod(number, 256)))[2:4] for number in range(200)
    }
    assert paths == {(one, ip4(9)), (two, far)}
    for source, expected in ((ip4(1), (one, ip4(9))), (NEAR, (two, far))):
        assert world.layer.path(0, FAR4, 0, RouteKey(source))[2:4] == expected
    assert world.layer.path(0, FAR4, two).next_hop == far


def test_next_hop_that_is_down_is_left_out_and_comes_back(world: World) -> None:
    one, two = world.indexes
    world.change(hops((one, ip4(9), 1), (two, b"", 3)))
    world.net.turn("eth1", on=False)

    targets = [b"\x08\x08" + bytes(divmod(number, 256)) for number in range(100)]
    assert {world.layer.path(0, target).interface for target in targets} == {one}
    (body,) = world.shown()
    first, second = _hops_in(body)
    assert first == (one, 0, 1, ip4(9)) and second[:3] == (two, 1 | 16, 3)
    world.net.turn("eth1")
    assert {world.layer.path(0, target).interface for target in targets} == {one, two}
    world.net.turn("eth0", on=False)
    world.net.turn("eth1", on=False)
    assert world.shown() == []


def _hops_in(body: bytes) -> list[tuple[int, int, int, bytes]]:
    """(interface, flags, weight, gateway)."""
    found: list[tuple[int, int, int, bytes]] = []
    value = parse_attributes(body[12:])[abi.RTA_MULTIPATH]
    while value:
        one = abi.RTNEXTHOP.unpack(value)
        own = parse_attributes(value[abi.RTNEXTHOP.size : one.rtnh_len])
        gateway = own.get(abi.RTA_GATEWAY, b"")
        found.append((one.rtnh_ifindex, one.rtnh_flags, one.rtnh_hops + 1, gateway))
        value = value[one.rtnh_len :]
    return found


def test_route_goes_with_an_interface_of_its_next_hops(world: World) -> None:
    one, two = world.indexes
    world.change(hops((one, ip4(9), 1), (two, b"", 1)))
    world.net.remove("eth1")
    assert world.shown() == []


def test_router_of_ipv6_takes_packets_of_ipv4(world: World) -> None:
    via = attribute(abi.RTA_VIA, struct.pack("<H", AF_INET6) + local6(9))
    world.change(u32(abi.RTA_OIF, world.indexes[0]), via)
    path = world.layer.path(0, FAR4)
    assert (path.next_hop, path.source) == (local6(9), ip4(1))
    (body,) = world.shown()
    assert parse_attributes(body[12:])[abi.RTA_VIA] == struct.pack("<H", AF_INET6) + local6(9)
    world.one.taken()
    world.layer.send_or_drop(0, _datagram(FAR4))
    (asked,) = world.one.taken()
    assert asked[12:14] == b"\x86\xdd" and asked[54] == 135
    link = world.one.link
    assert isinstance(link, EthernetLink)
    link.neighbours6.set_static(local6(9), hardware(9))
    frames = world.one.taken()
    assert [frame[:6] for frame in frames] == [hardware(9)] and frames[0][12:14] == b"\x08\0"


def _datagram(target: bytes) -> Outgoing:
    return Outgoing(target, 253, (b"x",))


@pytest.mark.parametrize(("kind", "error"), [
    (abi.RTN_BLACKHOLE, EINVAL), (abi.RTN_UNREACHABLE, EHOSTUNREACH), (abi.RTN_PROHIBIT, EACCES),
])  # fmt: skip
def test_way_that_leads_nowhere_says_so(world: World, kind: int, error: type[Errno]) -> None:
    world.change(by(world.indexes[0], ip4(9)))
    world.change(to=FAR4, kind=kind)
    world.change(to=FAR6, kind=kind, family=AF_INET6)
    for target in (FAR4, FAR6):
        with pytest.raises(error):
            world.layer.path(0, target)
        family = AF_INET if len(target) == 4 else AF_INET6
        head = abi.RTMSG.pack(family, len(target) * 8, 0, 0, 0, 0, 0, 0, 0)
        with pytest.raises(error):
            world.net.ask(RTM_GETROUTE, head + attribute(abi.RTA_DST, target))
    assert world.layer.path(0, b"\x08" * 4).next_hop == ip4(9)
    with pytest.raises(EINVAL):
        world.change(by(world.indexes[0]), to=ip4(77), kind=kind)
    world.change(to=FAR4, kind=kind, what=RTM_DELROUTE)
    assert world.layer.path(0, FAR4).next_hop == ip4(9)


def test_ipv6_routes_may_be_for_some_sources_alone(world: World) -> None:
    one, two = world.indexes
    world.change(by(one, local6(8)), family=AF_INET6)
    world.change(by(two, local6(9)), family=AF_INET6, source=ip6(5))
    for source, hop in ((ip6(5), local6(9)), (ip6(1), local6(8)), (b"", local6(8))):
        assert world.layer.path(0, FAR6, 0, RouteKey(source)).next_hop == hop
    found = [parse_attributes(body[12:]) for body in world.shown(family=AF_INET6)]
    assert [each.get(abi.RTA_SRC) for each in found] == [None, ip6(5)]
    assert all(each[abi.RTA_PRIORITY] == (1024).to_bytes(4, "little") for each in found)
    with pytest.raises(EINVAL):
        world.change(by(one), to=FAR4, source=ip4(5))


def test_the_way_that_is_told_is_that_of_the_packet(world: World) -> None:
    one, two = world.indexes
    world.change(hops((one, ip4(9), 1), (two, bytes((10, 0, 1, 9)), 1)))
    head = abi.RTMSG.pack(AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + attribute(abi.RTA_DST, FAR4)
    for source, index in ((ip4(1), one), (NEAR, two)):
        ((_, body),) = world.net.ask(RTM_GETROUTE, head + attribute(abi.RTA_SRC, source))
        found = parse_attributes(body[12:])
        assert found[abi.RTA_OIF] == index.to_bytes(4, "little")
        assert found[abi.RTA_SRC] == source and abi.RTA_PREFSRC not in found


def test_what_is_wrong_is_refused(world: World) -> None:
    one, two = world.indexes
    via = struct.pack("<H", AF_INET6) + local6(9)
    flagged = abi.RTNEXTHOP.pack(abi.RTNEXTHOP.size, abi.RTNH_F_DEAD, 0, one)
    for error, family, attributes in (
        (EINVAL, AF_INET, by(one, ip4(9)) + attribute(abi.RTA_VIA, via)),
        (EINVAL, AF_INET, u32(abi.RTA_OIF, one) + attribute(abi.RTA_VIA, via[:9])),
        (EINVAL, AF_INET, u32(abi.RTA_OIF, one) + attribute(abi.RTA_VIA, b"\x0a")),
        (EINVAL, AF_INET6, u32(abi.RTA_OIF, one) + attribute(abi.RTA_VIA, via)),
        (EINVAL, AF_INET, u32(abi.RTA_OIF, one) + attribute(abi.RTA_GATEWAY, b"x")),
        (ERANGE, AF_INET, attribute(abi.RTA_MULTIPATH, b"short")),
        (EINVAL, AF_INET, attribute(abi.RTA_MULTIPATH, flagged)),
        (EINVAL, AF_INET, attribute(abi.RTA_MULTIPATH, flagged[:2] + bytes(2) + bytes(5))),
        (EINVAL, AF_INET, u32(abi.RTA_NH_ID, 1)),
        (EOPNOTSUPP, AF_INET, by(one) + attribute(abi.RTA_ENCAP, b"")),
        (ENETUNREACH, AF_INET, hops((0, FAR4, 1), (two, b"", 1))),
        (ENOBUFS, AF_INET, hops(*[(one, b"", 1)] * (MAX_HOPS + 1))),
    ):  # fmt: skip
        with pytest.raises(error):
            world.change(attributes, family=family)
    world.net.turn("eth1", on=False)
    with pytest.raises(ENETDOWN):
        world.change(hops((one, b"", 1), (two, b"", 1)))


def test_one_of_several_next_hops_is_a_route_with_one(world: World) -> None:
    world.change(hops((world.indexes[0], ip4(9), 7)))
    (route,) = world.net.stack.routes.added
    assert (route.hops, route.index, route.gateway) == ((), world.indexes[0], ip4(9))


def test_route_is_deleted_by_what_is_said_of_it(world: World) -> None:
    one, two = world.indexes
    both = hops((one, ip4(9), 1), (two, b"", 1))
    world.change(both)
    for wrong in (hops((one, ip4(8), 1), (two, b"", 1)), u32(abi.RTA_TABLE, 9)):
        with pytest.raises(ESRCH):
            world.change(wrong, what=RTM_DELROUTE, kind=0)
    world.change(both, what=RTM_DELROUTE, kind=0)
    assert world.shown() == []


def test_next_hops_of_all_routes_have_a_ceiling(world: World) -> None:
    one = world.indexes[0]
    full = hops(*[(one, b"", 1)] * MAX_HOPS)
    with pytest.raises(ENOBUFS):
        for number in range(1000):
            world.change(full, to=b"\x08" + number.to_bytes(3))
    assert len(world.net.stack.routes.added) == 4096 // MAX_HOPS

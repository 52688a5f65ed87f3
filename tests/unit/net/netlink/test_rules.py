"""Rules of routing in netlink: what is taken, refused, told, and what packets make of it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sentry.abi import netlink as abi
from sentry.abi.netlink import RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_TCP
from sentry.errors import (
    EACCES,
    EAFNOSUPPORT,
    EEXIST,
    EINVAL,
    ENETUNREACH,
    ENOENT,
    EOPNOTSUPP,
    ERANGE,
    Errno,
)
from sentry.net.ip.layer import IpLayer
from sentry.net.ip.seam import Outgoing
from sentry.net.netlink.message import attribute, parse_attributes, text, u8, u32
from sentry.net.netlink.notices import rename
from sentry.net.routes import Route
from sentry.net.rules import RouteKey
from tests.unit.net.virtual.harness import NEW, Cable, Kernel, Net
from tests.unit.net.wired import ip4, ip6

FAR = b"\xc6\x33\x64\x09"
SIZE = abi.FIB_RULE_HDR.size
FIRST4 = [(0, 255), (32766, 254), (32767, 253)]
FIRST6 = FIRST4[:2]


class World:
    """Two interfaces, each with a router: in table main, and in table 100."""

    def __init__(self) -> None:
        self.net = Net(Kernel())
        self.cables = [Cable(self.net, f"eth{number}", number + 1) for number in range(2)]
        for name, own in (("eth0", ip4(1)), ("eth1", bytes((10, 0, 1, 1)))):
            self.net.turn(name)
            self.net.address(name, own, 24)
        one, two = (each.interface.index for each in self.cables)
        self.net.stack.routes.added = [
            Route(AF_INET, bytes(4), 0, one, gateway=ip4(9)),
            Route(AF_INET, bytes(4), 0, two, 100, gateway=bytes((10, 0, 1, 9))),
        ]
        self.net.stack.outdate()

    @property
    def layer(self) -> IpLayer:
        layer = self.net.stack.ip
        assert layer is not None
        return layer

    def change(
        self, *attributes: bytes, table: int = 100, source: tuple[bytes, int] = (b"", 0),
        action: int = abi.FR_ACT_TO_TBL, flags: int = 0, what: int = RTM_NEWRULE,
        family: int = AF_INET, asked: int = NEW, tos: int = 0,
    ) -> None:  # fmt: skip
        head = abi.FIB_RULE_HDR.pack(family, 0, source[1], tos, table, 0, 0, action, flags)
        more = attribute(abi.FRA_SRC, source[0]) if source[0] else b""
        self.net.ask(what, head + more + b"".join(attributes), asked)

    def shown(self, family: int = AF_INET) -> list[tuple[int, int]]:
        """(priority, table)."""
        found = []
        for body in self.net.dump(RTM_GETRULE, bytes([family]) + bytes(SIZE - 1)):
            own = parse_attributes(body[SIZE:])
            priority = int.from_bytes(own.get(abi.FRA_PRIORITY, b""), "little")
            found.append((priority, int.from_bytes(own[abi.FRA_TABLE], "little")))
        return found

    def goes_by(self, key: RouteKey) -> int:
        """The number of the interface."""
        return int(self.net.stack.interfaces.by_index(
            self.layer.path(0, FAR, 0, key).interface
        ).name[-1])  # fmt: skip


@pytest.fixture
def world() -> World:
    return World()


def test_first_ones_are_shown(world: World) -> None:
    assert world.shown() == FIRST4 and world.shown(AF_INET6) == FIRST6
    assert world.shown(0) == [*FIRST4, *FIRST6]
    with pytest.raises(EAFNOSUPPORT):
        world.shown(17)


def test_new_one_comes_before_all_others_and_after_those_of_its_priority(world: World) -> None:
    world.change()
    world.change(table=101)
    world.change(u32(abi.FRA_PRIORITY, 32765), table=102)
    assert world.shown() == [(0, 255), (32764, 101), (32765, 100), (32765, 102), *FIRST4[1:]]


def test_packets_go_by_source(world: World) -> None:
    world.change(source=(bytes((10, 0, 1, 0)), 24))
    assert world.goes_by(RouteKey()) == 0
    assert world.goes_by(RouteKey(bytes((10, 0, 1, 1)))) == 1
    world.layer.send(0, Outgoing(FAR, 253, (b"x",), bytes((10, 0, 1, 1))))
    assert world.cables[1].taken()[-1][12:14] == b"\x08\x06"
    world.change(source=(bytes((10, 0, 1, 0)), 24), what=RTM_DELRULE, table=0, action=0)
    assert world.goes_by(RouteKey(bytes((10, 0, 1, 1)))) == 0


def test_packets_go_by_mark_and_not_by_mark(world: World) -> None:
    world.change(u32(abi.FRA_FWMARK, 7), flags=abi.FIB_RULE_INVERT)
    assert world.goes_by(RouteKey(mark=7)) == 0 and world.goes_by(RouteKey()) == 1
    out = Outgoing(FAR, 253, (b"x",))
    out.mark = 7
    assert world.layer.send(0, out).interface == world.cables[0].interface.index


def test_default_route_of_main_can_be_left_out(world: World) -> None:
    world.change(u32(abi.FRA_PRIORITY, 11))
    world.change(u32(abi.FRA_SUPPRESS_PREFIXLEN, 0), u32(abi.FRA_PRIORITY, 10), table=254)
    assert world.goes_by(RouteKey()) == 1
    assert world.layer.path(0, ip4(77)).interface == world.cables[0].interface.index


def test_rule_may_say_that_there_is_no_way(world: World) -> None:
    ports = attribute(abi.FRA_DPORT_RANGE, struct.pack("<HH", 80, 90))
    world.change(ports, u8(abi.FRA_IP_PROTO, IPPROTO_TCP), table=0, action=abi.FR_ACT_PROHIBIT)
    segment = struct.pack(">HH", 5, 85) + bytes(16)
    with pytest.raises(EACCES):
        world.layer.send(0, Outgoing(FAR, IPPROTO_TCP, (segment,)))
    world.layer.send(0, Outgoing(FAR, IPPROTO_TCP, (segment[2:] + bytes(2),)))
    assert world.layer.path(0, FAR).next_hop == ip4(9)


def test_interfaces_are_known_by_their_names(world: World) -> None:
    world.change(text(abi.FRA_OIFNAME, "late"), u32(abi.FRA_GOTO, 99), u32(abi.FRA_PRIORITY, 9),
                 action=abi.FR_ACT_GOTO, table=0)  # fmt: skip
    (body,) = of_priority(world, 9)
    wanted = abi.FIB_RULE_OIF_DETACHED | abi.FIB_RULE_UNRESOLVED
    assert abi.FIB_RULE_HDR.unpack(body).flags == wanted
    Cable(world.net, "late", 7)
    world.change(u32(abi.FRA_PRIORITY, 99))
    (body,) = of_priority(world, 9)
    assert abi.FIB_RULE_HDR.unpack(body).flags == 0


def test_packets_go_by_the_name_that_an_interface_has_now(world: World) -> None:
    world.change(text(abi.FRA_IIFNAME, "eth1"))
    key = RouteKey(interface_in=world.cables[1].interface.index)
    assert world.goes_by(key) == 1
    rename(world.net.stack, world.net.link("eth1"), b"other1")
    assert world.goes_by(key) == 0


def of_priority(world: World, priority: int) -> list[bytes]:
    wanted = priority.to_bytes(4, "little")
    return [
        body for body in world.net.dump(RTM_GETRULE, bytes([AF_INET]) + bytes(SIZE - 1))
        if parse_attributes(body[SIZE:]).get(abi.FRA_PRIORITY) == wanted
    ]  # fmt: skip


def test_all_that_is_said_is_told_again(world: World) -> None:
    said = {
        abi.FRA_PRIORITY: struct.pack("<I", 77), abi.FRA_FWMARK: struct.pack("<I", 5),
        abi.FRA_FWMASK: struct.pack("<I", 0xFF), abi.FRA_IIFNAME: b"eth0\0",
        abi.FRA_OIFNAME: b"eth1\0", abi.FRA_UID_RANGE: struct.pack("<II", 1, 9),
        abi.FRA_IP_PROTO: b"\x06", abi.FRA_SPORT_RANGE: struct.pack("<HH", 1, 2),
        abi.FRA_DPORT_RANGE: struct.pack("<HH", 3, 4), abi.FRA_PROTOCOL: b"\x04",
        abi.FRA_SUPPRESS_PREFIXLEN: struct.pack("<I", 3), abi.FRA_TABLE: struct.pack("<I", 1000),
    }  # fmt: skip
    world.net.join(abi.RTNLGRP_IPV4_RULE)
    world.change(
        *(attribute(kind, value) for kind, value in said.items()), source=(ip4(1), 24), tos=0x10
    )
    (body,) = of_priority(world, 77)
    head = abi.FIB_RULE_HDR.unpack(body)
    assert (head.src_len, head.tos, head.table, head.action) == (24, 0x10, 252, 1)
    assert parse_attributes(body[SIZE:]) == {**said, abi.FRA_SRC: ip4(1)}
    assert world.net.told == [(RTM_NEWRULE, body)]
    world.change(u32(abi.FRA_PRIORITY, 77), table=0, action=0, what=RTM_DELRULE)
    assert world.net.told[1:] == [(RTM_DELRULE, body)]


def test_same_one_twice_is_refused_if_asked(world: World) -> None:
    five = u32(abi.FRA_PRIORITY, 5)
    world.change(five, source=(ip4(1), 32))
    with pytest.raises(EEXIST):
        world.change(five, source=(ip4(1), 32))
    world.change(five, source=(ip4(1), 32), asked=abi.NLM_F_CREATE)
    world.change(source=(ip4(1), 32))
    assert len(world.shown()) == 6


def test_table_that_nobody_has_is_found_for_who_names_none(world: World) -> None:
    world.change(table=0)
    assert world.shown()[1] == (32765, 1)


def test_of_rules_that_are_meant_the_first_one_goes(world: World) -> None:
    world.change(u32(abi.FRA_PRIORITY, 5))
    world.change(u32(abi.FRA_PRIORITY, 6))
    world.change(what=RTM_DELRULE, action=0)
    assert (6, 100) in world.shown() and (5, 100) not in world.shown()
    with pytest.raises(ENOENT):
        world.change(u32(abi.FRA_PRIORITY, 7), what=RTM_DELRULE, action=0)
    world.change(what=RTM_DELRULE, action=0)
    world.change(table=254, what=RTM_DELRULE, action=0)
    with pytest.raises(ENETUNREACH):
        world.layer.path(0, FAR)
    world.change(table=255, what=RTM_DELRULE, action=0)
    assert world.layer.is_local(ip4(1)) and (0, 255) not in world.shown()


@pytest.mark.parametrize(("error", "attributes", "head"), [
    (EAFNOSUPPORT, b"", {"family": 17}),
    (EINVAL, b"", {"source": (b"", 8)}),
    (EINVAL, b"", {"source": (ip4(1), 33)}),
    (EINVAL, b"", {"source": (ip6(1), 24)}),
    (EINVAL, b"", {"tos": 3}),
    (EINVAL, b"", {"action": 9}),
    (EINVAL, b"", {"action": abi.FR_ACT_GOTO}),
    (EINVAL, u32(abi.FRA_GOTO, 5) + u32(abi.FRA_PRIORITY, 5), {"action": abi.FR_ACT_GOTO}),
    (EINVAL, u32(abi.FRA_GOTO, 5), {}),
    (EINVAL, b"", {"family": AF_INET6, "table": 0}),
    (EINVAL, attribute(abi.FRA_PRIORITY, b"x"), {}),
    (EINVAL, attribute(abi.FRA_DPORT_RANGE, struct.pack("<HH", 9, 8)), {}),
    (EINVAL, attribute(abi.FRA_UID_RANGE, struct.pack("<II", 9, 8)), {}),
    (ERANGE, attribute(abi.FRA_DPORT_RANGE, b"x"), {}),
    (ERANGE, attribute(abi.FRA_UID_RANGE, b"x"), {}),
    (ERANGE, text(abi.FRA_IIFNAME, "x" * 16), {}),
    (EOPNOTSUPP, u8(abi.FRA_L3MDEV, 1), {}),
    (EOPNOTSUPP, u32(abi.FRA_SUPPRESS_IFGROUP, 0), {}),
    (EOPNOTSUPP, b"", {"flags": abi.FIB_RULE_FIND_SADDR}),
])  # fmt: skip
def test_what_is_wrong_is_refused(
    world: World, error: type[Errno], attributes: bytes, head: dict[str, Any]
) -> None:
    with pytest.raises(error):
        world.change(attributes, **head)

    assert world.shown(0) == [*FIRST4, *FIRST6]


def test_single_one_is_not_told(world: World) -> None:
    with pytest.raises(EOPNOTSUPP):
        world.net.ask(RTM_GETRULE, bytes(SIZE))

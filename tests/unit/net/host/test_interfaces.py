"""Lists of the network process, also such as no kernel would send, and what of them is told."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET
from sentry.net.host import interfaces
from sentry.net.host.interfaces import show
from sentry.net.interfaces import Address, Interface
from sentry.net.netlink.message import attribute, message, text, u8, u32
from sentry.net.netlink.notices import address_message, link_message
from sentry.net.netlink.route import route_message
from sentry.net.routes import Route
from sentry.net.stack import Stack
from sentry.wait.steps import at_once

LO = Interface(1, "lo")
ETH = Interface(7, "eth0", abi.ARPHRD_ETHER, abi.IFF_UP)
HERE = Address(AF_INET, bytes((10, 0, 0, 2)), 24, label="eth0")
ROUTE = Route(AF_INET, bytes(4), 0, 7, origin=abi.RTPROT_BOOT, gateway=bytes((10, 0, 0, 1)))


class Member:
    """A netlink socket in all groups, which keeps the types of what it hears."""

    groups = range(1, abi.RTNLGRP_MAX + 1)
    port = 1

    def __init__(self) -> None:
        self.heard: list[int] = []

    def deliver(self, data: bytes, *_: Any) -> bool:
        self.heard.append(abi.NLMSGHDR.unpack(data[: abi.NLMSGHDR.size]).nlmsg_type)
        return True


def packed(*replies: tuple[int, bytes]) -> list[bytes]:
    return [b"".join(message(kind, 0, 1, 0, body) for kind, body in replies)]


def links(*found: Interface) -> list[tuple[int, bytes]]:
    return [link_message(link) for link in found]


EVERYTHING = packed(*links(LO, ETH), address_message(ETH, HERE), route_message(ROUTE))


@pytest.fixture
def stack() -> Stack:
    made = Stack(None, {})
    made.host = object()  # type: ignore[assignment]
    made.netlink[abi.NETLINK_ROUTE, 1] = Member()  # type: ignore[assignment]
    return made


def told(stack: Stack, parts: list[bytes], links_only: bool = False) -> list[int]:
    """What a list makes members hear."""
    member: Any = stack.netlink[abi.NETLINK_ROUTE, 1]
    member.heard.clear()
    at_once(show(stack, parts, links_only=links_only))
    return [kind for kind in member.heard if kind != abi.RTM_DELADDR]


def test_list_is_shown_and_told_once(stack: Stack) -> None:
    first = told(stack, EVERYTHING)

    assert [link.name for link in stack.interfaces] == ["lo", "eth0"]
    assert [own.ip for own in stack.interfaces.by_index(7).addresses] == [HERE.ip]
    assert stack.routes.added == [ROUTE]
    assert {abi.RTM_NEWLINK, abi.RTM_NEWADDR, abi.RTM_NEWROUTE} == set(first)
    assert told(stack, EVERYTHING) == []


def test_list_of_links_alone_leaves_addresses_and_routes(stack: Stack) -> None:
    told(stack, EVERYTHING)
    counted = Interface(7, "eth0", abi.ARPHRD_ETHER, abi.IFF_UP, received=[3, 300])

    assert told(stack, packed(*links(LO, counted)), links_only=True) == []

    link = stack.interfaces.by_index(7)
    assert (link.received, len(link.addresses), len(stack.routes.added)) == ([3, 300], 1, 1)


def test_what_is_gone_is_told_but_the_loopback_stays(stack: Stack) -> None:
    told(stack, EVERYTHING)

    assert told(stack, []) == [abi.RTM_DELROUTE, abi.RTM_DELLINK]
    assert [link.name for link in stack.interfaces] == ["lo"]


def test_numbers_of_interfaces_and_addresses_have_ceilings(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_INTERFACES", "MAX_ADDRESSES", "MAX_ROUTES"):
        monkeypatch.setattr(interfaces, name, 3)
    many = [Interface(1 << n, f"v{n}") for n in range(9)]
    addresses = [Address(AF_INET, bytes((10, 0, 0, n)), 24) for n in range(9)]
    routes = [Route(AF_INET, bytes((n, 0, 0, 0)), 8, 1, origin=3) for n in range(9)]

    told(stack, packed(*links(*many), *(address_message(LO, own) for own in addresses),
                       *map(route_message, routes)))  # fmt: skip

    assert len(list(stack.interfaces)) == 3
    assert len(stack.interfaces.loopback.addresses) == 3
    assert len(stack.routes.added) == 3


def test_bytes_that_are_no_list_are_left_out(stack: Stack) -> None:
    chance = random.Random(18)
    for _ in range(500):
        data = bytearray(EVERYTHING[0])
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        told(stack, [bytes(data[: chance.randrange(len(data))])])
    short = abi.IFINFOMSG.pack(0, 0, 1, 5, 0, 0) + text(abi.IFLA_IFNAME, "x") + u8(abi.IFLA_MTU, 1)
    told(stack, packed((abi.RTM_NEWLINK, short)))

    told(stack, EVERYTHING)

    assert [link.name for link in stack.interfaces] == ["lo", "eth0"]


def test_messages_that_no_kernel_sends_make_nothing_that_others_stumble_over(
    stack: Stack,
) -> None:
    """Addresses of another size, kinds of routes that nobody knows, attributes without a value."""
    own = abi.IFADDRMSG.pack(AF_INET, 24, 0, 0, 7) + attribute(abi.IFA_LOCAL, HERE.ip)
    way = abi.RTMSG.pack(AF_INET, 0, 0, 0, abi.RT_TABLE_MAIN, 3, 0, abi.RTN_UNICAST, 0)
    odd = abi.RTMSG.pack(AF_INET, 0, 0, 0, abi.RT_TABLE_MAIN, 3, 0, 77, 0)
    by = u32(abi.RTA_OIF, 7)
    told(
        stack,
        packed(
            *links(LO, ETH), (abi.RTM_NEWADDR, own + attribute(abi.IFA_PROTO, b"")),
            (abi.RTM_NEWROUTE, way + by + attribute(abi.RTA_PREFSRC, b"abc")),
            (abi.RTM_NEWROUTE, odd + by), (abi.RTM_NEWROUTE, way + by),
        ),
    )  # fmt: skip

    assert [each.origin for each in stack.interfaces.by_index(7).addresses] == [0]
    assert [(each.kind, each.source) for each in stack.routes.added] == [(abi.RTN_UNICAST, b"")]


def test_what_was_written_of_an_interface_goes_with_it_and_not_with_its_name(stack: Stack) -> None:
    def eth(index: int, name: str) -> Interface:
        return Interface(index, name, abi.ARPHRD_ETHER, abi.IFF_UP)

    def setting(name: str) -> str | None:
        return stack.sysctls.get(f"net/ipv4/conf/{name}/forwarding")

    told(stack, packed(*links(LO, eth(7, "eth0"), eth(8, "eth1"))))
    for name, value in (("eth0", "1"), ("eth1", "2")):
        stack.sysctls[f"net/ipv4/conf/{name}/forwarding"] = value
    told(stack, packed(*links(LO, eth(7, "eth1"), eth(8, "eth0"))))
    assert (setting("eth0"), setting("eth1")) == ("2", "1")
    told(stack, packed(*links(LO, eth(7, "eth1"))))
    told(stack, packed(*links(LO, eth(7, "eth1"), eth(9, "eth0"))))
    assert (setting("eth0"), setting("eth1")) == (None, "1")


def test_interface_that_a_program_has_made_stays_where_the_host_has_one_of_its_number(
    stack: Stack,
) -> None:
    own = Interface(7, "tun0", abi.ARPHRD_NONE, abi.IFF_UP)
    own.driver = object()  # type: ignore[assignment]
    stack.interfaces.insert(own)
    told(stack, EVERYTHING)
    assert stack.interfaces.by_index(7) is own

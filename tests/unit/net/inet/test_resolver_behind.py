"""Questions of those behind a router in the sandbox, where there is a policy."""

from __future__ import annotations

import struct

import dns.message
import pytest
from dns.rcode import NXDOMAIN

from sentry.abi.netlink import ARPHRD_NONE, IFF_LOWER_UP, IFF_RUNNING, IFF_UP
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.net.inet.address import mapped
from sentry.net.inet.egress import Egress
from sentry.net.interfaces import Address, Interface
from sentry.net.ip import ipv4
from sentry.net.link.link import PointLink
from tests.unit.net.inet.test_resolver import V4, V6, Asking
from tests.unit.net.names.wires import lines, query
from tests.unit.net.netfilter.router import ends, udp
from tests.unit.net.wired import hardware, ip4

MADE = 3
NET4, NET6 = bytes((10, 0, 1)), b"\xfd\0\0\1" + bytes(11)
INNER4, INNER6 = NET4 + b"\2", NET6 + b"\2"
FOUND = bytes((192, 0, 2, 1))
POLICY = '[[rule]]\naction = "allow"\nnames = ["a.org"]'


class Behind(Asking):
    """A router between its own link and one that programs have made."""

    def __init__(self) -> None:
        super().__init__()
        self.interface_made = Interface(
            MADE, "made", ARPHRD_NONE, IFF_UP | IFF_RUNNING | IFF_LOWER_UP, 1500, b""
        )
        self.interface_made.addresses = [
            Address(AF_INET, NET4 + b"\1", 24, 0), Address(AF_INET6, NET6 + b"\1", 64, 0),
        ]  # fmt: skip
        self.interfaces.insert(self.interface_made)
        for family in ("ipv4", "ipv6"):
            self.sysctls[f"net/{family}/conf/all/forwarding"] = "1"
        self.made = self.layer.links[MADE] = PointLink(MADE, b"", self.layer)
        self.made.stays_inside = True
        self.refresh()
        self.egress = Egress(self.stack, self.resolver, self.caller.kernel.loop, POLICY, ())

    def says(self, packet: bytes) -> None:
        """Somebody behind it does."""
        self.made.received(0, bytes(10) + packet)

    def heard(self) -> list[bytes]:
        """What has come back."""
        return [frame[10:] for frame in self.made.take_outgoing(100, 1 << 20)]

    @property
    def log(self) -> list[tuple[str, ...]]:
        """Names that were denied."""
        return [each.names for each in self.egress.flows.denials.since(0)]


@pytest.fixture
def host() -> Behind:
    return Behind()


@pytest.mark.parametrize(("inner", "server", "head"), [(INNER4, V4, 28), (INNER6, V6, 48)])
def test_question_is_answered_as_by_the_nameserver(
    host: Behind, inner: bytes, server: bytes, head: int
) -> None:
    host.says(udp(inner, server, (4000, 53), query("a.org.")))
    assert len(host.asked.asks) == 1
    host.serve("a.org. 60 IN A 192.0.2.1")
    (packet,) = host.heard()
    assert ends(packet) == (server, 53, inner, 4000)
    assert lines(packet[head:]) == ["a.org. 60 IN A 192.0.2.1"]
    assert host.resolver.forwarder.given.names_of(mapped(FOUND), 0) == ("a.org",)
    assert not host.frames() and not host.log


def test_name_that_nobody_may_ask_for_is_refused_and_in_the_log(host: Behind) -> None:
    host.says(udp(INNER4, V4, (4000, 53), query("b.org.")))
    (packet,) = host.heard()
    assert dns.message.from_wire(packet[28:]).rcode() == NXDOMAIN
    assert not host.asked.asks and not host.frames() and host.log == [("b.org",)]


def test_what_is_no_question_is_judged_as_what_it_is(host: Behind) -> None:
    whole = udp(INNER4, V4, (4000, 53), query("a.org."))
    cut = whole[:24] + struct.pack(">H", 500) + whole[26:]
    for packet in (
        cut,
        udp(INNER4, ip4(8), (4000, 53), query("a.org.")),
        udp(INNER4, V4, (4000, 54), query("a.org.")),
    ):
        host.says(packet)
        assert len(host.heard()) == 1  # ICMP says that it may not
    assert not host.asked.asks and not host.frames() and len(host.log) == 3


def test_those_outside_have_no_resolver_here(host: Behind) -> None:
    question = udp(ip4(7), V4, (4000, 53), query("a.org."))
    host.hear(hardware(1) + hardware(7) + b"\x08\0" + question)
    assert not host.asked.asks and not host.heard()


def test_large_answer_comes_in_fragments(host: Behind) -> None:
    host.says(udp(INNER4, V4, (4000, 53), query("a.org.", use_edns=0, payload=4096)))
    host.serve(*[f"a.org. 60 IN A 192.0.2.{number}" for number in range(1, 151)])
    first, second = map(ipv4.parse, host.heard())
    assert first is not None and second is not None
    assert first.fragment == ipv4.MORE_FRAGMENTS and second.fragment * 8 == first.total - 20


@pytest.mark.parametrize("leads_outside", [False, True])
def test_answer_goes_to_nobody_outside(host: Behind, leads_outside: bool) -> None:
    host.says(udp(INNER4, V4, (4000, 53), query("a.org.")))
    host.interface_made.addresses.clear()
    if leads_outside:
        host.route_all(ip4(2))
    host.refresh()
    host.serve("a.org. 60 IN A 192.0.2.1")
    assert not host.heard() and not host.frames()

"""What leaves by a link and what comes: packets, at the gate."""

from __future__ import annotations

import random
import struct

import pytest

from sentry.errors import ECONNREFUSED, EPERM, Errno
from sentry.net.egress.flows import IDLE_NS, OPENING_NS, TCP, UDP, Flows, Key
from sentry.net.egress.gate import ALIEN, Gate
from sentry.net.egress.policy import Policy
from sentry.net.egress.rules import parse
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.seam import Arrived, Outgoing
from sentry.net.names.given import Given
from tests.unit.net.egress.sandbox import CURL, GIT, ip

OURS, GOOD, EVIL = bytes((10, 88, 0, 2)), bytes((198, 51, 100, 1)), bytes((198, 51, 100, 66))
OURS6, GOOD6 = ip("2001:db8::2"), ip("2001:db8:1::1")
SYN, ACK, RST = 2, 16, 4
POLICY = """
[[rule]]
action = "allow"
cidrs = ["198.51.100.1", "2001:db8:1::1"]
ports = [443]
limits = { bytes_out = 1000, bytes_in = 1000 }
[[rule]]
action = "allow"
cidrs = ["198.51.100.1"]
protocols = ["icmp", 47]
[[rule]]
action = "allow"
cidrs = ["198.51.100.1"]
ports = [9418]
programs = ["/usr/bin/git"]
limits = { rate_out = 1000, rate_in = 1000, burst = 100 }
"""
NS = 1_000_000_000


class Wire:
    """A gate, and packets."""

    def __init__(self, policy: str = POLICY) -> None:
        self.flows = Flows(Policy(parse(policy, "f")), Given())
        self.was_reset: list[Key] = []
        self.gate = Gate(self.flows, self.was_reset.append)
        self.now_ns = 3600 * NS

    def goes(self, protocol: int, target: bytes, data: bytes, sender: object = CURL) -> bool:
        """False: it is lost."""
        out = Outgoing(target, protocol, (data,), sender=sender)
        return self.gate.leaving(self.now_ns, out, OURS6 if len(target) == 16 else OURS)

    def is_denied(self, protocol: int, target: bytes, data: bytes, sender: object = CURL) -> bool:
        try:
            self.goes(protocol, target, data, sender)
        except ECONNREFUSED:
            return True
        return False

    def comes(self, protocol: int, source: bytes, data: bytes) -> bool:
        ours = OURS6 if len(source) == 16 else OURS
        packet = Arrived(protocol, source, ours, memoryview(data), 0, 64, 2, b"")
        return self.gate.arriving(self.now_ns, packet)


def tcp(flags: int, port: int = 443, data: bytes = b"", source: int = 40000) -> bytes:
    return struct.pack(">HHIIBBHHH", source, port, 0, 0, 0x50, flags, 0, 0, 0) + data


def udp(port: int, data: bytes = b"", source: int = 40000) -> bytes:
    return struct.pack(">HHHH", source, port, 8 + len(data), 0) + data


def packet4(protocol: int, target: bytes, data: bytes, fragment: int = 0, ident: int = 0) -> bytes:
    total = 20 + len(data)
    header = ipv4.Header(20, total, 0, ident, fragment, 64, protocol, OURS, target)
    return ipv4.build(header) + data


def frame4(*args: object, **more: object) -> bytes:
    return bytes(12) + b"\x08\x00" + packet4(*args, **more)  # type: ignore[arg-type]


def frame6(following: int, data: bytes) -> bytes:
    header = ipv6.Header(0, 0, len(data), following, 64, OURS6, GOOD6)
    return bytes(12) + b"\x86\xdd" + ipv6.build(header) + data


def test_flow_that_is_allowed_goes_both_ways_and_another_nowhere() -> None:
    wire = Wire()
    assert not wire.comes(TCP, GOOD, tcp(SYN | ACK, 40000, source=443))
    assert wire.goes(TCP, GOOD, tcp(SYN))
    assert wire.comes(TCP, GOOD, tcp(SYN | ACK, 40000, source=443))
    assert wire.is_denied(TCP, GOOD, tcp(SYN, 444))
    assert wire.is_denied(TCP, EVIL, tcp(SYN))
    assert wire.is_denied(UDP, EVIL, udp(443))
    assert wire.is_denied(47, EVIL, b"")
    assert wire.goes(47, GOOD, b"x")
    assert [each.reason for each in wire.flows.denials.since(0)] == ["the default"] * 4


def test_errno_is_as_the_policy_says() -> None:
    wire = Wire('denial = "EPERM"')
    with pytest.raises(EPERM):
        wire.goes(UDP, GOOD, udp(443))
    with pytest.raises(EPERM):
        wire.gate.check(wire.now_ns, TCP, (OURS, GOOD), 443, CURL)


def test_connect_hears_early_what_its_first_packet_would() -> None:
    wire = Wire()
    assert wire.gate.check(wire.now_ns, TCP, (OURS, GOOD), 443, CURL) is CURL
    assert wire.gate.check(wire.now_ns, TCP, (OURS, GOOD), 9418, GIT) is GIT
    with pytest.raises(ECONNREFUSED):
        wire.gate.check(wire.now_ns, TCP, (OURS, GOOD), 9418, CURL)
    assert not len(wire.flows)


def test_segment_behind_the_end_of_a_connection_begins_nothing() -> None:
    wire = Wire()
    for flags in (ACK, RST, SYN | ACK, 0, SYN | RST):
        assert not wire.comes(TCP, EVIL, tcp(flags, 22))
    assert wire.comes(TCP, EVIL, tcp(SYN, 22))
    assert wire.comes(TCP, EVIL, tcp(ACK, 22))


def test_flow_from_outside_is_answered_but_a_connection_of_our_own_is_judged() -> None:
    wire = Wire()
    assert wire.comes(TCP, EVIL, tcp(SYN, 22))
    assert wire.goes(TCP, EVIL, tcp(SYN | ACK, 40000, source=22))
    assert wire.is_denied(TCP, EVIL, tcp(SYN, 40000, source=22))
    assert wire.is_denied(TCP, EVIL, tcp(ACK, 40000, source=22))  # and the other one is over


def test_no_packet_goes_where_a_broker_leads() -> None:
    broker = '[[rule]]\naction = "allow"\ncidrs = ["198.51.100.1"]\nports = [443]\nbroker = "/b"\n'
    wire = Wire(broker + '[[rule]]\naction = "allow"\n')
    key = Key(TCP, ip("10.88.0.2"), 40000, ip("198.51.100.1"), 443)
    flow = wire.flows.hand_on(key, CURL, "/b", wire.now_ns)
    assert flow.open and wire.goes(UDP, GOOD, udp(80))
    for flags in (SYN, ACK, RST):
        assert wire.is_denied(TCP, GOOD, tcp(flags))
    assert wire.is_denied(UDP, GOOD, udp(443))
    with pytest.raises(ECONNREFUSED):
        wire.gate.frame(wire.now_ns, frame4(TCP, GOOD, tcp(ACK)), CURL)
    with pytest.raises(ECONNREFUSED):
        wire.gate.check(wire.now_ns, TCP, (OURS, GOOD), 443, CURL)
    assert not wire.comes(TCP, GOOD, tcp(ACK, 40000, source=443))
    assert flow.open


def test_no_flow_from_outside_where_none_is_let_in() -> None:
    wire = Wire('inbound = "deny"')
    assert not wire.comes(TCP, EVIL, tcp(SYN, 22)) and not wire.comes(UDP, EVIL, udp(53))
    assert wire.comes(58, GOOD6, bytes((135, 0)) + bytes(22))  # neighbours are the link's own
    assert wire.comes(2, EVIL, bytes(8))


def test_reset_of_the_stack_goes_and_ends_its_flow() -> None:
    wire = Wire()
    assert wire.comes(TCP, EVIL, tcp(SYN, 22))
    out = Outgoing(EVIL, TCP, (tcp(RST, 40000, source=22),), by_itself=True)
    assert len(wire.flows) == 1 and wire.gate.leaving(wire.now_ns, out, OURS)
    assert not len(wire.flows)
    assert wire.is_denied(TCP, EVIL, tcp(RST, 40000, source=22))  # one that a program has made


def test_reset_of_no_flow_goes_to_nobody() -> None:
    wire = Wire()
    reset = Outgoing(EVIL, TCP, (tcp(RST, 40000, source=22),), by_itself=True)
    assert not wire.gate.leaving(wire.now_ns, reset, OURS)
    assert not wire.gate.leaving(wire.now_ns, Outgoing(EVIL, TCP, (b"",), by_itself=True), OURS)
    asked = Outgoing(GOOD6, 58, (bytes((135, 0)) + bytes(22),), by_itself=True)
    assert wire.gate.leaving(wire.now_ns, asked, OURS6)  # neighbours are the stack's to ask


def test_flow_begins_from_an_address_of_ours_alone() -> None:
    wire = Wire()
    wire.gate = Gate(wire.flows, wire.was_reset.append, lambda ip: ip == OURS)
    assert wire.goes(TCP, GOOD, tcp(SYN))
    assert wire.is_denied(TCP, GOOD6, tcp(SYN))
    assert wire.comes(TCP, EVIL, tcp(SYN, 22))
    wire.gate = Gate(wire.flows, wire.was_reset.append, lambda ip: False)
    assert wire.goes(TCP, GOOD, tcp(ACK)) and wire.goes(TCP, EVIL, tcp(ACK, 40000, source=22))
    assert [each.reason for each in wire.flows.denials.since(0)] == [ALIEN]


def test_connection_that_never_opened_is_forgotten_soon() -> None:
    wire = Wire()
    wire.comes(TCP, EVIL, tcp(SYN, 22))
    wire.goes(TCP, GOOD, tcp(SYN))
    wire.comes(TCP, GOOD, tcp(SYN | ACK, 40000, source=443))
    wire.goes(TCP, GOOD, tcp(ACK))
    wire.now_ns += OPENING_NS + 1
    assert wire.is_denied(TCP, EVIL, tcp(SYN | ACK, 40000, source=22))
    wire.now_ns += IDLE_NS[TCP] - OPENING_NS - 1
    assert wire.comes(TCP, GOOD, tcp(ACK, 40000, source=443))


def test_error_goes_and_comes_with_the_flow_that_it_is_about() -> None:
    wire = Wire()
    quoted = packet4(UDP, GOOD, udp(443))
    assert not wire.comes(1, EVIL, bytes((11, 0)) + bytes(6) + quoted)
    assert wire.goes(UDP, GOOD, udp(443))
    assert wire.comes(1, EVIL, bytes((11, 0)) + bytes(6) + quoted)
    assert wire.is_denied(1, EVIL, bytes((3, 3)) + bytes(6) + packet4(UDP, EVIL, udp(9)))
    assert wire.comes(UDP, EVIL, udp(22))
    theirs = ipv4.Header(20, 28, 0, 0, 0, 64, UDP, EVIL, OURS)
    refusal = bytes((3, 3)) + bytes(6) + ipv4.build(theirs) + udp(22)
    assert wire.goes(1, EVIL, refusal)


def test_error_about_an_allowed_flow_goes_to_its_other_end_alone() -> None:
    wire = Wire()
    assert wire.goes(UDP, GOOD, udp(443))
    message = bytes((3, 3)) + bytes(6) + packet4(UDP, GOOD, udp(443)) + b"a secret"
    assert wire.is_denied(1, EVIL, message)
    assert not frame_goes(wire, frame4(1, EVIL, message))
    assert not frame_goes(wire, frame4(1, EVIL, message, fragment=ipv4.MORE_FRAGMENTS))
    assert wire.goes(1, GOOD, message)


def test_quota_that_is_used_up_ends_the_flow() -> None:
    wire = Wire()
    assert wire.goes(TCP, GOOD, tcp(SYN))
    assert wire.is_denied(TCP, GOOD, tcp(ACK, data=bytes(1000)))
    assert [key.target_port for key in wire.was_reset] == [443] and not len(wire.flows)
    assert wire.goes(UDP, GOOD, udp(443))
    assert not wire.comes(UDP, GOOD, udp(40000, bytes(1000), source=443))
    assert len(wire.was_reset) == 2


def test_what_is_faster_than_its_rate_is_lost_on_the_way() -> None:
    wire = Wire()
    assert wire.goes(TCP, GOOD, tcp(SYN, 9418), GIT)
    sent = [wire.goes(TCP, GOOD, tcp(ACK, 9418, bytes(100)), GIT) for _ in range(5)]
    assert sent[0] and not sent[-1] and not wire.was_reset
    wire.now_ns += NS
    assert wire.goes(TCP, GOOD, tcp(ACK, 9418, bytes(100)), GIT)


def test_flow_that_a_new_policy_denies_goes_nowhere_and_is_reset() -> None:
    wire = Wire()
    assert wire.goes(TCP, GOOD, tcp(SYN))
    wire.flows.change(Policy(parse("", "f")))
    assert not wire.comes(TCP, GOOD, tcp(SYN | ACK, 40000, source=443))
    assert wire.is_denied(TCP, GOOD, tcp(ACK))
    assert wire.was_reset


def test_header_that_is_cut_is_denied() -> None:
    wire = Wire()
    assert wire.is_denied(TCP, GOOD, tcp(SYN)[:13]) and wire.is_denied(UDP, GOOD, udp(443)[:3])
    assert not wire.comes(TCP, GOOD, tcp(SYN)[:13]) and not wire.comes(UDP, GOOD, b"")
    assert not wire.comes(1, GOOD, b"") and wire.is_denied(58, GOOD6, b"\x80")


@pytest.mark.parametrize("protocol", [0, 43, 44, 60])
def test_extension_header_that_a_raw_socket_sends_is_denied(protocol: int) -> None:
    wire = Wire('[[rule]]\naction = "allow"\ncidrs = ["2001:db8:1::1", "198.51.100.1"]')
    assert wire.goes(47, GOOD6, bytes(8))
    assert wire.is_denied(protocol, GOOD6, bytes(16)) and wire.is_denied(protocol, GOOD, bytes(16))


# --- frames that programs make


def frame_goes(wire: Wire, frame: bytes) -> bool:
    try:
        return wire.gate.frame(wire.now_ns, frame, CURL) is not None
    except Errno:
        return False


def test_frame_is_judged_by_its_packet_and_loses_its_link_header() -> None:
    wire = Wire()
    inside = packet4(UDP, GOOD, udp(443))
    made = wire.gate.frame(wire.now_ns, bytes(12) + b"\x08\x00" + inside + b"behind it", CURL)
    assert made is not None and made.pieces == (inside,) and made.is_v4
    assert not frame_goes(wire, frame4(UDP, EVIL, udp(443)))
    assert not frame_goes(wire, frame4(UDP, GOOD, udp(444)))
    assert frame_goes(wire, frame6(UDP, udp(443))) and not frame_goes(wire, frame6(UDP, udp(444)))


@pytest.mark.parametrize("frame", [
    bytes(12) + b"\x08\x06" + bytes(28),
    bytes(12) + b"\x81\x00\0\0\x08\0" + packet4(UDP, GOOD, udp(443)),
    bytes(12) + b"\x08\0" + packet4(UDP, GOOD, udp(443))[:-1],
    bytes(12) + b"\x08\0" + b"\x46" + packet4(UDP, GOOD, udp(443))[1:],
    frame6(43, bytes((17, 0, 0, 0, 0, 0, 0, 0)) + udp(443)),  # a routing header
    frame6(0, bytes((17, 200)) + bytes(6) + udp(443)),
    frame6(0, bytes((60, 0)) + bytes(6) + bytes((43, 0)) + bytes(6) + udp(443)),
    frame6(60, (bytes((60, 0)) + bytes(6)) * 12 + udp(443)),
    frame6(44, bytes((44, 0, 0, 0, 0, 0, 0, 0)) + bytes((17, 0)) + bytes(6) + udp(443)),
    frame6(UDP, udp(443))[:-1],
], ids=lambda frame: frame[12:40].hex())  # fmt: skip
def test_frame_whose_flow_cannot_be_told_is_denied(frame: bytes) -> None:
    wire = Wire()
    assert not frame_goes(wire, frame)
    assert len(wire.flows.denials.since(0)) == 1


def test_extension_headers_that_lead_nowhere_else_are_passed_over() -> None:
    hop_by_hop, options = bytes((60, 0)) + bytes(6), bytes((17, 0)) + bytes(6)
    assert frame_goes(Wire(), frame6(0, hop_by_hop + options + udp(443)))


def test_fragment_follows_the_first_one() -> None:
    wire, more = Wire(), ipv4.MORE_FRAGMENTS
    assert not frame_goes(wire, frame4(UDP, GOOD, bytes(8), fragment=2, ident=9))
    assert frame_goes(wire, frame4(UDP, GOOD, udp(443, bytes(8)), fragment=more, ident=9))
    assert frame_goes(wire, frame4(UDP, GOOD, bytes(8), fragment=2, ident=9))
    assert not frame_goes(wire, frame4(UDP, GOOD, bytes(8), fragment=2, ident=8))
    assert not frame_goes(wire, frame4(UDP, EVIL, bytes(8), fragment=2, ident=9))
    assert not frame_goes(wire, frame4(UDP, GOOD, udp(444, bytes(8)), fragment=more, ident=7))
    assert not frame_goes(wire, frame4(TCP, GOOD, tcp(SYN)[:16], fragment=more, ident=6))
    cut = bytes((17, 0)) + (0 | 1).to_bytes(2) + bytes(4)
    rest = bytes((17, 0)) + (16).to_bytes(2) + bytes(4)
    assert frame_goes(wire, frame6(44, cut + udp(443, bytes(8))))
    assert frame_goes(wire, frame6(44, rest + bytes(8)))


def test_no_bytes_raise_anything_but_an_errno() -> None:
    wire, chance = Wire(), random.Random(7)
    seeds = [
        frame4(UDP, GOOD, udp(443)), frame4(TCP, GOOD, tcp(SYN)), frame6(UDP, udp(443)),
        frame6(44, bytes((17, 0, 0, 1)) + bytes(4) + udp(443)), frame4(1, GOOD, bytes(28)),
    ]  # fmt: skip
    for _ in range(3000):
        frame = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            frame[chance.randrange(12, len(frame))] = chance.randrange(256)
        frame = frame[: chance.randrange(14, len(frame) + 1)]
        frame_goes(wire, bytes(frame))
        protocol, data = chance.choice((1, 6, 17, 47, 58)), bytes(frame[14:])
        wire.is_denied(protocol, GOOD6 if protocol == 58 else GOOD, data)
        wire.comes(protocol, GOOD6 if protocol == 58 else GOOD, data)

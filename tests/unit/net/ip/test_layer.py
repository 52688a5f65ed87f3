"""Two hosts on a wire: what goes in at one comes out at the other, or an error comes back."""

from __future__ import annotations

import pytest

from sentry.abi import socket as abi
from sentry.abi.netlink import IFF_UP, NUD_FAILED, NUD_REACHABLE
from sentry.abi.socket import AF_INET
from sentry.errors import ECONNREFUSED, EHOSTUNREACH, EINVAL, EMSGSIZE, ENETUNREACH
from sentry.net.egress.flows import Flows
from sentry.net.egress.gate import Gate
from sentry.net.egress.policy import Policy
from sentry.net.egress.rules import parse
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.output import send_frame
from sentry.net.ip.seam import Outgoing
from sentry.net.link.vnet import Offload
from sentry.net.names.given import Given
from sentry.net.routes import Route
from tests.unit.net.wired import INDEX, MTU, SECOND_NS, Host, Wire, hardware, ip4, ip6, local6

TEST = 253
"""RFC 3692: a protocol for experiments."""
EVERYBODY = '[[rule]]\naction = "allow"\ncidrs = ["10.0.0.0/24", "fd00::/64"]'
BOTH = pytest.mark.parametrize("ip", [ip4, ip6], ids=["ipv4", "ipv6"])


@pytest.fixture
def wire() -> Wire:
    return Wire(Host(1), Host(2))


@BOTH
def test_packet_to_a_neighbour_arrives_after_its_address_is_asked_for(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    kept = two.keep(TEST)
    one.layer.send(0, Outgoing(ip(2), TEST, (b"hello", b" there"), tos=8, ttl=9))
    assert not kept.packets
    wire.settle()
    (packet,) = kept.packets
    assert bytes(packet.payload) == b"hello there"
    assert (packet.source, packet.target) == (ip(1), ip(2))
    assert (packet.tos, packet.ttl, packet.index, packet.is_group) == (8, 9, INDEX, False)
    assert len(wire.seen) == 3  # question, answer, packet: who was asked knows who asks
    known = one.link.neighbours4 if len(ip(1)) == 4 else one.link.neighbours6
    assert known.get(ip(2)).state == NUD_REACHABLE  # type: ignore[union-attr]
    two.layer.send(0, Outgoing(ip(1), TEST, (b"x",)))
    assert len(two.frames()) == 1


@BOTH
def test_packet_larger_than_the_mtu_is_fragmented_and_put_together(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    kept = two.keep(TEST)
    data = bytes(range(256)) * 234 + b"end"
    one.layer.send(0, Outgoing(ip(2), TEST, (data[:1001], data[1001:])))
    wire.settle()
    (packet,) = kept.packets
    assert bytes(packet.payload) == data
    assert MTU + 6 < max(map(len, wire.seen)) <= MTU + 14


@BOTH
def test_checksum_left_to_the_link_is_filled_in_before_a_packet_is_cut(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    kept = two.keep(abi.IPPROTO_UDP)
    size = 3001
    pseudo = pseudo_sum(ip(1), ip(2), abi.IPPROTO_UDP, size)
    head = b"\0\1\0\2" + size.to_bytes(2) + pseudo.to_bytes(2)
    out = Outgoing(ip(2), abi.IPPROTO_UDP, (head, bytes(size - 8)), offload=Offload(0, 6))
    one.layer.send(0, out)
    wire.settle()
    assert not kept.packets[0].checksum_is_good
    assert checksum(kept.packets[0].payload, pseudo) == 0


@BOTH
def test_nobody_who_speaks_the_protocol_is_told_to_the_sender(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, _ = wire.hosts
    sent = one.keep(TEST)
    one.layer.send(0, Outgoing(ip(2), TEST, (b"12345678",)))
    wire.settle()
    (failure,) = sent.failures
    kind, code = (3, 2) if len(ip(1)) == 4 else (4, 1)
    assert (failure.kind, failure.code, failure.offender) == (kind, code, ip(2))
    assert (failure.source, failure.target, failure.quoted) == (ip(1), ip(2), b"12345678")
    assert failure.is_fatal and failure.info == (0 if len(ip(1)) == 4 else 6)


@BOTH
def test_port_that_nobody_has_is_told_to_the_sender(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    sent = one.keep(TEST)
    two.keep(TEST, takes=False)
    one.layer.send(0, Outgoing(ip(2), TEST, (b"12345678",)))
    wire.settle()
    assert [failure.code for failure in sent.failures] == [3 if len(ip(1)) == 4 else 4]


@BOTH
def test_neighbour_who_never_answers_is_told_to_the_sender(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, _ = wire.hosts
    sent = one.keep(TEST)
    one.layer.send(wire.now_ns, Outgoing(ip(9), TEST, (b"12345678",)))
    wire.settle()
    wire.wait(2 * SECOND_NS)
    assert not sent.failures
    wire.wait(2 * SECOND_NS)
    assert [failure.number for failure in sent.failures] == [EHOSTUNREACH.number]
    assert len(wire.seen) == 3
    known = one.link.neighbours4 if len(ip(1)) == 4 else one.link.neighbours6
    assert known.get(ip(9)).state == NUD_FAILED  # type: ignore[union-attr]
    assert one.layer.timer() is None


@BOTH
def test_echo_request_is_answered_from_the_address_that_was_asked(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    seen = []
    one.layer.seen = lambda now_ns, packet: bool(seen.append(packet))
    is_v4 = len(ip(1)) == 4
    protocol, kind = (1, 8) if is_v4 else (58, 128)
    body = bytes([kind, 0, 0, 0]) + b"\0\1\0\2" + b"data" * 500
    before = 0 if is_v4 else pseudo_sum(ip(1), ip(2), 58, len(body))
    body = body[:2] + checksum(body, before).to_bytes(2) + body[4:]
    one.layer.send(0, Outgoing(ip(2), protocol, (body,)))
    wire.settle()
    replies = [each for each in seen if each.payload[0] == (0 if is_v4 else 129)]
    assert [bytes(each.payload[4:]) for each in replies] == [body[4:]]
    assert replies[0].source == ip(2)
    two.sysctls["net/ipv4/icmp_echo_ignore_all"] = two.sysctls["net/ipv6/icmp/echo_ignore_all"] = (
        "1"
    )
    seen.clear()
    one.layer.send(0, Outgoing(ip(2), protocol, (body,)))
    wire.settle()
    assert not any(each.payload[0] in (0, 129) for each in seen)


@BOTH
def test_dont_fragment_raises_emsgsize(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    out = Outgoing(ip(2), TEST, (bytes(1481),), discover=abi.IP_PMTUDISC_DO)
    with pytest.raises(EMSGSIZE):
        wire.hosts[0].layer.send(0, out)


@BOTH
def test_no_route_raises_enetunreach_until_there_is_one(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    far = bytes([8]) * len(ip(1))
    with pytest.raises(ENETUNREACH):
        one.layer.send(0, Outgoing(far, TEST, (b"x",)))
    one.route_all(ip(2))
    one.layer.send(0, Outgoing(far, TEST, (b"x",)))
    wire.settle()
    assert two.layer.counters["Ip.InAddrErrors" if len(far) == 4 else "Ip6InAddrErrors"] == 1
    assert one.layer.path(0, far).next_hop == ip(2)


def too_big(one: Host, mtu: int, quoted: bytes, router: int = 2) -> bytes:
    """A complaint of a router, as a frame."""
    other = Host(router)
    if quoted[0] >> 4 == 4:
        body = b"\x03\x04\0\0\0\0" + mtu.to_bytes(2) + quoted[:28]
        body = body[:2] + checksum(body).to_bytes(2) + body[4:]
        other.layer.send(0, Outgoing(ip4(1), 1, (body,)))
    else:
        body = b"\x02\0\0\0" + mtu.to_bytes(4) + quoted[:60]
        before = pseudo_sum(ip6(router), ip6(1), 58, len(body))
        body = body[:2] + checksum(body, before).to_bytes(2) + body[4:]
        other.layer.send(0, Outgoing(ip6(1), 58, (body,)))
    target = ip4(1) if quoted[0] >> 4 == 4 else ip6(1)
    table = other.link.neighbours4 if len(target) == 4 else other.link.neighbours6
    table.set_static(target, one.link.hardware)
    return other.frames()[-1]


@BOTH
def test_packet_too_big_narrows_the_way_if_somebody_sent_the_packet(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, _ = wire.hosts
    one.route_all(ip(2))
    far = bytes([8]) * len(ip(1))
    table = one.link.neighbours4 if len(far) == 4 else one.link.neighbours6
    table.set_static(ip(2), hardware(2))
    one.layer.send(0, Outgoing(far, TEST, (bytes(1400),)))
    quoted = one.frames()[-1][14:]
    one.hear(too_big(one, 1300, quoted), 5)
    assert one.layer.path(5, far).mtu == MTU  # nobody here sent it
    sent = one.keep(TEST)
    one.hear(too_big(one, 1300, quoted), 5)
    assert (sent.failures[-1].number, sent.failures[-1].info) == (EMSGSIZE.number, 1300)
    assert one.layer.path(5, far).mtu == 1300
    one.hear(too_big(one, 1400, quoted), 5)
    assert one.layer.path(5, far).mtu == 1300
    one.hear(too_big(one, 68, quoted), 5)
    assert one.layer.path(5, far).mtu == (552 if len(far) == 4 else 1280)
    assert one.layer.path(5, far).may_fragment == (len(far) == 4)
    assert one.layer.path(5 + 601 * SECOND_NS, far).mtu == MTU


@BOTH
def test_who_is_heard_of_above_is_confirmed_as_a_neighbour(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, _ = wire.hosts
    one.layer.send(wire.now_ns, Outgoing(ip(2), TEST, (b"x",)))
    wire.settle()
    wire.now_ns += 20 * SECOND_NS
    one.layer.confirm(wire.now_ns, ip(2))
    wire.wait(20 * SECOND_NS)
    known = one.link.neighbours(ip(2)).get(ip(2))
    assert known is not None and known.state == NUD_REACHABLE


@BOTH
def test_link_whose_interface_has_gone_is_quiet(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    one.layer.send(wire.now_ns, Outgoing(ip(9), TEST, (b"12345678",)))
    one.frames()
    one.interfaces.remove(INDEX)
    one.layer.timeout(wire.now_ns + SECOND_NS)
    with pytest.raises(ENETUNREACH):
        one.layer.send(wire.now_ns, Outgoing(ip(2), TEST, (b"x",)))
    two.layer.send(wire.now_ns, Outgoing(ip(1), TEST, (b"x",)))
    wire.settle()
    assert not one.frames()


def test_link_local_address_is_reached_by_its_interface(wire: Wire) -> None:
    one, two = wire.hosts
    kept = two.keep(TEST)
    one.layer.send(0, Outgoing(local6(2), TEST, (b"x",), index=INDEX))
    wire.settle()
    assert kept.packets[0].source == local6(1)


def test_broadcast_reaches_all_and_gets_no_complaint(wire: Wire) -> None:
    one, two = wire.hosts
    sent = one.keep(TEST)
    two.layer.handlers.pop((True, TEST), None)
    for target in (ip4(255), b"\xff" * 4):
        one.layer.send(0, Outgoing(target, TEST, (b"12345678",), index=INDEX))
        wire.settle()
    assert two.layer.counters["Ip.InUnknownProtos"] == 2
    assert not sent.failures and len(wire.seen) == 2
    assert {frame[:6] for frame in wire.seen} == {b"\xff" * 6}


def test_packet_from_an_address_of_ours_is_dropped(wire: Wire) -> None:
    one, two = wire.hosts
    kept = two.keep(TEST)
    one.link.neighbours4.set_static(ip4(2), hardware(2))
    one.layer.send(0, Outgoing(ip4(2), TEST, (b"x",)))
    (frame,) = one.frames()
    header = ipv4.parse(frame[14:])
    assert header is not None
    for source in (ip4(2), b"\x7f\0\0\1", b"\xe0\0\0\1", bytes(4), ip4(255)):
        with pytest.raises(EINVAL):
            one.layer.send(0, Outgoing(ip4(2), TEST, (b"x",), source))
        two.hear(frame[:14] + ipv4.build(header._replace(source=source)) + b"x")
    assert not kept.packets
    assert two.layer.counters["Ip.InAddrErrors"] == 5


@BOTH
def test_frame_of_a_program_goes_where_its_packet_is_routed_at_a_gate(wire: Wire, ip) -> None:  # type: ignore[no-untyped-def]
    one, two = wire.hosts
    kept, is_v4 = two.keep(TEST), len(ip(1)) == 4
    one.layer.gate = Gate(Flows(Policy(parse(EVERYBODY, "f")), Given()), lambda key: None)

    def frame(source: bytes) -> bytes:
        if is_v4:
            packet = ipv4.build(ipv4.Header(20, 25, 0, 0, 0, 64, TEST, source, ip(2)))
        else:
            packet = ipv6.build(ipv6.Header(0, 0, 5, TEST, 64, source, ip(2)))
        kind = b"\x08\0" if is_v4 else b"\x86\xdd"
        return hardware(9) * 2 + kind + packet + b"hello, and padding"

    with pytest.raises(EINVAL):
        send_frame(one.layer, 0, INDEX, frame(ip(3)), None)
    send_frame(one.layer, 0, INDEX, frame(ip(1)), None)
    wire.settle()
    (packet,) = kept.packets
    assert bytes(packet.payload) == b"hello"
    assert not any(hardware(9) in seen for seen in wire.seen)
    with pytest.raises(ECONNREFUSED):
        one.layer.gate = Gate(Flows(Policy(parse("", "f")), Given()), lambda key: None)
        send_frame(one.layer, 0, INDEX, frame(ip(1)), None)


def test_way_that_was_found_is_asked_for_anew_when_something_changes() -> None:
    host = Host(1)
    first = host.layer.path(0, ip4(9))
    assert host.layer.path(0, ip4(9)) == first and first.next_hop == ip4(9)
    host.interface.mtu = 1400
    assert host.layer.path(0, ip4(9)).mtu == 1400
    host.layer.learn_mtu(0, ip4(9), 1300)
    assert host.layer.path(0, ip4(9)).mtu == 1300
    assert host.layer.path(600 * SECOND_NS, ip4(9)).mtu == 1400
    host.interface.set_flags(0, IFF_UP)
    with pytest.raises(EHOSTUNREACH):
        host.layer.path(600 * SECOND_NS, ip4(9))
    host.interface.set_flags(IFF_UP, IFF_UP)
    host.routes.added.append(Route(AF_INET, ip4(8), 30, INDEX, gateway=ip4(7)))
    host.layer.outdate(host.routes)
    assert host.layer.path(600 * SECOND_NS, ip4(9)).next_hop == ip4(7)

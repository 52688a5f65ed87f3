"""ARP packets, and what a host does with them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.abi.netlink import NUD_REACHABLE, NUD_STALE
from sentry.net.link import arp, ethernet
from sentry.net.link.arp import REPLY, REQUEST, ArpPacket
from tests.unit.net.wired import SECOND_NS, Host, hardware, ip4

OTHER = b"\x02\0\0\0\0\x63"


def frame(packet: ArpPacket, to: bytes) -> bytes:
    return ethernet.build(to, packet.sender_hardware, 0x806) + arp.build(packet)


def request(sender: bytes, target: bytes, sender_hardware: bytes = OTHER) -> bytes:
    packet = ArpPacket(REQUEST, sender_hardware, sender, bytes(6), target)
    return frame(packet, ethernet.BROADCAST)


def replies(host: Host) -> list[ArpPacket]:
    found = [arp.parse(each[14:]) for each in host.frames()]
    return [each for each in found if each is not None]


def test_question_for_our_address_is_answered_and_who_asks_is_known() -> None:
    host = Host(1)
    host.hear(request(ip4(9), ip4(1)))
    assert replies(host) == [ArpPacket(REPLY, hardware(1), ip4(1), OTHER, ip4(9))]
    known = host.link.neighbours4.get(ip4(9))
    assert known is not None and (known.state, known.hardware) == (NUD_STALE, OTHER)


def test_question_whether_an_address_is_free_is_answered_and_nobody_is_known_by_it() -> None:
    host = Host(1)
    host.hear(request(bytes(4), ip4(1)))
    assert replies(host) == [ArpPacket(REPLY, hardware(1), ip4(1), OTHER, bytes(4))]
    assert not len(host.link.neighbours4)


def test_question_for_others_is_not_answered_and_makes_nobody_known() -> None:
    host = Host(1)
    for sender, target in ((ip4(9), ip4(8)), (ip4(9), b"\x7f\0\0\1"), (ip4(9), b"\xe0\0\0\1")):
        host.hear(request(sender, target))
    host.hear(request(ip4(9), ip4(1), ethernet.BROADCAST))
    assert not replies(host) and not len(host.link.neighbours4)


def test_answer_that_nobody_asked_for_makes_nobody_known() -> None:
    host = Host(1)
    packet = ArpPacket(REPLY, OTHER, ip4(9), hardware(1), ip4(1))
    host.hear(frame(packet, hardware(1)))
    assert not len(host.link.neighbours4)


def test_first_answer_is_believed_for_a_second() -> None:
    host = Host(1)
    table = host.link.neighbours4
    host.hear(request(ip4(9), ip4(1)), SECOND_NS)
    packet = ArpPacket(REPLY, hardware(9), ip4(9), hardware(1), ip4(1))
    host.hear(frame(packet, hardware(1)), SECOND_NS + SECOND_NS // 2)
    known = table.get(ip4(9))
    assert known is not None and known.hardware == OTHER
    host.hear(frame(packet, hardware(1)), 3 * SECOND_NS)
    assert (known.hardware, known.state) == (hardware(9), NUD_REACHABLE)


def test_gratuitous_packet_is_believed_of_who_is_known() -> None:
    host = Host(1)
    host.hear(request(ip4(9), ip4(1)))
    packet = ArpPacket(REPLY, hardware(9), ip4(9), ethernet.BROADCAST, ip4(9))
    host.hear(frame(packet, ethernet.BROADCAST))
    known = host.link.neighbours4.get(ip4(9))
    assert known is not None and (known.hardware, known.state) == (hardware(9), NUD_STALE)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_packet_or_none(data: bytes) -> None:
    found = arp.parse(data)
    assert found is None or arp.build(found)[8:] == data[8:28]

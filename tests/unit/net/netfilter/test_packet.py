"""What is changed of a packet keeps its checksums right."""

from __future__ import annotations

import struct

import pytest

from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.netfilter.packet import Packet, adjusted
from tests.unit.net.netfilter.router import ACK, echo, ends, ip, ip6, tcp, udp

PORTS = (4000, 53)


@pytest.mark.parametrize("make", [udp, lambda *given: tcp(*given, ACK)])
@pytest.mark.parametrize("of", [ip, ip6])
def test_addresses_and_ports_are_changed(make: object, of: object) -> None:
    assert callable(make)
    assert callable(of)
    packet = Packet(make(of(0, 2), of(1, 2), PORTS), is_v4=of is ip)
    packet.set_address(of(7, 9), is_source=True)
    packet.set_address(of(8, 255), is_source=False)
    packet.set_port(65535, is_source=True)
    packet.set_port(0, is_source=False)
    assert packet.is_changed
    assert ends(bytes(packet.data)) == (of(7, 9), 65535, of(8, 255), 0)


def test_what_stays_is_not_changed() -> None:
    packet = Packet(udp(ip(0, 2), ip(1, 2), PORTS), is_v4=True)
    packet.set_address(ip(0, 2), is_source=True)
    packet.set_port(53, is_source=False)
    assert not packet.is_changed


def test_datagram_without_a_checksum_stays_without() -> None:
    whole = bytearray(udp(ip(0, 2), ip(1, 2), PORTS))
    whole[26:28] = b"\0\0"
    packet = Packet(whole, is_v4=True)
    packet.set_address(ip(3, 3), is_source=True)
    packet.set_port(9, is_source=True)
    assert packet.data[26:28] == b"\0\0"


def test_partial_sum_is_that_of_the_pseudo_header_alone() -> None:
    whole = bytearray(udp(ip(0, 2), ip(1, 2), PORTS))
    size = len(whole) - 20
    whole[26:28] = pseudo_sum(ip(0, 2), ip(1, 2), 17, size).to_bytes(2)
    packet = Packet(whole, is_v4=True)
    packet.is_partial = True
    packet.set_address(ip(9, 9), is_source=True)
    packet.set_port(9, is_source=True)
    assert int.from_bytes(packet.data[26:28]) % 0xFFFF == (
        pseudo_sum(ip(9, 9), ip(1, 2), 17, size) % 0xFFFF
    )


def test_echo_gets_another_identifier() -> None:
    packet = Packet(echo(ip(0, 2), ip(1, 2), 7), is_v4=True)
    packet.set_icmp_id(0xABCD)
    packet.set_address(ip(5, 5), is_source=True)
    assert ends(bytes(packet.data))[0] == ip(5, 5)
    assert packet.data[24:26] == b"\xab\xcd"


@pytest.mark.parametrize("new", [b"\0\0", b"\xff\xff", b"\x12\x34"])
def test_sum_is_as_if_it_were_made_anew(new: bytes) -> None:
    data = struct.pack(">6H", 1, 2, 0xFFFF, 0, 0x8000, 77)
    made = adjusted(checksum(data), data[4:6], new)
    assert made % 0xFFFF == checksum(data[:4] + new + data[6:]) % 0xFFFF


def test_packet_that_is_cut_is_left_alone() -> None:
    packet = Packet(udp(ip(0, 2), ip(1, 2), PORTS)[:22], is_v4=True)
    assert packet.sum_place() == -1
    packet.set_address(ip(5, 5), is_source=True)
    assert not packet.has(4)

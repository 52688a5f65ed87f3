"""What is done of a frame before it goes to who does neither checksums nor segments."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.socket import IPPROTO_TCP, IPPROTO_UDP
from sentry.abi.virtio import VIRTIO_NET_HDR_GSO_TCPV4
from sentry.net.ip import ipv4
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Outgoing
from sentry.net.link import vnet
from sentry.net.link.segments import finished
from sentry.net.tcp.segment import ACK, CWR, FIN, PSH
from tests.unit.net.wired import Host, hardware, ip4, ip6

ETHERNET = 14


def sent(size: int, segment: int, flags: int, *, is_v4: bool = True) -> bytes:
    host = Host(1)
    host.link.neighbours(ip4(2)).set_static(ip4(2), hardware(2))
    host.link.neighbours(ip6(2)).set_static(ip6(2), hardware(2))
    target, source = (ip4(2), ip4(1)) if is_v4 else (ip6(2), ip6(1))
    total = pseudo_sum(source, target, IPPROTO_TCP, 20 + size)
    header = struct.pack(">HHIIBBHHH", 1, 2, 0xFFFFFFF0, 9, 5 << 4, flags, 100, total, 0)
    payload = bytes(number % 251 for number in range(size))
    out = Outgoing(target, IPPROTO_TCP, (header, payload), source, transport_size=20)
    out.offload = vnet.Offload(0, 16, segment, has_cwr=bool(flags & CWR))
    host.layer.send(0, out)
    return host.link.take_outgoing(1, 1)[0]


def parts(frame: bytes, *, is_v4: bool) -> tuple[bytes, bytes, bytes]:
    """Network header, TCP header, payload. Both checksums are right."""
    assert frame[: vnet.SIZE] == bytes(vnet.SIZE)
    packet = frame[vnet.SIZE + ETHERNET :]
    size = 20 if is_v4 else 40
    ip, rest = packet[:size], packet[size:]
    ends = ip[12:20] if is_v4 else ip[8:40]
    half = len(ends) // 2
    if is_v4:
        parsed = ipv4.parse(memoryview(packet))
        assert parsed is not None and parsed.total == len(packet)
    else:
        assert int.from_bytes(ip[4:6]) == len(rest)
    assert checksum(rest, pseudo_sum(ends[:half], ends[half:], IPPROTO_TCP, len(rest))) == 0
    return ip, rest[:20], rest[20:]


@pytest.mark.parametrize("is_v4", [True, False])
def test_segments_are_those_that_a_card_would_make(is_v4: bool) -> None:
    frame = sent(2500, 1000, ACK | PSH | FIN | CWR, is_v4=is_v4)
    made = [parts(each, is_v4=is_v4) for each in finished(frame, ETHERNET, cuts=True)]
    whole = b"".join(payload for _, _, payload in made)
    assert whole == frame[-2500:] and [len(each[2]) for each in made] == [1000, 1000, 500]
    numbers = [int.from_bytes(head[4:8]) for _, head, _ in made]
    assert numbers == [0xFFFFFFF0, 0xFFFFFFF0 + 1000 - 2**32, 0xFFFFFFF0 + 2000 - 2**32]
    assert [head[13] for _, head, _ in made] == [ACK | CWR, ACK, ACK | PSH | FIN]
    if is_v4:
        first, second, _ = (int.from_bytes(ip[4:6]) for ip, _, _ in made)
        assert second == (first + 1) & 0xFFFF


def test_who_cuts_gets_it_whole() -> None:
    frame = sent(2500, 1000, ACK)
    assert list(finished(frame, ETHERNET, cuts=False)) == [frame]
    assert frame[1] == VIRTIO_NET_HDR_GSO_TCPV4


@pytest.mark.parametrize("is_v4", [True, False])
def test_checksum_that_was_left_is_there(is_v4: bool) -> None:
    (whole,) = finished(sent(33, 0, ACK, is_v4=is_v4), ETHERNET, cuts=True)
    assert len(parts(whole, is_v4=is_v4)[2]) == 33


def test_checksum_of_udp_is_never_absent() -> None:
    data = struct.pack(">HHHH", 0, 0, 8, 0xFFFF - 8)  # with the length all bits: the sum is 0
    frame = vnet.build(vnet.Offload(20, 26), 0, IPPROTO_UDP, is_v4=True, header_size=28)
    (whole,) = finished(frame + bytes(20) + data, 0, cuts=True)
    assert whole[-2:] == b"\xff\xff"


def test_frame_without_anything_left_stays() -> None:
    frame = bytes(vnet.SIZE) + b"x" * 40
    assert list(finished(frame, ETHERNET, cuts=True)) == [frame]

"""What the virtio header of a frame left to others, checked: who passes the frame on believes it.

Whoever made the frame may be an attacker, who says of a header what is none.
"""

from __future__ import annotations

from typing import Final

from sentry.abi.socket import ETH_P_IP, ETH_P_IPV6, IPPROTO_FRAGMENT, IPPROTO_TCP, IPPROTO_UDP
from sentry.net.ip import ipv4, ipv6
from sentry.net.link import ethernet, vnet
from sentry.net.link.vnet import Offload

SUM_AT: Final = {IPPROTO_TCP: 16, IPPROTO_UDP: 6}
"""Where the checksum stands in the header of the transport, which can be cut into segments."""
TCP_LEAST: Final = 20
UDP_HEADER: Final = 8


def left_to_do(
    header: bytes, link_size: int, at: int, protocol: int, transport: memoryview
) -> tuple[Offload, int] | None:
    """By a virtio header, of a packet whose transport begins at `at`; and the bytes of all headers
    if it is to be cut. None: it is about another packet. `protocol`: 0 of a fragment."""
    if not any(header):
        return vnet.NOTHING, 0
    offload = vnet.offload(header, link_size)
    if offload.checksum_at < 0:
        return None if offload.segment_size else (vnet.NOTHING, 0)
    size = at + len(transport)
    if not at <= offload.checksum_start <= offload.checksum_at <= size - 2:
        return None
    if not offload.segment_size:
        return offload, 0
    if protocol not in SUM_AT or len(transport) < TCP_LEAST:
        return None
    if (offload.checksum_start, offload.checksum_at) != (at, at + SUM_AT[protocol]):
        return None
    own = (transport[12] >> 4) * 4 if protocol == IPPROTO_TCP else UDP_HEADER
    least = TCP_LEAST if protocol == IPPROTO_TCP else UDP_HEADER
    return (offload, at + own) if least <= own <= len(transport) else None


def checked(frame: bytes) -> bytes | None:
    """A frame of Ethernet whose virtio header is about its packet; None: it cannot be made right.

    Preconditions: both headers are there.
    """
    header = frame[: vnet.SIZE]
    if not any(header):
        return frame
    found = ethernet.behind_tags(frame, vnet.SIZE)
    if found is None:
        return None if any(header[1:]) or vnet.offload(header, 0).checksum_at >= 0 else frame
    start, kind = found
    packet = memoryview(frame)[start:]
    protocol, at = _transport(packet, kind)
    link_size = start - vnet.SIZE
    left = left_to_do(header, link_size, at, protocol, packet[at:])
    if left is None:
        return None
    is_v4 = kind == ETH_P_IP
    right = vnet.build(left[0], link_size, protocol, is_v4=is_v4, header_size=left[1])
    if right == header or left[0] is vnet.NOTHING:
        return frame
    return right + frame[vnet.SIZE :]


def _transport(packet: memoryview, kind: int) -> tuple[int, int]:
    """Its protocol, and where it begins; (0, 0): there is none to be seen."""
    if kind == ETH_P_IP:
        header = ipv4.parse_quoted(packet)
        if header is not None:
            return 0 if header.is_fragment else header.protocol, header.size
    elif kind == ETH_P_IPV6 and ipv6.parse_quoted(packet) is not None:
        protocol, at = ipv6.transport_of(packet)
        return 0 if protocol == IPPROTO_FRAGMENT else protocol, min(at, len(packet))
    return 0, 0

"""What a frame's virtio header leaves to others, done here: checksum, and cutting into segments.

For who takes frames and says that it does neither: skb_checksum_help(), tcp_gso_segment().
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from sentry.abi.socket import IPPROTO_TCP
from sentry.abi.virtio import (
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
)
from sentry.net.ip.checksum import checksum, filled, pseudo_sum
from sentry.net.link import vnet
from sentry.net.tcp.segment import CWR, FIN, PSH

WHOLE: Final = bytes(vnet.SIZE)
_HEADER: Final = struct.Struct("<BBHHHH")
_TCP: Final = (VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6)
IP6_HEADER: Final = 40


def finished(frame: bytes, link_size: int, *, cuts: bool) -> Iterator[bytes]:
    """Frames with nothing left to do, but for cutting unless `cuts`.

    Preconditions: the frame was built here, behind a link header of `link_size` bytes.
    """
    flags, kind, header_size, size, start, offset = _HEADER.unpack_from(frame)
    if size and kind & ~VIRTIO_NET_HDR_GSO_ECN in _TCP and cuts:
        yield from _segments(frame[vnet.SIZE :], link_size, header_size, size)
    elif flags & VIRTIO_NET_HDR_F_NEEDS_CSUM and not size:
        yield WHOLE + filled(frame[vnet.SIZE :], start, start + offset)
    else:
        yield frame


def _segments(data: bytes, link_size: int, header_size: int, size: int) -> Iterator[bytes]:
    head, payload = bytearray(data[:header_size]), memoryview(data)[header_size:]
    is_v4 = head[link_size] >> 4 == 4
    ip_size = (head[link_size] & 15) * 4 if is_v4 else IP6_HEADER
    tcp = link_size + ip_size
    at = link_size + (12 if is_v4 else 8)
    width = 4 if is_v4 else 16
    source, target = bytes(head[at : at + width]), bytes(head[at + width : at + 2 * width])
    sequence, flags = int.from_bytes(head[tcp + 4 : tcp + 8]), head[tcp + 13]
    identification = int.from_bytes(head[link_size + 4 : link_size + 6])
    for number, begin in enumerate(range(0, len(payload), size)):
        piece = payload[begin : begin + size]
        is_last = begin + size >= len(payload)
        length = header_size - tcp + len(piece)
        if is_v4:
            head[link_size + 2 : link_size + 4] = (ip_size + length).to_bytes(2)
            head[link_size + 4 : link_size + 6] = (identification + number & 0xFFFF).to_bytes(2)
            head[link_size + 10 : link_size + 12] = bytes(2)
            total = checksum(memoryview(bytes(head[link_size:tcp])))
            head[link_size + 10 : link_size + 12] = total.to_bytes(2)
        else:
            head[link_size + 4 : link_size + 6] = length.to_bytes(2)
        head[tcp + 4 : tcp + 8] = (sequence + begin & 0xFFFFFFFF).to_bytes(4)
        head[tcp + 13] = flags & ~(0 if is_last else FIN | PSH) & ~(CWR if number else 0)
        head[tcp + 16 : tcp + 18] = bytes(2)
        whole = bytes(head) + piece
        before = pseudo_sum(source, target, IPPROTO_TCP, length)
        made = checksum(memoryview(whole)[tcp:], before)
        yield b"".join((WHOLE, whole[: tcp + 16], made.to_bytes(2), whole[tcp + 18 :]))

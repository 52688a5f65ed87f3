"""What a frame of a packet socket with PACKET_VNET_HDR begins with: struct virtio_net_hdr.

It says what the frame's sender left to whoever puts it on a wire: the checksum of the transport,
and cutting it into segments. packet(7), virtio 1.2, 5.1.6; include/linux/virtio_net.h.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from msgspec import Struct

from sentry.abi.socket import IPPROTO_TCP
from sentry.abi.virtio import (
    VIRTIO_NET_HDR,
    VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP_L4,
)

SIZE: Final = VIRTIO_NET_HDR.size
_HEADER: Final = struct.Struct("<BBHHHH")
_SUMS: Final = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID


class Offload(NamedTuple):
    """What is left to do with a packet; offsets and sizes are bytes from its IP header on."""

    checksum_start: int = 0
    """From here on to the end it is summed up."""
    checksum_at: int = -1
    """Where the sum goes, which holds that of the pseudo header; -1: all is done."""
    segment_size: int = 0
    """Bytes of payload in each packet that is made of it; 0: it is one."""
    has_cwr: bool = False
    """The first segment of TCP alone says that the window was reduced: RFC 3168, 6.1.2."""


NOTHING: Final = Offload()


class Received(Struct, frozen=True, gc=False):
    """What the header of a frame says to who receives it."""

    checksum_is_good: bool
    """Nobody has to look: the sum was checked, or the packet never was on a wire."""
    segment_size: int
    """Of the packets that were joined to this one; 0: it is one."""


def parse(data: bytes) -> Received | None:
    """Of a frame of at least `SIZE` bytes; None: it is shorter."""
    if len(data) < SIZE:
        return None
    flags, _, _, segment_size, _, _ = _HEADER.unpack_from(data)
    return Received(bool(flags & _SUMS), segment_size)


def offload(header: bytes, link_size: int) -> Offload:
    """What the header of a frame leaves to others, who has a link header of `link_size` bytes.

    Nothing of it has been checked.
    """
    flags, kind, _, segment_size, start, offset = _HEADER.unpack_from(header)
    if not flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        return NOTHING._replace(segment_size=segment_size)
    has_cwr = bool(kind & VIRTIO_NET_HDR_GSO_ECN)
    return Offload(start - link_size, start - link_size + offset, segment_size, has_cwr)


def build(
    offload: Offload, link_size: int, protocol: int, *, is_v4: bool, header_size: int
) -> bytes:
    """For a packet behind a link header of `link_size` bytes, whose headers, up to its payload,
    have `header_size`."""
    if offload.checksum_at < 0:
        return bytes(SIZE)
    kind = VIRTIO_NET_HDR_GSO_NONE
    if offload.segment_size:
        kind = VIRTIO_NET_HDR_GSO_UDP_L4
        if protocol == IPPROTO_TCP:
            kind = VIRTIO_NET_HDR_GSO_TCPV4 if is_v4 else VIRTIO_NET_HDR_GSO_TCPV6
            if offload.has_cwr:
                kind |= VIRTIO_NET_HDR_GSO_ECN
    return _HEADER.pack(
        VIRTIO_NET_HDR_F_NEEDS_CSUM,
        kind,
        link_size + header_size if offload.segment_size else 0,
        offload.segment_size,
        link_size + offload.checksum_start,
        offload.checksum_at - offload.checksum_start,
    )

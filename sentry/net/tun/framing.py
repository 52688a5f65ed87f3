"""What stands before a packet at /dev/net/tun: struct tun_pi, struct virtio_net_hdr."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Protocol

from sentry.abi.socket import ETH_P_IP, ETH_P_IPV6
from sentry.abi.tun import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUN_PI, TUN_PKT_STRIP
from sentry.abi.virtio import (
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP,
    VIRTIO_NET_HDR_GSO_UDP_L4,
)
from sentry.errors import EFAULT, EINVAL
from sentry.net.link import ethernet, vnet

if TYPE_CHECKING:
    from sentry.vfs.file import Dest, Source

_VNET: Final = struct.Struct("<BBHHHH")
NOTHING: Final = bytes(vnet.SIZE)
MAX_PACKET: Final = 65535 + ethernet.HEADER_SIZE + 2 * ethernet.TAG_SIZE
"""No packet of IP is larger: the rest of what is written is not looked at."""
KINDS: Final = (
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP,
    VIRTIO_NET_HDR_GSO_UDP_L4,
)  # fmt: skip
VERSIONS: Final = {4: ETH_P_IP, 6: ETH_P_IPV6}


class Framed(Protocol):
    """What an interface says of it: `Tun`."""

    flags: int
    header_size: int


def take(tun: Framed, source: Source) -> bytes | None:
    """A frame that is written, behind a virtio header; None: of a protocol that nobody speaks.

    tun_get_user(). Raises: EINVAL, EFAULT.
    """
    left = source.wanted
    kind = 0
    if not tun.flags & IFF_NO_PI:
        if left < TUN_PI.size:
            raise EINVAL("no packet information")
        left -= TUN_PI.size
        kind = int.from_bytes(_exactly(source, TUN_PI.size)[2:])
    head = NOTHING
    if tun.flags & IFF_VNET_HDR:
        if left < tun.header_size:
            raise EINVAL("no virtio header")
        left -= tun.header_size
        head = _checked_header(_exactly(source, vnet.SIZE), left)
        source.skip(tun.header_size - vnet.SIZE)
    is_tap = tun.flags & IFF_TAP
    if is_tap:
        header_size = int.from_bytes(head[2:4], "little")
        if left < ethernet.HEADER_SIZE or 0 < header_size < ethernet.HEADER_SIZE:
            raise EINVAL("no link header")
    if source.count < left:
        raise EFAULT("not all can be read")
    data = source.get(min(left, MAX_PACKET))
    if len(data) < min(left, MAX_PACKET):
        raise EFAULT("not all can be read")
    source.skip(left - len(data))
    _check_offload(head, len(data))
    version = data[0] >> 4 if data else 0
    if not is_tap and tun.flags & IFF_NO_PI and version not in VERSIONS:
        raise EINVAL("neither IPv4 nor IPv6")
    is_known = is_tap or tun.flags & IFF_NO_PI or VERSIONS.get(version) == kind
    return head + data if is_known and left <= MAX_PACKET else None


def _exactly(source: Source, size: int) -> bytes:
    data = source.get(size)
    if len(data) < size:
        raise EFAULT("not all can be read")
    return data


def _checked_header(head: bytes, left: int) -> bytes:
    """With a size of the headers that holds the checksum. Raises: EINVAL."""
    flags, kind, header_size, size, start, offset = _VNET.unpack(head)
    if flags & VIRTIO_NET_HDR_F_NEEDS_CSUM and start + offset + 2 > header_size:
        header_size = start + offset + 2 & 0xFFFF
    if header_size > left:
        raise EINVAL("longer headers than the packet")
    return _VNET.pack(flags, kind, header_size, size, start, offset)


def _check_offload(head: bytes, size: int) -> None:
    """virtio_net_hdr_to_skb(). Raises: EINVAL."""
    flags, kind, _, segment_size, start, offset = _VNET.unpack(head)
    is_known = kind & ~VIRTIO_NET_HDR_GSO_ECN in KINDS and segment_size
    if kind != VIRTIO_NET_HDR_GSO_NONE and not is_known:
        raise EINVAL("a kind of segments")
    if flags & VIRTIO_NET_HDR_F_NEEDS_CSUM and start + offset + 2 > size:
        raise EINVAL("a checksum behind the packet")


def give(tun: Framed, frame: bytes, dest: Dest) -> int:
    """A frame, with its virtio header, into a buffer: how much of that is used. tun_put_user().

    Raises: EINVAL without room for what stands before it, EFAULT.
    """
    head = b""
    has_info, has_header = not tun.flags & IFF_NO_PI, tun.flags & IFF_VNET_HDR
    before = (TUN_PI.size if has_info else 0) + (tun.header_size if has_header else 0)
    total = before + len(frame) - vnet.SIZE
    if has_info:
        if dest.wanted < TUN_PI.size:
            raise EINVAL("no room for the packet information")
        flags = TUN_PKT_STRIP if dest.wanted < total else 0
        head = flags.to_bytes(2, "little") + _protocol(tun, frame).to_bytes(2)
    if has_header:
        if dest.wanted < before:
            raise EINVAL("no room for the virtio header")
        head += frame[: vnet.SIZE] + bytes(tun.header_size - vnet.SIZE)
    whole = head + memoryview(frame)[vnet.SIZE :]
    wanted = min(total, dest.wanted)
    if dest.put(whole[:wanted]) < wanted:
        raise EFAULT("not all can be written")
    return wanted


def _protocol(tun: Framed, frame: bytes) -> int:
    if tun.flags & IFF_TAP:
        return int.from_bytes(frame[vnet.SIZE + 12 : vnet.SIZE + 14])
    return VERSIONS.get(frame[vnet.SIZE] >> 4, 0) if len(frame) > vnet.SIZE else 0

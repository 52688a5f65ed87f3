"""VLAN tags of frames that have a virtio header, which is about another place without the tag.

IEEE 802.1Q, 9; vlan_insert_tag(), skb_vlan_untag().
"""

from __future__ import annotations

import struct
from typing import Final

from sentry.abi.virtio import VIRTIO_NET_HDR_F_NEEDS_CSUM
from sentry.net.link import ethernet, vnet

PLACE: Final = vnet.SIZE + 2 * ethernet.ADDRESS_SIZE
"""Where the outermost tag stands."""
MOST: Final = 0xFFFF
_HEADER: Final = struct.Struct("<BBHHHH")


def tagged(frame: bytes, tag: bytes) -> bytes | None:
    """With one tag more, TPID and TCI. None: it is about a place that cannot be said any more.

    Preconditions: both headers are there.
    """
    header = _moved(frame[: vnet.SIZE], ethernet.TAG_SIZE)
    if header is None:
        return None
    return b"".join((header, frame[vnet.SIZE : PLACE], tag, frame[PLACE:]))


def untagged(frame: bytes) -> bytes | None:
    """Without the outermost tag. None: its virtio header is about no packet behind it.

    Preconditions: there is one. Whoever made the frame may be an attacker.
    """
    header = _moved(frame[: vnet.SIZE], -ethernet.TAG_SIZE)
    if header is None:
        return None
    return b"".join((header, frame[vnet.SIZE : PLACE], frame[PLACE + ethernet.TAG_SIZE :]))


def _moved(header: bytes, by: int) -> bytes | None:
    """Of the frame whose link header is so many bytes longer."""
    flags, kind, size, segment_size, start, offset = _HEADER.unpack(header)
    if not flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        return header
    start, size = start + by, size + by if size else 0
    if not ethernet.HEADER_SIZE <= start <= MOST or not 0 <= size <= MOST:
        return None
    return _HEADER.pack(flags, kind, size, segment_size, start, offset)

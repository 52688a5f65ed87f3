"""Segments and datagrams of those who are known, straight from the frames of a batch.

What C has found in a frame (`uplink_early`: one call a batch) leads to whom an ordinary one from
there was for before: nothing on the way between link and connection would look at it any
more. Linux's name is early demultiplexing, ip_rcv_finish_core(). Segments that go on from one to
the next are one segment there, as of generic receive offload. Whatever changes who is where
empties the table, and the next segment goes the long way.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from sentry.abi.socket import IPPROTO_UDP

RECORD: Final = struct.Struct("<BBBBHHIIIII37sBBBB3x")
"""struct early (sentry/platform/native/uplink.h)."""
KEY_SIZE: Final = 37

OF_UDP: Final = 16

Segment = tuple[int, int, int, int, int, int, int, int, int, int, int, bytes, int, int, int, int]
"""Kind, flags, TOS, whether there are stamps, window, where the payload begins and ends, sequence
number, acknowledgement, TSval, TSecr, key, TTL; how many segments there are, where the next of them
is in the batch, and one more than where the first is. A datagram has none of what is TCP's alone.
"""


class Receiver(Protocol):
    """A connection, or who has datagrams from somewhere."""

    def early(self, now_ns: int, found: Segment, payload: bytes) -> bool:
        """A segment for it, whose checksum is right. False: it is to go the long way."""


def key_of(source: bytes, target: bytes, ports: bytes, protocol: int) -> bytes:
    """Of a packet, with both ports as they stand in it."""
    kind = (4 if len(source) == 4 else 6) | (OF_UDP if protocol == IPPROTO_UDP else 0)
    return (bytes([kind]) + source + target + ports).ljust(KEY_SIZE, b"\0")

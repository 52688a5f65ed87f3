"""Segments of connections that are known, straight from the frames of a batch.

What C has found in a frame (`uplink_early`: one call a batch) leads to whom an ordinary segment
from there was for before: nothing on the way between link and connection would look at it any
more. Linux's name is early demultiplexing, ip_rcv_finish_core(). Whatever changes who is where
empties the table, and the next segment goes the long way.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

RECORD: Final = struct.Struct("<BBBBHHIIIII37s3x")
"""struct early (sentry/platform/native/uplink.h)."""
KEY_SIZE: Final = 37

Segment = tuple[int, int, int, int, int, int, int, int, int, int, int, bytes]
"""Kind, flags, ECN, whether there are stamps, window, where the payload begins and ends, sequence
number, acknowledgement, TSval, TSecr, key."""


class Receiver(Protocol):
    """A connection."""

    def early(self, now_ns: int, found: Segment, payload: memoryview) -> None:
        """A segment for it, whose checksum is right."""


def key_of(source: bytes, target: bytes, ports: bytes) -> bytes:
    """Of a packet, with both ports as they stand in it."""
    whole = (b"\4" if len(source) == 4 else b"\6") + source + target + ports
    return whole.ljust(KEY_SIZE, b"\0")

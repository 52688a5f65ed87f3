"""Segments of TCP, from and to bytes. RFC 9293, 3.1; RFC 7323 and 2018 for the options.

A segment that is built may hold far more than one MSS: who sends it cuts it into pieces of
`gso_size`, or has that done by the host. One that arrived may have been put together likewise.
Checksums are not dealt with here: the field of what is built is 0, to be filled below, and of what
arrived it is told whether it was right.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from sentry.net.link.early import Segment

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80

HEADER: Final = struct.Struct(">HHIIBBHHH")
MASK: Final = 0xFFFFFFFF
HALF: Final = 1 << 31
MAX_OPTIONS: Final = 40
MAX_SHIFT: Final = 14
"""Of the window. RFC 7323, 2.3."""
MAX_PAYLOAD: Final = 65535 - 60 - 60
"""Of a segment that is built: it goes below a header of IP with any options."""
NO_PAYLOAD: Final = memoryview(b"")

EOL: Final = 0
NOP: Final = 1
MSS: Final = 2
WINDOW_SCALE: Final = 3
SACK_PERMITTED: Final = 4
SACK: Final = 5
TIMESTAMP: Final = 8
ALIGNED_TIMESTAMP: Final = bytes([NOP, NOP, TIMESTAMP, 10])
ALIGNED_SACK: Final = bytes([NOP, NOP, SACK])
STAMPS: Final = struct.Struct(">II")
MAX_SACKS: Final = 4
CE: Final = 3
ECT0: Final = 2
"""Code points of RFC 3168 in the header of IP."""


def unwrap(number: int, near: int) -> int:
    """The place in a stream that a sequence number of 32 bits means: the one closest to `near`.

    Inside, such places are plain integers that only grow, so comparing them is, too.
    """
    return near + ((number - near + HALF) & MASK) - HALF


class Arrived(Struct, gc=False):
    """A segment that came in; sequence numbers are those of the wire."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: int
    window: int
    urgent: int
    payload: memoryview
    checksum_ok: bool = True
    ecn: int = 0
    """The code point of its IP header."""
    mss: int = 0
    """0: it does not say."""
    window_scale: int | None = None
    sack_permitted: bool = False
    stamps: tuple[int, int] | None = None
    """TSval and TSecr."""
    sacks: tuple[tuple[int, int], ...] = ()
    count: int = 1
    """How many came one behind the other and are taken for one."""

    @property
    def length(self) -> int:
        """What it takes of the sequence space."""
        return len(self.payload) + (self.flags & 1) + ((self.flags >> 1) & 1)


class Outgoing:
    """A segment to be sent: its header, whose checksum is 0, and where its payload is."""

    __slots__ = ("ecn", "gso_size", "header", "pieces", "size")

    def __init__(
        self, header: bytes, pieces: Sequence[memoryview] = (), gso_size: int = 0, ecn: int = 0
    ) -> None:
        self.header = header
        self.pieces = pieces
        self.gso_size = gso_size
        """The MSS to be cut by, in bytes; 0: it is a single packet."""
        self.ecn = ecn
        """For the header of IP."""
        self.size = 0
        """Of the payload, in bytes."""
        for piece in pieces:
            self.size += len(piece)


def parse(
    data: bytes | bytearray | memoryview, checksum_ok: bool = True, ecn: int = 0
) -> Arrived | None:
    """What stands in a packet behind the header of IP; None: its header is none.

    `data` must not change afterwards: the payload is a part of it.
    """
    size = len(data)
    if size < 20:
        return None
    ports_seq = HEADER.unpack_from(data)
    source, destination, seq, ack, offset, flags, window, _, urgent = ports_seq
    offset = (offset >> 4) * 4
    if offset < 20 or offset > size:
        return None
    view = memoryview(data)
    found = Arrived(
        source, destination, seq, ack, flags, window, urgent, view[offset:], checksum_ok, ecn
    )
    if offset == 32 and view[20:24] == ALIGNED_TIMESTAMP:
        found.stamps = STAMPS.unpack_from(data, 24)
    elif offset > 20:
        _parse_options(found, bytes(view[20:offset]))
    return found


def arrived_early(found: Segment, data: bytes) -> Arrived:
    """What sentry.net.link.early has found, which may end what is sent."""
    kind, flags, tos, has_stamps, window, _, _, seq, ack, value, echo, key, _, count, _, _ = found
    ports = 1 + (8 if kind == 4 else 32)
    source, destination = struct.unpack_from(">HH", key, ports)
    payload = memoryview(data) if data else NO_PAYLOAD
    made = Arrived(source, destination, seq, ack, flags, window, 0, payload, True, tos & 3)
    made.count = count
    if has_stamps:
        made.stamps = value, echo
    return made


def _parse_options(found: Arrived, options: bytes) -> None:
    """tcp_parse_options(), net/ipv4/tcp_input.c: what is malformed ends the list, or is skipped."""
    at, end, is_syn = 0, len(options), found.flags & SYN
    while at < end:
        kind = options[at]
        if kind == EOL:
            return
        if kind == NOP:
            at += 1
            continue
        if end - at < 2:
            return
        size = options[at + 1]
        if size < 2 or size > end - at:
            return
        body = options[at + 2 : at + size]
        at += size
        if kind == TIMESTAMP and size == 10:
            found.stamps = STAMPS.unpack(body)
        elif kind == SACK and size >= 10 and not (size - 2) % 8:
            found.sacks = tuple(STAMPS.iter_unpack(body))
        elif not is_syn:
            continue
        elif kind == MSS and size == 4:
            found.mss = int.from_bytes(body) or found.mss
        elif kind == WINDOW_SCALE and size == 3:
            found.window_scale = min(body[0], MAX_SHIFT)
        elif kind == SACK_PERMITTED and size == 2:
            found.sack_permitted = True


def syn_options(
    mss: int, window_scale: int | None, sack_permitted: bool, stamps: tuple[int, int] | None
) -> bytes:
    """Those of a SYN, padded: as tcp_options_write() orders them."""
    parts = [struct.pack(">BBH", MSS, 4, mss)]
    if stamps is not None:
        head = bytes([SACK_PERMITTED, 2]) if sack_permitted else bytes([NOP, NOP])
        parts += [head, bytes([TIMESTAMP, 10]), STAMPS.pack(*stamps)]
    elif sack_permitted:
        parts.append(bytes([NOP, NOP, SACK_PERMITTED, 2]))
    if window_scale is not None:
        parts.append(bytes([NOP, WINDOW_SCALE, 3, window_scale]))
    return b"".join(parts)


def options_of(stamps: tuple[int, int] | None, sacks: Sequence[tuple[int, int]] = ()) -> bytes:
    """Those of every other segment: as many blocks of SACK as there is room for."""
    head = b"" if stamps is None else ALIGNED_TIMESTAMP + STAMPS.pack(*stamps)
    if not sacks:
        return head
    sacks = sacks[: 3 if head else MAX_SACKS]
    blocks = [STAMPS.pack(start & MASK, end & MASK) for start, end in sacks]
    return head + ALIGNED_SACK + bytes([2 + 8 * len(blocks)]) + b"".join(blocks)


def header(
    ports: tuple[int, int],
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes = b"",
    urgent: int = 0,
) -> bytes:
    """A header, whose checksum is 0. `options` are padded to 4 bytes, `window` is not scaled."""
    offset = (20 + len(options)) << 2
    return (
        HEADER.pack(ports[0], ports[1], seq & MASK, ack & MASK, offset, flags, window, 0, urgent)
        + options
    )

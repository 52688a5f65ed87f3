"""Rings of packet sockets: memory that a program maps, where packets lie for it, or from it.

packet_mmap.rst, net/packet/af_packet.c. Here are their shape, rings of frames for what comes
(TPACKET_V1, TPACKET_V2) and for what is to be sent; those of blocks are in `packet_blocks.py`. All
that is read from a ring is the program's word: it is read once, and says no more than whose turn it
is, or which bytes of the ring are to be sent.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Protocol

from sentry.abi.socket import (
    TP_STATUS_AVAILABLE,
    TP_STATUS_KERNEL,
    TP_STATUS_LOSING,
    TP_STATUS_SEND_REQUEST,
    TP_STATUS_USER,
    TP_STATUS_VLAN_TPID_VALID,
    TP_STATUS_VLAN_VALID,
    TP_STATUS_WRONG_FORMAT,
)
from sentry.errors import EINVAL, EMSGSIZE, ENOMEM
from sentry.platform.constants import PAGE_SIZE

V1, V2, V3 = range(3)
"""enum tpacket_versions."""
HEADER_SIZES: Final = (32, 32, 48)
"""struct tpacket_hdr, tpacket2_hdr, tpacket3_hdr. Behind it is a struct sockaddr_ll."""
ADDRESS_SIZE: Final = 20
ALIGNMENT: Final = 16
BLOCK_ALIGNMENT: Final = 8
BLOCK_HEADER: Final = 48
"""struct tpacket_block_desc."""
LEAST_LINK_HEADER: Final = 16
"""So much room a link header has, so that what is behind it is aligned."""
MOST_OFFSET: Final = 0xFFFF
SECOND_NS: Final = 1_000_000_000
MS: Final = 1_000_000
_REQUEST: Final = struct.Struct("<IIII")
_REQUEST3: Final = struct.Struct("<IIIIIII")
_WORD: Final = struct.Struct("<I")
_LONG: Final = struct.Struct("<Q")
_REST1: Final = struct.Struct("<IIHHII")
_REST2: Final = struct.Struct("<IIHHIIHH4x")
_OFFSETS: Final = struct.Struct("<HH")


class Memory(Protocol):
    """Where rings lie: `sentry.mm.ramfile.RamFile`."""

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of it."""

    def write(self, offset: int, data: bytes) -> int:
        """Store some. Raises: ENOMEM."""


class Shown(NamedTuple):
    """A packet for a ring."""

    data: bytes
    size: int
    """Bytes that there were before a filter cut it."""
    link_header: int
    """How many of them are its link header; 0 also where that is not shown."""
    address: bytes
    """struct sockaddr_ll."""
    stamp_ns: int
    tag: tuple[int, int]
    """TPID and TCI; zeros: there is none."""

    @property
    def status(self) -> int:
        """TP_STATUS_* of a VLAN tag."""
        return TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID if any(self.tag) else 0


class Shape(NamedTuple):
    """struct tpacket_req3, and what was set before."""

    version: int
    reserve: int
    """PACKET_RESERVE."""
    is_cooked: bool
    block_size: int
    blocks: int
    frame_size: int
    frames: int
    timeout_ms: int = 0
    private: int = 0
    """Bytes of the program's own at the beginning of a block."""
    features: int = 0

    @property
    def size(self) -> int:
        """Of all blocks."""
        return self.block_size * self.blocks

    @property
    def header_size(self) -> int:
        """With the address behind it: tp_hdrlen."""
        return HEADER_SIZES[self.version] + ADDRESS_SIZE

    @property
    def block_start(self) -> int:
        """Where packets begin in a block: BLK_PLUS_PRIV()."""
        return BLOCK_HEADER + aligned(self.private, BLOCK_ALIGNMENT)

    def frame_at(self, number: int) -> int:
        """No frame lies in two blocks."""
        block, inside = divmod(number, self.block_size // self.frame_size)
        return block * self.block_size + inside * self.frame_size

    def places(self, link_header: int) -> tuple[int, int]:
        """Where in a frame a packet begins, and what is behind its link header: tpacket_rcv()."""
        if self.is_cooked:
            network = aligned(self.header_size, ALIGNMENT) + LEAST_LINK_HEADER + self.reserve
            return network, network
        room = max(link_header, LEAST_LINK_HEADER)
        network = aligned(self.header_size + room, ALIGNMENT) + self.reserve
        return network - link_header, network


def aligned(number: int, unit: int) -> int:
    """The next multiple."""
    return -(-number // unit) * unit


def parse(value: bytes, version: int) -> tuple[int, ...]:
    """PACKET_RX_RING, PACKET_TX_RING. Raises: EINVAL."""
    layout = _REQUEST3 if version == V3 else _REQUEST
    if len(value) < layout.size:
        raise EINVAL("struct tpacket_req")
    return layout.unpack_from(value)


def check(shape: Shape, most: int, *, sends: bool) -> None:
    """packet_set_ring(). `most`: bytes that there may be. Raises: EINVAL, ENOMEM."""
    if not 0 < shape.block_size < 1 << 31 or shape.block_size % PAGE_SIZE:
        raise EINVAL("tp_block_size")
    least = shape.header_size + shape.reserve
    if shape.version == V3 and shape.block_size < shape.block_start + least:
        raise EINVAL("tp_sizeof_priv")
    if shape.frame_size < least or shape.frame_size % ALIGNMENT:
        raise EINVAL("tp_frame_size")
    of_block = shape.block_size // shape.frame_size
    if not of_block or of_block * shape.blocks != shape.frames:
        raise EINVAL("tp_frame_nr")
    if shape.size > most:
        raise ENOMEM("more than there is")
    if sends and (shape.timeout_ms or shape.private or shape.features):
        raise EINVAL("blocks are not for sending")


class FrameRing:
    """Packets that come, a frame each."""

    def __init__(self, memory: Memory, shape: Shape) -> None:
        self._memory = memory
        self.shape = shape
        self._next = 0
        self.timeout_ms = 0
        """None waits for more."""
        self.freezes = 0
        """Of blocks alone."""

    @property
    def is_ready(self) -> bool:
        """The program has some to read: packet_previous_rx_frame()."""
        return self._status((self._next or self.shape.frames) - 1) != TP_STATUS_KERNEL

    def _status(self, number: int) -> int:
        word = self._memory.read(self.shape.frame_at(number), _WORD.size)
        return int.from_bytes(word, "little")

    def put(self, shown: Shown, *, is_losing: bool) -> bool:
        """False: there is no room. Raises: ENOMEM."""
        shape, memory = self.shape, self._memory
        mac, network = shape.places(shown.link_header)
        if network > MOST_OFFSET or self._status(self._next) != TP_STATUS_KERNEL:
            return False
        data = shown.data[: max(shape.frame_size - mac, 0)]
        at = shape.frame_at(self._next)
        status = TP_STATUS_USER | shown.status | (TP_STATUS_LOSING if is_losing else 0)
        seconds, ns = divmod(shown.stamp_ns, SECOND_NS)
        first, word = (shown.size, len(data), mac, network, seconds), _WORD
        if shape.version == V1:
            head, word = _REST1.pack(*first, ns // 1000), _LONG
        else:
            head = _REST2.pack(*first, ns, shown.tag[1], shown.tag[0])
        memory.write(at + HEADER_SIZES[shape.version], shown.address)
        memory.write(at + word.size, head)
        memory.write(at + mac, data)
        memory.write(at, word.pack(status))
        self._next = (self._next + 1) % shape.frames
        return True

    @property
    def waits(self) -> bool:
        """Some have to be handed over in time."""
        return False

    def hand_over(self, *, is_losing: bool) -> None:
        """It is time to."""


class SendRing:
    """Packets that a program wants sent, a frame each: tpacket_snd()."""

    def __init__(self, memory: Memory, start: int, shape: Shape) -> None:
        self._memory = memory
        self._start = start
        self.shape = shape
        self._next = 0

    def take(self, most: int, *, has_offset: bool) -> bytes | None:
        """The next one, of `most` bytes; None: there is none. Raises: EINVAL, EMSGSIZE."""
        shape, memory, at = self.shape, self._memory, self._at
        head = memory.read(at, HEADER_SIZES[shape.version])
        status_at, size_at, offsets_at = ((0, 8, 16), (0, 4, 12), (20, 16, 24))[shape.version]
        if _WORD.unpack_from(head, status_at)[0] != TP_STATUS_SEND_REQUEST:
            return None
        if shape.version == V3 and _WORD.unpack_from(head)[0]:
            raise EINVAL("tp_next_offset")
        (size,) = _WORD.unpack_from(head, size_at)
        start = HEADER_SIZES[shape.version]
        if size > min(most, shape.frame_size - start):
            raise EMSGSIZE(f"{size} bytes")
        if has_offset:
            least = start
            start = _OFFSETS.unpack_from(head, offsets_at)[shape.is_cooked]
            if not least <= start <= shape.frame_size - size:
                raise EINVAL("tp_mac, tp_net")
        return memory.read(at + start, size)

    @property
    def _at(self) -> int:
        return self._start + self.shape.frame_at(self._next)

    def went(self) -> None:
        """That one may be used again."""
        self._mark(TP_STATUS_AVAILABLE)
        self._next = (self._next + 1) % self.shape.frames

    def is_wrong(self) -> None:
        """It cannot be sent, and is the next one again."""
        self._mark(TP_STATUS_WRONG_FORMAT)

    def _mark(self, status: int) -> None:
        version = self.shape.version
        word = _LONG if version == V1 else _WORD
        self._memory.write(self._at + (20 if version == V3 else 0), word.pack(status))

"""Fragments: put together, and made. RFC 791, 815, 8200 4.5, 5722, 8900; net/ipv4/ip_fragment.c.

What overlaps anything, but for an exact copy, takes all of its packet with it, of either family.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec import Struct, field

from sentry.net.deadlines import Deadlines
from sentry.net.ip.checksum import Bytes

SECOND_NS: Final = 1_000_000_000
HIGH_THRESHOLD: Final = 4 << 20
"""ipfrag_high_thresh, ip6frag_high_thresh: no new packet is begun above."""
TIME_NS: Final = {4: 30 * SECOND_NS, 6: 60 * SECOND_NS}
"""ipfrag_time, ip6frag_time."""
OVERHEAD: Final = 512
"""What a fragment costs beside its bytes."""
MAX_SIZE: Final = 65535
UNIT: Final = 8
STEP: Final = 16
"""Packets that are given up in one call."""


class Key(NamedTuple):
    """Whose fragments belong together."""

    source: bytes
    target: bytes
    protocol: int
    """0 with IPv6."""
    identification: int
    interface: int
    """Its index."""


class Piece(NamedTuple):
    """A fragment without its headers."""

    offset: int
    has_more: bool
    data: Bytes
    head: bytes
    """The headers in front, as they stand in the first fragment's packet."""
    tos: int


class Whole(NamedTuple):
    """A packet that is complete."""

    data: bytes
    head: bytes
    tos: int
    largest: int
    """Of its fragments, with their headers."""


class TooLarge(Exception):
    """A fragment ends beyond the largest packet, or is not a multiple of 8 long."""


class Queue(Struct, eq=False):
    """What there is of a packet."""

    starts: list[int] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    have: int = 0
    size: int = -1
    """Of the whole; -1: its last fragment has not come."""
    charged: int = 0
    head: bytes = b""
    """Of the first fragment."""
    first: bytes = b""
    """What the complaint shows if the rest does not come."""
    tos: int = 0
    ecn: int = 0
    """A bit for each codepoint that was seen."""
    largest: int = 0


class Reassembly:
    """Of one family."""

    def __init__(self, version: int) -> None:
        self._time_ns = TIME_NS[version]
        self._queues: dict[Key, Queue] = {}
        self._deadlines: Deadlines[Key] = Deadlines()
        self.charged = 0

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, now_ns: int, key: Key, piece: Piece) -> Whole | None:
        """A fragment has come. The whole packet if it was the last that lacked.

        Raises: TooLarge.
        """
        end = piece.offset + len(piece.data)
        head_size = len(piece.head) if len(key.source) == 4 else 0
        if end + head_size > MAX_SIZE:
            raise TooLarge
        if piece.has_more and len(piece.data) % UNIT:
            raise TooLarge
        queue = self._queues.get(key)
        if queue is None:
            if self.charged > HIGH_THRESHOLD:
                return None
            queue = self._queues[key] = Queue()
            self._deadlines.set(key, now_ns + self._time_ns)
        if self._contradicts(queue, piece, end):
            self._drop(key)
            return None
        if _overlaps(queue, piece, end):
            if not _is_copy(queue, piece):
                self._drop(key)
            return None
        self._put(queue, piece, end)
        if queue.have != queue.size:
            return None
        self._drop(key)
        if queue.ecn & 1 and queue.ecn != 1:  # some of it knows no ECN: ip_frag_ecn_table
            return None
        marked = 3 if queue.ecn >> 3 & 1 else queue.tos & 3
        tos = queue.tos & ~3 | marked
        return Whole(b"".join(queue.pieces), queue.head, tos, queue.largest)

    def _contradicts(self, queue: Queue, piece: Piece, end: int) -> bool:
        """It says something else of where the packet ends, is empty, or is one too many."""
        if not piece.data or self.charged > 2 * HIGH_THRESHOLD:
            return True
        if queue.size >= 0:
            return end > queue.size or (not piece.has_more and end != queue.size)
        starts = queue.starts
        last_end = starts[-1] + len(queue.pieces[-1]) if starts else 0
        return not piece.has_more and last_end > end

    def _put(self, queue: Queue, piece: Piece, end: int) -> None:
        at = bisect_left(queue.starts, piece.offset)
        data = bytes(piece.data)
        queue.starts.insert(at, piece.offset)
        queue.pieces.insert(at, data)
        queue.have += len(data)
        queue.ecn |= 1 << (piece.tos & 3)
        queue.largest = max(queue.largest, len(piece.head) + len(data))
        if not piece.has_more:
            queue.size = end
        if not piece.offset:
            queue.head, queue.tos = piece.head, piece.tos
            queue.first = data
        queue.charged += len(data) + OVERHEAD
        self.charged += len(data) + OVERHEAD

    def _drop(self, key: Key) -> None:
        queue = self._queues.pop(key)
        self.charged -= queue.charged
        self._deadlines.drop(key)

    def timer(self) -> int | None:
        """When `timeout` is to be called."""
        return self._deadlines.first_ns()

    def timeout(self, now_ns: int) -> list[tuple[Key, bytes, bytes]]:
        """Give up what is too old: for each of which the first fragment has come its key, its
        headers and what was behind them."""
        given_up = []
        for _ in range(STEP):
            key = self._deadlines.take_due(now_ns)
            if key is None:
                break
            queue = self._queues[key]
            self._drop(key)
            if queue.head:
                given_up.append((key, queue.head, queue.first))
        return given_up


def _overlaps(queue: Queue, piece: Piece, end: int) -> bool:
    """Some of it is there."""
    starts = queue.starts
    at = bisect_left(starts, piece.offset)
    if at < len(starts) and end > starts[at]:
        return True
    return bool(at) and starts[at - 1] + len(queue.pieces[at - 1]) > piece.offset


def _is_copy(queue: Queue, piece: Piece) -> bool:
    """All of it is there already: inet_frag_queue_insert(), IPFRAG_DUP."""
    at = bisect_left(queue.starts, piece.offset + 1) - 1
    if at < 0 or not piece.data:
        return False
    end = piece.offset + len(piece.data)
    return end <= queue.starts[at] + len(queue.pieces[at])


def split(pieces: tuple[Bytes, ...], room: int) -> Iterator[tuple[int, bool, bytes]]:
    """Cut a payload: (offset, whether more follows, bytes) of each; `room` bytes fit into a packet.

    Preconditions: `room` is at least 8.
    """
    whole = b"".join(pieces)
    step = room // UNIT * UNIT
    at = 0
    while len(whole) - at > room:
        yield at, True, whole[at : at + step]
        at += step
    yield at, False, whole[at:]

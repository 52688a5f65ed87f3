"""`BlockRing`: packets that come, many in a block, which is handed over when it is full or in time.

TPACKET_V3: prb_*() of net/packet/af_packet.c. What is in a block of the kernel's is known here, not
read from it; of a block that was handed over one word is read, which says that it is back.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import (
    TP_STATUS_BLK_TMO,
    TP_STATUS_KERNEL,
    TP_STATUS_LOSING,
    TP_STATUS_USER,
)
from sentry.net.packet_ring import (
    BLOCK_ALIGNMENT,
    BLOCK_HEADER,
    HEADER_SIZES,
    MOST_OFFSET,
    SECOND_NS,
    V3,
    aligned,
)

if TYPE_CHECKING:
    from sentry.net.packet_ring import Memory, Shape, Shown

DEFAULT_TIMEOUT_MS: Final = 8
"""DEFAULT_PRB_RETIRE_TOV."""
STATUS_AT: Final = 8
_WORD: Final = struct.Struct("<I")
_BLOCK: Final = struct.Struct("<IIIIIIQIIII")
_FRAME: Final = struct.Struct("<IIIIIIHHIIHH8x")
"""struct tpacket3_hdr."""


class BlockRing:
    """One of them; `put`, `is_ready` and the rest as of `FrameRing`."""

    def __init__(self, memory: Memory, shape: Shape) -> None:
        self._memory = memory
        self.shape = shape
        self.timeout_ms = shape.timeout_ms or DEFAULT_TIMEOUT_MS
        self._block = 0
        self._sequence = 0
        self.freezes = 0
        """Times that no block was free."""
        self._is_frozen = False
        self._open()

    @property
    def is_ready(self) -> bool:
        """prb_previous_block()."""
        return self._status((self._block or self.shape.blocks) - 1) != TP_STATUS_KERNEL

    @property
    def waits(self) -> bool:
        """There are packets in a block that was not handed over."""
        return not self._is_frozen and self._count > 0

    def _status(self, block: int) -> int:
        word = self._memory.read(block * self.shape.block_size + STATUS_AT, _WORD.size)
        return int.from_bytes(word, "little")

    def _open(self) -> None:
        self._is_frozen = False
        self._sequence += 1
        self._count = 0
        self._next = self.shape.block_start
        self._last = 0
        self._begun_ns = self._ended_ns = time.time_ns()

    def put(self, shown: Shown, *, is_losing: bool) -> bool:
        """__packet_lookup_frame_in_block(). False: there is no room. Raises: ENOMEM."""
        shape = self.shape
        mac, network = shape.places(shown.link_header)
        if network > MOST_OFFSET:
            return False
        data = shown.data[: max(shape.block_size - shape.block_start - mac, 0)]
        size = aligned(mac + len(data), BLOCK_ALIGNMENT)
        if self._is_frozen:
            if self._status(self._block) & TP_STATUS_USER:
                return False
            self._open()
        elif self._next + size >= shape.block_size:
            self._close(TP_STATUS_LOSING if is_losing else 0)
            if self._is_frozen:
                return False
        self._write(shown, data, size, (mac, network))
        return True

    def _write(self, shown: Shown, data: bytes, size: int, places: tuple[int, int]) -> None:
        at = self._block * self.shape.block_size + self._next
        seconds, ns = divmod(shown.stamp_ns, SECOND_NS)
        head = _FRAME.pack(
            size, seconds, ns, len(data), shown.size, shown.status, *places, 0, shown.tag[1],
            shown.tag[0], 0,
        )  # fmt: skip
        self._memory.write(at, head)
        self._memory.write(at + HEADER_SIZES[V3], shown.address)
        self._memory.write(at + places[0], data)
        self._last, self._ended_ns = at, shown.stamp_ns
        self._next += size
        self._count += 1

    def hand_over(self, *, is_losing: bool) -> None:
        """The packets that are there have waited for long enough. Raises: ENOMEM."""
        if self.waits:
            self._close(TP_STATUS_BLK_TMO | (TP_STATUS_LOSING if is_losing else 0))

    def _close(self, status: int) -> None:
        """prb_retire_current_block(), and on to the next one, if that is free."""
        if self._count:
            self._memory.write(self._last, bytes(_WORD.size))
        at = self._block * self.shape.block_size
        head = _BLOCK.pack(
            V3, BLOCK_HEADER, TP_STATUS_KERNEL, self._count, self.shape.block_start, self._next,
            self._sequence, *divmod(self._begun_ns, SECOND_NS), *divmod(self._ended_ns, SECOND_NS),
        )  # fmt: skip
        self._memory.write(at, head)
        self._memory.write(at + STATUS_AT, _WORD.pack(TP_STATUS_USER | status))
        self._block = (self._block + 1) % self.shape.blocks
        self._is_frozen = bool(self._status(self._block) & TP_STATUS_USER)
        if self._is_frozen:
            self.freezes += 1
        else:
            self._open()

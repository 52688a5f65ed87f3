"""A writer of pcapng: what goes by interfaces, as Wireshark and tcpdump(1) read it.

draft-ietf-opsawg-pcapng: one section, in little-endian order, with a block for each interface, for
each frame, and in the end with how many of an interface's frames were lost.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
BYTE_ORDER: Final = 0x1A2B3C4D
ETHERNET, RAW = 1, 101
"""LINKTYPE_*."""
NANOSECONDS: Final = 9
"""if_tsresol: a negative power of ten."""
APPLICATION: Final = 4
IF_NAME, IF_TSRESOL = 2, 9
EPB_FLAGS: Final = 2
INBOUND, OUTBOUND = 1, 2
ISB_IFRECV, ISB_IFDROP = 4, 5
END: Final = bytes(4)
"""opt_endofopt."""


class Writer:
    """To a file, whole blocks at a time."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises: OSError."""
        self._file = file
        self._count = 0
        head = struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)
        self._block(SECTION, head + _option(APPLICATION, b"runsc") + END)

    def interface(self, name: str, link_type: int) -> int:
        """The number of a new one. Raises: OSError."""
        head = struct.pack("<HHI", link_type, 0, 0)
        options = _option(IF_NAME, name.encode()) + _option(IF_TSRESOL, bytes([NANOSECONDS]))
        self._block(INTERFACE, head + options + END)
        self._count += 1
        return self._count - 1

    def frame(self, interface: int, at_ns: int, data: bytes, *, outgoing: bool) -> None:
        """One that went by it. Raises: OSError."""
        sizes = struct.pack("<II", len(data), len(data))
        head = struct.pack("<I", interface) + _time(at_ns) + sizes
        direction = struct.pack("<I", OUTBOUND if outgoing else INBOUND)
        self._block(PACKET, head + _padded(data) + _option(EPB_FLAGS, direction) + END)

    def statistics(self, interface: int, at_ns: int, seen: int, lost: int) -> None:
        """In the end, of all that went by it. Raises: OSError."""
        counts = _option(ISB_IFRECV, struct.pack("<Q", seen))
        counts += _option(ISB_IFDROP, struct.pack("<Q", lost))
        self._block(STATISTICS, struct.pack("<I", interface) + _time(at_ns) + counts + END)

    def flush(self) -> None:
        """Who reads along sees all of it. Raises: OSError."""
        self._file.flush()

    def _block(self, kind: int, body: bytes) -> None:
        size = struct.pack("<I", len(body) + 12)
        self._file.write(b"".join((struct.pack("<I", kind), size, body, size)))


def _time(at_ns: int) -> bytes:
    """The upper half comes first."""
    return struct.pack("<II", at_ns >> 32 & 0xFFFFFFFF, at_ns & 0xFFFFFFFF)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)

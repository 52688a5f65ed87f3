"""A reader of pcapng, for what `runsc debug --packets` writes: it trusts nothing of it."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Interface(NamedTuple):
    name: str
    link_type: int


class Packet(NamedTuple):
    interface: int
    at_ns: int
    data: bytes
    outgoing: bool


class Read:
    """All of a file."""

    def __init__(self, data: bytes) -> None:
        self.interfaces: list[Interface] = []
        self.packets: list[Packet] = []
        self.statistics: dict[int, tuple[int, int]] = {}
        """Seen and lost."""
        at = 0
        while at < len(data):
            kind, size = struct.unpack_from("<II", data, at)
            assert size % 4 == 0 and size >= 12 and at + size <= len(data)
            assert struct.unpack_from("<I", data, at + size - 4) == (size,)
            self._block(kind, data[at + 8 : at + size - 4], is_first=not at)
            at += size

    def _block(self, kind: int, body: bytes, *, is_first: bool) -> None:
        assert (kind == 0x0A0D0D0A) is is_first
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            assert options(body[16:]) == {4: b"runsc"}
        elif kind == 1:
            link_type, reserved, limit = struct.unpack_from("<HHI", body)
            found = options(body[8:])
            assert (reserved, limit, found.keys(), found[9]) == (0, 0, {2, 9}, b"\x09")
            self.interfaces.append(Interface(found[2].decode(), link_type))
        elif kind == 6:
            number, high, low, kept, size = struct.unpack_from("<IIIII", body)
            assert number < len(self.interfaces) and kept == size
            (direction,) = struct.unpack("<I", options(body[20 + (kept + 3 & ~3) :])[2])
            data = body[20 : 20 + kept]
            self.packets.append(Packet(number, high << 32 | low, data, direction == 2))
        else:
            assert kind == 5
            number, _, _ = struct.unpack_from("<III", body)
            found = options(body[12:])
            (seen,), (lost,) = struct.unpack("<Q", found[4]), struct.unpack("<Q", found[5])
            self.statistics[number] = seen, lost


def options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while True:
        code, size = struct.unpack_from("<HH", data)
        if not code:
            assert (size, len(data)) == (0, 4)
            return found
        found[code] = data[4 : 4 + size]
        data = data[4 + (size + 3 & ~3) :]

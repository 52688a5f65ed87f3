"""`Lz4`: a block of LZ4 that is unpacked in pieces, in C (native/lz4.h)."""

from __future__ import annotations

from typing import Final

from sentry.platform._native import ffi, lib

PIECE: Final = 1 << 18
"""Bytes of a step."""


class Lz4:
    """Unpacks `data` to `size` bytes; what the block holds beyond is left out."""

    __slots__ = ("_data", "_out", "_size", "_state")

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size
        self._out = ffi.new("uint8_t[]", size)
        self._state = ffi.new("uint64_t[]", lib.LZ4_STATE)

    def step(self) -> bool:
        """Some more; whether all is there. Raises: ValueError, it is no such block, or too short a
        one."""
        state, data = self._state, self._data
        before = state[lib.LZ4_OUT]
        until = min(before + PIECE, self._size)
        if lib.lz4_unpack(state, data, len(data), self._out, self._size, until):
            raise ValueError("no block of LZ4")
        done = state[lib.LZ4_OUT]
        if done < until:
            raise ValueError(f"a block of LZ4 with {done} bytes")
        return done == self._size

    def result(self) -> bytes:
        """Preconditions: all is there."""
        return ffi.buffer(self._out, self._size)[:]

"""Lists of frames: arrays of guest-physical addresses, and the bytes of what lies there.

A zero is a page of zeros, or one that is not there yet. No address space is looked at; who has the
frames is `Ram` (memory.py), or a file in it (sentry.mm).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentry.errors import EFAULT, EINVAL
from sentry.platform._native import ffi, lib
from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from sentry.platform._native import Uint64

Bytes = bytes | bytearray | memoryview


def frames_of(gpas: array[int]) -> Uint64:
    """An array of u64 as the C side takes it, for `from_frames` and `to_frames`."""
    return ffi.from_buffer("uint64_t[]", gpas)


def read_frames(gpas: array[int], offset: int, count: int) -> bytes:
    """Bytes of the frames in an array of u64; a zero is a page of zeros. Raises: EFAULT."""
    data = bytearray(count)
    frames = ffi.from_buffer("uint64_t[]", gpas)
    _bound(frames, offset, count)
    if lib.frames_read(frames, offset, ffi.from_buffer(data), count):
        raise EFAULT("the host has no page here")
    return bytes(data)


def write_frames(gpas: array[int], offset: int, data: Bytes) -> int:
    """Write into frames; how many bytes were written (fewer: the memory limit)."""
    view = ffi.from_buffer(data)
    frames = ffi.from_buffer("uint64_t[]", gpas)
    _bound(frames, offset, len(view))
    return len(view) - lib.frames_write(frames, offset, view, len(view))


def is_shared(gpa: int) -> bool:
    """Somebody else refers to this frame, too."""
    return lib.frame_references(gpa) > 1


def zero_frames(gpas: array[int], offset: int, count: int) -> None:
    """Clear bytes of frames."""
    frames = ffi.from_buffer("uint64_t[]", gpas)
    _bound(frames, offset, count)
    lib.frames_zero(frames, offset, count)


def _bound(frames: Uint64, offset: int, count: int) -> None:
    if offset < 0 or count < 0 or offset + count > len(frames) * PAGE_SIZE:
        raise EINVAL("outside of the frames")


def runs(gpas: array[int]) -> Iterator[tuple[int, int, int]]:
    """(index, first frame, length) of the runs of consecutive frames; zeros are left out."""
    index = 0
    while index < len(gpas):
        start, first = index, gpas[index]
        index += 1
        if not first:
            continue
        while index < len(gpas) and gpas[index] == first + (index - start) * PAGE_SIZE:
            index += 1
        yield start, first, index - start

"""Maps of sparse files in archives of GNU tar: where bytes are, and where holes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from runsc.images.errors import ImageError

Spans = tuple[tuple[int, int], ...]
"""Offset and length of each piece that is no hole."""
MAX_SPANS: Final = 1 << 16
BLOCK: Final = 512
DIGITS: Final = 20
_DAMAGED: Final = "has a sparse file with a damaged map"


def checked(spans: Spans, size: int, stored: int, most: int) -> Spans:
    """Without empty ones. They are in order, within the file, and as long as what is stored.

    Raises: ImageError.
    """
    if size > most:
        raise ImageError(f"has a file of {size} bytes")
    end = total = 0
    for offset, length in spans:
        if offset < end or offset + length > size:
            raise ImageError(_DAMAGED)
        end, total = offset + length, total + length
    if total != stored:
        raise ImageError(_DAMAGED)
    return tuple(span for span in spans if span[1])


def pairs(numbers: Sequence[bytes]) -> Spans:
    """Offsets and lengths in turn, decimal. Raises: ImageError."""
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SPANS:
        raise ImageError(_DAMAGED)
    if not all(number.isdigit() and len(number) <= DIGITS for number in numbers):
        raise ImageError(_DAMAGED)
    found = [int(number) for number in numbers]
    return tuple(zip(found[::2], found[1::2], strict=True))


def read_map(block: Callable[[], bytes]) -> tuple[Spans, int]:
    """The map before a file of format 1.0, and how many bytes it takes.

    A count and then numbers, each in a line, filled up to whole blocks. Raises: ImageError.
    """
    blocks = 0
    lines: list[bytes] = []
    rest = b""
    wanted = 1
    while len(lines) < wanted:
        *more, rest = (rest + block()).split(b"\n")
        blocks += 1
        lines += more
        if wanted == 1 and lines:
            if not lines[0].isdigit() or len(lines[0]) > DIGITS or int(lines[0]) > MAX_SPANS:
                raise ImageError(_DAMAGED)
            wanted += 2 * int(lines[0])
        if len(lines) < wanted and len(rest) > DIGITS:
            raise ImageError(_DAMAGED)
    return pairs(lines[1:wanted]), blocks * BLOCK


def old_gnu(header: bytes, block: Callable[[], bytes], number: Callable[[bytes], int]) -> Spans:
    """The map of the format before pax: in the header, and in blocks behind it.

    Raises: ImageError.
    """
    found: list[tuple[int, int]] = []
    fields, more = header[386:482], header[482]
    while True:
        for at in range(0, len(fields), 24):
            if fields[at] == 0:
                break
            found.append((number(fields[at : at + 12]), number(fields[at + 12 : at + 24])))
        if not more:
            return tuple(found)
        if len(found) > MAX_SPANS:
            raise ImageError(_DAMAGED)
        following = block()
        fields, more = following[:504], following[504]

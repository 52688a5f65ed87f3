"""Numbers as programs write them, and runs of bits as they are shown.

Without `re`: that module, with the first expression of a process, is 0.3 MiB and 5 ms, so it is
imported by what few programs need.
"""

from __future__ import annotations

from typing import Final

DIGITS: Final = frozenset("0123456789")
HEXADECIMAL: Final = frozenset("0123456789abcdefABCDEF")


def integer(text: str) -> int:
    """kstrtoll(text, 0): decimal, octal after 0, hexadecimal after 0x. Raises: ValueError."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    is_hexadecimal = digits[:2].lower() == "0x"
    allowed = HEXADECIMAL if is_hexadecimal else DIGITS
    if not allowed.issuperset(digits[2:] if is_hexadecimal else digits):
        raise ValueError(text[:40])
    return int(text, 16 if is_hexadecimal else 8 if digits.startswith("0") else 10)


def runs(bits: bytes) -> list[tuple[int, int]]:
    """First and last place of each run of ones, in bytes that are 0 or 1."""
    found = []
    first = bits.find(1)
    while first >= 0:
        end = bits.find(0, first)
        end = len(bits) if end < 0 else end
        found.append((first, end - 1))
        first = bits.find(1, end)
    return found


def ranges(found: list[tuple[int, int]]) -> str:
    """0-3,5: bitmap_list_string()."""
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found)

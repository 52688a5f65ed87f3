"""UUIDs as programs see them. Python's own module would be all that is taken of it."""

from __future__ import annotations

import os


def random_uuid() -> str:
    """A new one of version 4: RFC 9562, section 5.4."""
    made = bytearray(os.urandom(16))
    made[6] = made[6] & 0x0F | 0x40
    made[8] = made[8] & 0x3F | 0x80
    text = made.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

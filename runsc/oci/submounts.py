"""What is mounted below a folder of the host: /proc/self/mountinfo, proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re

from msgspec import Struct

MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")
"""Blanks and their kin are written in octal."""


class Submount(Struct, frozen=True):
    """One of them: its path below the folder."""

    name: str
    is_file: bool


def writable_below(folder: str, table: str = MOUNTS) -> list[Submount]:
    """Those that can be written, in the order in which they were made."""
    top = os.fsencode(folder.rstrip("/")) + b"/"
    found: dict[bytes, bool] = {}
    """By place: what was mounted there last."""
    with open(table, "rb") as file:
        for line in file:
            place, options = line.split()[4:6]
            place = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), place)
            if place.startswith(top):
                found[place] = b"ro" not in options.split(b",")
    return [
        Submount(os.fsdecode(place.removeprefix(top)), not os.path.isdir(place))
        for place, is_writable in found.items()
        if is_writable and os.path.exists(place)
    ]

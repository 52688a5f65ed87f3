"""What some messages of the control socket carry: about time, faults, and what its owner serves.

See `protocol.py`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.faults import MAX_RULES, InjectRule

Ns = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
Shown = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class ClockOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """How the time that programs see goes on: `do` is "" (it is only told), "speed", "jump" (so
    much has gone by at once) or "set" (the wall clock alone shows that)."""

    do: str = ""
    ns: Ns = 0
    speed: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 1.0


class ClockState(msgspec.Struct, omit_defaults=True, frozen=True):
    """The time that programs see."""

    wall_ns: Shown
    """CLOCK_REALTIME."""
    monotonic_ns: Shown
    speed: float = 1.0
    """0: it stands still."""
    is_shaped: bool = False
    """Else it is the host's."""


class ServeOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """What the sandbox's owner serves: `do` is "mount" (a file system, on the directory `path`),
    "device" (a character device of this name), "proc" (a file of this name in /proc) or "unmount".
    The stream to who serves it, in 9P, comes with the first byte of the request, but for the
    last."""

    do: str
    path: bytes
    read_only: bool = False
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o644
    """Of a device, or a file of /proc."""
    patience_ns: Annotated[int, msgspec.Meta(ge=10**6, le=10**14)] = 30 * 10**9
    """What has no answer for so long has none: EIO, for all of it."""


class InjectOrder(msgspec.Struct, omit_defaults=True, frozen=True):
    """Rules about faults, in place of those that there are; None: these are only told."""

    rules: Annotated[tuple[InjectRule, ...], msgspec.Meta(max_length=MAX_RULES)] | None = None

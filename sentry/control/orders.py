"""What the control socket's messages about time carry. See `protocol.py`."""

from __future__ import annotations

from typing import Annotated

import msgspec

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

"""What a program is told of the CPU at its start: getauxval(3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from sentry.platform.interface import Platform


class Machine(Struct, frozen=True):
    """What the program is told of the CPU."""

    hwcap: int = 0
    """CPUID(1).EDX."""
    hwcap2: int = 0
    """Bit 1: FSGSBASE instructions."""
    min_signal_stack: int = 2048
    """Bytes of the largest signal frame."""


FSGSBASE = 2
"""HWCAP2_FSGSBASE."""
SIGNAL_FRAME = 440 + 16
"""struct rt_sigframe without FPU state, and its alignment."""
XSAVE_SLACK = 4 + 63
"""FP_XSTATE_MAGIC2, and the alignment of the FPU state."""


def machine_of(platform: Platform) -> Machine:
    """From the CPUID entries that the program sees; a platform without them says little."""
    entries = {(e.function, e.index): e for e in platform.cpuid}
    basic, extended = entries.get((1, 0)), entries.get((7, 0))
    frame = (SIGNAL_FRAME + platform.xsave_size + XSAVE_SLACK + 15) & ~15
    return Machine(
        basic.edx if basic is not None else 0,
        FSGSBASE if extended is not None and extended.ebx & 1 else 0,
        frame,
    )

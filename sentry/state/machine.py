"""What a program may have seen of the machine, which another host has to have, too."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import guest_stubs
from sentry.fs.pseudo.cpu import FLAGS

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.platform.interface import Platform


def features(kernel: Kernel) -> list[str]:
    """What CPUID tells programs, by the names of /proc/cpuinfo, and the parts of FPU state."""
    platform: Platform = kernel.platform
    entries = {(entry.function, entry.index): entry for entry in platform.cpuid}
    found = []
    for leaf, register, names in FLAGS:
        entry = entries.get(leaf)
        if entry is not None and leaf != (0, 0):
            bits = getattr(entry, register)
            found += [name for at, name in enumerate(names) if bits >> at & 1 and name != "-"]
    parts = platform.xfeatures
    return found + [f"xfeature{at}" for at in range(parts.bit_length()) if parts >> at & 1]


def clock_code(kernel: Kernel) -> int:
    """What tells the code of the vDSO from another: programs may stand in it."""
    return zlib.crc32(guest_stubs.vdso()) if kernel.platform.vdso is not None else 0

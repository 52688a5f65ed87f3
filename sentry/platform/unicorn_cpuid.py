"""What the program's CPUID says on the emulated CPU.

The CPU model's own answers, cut first to the allow-list of kvm (cpuid.py) and then to what
unicorn executes: of the VEX-coded instructions only BMI1 and BMI2, of XSAVE only x87 and SSE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from kvm.cpuid import CpuidEntry
from sentry.platform import cpuid

Registers = tuple[int, int, int, int]

INDEXED: Final = frozenset({0x4, 0x7, 0xD})
"""Leaves that look at ECX."""

_LEAVES: Final = tuple(
    (function, index)
    for function in cpuid.MASKS
    for index in (range(4) if function == 0x4 else (0, 1) if function in INDEXED else (0,))
)


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


_HIDDEN: Final[dict[tuple[int, int], Registers]] = {
    (0x1, 0): (0, 0, _bits(12, 28, 29), 0),  # FMA, AVX, F16C
    (0x7, 0): (0, _bits(5, 16, 17, 21, 26, 27, 28, 29, 30, 31), 0xFFFFFFFF, 0xFFFFFFFF),
    (0x80000001, 0): (0, 0, _bits(11, 16, 21), 0),  # XOP, FMA4, TBM
}
"""AVX2, AVX-512 and SHA; RDPID and everything else of leaf 7's ECX and EDX."""

_SHOWN: Final[dict[tuple[int, int], Registers]] = {
    (0xD, 0): (3, 576, 576, 0),
    (0xD, 1): (0, 0, 0, 0),
}
"""Answers that do not depend on the model: XCR0 and the size of an image."""


def allowed(ask: Callable[[int, int], Registers], cpus: int) -> list[CpuidEntry]:
    """The program's CPUID; `ask(function, index)` is what the emulated CPU itself answers."""
    supported = [CpuidEntry(leaf, index, 0, *ask(leaf, index)) for leaf, index in _LEAVES]
    return [_cut(entry) for entry in cpuid.allowed(supported, cpus, lambda _leaf, _index: (0,) * 4)]


def _cut(entry: CpuidEntry) -> CpuidEntry:
    key = (entry.function, entry.index)
    if key in _SHOWN:
        eax, ebx, ecx, edx = _SHOWN[key]
        return replace(entry, eax=eax, ebx=ebx, ecx=ecx, edx=edx)
    hidden = _HIDDEN.get(key, (0, 0, 0, 0))
    return replace(
        entry,
        eax=entry.eax & ~hidden[0],
        ebx=entry.ebx & ~hidden[1],
        ecx=entry.ecx & ~hidden[2],
        edx=entry.edx & ~hidden[3],
    )

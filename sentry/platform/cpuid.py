"""Which CPU features the program sees: what KVM supports, cut to an allow-list.

Everything that the Sentry would have to keep, save or answer for and does not is left out:
protection keys, AMX, CET, SGX, TSX, the monitor and virtualization instructions, performance
counters, power management and the hypervisor's own leaves (which would name KVM). Bit names: SDM
volume 2 "CPUID", APM volume 3 appendix E.

Unprivileged instructions that nothing can intercept work in ring 3 whether KVM names them or not.
PVM names hardly any of them (not even SSE3), so for these the CPU itself is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from kvm.cpuid import CpuidEntry
from sentry.platform.constants import XFEATURES


def _bits(*numbers: int | range) -> int:
    mask = 0
    for number in numbers:
        for bit in number if isinstance(number, range) else (number,):
            mask |= 1 << bit
    return mask


ALL = 0xFFFFFFFF

MASKS: dict[int, tuple[int, int, int, int]] = {
    # leaf: allowed bits of EAX, EBX, ECX, EDX
    0x0: (ALL, ALL, ALL, ALL),
    0x1: (
        ALL,
        0x00FFFFFF,  # the initial APIC id is the vCPU's, which the program must not see
        # not: DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, PDCM, PCID, DCA, x2APIC, TSC-Deadline,
        # hypervisor
        _bits(0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30),
        # not: DS, ACPI, TM, PBE
        _bits(range(10), range(11, 18), 19, range(23, 28), 28),
    ),
    0x2: (ALL, ALL, ALL, ALL),
    0x4: (ALL, ALL, ALL, ALL),
    0x7: (
        ALL,
        # not: TSC_ADJUST, SGX, HLE, RTM, RDT, MPX, PT, INVPCID
        _bits(0, 3, 5, 6, 7, 8, 9, 13, 16, 17, 18, 19, 20, 21, 23, 24, 26, 28, 29, 30, 31),
        # not: PKU, OSPKE, WAITPKG, CET-SS, LA57, KEYLOCKER, bus lock, PKS
        _bits(1, 2, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28),
        _bits(2, 3, 4, 8, 10, 14, 23),
    ),
    0xD: (ALL, ALL, ALL, ALL),
    0x80000000: (ALL, ALL, ALL, ALL),
    0x80000001: (
        ALL,
        ALL,
        # not: SVM, extended APIC, IBS, SKINIT, WDT, LWP, performance counters, MONITORX
        _bits(0, 5, 6, 7, 8, 11, 16, 21),
        _bits(range(10), range(11, 18), 19, 20, 22, 23, 24, 25, 26, 27, 29),
    ),
    0x80000002: (ALL, ALL, ALL, ALL),
    0x80000003: (ALL, ALL, ALL, ALL),
    0x80000004: (ALL, ALL, ALL, ALL),
    0x80000005: (ALL, ALL, ALL, ALL),
    0x80000006: (ALL, ALL, ALL, ALL),
    0x80000007: (0, 0, 0, _bits(8)),  # invariant TSC
    0x80000008: (ALL, _bits(0, 2, 9), ALL, 0),
    0x80000019: (ALL, ALL, 0, 0),
}

UNTRAPPED: dict[tuple[int, int], tuple[int, int, int, int]] = {
    (0x1, 0): (
        0,
        0,
        # SSE3, PCLMUL, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C,
        # RDRAND
        _bits(0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30),
        0,
    ),
    (0x7, 0): (
        0,
        _bits(0, 3, 5, 8, 9, 16, 17, 18, 19, 21, 23, 24, 28, 29, 30, 31),
        _bits(1, 6, 8, 9, 10, 11, 12, 14, 22),
        _bits(2, 3, 4, 8, 14, 23),
    ),
    (0x7, 1): (_bits(4, 5), 0, 0, _bits(4, 5)),
    (0xD, 1): (_bits(0, 1, 2), 0, 0, 0),
    (0x80000001, 0): (0, 0, _bits(0, 5, 6, 7, 8, 11, 16, 21), 0),
}
"""Leaf and subleaf: bits of EAX, EBX, ECX, EDX that are taken from the CPU."""

_LEAF7_SUBLEAF1 = (_bits(4, 5), 0, 0, _bits(4, 5))  # AVX-VNNI, AVX512-BF16
_XSAVE_EXTRAS = _bits(0, 1, 2)  # XSAVEOPT, XSAVEC, XGETBV(1); not XSAVES, not XFD


Registers = tuple[int, int, int, int]


def allowed(
    supported: Iterable[CpuidEntry], cpus: int, native: Callable[[int, int], Registers]
) -> list[CpuidEntry]:
    """The entries for KVM_SET_CPUID2, for a guest with `cpus` CPUs; `native` executes CPUID."""
    result = []
    for offered in supported:
        entry = _with_untrapped(offered, native)
        mask = MASKS.get(entry.function)
        if mask is None:
            continue
        if entry.function == 0x7 and entry.index == 1:
            mask = _LEAF7_SUBLEAF1
        elif entry.function == 0x7 and entry.index > 1:
            continue
        elif entry.function == 0xD and entry.index == 1:
            mask = (_XSAVE_EXTRAS, 0, 0, 0)
        elif entry.function == 0xD and entry.index > 1 and not XFEATURES >> entry.index & 1:
            continue
        elif entry.function == 0xD and entry.index == 0:
            mask = (XFEATURES, ALL, ALL, 0)
        entry = replace(
            entry,
            eax=entry.eax & mask[0],
            ebx=entry.ebx & mask[1],
            ecx=entry.ecx & mask[2],
            edx=entry.edx & mask[3],
        )
        if entry.function == 0x7 and entry.index == 0:
            entry = replace(entry, eax=min(entry.eax, 1))
        if entry.function == 0x1:
            siblings = min(cpus, 255) << 16
            entry = replace(entry, ebx=entry.ebx & ~0x00FF0000 | siblings)
        result.append(_trim_range(entry))
    return result


def _with_untrapped(entry: CpuidEntry, native: Callable[[int, int], Registers]) -> CpuidEntry:
    bits = UNTRAPPED.get((entry.function, entry.index))
    if bits is None:
        return entry
    eax, ebx, ecx, edx = (
        mask & value for mask, value in zip(bits, native(entry.function, entry.index), strict=True)
    )
    return replace(
        entry,
        eax=entry.eax | eax,
        ebx=entry.ebx | ebx,
        ecx=entry.ecx | ecx,
        edx=entry.edx | edx,
    )


def _trim_range(entry: CpuidEntry) -> CpuidEntry:
    """The first leaf of a range says which is the last: no further than the table above."""
    if entry.function in {0, 0x80000000}:
        last = max(leaf for leaf in MASKS if leaf >> 16 == entry.function >> 16)
        return replace(entry, eax=min(entry.eax, last))
    return entry


def leaf(entries: Iterable[CpuidEntry], function: int, index: int = 0) -> CpuidEntry:
    """One entry, all zero if there is none."""
    for entry in entries:
        if entry.function == function and entry.index == index:
            return entry
    return CpuidEntry(function, index, 0, 0, 0, 0, 0)


def xfeatures(entries: Iterable[CpuidEntry]) -> int:
    """XCR0 for these entries."""
    wanted = leaf(entries, 0xD).eax & XFEATURES
    return wanted if wanted & 0xE0 == 0xE0 else wanted & 0x7


def xsave_size(features: int, entries: Iterable[CpuidEntry]) -> int:
    """Bytes of an image in standard format: where the last component ends (SDM 1, 13.4)."""
    size = 576  # legacy area and header
    for entry in entries:
        if entry.function == 0xD and entry.index > 1 and features >> entry.index & 1:
            size = max(size, entry.ebx + entry.eax)
    return size


def initial_fpu(size: int) -> bytes:
    """An XSAVE image with every component in its initial state: FCW 0x37f, MXCSR 0x1f80."""
    image = bytearray(size)
    image[0:2] = (0x37F).to_bytes(2, "little")
    image[24:28] = (0x1F80).to_bytes(4, "little")
    return bytes(image)

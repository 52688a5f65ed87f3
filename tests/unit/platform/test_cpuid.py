"""What the program may see of the CPU."""

from __future__ import annotations

from kvm.cpuid import CpuidEntry
from sentry.platform import cpuid

ALL = 0xFFFFFFFF
LEAVES: tuple[int, ...] = (
    0,
    1,
    2,
    4,
    6,
    7,
    0xA,
    0xB,
    0xD,
    0x12,
    0x14,
    0x40000000,
    0x40000001,
    0x80000000,
)
LEAVES += (0x80000001, 0x80000007, 0x80000008, 0x8000000A, 0x8000001F)


def everything() -> list[CpuidEntry]:
    entries = [CpuidEntry(leaf, 0, 0, ALL, ALL, ALL, ALL) for leaf in LEAVES]
    return entries + [CpuidEntry(0xD, index, 1, 64, 576, 0, 0) for index in range(1, 20)]


def nothing(_leaf: int, _subleaf: int) -> tuple[int, int, int, int]:
    return 0, 0, 0, 0


def test_no_leaf_names_the_hypervisor() -> None:
    result = cpuid.allowed(everything(), 2, nothing)

    assert not [entry for entry in result if 0x40000000 <= entry.function < 0x80000000]
    assert not cpuid.leaf(result, 1).ecx >> 31 & 1


def test_features_that_nobody_would_save_are_hidden() -> None:
    result = cpuid.allowed(everything(), 2, nothing)
    seven = cpuid.leaf(result, 7)

    hidden_ebx = {"SGX": 2, "HLE": 4, "RTM": 11, "MPX": 14, "PT": 25}
    assert not {name for name, bit in hidden_ebx.items() if seven.ebx >> bit & 1}
    hidden_ecx = {"PKU": 3, "OSPKE": 4, "CET-SS": 7}
    assert not {name for name, bit in hidden_ecx.items() if seven.ecx >> bit & 1}
    hidden_edx = {"CET-IBT": 20, "AMX-BF16": 22, "AMX-TILE": 24, "AMX-INT8": 25}
    assert not {name for name, bit in hidden_edx.items() if seven.edx >> bit & 1}
    assert not cpuid.leaf(result, 1).ecx >> 5 & 1  # VMX
    assert not cpuid.leaf(result, 0x80000001).ecx >> 2 & 1  # SVM


def test_xcr0_has_no_state_beyond_avx512() -> None:
    result = cpuid.allowed(everything(), 2, nothing)

    assert cpuid.xfeatures(result) == 0xE7
    assert {entry.index for entry in result if entry.function == 0xD} == {0, 1, 2, 5, 6, 7}


def test_unprivileged_instructions_come_from_the_cpu_itself() -> None:
    plain = [CpuidEntry(1, 0, 0, 0, 0, 0, 0), CpuidEntry(7, 0, 1, 0, 0, 0, 0)]

    result = cpuid.allowed(plain, 2, lambda _leaf, _subleaf: (ALL, ALL, ALL, ALL))

    assert cpuid.leaf(result, 1).ecx >> 20 & 1  # SSE4.2
    assert cpuid.leaf(result, 7).ebx & 1  # FSGSBASE
    assert not cpuid.leaf(result, 7).ebx >> 11 & 1  # RTM stays hidden


def test_image_is_as_long_as_its_last_component() -> None:
    entries = [CpuidEntry(0xD, 2, 1, 256, 576, 0, 0), CpuidEntry(0xD, 9, 1, 8, 2688, 0, 0)]

    assert cpuid.xsave_size(0x7, entries) == 832
    assert cpuid.xsave_size(0x3, entries) == 576

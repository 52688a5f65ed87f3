"""What CPUID answers: the leaves of KVM_GET_SUPPORTED_CPUID and KVM_SET_CPUID2."""

from __future__ import annotations

from msgspec import Struct


class CpuidEntry(Struct, frozen=True):
    """What CPUID answers for one leaf (`function`, in EAX) and subleaf (`index`, in ECX).

    struct kvm_cpuid_entry2; the bits: SDM volume 2 "CPUID". All fields are of 32 bits.

    >>> CpuidEntry(0, 0, 0, eax=1, ebx=0x756E6547, ecx=0x6C65746E, edx=0x49656E69).eax
    1
    """

    function: int
    index: int
    flags: int
    """KVM_CPUID_FLAG_SIGNIFCANT_INDEX: the answer depends on ECX."""
    eax: int
    ebx: int
    ecx: int
    edx: int

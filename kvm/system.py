"""/dev/kvm itself: what it supports, and virtual machines."""

from __future__ import annotations

import os

from msgspec import Struct

from kvm.binding import check, ffi, lib
from kvm.vm import VM

DEVICE = "/dev/kvm"
_MAX_CPUID_ENTRIES = 256


class CpuidEntry(Struct, frozen=True):
    """What CPUID answers for one leaf (`function`) and subleaf (`index`)."""

    function: int
    index: int
    flags: int
    eax: int
    ebx: int
    ecx: int
    edx: int


class Unavailable(RuntimeError):
    """There is no usable /dev/kvm; the text says why."""


class System:
    """An open /dev/kvm: opened here, or by somebody else before and handed over as `fd`.

    Raises: Unavailable, when it cannot be opened or speaks another version of the interface.
    """

    def __init__(self, device: str = DEVICE, fd: int = -1) -> None:
        self.fd = fd
        try:
            if fd < 0:
                self.fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"{device}: {error.strerror}") from error
        version = lib.kvm_ioctl(self.fd, lib.KVM_GET_API_VERSION, 0)
        if version != lib.KVM_API_VERSION:
            self.close()
            raise Unavailable(f"{device}: version {version} of the interface is not supported")

    def close(self) -> None:
        """Close the device; machines made from it live on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def capability(self, number: int) -> int:
        """KVM_CHECK_EXTENSION: 0 when unsupported, else 1 or a number with the meaning of it."""
        return check(lib.kvm_ioctl(self.fd, lib.KVM_CHECK_EXTENSION, number), "KVM_CHECK_EXTENSION")

    def vcpu_map_size(self) -> int:
        """Bytes of a vCPU's kvm_run mapping."""
        request = lib.KVM_GET_VCPU_MMAP_SIZE
        return check(lib.kvm_ioctl(self.fd, request, 0), "KVM_GET_VCPU_MMAP_SIZE")

    def supported_cpuid(self) -> list[CpuidEntry]:
        """What the host's CPU and KVM can offer to a guest."""
        # SAFETY: nent says how many entries the buffer has room for.
        buffer = ffi.new("struct kvm_cpuid2 *", {"entries": _MAX_CPUID_ENTRIES})
        buffer.nent = _MAX_CPUID_ENTRIES
        request = lib.KVM_GET_SUPPORTED_CPUID
        check(lib.kvm_ioctl_ptr(self.fd, request, buffer), "KVM_GET_SUPPORTED_CPUID")
        entries = (buffer.entries[i] for i in range(buffer.nent))
        return [
            CpuidEntry(e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx) for e in entries
        ]

    def create_vm(self) -> VM:
        """A new machine without memory and vCPUs, of the default type."""
        fd = check(lib.kvm_ioctl(self.fd, lib.KVM_CREATE_VM, 0), "KVM_CREATE_VM")
        return VM(fd, self.vcpu_map_size())

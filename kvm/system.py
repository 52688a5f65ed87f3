"""/dev/kvm itself: what it supports, and virtual machines."""

from __future__ import annotations

import os

from kvm.binding import Descriptor, ffi, ioctl, ioctl_pointer, lib
from kvm.cpuid import CpuidEntry
from kvm.errors import Unavailable
from kvm.vm import VM

DEVICE = "/dev/kvm"
_MAX_CPUID_ENTRIES = 256


class System(Descriptor):
    """An open /dev/kvm: opened here, or by somebody else before and handed over as `fd`.

    Raises: Unavailable, when it cannot be opened or speaks another version of the interface.

    >>> from kvm.binding import lib
    >>> with System() as system:
    ...     system.capability(lib.KVM_CAP_USER_MEMORY)
    1
    """

    def __init__(self, device: str = DEVICE, fd: int = -1) -> None:
        try:
            super().__init__(fd if fd >= 0 else os.open(device, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise Unavailable(f"{device}: {error.strerror}") from error
        version = lib.kvm_ioctl(self.fd, lib.KVM_GET_API_VERSION, 0)
        if version != lib.KVM_API_VERSION:
            self.close()
            raise Unavailable(f"{device}: version {version} of the interface is not supported")

    def capability(self, number: int) -> int:
        """KVM_CHECK_EXTENSION (api.rst 4.4): 0 when unsupported, else 1 or a number that has a
        meaning of its own. `number`: KVM_CAP_* of `kvm.binding.lib`. Raises: OSError.

        >>> with System() as system:
        ...     system.capability(lib.KVM_CAP_MAX_VCPUS) >= system.capability(lib.KVM_CAP_NR_VCPUS)
        True
        """
        return ioctl(self.fd, "KVM_CHECK_EXTENSION", number)

    def vcpu_map_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE (4.5): bytes of a vCPU's kvm_run mapping. Raises: OSError.

        >>> with System() as system:
        ...     system.vcpu_map_size() % 4096
        0
        """
        return ioctl(self.fd, "KVM_GET_VCPU_MMAP_SIZE")

    def supported_cpuid(self) -> list[CpuidEntry]:
        """KVM_GET_SUPPORTED_CPUID (4.46): what the host's CPU and KVM can offer to a guest, to be
        cut and given to VCPU.set_cpuid. Raises: OSError.

        >>> with System() as system:
        ...     first = system.supported_cpuid()[0]
        >>> first.function, first.eax > 0
        (0, True)
        """
        # SAFETY: nent says how many entries the buffer has room for.
        buffer = ffi.new("struct kvm_cpuid2 *", {"entries": _MAX_CPUID_ENTRIES})
        buffer.nent = _MAX_CPUID_ENTRIES
        ioctl_pointer(self.fd, "KVM_GET_SUPPORTED_CPUID", buffer)
        entries = (buffer.entries[i] for i in range(buffer.nent))
        return [
            CpuidEntry(e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx) for e in entries
        ]

    def create_vm(self) -> VM:
        """KVM_CREATE_VM (4.2): a new machine without memory and vCPUs, of the default type. It
        lives on when the system is closed. Raises: OSError.

        >>> with System() as system, system.create_vm() as vm:
        ...     vm.fd > system.fd
        True
        """
        return VM(ioctl(self.fd, "KVM_CREATE_VM"), self.vcpu_map_size())

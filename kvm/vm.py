"""A virtual machine: memory slots and vCPUs."""

from __future__ import annotations

from msgspec import Struct

from kvm.binding import Descriptor, ffi, ioctl, ioctl_pointer, lib
from kvm.vcpu import VCPU


class MemorySlot(Struct, frozen=True):
    """A range of guest-physical memory and the host memory behind it.

    struct kvm_userspace_memory_region. Addresses and size are in bytes, multiples of 4096.

    >>> import mmap
    >>> from kvm.binding import address_of
    >>> memory = mmap.mmap(-1, 0x2000)
    >>> slot = MemorySlot(0, 0x1000, len(memory), address_of(memory))
    >>> slot.host_address % 4096, slot.readonly
    (0, False)
    """

    number: int
    """Less than KVM_CAP_NR_MEMSLOTS."""
    guest_address: int
    size: int
    """0 removes the slot."""
    host_address: int
    readonly: bool = False
    """The guest's stores become MmioWrite exits."""


class VM(Descriptor):
    """A machine made by System.create_vm; it owns its descriptor.

    Closed, it is kept by the kernel as long as a vCPU of it is open.

    >>> from kvm.system import System
    >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
    ...     hex(cpu.registers()["rip"])
    '0xfff0'
    """

    def __init__(self, fd: int, vcpu_map_size: int) -> None:
        super().__init__(fd)
        self._vcpu_map_size = vcpu_map_size

    def capability(self, number: int) -> int:
        """KVM_CHECK_EXTENSION of this machine (api.rst 4.4): may be less than the system's.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm:
        ...     vm.capability(lib.KVM_CAP_NR_MEMSLOTS) >= 32
        True
        """
        return ioctl(self.fd, "KVM_CHECK_EXTENSION", number)

    def set_memory(self, slot: MemorySlot) -> None:
        """KVM_SET_USER_MEMORY_REGION (4.35): add a slot or change it.

        Preconditions: the host memory stays mapped until the slot is removed or the machine is
        gone. SAFETY: KVM itself checks that the addresses belong to this process.
        Raises: OSError: EEXIST (slots overlap), EINVAL (unaligned, or no such number).

        >>> import mmap
        >>> from kvm.binding import address_of
        >>> from kvm.system import System
        >>> memory = mmap.mmap(-1, 4096)
        >>> with System() as system, system.create_vm() as vm:
        ...     vm.set_memory(MemorySlot(0, 0x1000, 4096, address_of(memory)))
        ...     vm.remove_memory(0)
        """
        region = ffi.new(
            "struct kvm_userspace_memory_region *",
            {
                "slot": slot.number,
                "flags": lib.KVM_MEM_READONLY if slot.readonly else 0,
                "guest_phys_addr": slot.guest_address,
                "memory_size": slot.size,
                "userspace_addr": slot.host_address,
            },
        )
        ioctl_pointer(self.fd, "KVM_SET_USER_MEMORY_REGION", region)

    def remove_memory(self, number: int) -> None:
        """Remove a slot, and with it every translation into it. Raises: OSError."""
        self.set_memory(MemorySlot(number, 0, 0, 0))

    def set_tss_address(self, address: int) -> None:
        """KVM_SET_TSS_ADDR (4.43): three guest-physical pages below 4 GiB, without a slot, that
        KVM uses itself on Intel CPUs for real mode. Raises: OSError.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm:
        ...     vm.set_tss_address(0xFFFBD000)
        """
        ioctl(self.fd, "KVM_SET_TSS_ADDR", address)

    def create_vcpu(self, number: int) -> VCPU:
        """KVM_CREATE_VCPU (4.7): a new vCPU in the state after a reset. Raises: OSError: EEXIST.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     cpu.fd > vm.fd
        True
        """
        return VCPU(ioctl(self.fd, "KVM_CREATE_VCPU", number), self._vcpu_map_size)

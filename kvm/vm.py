"""A virtual machine: memory slots and vCPUs."""

from __future__ import annotations

import os

from msgspec import Struct

from kvm.binding import check, ffi, lib
from kvm.vcpu import VCPU


class MemorySlot(Struct, frozen=True):
    """A range of guest-physical memory and the host memory behind it."""

    number: int
    guest_address: int
    size: int
    host_address: int
    readonly: bool = False


class VM:
    """A machine made by System.create_vm; it owns its descriptor."""

    def __init__(self, fd: int, vcpu_map_size: int) -> None:
        self.fd = fd
        self._vcpu_map_size = vcpu_map_size

    def close(self) -> None:
        """Close the descriptor; the kernel keeps the machine while a vCPU of it is open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def capability(self, number: int) -> int:
        """KVM_CHECK_EXTENSION of this machine."""
        return check(lib.kvm_ioctl(self.fd, lib.KVM_CHECK_EXTENSION, number), "KVM_CHECK_EXTENSION")

    def set_memory(self, slot: MemorySlot) -> None:
        """Add or change a slot.

        Preconditions: the host memory stays mapped until the slot is removed or the machine is
        gone. SAFETY: KVM itself checks that the addresses belong to this process.
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
        request = lib.KVM_SET_USER_MEMORY_REGION
        check(lib.kvm_ioctl_ptr(self.fd, request, region), "KVM_SET_USER_MEMORY_REGION")

    def remove_memory(self, number: int) -> None:
        """Remove a slot, and with it every translation into it."""
        self.set_memory(MemorySlot(number, 0, 0, 0))

    def set_tss_address(self, address: int) -> None:
        """Three guest-physical pages that KVM may use itself on Intel CPUs."""
        check(lib.kvm_ioctl(self.fd, lib.KVM_SET_TSS_ADDR, address), "KVM_SET_TSS_ADDR")

    def create_vcpu(self, number: int) -> VCPU:
        """A new vCPU in the state after a reset."""
        fd = check(lib.kvm_ioctl(self.fd, lib.KVM_CREATE_VCPU, number), "KVM_CREATE_VCPU")
        return VCPU(fd, self._vcpu_map_size)

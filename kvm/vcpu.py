"""A virtual CPU: registers, CPUID, MSRs, and running it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kvm import exits
from kvm.binding import check, ffi, lib

if TYPE_CHECKING:
    from kvm.system import CpuidEntry

REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)


class VCPU:
    """A vCPU made by VM.create_vcpu; it owns its descriptor and the mapping of its kvm_run."""

    def __init__(self, fd: int, map_size: int) -> None:
        self.fd = fd
        self._map_size = map_size
        self._run = lib.run_map(fd, map_size)
        if self._run == ffi.NULL:
            os.close(fd)
            raise OSError(errno.ENOMEM, "mapping kvm_run")

    @property
    def run_address(self) -> int:
        """Host address of kvm_run, for a C thread that runs this vCPU; valid until close."""
        return int(lib.run_address(self._run))

    def close(self) -> None:
        """Unmap kvm_run and close the descriptor."""
        if self.fd >= 0:
            lib.run_unmap(self._run, self._map_size)
            os.close(self.fd)
            self.fd = -1

    def _ioctl(self, request: str, pointer: Any) -> int:
        return check(lib.kvm_ioctl_ptr(self.fd, getattr(lib, request), pointer), request)

    def registers(self) -> dict[str, int]:
        """The general registers, RIP and RFLAGS."""
        regs = ffi.new("struct kvm_regs *")
        self._ioctl("KVM_GET_REGS", regs)
        return {name: getattr(regs, name) for name in REGISTERS}

    def set_registers(self, **values: int) -> None:
        """Set the named registers and leave the others as they are."""
        regs = ffi.new("struct kvm_regs *")
        self._ioctl("KVM_GET_REGS", regs)
        for name, value in values.items():
            setattr(regs, name, value)
        self._ioctl("KVM_SET_REGS", regs)

    def special_registers(self) -> Any:
        """Segments, descriptor tables and control registers: a struct kvm_sregs."""
        sregs = ffi.new("struct kvm_sregs *")
        self._ioctl("KVM_GET_SREGS", sregs)
        return sregs

    def set_special_registers(self, sregs: Any) -> None:
        """Set what special_registers gave."""
        self._ioctl("KVM_SET_SREGS", sregs)

    def set_cpuid(self, entries: Iterable[CpuidEntry]) -> None:
        """KVM_SET_CPUID2: what CPUID answers in the guest. Before the first run."""
        leaves = list(entries)
        buffer = ffi.new("struct kvm_cpuid2 *", {"entries": len(leaves)})
        buffer.nent = len(leaves)
        for place, leaf in zip(buffer.entries, leaves, strict=True):
            place.function, place.index, place.flags = leaf.function, leaf.index, leaf.flags
            place.eax, place.ebx, place.ecx, place.edx = leaf.eax, leaf.ebx, leaf.ecx, leaf.edx
        self._ioctl("KVM_SET_CPUID2", buffer)

    def set_msr(self, index: int, value: int) -> None:
        """Write one model-specific register."""
        buffer = ffi.new("struct kvm_msrs *", {"entries": 1})
        buffer.nmsrs = 1
        buffer.entries[0].index, buffer.entries[0].data = index, value
        if self._ioctl("KVM_SET_MSRS", buffer) != 1:
            raise OSError(errno.EINVAL, f"MSR {index:#x} cannot be set to {value:#x}")

    def set_xcr0(self, value: int) -> None:
        """Which state XSAVE manages, SDM volume 1 section 13.3."""
        xcrs = ffi.new("struct kvm_xcrs *")
        xcrs.nr_xcrs = 1
        xcrs.xcrs[0].value = value
        self._ioctl("KVM_SET_XCRS", xcrs)

    def set_tsc_offset(self, offset: int) -> bool:
        """What the guest's TSC shows more than the host's; false where this cannot be set."""
        value = ffi.new("uint64_t *", offset)
        attribute = ffi.new("struct kvm_device_attr *")
        attribute.group, attribute.attr = lib.KVM_VCPU_TSC_CTRL, lib.KVM_VCPU_TSC_OFFSET
        attribute.addr = int(ffi.cast("uintptr_t", value))
        return int(lib.kvm_ioctl_ptr(self.fd, lib.KVM_SET_DEVICE_ATTR, attribute)) == 0

    def run(self) -> exits.Exit:
        """Run the guest until it exits.

        Raises: OSError, when KVM_RUN fails for another reason than a signal or missing memory.
        """
        result = lib.kvm_ioctl(self.fd, lib.KVM_RUN, 0)
        if result == -errno.EINTR:
            return exits.Interrupted()
        if result == -errno.EFAULT:
            return exits.BadMemory()
        check(result, "KVM_RUN")
        return self._decode(lib.run_reason(self._run))

    def request_exit(self, wanted: bool = True) -> None:
        """immediate_exit: the next run returns Interrupted after finishing what is pending."""
        lib.run_immediate_exit(self._run, wanted)

    def complete_read(self, data: bytes) -> None:
        """Answer an MmioRead; the next run gives the guest these bytes."""
        ffi.buffer(lib.run_mmio_data(self._run), len(data))[:] = data

    def complete_in(self, data: bytes) -> None:
        """Answer a PortIn."""
        self._port_buffer(len(data))[:] = data

    def _port_buffer(self, size: int) -> Any:
        # SAFETY: run_io_data checks the place and length that the kernel gave against the mapping.
        place = lib.run_io_data(self._run, self._map_size)
        if place == ffi.NULL:
            raise OSError(errno.EFAULT, "port data outside kvm_run")
        return ffi.buffer(place, size)

    def _decode(self, reason: int) -> exits.Exit:
        run = self._run
        if reason == lib.KVM_EXIT_HLT:
            return exits.Hlt()
        if reason == lib.KVM_EXIT_MMIO:
            address, size = lib.run_mmio_address(run), lib.run_mmio_length(run)
            if not lib.run_mmio_is_write(run):
                return exits.MmioRead(address, size)
            return exits.MmioWrite(address, bytes(ffi.buffer(lib.run_mmio_data(run), size)))
        if reason == lib.KVM_EXIT_IO:
            port, size, count = lib.run_io_port(run), lib.run_io_size(run), lib.run_io_count(run)
            if not lib.run_io_is_out(run):
                return exits.PortIn(port, size, count)
            return exits.PortOut(port, size, bytes(self._port_buffer(size * count)))
        if reason == lib.KVM_EXIT_SHUTDOWN:
            return exits.Shutdown()
        if reason == lib.KVM_EXIT_FAIL_ENTRY:
            return exits.FailEntry(lib.run_fail_reason(run))
        if reason == lib.KVM_EXIT_INTERNAL_ERROR:
            count = lib.run_internal_count(run)
            data = tuple(lib.run_internal_data(run, i) for i in range(count))
            return exits.InternalError(lib.run_suberror(run), data)
        if reason == lib.KVM_EXIT_SYSTEM_EVENT:
            return exits.SystemEvent(lib.run_system_event(run))
        if reason == lib.KVM_EXIT_INTR:
            return exits.Interrupted()
        return exits.Unknown(reason)

"""A virtual CPU: registers, CPUID, MSRs, and running it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Unpack, cast

import msgspec

from kvm import exits
from kvm.binding import Descriptor, check, ffi, ioctl_pointer, lib
from kvm.cpuid import CpuidEntry
from kvm.registers import Registers, Segment, SpecialRegisters, Table

if TYPE_CHECKING:
    from kvm._kvm import Buffer


class VCPU(Descriptor):
    """A vCPU made by VM.create_vcpu; it owns its descriptor and the mapping of its kvm_run.

    KVM wants all calls of one vCPU to come from one thread at a time.

    >>> import mmap
    >>> from kvm.binding import address_of
    >>> from kvm.system import System
    >>> from kvm.vm import MemorySlot
    >>> memory = mmap.mmap(-1, 4096)
    >>> memory[:3] = bytes.fromhex("00d8 f4")  # add al, bl; hlt
    >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
    ...     vm.set_memory(MemorySlot(0, 0x1000, 4096, address_of(memory)))
    ...     sregs = cpu.special_registers()
    ...     sregs.cs.base = sregs.cs.selector = 0  # real mode, as after a reset
    ...     cpu.set_special_registers(sregs)
    ...     cpu.set_registers(rip=0x1000, rflags=2, rax=2, rbx=3)
    ...     cpu.run()
    ...     cpu.registers()["rax"]
    Hlt()
    5
    """

    def __init__(self, fd: int, map_size: int) -> None:
        super().__init__(fd)
        self._map_size = map_size
        self._run = lib.run_map(fd, map_size)
        if self._run == ffi.NULL:
            os.close(fd)
            raise OSError(errno.ENOMEM, "mapping kvm_run")

    @property
    def run_address(self) -> int:
        """Host address of kvm_run, for a C thread that runs this vCPU; valid until close."""
        return lib.run_address(self._run)

    def close(self) -> None:
        """Unmap kvm_run and close the descriptor, once."""
        if self.fd >= 0:
            lib.run_unmap(self._run, self._map_size)
        super().close()

    def registers(self) -> Registers:
        """KVM_GET_REGS (api.rst 4.11): the general registers, RIP and RFLAGS. Raises: OSError."""
        regs = ffi.new("struct kvm_regs *")
        ioctl_pointer(self.fd, "KVM_GET_REGS", regs)
        return cast(Registers, {name: getattr(regs, name) for name in Registers.__annotations__})

    def set_registers(self, **values: Unpack[Registers]) -> None:
        """KVM_SET_REGS (4.12): set the named registers, leave the others. Raises: OSError."""
        regs = ffi.new("struct kvm_regs *")
        ioctl_pointer(self.fd, "KVM_GET_REGS", regs)
        for name, value in values.items():
            setattr(regs, name, value)
        ioctl_pointer(self.fd, "KVM_SET_REGS", regs)

    def special_registers(self) -> SpecialRegisters:
        """KVM_GET_SREGS (4.13): segments, descriptor tables, control registers. Raises: OSError.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     hex(cpu.special_registers().cs.base)
        '0xffff0000'
        """
        sregs = ffi.new("struct kvm_sregs *")
        ioctl_pointer(self.fd, "KVM_GET_SREGS", sregs)
        return msgspec.convert(sregs, SpecialRegisters, from_attributes=True)

    def set_special_registers(self, values: SpecialRegisters) -> None:
        """KVM_SET_SREGS (4.14). Raises: OSError: EINVAL for a state that no CPU can have.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     sregs = cpu.special_registers()
        ...     sregs.cr3 = 0x5000
        ...     cpu.set_special_registers(sregs)
        ...     hex(cpu.special_registers().cr3)
        '0x5000'
        """
        sregs = ffi.new("struct kvm_sregs *")
        ioctl_pointer(self.fd, "KVM_GET_SREGS", sregs)
        for name in values.__struct_fields__:
            value: int | Segment | Table = getattr(values, name)
            if isinstance(value, int):
                setattr(sregs, name, value)
                continue
            place = getattr(sregs, name)
            for field in value.__struct_fields__:
                setattr(place, field, getattr(value, field))
        ioctl_pointer(self.fd, "KVM_SET_SREGS", sregs)

    def set_cpuid(self, entries: Iterable[CpuidEntry]) -> None:
        """KVM_SET_CPUID2 (4.21): what CPUID answers in the guest. Before the first run.

        Raises: OSError: EINVAL after it, E2BIG.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     cpu.set_cpuid(entry for entry in system.supported_cpuid() if entry.function < 2)
        """
        leaves = list(entries)
        buffer = ffi.new("struct kvm_cpuid2 *", {"entries": len(leaves)})
        buffer.nent = len(leaves)
        for number, leaf in enumerate(leaves):
            place = buffer.entries[number]
            place.function, place.index, place.flags = leaf.function, leaf.index, leaf.flags
            place.eax, place.ebx, place.ecx, place.edx = leaf.eax, leaf.ebx, leaf.ecx, leaf.edx
        ioctl_pointer(self.fd, "KVM_SET_CPUID2", buffer)

    def set_msr(self, index: int, value: int) -> None:
        """KVM_SET_MSRS (4.18): write one model-specific register, of 64 bits.

        Raises: OSError: EINVAL if there is none of this number or it cannot have this value.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     cpu.set_msr(0xC0000082, 0x1000)  # IA32_LSTAR
        """
        buffer = ffi.new("struct kvm_msrs *", {"entries": 1})
        buffer.nmsrs = 1
        buffer.entries[0].index, buffer.entries[0].data = index, value
        if ioctl_pointer(self.fd, "KVM_SET_MSRS", buffer) != 1:
            raise OSError(errno.EINVAL, f"MSR {index:#x} cannot be set to {value:#x}")

    def set_xcr0(self, value: int) -> None:
        """KVM_SET_XCRS (4.56): which state XSAVE manages, SDM volume 1 section 13.3.

        Preconditions: set_cpuid allows the state. Raises: OSError: EINVAL.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     cpu.set_cpuid(system.supported_cpuid())
        ...     cpu.set_xcr0(3)  # x87 and SSE
        """
        xcrs = ffi.new("struct kvm_xcrs *")
        xcrs.nr_xcrs = 1
        xcrs.xcrs[0].value = value
        ioctl_pointer(self.fd, "KVM_SET_XCRS", xcrs)

    def set_tsc_offset(self, offset: int) -> bool:
        """KVM_VCPU_TSC_OFFSET (devices/vcpu.rst 4.1): ticks that the guest's TSC shows more than
        the host's; False where this cannot be set.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     cpu.set_tsc_offset(0) in (True, False)
        True
        """
        value = ffi.new("uint64_t *", offset)
        attribute = ffi.new("struct kvm_device_attr *")
        attribute.group, attribute.attr = lib.KVM_VCPU_TSC_CTRL, lib.KVM_VCPU_TSC_OFFSET
        attribute.addr = int(ffi.cast("uintptr_t", value))
        return lib.kvm_ioctl_ptr(self.fd, lib.KVM_SET_DEVICE_ATTR, attribute) == 0

    def run(self) -> exits.Exit:
        """KVM_RUN (4.10): run the guest until it exits; exits.py has an example of each.

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
        """immediate_exit (5): the next run returns Interrupted after finishing what is pending.

        >>> from kvm.system import System
        >>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
        ...     cpu.request_exit()
        ...     cpu.run()
        Interrupted()
        """
        lib.run_immediate_exit(self._run, wanted)

    def complete_read(self, data: bytes) -> None:
        """Answer an MmioRead; the next run gives the guest these bytes.

        Raises: ValueError, unless they are as many as it asked for.
        """
        size = lib.run_mmio_length(self._run)
        if len(data) != size:
            raise ValueError(f"a load of {size} bytes is answered with {len(data)}")
        ffi.buffer(lib.run_mmio_data(self._run), size)[:] = data

    def complete_in(self, data: bytes) -> None:
        """Answer a PortIn; the next run gives the guest these bytes.

        Raises: ValueError, unless they are `size * count`.
        """
        size = lib.run_io_size(self._run) * lib.run_io_count(self._run)
        if len(data) != size:
            raise ValueError(f"an input of {size} bytes is answered with {len(data)}")
        self._port_buffer(size)[:] = data

    def _port_buffer(self, size: int) -> Buffer:
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

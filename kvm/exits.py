"""Why KVM_RUN returned: one frozen struct for each reason, to be told apart with `match`.

The reasons and their payload: Documentation/virt/kvm/api.rst of Linux, section 5 "The kvm_run
structure". A guest in real mode that makes five of them:

>>> import mmap
>>> from kvm import exits
>>> from kvm.binding import address_of
>>> from kvm.system import System
>>> from kvm.vm import MemorySlot
>>> memory = mmap.mmap(-1, 4096)
>>> code = "e460 e680 a00080 a20090 f4"  # in al, 0x60; out 0x80, al; load, store al; hlt
>>> memory[:11] = bytes.fromhex(code)
>>> with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as cpu:
...     vm.set_memory(MemorySlot(0, 0x1000, 4096, address_of(memory)))
...     sregs = cpu.special_registers()
...     sregs.cs.base = sregs.cs.selector = 0
...     cpu.set_special_registers(sregs)
...     cpu.set_registers(rip=0x1000, rflags=2)
...     running = True
...     while running:
...         match cpu.run():
...             case exits.PortIn(port, size, count):
...                 cpu.complete_in(bytes([7]) * size * count)
...             case exits.PortOut(port, data=data):
...                 print(f"out {port:#x} {data.hex()}")
...             case exits.MmioRead(address, size):
...                 cpu.complete_read(bytes([9]) * size)
...             case exits.MmioWrite(address, data):
...                 print(f"store {address:#x} {data.hex()}")
...             case exits.Hlt():
...                 running = False
...             case other:
...                 raise RuntimeError(f"unexpected: {other}")
out 0x80 07
store 0x9000 09
"""

from __future__ import annotations

from msgspec import Struct


class Hlt(Struct, frozen=True):
    """KVM_EXIT_HLT: the guest executed HLT, and KVM emulates no interrupt controller."""


class MmioRead(Struct, frozen=True):
    """KVM_EXIT_MMIO: a load of `size` bytes (1 to 8) from a guest-physical address without a slot.

    Answer with VCPU.complete_read.
    """

    address: int
    size: int


class MmioWrite(Struct, frozen=True):
    """KVM_EXIT_MMIO: a store to an address without a memory slot, or to a read-only slot."""

    address: int
    data: bytes


class PortIn(Struct, frozen=True):
    """KVM_EXIT_IO: IN or INS of `count` items of `size` bytes: answer with VCPU.complete_in."""

    port: int
    size: int
    count: int


class PortOut(Struct, frozen=True):
    """KVM_EXIT_IO: OUT or OUTS of items of `size` bytes, one after the other in `data`."""

    port: int
    size: int
    data: bytes


class Interrupted(Struct, frozen=True):
    """EINTR or KVM_EXIT_INTR: a signal came, or VCPU.request_exit was called."""


class Shutdown(Struct, frozen=True):
    """KVM_EXIT_SHUTDOWN: a triple fault."""


class FailEntry(Struct, frozen=True):
    """KVM_EXIT_FAIL_ENTRY: the CPU refused the guest's state; `reason` is the hardware's code."""

    reason: int


class InternalError(Struct, frozen=True):
    """KVM_EXIT_INTERNAL_ERROR: KVM cannot go on, as with an instruction it cannot emulate."""

    suberror: int
    """KVM_INTERNAL_ERROR_*"""
    data: tuple[int, ...]


class SystemEvent(Struct, frozen=True):
    """KVM_EXIT_SYSTEM_EVENT: the guest asked for a reset, a shutdown and the like."""

    kind: int
    """KVM_SYSTEM_EVENT_*"""


class BadMemory(Struct, frozen=True):
    """KVM_RUN failed with EFAULT: no host memory behind a guest-physical address."""


class Unknown(Struct, frozen=True):
    """A reason that this package does not decode."""

    reason: int
    """KVM_EXIT_*"""


Exit = (
    Hlt
    | MmioRead
    | MmioWrite
    | PortIn
    | PortOut
    | Interrupted
    | Shutdown
    | FailEntry
    | InternalError
    | SystemEvent
    | BadMemory
    | Unknown
)

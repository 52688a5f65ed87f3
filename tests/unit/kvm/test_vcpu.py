"""VM and VCPU: tiny programs in real mode, one for each kind of exit."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from kvm import exits
from kvm.binding import address_of
from kvm.system import System
from kvm.vcpu import VCPU
from kvm.vm import VM, MemorySlot

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs /dev/kvm"),
]

CODE = 0x1000


class Guest:
    """A vCPU in real mode over one page."""

    def __init__(self) -> None:
        self.system = System()
        self.vm: VM = self.system.create_vm()
        self.memory = mmap.mmap(-1, 4096)
        self.vm.set_memory(MemorySlot(0, CODE, 4096, address_of(self.memory)))
        self.vcpu: VCPU = self.vm.create_vcpu(0)
        sregs = self.vcpu.special_registers()
        sregs.cs.base = sregs.cs.selector = 0
        self.vcpu.set_special_registers(sregs)

    def run(self, code: str, **registers: int) -> exits.Exit:
        self.memory.seek(0)
        self.memory.write(bytes.fromhex(code))
        self.vcpu.set_registers(rip=CODE, rflags=2, **registers)
        return self.vcpu.run()


@pytest.fixture
def guest() -> Iterator[Guest]:
    guest = Guest()
    yield guest
    guest.vcpu.close()
    guest.vm.close()
    guest.system.close()


def test_hlt_exits(guest: Guest) -> None:
    assert guest.run("f4") == exits.Hlt()


def test_out_gives_port_and_data(guest: Guest) -> None:
    assert guest.run("e680 f4", rax=0x5A) == exits.PortOut(0x80, 1, b"\x5a")
    assert guest.vcpu.run() == exits.Hlt()


def test_in_gets_what_the_caller_answers(guest: Guest) -> None:
    assert guest.run("e480 f4") == exits.PortIn(0x80, 1, 1)

    guest.vcpu.complete_in(b"\x77")

    assert guest.vcpu.run() == exits.Hlt()
    assert guest.vcpu.registers()["rax"] & 0xFF == 0x77


def test_store_without_memory_is_an_mmio_write(guest: Guest) -> None:
    assert guest.run("a20080 f4", rax=0x42) == exits.MmioWrite(0x8000, b"\x42")


def test_load_without_memory_gets_what_the_caller_answers(guest: Guest) -> None:
    assert guest.run("a00080 f4") == exits.MmioRead(0x8000, 1)

    guest.vcpu.complete_read(b"\x99")

    assert guest.vcpu.run() == exits.Hlt()
    assert guest.vcpu.registers()["rax"] & 0xFF == 0x99


def test_answers_of_another_size_are_refused(guest: Guest) -> None:
    guest.run("e480 a00080 f4")
    with pytest.raises(ValueError, match="input of 1 bytes"):
        guest.vcpu.complete_in(bytes(5000))
    guest.vcpu.run()
    with pytest.raises(ValueError, match="load of 1 bytes"):
        guest.vcpu.complete_read(bytes(9))


def test_special_registers_are_what_was_set(guest: Guest) -> None:
    wanted = guest.vcpu.special_registers()
    wanted.cr3, wanted.ds.base, wanted.gdt.limit = 0x3000, 0x1230, 0x17

    guest.vcpu.set_special_registers(wanted)

    assert guest.vcpu.special_registers() == wanted


def test_requested_exit_comes_at_once(guest: Guest) -> None:
    guest.vcpu.request_exit()

    assert guest.run("ebfe") == exits.Interrupted()


def test_set_registers_leaves_the_others_alone(guest: Guest) -> None:
    guest.vcpu.set_registers(rbx=1)
    guest.vcpu.set_registers(rcx=2)

    registers = guest.vcpu.registers()

    assert (registers["rbx"], registers["rcx"]) == (1, 2)


def test_unknown_msr_is_an_error(guest: Guest) -> None:
    with pytest.raises(OSError, match="MSR"):
        guest.vcpu.set_msr(0x12345678, 1)


def test_removed_memory_is_gone(guest: Guest) -> None:
    guest.run("f4")

    guest.vm.remove_memory(0)

    assert not isinstance(guest.run("f4"), exits.Hlt)


def test_overlapping_memory_is_refused(guest: Guest) -> None:
    other = mmap.mmap(-1, 4096)
    with pytest.raises(OSError, match="KVM_SET_USER_MEMORY_REGION"):
        guest.vm.set_memory(MemorySlot(1, CODE, 4096, address_of(other)))

"""The vDSO: the clocks agree with the host's and never go back; past the horizon it asks."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from sentry.platform.interface import ExitKind, Reg

CODE, DATA, VDSO = 0x400000, 0x600000, 0x10000000
CLOCK_GETTIME, GETTIMEOFDAY, TIME = 228, 96, 201
REALTIME, MONOTONIC, MONOTONIC_COARSE, BOOTTIME = 0, 1, 6, 7


def symbol(name: str) -> int:
    guest_stubs = pytest.importorskip("guest_stubs")
    table: Any = ELFFile(io.BytesIO(guest_stubs.vdso())).get_section_by_name(".dynsym")
    (found,) = table.get_symbol_by_name(name)
    return int(found["st_value"])


def start(machine: Any, source: str, **regs: int) -> Any:
    vdso = getattr(machine.platform, "vdso", None)
    if vdso is None:
        pytest.skip("this platform has no vDSO")
    space = machine.space(source)
    space.map_frames(VDSO - 4096, vdso.gpa, 2, 5)
    vdso.refresh()
    context = machine.context(space, **regs)
    context.resume()
    return context


def ask(machine: Any, function: str, *arguments: int) -> Any:
    source = "sub $8, %rsp; call *%rbx; mov %rax, %rdi; mov $60, %eax; syscall"
    regs = dict(zip(("rdi", "rsi"), arguments, strict=False))
    context = start(machine, source, rbx=VDSO + symbol(function), **regs)
    assert machine.exit_of(context) == ExitKind.SYSCALL
    return context


@pytest.mark.parametrize("clock", [REALTIME, MONOTONIC, BOOTTIME])
def test_clock_gettime_agrees_with_the_host(machine: Any, clock: int) -> None:
    before = time.clock_gettime_ns(clock)

    context = ask(machine, "__vdso_clock_gettime", clock, DATA)

    after = time.clock_gettime_ns(clock)
    if context.regs[Reg.ORIG_RAX] == CLOCK_GETTIME:
        pytest.skip("the horizon was passed, or this machine's TSC is of no use")
    assert context.regs[Reg.RDI] == 0
    seconds, nanoseconds = struct.unpack("<qq", context.owner.read(DATA, 16))
    assert before - 1000 <= seconds * 10**9 + nanoseconds <= after + 1000


def test_gettimeofday_and_time_agree_with_the_host(machine: Any) -> None:
    before = time.time()
    context = ask(machine, "__vdso_gettimeofday", DATA, 0)
    if context.regs[Reg.ORIG_RAX] == GETTIMEOFDAY:
        pytest.skip("the horizon was passed, or this machine's TSC is of no use")
    seconds, microseconds = struct.unpack("<qq", context.owner.read(DATA, 16))
    assert before - 0.001 <= seconds + microseconds / 1e6 <= time.time() + 0.001

    context = ask(machine, "__vdso_time", 0)

    if context.regs[Reg.ORIG_RAX] != TIME:
        assert abs(context.regs[Reg.RDI] - time.time()) < 2


def test_other_clocks_are_asked_by_system_call(machine: Any) -> None:
    context = ask(machine, "__vdso_clock_gettime", MONOTONIC_COARSE, DATA)

    assert context.regs[Reg.ORIG_RAX] == CLOCK_GETTIME
    assert (context.regs[Reg.RDI], context.regs[Reg.RSI]) == (MONOTONIC_COARSE, DATA)


def test_monotonic_clock_never_goes_back_across_renewals(machine: Any) -> None:
    source = """
    1:  mov $1, %edi; mov $DATA, %esi; call *%rbx
        test %eax, %eax; jnz 1b
        mov DATA, %rax; imul $1000000000, %rax, %rax; add DATA + 8, %rax
        cmp %rbp, %rax; jb 2f
        mov %rax, %rbp
        jmp 1b
    2:  ud2
    """
    context = start(machine, source, rbx=VDSO + symbol("__vdso_clock_gettime"), rbp=0)
    asked = 0
    end = time.monotonic_ns() + 300_000_000
    while (now := time.monotonic_ns()) < end:
        for came in machine.platform.wait(now + 200_000):
            assert came.exit == ExitKind.SYSCALL, (came.exit, hex(came.regs[Reg.RIP]))
            asked += 1
            machine.platform.vdso.refresh()
            came.answer(-1)
        if asked % 2:
            machine.platform.vdso.refresh()
    context.kick()
    assert machine.any_exit().exit in {ExitKind.INTERRUPTED, ExitKind.SYSCALL}

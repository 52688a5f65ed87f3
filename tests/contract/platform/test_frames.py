"""Signal frames: pushed and popped by every platform in the same way."""

from __future__ import annotations

import struct
from typing import Any

from sentry.platform.interface import ExitKind, FrameRest, Reg, SignalFrame

STACK, STACK_TOP = 0x800000, 0x803F00
XMM0 = 160
"""Offset of XMM0 in an image (SDM volume 1, table 10-2)."""
RESTORER, MASK, FLAGS = 0x1111, 0x5555, 7
TAKEN = 0x50DD5
INFO = bytes(range(128))
PROGRAM = """
    movq %rdi, %xmm0
    lea handler(%rip), %rsi
    mov $7, %eax
    syscall
    movq %xmm0, %rdi
    syscall
handler:
    movq %xmm0, %r8
    pcmpeqd %xmm0, %xmm0
    mov $9, %eax
    syscall
"""


def push(machine: Any, context: Any, top: int = STACK_TOP) -> tuple[bool, int, int]:
    """Whether it was pushed, and where the frame and its image lie."""
    fp_at = (top - machine.platform.xsave_size - 4) & -64
    at = ((fp_at - 440) & -16) - 8
    frame = SignalFrame(
        at, fp_at, machine.platform.xfeatures, RESTORER, FLAGS, 0, 0, 0, 0, 0, 0, MASK,
        signo=10, handler=context.regs[Reg.RSI], cleared_flags=0x10500, info=INFO,
    )  # fmt: skip
    return context.push_frame(context.owner, frame), at, fp_at


def test_handler_begins_with_its_arguments_and_the_initial_fpu_state(machine: Any) -> None:
    context = machine.start(PROGRAM, rdi=0x1234)
    machine.syscall_of(context)

    done, at, fp_at = push(machine, context)
    context.resume()

    assert done
    assert machine.syscall_of(context) == 9
    arguments = [context.regs[reg] for reg in (Reg.RDI, Reg.RSI, Reg.RDX, Reg.RSP)]
    assert arguments == [10, at + 312, at + 8, at]
    assert context.regs[Reg.R8] == 0
    image = context.owner.read(fp_at, machine.platform.xsave_size)
    assert struct.unpack_from("<Q", image, XMM0)[0] == 0x1234
    assert context.owner.read(at, 8) == struct.pack("<Q", RESTORER)
    assert context.owner.read(at + 312, 128) == INFO


def test_frame_popped_brings_registers_and_fpu_state_back(machine: Any) -> None:
    context = machine.start(PROGRAM, rdi=0x1234, rbx=0x77)
    machine.syscall_of(context)
    _, at, _ = push(machine, context)
    context.resume()
    machine.syscall_of(context)
    context.regs[Reg.RBX] = 0

    found = context.pop_frame(context.owner, at, TAKEN)
    context.resume()

    assert found == FrameRest(0, 0, 0, MASK)
    assert machine.exit_of(context) == ExitKind.SYSCALL
    assert (context.regs[Reg.RDI], context.regs[Reg.RBX]) == (0x1234, 0x77)


def test_frame_that_meets_a_hole_changes_nothing_else(machine: Any) -> None:
    context = machine.start(PROGRAM, rdi=0x1234)
    machine.syscall_of(context)
    regs, image = bytes(context.regs), context.get_fpu()

    done, at, _ = push(machine, context, STACK + 512)

    assert not done
    assert context.owner.fault_addr == at
    assert (bytes(context.regs), context.get_fpu()) == (regs, image)


def test_image_of_a_frame_has_nothing_of_another_task(machine: Any) -> None:
    upper_half = "vinsertf128 $1, %xmm7, %ymm7, %ymm7; " if machine.platform.xfeatures & 4 else ""
    other = machine.start(f"movq %rax, %xmm7; {upper_half}syscall", rax=0x4141414141414141)
    machine.syscall_of(other)
    assert b"AAAA" in other.get_fpu()
    push(machine, other)
    context = machine.start(PROGRAM, rdi=0x1234)
    machine.syscall_of(context)

    _, _, fp_at = push(machine, context)

    assert b"AAAA" not in context.owner.read(fp_at, machine.platform.xsave_size)


def test_frame_with_a_bad_image_is_not_popped(machine: Any) -> None:
    context = machine.start(PROGRAM, rdi=0x1234)
    machine.syscall_of(context)
    _, at, fp_at = push(machine, context)
    context.owner.write(fp_at + 512, b"\xff" * 8)
    regs, image = bytes(context.regs), context.get_fpu()

    assert context.pop_frame(context.owner, at, TAKEN) is None

    assert (bytes(context.regs), context.get_fpu()) == (regs, image)

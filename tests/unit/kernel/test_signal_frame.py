"""The signal frame: where things lie, what comes back, what is refused."""

from __future__ import annotations

import struct

import pytest

from sentry.errors import EFAULT
from sentry.kernel import signal_frame
from sentry.kernel.signals import Action, SigInfo
from sentry.kernel.task import Task
from sentry.platform.interface import Reg

SA_RESTORER, SA_ONSTACK = 0x04000000, 0x08000000
INFO = SigInfo.user(10, 7, 0)
ACTION = Action(0x5000, SA_RESTORER, 0x6000, 0)


def word(task: Task, at: int, size: int = 8) -> int:
    return int.from_bytes(task.mm.read(at, size), "little")


def push(task: Task, action: Action = ACTION, mask: int = 0x55) -> int:
    signal_frame.push(task, INFO, action, mask)
    return task.ctx.regs[Reg.RSP]


def test_push_gives_the_handler_its_arguments(task: Task) -> None:
    sp = task.ctx.regs[Reg.RSP]
    at = push(task)
    regs = task.ctx.regs
    assert regs[Reg.RIP] == 0x5000
    assert (regs[Reg.RDI], regs[Reg.RSI], regs[Reg.RDX]) == (10, at + 312, at + 8)
    assert at % 16 == 8
    assert at < sp - 128
    assert word(task, at) == 0x6000
    assert task.mm.read(at + 312, 128) == INFO.pack()


def test_push_stores_registers_where_sigcontext_has_them(task: Task) -> None:
    for i in range(15):
        task.ctx.regs[i] = 0x100 + i
    task.trap = (14, 6, 0xDEAD)
    at = push(task)
    context = at + 8 + 40
    r8_to_r15 = [Reg.R8, Reg.R9, Reg.R10, Reg.R11, Reg.R12, Reg.R13, Reg.R14, Reg.R15]
    assert [word(task, context + 8 * i) for i in range(8)] == [0x100 + r for r in r8_to_r15]
    assert word(task, context + 128) == 0x401002
    assert struct.unpack("<4H", task.mm.read(context + 144, 8)) == (0x33, 0, 0, 0x2B)
    assert [word(task, context + 152 + 8 * i) for i in range(4)] == [6, 14, 0x55, 0xDEAD]
    assert word(task, at + 304) == 0x55
    assert word(task, at + 8) == 7


def test_push_marks_the_fpu_image(task: Task) -> None:
    at = push(task)
    fp = word(task, at + 8 + 40 + 184)
    assert fp % 64 == 0
    assert word(task, fp + 464, 4) == 0x46505853
    assert word(task, fp + 468, 4) == 832 + 4
    assert word(task, fp + 480, 4) == 832
    assert word(task, fp + 832, 4) == 0x46505845


def test_pop_restores_all(task: Task) -> None:
    for i in range(15):
        task.ctx.regs[i] = 0x1000 * i + 7
    before, fpu = bytes(task.ctx.regs), task.ctx.get_fpu()
    push(task)
    task.ctx.regs[Reg.RSP] += 8
    for i in range(15):
        task.ctx.regs[i] = 0
    assert signal_frame.pop(task) == (0x55, True)
    task.ctx.regs[Reg.ORIG_RAX] = 0
    assert bytes(task.ctx.regs) == before
    assert task.ctx.get_fpu()[:464] == fpu[:464]
    assert task.ctx.get_fpu()[512:] == fpu[512:]


def test_pop_of_a_bad_frame_changes_nothing(task: Task) -> None:
    at = push(task)
    task.mm.write(at + 8 + 40 + 144, b"\x23\0")
    task.ctx.regs[Reg.RSP] += 8
    before = bytes(task.ctx.regs)
    with pytest.raises(EFAULT):
        signal_frame.pop(task)
    assert bytes(task.ctx.regs) == before


def test_pop_returns_to_an_address_of_nobody_for_the_fault_to_be_there(task: Task) -> None:
    at = push(task)
    task.mm.write(at + 8 + 40 + 128, (0xFFFF800000000000).to_bytes(8, "little"))
    task.ctx.regs[Reg.RSP] += 8
    assert signal_frame.pop(task) == (0x55, True)
    assert task.ctx.regs[Reg.RIP] == 0xFFFF800000000000


@pytest.mark.parametrize(
    ("offset", "value"),
    [(24, b"\0\0\1\0"), (512, b"\xff" * 8), (520, b"\1"), (570, b"\1"), (None, b"")],
)
def test_pop_of_a_bad_fpu_image_restores_the_rest(
    task: Task, offset: int | None, value: bytes
) -> None:
    task.ctx.regs[Reg.RIP] = 0x401234
    at = push(task)
    if offset is None:
        task.mm.write(at + 8 + 40 + 184, (1 << 62).to_bytes(8, "little"))
    else:
        task.mm.write(word(task, at + 8 + 40 + 184) + offset, value)
    task.ctx.regs[Reg.RSP] += 8
    assert signal_frame.pop(task) == (0x55, False)
    assert task.ctx.regs[Reg.RIP] == 0x401234


def test_pop_without_magic_takes_the_legacy_area_alone(task: Task) -> None:
    at = push(task)
    fp = word(task, at + 8 + 40 + 184)
    task.mm.write(fp + 832, b"nope")
    task.mm.write(fp + 600, b"\xaa" * 16)
    task.ctx.regs[Reg.RSP] += 8
    signal_frame.pop(task)
    image = task.ctx.get_fpu()
    assert image[512] == 3
    assert not any(image[576:])


def test_alternate_stack_is_used_once(task: Task) -> None:
    task.altstack = (0x10000, 0, 0x8000)
    action = ACTION._replace(flags=SA_RESTORER | SA_ONSTACK)
    first = push(task, action)
    assert 0x10000 < first < 0x18000
    second = push(task, action)
    assert 0x10000 < second < first


def test_alternate_stack_that_is_too_small_is_refused(task: Task) -> None:
    task.altstack = (0x10000, 0, 1024)
    with pytest.raises(EFAULT):
        push(task, ACTION._replace(flags=SA_RESTORER | SA_ONSTACK))


def test_push_without_restorer_is_refused(task: Task) -> None:
    with pytest.raises(EFAULT):
        push(task, ACTION._replace(flags=0))


@pytest.mark.parametrize("sp", [0, 100, 0x7FFFFFE00000 + 4096, (1 << 64) - 8])
def test_push_onto_no_stack_is_refused(task: Task, sp: int) -> None:
    task.ctx.regs[Reg.RSP] = sp
    with pytest.raises(EFAULT):
        push(task)

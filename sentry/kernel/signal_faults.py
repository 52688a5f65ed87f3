"""CPU exceptions and page faults as signals: arch/x86/kernel/traps.c, arch/x86/mm/fault.c.

A forced signal (`force`) is one that the program cannot hold off: blocked or ignored, its action
becomes the default first (force_sig_info_to_task). It acts on init too.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.processor import X86_EFLAGS_TF
from sentry.abi.signal import (
    BUS_ADRALN,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_INTDIV,
    ILL_ILLOPN,
    SI_KERNEL,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGKILL,
    SIGSEGV,
    SIGTRAP,
    TRAP_BRKPT,
    TRAP_TRACE,
)
from sentry.errors import EFAULT, ENOMEM, Errno
from sentry.kernel.kernel import OOM_PAUSE_NS
from sentry.kernel.signals import DEFAULT_ACTION, SIG_IGN, Queued, SigInfo
from sentry.kernel.work import WORK_EXIT, WORK_SIGNAL
from sentry.mm.errors import BusError, NeedsFault, OutOfMemory, SegFault
from sentry.mm.faults import file_gone
from sentry.platform.constants import TASK_SIZE
from sentry.platform.interface import ExitKind, Reg
from sentry.wait.fiber import Mode
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.wait.steps import Steps

DE, DB, BP, UD, NP, SS, GP, PF, MF, AC, XM = 0, 1, 3, 6, 11, 12, 13, 14, 16, 17, 19
INT_OPCODE: Final = 0xCD
PF_PROT, PF_USER = 1, 4
ERROR_CODES: Final = {8, 10, 11, 12, 13, 14, 17, 21}
"""Vectors for which the CPU pushes an error code."""
SPARE: Final = 16
"""Memory is used up where one part in so many, or less, is left."""
VSYSCALL_PAGE: Final = 0xFFFFFFFFFF600000
VSYSCALLS: Final = {0xFFFFFFFFFF600000: 96, 0xFFFFFFFFFF600400: 201, 0xFFFFFFFFFF600800: 309}
"""gettimeofday, time, getcpu at their fixed addresses."""


def force(task: Task, info: SigInfo, *, fatal: bool = False) -> None:
    """A signal that the task cannot hold off; `fatal`: not even by a handler."""
    signo = info.signo
    bit = 1 << (signo - 1)
    actions = task.group.actions
    if fatal or task.blocked & bit or actions[signo].handler == SIG_IGN:
        actions[signo] = DEFAULT_ACTION
        task.blocked &= ~bit
    task.pending.discard(bit)
    task.pending.add(Queued(info, forced=True))
    task.work |= WORK_SIGNAL


def exception(task: Task, kind: int, vector: int, error_code: int) -> None:
    """The context came back with something else than a call or a page fault: act, and go on.

    Raises: NeedsFault, what has to be done before it goes on.
    """
    if kind == ExitKind.EXCEPTION:
        _trap(task, vector, error_code)
    elif kind == ExitKind.FILE_GONE:
        found = in_steps(_looking_for_end(task), mode=Mode.KILLABLE)
        if not isinstance(found, int):
            rest = found  # it has many mappings
            raise NeedsFault(lambda: rest)
        if not found:
            _go_on_later(task)
            return
    elif kind == ExitKind.NO_MEMORY:
        _out_of_memory(task)
        return
    else:
        task.group.exit(SIGKILL)
    task.finish()


def _looking_for_end(task: Task) -> Steps[int]:
    """Whether a file is too short. The host does not say which page it refused: else it was one of
    RAM if that is used up; or a file has grown again, or cannot be read, and nobody dies for it."""
    found = yield from file_gone.steps(task.mm.map)
    ram = task.kernel.platform.ram
    is_copy = ram.template or ram.inherited  # not all of it is in the one file
    if not found and (is_copy or ram.populated() > ram.limit - ram.limit // SPARE):
        task.kernel.out_of_memory(task)
    return found


def _out_of_memory(task: Task) -> None:
    """Kill somebody; the task tries again a little later."""
    task.kernel.out_of_memory(task)
    _go_on_later(task)


def _go_on_later(task: Task) -> None:
    loop = task.kernel.loop
    loop.call_at(loop.now_ns() + OOM_PAUSE_NS, task.finish)


def _trap(task: Task, vector: int, error_code: int) -> None:
    regs = task.ctx.regs
    rip = regs[Reg.RIP]
    code = error_code if vector in ERROR_CODES else 0
    task.trap = (vector, code, task.trap[2])
    if vector == DE:
        info = SigInfo.fault(SIGFPE, FPE_INTDIV, rip)
    elif vector == DB:
        if not regs[Reg.RFLAGS] & X86_EFLAGS_TF:
            code = TRAP_BRKPT  # not of a single step: the instruction icebp
        elif task.trace is None:
            code = TRAP_TRACE
        elif not (code := task.trace.stepped(task)):
            return
        info = SigInfo.fault(SIGTRAP, code, rip)
    elif vector == BP:
        info = SigInfo.kernel(SIGTRAP)
    elif vector == UD and (gate := _interrupt(task, rip)) is not None:
        # where the guest's `int N` is an invalid opcode: #GP, as there is no such gate
        task.trap = (GP, gate * 8 + 2, task.trap[2])
        info = SigInfo.kernel(SIGSEGV)
    elif vector == UD:
        info = SigInfo.fault(SIGILL, ILL_ILLOPN, rip)
    elif vector in (MF, XM):
        number = floating_point_code(task.ctx.get_fpu(), vector)
        if not number:
            return
        info = SigInfo.fault(SIGFPE, number, rip)
    elif vector == AC:
        info = SigInfo.fault(SIGBUS, BUS_ADRALN, 0)
    elif vector in (NP, SS):
        info = SigInfo(SIGBUS, SI_KERNEL)
    else:
        info = SigInfo.kernel(SIGSEGV)
    force(task, info)


def _interrupt(task: Task, rip: int) -> int | None:
    """N if the instruction is `int N`. The kernel is one without 32-bit calls: 0x80 is no gate."""
    try:
        code = task.mm.read(rip, 2)
    except (EFAULT, NeedsFault):
        return None
    return code[1] if code[0] == INT_OPCODE else None


def floating_point_code(image: bytes, vector: int) -> int:
    """FPE_* from the unmasked flags of the x87 or SSE status (fpu__exception_code); 0: none."""
    if vector == MF:
        control, status = struct.unpack_from("<HH", image)
        flags = status & ~control
    else:
        (mxcsr,) = struct.unpack_from("<I", image, 24)
        flags = ~(mxcsr >> 7) & mxcsr
    for bits, code in (
        (0x01, FPE_FLTINV),
        (0x04, FPE_FLTDIV),
        (0x08, FPE_FLTOVF),
        (0x12, FPE_FLTUND),
        (0x20, FPE_FLTRES),
    ):
        if flags & bits:
            return code
    return 0


def fault(task: Task, error: BaseException, addr: int, error_code: int) -> bool:
    """A page fault that mm could not repair: raise the signal and go on. False: a bug of ours.

    Raises: NeedsFault, where it is a call that has to wait: then the program makes it again.
    """
    if is_shortage(error):
        _out_of_memory(task)
        return True
    if addr & ~0xFFF == VSYSCALL_PAGE and task.ctx.regs[Reg.RIP] == addr:
        _vsyscall(task, VSYSCALLS.get(addr))
    elif not raise_fault(task, error, addr, error_code):
        return False
    task.finish()
    return True


def is_shortage(error: BaseException) -> bool:
    """No frame for a page, or no room for one and nobody else to kill (`Kernel.make_room`)."""
    return isinstance(error, (OutOfMemory, ENOMEM, EFAULT)) and not isinstance(error, BusError)


def raise_fault(task: Task, error: BaseException, addr: int, error_code: int) -> bool:
    """Force the signal of a page fault; says whether `error` is one."""
    if isinstance(error, SegFault):
        signo, code = SIGSEGV, error.si_code
    elif isinstance(error, BusError):
        signo, code = SIGBUS, error.si_code
    else:
        return False
    error_code |= PF_USER
    if addr >= TASK_SIZE:
        error_code |= PF_PROT
    task.trap = (PF, error_code, addr)
    force(task, SigInfo.fault(signo, code, addr))
    return True


def _vsyscall(task: Task, number: int | None) -> None:
    """A call into the page of old: emulate_vsyscall, arch/x86/entry/vsyscall/vsyscall_64.c."""
    regs = task.ctx.regs
    if number is None:
        force(task, SigInfo.kernel(SIGSEGV))
        return
    call = task.kernel.calls[number]
    values = (regs[Reg.RDI], regs[Reg.RSI], regs[Reg.RDX], 0, 0, 0)
    try:
        back = int.from_bytes(task.mm.read(regs[Reg.RSP], 8), "little")
        result = None
        if task.seccomp is not None:
            regs[Reg.ORIG_RAX] = number
            result = task.seccomp.entered(task, number, values)
            if task.work & WORK_EXIT:
                return
        if result is None:
            result = call(task, *values) if call else 0
    except EFAULT:
        force(task, SigInfo.kernel(SIGSEGV))
        return
    except Errno as failed:
        result = -failed.number
    regs[Reg.RAX] = (result or 0) & 0xFFFFFFFFFFFFFFFF
    regs[Reg.RIP] = back
    regs[Reg.RSP] += 8

"""Syscall User Dispatch: calls from outside of one range of code are the program's own affair.

prctl(2) PR_SET_SYSCALL_USER_DISPATCH, Documentation/admin-guide/syscall-user-dispatch.rst,
kernel/entry/syscall_user_dispatch.c. A byte of the program, the selector, says whether such a call
is made or becomes a SIGSYS; what would emulate it (Wine) sits in the handler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi.seccomp import AUDIT_ARCH_X86_64
from sentry.abi.signal import SIGSEGV, SIGSYS, SYS_USER_DISPATCH
from sentry.errors import EFAULT
from sentry.kernel import signal_faults
from sentry.kernel.identity import child_identity
from sentry.kernel.signals import SigInfo
from sentry.kernel.task import GONE, Observer
from sentry.mm.errors import NeedsFault
from sentry.platform.interface import Reg

if TYPE_CHECKING:
    from sentry.kernel.task import Task

ALLOW, BLOCK = 0, 1
U64: Final = (1 << 64) - 1
SYSCALL_LENGTH: Final = 2
"""Bytes of the instruction."""


class UserDispatch(Observer):
    """An observer of one thread, before its tracer and its filters."""

    inherited: ClassVar = False
    __slots__ = ("length", "selector", "start")

    def __init__(self, start: int, length: int, selector: int) -> None:
        self.start = start
        self.length = length
        self.selector = selector

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> Any:
        """syscall_user_dispatch()."""
        regs = task.ctx.regs
        if (regs[Reg.RIP] - self.start) & U64 < self.length:
            return None
        if self.selector:
            try:
                (state,) = task.mm.read(self.selector, 1)
            except EFAULT:
                return end(task, SIGSEGV)
            except NeedsFault as need:  # fetch the page, then the program makes the call again
                regs[Reg.RIP] -= SYSCALL_LENGTH
                task.start(fetched(need, regs[Reg.ORIG_RAX]))
                return GONE
            if state == ALLOW:
                return None
            if state != BLOCK:
                return end(task, SIGSYS)
        info = SigInfo.sigsys(SYS_USER_DISPATCH, regs[Reg.RIP], number, AUDIT_ARCH_X86_64, 0)
        signal_faults.force(task, info)
        return regs[Reg.ORIG_RAX]  # the handler finds the number in rax

    def execed(self, task: Task) -> None:
        """A new program starts without it."""
        switch_off(task)


async def fetched(need: NeedsFault, number: int) -> int:
    """The page of the selector is there; rax is as before the call."""
    await need.wait()
    return number


def end(task: Task, signo: int) -> int:
    """force_exit_sig(): no handler and no mask holds it off."""
    signal_faults.force(task, SigInfo.kernel(signo), fatal=True)
    return int(task.ctx.regs[Reg.ORIG_RAX])


def switch_off(task: Task) -> None:
    """PR_SYS_DISPATCH_OFF."""
    task.observers = [o for o in task.observers if not isinstance(o, UserDispatch)]
    child_identity(task)


def switch_on(task: Task, start: int, length: int, selector: int) -> None:
    """PR_SYS_DISPATCH_ON: before ptrace and seccomp, which shall not decide first."""
    others = [o for o in task.observers if not isinstance(o, UserDispatch)]
    later = [i for i, o in enumerate(others) if o is task.trace or o is task.seccomp]
    others.insert(min(later, default=len(others)), UserDispatch(start, length, selector))
    task.observers = others
    child_identity(task)

"""A call that is to start again, as a tracer sees it: -ERESTART* in RAX.

Linux keeps the decision in the registers until a handler runs or the task goes back to ring 3
(arch_do_signal_or_restart), so a debugger can save them, run something else, and put them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.errors import EINTR
from sentry.platform.interface import Reg
from sentry.wait.fiber import Interrupted, RestartBlock, RestartNoHand, RestartNoIntr

if TYPE_CHECKING:
    from sentry.kernel.task import Task

# include/linux/errno.h: not for user space, but for tracers
ERESTARTSYS: Final = 512
ERESTARTNOINTR: Final = 513
ERESTARTNOHAND: Final = 514
ERESTART_RESTARTBLOCK: Final = 516
UINT64: Final = (1 << 64) - 1
SIGN: Final = 1 << 63

_CODES: Final = (
    (RestartBlock, ERESTART_RESTARTBLOCK),
    (RestartNoHand, ERESTARTNOHAND),
    (RestartNoIntr, ERESTARTNOINTR),
    (Interrupted, ERESTARTSYS),
)


def show(task: Task) -> None:
    """Put the decision into the registers."""
    restart, task.restart = task.restart, None
    if restart is None:
        return
    if isinstance(restart, RestartBlock):
        task.restart_block = restart.again
    code = next(code for kind, code in _CODES if isinstance(restart, kind))
    task.ctx.regs[Reg.RAX] = -code & UINT64


def take(task: Task) -> None:
    """Read the decision back; ORIG_RAX below 0 means that there is no call to start again."""
    regs = task.ctx.regs
    code = -regs[Reg.RAX] & UINT64
    if regs[Reg.ORIG_RAX] & SIGN:
        return
    if code == ERESTART_RESTARTBLOCK:
        task.restart = RestartBlock(task.restart_block or _nothing)
    elif code == ERESTARTNOHAND:
        task.restart = RestartNoHand()
    elif code == ERESTARTNOINTR:
        task.restart = RestartNoIntr()
    elif code == ERESTARTSYS:
        task.restart = Interrupted()


def _nothing() -> Any:
    """do_no_restart_syscall()."""
    raise EINTR("nothing to restart")

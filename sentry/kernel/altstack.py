"""sigaltstack(2): the stack that handlers with SA_ONSTACK run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.signal import MINSIGSTKSZ, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK
from sentry.errors import EINVAL, ENOMEM, EPERM

if TYPE_CHECKING:
    from sentry.kernel.task import Task

NONE: Final = (0, SS_DISABLE, 0)
"""(address, flags, size) of no alternate stack: a new thread's, or one that disarmed itself.
A program starts with flags of 0."""


def is_on(stack: tuple[int, int, int], sp: int) -> bool:
    """The stack pointer is on the alternate stack; never so for one that disarms itself."""
    base, flags, size = stack
    return not flags & SS_AUTODISARM and 0 < sp - base <= size


def show(task: Task, sp: int) -> tuple[int, int, int]:
    """What sigaltstack(2) reports: (address, flags, size)."""
    base, flags, size = task.altstack
    on = SS_ONSTACK if is_on(task.altstack, sp) else 0
    state = on if size else SS_DISABLE
    return base, state | flags & SS_AUTODISARM, size


def change(task: Task, base: int, flags: int, size: int, sp: int) -> None:
    """do_sigaltstack(): what changes nothing is not judged. Raises: EPERM, EINVAL, ENOMEM."""
    if is_on(task.altstack, sp):
        raise EPERM("running on the alternate stack")
    mode = flags & ~SS_AUTODISARM
    if mode not in (0, SS_ONSTACK, SS_DISABLE):
        raise EINVAL(f"flags {flags:#x}")
    if task.altstack == (base, flags, size):
        return
    if mode == SS_DISABLE:
        base = size = 0
    elif size < MINSIGSTKSZ:
        raise ENOMEM(f"{size} bytes")
    task.altstack = (base, flags, size)

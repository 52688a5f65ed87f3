"""Debug registers: hardware breakpoints and watchpoints, which there are none of.

Neither platform switches DR0-7 with a task. The answers are those of a Linux whose breakpoint
slots are all in use: addresses are kept, enabling one is ENOSPC (arch_install_hw_breakpoint).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.errors import EINVAL, EIO, ENOSPC

if TYPE_CHECKING:
    from sentry.kernel.task import Task

ENABLE_BITS: Final = 0xFF
TASK_SIZE_MAX: Final = 0x7FFFFFFFF000


def debug_register(task: Task, number: int) -> int:
    """ptrace_get_debugreg()."""
    kept: list[int] = task.trace.debug
    return kept[number]


def set_debug_register(task: Task, number: int, value: int) -> None:
    """ptrace_set_debugreg(). Raises: EIO, EINVAL, ENOSPC."""
    if number in (4, 5):
        raise EIO(f"DR{number}")
    if number < 4 and value >= TASK_SIZE_MAX:
        raise EINVAL(f"address {value:#x}")
    if number == 7 and value & ENABLE_BITS:
        raise ENOSPC("no hardware breakpoints")
    task.trace.debug[number] = value

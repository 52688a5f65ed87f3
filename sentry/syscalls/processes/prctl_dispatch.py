"""prctl(2): PR_SET_SYSCALL_USER_DISPATCH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.prctl import PR_SYS_DISPATCH_OFF, PR_SYS_DISPATCH_ON
from sentry.errors import EFAULT, EINVAL
from sentry.kernel import user_dispatch
from sentry.mm.layout import TASK_END

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def set_user_dispatch(task: Task, values: tuple[int, int, int, int]) -> None:
    """set_syscall_user_dispatch(): mode, the range that may call, its length, the selector."""
    mode, start, length, selector = values
    if mode == PR_SYS_DISPATCH_OFF:
        if start or length or selector:
            raise EINVAL("arguments of nothing")
        user_dispatch.switch_off(task)
    elif mode == PR_SYS_DISPATCH_ON:
        end = (start + length) & user_dispatch.U64
        if start and end <= start:
            raise EINVAL("range")
        if selector >= TASK_END:
            raise EFAULT(f"{selector:#x}")
        user_dispatch.switch_on(task, start, length, selector)
    else:
        raise EINVAL(f"mode {mode}")

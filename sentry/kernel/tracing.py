"""Who looks at system calls: strace, seccomp, ptrace and monitoring implement `Observer`.

Further methods are called where an observer has them: `execed(task)`, `signalled(task, info)` when
a signal is delivered, `exited(task, status)` at a thread's end; `inherited` false: not by children.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sentry.kernel.task import Task


class Observer(Protocol):
    """Hears of every call of the tasks it is attached to (`Task.observers`, in order)."""

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> Any:
        """Before the handler. None: go on; an int: the result instead; GONE: it took over."""

    def left(self, task: Task, result: Any) -> None:
        """After the handler; `result` is an int, RESUME or GONE."""

"""Who looks at system calls: strace, seccomp, ptrace and monitoring are `Observer`s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentry.kernel.signals import SigInfo
    from sentry.kernel.task import Task


class Observer:
    """Hears of every call of the tasks it is attached to (`Task.observers`, in order).

    What a kind does not look at it leaves as it is here.
    """

    __slots__ = ()
    inherited = True
    """Children have it too."""

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> Any:
        """Before the handler. None: go on; an int: the result instead; GONE: it took over."""

    def left(self, task: Task, result: Any) -> None:
        """After the handler; `result` is an int, RESUME or GONE."""

    def execed(self, task: Task) -> None:
        """A new program has been loaded."""

    def signalled(self, task: Task, info: SigInfo) -> None:
        """A signal is being delivered."""

    def exited(self, task: Task, status: int) -> None:
        """A thread ends; `status` as wait(2) has it."""

    def flush(self) -> None:
        """The sandbox is over: write what is kept."""

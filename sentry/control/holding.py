"""`HoldAt`: a container is paused in a call that a test names by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.kernel import pause
from sentry.kernel.task import Observer

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task


class HoldAt(Observer):
    """Counts the calls of all tasks."""

    __slots__ = ("_kernel", "_left")

    def __init__(self, kernel: Kernel, number: int) -> None:
        self._kernel = kernel
        self._left = number

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> None:
        """At the one that was named all stand still, this task once its call has ended."""
        self._left -= 1
        if not self._left:
            pause.pause(self._kernel.container, _stand)


def _stand() -> None:
    """Whoever asks hears it."""

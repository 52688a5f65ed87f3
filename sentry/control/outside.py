"""`Outside`: who makes calls for the command line, where a task of the container is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sentry.errors import ESRCH

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.task import Task
    from sentry.vfs.file import Caller


class Outside:
    """A caller with a task's namespaces and rights, which hears of no signal."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def send_signal(self, signo: int) -> None:
        """SIGPIPE and the like are for programs."""


def beside_init(container: Container) -> Caller:
    """Where the container's first process is. Raises: ESRCH."""
    init = container.init
    if init is None or not init.tasks:
        raise ESRCH("the container is ending")
    return cast("Caller", Outside(init.tasks[0]))

"""What the terminals of lower rooms need of processes: signals for a whole process group."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sentry.kernel import signal_send
from sentry.kernel.signals import SIG_IGN, SigInfo

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ProcessGroup, ThreadGroup
    from sentry.loop import Loop
    from sentry.vfs.vfs import Vfs


class GroupSignals:
    """A key, a new size or a hang-up: kill_pgrp() by the kernel, many processes piece by piece.

    What is on its way already is sent once more afterwards, however often it comes meanwhile.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._again: dict[tuple[ProcessGroup, int], bool] = {}
        """Those on their way, and whether to send them once more."""

    def send(self, group: ProcessGroup, signo: int) -> None:
        """To who is in the group now."""
        key = group, signo
        if key in self._again:
            self._again[key] = True
        else:
            self._begin(key)

    def _begin(self, key: tuple[ProcessGroup, int]) -> None:
        self._again[key] = False
        self._loop.call_for_each([*key[0].members, None], partial(self._tell, key))

    def _tell(self, key: tuple[ProcessGroup, int], member: ThreadGroup | None) -> None:
        if member is not None:
            signal_send.send_to_group(member, SigInfo.kernel(key[1]))
        elif self._again.pop(key):
            self._begin(key)


def signal_process(group: ThreadGroup, signo: int) -> None:
    """The leader of a session whose terminal hangs up."""
    signal_send.send_to_group(group, SigInfo.kernel(signo))


def ignores_signal(task: Task, signo: int) -> bool:
    """The task blocks or ignores the signal: is_ignored(), drivers/tty/tty_jobctrl.c."""
    blocked = task.blocked >> (signo - 1) & 1
    return bool(blocked) or task.group.actions[signo].handler == SIG_IGN


def connect(vfs: Vfs) -> None:
    """Make them known to the file systems of a sandbox."""
    vfs.signal_group = GroupSignals(vfs.loop).send
    vfs.signal_process = signal_process
    vfs.ignores_signal = ignores_signal

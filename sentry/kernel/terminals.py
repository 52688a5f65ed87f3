"""What the terminals of lower rooms need of processes: signals for a whole process group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.kernel import signal_send
from sentry.kernel.signals import SIG_IGN, SigInfo

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ProcessGroup, ThreadGroup
    from sentry.vfs.vfs import Vfs


def signal_group(group: ProcessGroup, signo: int) -> None:
    """A key, a new size or a hang-up: kill_pgrp() by the kernel."""
    for member in list(group.members):
        signal_send.send_to_group(member, SigInfo.kernel(signo))


def signal_process(group: ThreadGroup, signo: int) -> None:
    """The leader of a session whose terminal hangs up."""
    signal_send.send_to_group(group, SigInfo.kernel(signo))


def ignores_signal(task: Task, signo: int) -> bool:
    """The task blocks or ignores the signal: is_ignored(), drivers/tty/tty_jobctrl.c."""
    blocked = task.blocked >> (signo - 1) & 1
    return bool(blocked) or task.group.actions[signo].handler == SIG_IGN


def connect(vfs: Vfs) -> None:
    """Make them known to the file systems of a sandbox."""
    vfs.signal_group = signal_group
    vfs.signal_process = signal_process
    vfs.ignores_signal = ignores_signal

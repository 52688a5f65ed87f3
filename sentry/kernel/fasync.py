"""SIGIO and SIGURG: signals for the owner of a file. send_sigio(), send_sigurg(), fs/fcntl.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from sentry.abi.fcntl import F_OWNER_PID, F_OWNER_TID
from sentry.abi.signal import (
    SI_SIGIO,
    SIGBUS,
    SIGCHLD,
    SIGFPE,
    SIGILL,
    SIGIO,
    SIGSEGV,
    SIGSYS,
    SIGTRAP,
    SIGURG,
)
from sentry.errors import EAGAIN
from sentry.kernel import signal_send
from sentry.kernel.signals import SigInfo

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.vfs.file import FileDescription

Owner: TypeAlias = "tuple[ThreadGroup, Task | None]"
OTHER_CODES: Final = (SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP, SIGCHLD, SIGIO, SIGSYS)
"""Signals whose si_code means something else: siginmask(…, SIG_SPECIFIC_SICODES_MASK)."""


def connect(kernel: Kernel) -> None:
    """Let the files of a sandbox send signals."""

    def send(file: FileDescription, fd: int, code: int, band: int) -> None:
        signo = file.owner_signal
        info = SigInfo.kernel(SIGIO)
        if signo:
            shown = SI_SIGIO if signo != SIGIO and signo in OTHER_CODES else code
            info = SigInfo.poll(signo, shown, band, fd)

        def tell(owner: Owner) -> None:
            group, task = owner
            if not _may_hear(file, owner):
                return
            try:
                _send(group, task, info)
            except EAGAIN:
                _send(group, task, SigInfo.kernel(SIGIO))

        kernel.loop.call_for_each(_named(kernel, file), tell)

    def send_urgent(file: FileDescription) -> None:
        def tell(owner: Owner) -> None:
            if _may_hear(file, owner):
                _send(*owner, SigInfo.kernel(SIGURG))

        kernel.loop.call_for_each(_named(kernel, file), tell)

    kernel.vfs.send_io = send
    kernel.vfs.send_urgent = send_urgent


def _named(kernel: Kernel, file: FileDescription) -> list[Owner]:
    """Groups, or one task of its group; there may be very many."""
    kind, number = file.owner
    if kind == F_OWNER_TID:
        task = kernel.pids.tasks.get(number)
        return [] if task is None else [(task.group, task)]
    if kind == F_OWNER_PID:
        group = kernel.pids.groups.get(number)
        return [] if group is None else [(group, None)]
    members = kernel.pids.process_groups.get(number)
    return [] if members is None else [(group, None) for group in members.members]


def _may_hear(file: FileDescription, owner: Owner) -> bool:
    """It is still there, and may be sent a signal."""
    group, task = owner
    if task is not None:
        return not task.dead and _allowed(file, task)
    return bool(group.tasks) and _allowed(file, group.tasks[0])


def _allowed(file: FileDescription, target: Task) -> bool:
    """sigio_perm(): who set the owner might have sent it."""
    uid, euid = file.owner_ids
    theirs = (target.creds.suid, target.creds.uid)
    return euid == 0 or euid in theirs or uid in theirs


def _send(group: ThreadGroup, task: Task | None, info: SigInfo) -> None:
    if task is not None:
        signal_send.send_to_task(task, info)
    else:
        signal_send.send_to_group(group, info)

"""SIGIO and SIGURG: signals for the owner of a file. send_sigio(), send_sigurg(), fs/fcntl.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
    from collections.abc import Iterator

    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.vfs.file import FileDescription

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
        for group, task in _owners(kernel, file):
            try:
                _send(group, task, info)
            except EAGAIN:
                _send(group, task, SigInfo.kernel(SIGIO))

    def send_urgent(file: FileDescription) -> None:
        for group, task in _owners(kernel, file):
            _send(group, task, SigInfo.kernel(SIGURG))

    kernel.vfs.send_io = send
    kernel.vfs.send_urgent = send_urgent


def _owners(kernel: Kernel, file: FileDescription) -> list[tuple[ThreadGroup, Task | None]]:
    """Of these who may be sent a signal: groups, or one task of its group."""
    return [
        (group, task)
        for group, task in _named(kernel, file)
        if _allowed(file, task or group.tasks[0])
    ]


def _named(kernel: Kernel, file: FileDescription) -> Iterator[tuple[ThreadGroup, Task | None]]:
    kind, number = file.owner
    if kind == F_OWNER_TID:
        task = kernel.pids.tasks.get(number)
        if task is not None and not task.dead:
            yield task.group, task
    elif kind == F_OWNER_PID:
        group = kernel.pids.groups.get(number)
        if group is not None and group.tasks:
            yield group, None
    else:
        members = kernel.pids.process_groups.get(number)
        if members is not None:
            yield from [(group, None) for group in list(members.members) if group.tasks]


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

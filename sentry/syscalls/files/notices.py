"""fcntl(2): who gets the signals of a file, and what sends them: leases and dnotify."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentry.abi import fcntl as f
from sentry.abi.capability import CAP_LEASE
from sentry.errors import EACCES, EINVAL, ESRCH
from sentry.vfs.file import FileDescription
from sentry.vfs.leases import set_lease
from sentry.vfs.notices import set_dnotify, set_owner

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def set_process_owner(task: Task, file: FileDescription, argument: int) -> int:
    """F_SETOWN: a process, or (negative) a process group."""
    who = (argument & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    if who == -(1 << 31):
        raise EINVAL("no such group")
    kind, number = (f.F_OWNER_PGRP, -who) if who < 0 else (f.F_OWNER_PID, who)
    return take_owner(task, file, kind, number)


def tables(task: Task) -> dict[int, Mapping[int, Any]]:
    """Where the owners of each type are."""
    pids = task.kernel.pids
    return {
        f.F_OWNER_PID: pids.groups,
        f.F_OWNER_TID: ChainMap(pids.tasks, pids.groups),  # a leader that has ended, too
        f.F_OWNER_PGRP: pids.process_groups,
    }


def take_owner(task: Task, file: FileDescription, kind: int, number: int) -> int:
    """Check that the owner exists. Raises: ESRCH."""
    known = task.pids.known(number) if number else 0
    if number and known not in tables(task)[kind]:
        raise ESRCH(f"{number}")
    set_owner(task, file, kind, known)
    return 0


def owner_of(task: Task, file: FileDescription) -> tuple[int, int]:
    """The owner, (type, 0) once it is gone."""
    kind, number = file.owner
    return kind, task.pids.of(number) if number in tables(task)[kind] else 0


def get_owner(task: Task, file: FileDescription, argument: int) -> int:
    """F_GETOWN."""
    kind, number = owner_of(task, file)
    return -number if kind == f.F_OWNER_PGRP else number


def set_owner_ex(task: Task, file: FileDescription, argument: int) -> int:
    """F_SETOWN_EX."""
    kind, number = f.F_OWNER_EX.unpack(task.mm.read(argument, f.F_OWNER_EX.size))
    if kind not in (f.F_OWNER_TID, f.F_OWNER_PID, f.F_OWNER_PGRP):
        raise EINVAL(f"type {kind}")
    return take_owner(task, file, kind, number)


def get_owner_ex(task: Task, file: FileDescription, argument: int) -> int:
    """F_GETOWN_EX."""
    task.mm.write(argument, f.F_OWNER_EX.pack(*owner_of(task, file)))
    return 0


def set_signal(task: Task, file: FileDescription, argument: int) -> int:
    """F_SETSIG: 0 is SIGIO."""
    if not 0 <= argument <= 64:
        raise EINVAL(f"signal {argument}")
    file.owner_signal = argument
    return 0


def lease(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_SETLEASE: fcntl_setlease()."""
    if argument not in (f.F_RDLCK, f.F_WRLCK, f.F_UNLCK):
        raise EINVAL(f"lease {argument}")
    if task.creds.fsuid != file.inode.uid and not task.creds.has(CAP_LEASE):
        raise EACCES("somebody else's file")
    if not file.inode.is_regular:
        raise EINVAL("not a regular file")
    set_lease(task, file, fd, argument)
    return 0


def notify(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_NOTIFY: fcntl_dirnotify()."""
    set_dnotify(task, file, fd, argument & 0xFFFFFFFF)
    return 0

"""signalfd(2)."""

from __future__ import annotations

from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.signal import SFD_CLOEXEC, SFD_NONBLOCK
from sentry.errors import EINVAL
from sentry.fs.signalfd import SignalFile
from sentry.kernel.task import Task
from sentry.kernel.task_signals import take_for
from sentry.syscalls.registry import syscall
from sentry.syscalls.signals.signal import read_mask
from sentry.syscalls.types import Addr, Fd, Int, Size


@syscall(282)
def sys_signalfd(task: Task, fd: Fd, mask: Addr, size: Size) -> int:
    """signalfd(2) of old: without flags."""
    return signalfd(task, fd, read_mask(task, mask, size), 0)


@syscall(289)
def sys_signalfd4(task: Task, fd: Fd, mask: Addr, size: Size, flags: Int) -> int:
    """signalfd(2)."""
    return signalfd(task, fd, read_mask(task, mask, size), flags)


def signalfd(task: Task, fd: int, mask: int, flags: int) -> int:
    """A new descriptor (fd -1), or another set for an old one."""
    if flags & ~(SFD_CLOEXEC | SFD_NONBLOCK):
        raise EINVAL("flags")
    if fd != -1:
        old = task.files.get(fd)
        if not isinstance(old, SignalFile):
            raise EINVAL(f"fd {fd} is no signalfd")
        old.change(mask)
        return fd
    file = SignalFile(task, mask, O_NONBLOCK & flags, take_for)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=bool(flags & SFD_CLOEXEC))

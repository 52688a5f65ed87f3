"""Calls about a machine that is not there: swap, modules, other kernels.

Whoever lacks the capability gets EPERM, as on Linux; with it, what a kernel answers that was built
without the feature: ENOSYS. Arguments are checked where Linux does so first.
"""

from __future__ import annotations

from typing import Final

from sentry.abi import reboot
from sentry.abi.capability import (
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    CAP_SYS_BOOT,
    CAP_SYS_MODULE,
    CAP_SYS_PACCT,
    CAP_SYS_TTY_CONFIG,
)
from sentry.abi.fcntl import AT_FDCWD, O_APPEND, O_WRONLY
from sentry.abi.signal import SIGHUP, SIGINT
from sentry.errors import EACCES, EINVAL, EIO, ENOSYS, EPERM
from sentry.kernel import accounting
from sentry.kernel.task import Task
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Fd, Int, PathAddr, Pid, Size, UInt, UserIn
from sentry.vfs.open import OpenHow, open_used
from sentry.wait.again import again

REBOOT_MAGICS: Final = (
    *(reboot.LINUX_REBOOT_MAGIC2, reboot.LINUX_REBOOT_MAGIC2A),
    *(reboot.LINUX_REBOOT_MAGIC2B, reboot.LINUX_REBOOT_MAGIC2C),
)
REBOOT_CAD: Final = (reboot.LINUX_REBOOT_CMD_CAD_OFF, reboot.LINUX_REBOOT_CMD_CAD_ON)
REBOOT_SIGNALS: Final = {
    reboot.LINUX_REBOOT_CMD_RESTART: SIGHUP,
    reboot.LINUX_REBOOT_CMD_RESTART2: SIGHUP,
    reboot.LINUX_REBOOT_CMD_HALT: SIGINT,
    reboot.LINUX_REBOOT_CMD_POWER_OFF: SIGINT,
}
"""What the one who waits for the first process sees: it was killed by this."""
"""Whether Ctrl-Alt-Del restarts the machine: nobody can press it."""


def need(task: Task, *caps: int) -> None:
    """One of these capabilities, else EPERM."""
    if not any(task.creds.has(cap) for cap in caps):
        raise EPERM(f"capability {caps[0]}")


@syscall(169)
def sys_reboot(task: Task, magic: UInt, magic2: UInt, command: UInt, arg: Addr) -> object:
    """reboot(2) of a PID namespace: its first process is killed, reboot_pid_ns()."""
    if not task.creds.has_in(task.pids.owner, CAP_SYS_BOOT):
        raise EPERM("CAP_SYS_BOOT")
    if magic != reboot.LINUX_REBOOT_MAGIC1 or magic2 not in REBOOT_MAGICS:
        raise EINVAL("magic")
    if command in REBOOT_CAD and task.pids.parent is None:
        return None
    if command not in REBOOT_SIGNALS:
        raise EINVAL(f"command {command:#x}")
    init = task.pids.init
    if init is not None:
        init.exit(REBOOT_SIGNALS[command])
    return None


@syscall(153)
def sys_vhangup(task: Task) -> None:
    """vhangup(2): of the caller's controlling terminal, if there is one."""
    need(task, CAP_SYS_TTY_CONFIG)
    if task.group.terminal is not None:
        task.group.terminal.hang_up_slaves()


@syscall(163)
async def sys_acct(task: Task, path: PathAddr) -> None:
    """acct(2): the processes of the caller's PID namespace are recorded in a file; null ends it."""
    need(task, CAP_SYS_PACCT)
    if not path:
        accounting.turn_off(task)
        return
    how = OpenHow.old(O_WRONLY | O_APPEND, 0)
    file = await again(open_used, task, AT_FDCWD, path.read(), how)
    try:
        if not file.inode.is_regular:
            raise EACCES("not a regular file")
        if not file.has_write:
            raise EIO("cannot be written")
        await accounting.turn_on(task, file)
    finally:
        file.decref()


@syscall(167, partial="EPERM or ENOSYS: no swap")
def sys_swapon(task: Task, path: Addr, flags: Int) -> None:
    """swapon(2)."""
    if flags & ~0x7FFFF:
        raise EINVAL(f"flags {flags:#x}")
    need(task, CAP_SYS_ADMIN)
    raise ENOSYS("no swap")


@syscall(168, partial="EPERM or ENOSYS: no swap")
def sys_swapoff(task: Task, path: Addr) -> None:
    """swapoff(2)."""
    need(task, CAP_SYS_ADMIN)
    raise ENOSYS("no swap")


def _modules(task: Task) -> None:
    need(task, CAP_SYS_MODULE)
    raise ENOSYS("no modules")


@syscall(175, partial="EPERM or ENOSYS: no modules")
def sys_init_module(task: Task, image: UserIn, size: Size, arguments: Addr) -> None:
    """init_module(2)."""
    _modules(task)


@syscall(313, partial="EPERM or ENOSYS: no modules")
def sys_finit_module(task: Task, fd: Fd, arguments: Addr, flags: Int) -> None:
    """finit_module(2)."""
    _modules(task)


@syscall(176, partial="EPERM or ENOSYS: no modules")
def sys_delete_module(task: Task, name: Addr, flags: UInt) -> None:
    """delete_module(2)."""
    _modules(task)


@syscall(246, partial="EPERM or ENOSYS: no other kernel is booted")
def sys_kexec_load(task: Task, entry: Addr, count: Size, segments: Addr, flags: Size) -> None:
    """kexec_load(2)."""
    need(task, CAP_SYS_BOOT)
    raise ENOSYS("kexec")


@syscall(320, partial="EPERM or ENOSYS: no other kernel is booted")
def sys_kexec_file_load(
    task: Task, kernel: Fd, initrd: Fd, length: Size, line: Addr, flags: Size
) -> None:
    """kexec_file_load(2)."""
    need(task, CAP_SYS_BOOT)
    raise ENOSYS("kexec")


@syscall(298, partial="EPERM or ENOSYS: no performance counters")
def sys_perf_event_open(
    task: Task, attributes: Addr, pid: Pid, cpu: Int, group: Fd, flags: Size
) -> None:
    """perf_event_open(2)."""
    need(task, CAP_PERFMON, CAP_SYS_ADMIN)
    raise ENOSYS("no performance counters")

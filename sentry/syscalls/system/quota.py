"""quotactl(2), quotactl_fd(2): of a kernel that can have quotas, on file systems that have none.

fs/quota/quota.c. There are no block devices either, so whatever file of one is named stands for no
file system.
"""

from __future__ import annotations

from typing import Final

from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.mount import MS_NODEV
from sentry.abi.quota import (
    MAXQUOTAS,
    Q_GETFMT,
    Q_GETINFO,
    Q_SYNC,
    Q_XGETNEXTQUOTA,
    Q_XGETQSTAT,
    Q_XGETQSTATV,
    Q_XGETQUOTA,
    Q_XQUOTASYNC,
    SUBCMDMASK,
    SUBCMDSHIFT,
)
from sentry.abi.stat import S_IFBLK
from sentry.errors import EACCES, EINVAL, ENODEV, ENOSYS, ENOTBLK
from sentry.kernel.task import Task
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Fd, Int, PathAddr, UInt
from sentry.vfs.walk import resolve

READING: Final = (
    Q_GETFMT, Q_GETINFO, Q_SYNC, Q_XGETQSTAT, Q_XGETQSTATV, Q_XGETQUOTA, Q_XGETNEXTQUOTA,
    Q_XQUOTASYNC,
)  # fmt: skip
"""Commands for which the mount need not be writable: quotactl_cmd_write()."""


def _split(command: int) -> int:
    """The command without the kind of quota. Raises: EINVAL for another kind."""
    if command & SUBCMDMASK >= MAXQUOTAS:
        raise EINVAL(f"kind {command & SUBCMDMASK}")
    return command >> SUBCMDSHIFT


@syscall(179, partial="no quotas: ENOSYS on every file system, no block devices")
def sys_quotactl(task: Task, command: UInt, special: PathAddr, number: Int, addr: Addr) -> None:
    """quotactl(2): without a device, Q_SYNC is about all of them."""
    wanted = _split(command)
    if not special:
        if wanted == Q_SYNC:
            return
        raise ENODEV("no device")
    location = resolve(task, AT_FDCWD, special.read())
    inode, mount = location.dentry.inode, location.mount
    if inode.kind != S_IFBLK:
        raise ENOTBLK("no block device")
    if mount.flags & MS_NODEV or inode.fs.no_devices:
        raise EACCES("a device on a nodev mount")
    raise ENODEV("a device without a driver")


@syscall(443, partial="no quotas: ENOSYS on every file system")
def sys_quotactl_fd(task: Task, fd: Fd, command: UInt, number: Int, addr: Addr) -> None:
    """quotactl_fd(2): the file system that a descriptor lies on."""
    file = task.files.get_raw(fd & 0xFFFFFFFF)
    if _split(command) not in READING:
        file.location.mount.check_writable()
    raise ENOSYS("no quotas")

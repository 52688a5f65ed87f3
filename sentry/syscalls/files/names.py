"""Names of files: link, symlink, unlink, rename, mkdir, mknod, readlink."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_DAC_READ_SEARCH
from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
)
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK
from sentry.errors import EFAULT, EINVAL, ENAMETOOLONG, ENOENT, EPERM
from sentry.syscalls.args import UserOut as Out
from sentry.syscalls.args import UserPath
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import DirFd, Int, Mode, Path, PathAddr, UInt, UserOut
from sentry.vfs import names
from sentry.vfs.attributes import Named
from sentry.vfs.location import Location
from sentry.vfs.walk import resolve, resolve_parent

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def second_path(path: UserPath, first: Callable[[], object]) -> bytes:
    """The second path of a call: its EFAULT or ENAMETOOLONG counts only if `first` is found."""
    try:
        return path.read()
    except (EFAULT, ENAMETOOLONG):
        first()
        raise


# --- links


def link(task: Task, old: tuple[int, UserPath], new: tuple[int, UserPath], flags: int) -> None:
    """do_linkat()."""
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise EINVAL(f"flags {flags:#x}")
    empty_ok = bool(flags & AT_EMPTY_PATH)
    old_name = old[1].read()

    def place() -> Location:
        if empty_ok and not old_name and not task.creds.has(CAP_DAC_READ_SEARCH):
            fd = old[0]
            if fd != AT_FDCWD and task.files.get_raw(fd).creds is not task.creds:
                raise ENOENT("AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH")
        follow = bool(flags & AT_SYMLINK_FOLLOW)
        return resolve(task, old[0], old_name, follow=follow, empty_ok=empty_ok)

    new_name = second_path(new[1], place)
    with Named(place) as found:
        names.link(task, found, new[0], new_name)


@syscall(86)
def sys_link(task: Task, old: PathAddr, new: PathAddr) -> None:
    """link(2)."""
    link(task, (AT_FDCWD, old), (AT_FDCWD, new), 0)


@syscall(265)
def sys_linkat(
    task: Task, olddirfd: DirFd, old: PathAddr, newdirfd: DirFd, new: PathAddr, flags: Int
) -> None:
    """linkat(2)."""
    link(task, (olddirfd, old), (newdirfd, new), flags)


@syscall(88)
def sys_symlink(task: Task, target: Path, path: PathAddr) -> None:
    """symlink(2)."""
    symlink(task, target, AT_FDCWD, path)


@syscall(266)
def sys_symlinkat(task: Task, target: Path, dirfd: DirFd, path: PathAddr) -> None:
    """symlinkat(2)."""
    symlink(task, target, dirfd, path)


def symlink(task: Task, target: bytes, dirfd: int, path: UserPath) -> None:
    """An empty target is ENOENT, as an empty path is."""
    if not target:
        raise ENOENT("an empty target")
    names.symlink(task, target, dirfd, path.read())


def readlink(task: Task, dirfd: int, name: UserPath, buf: Out, size: int) -> int:
    """do_readlinkat(): an empty path reads the link that is open as `dirfd` (O_PATH)."""
    if size <= 0:
        raise EINVAL(f"size {size}")
    path = name.read()
    location = resolve(task, dirfd, path, follow=False, empty_ok=dirfd != AT_FDCWD)
    inode = location.dentry.inode
    if not inode.is_symlink:
        raise EINVAL("no symbolic link") if path else ENOENT("no symbolic link")
    text = inode.readlink_for(task) or inode.readlink()
    if not location.mount.no_atime:
        inode.accessed()
    text = text[:size]
    buf.put(text)
    return len(text)


@syscall(89)
def sys_readlink(task: Task, path: PathAddr, buf: UserOut, size: Int) -> int:
    """readlink(2)."""
    return readlink(task, AT_FDCWD, path, buf, size)


@syscall(267)
def sys_readlinkat(task: Task, dirfd: DirFd, path: PathAddr, buf: UserOut, size: Int) -> int:
    """readlinkat(2)."""
    return readlink(task, dirfd, path, buf, size)


# --- removing


@syscall(87)
def sys_unlink(task: Task, path: Path) -> None:
    """unlink(2)."""
    names.unlink(task, AT_FDCWD, path)


@syscall(263)
def sys_unlinkat(task: Task, dirfd: DirFd, path: PathAddr, flags: Int) -> None:
    """unlinkat(2)."""
    if flags & ~AT_REMOVEDIR:
        raise EINVAL(f"flags {flags:#x}")
    name = path.read()
    if flags & AT_REMOVEDIR:
        names.rmdir(task, dirfd, name)
    else:
        names.unlink(task, dirfd, name)


@syscall(84)
def sys_rmdir(task: Task, path: Path) -> None:
    """rmdir(2)."""
    names.rmdir(task, AT_FDCWD, path)


# --- making


@syscall(83)
def sys_mkdir(task: Task, path: Path, mode: Mode) -> None:
    """mkdir(2)."""
    names.mkdir(task, AT_FDCWD, path, mode)


@syscall(258)
def sys_mkdirat(task: Task, dirfd: DirFd, path: Path, mode: Mode) -> None:
    """mkdirat(2)."""
    names.mkdir(task, dirfd, path, mode)


def mknod(task: Task, dirfd: int, path: UserPath, mode: int, dev: int) -> None:
    """do_mknodat(): the type is checked before the name."""
    kind = mode & S_IFMT
    if kind == S_IFDIR:
        raise EPERM("a directory")
    if kind not in (0, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise EINVAL(f"type {kind:o}")
    device = dev if kind in (S_IFCHR, S_IFBLK) else 0
    names.mknod(task, dirfd, path.read(), mode | (0 if kind else S_IFREG), device)


@syscall(133)
def sys_mknod(task: Task, path: PathAddr, mode: Mode, dev: UInt) -> None:
    """mknod(2)."""
    mknod(task, AT_FDCWD, path, mode, dev)


@syscall(259)
def sys_mknodat(task: Task, dirfd: DirFd, path: PathAddr, mode: Mode, dev: UInt) -> None:
    """mknodat(2)."""
    mknod(task, dirfd, path, mode, dev)


# --- moving


def rename(task: Task, old: tuple[int, UserPath], new: tuple[int, UserPath], flags: int) -> None:
    """do_renameat2()."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise EINVAL(f"flags {flags:#x}")
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise EINVAL(f"flags {flags:#x}")
    source = old[0], old[1].read()
    new_name = second_path(new[1], lambda: resolve_parent(task, *source))
    names.rename(task, source, (new[0], new_name), flags)


@syscall(82)
def sys_rename(task: Task, old: PathAddr, new: PathAddr) -> None:
    """rename(2)."""
    rename(task, (AT_FDCWD, old), (AT_FDCWD, new), 0)


@syscall(264)
def sys_renameat(
    task: Task, olddirfd: DirFd, old: PathAddr, newdirfd: DirFd, new: PathAddr
) -> None:
    """renameat(2)."""
    rename(task, (olddirfd, old), (newdirfd, new), 0)


@syscall(316)
def sys_renameat2(
    task: Task, olddirfd: DirFd, old: PathAddr, newdirfd: DirFd, new: PathAddr, flags: UInt
) -> None:
    """renameat2(2)."""
    rename(task, (olddirfd, old), (newdirfd, new), flags)

"""chmod, chown, utimensat, truncate: who may, and what else changes. fs/attr.c, fs/open.c."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from sentry.abi.fcntl import F_SEAL_EXEC, FS_IMMUTABLE_FL, O_WRONLY
from sentry.abi.inotify import IN_ACCESS, IN_ATTRIB, IN_MODIFY
from sentry.abi.resource import RLIMIT_FSIZE
from sentry.abi.signal import SIGXFSZ
from sentry.auth.credentials import UNCHANGED, Credentials
from sentry.auth.permissions import (
    MAY_WRITE,
    check_chown,
    chmod_bits,
    chown_drops_set_id,
    drop_set_id,
    owner_or_capable,
)
from sentry.errors import EACCES, EFBIG, EINVAL, EISDIR, EOPNOTSUPP, EPERM, ETXTBSY
from sentry.vfs.access import check_inode
from sentry.vfs.file import Caller
from sentry.vfs.flags import check_append_only, check_fixed
from sentry.vfs.interface import Changes, Inode
from sentry.vfs.location import Location
from sentry.vfs.watches import tell_changed
from sentry.wait.again import NotNow, kept


class Named:
    """The place that a path names, of a call that changes what is there: it is looked for once. A
    call that was asleep inside goes on with what it found before, whatever has the name by then."""

    __slots__ = ("_find", "_place")

    def __init__(self, find: Callable[[], Location]) -> None:
        self._find = find

    def __enter__(self) -> Location:
        place: Location = kept(Named) or self._find()
        self._place = place
        return place

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if isinstance(error, NotNow):
            error.call.answers[Named] = self._place


def _is_owner(creds: Credentials, inode: Inode) -> bool:
    """Attributes may be changed: inode_owner_or_capable(), unless a server says that."""
    return inode.server_decides or owner_or_capable(creds, inode.uid)


def check_changeable(inode: Inode) -> None:
    """anon_inode_setattr(). Raises: EOPNOTSUPP."""
    if inode.fs.fixed_attributes:
        raise EOPNOTSUPP("an anonymous inode")


def chmod_location(caller: Caller, location: Location, mode: int) -> None:
    """chmod_common(). Raises: EROFS, EPERM, EOPNOTSUPP for a symbolic link."""
    location.mount.check_writable()
    inode = location.dentry.inode
    with inode.lock:
        if inode.is_symlink:
            raise EOPNOTSUPP("the mode of a symbolic link")
        check_changeable(inode)
        check_fixed(inode)
        if not _is_owner(caller.creds, inode):
            raise EPERM("chmod of somebody else's file")
        if inode.seals & F_SEAL_EXEC and (mode ^ inode.mode) & 0o111:
            raise EPERM("F_SEAL_EXEC")
        inode.setattr(Changes(mode=chmod_bits(caller.creds, mode & 0o7777, inode.gid)))
    tell_changed(location.dentry, IN_ATTRIB)


def chown_location(caller: Caller, location: Location, uid: int, gid: int) -> None:
    """chown_common(); 0xffffffff leaves an id alone. Raises: EROFS, EPERM."""
    location.mount.check_writable()
    inode = location.dentry.inode
    with inode.lock:
        new_uid = None if uid == UNCHANGED else uid
        new_gid = None if gid == UNCHANGED else gid
        check_changeable(inode)
        check_fixed(inode)
        if not inode.server_decides:
            check_chown(caller.creds, (inode.uid, inode.gid), new_uid, new_gid)
        mode = chown_drops_set_id(caller.creds, inode.mode, inode.gid)
        if mode is not None and new_gid is not None:  # a mode that is set, as by chmod(2)
            mode = chmod_bits(caller.creds, mode, new_gid)
        inode.setattr(Changes(mode=mode, uid=new_uid, gid=new_gid))
        if not inode.is_dir:
            inode.drop_file_caps()
    if (new_uid, new_gid, mode) != (None, None, None):
        tell_changed(location.dentry, IN_ATTRIB)


class Times(Struct, frozen=True):
    """What utimensat(2) asks for: ns, or None for UTIME_OMIT; `now`: UTIME_NOW for those given."""

    atime_ns: int | None
    mtime_ns: int | None
    both_now: bool = False


def set_times(caller: Caller, location: Location, times: Times) -> None:
    """vfs_utimes(). Only the owner may set times; who may write may set both to now."""
    location.mount.check_writable()
    inode, creds = location.dentry.inode, caller.creds
    if times.atime_ns is None and times.mtime_ns is None:
        return
    with inode.lock:
        if not times.both_now:
            check_fixed(inode)
        elif inode.file_flags & FS_IMMUTABLE_FL:
            raise EPERM("immutable")
        if not _is_owner(creds, inode):
            if not times.both_now:
                raise EPERM("times of somebody else's file")
            try:
                check_inode(creds, inode, MAY_WRITE)
            except EACCES:
                raise EACCES("times of somebody else's file") from None
        check_changeable(inode)
        inode.setattr(
            Changes(
                atime_ns=times.atime_ns, mtime_ns=times.mtime_ns, times_now=times.both_now
            )
        )
    tell_changed(location.dentry, _event_of(times))


def _event_of(times: Times) -> int:
    """One time alone looks like a read or a write: fsnotify_change()."""
    if times.mtime_ns is None:
        return IN_ACCESS
    return IN_MODIFY if times.atime_ns is None else IN_ATTRIB


def truncate_path(caller: Caller, location: Location, length: int) -> None:
    """vfs_truncate(): truncate(2) by name. The length is checked."""
    inode = location.dentry.inode
    if inode.is_dir:
        raise EISDIR("a directory")
    if not inode.is_regular:
        raise EINVAL("not a regular file")
    check_inode(caller.creds, inode, MAY_WRITE)
    location.mount.check_writable()
    check_append_only(inode)
    if inode.write_count < 0:
        raise ETXTBSY("a program is running from it")
    if inode.locks is not None and inode.locks.leases is not None:
        from sentry.vfs.leases import break_leases  # noqa: PLC0415

        break_leases(caller, inode, O_WRONLY)
    truncate_inode(caller, location, length)


def truncate_inode(caller: Caller, location: Location, length: int) -> None:
    """do_truncate() of a regular file. Raises: EFBIG with SIGXFSZ beyond RLIMIT_FSIZE."""
    inode = location.dentry.inode
    if length > caller.rlimit(RLIMIT_FSIZE):
        size = (inode.stat()).size
        if length > size:
            check_size_limit(caller, length)
    with inode.lock:
        mode = drop_set_id(caller.creds, inode.mode, inode.gid)
        inode.setattr(Changes(size=length, mode=mode))


def check_size_limit(caller: Caller, size: int) -> None:
    """A file is to grow to `size`: inode_newsize_ok(). Raises: EFBIG with SIGXFSZ."""
    if size > caller.rlimit(RLIMIT_FSIZE):
        caller.send_signal(SIGXFSZ)
        raise EFBIG("RLIMIT_FSIZE")

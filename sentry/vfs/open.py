"""open(2) and its relatives below the system call: fs/namei.c (path_openat), fs/open.c.

`OpenHow` is what the flags mean; `open_path` walks, creates, checks and opens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, cast

from msgspec import Struct

from sentry.abi.fanotify import FAN_OPEN_EXEC
from sentry.abi.fcntl import (
    FS_APPEND_FL,
    O_ACCMODE,
    O_APPEND,
    O_ASYNC,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECT,
    O_DIRECTORY,
    O_DSYNC,
    O_EXCL,
    O_LARGEFILE,
    O_NOATIME,
    O_NOCTTY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY,
    O_SYNC,
    O_TMPFILE,
    O_TRUNC,
)
from sentry.abi.inotify import IN_CREATE, IN_MODIFY, IN_OPEN
from sentry.abi.limits import NAME_MAX
from sentry.abi.mount import MS_NODEV, MS_NOEXEC
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK
from sentry.auth.permissions import MAY_EXEC, MAY_READ, MAY_WRITE, owner_or_capable
from sentry.errors import (
    EACCES,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    ENOENT,
    ENOTDIR,
    ENXIO,
    EPERM,
    ETXTBSY,
    Errno,
)
from sentry.vfs.access import check_create, check_device, check_inode, check_maker
from sentry.vfs.attributes import truncate_inode
from sentry.vfs.dentry import Dentry
from sentry.vfs.file import Caller, FileDescription
from sentry.vfs.interface import ABSENT, Absent, Inode
from sentry.vfs.location import Location, UnheardLocation
from sentry.vfs.names import new_owner
from sentry.vfs.walk import Parent, child_for, down, follow_last, resolve_parent, walk
from sentry.vfs.watches import tell, tell_changed, tell_entry
from sentry.wait.again import CURRENT, NotNow, kept

TMPFILE_BIT: Final = O_TMPFILE & ~O_DIRECTORY
SYNC_BIT: Final = O_SYNC & ~O_DSYNC
VALID_FLAGS: Final = (
    O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC | SYNC_BIT
    | O_ASYNC | O_DIRECT | O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH
    | TMPFILE_BIT
)  # fmt: skip
O_CREAT_TRUNC_TMPFILE: Final = O_CREAT | O_TRUNC | TMPFILE_BIT
OPEN_ONLY: Final = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC
"""Flags that F_GETFL does not show."""
SELDOM: Final = O_CREAT | TMPFILE_BIT
"""Flags with which there may be nothing yet to be opened."""
MAX_LOST: Final = 16
"""So often others may make the name first that is to be made."""
NOT_TO_READ: Final = O_ACCMODE | O_PATH | O_DIRECTORY | O_TRUNC
PATH_FLAGS: Final = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC
UNSEEN: Final = Absent()
"""A name that need not be looked for (`_need_not_look`): who makes it may do so."""

WAITED: Final = "opened file"
"""Key of an answer: a description that has its other side now. The call holds it."""


class OpenHow(Struct, frozen=True):
    """Checked flags of an open: struct open_flags."""

    flags: int
    mode: int
    access: int
    resolve: int = 0

    @staticmethod
    @lru_cache(512)
    def old(flags: int, mode: int) -> OpenHow:
        """open(2), openat(2): unknown bits are ignored. Raises: EINVAL."""
        flags &= VALID_FLAGS
        flags = flags & PATH_FLAGS if flags & O_PATH else flags | O_LARGEFILE
        if not flags & (O_CREAT | TMPFILE_BIT):
            mode = 0
        return OpenHow.strict(flags, mode & 0o7777, 0)

    @staticmethod
    def strict(flags: int, mode: int, resolve: int) -> OpenHow:
        """openat2(2), and what both have in common: build_open_flags(). Raises: EINVAL."""
        if flags & ~VALID_FLAGS:
            raise EINVAL(f"open flags {flags:#x}")
        if flags & (O_CREAT | TMPFILE_BIT):
            if mode & ~0o7777:
                raise EINVAL(f"mode {mode:o}")
        elif mode:
            raise EINVAL("a mode but nothing to create")
        if flags & (O_DIRECTORY | O_CREAT) == O_DIRECTORY | O_CREAT:
            raise EINVAL("O_DIRECTORY and O_CREAT")
        access = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE)[flags & 3]
        bad_tmpfile = not flags & O_DIRECTORY or not access & MAY_WRITE
        if flags & TMPFILE_BIT and bad_tmpfile:
            raise EINVAL("O_TMPFILE must be for writing")
        if flags & O_PATH and flags & ~PATH_FLAGS:
            raise EINVAL("O_PATH with other flags")
        if flags & O_PATH:
            access = 0
        if flags & SYNC_BIT:
            flags |= O_DSYNC
        if flags & O_TRUNC:
            access |= MAY_WRITE
        return OpenHow(flags, mode, access, resolve)


def open_path(caller: Caller, dirfd: int, path: bytes, how: OpenHow) -> FileDescription:
    """Open (or create and open) what a path names. The description has no descriptor yet.

    As alloc_empty_file() of Linux, before anything is looked up or made. Raises: ENFILE.
    """
    if CURRENT.call is None:
        caller.kernel.vfs.budget.check_files()
    elif (waited := kept(WAITED)) is not None:  # whatever its name leads to by now
        _opened(caller, waited.location, waited, how)
        return cast("FileDescription", waited)
    elif (found := kept(open_found)) is not None:  # it is open, and being truncated
        return open_found(caller, found, how)
    flags = how.flags
    if flags & SELDOM:
        if flags & TMPFILE_BIT:
            return _open_tmpfile(caller, dirfd, path, how)
        if flags & O_CREAT:
            return _open_creating(caller, dirfd, path, how)
    follow = not flags & O_NOFOLLOW
    opens = not flags & NOT_TO_READ
    mount, dentry, _ = walk(caller, dirfd, path, follow, False, how.resolve, None, opens)
    return open_found(caller, tuple.__new__(Location, (mount, dentry)), how)


def open_used(caller: Caller, dirfd: int, path: bytes, how: OpenHow) -> FileDescription:
    """The same with a use, for who opens by `again`: with the end of that call all others end."""
    return open_path(caller, dirfd, path, how).incref()


def open_found(caller: Caller, location: Location, how: OpenHow) -> FileDescription:
    """Open what a walk has found."""
    if how.flags & O_DIRECTORY and not location.dentry.inode.is_dir:
        raise ENOTDIR("not a directory")
    if how.flags & O_PATH:
        return open_o_path(caller, location, how.flags)
    return open_location(caller, location, how)


def open_o_path(caller: Caller, location: Location, flags: int) -> FileDescription:
    """O_PATH: a place, not an open file. No rights on the file are needed."""
    if caller.judge is not None:
        caller.judge.opening(location, OpenHow(flags, 0, 0))
    file = FileDescription(location, flags & PATH_FLAGS & ~O_CLOEXEC)
    file.creds = caller.creds
    file.count(caller.kernel.vfs.budget)
    return file


def open_location(
    caller: Caller, location: Location, how: OpenHow, *, created: bool = False
) -> FileDescription:
    """Check rights and open: do_open(), may_open(), do_dentry_open()."""
    flags, inode = how.flags, location.dentry.inode
    file: FileDescription | None = kept((open_location, inode))
    if file is None:
        truncate = _check_open(caller, location, how, created)
        if caller.judge is not None and not created:
            caller.judge.opening(location, how)
        if inode.locks is not None and inode.locks.leases is not None:
            from sentry.vfs.leases import break_leases  # noqa: PLC0415

            break_leases(caller, inode, flags)
        if truncate:
            inode.before_truncation()
        file = _open_kind(caller, location, flags & ~OPEN_ONLY | flags & O_NOCTTY)
        _opened(caller, location, file, how)
        file.created = created
        if not truncate:
            return file
    try:
        truncate_inode(caller, location, 0)
    except NotNow as need:
        need.call.answers |= {(open_location, inode): file, open_found: location}
        need.call.hold_files(file)
        raise
    except BaseException:
        file.incref().decref()
        raise
    tell_changed(location.dentry, IN_MODIFY)
    return file


def _check_open(caller: Caller, location: Location, how: OpenHow, created: bool) -> bool:
    """All that can be refused before the file is opened; whether it is to be truncated then."""
    flags, inode, mount = how.flags, location.dentry.inode, location.mount
    access = 0 if created else how.access
    truncate = bool(flags & O_TRUNC) and not created and inode.is_regular
    if truncate:
        mount.check_writable()
    _may_open(caller, location, flags, access)
    kind = inode.kind
    writes = access & MAY_WRITE and kind in (S_IFREG, S_IFDIR, S_IFLNK)
    if created or writes:
        if inode.write_count < 0 and (truncate or flags & O_ACCMODE):
            raise ETXTBSY("a program is running from it")
        mount.check_writable()
    if access & MAY_EXEC and inode.write_count > 0:
        raise ETXTBSY("open for writing")
    return truncate


def _opened(caller: Caller, location: Location, file: FileDescription, how: OpenHow) -> None:
    """It is open: who did it, and who hears of it. Raises: EINVAL for O_DIRECT."""
    if how.flags & O_DIRECT and not file.can_direct:
        file.incref().decref()
        raise EINVAL("no O_DIRECT")
    file.flags &= ~O_NOCTTY
    file.creds = caller.creds
    file.count(caller.kernel.vfs.budget)
    if location.dentry.inode.fs.watched:
        tell(location, IN_OPEN | FAN_OPEN_EXEC if how.access & MAY_EXEC else IN_OPEN)


def _may_open(caller: Caller, location: Location, flags: int, access: int) -> None:
    inode, mount = location.dentry.inode, location.mount
    kind = inode.kind
    if kind == S_IFLNK:
        raise ELOOP("a symbolic link")
    if kind == S_IFDIR:
        if access & MAY_WRITE:
            raise EISDIR("a directory")
        if access & MAY_EXEC:
            raise EACCES("a directory")
    elif kind in (S_IFBLK, S_IFCHR) and (mount.flags & MS_NODEV or inode.fs.no_devices):
        raise EACCES("a device on a nodev mount")
    if access & MAY_EXEC and kind != S_IFDIR and (kind != S_IFREG or mount.flags & MS_NOEXEC):
        raise EACCES("not to be executed")
    if access and not inode.belongs_to(caller):
        check_inode(caller.creds, inode, access)
    if kind in (S_IFBLK, S_IFCHR):
        check_device(caller, inode.kind, inode.rdev, access)
    if inode.file_flags & FS_APPEND_FL:
        writes = access & MAY_WRITE and flags & O_ACCMODE
        if (writes and not flags & O_APPEND) or flags & O_TRUNC:
            raise EPERM("append-only")
    if flags & O_NOATIME and not owner_or_capable(caller.creds, inode.uid):
        raise EPERM("O_NOATIME")


def _open_kind(caller: Caller, location: Location, flags: int) -> FileDescription:
    inode = location.dentry.inode
    kind = inode.kind
    if inode.opens_itself or kind in (S_IFREG, S_IFDIR):
        return inode.open(location, flags, caller)
    vfs = caller.kernel.vfs
    if kind in (S_IFCHR, S_IFBLK):
        opener = vfs.devices.get((kind, inode.rdev))
    else:
        opener = vfs.openers.get(kind) if kind == S_IFIFO or kind != S_IFSOCK else None
    if opener is None:
        raise ENXIO(f"kind {kind:o} {inode.rdev:#x}")
    file: FileDescription = opener(location, flags, caller)
    return file


def open_unheard(caller: Caller, location: Location, flags: int) -> FileDescription:
    """Open a file for who was told of it: no rights are asked for, and nobody hears of it, nor of
    what is done with it: dentry_open_nonotify(). Raises: EROFS, ETXTBSY, ENXIO, NotNow."""
    inode = location.dentry.inode
    if flags & O_ACCMODE != O_RDONLY and inode.kind in (S_IFREG, S_IFDIR):
        location.mount.check_writable()
        if inode.write_count < 0:
            raise ETXTBSY("a program is running from it")
    caller.kernel.vfs.budget.check_files()
    file = _open_kind(caller, UnheardLocation(*location), flags & ~OPEN_ONLY)
    file.creds = caller.creds
    file.count(caller.kernel.vfs.budget)
    return file


# --- creating


def _open_creating(
    caller: Caller, dirfd: int, path: bytes, how: OpenHow
) -> FileDescription:
    flags = how.flags
    made: Location | None = kept(_open_creating)
    if made is not None:
        return open_location(caller, made, how, created=True)
    follow = not flags & (O_NOFOLLOW | O_EXCL)
    parent: Parent = kept(_create) or resolve_parent(caller, dirfd, path, how.resolve)
    lost: int = kept(_forget_answers) or 0
    judged: Parent | None = None
    while True:
        if parent.last in (b"", b".", b".."):
            return _open_dots(caller, parent, how)
        if parent.last_slash:
            raise EISDIR("slashes after the name of a file to create")
        mount, directory = parent.at
        inode = directory.inode
        with inode.lock:
            child: Inode | Absent | None = kept((_open_creating, inode, parent.last))
            if child is None and _need_not_look(caller, parent, flags):
                child = UNSEEN
            elif child is None:
                child = child_for(caller, inode, parent.last)
            must_ask = caller.judge is not None and judged is not parent
            if isinstance(child, Absent) and not must_ask:
                try:
                    return _open_made(caller, _create(caller, parent, child, how), how)
                except EEXIST:  # somebody outside was faster
                    lost += 1
                    if flags & O_EXCL or lost == MAX_LOST:
                        raise
                    _forget_answers(inode, lost)
        if isinstance(child, Absent):
            if must_ask:  # without the lock: it may take long
                if kept((_open_creating, inode, parent.last)) is None:
                    caller.judge.creating(parent.at, parent.last, how)
                judged = parent
            continue
        dentry = directory.child(parent.last, child, caller.kernel.vfs.dentries)
        location = down(mount, dentry, how.resolve)
        if not child.is_symlink or not follow:
            break
        parent = follow_last(caller, dirfd, parent, child, how.resolve)
        if not parent.last:
            location = parent.at
            break
    if flags & O_EXCL:
        raise EEXIST(f"{path!r}")
    return _open_existing(caller, location, parent.at.dentry.inode, how)


def _forget_answers(directory: Inode, lost: int) -> None:
    """What this call has asked about names in it, or to make one, is to be asked anew; `lost`: how
    often by now."""
    if CURRENT.call is not None:
        answers = CURRENT.call.answers
        answers[_forget_answers] = lost
        for key in [key for key in answers if isinstance(key, tuple) and directory in key]:
            del answers[key]


def _need_not_look(caller: Caller, parent: Parent, flags: int) -> bool:
    """With O_EXCL the host says by itself that a name is there; not to who may not make it."""
    mount, directory = parent.at
    name = parent.last
    if not flags & O_EXCL or len(name) > NAME_MAX or not directory.inode.may_be_made(name):
        return False
    try:
        mount.check_writable()
        check_create(caller.creds, directory)
    except Errno:
        return False
    return True


def _create(caller: Caller, parent: Parent, child: Absent, how: OpenHow) -> Location:
    mount, directory = parent.at
    name, inode = parent.last, directory.inode
    if directory.unlinked:
        raise ENOENT("the directory has been removed")
    if child is not UNSEEN:
        mount.check_writable()
        check_create(caller.creds, directory)
    mode, owner = new_owner(caller, inode, S_IFREG | how.mode)
    if kept((_open_creating, inode, name)) is None:
        inode.check_room(caller)
    try:
        made = inode.create_to_open(name, mode & 0o7777, owner, how.flags)
    except NotNow as need:
        need.call.answers |= {(_open_creating, inode, name): ABSENT, _create: parent}
        raise
    dentry = directory.child(name, made, caller.kernel.vfs.dentries)
    tell_entry(directory, IN_CREATE, name, made)
    return tuple.__new__(Location, (mount, dentry))


def _open_made(caller: Caller, made: Location, how: OpenHow) -> FileDescription:
    """Open the file that was created just now."""
    try:
        return open_location(caller, made, how, created=True)
    except NotNow as need:
        need.call.answers[_open_creating] = made
        raise


def _open_dots(caller: Caller, walk: Parent, how: OpenHow) -> FileDescription:
    if how.flags & O_EXCL:
        raise EEXIST("a directory")
    if walk.last == b".." or walk.at.dentry.inode.is_dir:
        raise EISDIR("a directory")
    return _open_existing(caller, walk.at, None, how)


def _open_existing(
    caller: Caller, location: Location, directory: Inode | None, how: OpenHow
) -> FileDescription:
    inode = location.dentry.inode
    if inode.is_dir:
        raise EISDIR("a directory")
    if directory is not None:
        _check_sticky_create(caller, directory, inode)
    return open_location(caller, location, how)


def _check_sticky_create(caller: Caller, directory: Inode, inode: Inode) -> None:
    """fs.protected_regular and fs.protected_fifos: may_create_in_sticky(). Raises: EACCES."""
    vfs = caller.kernel.vfs
    level = {S_IFREG: vfs.protected_regular, S_IFIFO: vfs.protected_fifos}.get(inode.kind, 0)
    if not level or not directory.mode & 0o1000:
        return
    if inode.uid in (directory.uid, caller.creds.fsuid):
        return
    if directory.mode & 0o002 or (level >= 2 and directory.mode & 0o020):
        raise EACCES("somebody else's file in a sticky directory")


def _open_tmpfile(
    caller: Caller, dirfd: int, path: bytes, how: OpenHow
) -> FileDescription:
    mount, dentry, _ = walk(caller, dirfd, path, not how.flags & O_NOFOLLOW, False, how.resolve)
    at = Location(mount, dentry)
    if not at.dentry.inode.is_dir:
        raise ENOTDIR(f"{path!r}")
    at.mount.check_writable()
    check_maker(caller.creds, at.dentry.inode)
    check_inode(caller.creds, at.dentry.inode, MAY_WRITE | MAY_EXEC)
    mode, owner = new_owner(caller, at.dentry.inode, S_IFREG | how.mode)
    if caller.judge is not None:
        caller.judge.creating(at, b"#", how)
    linkable = not how.flags & O_EXCL
    inode = at.dentry.inode.tmpfile(mode & 0o7777, owner, linkable)
    inode.linkable = linkable
    dentry = Dentry(at.dentry, b"#%d" % inode.ino, inode)
    dentry.unlinked = True
    flags = how.flags & ~(O_TMPFILE | O_EXCL | O_DIRECTORY)
    place = Location(at.mount, dentry)
    file = open_location(caller, place, OpenHow(flags, 0, how.access), created=True)
    file.created = False
    file.flags |= O_TMPFILE
    return file


# --- running programs


def deny_write(inode: Inode) -> None:
    """A program starts from the file: nobody may open it for writing. Raises: ETXTBSY."""
    if inode.write_count > 0:
        raise ETXTBSY("open for writing")
    inode.write_count -= 1


def allow_write(inode: Inode) -> None:
    """A program that ran from the file is gone."""
    inode.write_count += 1


EXECUTE: Final = OpenHow(O_RDONLY, 0, MAY_EXEC)
"""How execve(2) opens a program."""

"""Access control lists of files as programs set and read them: acl(5), fs/posix_acl.c.

What a list means is in sentry.auth.acl; who may do what by one, in `access`.
"""

from __future__ import annotations

from sentry.abi.capability import CAP_FSETID
from sentry.abi.inotify import IN_ATTRIB
from sentry.auth.acl import ACCESS, DEFAULT, check_valid, from_program, mode_of, to_program
from sentry.auth.credentials import Credentials
from sentry.auth.permissions import owner_or_capable
from sentry.errors import EACCES, EOPNOTSUPP, EPERM
from sentry.vfs.file import Caller
from sentry.vfs.flags import check_fixed
from sentry.vfs.interface import Inode
from sentry.vfs.location import Location
from sentry.vfs.watches import tell_changed


def _check_supported(inode: Inode) -> None:
    """IS_POSIXACL(); links have none."""
    if not inode.fs.posix_acls or inode.is_symlink:
        raise EOPNOTSUPP("no access control lists")


def get_acl(caller: Caller, inode: Inode, name: bytes) -> bytes:
    """vfs_get_acl(): as the caller's user namespace has it. Raises: EOPNOTSUPP, ENODATA."""
    _check_supported(inode)
    return to_program(caller.creds, inode.getxattr(name))


def set_acl(caller: Caller, location: Location, name: bytes, data: bytes) -> None:
    """do_set_acl(), vfs_remove_acl(): `data` is the value of the attribute, empty to remove it.

    Preconditions: the mount can be written. Raises: EINVAL, EOPNOTSUPP, EPERM, ENOSPC, EACCES for a
    default list of what is no directory.
    """
    creds, inode = caller.creds, location.dentry.inode
    value = from_program(creds, data) if data else b""
    with inode.lock:
        check_fixed(inode)
        _check_supported(inode)
        if name != DEFAULT or inode.is_dir:
            if not owner_or_capable(creds, inode.uid):
                raise EPERM("the list of somebody else's file")
            if value:
                check_valid(value, inode.fs.owner)
            mode = _mode_with(creds, inode, value) if name == ACCESS else None
            inode.set_acl(name, value, mode)
        elif value:
            raise EACCES("a default list of what is no directory")
    tell_changed(location.dentry, IN_ATTRIB)


def _mode_with(creds: Credentials, inode: Inode, value: bytes) -> int:
    """posix_acl_update_mode()."""
    mode = inode.mode & 0o7777
    if value:
        mode = mode & ~0o777 | mode_of(value)
    if not (creds.in_group(inode.gid) or creds.over(CAP_FSETID, inode.uid, inode.gid)):
        mode &= ~0o2000
    return mode

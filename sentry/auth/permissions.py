"""Who may do what to an inode: the permission bits and the capabilities that override them.

Plain functions over numbers (mode, uid, gid), so that this room knows no inodes. fs/namei.c
(generic_permission), fs/attr.c, path_resolution(7).
"""

from __future__ import annotations

from typing import Final

from sentry.abi.capability import CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
from sentry.abi.capability import CAP_FSETID as _CAP_FSETID
from sentry.auth.credentials import Credentials
from sentry.errors import EPERM

MAY_EXEC: Final = 1
MAY_WRITE: Final = 2
MAY_READ: Final = 4
MAY_ALL: Final = 7
MAY_ACCESS: Final = 0x10
MAY_CHDIR: Final = 0x40
"""It is asked by access(2), by chdir(2): file systems with rights of their own tell these apart."""


def may_access(creds: Credentials, mode: int, uid: int, gid: int, mask: int) -> bool:
    """Whether the bits of `mode`, or a capability, allow `mask` (MAY_*)."""
    if creds.fsuid == uid:
        bits = mode >> 6
    elif creds.in_group(gid):
        bits = mode >> 3
    else:
        bits = mode
    return not mask & ~bits or may_override(creds, mode, uid, gid, mask)


def may_override(creds: Credentials, mode: int, uid: int, gid: int, mask: int) -> bool:
    """Whether a capability allows `mask`, whatever the file says."""
    if mode & 0o170000 == 0o040000:
        if creds.over(CAP_DAC_OVERRIDE, uid, gid):
            return True
        return not mask & MAY_WRITE and creds.over(CAP_DAC_READ_SEARCH, uid, gid)
    if mask == MAY_READ and creds.over(CAP_DAC_READ_SEARCH, uid, gid):
        return True
    if mask & MAY_EXEC and not mode & 0o111:
        return False
    return creds.over(CAP_DAC_OVERRIDE, uid, gid)


def owner_or_capable(creds: Credentials, uid: int) -> bool:
    """inode_owner_or_capable()."""
    return creds.fsuid == uid or creds.over(CAP_FOWNER, uid)


def check_sticky(creds: Credentials, dir_mode: int, dir_uid: int, uid: int) -> None:
    """In a sticky directory only the owners of file and directory remove names. Raises: EPERM."""
    if not dir_mode & 0o1000 or creds.fsuid in (uid, dir_uid) or creds.over(CAP_FOWNER, uid):
        return
    raise EPERM("sticky directory")


def check_chown(
    creds: Credentials, inode: tuple[int, int], uid: int | None, gid: int | None
) -> None:
    """chown_ok() and chgrp_ok(), fs/attr.c; `inode` is its owner and group. Raises: EPERM."""
    owner, group = inode
    mine = creds.fsuid == owner
    capable = creds.over(CAP_CHOWN, owner, group)
    if uid is not None and not (mine and uid == owner) and not capable:
        raise EPERM(f"chown to {uid}")
    member = mine and gid is not None and (gid == group or creds.in_group(gid))
    if gid is not None and not member and not capable:
        raise EPERM(f"chgrp to {gid}")


def chmod_bits(creds: Credentials, mode: int, gid: int) -> int:
    """The bits chmod really sets: set-group-id only for members of the group."""
    if (
        mode & 0o2000
        and not creds.in_group(gid)
        and not creds.over(_CAP_FSETID, creds.fsuid, gid)
    ):
        mode &= ~0o2000
    return mode & 0o7777


def drop_set_id(creds: Credentials, mode: int, gid: int) -> int | None:
    """The bits after a write or truncation, or None if they stay: file_remove_privs()."""
    if not mode & 0o6000 or mode & 0o170000 != 0o100000 or creds.has(_CAP_FSETID):
        return None
    return _without_set_id(creds, mode, gid)


def chown_drops_set_id(creds: Credentials, mode: int, gid: int) -> int | None:
    """The permission bits after a chown by anybody, or None if they stay: chown(2)."""
    if mode & 0o170000 == 0o040000:
        return None
    return _without_set_id(creds, mode, gid)


def _without_set_id(creds: Credentials, mode: int, gid: int) -> int | None:
    """Without group execution set-group-id stays for members: setattr_should_drop_sgid()."""
    drop = mode & 0o4000
    if mode & 0o2000 and (mode & 0o010 or chmod_bits(creds, mode, gid) != mode & 0o7777):
        drop |= 0o2000
    return (mode & ~drop) & 0o7777 if drop else None

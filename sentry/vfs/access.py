"""Permission checks on inodes, in the order of fs/namei.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.bpf import BPF_DEVCG_ACC_MKNOD, BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE
from sentry.abi.fcntl import FS_IMMUTABLE_FL
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.auth.acl import acl_allows, read_acl
from sentry.auth.credentials import Credentials
from sentry.auth.permissions import (
    MAY_ALL,
    MAY_EXEC,
    MAY_READ,
    MAY_WRITE,
    check_sticky,
    may_access,
    may_override,
)
from sentry.auth.userns import NO_ID
from sentry.errors import EACCES, EISDIR, ENOENT, ENOTDIR, EOVERFLOW, EPERM, EROFS
from sentry.vfs.dentry import Dentry
from sentry.vfs.flags import check_append_only, check_fixed
from sentry.vfs.interface import Inode

if TYPE_CHECKING:
    from sentry.vfs.file import Caller


def allows(creds: Credentials, inode: Inode, mask: int) -> bool:
    """Whether mode, access control list or a capability allow `mask`: generic_permission().

    Who owns the file, or may do it anyhow, need not know whether there is a list; nor does it say
    anything as long as its mask is empty: acl_permission_check(). Raises: NotNow.
    """
    mode, uid, gid = inode.mode, inode.uid, inode.gid
    if creds.fsuid == uid or not mode & 0o070 or not inode.fs.posix_acls:
        return may_access(creds, mode, uid, gid, mask)
    if may_override(creds, mode, uid, gid, mask):
        return True
    acl = inode.access_acl()
    if acl is None:
        return may_access(creds, mode, uid, gid, mask)
    return acl_allows(read_acl(acl), creds, gid, mask)


def check_rights(creds: Credentials, inode: Inode, mask: int) -> None:
    """Raises: EACCES, NotNow."""
    if not allows(creds, inode, mask):
        mode, uid, gid = inode.mode, inode.uid, inode.gid
        raise EACCES(f"mode {mode:o} of {uid}:{gid} denies {mask}")


def check_inode(creds: Credentials, inode: Inode, mask: int) -> None:
    """inode_permission(). Raises: EROFS for a file system that cannot be written, EACCES."""
    if mask & MAY_WRITE and inode.fs.read_only and inode.kind in (S_IFREG, S_IFDIR, S_IFLNK):
        raise EROFS(f"{inode.fs.name} is read-only")
    if mask & MAY_WRITE and (inode.immutable or inode.file_flags & FS_IMMUTABLE_FL):
        raise EPERM("immutable")
    if inode.own_rights:
        inode.check_rights(creds, mask)
    else:
        check_rights(creds, inode, mask & MAY_ALL)


def check_device(caller: Caller, kind: int, rdev: int, mask: int) -> None:
    """devcgroup_inode_permission(), devcgroup_inode_mknod(): what the caller's cgroup says of a
    device; mask 0: it is made. Raises: EPERM."""
    group = caller.group
    if group is None:  # the start of the sandbox
        return
    access = BPF_DEVCG_ACC_READ if mask & MAY_READ else 0
    access |= BPF_DEVCG_ACC_WRITE if mask & MAY_WRITE else 0
    if access or not mask:
        group.cgroup.check_device(kind, rdev, access or BPF_DEVCG_ACC_MKNOD)


def check_maker(creds: Credentials, directory: Inode) -> None:
    """fsuidgid_has_mapping(): where the file system was mounted there is who makes a file.

    Raises: EOVERFLOW.
    """
    owner = directory.fs.owner
    if owner is not None and NO_ID in (
        owner.uid_map.from_kernel(creds.fsuid), owner.gid_map.from_kernel(creds.fsgid)
    ):  # fmt: skip
        raise EOVERFLOW("a user or group that the file system does not know")


def check_create(creds: Credentials, directory: Dentry) -> None:
    """may_create(): a name can be made there.

    Raises: ENOENT in a removed directory, EOVERFLOW, EACCES.
    """
    if directory.unlinked:
        raise ENOENT("the directory has been removed")
    check_maker(creds, directory.inode)
    check_inode(creds, directory.inode, MAY_WRITE | MAY_EXEC)


def check_delete(creds: Credentials, directory: Dentry, child: Inode, *, want_dir: bool) -> None:
    """may_delete(): a name can be taken away. Raises: EACCES, EPERM, ENOTDIR, EISDIR."""
    parent = directory.inode
    check_inode(creds, parent, MAY_WRITE | MAY_EXEC)
    check_append_only(parent)
    check_sticky(creds, parent.mode, parent.uid, child.uid)
    check_fixed(child)
    if want_dir and not child.is_dir:
        raise ENOTDIR("not a directory")
    if not want_dir and child.is_dir:
        raise EISDIR("a directory")
    if directory.unlinked:
        raise ENOENT("the directory has been removed")


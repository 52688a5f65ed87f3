"""security.capability of a file, as user namespaces see it. security/commoncap.c.

What a program below the first namespace sets names whose root it is for (VFS_CAP_REVISION_3); what
is for nobody's root in particular, or for that of a namespace above, reads as VFS_CAP_REVISION_2.
"""

from __future__ import annotations

import struct
from typing import Final

from sentry.abi.capability import (
    CAP_SETFCAP,
    VFS_CAP_FLAGS_EFFECTIVE,
    VFS_CAP_REVISION_2,
    VFS_CAP_REVISION_3,
    VFS_CAP_REVISION_MASK,
)
from sentry.auth.credentials import Credentials
from sentry.auth.userns import NO_ID, UserNamespace, kernel_id
from sentry.errors import EINVAL, EOVERFLOW, EPERM

SIZES: Final = {VFS_CAP_REVISION_2: 20, VFS_CAP_REVISION_3: 24}
"""Bytes of struct vfs_cap_data by its revision."""


def _revision(value: bytes) -> int:
    revision = int.from_bytes(value[:4], "little") & VFS_CAP_REVISION_MASK
    return revision if SIZES.get(revision) == len(value) else 0


def _root_of(value: bytes) -> int:
    return int.from_bytes(value[20:24], "little")


def _as_revision(value: bytes, revision: int, root: bytes) -> bytes:
    magic = revision | int.from_bytes(value[:4], "little") & VFS_CAP_FLAGS_EFFECTIVE
    return struct.pack("<I", magic) + value[4:20] + root


def to_store(
    creds: Credentials, fs_owner: UserNamespace | None, owner: tuple[int, int], value: bytes
) -> bytes:
    """cap_convert_nscap(): what is stored for what is set. Raises: EINVAL, EPERM."""
    revision = _revision(value)
    if not revision:
        raise EINVAL("no file capabilities")
    if not creds.over(CAP_SETFCAP, *owner):
        raise EPERM("file capabilities")
    if revision == VFS_CAP_REVISION_2 and creds.has_in(fs_owner, CAP_SETFCAP):
        return value
    root = kernel_id(creds.user_ns, _root_of(value))
    if root != NO_ID and fs_owner is not None:
        root = fs_owner.uid_map.from_kernel(root)
    if root == NO_ID:
        raise EINVAL("whose root is nobody")
    return _as_revision(value, VFS_CAP_REVISION_3, root.to_bytes(4, "little"))


def to_show(creds: Credentials, fs_owner: UserNamespace | None, value: bytes) -> bytes:
    """cap_inode_getsecurity(): what is read of what is stored. Raises: EINVAL, EOVERFLOW."""
    if not _revision(value):
        raise EINVAL("no file capabilities")
    root, ns = kernel_id(fs_owner, _root_of(value)), creds.user_ns
    seen = root if ns is None else ns.uid_map.from_kernel(root)
    if seen not in (0, NO_ID):
        return _as_revision(value, VFS_CAP_REVISION_3, seen.to_bytes(4, "little"))
    if not counts_for(creds, root):
        raise EOVERFLOW("somebody else's root")
    return _as_revision(value, VFS_CAP_REVISION_2, b"")


def counts_for(creds: Credentials, root: int) -> bool:
    """rootid_owns_currentns(): that root is root here, or in a namespace above."""
    ns = creds.user_ns
    while ns is not None:
        if ns.uid_map.from_kernel(root) == 0:
            return True
        ns = ns.parent
    return root == 0

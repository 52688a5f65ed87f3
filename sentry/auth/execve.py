"""What execve(2) does to credentials: set-id bits, file capabilities, ambient capabilities.

capabilities(7), "Transformation of capabilities during execve()"; security/commoncap.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from sentry.abi.capability import (
    CAP_SETUID,
    VFS_CAP_FLAGS_EFFECTIVE,
    VFS_CAP_REVISION_1,
    VFS_CAP_REVISION_2,
    VFS_CAP_REVISION_3,
    VFS_CAP_REVISION_MASK,
)
from sentry.abi.prctl import SECBIT_KEEP_CAPS
from sentry.auth.credentials import ALL_CAPS, Credentials
from sentry.errors import EPERM


class FileCaps(Struct, frozen=True):
    """The security.capability attribute of a program."""

    permitted: int
    inheritable: int
    effective: bool
    root_uid: int = 0
    """Whose root may have them, as the file system has it."""


def parse_file_caps(value: bytes) -> FileCaps | None:
    """struct vfs_cap_data, <linux/capability.h>; None if it is not one that applies here."""
    if len(value) < 4:
        return None
    magic = int.from_bytes(value[:4], "little")
    revision, effective = magic & VFS_CAP_REVISION_MASK, bool(magic & VFS_CAP_FLAGS_EFFECTIVE)
    if revision == VFS_CAP_REVISION_1 and len(value) == 12:
        low = struct.unpack_from("<II", value, 4)
        return FileCaps(low[0], low[1], effective)
    if (revision, len(value)) in ((VFS_CAP_REVISION_2, 20), (VFS_CAP_REVISION_3, 24)):
        p0, i0, p1, i1 = struct.unpack_from("<IIII", value, 4)
        root = int.from_bytes(value[20:24], "little")
        return FileCaps((p0 | p1 << 32) & ALL_CAPS, (i0 | i1 << 32) & ALL_CAPS, effective, root)
    return None


def after_exec(
    creds: Credentials,
    mode: int,
    owner: tuple[int, int],
    file_caps: FileCaps | None,
    *,
    no_new_privs: bool = False,
    unsafe: Callable[[], bool] = lambda: False,
) -> tuple[Credentials, bool]:
    """The credentials of the new program, and AT_SECURE: cap_bprm_creds_from_file().

    `mode` and `owner` are the file's, without set-id bits (and `file_caps` None) where its mount
    has none. `unsafe` says whether others have a hold on the task: a tracer without rights, or who
    shares its root directory. Then nothing is gained.
    Raises: EPERM when a file's effective capabilities exceed the bounding set.
    """
    euid, egid = creds.euid, creds.egid
    root = creds.root_uid
    if not no_new_privs:
        if mode & 0o4000:
            euid = owner[0]
        if mode & 0o2010 == 0o2010:
            egid = owner[1]
    caps_permitted, caps_effective = 0, False
    if file_caps is not None:
        caps_permitted = file_caps.permitted & creds.bounding
        caps_permitted |= file_caps.inheritable & creds.inheritable
        caps_effective = file_caps.effective
        if caps_effective and file_caps.permitted & ~caps_permitted:
            raise EPERM("the program needs capabilities that are out of bounds")
    got_caps = file_caps is not None
    if creds.root_is_special and root in (euid, creds.uid):
        set_uid_root_with_caps = got_caps and creds.uid != root and euid == root
        if not set_uid_root_with_caps:
            caps_permitted = creds.bounding | creds.inheritable
            caps_effective = caps_effective or euid == root
    changed = euid != creds.uid or egid != creds.gid
    gains = changed or bool(caps_permitted & ~creds.permitted)
    if gains and (no_new_privs or unsafe()):
        if no_new_privs or not creds.own(CAP_SETUID):
            euid, egid = creds.uid, creds.gid
        caps_permitted &= creds.permitted
    ambient = 0 if got_caps or changed else creds.ambient
    permitted = caps_permitted | ambient
    effective = permitted if caps_effective else ambient
    secure = changed or (creds.uid != root and (caps_effective or bool(permitted & ~ambient)))
    new = replace(
        creds,
        euid=euid,
        egid=egid,
        suid=euid,
        sgid=egid,
        fsuid=euid,
        fsgid=egid,
        permitted=permitted,
        effective=effective,
        ambient=ambient,
        securebits=creds.securebits & ~SECBIT_KEEP_CAPS,
    )
    return new, secure

"""POSIX access control lists, as numbers: acl(5), fs/posix_acl.c.

A list is kept as the value of its extended attribute (linux/posix_acl_xattr.h: the version, then
tag, rights and id of each entry), with the kernel's ids. `read_acl` says what it means.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from sentry.abi.acl import (
    ACL_GROUP,
    ACL_GROUP_OBJ,
    ACL_MASK,
    ACL_OTHER,
    ACL_USER,
    ACL_USER_OBJ,
    POSIX_ACL_XATTR_VERSION,
)
from sentry.abi.layout import Record
from sentry.auth.credentials import Credentials
from sentry.auth.userns import NO_ID, UserNamespace, kernel_id
from sentry.errors import EINVAL, ENOSPC, EOPNOTSUPP

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
NAMES: Final = (ACCESS, DEFAULT)
MAX_ENTRIES: Final = 128
"""A ceiling of ours, since a path has as many lists as directories; ext4 takes some 500."""

_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_KINDS: Final = {ACL_USER: "uid", ACL_GROUP: "gid"}
_ALONE: Final = (ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER)
_HEAD: Final = _VERSION.pack(POSIX_ACL_XATTR_VERSION)
_FEW: Final = 64

Entry = tuple[int, int, int]
"""ACL_* tag, rights (MAY_*), id."""


class Acl(Record):
    """What a list says: rights are MAY_* bits."""

    owner: int
    group: int
    other: int
    mask: int | None
    """Bounds named users and all groups; None: there is neither mask nor anybody named."""
    users: dict[int, int]
    groups: tuple[tuple[int, frozenset[int]], ...]
    """Rights, and the named groups that have them."""


def _entries(value: bytes) -> list[Entry]:
    return list(_ENTRY.iter_unpack(value[_VERSION.size :]))


def _packed(entries: list[Entry]) -> bytes:
    return _HEAD + b"".join([_ENTRY.pack(*entry) for entry in entries])


@lru_cache(1024)
def read_acl(value: bytes) -> Acl:
    """Preconditions: it was checked, or is the host's (whose bytes are no list: EINVAL)."""
    if len(value) < _VERSION.size or (len(value) - _VERSION.size) % _ENTRY.size:
        raise EINVAL("no access control list")
    alone: dict[int, int] = {}
    users: dict[int, int] = {}
    groups: dict[int, set[int]] = {}
    for tag, rights, number in _entries(value):
        if tag == ACL_USER:
            users.setdefault(number, rights)
        elif tag == ACL_GROUP:
            groups.setdefault(rights, set()).add(number)
        else:
            alone[tag] = rights
    return Acl(
        alone.get(ACL_USER_OBJ, 0), alone.get(ACL_GROUP_OBJ, 0), alone.get(ACL_OTHER, 0),
        alone.get(ACL_MASK), users,
        tuple((rights, frozenset(numbers)) for rights, numbers in groups.items()),
    )  # fmt: skip


# --- what programs set and see


def from_program(creds: Credentials, value: bytes) -> bytes:
    """posix_acl_from_xattr(): with the kernel's ids; empty: no list. Raises: EINVAL, EOPNOTSUPP."""
    if len(value) < _VERSION.size:
        raise EINVAL(f"{len(value)} bytes")
    if value[: _VERSION.size] != _HEAD:
        raise EOPNOTSUPP("a list of another version")
    if (len(value) - _VERSION.size) % _ENTRY.size:
        raise EINVAL(f"{len(value)} bytes")
    found: list[Entry] = []
    for tag, rights, number in _entries(value):
        kind = _KINDS.get(tag)
        if kind is None and tag not in _ALONE:
            raise EINVAL(f"tag {tag:#x}")
        kept = NO_ID if kind is None else kernel_id(creds.user_ns, number, kind)
        if kind is not None and kept == NO_ID:
            raise EINVAL(f"{kind} {number} is not mapped")
        found.append((tag, rights, kept))
    return _packed(found) if found else b""


def to_program(creds: Credentials, value: bytes) -> bytes:
    """vfs_posix_acl_to_xattr(): ids as the program's namespace has them, -1 where it has none."""
    ns = creds.user_ns
    if ns is None:
        return value
    return _packed([
        (tag, rights, ns.table(kind).from_kernel(number) if (kind := _KINDS.get(tag)) else NO_ID)
        for tag, rights, number in _entries(value)
    ])  # fmt: skip


def check_valid(value: bytes, fs_owner: UserNamespace | None) -> None:
    """posix_acl_valid(): owner, users, group, groups, mask, others, and a mask if anybody is named.

    Raises: EINVAL, ENOSPC beyond `MAX_ENTRIES`.
    """
    entries = _entries(value)
    named, stage = False, ACL_USER_OBJ
    for tag, rights, number in entries:
        if rights & ~7:
            raise EINVAL(f"rights {rights:#x}")
        if tag in _KINDS:
            fits, named = stage == tag, True
            if fs_owner is not None and fs_owner.table(_KINDS[tag]).from_kernel(number) == NO_ID:
                raise EINVAL(f"{_KINDS[tag]} {number} is not mapped")
        elif tag == ACL_USER_OBJ:
            fits, stage = stage == tag, ACL_USER
        elif tag == ACL_GROUP_OBJ:
            fits, stage = stage == ACL_USER, ACL_GROUP
        elif tag == ACL_MASK:
            fits, stage = stage == ACL_GROUP, ACL_OTHER
        else:
            fits, stage = stage == ACL_OTHER or (stage == ACL_GROUP and not named), 0
        if not fits:
            raise EINVAL(f"an entry {tag:#x} out of order")
    if stage:
        raise EINVAL("entries are missing")
    if len(entries) > MAX_ENTRIES:
        raise ENOSPC(f"{len(entries)} entries")


# --- lists and modes


def is_mode(value: bytes) -> bool:
    """It says no more than permission bits can: posix_acl_equiv_mode()."""
    return read_acl(value).mask is None


def mode_of(value: bytes) -> int:
    """The permission bits: those of the group are the mask, if there is one."""
    acl = read_acl(value)
    group = acl.group if acl.mask is None else acl.mask
    return acl.owner << 6 | group << 3 | acl.other


def with_mode(value: bytes, mode: int) -> bytes:
    """After chmod(2): __posix_acl_chmod()."""
    group = ACL_GROUP_OBJ if is_mode(value) else ACL_MASK
    bits = {ACL_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, ACL_OTHER: mode & 7}
    return _packed([
        (tag, bits.get(tag, rights), number) for tag, rights, number in _entries(value)
    ])  # fmt: skip


def inherited(default: bytes, mode: int) -> tuple[bytes, int]:
    """The access list, empty if bits say as much, and the mode of what is made with `mode` in a
    directory with a default list: posix_acl_create()."""
    bits = mode & mode_of(default)
    access = b"" if is_mode(default) else with_mode(default, bits)
    return access, mode & ~0o777 | bits


# --- who may


def acl_allows(acl: Acl, creds: Credentials, gid: int, wanted: int) -> bool:
    """posix_acl_permission(), of who is not the owner; `gid`: the group of the file."""
    mask = 7 if acl.mask is None else acl.mask
    rights = acl.users.get(creds.fsuid)
    if rights is not None:
        return not wanted & ~(rights & mask)
    member = creds.in_group(gid)
    if member and not wanted & ~acl.group:
        return not wanted & ~mask
    for rights, groups in acl.groups:
        if _is_in(creds, groups):
            if not wanted & ~rights:
                return not wanted & ~mask
            member = True
    return not member and not wanted & ~acl.other


def _is_in(creds: Credentials, groups: frozenset[int]) -> bool:
    if len(creds.groups) > _FEW:
        return any(map(creds.in_group, groups))
    return creds.fsgid in groups or not groups.isdisjoint(creds.groups)

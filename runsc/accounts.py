"""Who a user of a root file system is, by its own /etc/passwd and /etc/group.

As engines understand it (OCI image specification, config.md, "User"): a name, or a number that need
not be in the files; then perhaps a colon and a group. The text is not trusted: passwd(5), group(5);
lines that make no sense are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from runsc.errors import RuntimeFailure

MAX_FILE: Final = 1 << 20
"""Bytes of each file that are looked at."""
MAX_ID: Final = 0xFFFFFFFE
MAX_GROUPS: Final = 1 << 16
"""NGROUPS_MAX."""
SHOWN: Final = 120
"""Characters of a name that a message has."""


class Ids(msgspec.Struct, frozen=True):
    """Who a process is."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Further ones."""


class _Account(NamedTuple):
    name: bytes
    uid: int
    gid: int


def ids_of(user: str, passwd: bytes, group: bytes) -> Ids:
    """`user` as in an image's configuration; root if it is empty.

    Who is in no file has group 0, as with engines. Raises: RuntimeFailure.
    """
    name, _, wanted = user.partition(":")
    account = _account(name.encode(errors="surrogateescape") or b"0", passwd)
    if account is None:
        raise RuntimeFailure(f"/etc/passwd has no user {name[:SHOWN]!r}")
    if not wanted:
        groups = _further(account, group)
        return Ids(account.uid, account.gid, groups)
    gid = _group(wanted.encode(errors="surrogateescape"), group)
    if gid is None:
        raise RuntimeFailure(f"/etc/group has no group {wanted[:SHOWN]!r}")
    return Ids(account.uid, gid)


def _account(name: bytes, passwd: bytes) -> _Account | None:
    """The first that is called so, or has this number."""
    number = _number(name)
    for fields in _lines(passwd, 4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and (fields[0] == name or uid == number):
            return _Account(fields[0], uid, gid)
    return None if number is None else _Account(b"", number, 0)


def _group(name: bytes, group: bytes) -> int | None:
    number = _number(name)
    for fields in _lines(group, 3):
        gid = _number(fields[2])
        if gid is not None and (fields[0] == name or gid == number):
            return gid
    return number


def _further(account: _Account, group: bytes) -> tuple[int, ...]:
    """The groups that list the account, but for its own."""
    found: list[int] = []
    for fields in _lines(group, 4):
        gid = _number(fields[2])
        if gid not in (None, account.gid) and account.name in fields[3].split(b","):
            found.append(gid or 0)
    return tuple(found[:MAX_GROUPS]) if account.name else ()


def _lines(text: bytes, least: int) -> Iterator[list[bytes]]:
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= least and fields[0]:
            yield fields


def _number(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > 10 or int(text) > MAX_ID:
        return None
    return int(text)

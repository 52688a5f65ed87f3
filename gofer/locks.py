"""Byte-range locks between the clients of one server (Tlock, Tgetlock), as fcntl(2) has them.

They live here only: the host's files are not locked, since all fids share one host process.
"""

from __future__ import annotations

import errno
from typing import NamedTuple, TypeAlias

from gofer.native import error
from gofer.p9.constants import LOCK_TYPE_RDLCK, LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK

Identity: TypeAlias = tuple[int, int]
Owner: TypeAlias = tuple[int, int, bytes, int]
"""Connection, fid, client_id, proc_id."""

END = 1 << 64
MAX_LOCKS = 4096


class Lock(NamedTuple):
    """`kind` held by `owner` on bytes [start, end)."""

    start: int
    end: int
    kind: int
    owner: Owner


class LockTable:
    """All locks, by inode."""

    def __init__(self) -> None:
        self._locks: dict[Identity, list[Lock]] = {}
        self._count = 0

    def conflict(self, identity: Identity, wanted: Lock) -> Lock | None:
        """The first lock of another owner that `wanted` cannot be held together with."""
        for held in self._locks.get(identity, ()):
            if held.owner[2:] == wanted.owner[2:]:
                continue
            if held.end <= wanted.start or wanted.end <= held.start:
                continue
            if LOCK_TYPE_WRLCK in (held.kind, wanted.kind):
                return held
        return None

    def apply(self, identity: Identity, wanted: Lock) -> bool:
        """Set or clear a lock; False if another owner's is in the way. Raises ENOLCK."""
        if wanted.kind not in (LOCK_TYPE_RDLCK, LOCK_TYPE_WRLCK, LOCK_TYPE_UNLCK):
            raise error(errno.EINVAL)
        if wanted.kind != LOCK_TYPE_UNLCK and self.conflict(identity, wanted):
            return False
        before = self._locks.get(identity, [])
        after: list[Lock] = []
        for held in before:
            same = held.owner[2:] == wanted.owner[2:]
            if not same or held.end <= wanted.start or wanted.end <= held.start:
                after.append(held)
                continue
            if held.start < wanted.start:
                after.append(held._replace(end=wanted.start))
            if wanted.end < held.end:
                after.append(held._replace(start=wanted.end))
        if wanted.kind != LOCK_TYPE_UNLCK:
            after.append(wanted)
        if self._count + len(after) - len(before) > MAX_LOCKS and len(after) > len(before):
            raise error(errno.ENOLCK)
        self._store(identity, before, after)
        return True

    def release_fid(self, identity: Identity, connection: int, fid: int) -> None:
        """A clunk drops the locks that were set through the fid."""
        before = self._locks.get(identity)
        if before:
            after = [held for held in before if held.owner[:2] != (connection, fid)]
            self._store(identity, before, after)

    def release_connection(self, connection: int) -> None:
        for identity, before in list(self._locks.items()):
            after = [held for held in before if held.owner[0] != connection]
            self._store(identity, before, after)

    def _store(self, identity: Identity, before: list[Lock], after: list[Lock]) -> None:
        self._count += len(after) - len(before)
        if after:
            self._locks[identity] = after
        else:
            self._locks.pop(identity, None)

"""What the three kinds of System V IPC have in common: identifiers, keys, permissions.

An identifier is an index into a table and a sequence number, so that one that was removed is not
mistaken for what took its place: ipc/util.c. sysvipc(7).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from sentry.abi.capability import CAP_IPC_OWNER, CAP_SYS_ADMIN
from sentry.abi.sysvipc import IPC_CREAT, IPC_EXCL, IPC_PRIVATE
from sentry.auth.credentials import UNCHANGED, Credentials
from sentry.auth.userns import UserNamespace
from sentry.errors import EACCES, EEXIST, EINVAL, ENOENT, ENOSPC, EPERM

if TYPE_CHECKING:
    from sentry.mm.manager import MemoryManager

IPCMNI: Final = 1 << 15
"""Identifiers of a kind, whatever the limits say."""
SEQUENCES: Final = 1 << 16
MIN_CYCLE: Final = 64
"""So many indexes are used before one is used again."""
READ: Final = 0o444
WRITE: Final = 0o222


def now() -> int:
    """Times of IPC objects are in seconds."""
    return int(time.time())


class Numbers(Protocol):
    """A PID namespace."""

    def of(self, number: int) -> int: ...


class Process(Protocol):
    """Who did something last, and for whom something is made."""

    tgid: int


class Caller(Protocol):
    """A task, as these objects see it."""

    creds: Credentials
    mm: MemoryManager

    @property
    def group(self) -> Process: ...
    @property
    def pids(self) -> Numbers: ...
    def rlimit(self, resource: int) -> int: ...


class IpcObject:
    """struct kern_ipc_perm: who made it, whose it is, what others may do."""

    __slots__ = (
        "cgid", "ctime", "cuid", "gid", "id", "key", "mode", "namespace_owner", "removed", "uid",
    )  # fmt: skip

    def __init__(self, creds: Credentials, key: int, flags: int) -> None:
        self.id = -1
        self.key = key
        self.uid = self.cuid = creds.euid
        self.gid = self.cgid = creds.egid
        self.mode = flags & 0o777
        self.ctime = now()
        self.removed = False
        self.namespace_owner: UserNamespace | None = None

    def perm(self, reader: Credentials) -> tuple[int, ...]:
        """The fields of struct ipc64_perm."""
        user, group = reader.shown_uid, reader.shown_gid
        return (
            self.key, user(self.uid), group(self.gid), user(self.cuid), group(self.cgid), self.mode,
            self.id // IPCMNI & 0xFFFF, 0, 0, 0,
        )  # fmt: skip

    def owners(self, reader: Credentials) -> str:
        """Its users and groups in the tables of /proc/sysvipc."""
        _, uid, gid, cuid, cgid, *_ = self.perm(reader)
        return f"{uid:5} {gid:5} {cuid:5} {cgid:5}"

    def set_owner(self, creds: Credentials, uid: int, gid: int, mode: int) -> None:
        """IPC_SET: ipc_update_perm(). Raises: EINVAL."""
        if UNCHANGED in (uid, gid):
            raise EINVAL("-1 is no id")
        self.uid, self.gid = creds.kuid(uid), creds.kgid(gid)
        self.mode = self.mode & ~0o777 | mode & 0o777


def check_permission(creds: Credentials, found: IpcObject, wanted: int) -> None:
    """ipcperms(): `wanted` are mode bits of any of the three classes. Raises: EACCES."""
    wanted = (wanted >> 6 | wanted >> 3 | wanted) & 7
    granted = found.mode
    if creds.euid in (found.cuid, found.uid):
        granted >>= 6
    elif creds.in_group(found.cgid) or creds.in_group(found.gid):
        granted >>= 3
    if wanted & ~granted and not creds.has_in(found.namespace_owner, CAP_IPC_OWNER):
        raise EACCES(f"mode {found.mode:o}")


def check_owner(creds: Credentials, found: IpcObject) -> None:
    """IPC_SET and IPC_RMID are the owner's and the creator's. Raises: EPERM."""
    if creds.euid not in (found.cuid, found.uid) and not creds.has_in(
        found.namespace_owner, CAP_SYS_ADMIN
    ):
        raise EPERM("not the owner")


T = TypeVar("T", bound=IpcObject)


class IdTable(Generic[T]):
    """The objects of one kind: by index, and by key."""

    __slots__ = ("_cursor", "_last", "_sequence", "by_key", "kind", "next_ids", "objects", "owner")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.owner: UserNamespace | None = None
        """The user namespace of the IPC namespace."""
        self.objects: dict[int, T] = {}
        self.by_key: dict[int, T] = {}
        self._cursor = 0
        self._last = -1
        self._sequence = 0
        self.next_ids: dict[str, int] = {}
        """kernel.KIND_next_id: what the next object is to have, if somebody has said so."""

    def __len__(self) -> int:
        return len(self.objects)

    def in_order(self) -> Iterator[T]:
        """All by index, without those that are removed meanwhile."""
        for index in sorted(self.objects):
            if (found := self.objects.get(index)) is not None:
                yield found

    def add(self, new: T, limit: int) -> int:
        """Give it an identifier. Raises: ENOSPC."""
        limit = min(limit, IPCMNI)
        if len(self.objects) >= limit:
            raise ENOSPC("too many")
        if (wanted := self.next_ids.pop(self.kind, None)) is not None:
            return self._add_at(new, wanted % IPCMNI, wanted // IPCMNI)
        cycle = min(max(len(self.objects) * 3 // 2, MIN_CYCLE), limit)
        index = self._cursor if self._cursor < cycle else 0
        while index in self.objects:
            index = index + 1 if index + 1 < cycle else 0
        self._cursor = index + 1
        if index <= self._last:
            self._sequence = (self._sequence + 1) % SEQUENCES
        self._last = index
        return self._put(new, index, self._sequence)

    def _add_at(self, new: T, index: int, sequence: int) -> int:
        """At the first free index from one on."""
        while index in self.objects:
            index += 1
        if index >= IPCMNI:
            raise ENOSPC("no identifier from there on")
        return self._put(new, index, sequence)

    def _put(self, new: T, index: int, sequence: int) -> int:
        new.id = sequence * IPCMNI + index
        new.namespace_owner = self.owner
        self.objects[index] = new
        if new.key != IPC_PRIVATE:
            self.by_key[new.key] = new
        return new.id

    def at(self, index: int) -> T:
        """By index. Raises: EINVAL."""
        found = self.objects.get(index & (IPCMNI - 1))
        if found is None:
            raise EINVAL(f"index {index}")
        return found

    def find(self, number: int) -> T:
        """By identifier. Raises: EINVAL."""
        found = self.objects.get(number & (IPCMNI - 1))
        if found is None or found.id != number:
            raise EINVAL(f"identifier {number}")
        return found

    def forget_key(self, old: T) -> None:
        """Nobody finds it by its key any more."""
        if old.key != IPC_PRIVATE:
            del self.by_key[old.key]
            old.key = IPC_PRIVATE

    def remove(self, old: T) -> None:
        """The identifier is gone."""
        self.forget_key(old)
        del self.objects[old.id & (IPCMNI - 1)]
        old.removed = True

    @property
    def highest(self) -> int:
        """The highest index in use, 0 if none: what the INFO commands return."""
        return max(self.objects, default=0)


def get(
    table: IdTable[T],
    creds: Credentials,
    key: int,
    flags: int,
    make: Callable[[], int],
    check: Callable[[T], None],
) -> int:
    """ipcget(): the object of a key, made if need be. Raises: ENOENT, EEXIST, EACCES."""
    if key == IPC_PRIVATE:
        return make()
    found = table.by_key.get(key)
    if found is None:
        if not flags & IPC_CREAT:
            raise ENOENT(f"key {key:#x}")
        return make()
    if flags & IPC_CREAT and flags & IPC_EXCL:
        raise EEXIST(f"key {key:#x}")
    check(found)
    check_permission(creds, found, flags)
    return found.id

"""Leases of files, fcntl(F_SETLEASE): who opens or truncates the file waits for the holders.

A holder is told by a signal and has `Vfs.lease_break_s` to give its lease up; then it is
taken away. fs/locks.c, fcntl(2).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK, O_ACCMODE, O_NONBLOCK, O_RDONLY
from sentry.abi.signal import POLL_MSG
from sentry.errors import EAGAIN
from sentry.suppress import suppress
from sentry.vfs.locks import FileLocks
from sentry.vfs.notices import own_by_default, send_io
from sentry.wait.again import NotNow
from sentry.wait.fiber import TimedOut
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.interface import Inode
    from sentry.vfs.vfs import Vfs



class Lease(Struct):
    """What one description holds: F_RDLCK or F_WRLCK, and what it is to become."""

    file: "FileDescription"
    fd: int
    pid: int
    kind: int
    target: int | None = None
    """F_UNLCK or F_RDLCK while it is being broken."""
    deadline_ns: int = 0

    def conflicts(self, writes: bool) -> bool:
        """A reader minds only a write lease."""
        return writes or self.kind == F_WRLCK


class Leases(Struct):
    """The leases of one inode."""

    items: list[Lease] = field(default_factory=list)
    queue: WaitQueue = field(default_factory=WaitQueue)

    def of(self, file: FileDescription) -> Lease | None:
        """The lease that a description holds."""
        return next((lease for lease in self.items if lease.file is file), None)

    def expire(self) -> None:
        """time_out_leases()."""
        now = time.monotonic_ns()
        for lease in list(self.items):
            if lease.target is not None and now >= lease.deadline_ns:
                self.change(lease, lease.target)

    def change(self, lease: Lease, kind: int) -> None:
        """lease_modify(): another kind, or none."""
        lease.kind, lease.target = kind, None
        if kind == F_UNLCK and lease in self.items:
            self.items.remove(lease)
        self.queue.notify()

    def release(self, file: object) -> None:
        """The description is gone."""
        for lease in [lease for lease in self.items if lease.file is file]:
            self.change(lease, F_UNLCK)


def kind_of_lease(file: FileDescription) -> int:
    """F_GETLEASE: while a lease is being broken, what it will be."""
    leases = _leases(file.inode)
    if leases is None:
        return F_UNLCK
    leases.expire()
    lease = leases.of(file)
    if lease is None:
        return F_UNLCK
    return lease.kind if lease.target is None else lease.target


def set_lease(caller: Caller, file: FileDescription, fd: int, kind: int) -> None:
    """generic_setlease(). Raises: EAGAIN."""
    inode = file.inode
    leases = _leases(inode)
    if leases is not None:
        leases.expire()
    mine = leases.of(file) if leases is not None else None
    if kind == F_UNLCK:
        if leases is None or mine is None:
            raise EAGAIN("no lease")
        leases.change(mine, F_UNLCK)
        return
    _check_opens(file, kind)
    if leases is None:
        leases = _make(caller.kernel.vfs, inode)
    for other in leases.items:
        if other is mine:
            continue
        if kind == F_WRLCK or other.target == F_UNLCK:
            raise EAGAIN("somebody else has a lease")
    if mine is not None:
        leases.change(mine, kind)
        return
    own_by_default(caller, file)
    leases.items.append(Lease(file, fd, caller.group.tgid, kind))
    assert inode.locks is not None
    inode.locks.note()


def _check_opens(file: FileDescription, kind: int) -> None:
    """check_conflicting_open(). Raises: EAGAIN."""
    inode = file.inode
    if kind == F_RDLCK:
        if inode.write_count > 0:
            raise EAGAIN("open for writing")
        return
    writes = int(file.writable)
    reads = int(file.readable and not file.writable)
    if inode.write_count != writes or inode.read_count != reads:
        raise EAGAIN("open elsewhere")


def _leases(inode: Inode) -> Leases | None:
    found = inode.locks.leases if inode.locks is not None else None
    return found if isinstance(found, Leases) else None


def _make(vfs: Vfs, inode: Inode) -> Leases:
    if inode.locks is None:
        inode.locks = FileLocks(vfs.budget, inode.fs.dev, inode.ino)
    made = inode.locks.leases = Leases()
    return made


def break_leases(caller: Caller, inode: Inode, flags: int) -> None:
    """break_lease(): before an open, or a truncation (O_WRONLY).

    Raises: NotNow while a holder has not given in, EAGAIN with O_NONBLOCK.
    """
    leases = _leases(inode)
    if leases is None or not leases.items:
        return
    writes = flags & O_ACCMODE != O_RDONLY
    vfs: Any = caller.kernel.vfs
    breaking = _Break(vfs, leases, writes)
    try:
        breaking.attempt()
    except EAGAIN:
        if flags & O_NONBLOCK:
            raise
        raise NotNow(breaking.wait) from None


class _Break:
    """One attempt to get past the leases of a file."""

    def __init__(self, vfs: Vfs, leases: Leases, writes: bool) -> None:
        self._vfs = vfs
        self._leases = leases
        self._writes = writes

    def _standing(self) -> list[Lease]:
        self._leases.expire()
        return [lease for lease in self._leases.items if lease.conflicts(self._writes)]

    def _ask(self, standing: list[Lease]) -> None:
        deadline = time.monotonic_ns() + self._vfs.lease_break_s * 10**9
        for lease in standing:
            wanted = F_UNLCK if self._writes else F_RDLCK
            if lease.target is not None and (wanted in (lease.target, F_RDLCK)):
                continue
            if lease.target is None:
                lease.deadline_ns = deadline
            lease.target = wanted
            send_io(self._vfs, lease.file, lease.fd, POLL_MSG)

    def attempt(self) -> None:
        """Ask the holders. Raises: EAGAIN while there are any."""
        standing = self._standing()
        if standing:
            self._ask(standing)
            raise EAGAIN("leased")

    async def wait(self) -> None:
        """Until they have given in, or one has had its time."""
        deadline = min((lease.deadline_ns for lease in self._standing()), default=0)
        with suppress(TimedOut):
            await until(self.attempt, (self._leases.queue,), deadline_ns=deadline)

"""mlock(2), mlock2(2), munlock(2), mlockall(2), munlockall(2): mm/mlock.c."""

from __future__ import annotations

from typing import Final

from sentry.abi.mman import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.errors import EAGAIN, EINVAL, ENOMEM, EPERM
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, OutOfMemory, SegFault
from sentry.mm.layout import TASK_END
from sentry.mm.mapping import PROT_ALL, page_align
from sentry.mm.protect import Protection
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import PAGE_MASK

NEVER_LOCKED: Final = VmFlag.SPECIAL | VmFlag.DROPPABLE | VmFlag.SECRET
"""What mlock(2) passes over; secret memory is locked always."""


class Locking(Protection):
    """Locked memory: there is no swap, so it is filled at once and counted."""

    def mlock(self, addr: int, length: int, flags: int = 0) -> None:
        """mlock(2), mlock2(2). What cannot be filled is locked all the same.

        Raises: EINVAL, EPERM, ENOMEM, EAGAIN.
        """
        if flags & ~MLOCK_ONFAULT:
            raise EINVAL("flags")
        limit = self.limits.rlimit(RLIMIT_MEMLOCK)
        if not self.ipc_lock and not limit:
            raise EPERM("RLIMIT_MEMLOCK is 0")
        start = addr & ~PAGE_MASK
        end = start + page_align(length + (addr & PAGE_MASK))
        already = sum(
            min(v.end, end) - max(v.start, start)
            for v in self.vmas.overlapping(start, end)
            if v.flags & VmFlag.LOCKED
        )
        if not self.ipc_lock and (self.locked_pages << 12) + end - start - already > limit:
            raise ENOMEM("RLIMIT_MEMLOCK")
        give = VmFlag.LOCKED | (VmFlag.LOCKONFAULT if flags & MLOCK_ONFAULT else 0)
        self._lock(start, end, give)
        self._fill_locked(start, end)

    def munlock(self, addr: int, length: int) -> None:
        """munlock(2). Raises: EINVAL, ENOMEM."""
        start = addr & ~PAGE_MASK
        end = start + page_align(length + (addr & PAGE_MASK))
        self._lock(start, end, 0)

    def mlockall(self, flags: int) -> None:
        """mlockall(2). Raises: EINVAL, EPERM, ENOMEM."""
        if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
            raise EINVAL("flags")
        limit = self.limits.rlimit(RLIMIT_MEMLOCK)
        if not self.ipc_lock and not limit:
            raise EPERM("RLIMIT_MEMLOCK is 0")
        if not self.ipc_lock and flags & MCL_CURRENT and self.total_pages << 12 > limit:
            raise ENOMEM("RLIMIT_MEMLOCK")
        self.lock_future = flags & (MCL_FUTURE | MCL_ONFAULT) if flags & MCL_FUTURE else 0
        if flags & MCL_CURRENT:
            give = VmFlag.LOCKED | (VmFlag.LOCKONFAULT if flags & MCL_ONFAULT else 0)
            for vma in list(self.vmas):
                self._set_locked(vma, give)
            if not flags & MCL_ONFAULT:
                self.populate(0, TASK_END)
            self.join_range(0, TASK_END)

    def munlockall(self) -> None:
        """munlockall(2)."""
        self.lock_future = 0
        for vma in list(self.vmas):
            self._set_locked(vma, 0)
        self.join_range(0, TASK_END)

    def _lock(self, start: int, end: int, give: int) -> None:
        """apply_vma_lock_flags()."""
        if end >> 64:
            raise EINVAL("range")
        if start == end:
            return
        first = self.vmas.find(start)
        if first is None:
            raise ENOMEM("not mapped")
        self._each(start, end, lambda vma: self._set_locked(vma, give))

    def _set_locked(self, vma: Vma, give: int) -> None:
        if vma.flags & NEVER_LOCKED:
            return
        self._account(vma, -1)
        vma.flags = vma.flags & ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT) | give
        self._account(vma, 1)

    def _fill_locked(self, start: int, end: int) -> None:
        """__mm_populate() and __mlock_posix_error_return(). Raises: ENOMEM, EAGAIN."""
        for vma in self.vmas.overlapping(start, end) if start < end else ():
            if vma.flags & (VmFlag.SPECIAL | VmFlag.LOCKONFAULT):
                continue
            if not vma.prot & PROT_ALL:
                raise ENOMEM("no rights")
            low, high = max(vma.start, start), min(vma.end, end)
            try:
                self.fill_range(vma, low, high)
            except (SegFault, BusError):
                raise ENOMEM("past the end of the file") from None
            except (ENOMEM, OutOfMemory):
                raise EAGAIN("no memory") from None
            if not self.space.populate(low, (high - low) >> 12):
                cut = isinstance(vma.backing, HostBacking)
                raise ENOMEM("a file that was cut") if cut else EAGAIN("no memory")

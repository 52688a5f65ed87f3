"""`PageCache`: what of a file that lies elsewhere is mapped.

Data is read from and written to the server with each call, nothing is cached for that. What is
mapped needs pages: a RamFile that is filled by faults. Nobody hears of stores into a shared
mapping, so pages that may have had some are told apart by a hash of what they were: `write_back`
sends those that differ. It does before other reads and writes of the file, at msync(2), fsync(2),
munmap(2) and the end of a process, and when the last mapping is gone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.signal import BUS_ADRERR
from sentry.errors import EFAULT, ENOMEM, Errno
from sentry.mm.errors import BusError
from sentry.platform.constants import PAGE_SIZE
from sentry.wait.steps import Pace, at_once, driven

if TYPE_CHECKING:
    from sentry.vfs.vfs import Vfs
    from sentry.wait.steps import Steps


FEW: Final = 64
"""So many pages are looked at in one go."""
ALL: Final = 1 << 63


class Unreadable(EFAULT, BusError):
    """A page cannot be had from the server: SIGBUS for a program, EFAULT for a call."""

    def __init__(self, why: str) -> None:
        BusError.__init__(self, 0, BUS_ADRERR)
        self.args = (why,)


class PageCache(ABC):
    """The pages of one file, while it is mapped. `ram`: a RamFile that nobody else has."""

    __slots__ = ("_changes", "_hashes", "_vfs", "ram")

    def __init__(self, ram: Any, size: int, vfs: Vfs) -> None:
        self.ram = ram
        self._vfs = vfs
        ram.truncate(size)
        ram.loader = self._load
        self._hashes: dict[int, int] | None = None
        """What the pages held that may have been stored into since."""
        self._changes = 0
        """Of the file, known here: what was asked for before is old."""

    @abstractmethod
    async def fetch(self, offset: int, size: int) -> bytes:
        """So many bytes, which lie within the file; fewer: there are no more, or that is enough
        at a time. Raises: Errno."""

    @abstractmethod
    async def store(self, handle: Any, offset: int, data: bytes) -> None:
        """All of it, by the open file `handle`. Raises: Errno."""

    @property
    def tracked(self) -> bool:
        """There may be stores."""
        return self._hashes is not None

    @property
    def mapped(self) -> bool:
        """Somebody maps it."""
        return bool(self.ram.mappers)

    def close(self) -> None:
        """Nobody maps it any more."""
        self._changes += 1  # an answer that comes later is for nobody
        if self._hashes is not None:
            self._hashes = None
            self._vfs.tracked -= 1
        self.ram.loader = None
        self.ram.close()

    def track(self) -> None:
        """It is mapped so that stores reach the file. What is there is read once more."""
        if self._hashes is None:
            self.drop(0, 0)
            self._hashes = {}
            self._vfs.tracked += 1

    @property
    def _count(self) -> int:
        size: int = self.ram.size
        return -(-size // PAGE_SIZE)

    def _seen(self, index: int) -> None:
        if self._hashes is not None and self.ram.peek(index):
            self._hashes[index] = hash(self.ram.read(index * PAGE_SIZE, PAGE_SIZE))

    def resize(self, size: int) -> None:
        """The file has another size."""
        old: int = self.ram.size
        if size == old:
            return
        self._changes += 1
        if self._hashes:  # what is compared ends elsewhere in that page from now on
            edge = min(size, old) // PAGE_SIZE
            self._drop_unless_stored(self._tracked(edge, edge + 1))
        self.ram.truncate(size)
        if self._hashes and size < old:
            for index in [i for i in self._hashes if i >= self._count]:
                del self._hashes[index]

    def drop(self, offset: int, length: int) -> None:
        """What is there may be something else now; no length is all. Stores are not lost.

        Many pages that may have had some are looked at behind the call.
        """
        self._changes += 1
        first = offset // PAGE_SIZE
        last = self._count if length <= 0 else min(-(-(offset + length) // PAGE_SIZE), self._count)
        if not self._hashes:
            if last > first:
                self.ram.punch(first * PAGE_SIZE, (last - first) * PAGE_SIZE)
            return
        steps = self._dropping(first, last)
        if last - first <= FEW:
            at_once(steps)
        else:
            self._vfs.loop.spawn(driven(steps), "invalidation")

    def _dropping(self, first: int, last: int) -> Steps[None]:
        tracked = self._tracked(first, last)
        for at in range(0, len(tracked), FEW):
            self._drop_unless_stored(tracked[at : at + FEW])
            yield

    def _drop_unless_stored(self, indices: list[int]) -> None:
        """Of these pages, in their order. Programs run meanwhile: they lose them first, else one
        could store between the look and the end of a page."""
        if indices:
            self.ram.hide(indices[0], indices[-1] + 1)
        for index in indices:
            if not self._is_stored(index) and self._hashes is not None:
                self._hashes.pop(index, None)
                self.ram.drop_hidden(index, index + 1)

    def _tracked(self, first: int, last: int) -> list[int]:
        hashes = self._hashes or {}
        if last - first <= max(FEW, len(hashes)):
            return [index for index in range(first, last) if index in hashes]
        return sorted(index for index in hashes if first <= index < last)

    def _is_stored(self, index: int) -> bool:
        """It has been stored into."""
        before = (self._hashes or {}).get(index)
        return before is not None and before != hash(
            self.ram.read(index * PAGE_SIZE, PAGE_SIZE)
        )

    # --- from and to the server

    async def _load(self, index: int, count: int) -> None:
        """Fill pages from `index` on: what a fault waits for. Raises: Unreadable."""
        ram, changes = self.ram, self._changes
        start = index * PAGE_SIZE
        there = next((i for i, frame in enumerate(ram.frames(index, count)) if frame), count)
        wanted = min(there * PAGE_SIZE, ram.size - start)
        if wanted <= 0:
            return
        try:
            data = await self.fetch(start, wanted)
        except Errno as error:
            raise Unreadable(f"{error!r}") from None
        if changes != self._changes:
            return  # who faults asks again
        if not data:
            raise Unreadable("the file is shorter than its server said")
        for page in range(index, index - (-min(len(data), wanted) // PAGE_SIZE)):
            if ram.peek(page):
                continue
            at = (page - index) * PAGE_SIZE
            room = min(PAGE_SIZE, ram.size - page * PAGE_SIZE)
            try:
                ram.bring(page, data[at : at + room])
            except ENOMEM:
                if page == index:
                    raise
                return
            self._seen(page)

    def has_tracked(self, offset: int, count: int) -> bool:
        """There may be stores to these bytes."""
        last = -(-(offset + count) // PAGE_SIZE)
        return bool(self._hashes) and bool(self._tracked(offset // PAGE_SIZE, last))

    async def write_back(self, handle: Any, offset: int = 0, count: int = ALL) -> None:
        """Send what was stored. Raises: what the server says of the first page it refuses."""
        failed: Errno | None = None
        pace = Pace()
        last = min(-(-(offset + count) // PAGE_SIZE), self._count)
        for index in self._tracked(offset // PAGE_SIZE, last):
            await pace.rest()
            data = self.ram.read(index * PAGE_SIZE, PAGE_SIZE)
            if not data or self._hashes is None or not self._is_stored(index):
                continue
            self._hashes[index] = hash(data)
            try:
                await self.store(handle, index * PAGE_SIZE, data)
            except Errno as error:
                failed = failed or error
        if failed is not None:
            raise failed

"""`PageCache`: what of a file that lies elsewhere is mapped.

Data is read from and written to the server with each call, nothing is cached for that. What is
mapped needs pages: a RamFile that is filled by faults. Nobody hears of stores into a shared
mapping, so pages that may have had some are told apart by a hash of what they were: `write_back`
sends those that differ. It does before other reads and writes of the file, at msync(2), fsync(2),
munmap(2) and the end of a process, and when the last mapping is gone.

Pages that are not right any more leave the file at once, then all who map them lose them, with
others in between where that takes long; those that were stored into until then come back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.signal import BUS_ADRERR
from sentry.errors import EFAULT, ENOMEM, Errno
from sentry.mm.errors import BusError
from sentry.mm.ramfile import CHUNK, Mapper, lost_by_all
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.frames import read_frames
from sentry.wait.lock import Lock
from sentry.wait.steps import Pace, at_once, driven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.vfs.vfs import Vfs
    from sentry.wait.steps import Steps, WaitingSteps


MANY: Final = 1024
"""Pages that are lost in one go, where those who map the file have no more mappings."""
MOST: Final = 1 << 20
"""Where more pages are to go, all that are there do."""
ALL: Final = 1 << 63


class Gone:
    """Pages of one chunk that were taken out of the file, which who maps them has to lose yet."""

    __slots__ = ("end", "first", "frames", "hashes")

    def __init__(self, first: int, frames: array[int], hashes: dict[int, int], end: int) -> None:
        self.first = first
        self.frames = frames
        self.hashes = hashes
        self.end = end
        """Those before it come back, if they are no more what their hash is of."""


class Unreadable(EFAULT, BusError):
    """A page cannot be had from the server: SIGBUS for a program, EFAULT for a call."""

    def __init__(self, why: str) -> None:
        BusError.__init__(self, 0, BUS_ADRERR)
        self.args = (why,)


class PageCache(ABC):
    """The pages of one file, while it is mapped. `ram`: a RamFile that nobody else has."""

    __slots__ = ("_changes", "_cuts", "_gone", "_hashes", "_lock", "_vfs", "ram")

    def __init__(self, ram: Any, size: int, vfs: Vfs) -> None:
        self.ram = ram
        self._vfs = vfs
        ram.truncate(size)
        ram.loader = self._load
        self._hashes: dict[int, dict[int, int]] | None = None
        """What the pages held that may have been stored into since, chunk by chunk."""
        self._changes = 0
        """Of the file, known here: what was asked for before is old."""
        self._gone: deque[Gone | Callable[[], None]] = deque()
        """And whom to tell that all before have been lost."""
        self._lock = Lock()
        """While there are some that may come back: nobody fills their place, or sends them."""
        self._cuts = 0
        """Since when copies of what lay behind the end have to go."""

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
            data = self.ram.read(index * PAGE_SIZE, PAGE_SIZE)
            self._hashes.setdefault(index // CHUNK, {})[index] = hash(data)

    def _hash_of(self, index: int) -> int | None:
        return (self._hashes or {}).get(index // CHUNK, {}).get(index)

    def resize(self, size: int) -> None:
        """The file has another size."""
        old: int = self.ram.size
        if size == old:
            return
        self._changes += 1
        edge = min(size, old) // PAGE_SIZE
        before = self._hash_of(edge)
        data = b"" if before is None else self.ram.read(edge * PAGE_SIZE, PAGE_SIZE)
        first = self.ram.cut(size)
        if before is not None and self._hashes is not None:
            if before == hash(data):  # what is compared ends elsewhere from now on
                room = max(0, min(PAGE_SIZE, size - edge * PAGE_SIZE))
                self._hashes[edge // CHUNK][edge] = hash(data[:room].ljust(room, b"\0"))
            self._lose(edge, edge + 1)
        if size > old:
            return
        for each in self._gone:
            if isinstance(each, Gone):
                each.end = min(each.end, first)
        is_little = old <= (first + MANY) * PAGE_SIZE and self._is_little(MANY)
        self._lose(first, None, first)
        if is_little:
            for mapper in list(self.ram.mappers):
                mapper.backing_lost(self.ram, first * PAGE_SIZE, None, True)
            return
        self._cuts += 1
        if self._cuts == 1:
            self._vfs.loop.spawn(self._copies_lost(), "invalidation")

    def drop(self, offset: int, length: int) -> None:
        """What is there may be something else now; no length is all. Stores are not lost.

        Many pages, or those of many mappings, are lost in steps, before the call returns.
        """
        self._changes += 1
        first = offset // PAGE_SIZE
        last = self._count if length <= 0 else min(-(-(offset + length) // PAGE_SIZE), self._count)
        if last > first:
            self._lose(first, last)

    def _is_little(self, pages: int) -> bool:
        """So many pages may be lost in one go."""
        ram = self.ram
        if self._gone or min(pages, ram.pages) > MANY:
            return False
        return sum(len(mapper.vmas) for mapper in ram.mappers) <= MANY

    def _lose(self, first: int, last: int | None, end: int = ALL) -> None:
        """Pages [first, last) go; those before `end` that were stored into until nobody has them
        any more come back: programs run meanwhile."""
        count = ALL if last is None else last - first
        is_little = self._is_little(count)
        gone = self._taken_out(first, last, end)
        if is_little:
            for each in gone:
                at_once(self._losing(each))
        elif gone:
            if self._lock.holder is None and any(each.hashes for each in gone):
                self._lock.take()
            if not self._gone:
                self._vfs.loop.spawn(self._lost(), "invalidation")
            self._gone += gone
            if self._vfs.until is not None:
                self._gone.append(self._vfs.until())

    def _taken_out(self, first: int, last: int | None, end: int) -> list[Gone]:
        known = self._hashes or {}
        if self.ram.pages > MOST and (last is None or last - first > MOST):
            first, last = 0, None
        gone = []
        for at, frames in self.ram.taken_out(first, last):
            if not any(frames):
                continue
            hashes = known.get(at // CHUNK, {})
            if len(frames) == CHUNK:
                known.pop(at // CHUNK, None)
            else:
                pages = range(at, at + len(frames))
                hashes = {index: hashes.pop(index) for index in pages if index in hashes}
            gone.append(Gone(at, frames, hashes, end))
        return gone

    async def _lost(self) -> None:
        try:
            while self._gone:
                some = self._gone[0]
                await driven(self._losing(some)) if isinstance(some, Gone) else some()
                self._gone.popleft()
        finally:
            self._lock.let_go()

    def _losing(self, gone: Gone) -> Steps[None]:
        frames = gone.frames
        try:
            yield from self.ram.losing(gone.first, frames)
            for index, before in gone.hashes.items():
                if index >= min(gone.end, self._count) or self._hashes is None:
                    continue
                at, size = index - gone.first, min(PAGE_SIZE, self.ram.size - index * PAGE_SIZE)
                if before != hash(read_frames(frames, at * PAGE_SIZE, size)):
                    self.ram.take(index, frames[at : at + 1])
                    frames[at] = 0
                    self._hashes.setdefault(index // CHUNK, {})[index] = before
        finally:
            self.ram.ram.put_list(frames, 0, len(frames))

    async def _copies_lost(self) -> None:
        """Private ones, of what lies behind the end."""

        def lose(mapper: Mapper) -> WaitingSteps[None]:
            return mapper.losing(self.ram, self._count * PAGE_SIZE)

        while (cuts := self._cuts) > 0:
            await driven(lost_by_all(self.ram.mappers, lose))
            self._cuts -= cuts

    def _tracked(self, first: int, last: int) -> Iterator[int]:
        """Pages that may have had stores."""
        for low, high in self.ram.parts(first, last):
            known = (self._hashes or {}).get(low // CHUNK, {})
            yield from sorted(index for index in known if low <= index < high)

    def _is_stored(self, index: int) -> bool:
        """It has been stored into."""
        before = self._hash_of(index)
        return before is not None and before != hash(
            self.ram.read(index * PAGE_SIZE, PAGE_SIZE)
        )

    # --- from and to the server

    async def _load(self, index: int, count: int) -> None:
        """Fill pages from `index` on: what a fault waits for. Raises: Unreadable."""
        if self._lock.holder is not None:
            await self._lock.until_free()
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
        if not self.tracked:
            return False
        some = next(self._tracked(offset // PAGE_SIZE, min(last, self._count)), None)
        return some is not None or self._lock.holder is not None

    async def write_back(self, handle: Any, offset: int = 0, count: int = ALL) -> None:
        """Send what was stored. Raises: what the server says of the first page it refuses."""
        failed: Errno | None = None
        pace = Pace()
        last = min(-(-(offset + count) // PAGE_SIZE), self._count)
        if self._lock.holder is not None:
            await self._lock.until_free()
        for index in self._tracked(offset // PAGE_SIZE, last):
            await pace.rest()
            if self._lock.holder is not None:
                await self._lock.until_free()
            data = self.ram.read(index * PAGE_SIZE, PAGE_SIZE)
            if not data or self._hashes is None or not self._is_stored(index):
                continue
            self._hashes[index // CHUNK][index] = hash(data)
            try:
                await self.store(handle, index * PAGE_SIZE, data)
            except Errno as error:
                failed = failed or error
        if failed is not None:
            raise failed

"""`RamFile`: a file whose pages are RAM frames (tmpfs, memfd, shared anonymous and SysV memory).

Its pages are what mappings of it show: nothing is copied. Pages that were never written are holes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Sized
from functools import partial
from itertools import groupby
from typing import Any, Final, Protocol, TypeVar

from sentry.errors import ENOMEM, ENOSPC
from sentry.mm.buffers import UserDest, UserSource
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.disk import Disk
from sentry.platform.frames import (
    Bytes,
    frames_of,
    is_shared,
    read_frames,
    write_frames,
    zero_frames,
)
from sentry.platform.memory import Ram
from sentry.wait.steps import Steps, WaitingSteps

Y = TypeVar("Y")

CHUNK: Final = 512
"""Pages in one array of frames."""
CHUNK_BYTES: Final = CHUNK * PAGE_SIZE
_EMPTY: Final = array("Q", bytes(8 * CHUNK))
_ZEROS: Final = bytes(PAGE_SIZE)


def _give_back(ram: Ram | Disk, chunk: array[int]) -> None:
    ram.leaving -= ram.put_list(chunk, 0, CHUNK)


class Mapper(Protocol):
    """An address space with VMAs of a file (`AddressMap`), as the file sees it."""

    @property
    def vmas(self) -> Sized: ...
    def backing_lost(self, backing: Any, start: int, end: int | None, private: bool) -> None: ...
    def losing(self, backing: Any, start: int) -> WaitingSteps[None]: ...
    def losing_frames(self, backing: Any, first: int, frames: array[int]) -> Steps[None]: ...
    def losing_window(self, backing: Any, piece: Any) -> Steps[None]: ...


def lost_by_all(
    mappers: Iterable[Mapper], lose: Callable[[Mapper], Generator[Y, None, None]]
) -> Generator[Y, None, None]:
    """Who maps a file loses something of it, one after the other, and who has been forked from one
    meanwhile."""
    done: set[Mapper] = set()
    while some := [mapper for mapper in mappers if mapper not in done]:
        for mapper in some:
            yield from lose(mapper)
            done.add(mapper)


class Quota(Protocol):
    """What a file's frames count in, with those of others: a file system."""

    pages: int
    max_pages: int | None


class RamFile:
    """Sparse bytes in RAM, or on a `Disk`. The last reference (`close`) gives the frames back.

    `loader` makes it a cache of a file that lies elsewhere: a coroutine that fills pages.
    """

    __slots__ = (
        "_chunks", "_size", "_views", "loader", "mappers", "name", "pages", "quota", "ram",
        "transient",
    )  # fmt: skip

    def __init__(self, ram: Ram | Disk, size: int = 0, name: bytes = b"") -> None:
        self.ram = ram
        self.name = name
        """What /proc/PID/maps shows for a file without a path."""
        self.pages = 0
        """Frames in use."""
        self.mappers: dict[Mapper, int] = {}
        """Address spaces with VMAs of this file, and how many."""
        self.loader: Callable[[int, int], Coroutine[Any, Any, None]] | None = None
        self.quota: Quota | None = None
        """What its frames count in. Whoever writes asks for room first; a fault is refused."""
        self.transient = False
        """Nothing but mappings refers to it: the last one closes it."""
        self._size = size
        self._chunks: dict[int, array[int]] = {}
        self._views: dict[int, Any] = {}
        """Chunks as the C side takes them, for those that were read or written."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    # --- pages

    def _count(self, more: int) -> None:
        """So many frames more, or less."""
        self.pages += more
        self.ram.file_pages += more
        if self.quota is not None:
            self.quota.pages += more

    def check_room(self, more: int) -> None:
        """For so many frames more. Raises: ENOSPC."""
        quota = self.quota
        if quota is None or quota.max_pages is None:
            return
        if quota.pages + more > quota.max_pages:
            raise ENOSPC("the file system is full")

    def page(self, index: int) -> int:
        """The frame of a page, made if it is a hole. Raises: ENOMEM; ENOSPC beyond the quota."""
        chunk = self._chunks.get(index // CHUNK)
        if chunk is None:
            chunk = self._chunks[index // CHUNK] = _EMPTY[:]
        gpa = chunk[index % CHUNK]
        if not gpa:
            self.check_room(1)
            gpa = chunk[index % CHUNK] = self.ram.alloc()
            self._count(1)
        return gpa

    def bring(self, index: int, data: Bytes) -> None:
        """Its loader has fetched these bytes of a page, which stays a hole where there is no memory
        for them: zeros would pass for what the file has. Raises: ENOMEM."""
        self.page(index)
        try:
            self.write(index * PAGE_SIZE, data)
        except ENOMEM:
            self._put(index, index + 1)
            raise

    def peek(self, index: int) -> int:
        """The frame of a page, 0 for a hole."""
        chunk = self._chunks.get(index // CHUNK)
        return chunk[index % CHUNK] if chunk is not None else 0

    def holes(self, first: int, last: int) -> int:
        """How many of the pages [first, last) have no frame."""
        held = 0
        for low, high in self.parts(first, last):
            at = low % CHUNK
            held += high - low - self._chunks[low // CHUNK][at : at + high - low].count(0)
        return last - first - held

    def frames(self, index: int, count: int) -> array[int]:
        """The frames of consecutive pages, 0 where there is a hole."""
        found = array("Q")
        while count > 0:
            first = index % CHUNK
            some = min(count, CHUNK - first)
            found += self._chunks.get(index // CHUNK, _EMPTY)[first : first + some]
            index += some
            count -= some
        return found

    def fill(self, index: int, count: int) -> None:
        """Make every hole among these pages a frame. Raises: ENOMEM."""
        while count > 0:
            first = index % CHUNK
            some = min(count, CHUNK - first)
            chunk = self._chunks.get(index // CHUNK)
            if chunk is None:
                chunk = self._chunks[index // CHUNK] = _EMPTY[:]
            free = chunk[first : first + some].count(0)
            try:
                made = self.ram.fill(chunk, first, some)
            except (ENOMEM, ENOSPC):  # of some of them
                self._count(free - chunk[first : first + some].count(0))
                raise
            self._count(made)
            index += some
            count -= some

    def take(self, index: int, gpas: array[int]) -> None:
        """Frames, a reference of each the caller's, become these pages, which are holes."""
        done = 0
        while done < len(gpas):
            first = (index + done) % CHUNK
            some = gpas[done : done + CHUNK - first]
            chunk = self._chunks.get((index + done) // CHUNK)
            if chunk is None:
                chunk = self._chunks[(index + done) // CHUNK] = _EMPTY[:]
            assert not any(chunk[first : first + len(some)])
            chunk[first : first + len(some)] = some
            done += len(some)
        self._count(len(gpas))

    def filling(self, index: int, count: int) -> Steps[None]:
        """`fill`, a chunk a piece.

        Raises: ENOSPC, and what was made for it has been given back: shmem_fallocate().
        """
        made: list[tuple[int, array[int]]] = []
        try:
            while count > 0:
                some = min(count, CHUNK - index % CHUNK)
                self.check_room(self.holes(index, index + some))
                made.append((index, self.frames(index, some)))
                self.fill(index, some)
                index, count = index + some, count - some
                yield
        except (ENOMEM, ENOSPC) as error:
            why = str(error)
        else:
            return
        for first, before in made:
            yield from self._unfill(first, before)
            yield
        raise ENOSPC(why)

    def _unfill(self, first: int, before: array[int]) -> Steps[None]:
        """Pages that were holes `before`, and nobody has stored to since, are holes again: those
        that nobody has mapped anew when all have lost them."""
        now = self.frames(first, len(before))
        made = array("Q", (0 if old else new for old, new in zip(before, now, strict=True)))
        yield from self.losing(first, made)
        now = self.frames(first, len(before))
        data = read_frames(now, 0, len(before) * PAGE_SIZE)

        def is_new(at: int) -> bool:
            if not made[at] or made[at] != now[at] or is_shared(made[at]):
                return False
            return data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE] == _ZEROS

        for new, run in groupby(range(len(before)), is_new):
            if new:
                pages = list(run)
                self._put(first + pages[0], first + pages[-1] + 1)

    # --- bytes

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes, fewer at the end of the file."""
        count = min(count, self._size - offset)
        if count <= 0:
            return b""
        first = offset // PAGE_SIZE
        if offset // CHUNK_BYTES == (offset + count - 1) // CHUNK_BYTES:
            chunk = self._chunks.get(first // CHUNK)
            if chunk is None:
                return bytes(count)
            return read_frames(chunk, offset % CHUNK_BYTES, count)
        pages = (offset + count - 1) // PAGE_SIZE - first + 1
        return read_frames(self.frames(first, pages), offset % PAGE_SIZE, count)

    def write(self, offset: int, data: Bytes) -> int:
        """Store bytes, growing the file; how many. Fewer, or ENOMEM: memory is used up."""
        view = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
        done = 0
        try:
            while done < len(view):
                at = offset + done
                some = min(len(view) - done, CHUNK_BYTES - at % CHUNK_BYTES)
                first = at // PAGE_SIZE
                self.fill(first, (at + some - 1) // PAGE_SIZE - first + 1)
                chunk = self._chunks[first // CHUNK]
                wrote = write_frames(chunk, at % CHUNK_BYTES, view[done : done + some])
                done += wrote
                if wrote < some:
                    break
        except (ENOMEM, ENOSPC):
            if not done:
                raise
        if len(view) and not done:
            raise ENOMEM("the memory limit is reached")
        if done:
            self._size = max(self._size, offset + done)
        return done

    def read_to(self, dest: UserDest, offset: int) -> int:
        """Copy bytes to user memory, up to the end of the file; how many. Raises: EFAULT."""
        count, inside = dest.count, offset % CHUNK_BYTES
        if offset + count <= self._size and inside + count <= CHUNK_BYTES:
            view = self._views.get(offset // CHUNK_BYTES)
            if view is not None:
                return dest.from_frames(view, inside, count)
        count = min(count, self._size - offset)
        done = 0
        while done < count:
            number, inside = divmod(offset + done, CHUNK_BYTES)
            some = min(count - done, CHUNK_BYTES - inside)
            view = self._views.get(number)
            if view is None and number in self._chunks:
                view = self._view(number)
            done += dest.zero(some) if view is None else dest.from_frames(view, inside, some)
        return done

    def write_from(self, source: UserSource, offset: int, count: int) -> int:
        """Copy from user memory, growing the file; how many bytes. Fewer: memory is used up.

        Raises: EFAULT, ENOMEM.
        """
        done, inside = 0, offset % CHUNK_BYTES
        view = self._views.get(offset // CHUNK_BYTES)
        if view is not None and inside + count <= CHUNK_BYTES:  # the common case, in one go
            done, made = source.to_frames(view, inside, count, self.ram.on_disk)
            if made:
                self._count(made)
            if done == count:
                self._size = max(self._size, offset + done)
                return done
        try:
            while done < count:
                number, inside = divmod(offset + done, CHUNK_BYTES)
                view = self._views.get(number)
                if view is None:
                    view = self._view(number)
                some = min(count - done, CHUNK_BYTES - inside)
                got, made = source.to_frames(view, inside, some, self.ram.on_disk)
                self._count(made)
                done += got
                if not got and not source.repair():
                    break
        finally:
            if offset + done > self._size and done:
                self._size = offset + done
        if count and not done:
            raise ENOMEM("the memory limit is reached")
        return done

    def _view(self, number: int) -> Any:
        """A chunk for the C side, made if there is none."""
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = _EMPTY[:]
        view = self._views[number] = frames_of(chunk)
        return view

    def truncate(self, size: int) -> None:
        """Set the size; what lies past it is gone, also for those who map it (SIGBUS)."""
        old, first = self._size, self.cut(size)
        if size < old:
            self._drop(first, None, True)

    def truncating(self, size: int) -> WaitingSteps[None]:
        """`truncate`: the size first, so that nobody maps more of it; then who maps it loses that,
        a mapping a piece, and its frames go, a chunk a piece."""
        old, first = self._size, self.cut(size)
        if size >= old:
            return
        start = first * PAGE_SIZE
        yield from lost_by_all(self.mappers, lambda mapper: mapper.losing(self, start))
        for low, high in self.parts(first, None):
            self._put(low, high)
            yield None

    def cut(self, size: int) -> int:
        """The size, and zeros behind it up to the next page, which it gives: the caller has the
        pages go from there on."""
        old, self._size = self._size, size
        if size < old and size % PAGE_SIZE and self.peek(size // PAGE_SIZE):
            chunk = self._chunks[size // CHUNK_BYTES]
            zero_frames(chunk, size % CHUNK_BYTES, PAGE_SIZE - size % PAGE_SIZE)
        return (size + PAGE_SIZE - 1) // PAGE_SIZE

    def parts(self, first: int, last: int | None) -> list[tuple[int, int]]:
        """The pages of [first, last), chunk by chunk, where there are any."""
        end = max(self._chunks, default=-1) * CHUNK + CHUNK if last is None else last
        numbers: Collection[int] = range(first // CHUNK, -(-end // CHUNK))
        if len(numbers) > len(self._chunks):
            numbers = sorted(n for n in self._chunks if n in numbers)
        return [
            (max(first, n * CHUNK), min(end, (n + 1) * CHUNK)) for n in numbers if n in self._chunks
        ]

    def punching(self, offset: int, length: int) -> Steps[None]:
        """`punch`, a chunk a piece: the hole is there first, then who maps it loses what was there,
        some mappings a piece, and the frames go at the end."""
        end = offset + length
        last = (end + PAGE_SIZE - 1) // PAGE_SIZE
        for low, high in self.parts(offset // PAGE_SIZE, last):
            whole = self._clear_edges(max(offset, low * PAGE_SIZE), min(end, high * PAGE_SIZE))
            if whole[0] < whole[1]:  # else the hole is within a page
                yield from self._emptying(*whole)
            yield

    def _emptying(self, first: int, last: int) -> Steps[None]:
        """Pages of one chunk become holes."""
        frames = self._take_out(first, last)
        if not any(frames):
            return
        try:
            yield from self.losing(first, frames)
        finally:
            self.ram.put_list(frames, 0, len(frames))

    def losing(self, first: int, frames: array[int]) -> Steps[None]:
        """Who maps the pages from `first` on, which had these frames, loses them."""
        return lost_by_all(
            self.mappers, lambda mapper: mapper.losing_frames(self, first, frames)
        )

    def taken_out(self, first: int, last: int | None) -> list[tuple[int, array[int]]]:
        """The frames of pages, chunk by chunk with their first page, which are holes now; they are
        the caller's. Of all pages it is a matter of an instant."""
        if first or last is not None:
            return [(low, self._take_out(low, high)) for low, high in self.parts(first, last)]
        chunks, self._chunks, self._views = self._chunks, {}, {}
        self._count(-self.pages)
        return [(number * CHUNK, chunk) for number, chunk in chunks.items()]

    def _take_out(self, first: int, last: int) -> array[int]:
        """The frames of pages of one chunk, which are holes now: they are the caller's."""
        number = first // CHUNK
        chunk = self._chunks.get(number, _EMPTY)
        low, high = first % CHUNK, last - number * CHUNK
        frames = chunk[low:high]
        if any(frames):
            self._count(frames.count(0) - len(frames))
            if len(frames) == CHUNK:
                del self._chunks[number]
                self._views.pop(number, None)
            else:
                chunk[low:high] = _EMPTY[low:high]
        return frames

    def punch(self, offset: int, length: int) -> None:
        """Make a hole: the bytes read as zero, whole pages give their frames back."""
        first, last = self._clear_edges(offset, offset + length)
        if last > first:
            self._drop(first, last, False)

    def _clear_edges(self, offset: int, end: int) -> tuple[int, int]:
        """Zeros where a hole begins and ends within a page; the pages between."""
        first, last = (offset + PAGE_SIZE - 1) // PAGE_SIZE, end // PAGE_SIZE
        edges = [(offset, min(end, first * PAGE_SIZE))]
        if last >= first:
            edges.append((last * PAGE_SIZE, end))
        for start, stop in edges:
            if start < stop and self.peek(start // PAGE_SIZE):
                chunk = self._chunks[start // CHUNK_BYTES]
                zero_frames(chunk, start % CHUNK_BYTES, stop - start)
        return first, last

    def _drop(self, first: int, last: int | None, private_too: bool) -> None:
        """Give the frames of [first, last) back, after all who map them have lost them."""
        for mapper in list(self.mappers):
            mapper.backing_lost(
                self, first * PAGE_SIZE, None if last is None else last * PAGE_SIZE, private_too
            )
        self._put(first, last)

    def _put(self, first: int, last: int | None) -> None:
        for start, stop in self.parts(first, last):
            number = start // CHUNK
            low, high = start % CHUNK, stop - number * CHUNK
            chunk = self._chunks[number]
            self._count(-self.ram.put_list(chunk, low, high - low))
            if low == 0 and high == CHUNK:
                del self._chunks[number]
                self._views.pop(number, None)

    def close(self) -> None:
        """Nobody opens or maps the file any more: it counts nowhere at once.

        Many frames are given back in their turn; who meets the limit meanwhile waits for them.
        """
        for mapper in list(self.mappers):
            mapper.backing_lost(self, 0, None, True)
        chunks, self._chunks, self._views = self._chunks, {}, {}
        self._size = 0
        ram, pages = self.ram, self.pages
        self._count(-pages)
        ram.leaving += pages
        ram.let_go(chunks.values(), partial(_give_back, ram))

    # --- holes

    def next_data(self, offset: int) -> int | None:
        """SEEK_DATA: the first byte at or after `offset` that lies in a page, None if none."""
        index, end = offset // PAGE_SIZE, (self._size + PAGE_SIZE - 1) // PAGE_SIZE
        for number in sorted(n for n in self._chunks if (n + 1) * CHUNK > index):
            chunk = self._chunks[number]
            at = max(index, number * CHUNK)
            part = chunk[at % CHUNK : max(0, end - number * CHUNK)].tobytes()
            if found := part.lstrip(b"\0"):
                at += (len(part) - len(found)) // chunk.itemsize
                return max(offset, at * PAGE_SIZE)
        return None

    def next_hole(self, offset: int) -> int:
        """SEEK_HOLE: the first byte at or after `offset` in no page; the end of the file is one."""
        index, end = offset // PAGE_SIZE, (self._size + PAGE_SIZE - 1) // PAGE_SIZE
        while index < end:
            chunk = self._chunks.get(index // CHUNK)
            if chunk is None:
                break
            try:
                index += chunk.index(0, index % CHUNK) - index % CHUNK
                break
            except ValueError:  # all of it is data
                index = (index // CHUNK + 1) * CHUNK
        return min(self._size, max(offset, index * PAGE_SIZE))

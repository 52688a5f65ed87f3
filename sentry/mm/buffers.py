"""`Dest` and `Source`: where a read puts its bytes, where a write takes them from.

`UserDest` and `UserSource` are ranges of user memory that were checked and faulted in when they
were made, or of which the first access will fail (EFAULT); `KernelDest` and `KernelSource` are the
same over Python bytes.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar, Protocol, Self

from sentry.abi.fcntl import RWF_NOWAIT
from sentry.errors import EFAULT, from_host, from_number
from sentry.mm.errors import NeedsFault
from sentry.platform.frames import Bytes
from sentry.platform.memory import AddressSpace

Transfer = Callable[[int, int, int, int, int], int]
Ranges = Callable[[int, int, "array[int]", int], int]
Segment = tuple[int, int]


class UserMemory(Protocol):
    """Whose ranges they are (`MemoryManager`), as a buffer sees it."""

    space: AddressSpace

    def resolve(self, write: bool) -> None: ...
    def read(self, addr: int, count: int) -> bytes: ...
    def write(self, addr: int, data: Bytes) -> None: ...
    def zero(self, addr: int, count: int) -> None: ...


class UserBuffer:
    """Ranges of user memory, consumed from the front."""

    __slots__ = ("_index", "_inside", "_mm", "_segments", "count", "wanted")
    writes: ClassVar = False
    """It is stored to."""

    def __init__(
        self, mm: UserMemory, segments: Sequence[Segment], count: int, wanted: int
    ) -> None:
        self._mm = mm
        self._segments = segments
        self._index = 0
        self._inside = 0
        self.count = count
        """Bytes left: at first the sum of the segments."""
        self.wanted = wanted
        """Bytes asked for; more than `count` at first if a later part cannot be accessed."""

    @property
    def segments(self) -> list[Segment]:
        """(address, length) of what is left."""
        rest = list(self._segments[self._index :])
        if rest and self._inside:
            rest[0] = (rest[0][0] + self._inside, rest[0][1] - self._inside)
        return rest

    def part(self, n: int) -> Self:
        """The next `n` bytes by themselves; they are not consumed. Preconditions: there are."""
        segments, left = [], n
        for addr, length in self.segments:
            segments.append((addr, min(length, left)))
            left -= segments[-1][1]
            if not left:
                break
        return type(self)(self._mm, segments, n, n)

    def _next(self, limit: int) -> Segment:
        """The next piece, at most `limit` bytes; (0, 0) at the end."""
        while self._index < len(self._segments):
            addr, length = self._segments[self._index]
            if self._inside < length:
                return addr + self._inside, min(length - self._inside, limit)
            self._index += 1
            self._inside = 0
        return 0, 0

    def _consume(self, n: int) -> None:
        self._inside += n
        self.count -= n

    def _pieces(self, n: int) -> Iterator[Segment]:
        """The next `n` bytes piece by piece: one is consumed when the next is asked for."""
        while n > 0:
            addr, length = self._next(n)
            if not length:
                return
            yield addr, length
            self._consume(length)
            n -= length

    def skip(self, n: int) -> None:
        """Pass over bytes that were transferred by other means (pinned I/O)."""
        if n == self.count:
            self._index, self._inside, self.count = len(self._segments), 0, 0
            return
        for _ in self._pieces(n):
            pass

    def _ranges(self) -> array[int]:
        """The next `count` bytes, as the C side takes them."""
        ranges = array("Q", chain.from_iterable(self.segments))
        excess = sum(ranges[1::2]) - self.count
        while excess > 0:
            cut = min(excess, ranges[-1])
            ranges[-1] -= cut
            excess -= cut
            if not ranges[-1]:
                del ranges[-2:]
        return ranges

    def _host_ranges(self, call: Ranges, fd: int, offset: int | None, flags: int) -> int:
        """preadv or pwritev of all segments at once."""
        if not self.count:
            return 0
        while True:
            got = call(fd, -1 if offset is None else offset, self._ranges(), flags)
            if got != -EFAULT.number or not self._mm.space.fault_addr:
                break
            self._mm.resolve(self.writes)
        if got < 0:
            raise from_number(-got)
        self.skip(got)
        return got

    def _host(self, call: Transfer, fd: int, offset: int | None, flags: int) -> int:
        """preadv or pwritev of one segment. A stream is asked again only without waiting."""
        segments, done = self._segments, 0
        while self.count:
            addr, length = segments[0][0] + self._inside, self.count
            at = -1 if offset is None else offset + done
            again = RWF_NOWAIT if done and offset is None else 0
            got = call(fd, at, addr, length, flags | again)
            if got == -EFAULT.number and self._mm.space.fault_addr:
                self._mm.resolve(self.writes)
                continue
            if got < 0:
                if done:
                    break
                raise from_number(-got)
            self._inside += got
            self.count -= got
            done += got
            if got < length:
                break
        return done


class UserDest(UserBuffer):
    """User memory that a read fills."""

    __slots__ = ()
    writes: ClassVar = True

    def put(self, data: Bytes) -> int:
        """Append bytes, at most `count`; how many.

        Raises: EFAULT (unmapped since the check); NeedsFault, and none of them is appended.
        """
        segments = self._segments
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        if size <= self.count and len(segments) == 1:  # the common case, without `_next`
            addr = segments[0][0] + self._inside
            if self._mm.space.write(addr, data) < size:
                self._mm.write(addr, data)
            self._inside += size
            self.count -= size
            return size
        view = memoryview(data).cast("B")
        done, before = 0, (self._index, self._inside, self.count)
        try:
            for addr, length in self._pieces(len(view)):
                self._mm.write(addr, view[done : done + length])
                done += length
        except NeedsFault:
            self._index, self._inside, self.count = before
            raise
        return done

    def from_host(self, fd: int, offset: int | None, flags: int = 0) -> int:
        """Read from a host descriptor (preadv2 with RWF_ flags; None: at its position)."""
        space = self._mm.space
        if len(self._segments) == 1:
            return self._host(space.from_host, fd, offset, flags)
        return self._host_ranges(space.ranges_from_host, fd, offset, flags)

    def from_frames(self, frames: Any, offset: int, n: int) -> int:
        """Append bytes of frames (`platform.frames.frames_of`), at most `count`."""
        segments, done = self._segments, 0
        if len(segments) == 1 and n <= self.count:  # the common case, without `_next`
            at = segments[0][0] + self._inside
            done = self._mm.space.from_frames(at, frames, offset, n)
            self._inside += done
            self.count -= done
            if done < n:
                self._mm.resolve(True)
        elif n:
            done = self._mm.space.ranges_from_frames(self._ranges(), frames, offset, n)
            self.skip(done)
            if done < min(n, self.count + done):
                self._mm.resolve(True)
        while done < n:
            addr, length = self._next(n - done)
            if not length:
                break
            got = self._mm.space.from_frames(addr, frames, offset + done, length)
            self._consume(got)
            done += got
            if got < length:
                self._mm.resolve(True)
        return done

    def zero(self, n: int) -> int:
        """Append zeros."""
        done = 0
        for addr, length in self._pieces(n):
            self._mm.zero(addr, length)
            done += length
        return done


class UserSource(UserBuffer):
    """User memory that a write takes."""

    __slots__ = ()

    def get(self, n: int) -> bytes:
        """Consume up to `n` bytes.

        Raises: EFAULT (unmapped since the check); NeedsFault, and none of them is consumed.
        """
        segments = self._segments
        if n <= self.count and len(segments) == 1:  # the common case, without `_next`
            addr = segments[0][0] + self._inside
            data = self._mm.space.read(addr, n)
            if len(data) < n:
                data = self._mm.read(addr, n)
            self._inside += n
            self.count -= n
            return data
        if n >= self.count:
            data = b"".join([self._mm.read(addr, length) for addr, length in self.segments])
            self.skip(self.count)
            return data
        before = self._index, self._inside, self.count
        pieces = self._pieces(n)
        try:
            return b"".join([self._mm.read(addr, length) for addr, length in pieces])
        except NeedsFault:
            self._index, self._inside, self.count = before
            raise

    def peek(self, n: int) -> bytes:
        """The next bytes, not consumed. Raises: EFAULT."""
        state = self._index, self._inside, self.count
        data = self.get(n)
        self._index, self._inside, self.count = state
        return data

    def to_frames(
        self, frames: Any, offset: int, n: int, on_disk: int = 0
    ) -> tuple[int, int]:
        """Consume up to `n` bytes of one piece into frames: (bytes, new frames).

        Fewer than `n`: the piece ends there, or `repair` has something to do.
        """
        n = min(n, self.count)
        if len(self._segments) == 1:  # the common case, without `_next`
            addr, length = self._segments[0][0] + self._inside, n
        else:
            addr, length = self._next(n)
        if not length:
            return 0, 0
        result = self._mm.space.to_frames(addr, frames, offset, length, on_disk)
        self._consume(result[0])
        return result

    def repair(self) -> bool:
        """After a `to_frames` that gave nothing: False if no frame is left.

        Raises: EFAULT, NeedsFault.
        """
        space = self._mm.space
        if space.fault_gone and not space.fault_addr:
            return False
        self._mm.resolve(False)
        return True

    def to_host(self, fd: int, offset: int | None, flags: int = 0) -> int:
        """Write to a host descriptor (pwritev2 with RWF_ flags; None: at its position)."""
        space = self._mm.space
        if len(self._segments) == 1:
            return self._host(space.to_host, fd, offset, flags)
        return self._host_ranges(space.ranges_to_host, fd, offset, flags)


class KernelDest:
    """A `Dest` in Python memory; `data` is what was put."""

    __slots__ = ("_parts", "count", "wanted")

    def __init__(self, count: int) -> None:
        self.count = count
        self.wanted = count
        self._parts: list[bytes] = []

    @property
    def data(self) -> bytes:
        """All of it."""
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def put(self, data: Bytes) -> int:
        """Append bytes, at most `count`; how many."""
        if type(data) is not bytes or len(data) > self.count:
            data = bytes(memoryview(data).cast("B")[: self.count])
        self._parts.append(data)
        self.count -= len(data)
        return len(data)

    def zero(self, n: int) -> int:
        """Append zeros."""
        return self.put(bytes(min(n, self.count)))

    def skip(self, n: int) -> None:
        """Leave room for bytes that do not matter."""
        self.put(bytes(min(n, self.count)))

    def from_host(self, fd: int, offset: int | None, flags: int = 0) -> int:
        """Read from a host descriptor."""
        buffer = bytearray(self.count)
        try:
            got = os.preadv(fd, [buffer], -1 if offset is None else offset, flags)
        except OSError as error:
            raise from_host(error) from None
        return self.put(memoryview(buffer)[:got])


class KernelSource:
    """A `Source` over Python bytes."""

    __slots__ = ("_at", "_data", "count", "wanted")

    def __init__(self, data: Bytes) -> None:
        self._data = bytes(data)
        self._at = 0
        self.count = self.wanted = len(self._data)

    def get(self, n: int) -> bytes:
        """Consume up to `n` bytes."""
        data = self.peek(n)
        self.skip(len(data))
        return data

    def peek(self, n: int) -> bytes:
        """The next bytes, not consumed."""
        return self._data[self._at : self._at + n]

    def skip(self, n: int) -> None:
        """Pass over bytes."""
        n = min(n, self.count)
        self._at += n
        self.count -= n

    def to_host(self, fd: int, offset: int | None, flags: int = 0) -> int:
        """Write to a host descriptor."""
        data = memoryview(self._data)[self._at :]
        try:
            done = os.pwritev(fd, [data], -1 if offset is None else offset, flags)
        except OSError as error:
            raise from_host(error) from None
        self.skip(done)
        return done

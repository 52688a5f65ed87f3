"""The buffer of a pipe: bytes in the order of the writes, with packets for O_DIRECT. pipe(7)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.limits import PIPE_BUF
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDNORM,
    EPOLLWRNORM,
)
from sentry.errors import EAGAIN, EBUSY, EFAULT, EINVAL, ENFILE, EPERM
from sentry.platform.constants import PAGE_SIZE
from sentry.wait.again import NotNow
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.platform.frames import Bytes
    from sentry.vfs.file import Caller, Dest
    from sentry.vfs.vfs import Vfs

DEFAULT_CAPACITY: Final = 16 * PAGE_SIZE
LARGEST: Final = 1 << 24
"""No pipe holds more, whoever asks."""
SLACK: Final = 64
"""Parts that a pipe may have beyond one for each page."""
MAX_PAGES: Final = 1 << 18
"""All pipes of the sandbox together; beyond, new ones are two pages long."""

READABLE: Final = EPOLLIN | EPOLLRDNORM
WRITABLE: Final = EPOLLOUT | EPOLLWRNORM
OPENED: Final = 1 << 16
"""An event that only those who wait for a partner mind."""


Part = tuple[bytes, bool]
"""And whether it is a packet."""


class Pipe:
    """What both ends share. It never sleeps: it raises EAGAIN and notifies its queue."""

    __slots__ = (
        "_packets", "_parts", "_reserved", "_uid", "_vfs", "capacity", "queue", "read_opens",
        "readers", "size", "write_opens", "writers",
    )  # fmt: skip

    def __init__(self, vfs: Vfs, creds: Credentials) -> None:
        """alloc_pipe_info(). Raises: ENFILE beyond fs.pipe-user-pages-hard."""
        self._vfs = vfs
        self._uid = creds.uid
        self._parts: deque[Bytes] = deque()
        self._packets: deque[bool] = deque()
        """For each part: it is a packet, whose rest a short read throws away."""
        self.size = self._reserved = 0
        limits, self.capacity = vfs.pipes, 0
        capacity = DEFAULT_CAPACITY
        if not creds.has(CAP_SYS_RESOURCE):
            capacity = min(capacity, limits.max_size)
        pages = capacity // PAGE_SIZE
        if limits.beyond(creds, pages, limits.user_pages_soft) or limits.pages > MAX_PAGES:
            capacity = 2 * PAGE_SIZE
        if limits.beyond(creds, capacity // PAGE_SIZE, limits.user_pages_hard):
            raise ENFILE("fs.pipe-user-pages-hard")
        limits.count(self._uid, capacity // PAGE_SIZE)
        self.capacity = capacity
        self.queue = WaitQueue()
        self.readers = 0
        self.writers = 0
        self.read_opens = 0
        """How often a reader came, for those who wait for one."""
        self.write_opens = 0

    def __del__(self) -> None:
        self._vfs.pipes.count(self._uid, -self.capacity // PAGE_SIZE)

    # --- ends

    def open_end(self, reads: bool, writes: bool) -> None:
        """An end was opened."""
        self.readers += reads
        self.read_opens += reads
        self.writers += writes
        self.write_opens += writes
        self.queue.notify(OPENED)

    def close_end(self, reads: bool, writes: bool) -> None:
        """An end was closed; the other side hears of it if it was the last: pipe_release()."""
        self.readers -= reads
        self.writers -= writes
        if bool(self.readers) != bool(self.writers):
            self._tell_all(READABLE | WRITABLE | EPOLLHUP | EPOLLERR)

    def _tell_all(self, events: int) -> None:
        loop = self._vfs.loop
        if loop is None:
            self.queue.notify_all(events)
        else:
            self.queue.notify_all(events, loop.call_for_each)

    # --- bytes

    @property
    def room(self) -> int:
        """How many bytes fit. A packet takes a page, however short it is."""
        beyond = len(self._parts) - self.capacity // PAGE_SIZE
        if beyond >= 0 and (beyond >= SLACK or self._packets[-1]):
            return 0
        return self.capacity - self.size - self._reserved

    @contextmanager
    def reserved(self, count: int) -> Iterator[None]:
        """So much room is kept over a sleep, for bytes that are to come or that may come back:
        Linux holds the mutex of the pipe."""
        self._reserved += count
        try:
            yield
        finally:
            self._reserved -= count
            self.queue.notify(WRITABLE)

    def push(self, data: Bytes, packet: bool = False) -> None:
        """Append bytes; the caller has looked at `room`."""
        if not packet and len(data) < 1024 and self._parts and not self._packets[-1]:
            last = self._parts[-1]
            if len(last) + len(data) <= PAGE_SIZE:
                self._parts[-1] = bytes(last) + bytes(data)
                self.size += len(data)
                self.queue.notify(READABLE)
                return
        self._parts.append(data)
        self._packets.append(packet)
        self.size += len(data)
        self.queue.notify(READABLE)

    def fits(self, count: int) -> int:
        """How many bytes of a write of `count` go now. Raises: EAGAIN; up to PIPE_BUF is atomic."""
        room = self.room
        if room <= 0 or (count <= PIPE_BUF and room < count):
            raise EAGAIN("full")
        return count if count < room else room

    def read_into(self, dest: Dest) -> int:
        """Move bytes out. Raises: EAGAIN when there are none; 0 is the end."""
        if not dest.count:
            return 0
        if not self.size:
            if self.writers:
                raise EAGAIN("empty")
            return 0
        done = 0
        parts, packets = self._parts, self._packets
        while parts and dest.count:
            part = parts[0]
            if len(part) > dest.count:
                part = memoryview(part)[: dest.count]
            try:
                taken = dest.put(part)
            except (EFAULT, NotNow):  # those before it are out of the pipe
                if not done:
                    raise
                break
            done += taken
            if packets[0]:
                self._drop_first()
                break
            if taken == len(parts[0]):
                self._drop_first()
            else:
                parts[0] = memoryview(parts[0])[taken:]
                self.size -= taken
                break
        self.queue.notify(WRITABLE)
        return done

    def _drop_first(self) -> None:
        self.size -= len(self._parts.popleft())
        self._packets.popleft()

    def peek(self, count: int) -> list[Part]:
        """The first bytes, which stay (tee)."""
        found: list[Part] = []
        for part, packet in zip(self._parts, self._packets, strict=True):
            if count <= 0:
                break
            found.append((bytes(part[:count]), packet))
            count -= len(found[-1][0])
        return found

    def push_parts(self, parts: Iterable[Part]) -> int:
        """Of another pipe, as many as fit; how many bytes."""
        done = 0
        for data, packet in parts:
            if self.room < len(data):
                break
            self.push(data, packet)
            done += len(data)
        return done

    def take(self, count: int) -> list[Part]:
        """Remove up to `count` bytes (splice)."""
        found = self.peek(count)
        left = sum(len(data) for data, _ in found)
        while left:
            part = self._parts[0]
            if len(part) <= left:
                left -= len(part)
                self._drop_first()
            else:
                self._parts[0] = memoryview(part)[left:]
                self.size -= left
                left = 0
        if found:
            self.queue.notify(WRITABLE)
        return found

    def put_back(self, taken: list[Part], count: int) -> None:
        """The last bytes of what was taken could not be delivered."""
        for data, packet in reversed(taken):
            left = data[max(0, len(data) - count) :]
            if not left:
                break
            self._parts.appendleft(left)
            self._packets.appendleft(packet)
            self.size += len(left)
            count -= len(left)
        self.queue.notify(READABLE)

    # --- its size

    def resize(self, caller: Caller, size: int) -> int:
        """fcntl(F_SETPIPE_SZ): rounded up to a power of two pages."""
        if size < 0 or size > 1 << 31:
            raise EINVAL(f"size {size}")
        capacity = max(PAGE_SIZE, 1 << (size - 1).bit_length() if size > 1 else PAGE_SIZE)
        pages, limits = (capacity - self.capacity) // PAGE_SIZE, self._vfs.pipes
        creds = caller.creds
        if pages > 0 and (
            (capacity > limits.max_size and not creds.has(CAP_SYS_RESOURCE))
            or capacity > LARGEST
            or limits.pages + pages > 2 * MAX_PAGES
            or limits.beyond(creds, pages, limits.user_pages_soft)
            or limits.beyond(creds, pages, limits.user_pages_hard)
        ):
            raise EPERM("beyond fs.pipe-max-size or fs.pipe-user-pages-soft")
        slots = sum(self._packets) * PAGE_SIZE
        if max(self.size + self._reserved, slots) > capacity:
            raise EBUSY("holds more than that")
        limits.count(self._uid, pages)
        self.capacity = capacity
        self.queue.notify(WRITABLE)
        return capacity

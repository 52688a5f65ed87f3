"""Asynchronous I/O contexts: io_setup(2), fs/aio.c.

A context belongs to an address space. Its ring of events lies in memory that the program maps: the
kernel writes events and the tail, whoever takes events (io_getevents, or the program itself, as
libaio does) moves the head. All that is read from the ring is the program's word and is reduced to
the ring's size.

As on Linux without O_DIRECT, reads and writes are done while they are submitted; what stays in
flight is IOCB_CMD_POLL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi.aio import IO_EVENT
from sentry.abi.fcntl import O_RDWR
from sentry.abi.mman import MAP_SHARED, PROT_READ, PROT_WRITE
from sentry.abi.poll import EPOLLERR, EPOLLHUP
from sentry.errors import EAGAIN, EFAULT, EINVAL, ENOMEM, ENOSPC
from sentry.fs.eventfd import EventFile
from sentry.fs.memfd import internal_mount
from sentry.fs.proc.sysctl import get_sysctl
from sentry.fs.tmpfs.file import TmpFile, TmpOpenFile
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.mm.mapping import mmap, munmap
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.dentry import Dentry
from sentry.vfs.interface import Owner
from sentry.vfs.location import Location
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.vfs.file import FileDescription
    from sentry.vfs.vfs import Vfs

RING_MAGIC: Final = 0xA10A10A1
_header = struct.Struct("<8I")
"""struct aio_ring: id nr head tail magic compat_features incompat_features header_length."""
HEAD, TAIL = 8, 12
"""Offsets in it."""
EVENT: Final = IO_EVENT.size
MOST_EVENTS: Final = 0x10000000 // EVENT
MAX_NR: Final = 1 << 20
"""Ceiling of fs.aio-max-nr."""
MAX_CONTEXTS: Final = 1 << 14
"""Ceiling of contexts of all processes: each costs memory of the Sentry."""
_u32 = struct.Struct("<I")


class RingFile(TmpOpenFile):
    """What the mapping of a ring holds: `[aio]` in /proc/PID/maps."""

    __slots__ = ()
    fixed_size: ClassVar = True
    """VM_DONTEXPAND: mremap(2) does not make it larger."""


class Request:
    """An IOCB_CMD_POLL that waits."""

    __slots__ = ("_entry", "_wanted", "address", "context", "data", "eventfd", "file")

    def __init__(
        self, context: Context, address: int, data: int, eventfd: EventFile | None
    ) -> None:
        self.context = context
        self.address = address
        """Of the program's struct iocb."""
        self.data = data
        self.eventfd = eventfd
        self.file: FileDescription | None = None
        self._entry: Any = None
        self._wanted = 0

    def poll(self, file: FileDescription, events: int) -> None:
        """Wait until the file has one of these events. Raises: EINVAL if it never can say so."""
        self._wanted = events | EPOLLERR | EPOLLHUP
        ready = file.poll() & self._wanted
        if ready:
            self.context.complete(self, ready)
            return
        if not file.can_poll:
            raise EINVAL("cannot be polled")
        budget = self.context.budget
        budget.check_aio()
        budget.aio_requests += 1
        self.file = file.incref()
        if self.eventfd is not None:
            self.eventfd.incref()
        self._entry = file.queue.add(self._woken, self._wanted)
        self.context.waiting[self] = None

    def _woken(self, _events: int) -> None:
        assert self.file is not None
        ready = self.file.poll() & self._wanted
        if ready:
            self.finish(ready)

    def finish(self, result: int) -> None:
        """It is over: an event, and nothing is held any more."""
        file, eventfd = self.file, self.eventfd
        assert file is not None
        file.queue.remove(self._entry)
        self._entry = None
        del self.context.waiting[self]
        self.context.budget.aio_requests -= 1
        self.context.complete(self, result)
        self.file = None
        # Not under the feet of the file that is telling its waiters.
        self.context.later(file.decref)
        if eventfd is not None:
            self.context.later(eventfd.decref)


class Context:
    """struct kioctx."""

    __slots__ = ("_tail", "_underway", "budget", "dead", "id", "later", "max_requests", "nr",
                 "queue", "ring", "waiting")  # fmt: skip

    def __init__(self, kernel: Kernel, number: int, max_requests: int) -> None:
        wanted = max(max_requests, kernel.cpus * 4) * 2 + 2
        size = _header.size + EVENT * wanted
        pages = (size + PAGE_SIZE - 1) // PAGE_SIZE
        self.id = number
        self.max_requests = max_requests
        self.nr = (pages * PAGE_SIZE - _header.size) // EVENT
        self.ring = _make_ring(kernel.vfs, pages, (number, self.nr))
        self.queue = WaitQueue()
        self.waiting: dict[Request, None] = {}
        self.dead = False
        self.budget = kernel.vfs.budget
        self.later: Callable[[Callable[[], None]], None] = kernel.loop.call_soon
        self._tail = 0
        self._underway = 0

    @property
    def memory(self) -> Any:
        """The RamFile of the ring."""
        return self.ring.file.data

    def _head(self) -> int:
        return int(_u32.unpack(self.memory.read(HEAD, 4))[0]) % self.nr

    @property
    def events(self) -> int:
        """How many nobody has taken yet."""
        return (self._tail - self._head()) % self.nr

    def check_room(self) -> None:
        """Every request in flight has a place in the ring. Raises: EAGAIN."""
        if self.events + len(self.waiting) + self._underway >= self.nr - 1:
            raise EAGAIN("the ring is full")

    @contextmanager
    def place(self) -> Iterator[None]:
        """That of a request which is being submitted. Raises: EAGAIN."""
        self.check_room()
        self._underway += 1
        try:
            yield
        finally:
            self._underway -= 1

    def complete(self, request: Request, result: int) -> None:
        """aio_complete(): an event for the program."""
        tail = self._tail
        event = IO_EVENT.pack(request.data, request.address, result, 0)
        self.memory.write(_header.size + tail * EVENT, event)
        self._tail = (tail + 1) % self.nr
        self.memory.write(TAIL, _u32.pack(self._tail))
        if request.eventfd is not None:
            request.eventfd.signal()
        self.queue.notify()

    def take(self, most: int) -> bytes:
        """Up to so many events that are next to each other in the ring, which stay in it."""
        head = self._head()
        count = min(most, (self._tail if head <= self._tail else self.nr) - head)
        data: bytes = self.memory.read(_header.size + head * EVENT, count * EVENT)
        return data

    def taken(self, count: int) -> None:
        """The program has them: the head moves."""
        self.memory.write(HEAD, _u32.pack((self._head() + count) % self.nr))

    def cancel(self, address: int) -> bool:
        """io_cancel(2): end the request of this struct iocb; False: there is none."""
        found = next((r for r in self.waiting if r.address == address), None)
        if found is not None:
            found.finish(0)
        return found is not None

    def kill(self) -> None:
        """Nobody submits or waits any more; what waits is cancelled."""
        self.dead = True
        for request in list(self.waiting):
            request.finish(0)
        self.queue.notify()


def _make_ring(vfs: Vfs, pages: int, ids: tuple[int, int]) -> RingFile:
    """The file of a ring, its header written. Raises: ENOMEM, ENOSPC."""
    mount = internal_mount(vfs)
    fs = mount.fs
    assert isinstance(fs, TmpFs)
    fs.check_inodes()
    inode = TmpFile(fs, 0o600, Owner(0, 0))
    inode.nlink = 0
    memory = inode.bytes()
    memory.truncate(pages * PAGE_SIZE)
    memory.fill(0, pages)
    memory.write(0, _header.pack(*ids, 0, 0, RING_MAGIC, 1, 0, _header.size))
    dentry = Dentry(None, b"/[aio]", inode)
    dentry.unlinked = True
    return RingFile(Location(mount, dentry), O_RDWR)


class AioTable:
    """The contexts of an address space; `MemoryManager.aio`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._contexts: dict[int, Context] = {}

    def setup(self, task: Task, count: int) -> int:
        """ioctx_alloc(): the new context's identifier, which is the address of its ring.

        Raises: EINVAL, EAGAIN, ENOMEM.
        """
        budget = self._kernel.vfs.budget
        if max(count, self._kernel.cpus * 4) * 2 > MOST_EVENTS:
            raise EINVAL(f"{count} events")
        limit = min(max(int(get_sysctl(self._kernel, "fs/aio-max-nr")), 0), MAX_NR)
        if budget.aio_events + count > limit or budget.aio_contexts >= MAX_CONTEXTS:
            raise EAGAIN("fs.aio-max-nr")
        number = 0
        while number in self._contexts:
            number += 1
        task.mm.map.lock.check()
        try:
            context = Context(self._kernel, number, count)
            size = context.memory.size
            prot = PROT_READ | PROT_WRITE
            address: int = mmap(task.mm.map, 0, size, prot, MAP_SHARED, context.ring)
        except ENOSPC as error:
            raise ENOMEM(str(error)) from None
        self._contexts[number] = context
        budget.aio_events += count
        budget.aio_contexts += 1
        return address

    def find(self, task: Task, address: int) -> Context:
        """lookup_ioctx(): by the address where the ring is mapped and can be read. EINVAL."""
        try:
            task.mm.read(address, 4)
        except EFAULT:
            raise EINVAL(f"context {address:#x}") from None
        vma = task.mm.map.vmas.find(address)
        ring = vma.file if vma is not None else None
        if vma is not None and isinstance(ring, RingFile) and not vma.offset:
            for context in self._contexts.values():
                if context.ring is ring and vma.start == address:
                    return context
        raise EINVAL(f"context {address:#x}")

    def destroy(self, task: Task, address: int) -> None:
        """io_destroy(2). Raises: EINVAL."""
        task.mm.map.lock.check()
        context = self.find(task, address)
        self._end(context)
        munmap(task.mm.map, address, context.memory.size)

    def _end(self, context: Context) -> None:
        del self._contexts[context.id]
        budget = self._kernel.vfs.budget
        budget.aio_events -= context.max_requests
        budget.aio_contexts -= 1
        context.kill()

    def close(self) -> None:
        """exit_aio(): the address space is gone."""
        for context in list(self._contexts.values()):
            self._end(context)


def aio_of(task: Task) -> AioTable:
    """The contexts of a task's address space, made when first needed."""
    found = task.mm.aio
    if found is None:
        found = task.mm.aio = AioTable(task.kernel)
    assert isinstance(found, AioTable)
    return found

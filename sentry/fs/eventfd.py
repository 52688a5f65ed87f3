"""eventfd(2): a counter as a file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi.eventfd import EFD_NONBLOCK, EFD_SEMAPHORE
from sentry.abi.fcntl import O_RDWR, RWF_NOWAIT
from sentry.abi.poll import EPOLLERR, EPOLLIN, EPOLLOUT
from sentry.errors import EAGAIN, EFAULT, EINVAL
from sentry.vfs.file import Caller, Dest, Result, Source, StreamFile
from sentry.vfs.interface import Inode, Owner
from sentry.wait.sleep import Retry

if TYPE_CHECKING:
    from sentry.vfs.vfs import Vfs

LARGEST: Final = (1 << 64) - 2
SIZE: Final = 8


class EventFile(StreamFile):
    """An open eventfd."""

    __slots__ = ("number", "semaphore", "value")
    write_flags: ClassVar = False
    splice_read: ClassVar = False
    splice_write: ClassVar = False
    seeks_nowhere: ClassVar = True
    tells: ClassVar = 0xFFFF

    def __init__(self, vfs: Vfs, count: int, flags: int) -> None:
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        location = vfs.anon_location(inode, b"anon_inode:[eventfd]")
        super().__init__(location, O_RDWR | flags & EFD_NONBLOCK)
        self.number = inode.ino
        """What tells it from others in fdinfo."""
        self.value = count
        self.semaphore = bool(flags & EFD_SEMAPHORE)

    def receive(self, dest: Dest) -> int:
        """Take the counter, or one of it."""
        if dest.wanted < SIZE:
            raise EINVAL("less than 8 bytes")
        if not self.value:
            raise EAGAIN("zero")
        taken = 1 if self.semaphore else self.value
        dest.put(taken.to_bytes(8, "little"))
        self.value -= taken
        self.queue.notify(EPOLLOUT)
        return SIZE

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2): add to the counter; sleep while it would overflow."""
        if source.wanted != SIZE:
            raise EINVAL("not 8 bytes")
        if source.count < SIZE:
            raise EFAULT("memory ends within")
        value = int.from_bytes(source.get(SIZE), "little")
        if value > LARGEST:
            raise EINVAL("the largest value")
        try:
            return self.add(value)
        except EAGAIN:
            if self.flags & EFD_NONBLOCK or rwf & RWF_NOWAIT:
                raise
        return Retry(partial(self.add, value), self.queue, EPOLLOUT, self)

    def add(self, value: int) -> int:
        """Add now. Raises: EAGAIN when it would overflow."""
        if value > LARGEST - self.value:
            raise EAGAIN("would overflow")
        self.value += value
        self.queue.notify(EPOLLIN)
        return SIZE

    def signal(self) -> None:
        """The kernel adds one; past the largest value that write(2) can reach it stays."""
        self.value = min(self.value + 1, LARGEST + 1)
        self.queue.notify(EPOLLIN)

    def poll(self) -> int:
        """eventfd_poll()."""
        ready = EPOLLIN if self.value else 0
        if self.value < LARGEST:
            ready |= EPOLLOUT
        if self.value > LARGEST:
            ready |= EPOLLERR
        return ready

    def fdinfo(self) -> str:
        """The counter."""
        return (
            f"eventfd-count: {self.value:16x}\neventfd-id: {self.number}\n"
            f"eventfd-semaphore: {int(self.semaphore)}\n"
        )

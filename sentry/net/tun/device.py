"""`TunDevice`: an open /dev/net/tun, first without an interface. struct tun_file."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi.poll import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM
from sentry.errors import EAGAIN, EBADFD, EFAULT, EIO
from sentry.net.link.link import FEW_OUTGOING, FEW_OUTGOING_BYTES, MAX_OUTGOING_BYTES
from sentry.net.tun import framing, requests
from sentry.vfs.file import READ_EVENTS, Caller, Dest, Result, Source, StreamFile
from sentry.wait.sleep import Retry

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.net.tun.interface import Tun
    from sentry.vfs.location import Location

READABLE: Final = EPOLLIN | EPOLLRDNORM
WRITABLE: Final = EPOLLOUT | EPOLLWRNORM


class TunDevice(StreamFile):
    """A queue of an interface, once it is attached to one."""

    __slots__ = ("_life", "frames", "frames_bytes", "index", "is_disabled", "stack", "tun")
    requests: ClassVar = requests.REQUESTS
    can_async = True
    can_pread = True
    can_pwrite = True

    def __init__(self, location: Location, flags: int, stack: Stack) -> None:
        super().__init__(location, flags)
        self.stack = stack
        """That of who opened it."""
        self._life = stack.life
        self.tun: Tun | None = None
        self.is_disabled = False
        """IFF_DETACH_QUEUE."""
        self.index = 0
        """TUNSETIFINDEX: what the interface is to have."""
        self.frames: deque[bytes] = deque()
        self.frames_bytes = 0

    def release(self) -> None:
        """The last descriptor is closed."""
        tun = self.tun
        if tun is None:
            return
        self.let_go_of()
        tun.queues = [each for each in tun.queues if each is not self]
        tun.disabled.pop(self, None)
        tun.detached()

    def let_go_of(self) -> None:
        """It has no interface any more."""
        self.tun = None
        self.is_disabled = False
        self.clear()
        self.queue.notify()

    def clear(self) -> None:
        """What was not read is lost."""
        self.frames.clear()
        self.frames_bytes = 0

    @property
    def attached(self) -> Tun:
        """Raises: EBADFD."""
        if self.tun is None:
            raise EBADFD("no interface")
        return self.tun

    # --- frames

    def queued(self, frame: bytes, most: int) -> bool:
        """One more to be read. False: there is no room."""
        size = self.frames_bytes + len(frame)
        if len(self.frames) >= most or size > MAX_OUTGOING_BYTES:
            return False
        self.frames.append(frame)
        self.frames_bytes = size
        self.queue.notify(READABLE)
        return True

    @property
    def has_room(self) -> bool:
        """More have not long to wait."""
        return len(self.frames) < FEW_OUTGOING and self.frames_bytes < FEW_OUTGOING_BYTES

    def receive(self, dest: Dest) -> int:
        """A packet, cut to the buffer. Raises: EBADFD, EAGAIN, EINVAL, EFAULT."""
        tun = self.attached
        if not dest.wanted:
            return 0
        if not self.frames or self.is_disabled:
            raise EAGAIN("nothing there")
        frame = self.frames.popleft()
        self.frames_bytes -= len(frame)
        if self.has_room:
            tun.link.on_room()
            tun.layer.on_deadline()
        return framing.give(tun, frame, dest)

    def _receive_again(self, dest: Dest) -> int:
        if self.tun is None:
            raise EFAULT("the interface has gone")
        return self.receive(dest)

    def receive_sleep(self, dest: Dest) -> Retry:
        """Sleep until there is one; EFAULT if the interface goes meanwhile: tun_ring_recv()."""
        sleep = Retry(partial(self._receive_again, dest), self.queue, READ_EVENTS, self)
        sleep.exclusive = True
        return sleep

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """pread(2): there are no positions, and it is not refused."""
        return self.read(caller, dest, rwf)

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """A packet comes in. Raises: EBADFD, EINVAL, EFAULT, EIO while the interface is down."""
        tun, size = self.attached, source.wanted
        frame = framing.take(tun, source)
        if not tun.interface.is_up:
            raise EIO("the interface is down")
        if frame is not None:
            tun.written(frame)
        return size

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """pwrite(2): the same."""
        return self.write(caller, source, rwf)

    def poll(self) -> int:
        """tun_chr_poll()."""
        tun = self.tun
        if tun is None:
            return EPOLLERR
        events = READABLE if self.frames and not self.is_disabled else 0
        return events | WRITABLE if tun.interface.is_up else events

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """ioctl(2): without an interface most are EBADFD, whatever they are."""
        return requests.answer(self, caller, request, argument)

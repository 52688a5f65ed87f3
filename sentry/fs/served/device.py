"""A character device that a process of the sandbox's owner serves: read, write, ioctl, poll.

What cannot be done yet is EAGAIN from the server at once. So the kernel never waits for data with a
request, but for what poll says, which the server tells whenever it has changed (Tpollx).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gofer.p9.constants import IO_HEADER_SIZE
from gofer.p9.extensions import Rioctlx, Rpollx, Rwalkx, Tioctlx, Tpollx, Twalkx
from gofer.p9.messages import Rread, Rwrite, Tread, Twrite
from sentry.abi.fcntl import O_ACCMODE, O_NONBLOCK, RWF_NOWAIT
from sentry.abi.poll import EPOLLERR, EPOLLHUP
from sentry.errors import EAGAIN, EBUSY, EIO, EOVERFLOW, Errno
from sentry.fs.gofer.file import CROWDED
from sentry.fs.gofer.requests import MAX_TAGS
from sentry.fs.gofer.session import Asked, expect
from sentry.platform.host_io import host_error
from sentry.vfs.file import READ_EVENTS, WRITE_EVENTS, FileDescription
from sentry.wait.again import Keeping, again, kept
from sentry.wait.fiber import Mode, TimedOut
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import instead, never, until

if TYPE_CHECKING:
    from sentry.fs.gofer.requests import Pending
    from sentry.fs.served.session import ServedSession
    from sentry.vfs.file import Caller, Dest, Result, Source
    from sentry.vfs.location import Location

ATTACHMENT: Final = b"device"
UNKNOWN: Final = 0xFFFFFFFF
EVENTS: Final = 0x3FFF
"""Of poll(2)."""
WRITES, READS = 1, 2
"""_IOC_WRITE, _IOC_READ: the program has data for the device, or gets some. asm-generic/ioctl.h."""
MOST: Final = 1 << 16
"""Bytes of a read or write."""
REST_NS: Final = 10_000_000
"""So long one waits before one believes a server again that contradicts itself."""
MAX_OPEN: Final = MAX_TAGS // 2
"""Open files of a device: each has a request under way that may never have an answer, and others
need tags, too."""


class ServedDevice:
    """One of them: opens it."""

    def __init__(self, session: ServedSession, root: int) -> None:
        self.session = session
        self.opened = 0
        """How many open files there are."""
        self._root = root

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """open(2). Raises: NotNow, what the server says, EBUSY, EIO once it is gone."""
        session, key = self.session, (self, Twalkx)
        asked: Asked | None = kept(key)
        if asked is None:
            self._check_room()
            fid = session.new_fid()
            access = flags & (O_ACCMODE | O_NONBLOCK)
            pending = session.send(Twalkx(self._root, fid, access, 0, []))
            asked = Asked(pending, fid, lambda _: session.clunk(fid))
        session.complete(asked, key, mode=Mode.KILLABLE)
        reply = expect(asked.pending.result(), Rwalkx)
        if reply.error:
            session.free_fid(asked.extra)
            raise host_error(reply.error)
        try:
            self._check_room()  # others have come meanwhile
        except EBUSY:
            session.clunk(asked.extra)
            raise
        return DeviceFile(location, flags, self, asked.extra)

    def _check_room(self) -> None:
        if self.opened >= MAX_OPEN:
            raise EBUSY("too many open files of one device")


class Turn:
    """Of those that wait to read, or to write; a signal ends the wait for it, too."""

    __slots__ = ("_is_taken", "_queue")

    def __init__(self) -> None:
        self._is_taken = False
        self._queue = WaitQueue()

    def _take(self) -> None:
        if self._is_taken:
            raise EAGAIN("somebody else's turn")
        self._is_taken = True

    async def __aenter__(self) -> None:
        await until(self._take, (self._queue,), exclusive=True)

    async def __aexit__(self, *_: object) -> None:
        self._is_taken = False
        self._queue.notify()


class DeviceFile(FileDescription):
    """An open device."""

    __slots__ = ("_device", "_events", "_fid", "_session", "_turns")
    can_poll: ClassVar = True

    def __init__(
        self, location: Location, flags: int, device: ServedDevice, fid: int
    ) -> None:
        super().__init__(location, flags)
        self._device = device
        device.opened += 1
        self._session = device.session
        self._fid = fid
        self._events = 0
        self._turns = {READ_EVENTS: Turn(), WRITE_EVENTS: Turn()}
        self._ask_events(UNKNOWN)

    # --- poll

    def _ask_events(self, known: int) -> None:
        try:
            pending = self._session.send(Tpollx(self._fid, known))
        except EIO:
            self._gone()
            return
        self._session.tell(pending, partial(self._told, pending))

    def _told(self, pending: Pending) -> None:
        """What poll says now; the server is asked again for what it says next."""
        if self._fid < 0:
            return
        try:
            events = expect(pending.result(), Rpollx).events & EVENTS
        except Errno:
            self._gone()
            return
        self._events = events
        self.queue.notify(events)
        self._ask_events(events)

    def _gone(self) -> None:
        self._events = EPOLLERR | EPOLLHUP
        self.queue.notify(self._events)

    def poll(self) -> int:
        return self._events

    # --- data

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        return self._read(dest, bool(self.flags & O_NONBLOCK or rwf & RWF_NOWAIT))

    async def _read(self, dest: Dest, nonblock: bool) -> int:
        with self.held():  # its fid is another file's once it is given back
            request = Tread(self._fid, 0, min(dest.count, self._most))
            reply = await self._tried(request, READ_EVENTS, nonblock)
            return await again(dest.put, expect(reply, Rread).data[: dest.count])

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        return self._write(source, bool(self.flags & O_NONBLOCK or rwf & RWF_NOWAIT))

    async def _write(self, source: Source, nonblock: bool) -> int:
        most = CROWDED if self._session.crowded else self._most
        with self.held():
            data: bytes = await again(source.peek, min(source.count, most))
            reply = await self._tried(Twrite(self._fid, 0, data), WRITE_EVENTS, nonblock)
            return min(expect(reply, Rwrite).count, len(data))

    @property
    def _most(self) -> int:
        return min(MOST, self._session.msize - IO_HEADER_SIZE)

    async def _tried(self, request: Any, events: int, nonblock: bool) -> Any:
        """The reply, as soon as it is another one than EAGAIN. Of many that wait one asks: else
        each change would be paid by all of them, with all that they write."""
        reply = await self._answer(request, nonblock)
        if reply is not None:
            return reply
        async with self._turns[events]:
            while reply is None:
                if self._events & events:  # the server says so, and that there is nothing
                    until_ns = self._session.now_ns() + REST_NS
                    await until(never, (), deadline_ns=until_ns).ended(instead(TimedOut, int))
                await until(partial(self._is_ready, events), (self.queue,), events)
                reply = await self._answer(request, nonblock)
        return reply

    async def _answer(self, request: Any, nonblock: bool) -> Any:
        """None: there is nothing yet, and the caller waits."""
        reply = self._session.reply
        try:
            return await again(reply, request, request, mode=Mode.KILLABLE, slow=True)
        except EAGAIN:
            if nonblock:
                raise
            return None

    def _is_ready(self, events: int) -> None:
        """Raises: EAGAIN."""
        if not self._events & events:
            raise EAGAIN("nothing yet")

    # --- the rest

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """The number says what is read and written where the argument points to."""
        size, direction = request >> 16 & 0x3FFF, request >> 30 & 3
        key = (self, Tioctlx)
        asked: Asked | None = kept(key)
        if asked is None:
            data = caller.mm.read(argument, size) if direction & WRITES and size else b""
            asked = Asked(
                self._session.send(Tioctlx(self._fid, request & UNKNOWN, argument, bytes(data)))
            )
        self._session.complete(asked, key, mode=Mode.KILLABLE, slow=True)
        reply = expect(asked.pending.result(), Rioctlx)
        if reply.result > 0x7FFFFFFF:
            raise EIO("a negative result")
        if reply.data:
            if not direction & READS or len(reply.data) > size:
                raise EOVERFLOW("more than the request's number says")
            with Keeping(key, asked):  # a request that was sent must not be sent again
                caller.mm.write(argument, reply.data)
        return reply.result

    def release(self) -> None:
        fid, self._fid = self._fid, -1
        self._device.opened -= 1
        self._session.clunk(fid)


async def attached(session: ServedSession) -> ServedDevice:
    """The device of a session. Raises: EPROTO, EIO, what the server says."""
    from sentry.fs.gofer import arrival  # noqa: PLC0415

    await arrival.negotiate(session)
    fid = (await arrival.attach(session, ATTACHMENT, ours=False, behind=False)).fid
    return ServedDevice(session, fid)



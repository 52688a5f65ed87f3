"""`Connection`: the requests of a mounted file system, between who asks and who serves.

fs/fuse/dev.c. Nothing here sleeps: a call that has asked raises NotNow and finds the answer when it
is made again. The server is a program, which may never answer: a signal tells it so (INTERRUPT),
and a kill ends the wait. (Linux waits on for one that has read the request.)
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from sentry.abi.fuse import (
    FUSE_ABORT_ERROR,
    FUSE_MIN_READ_BUFFER,
    FUSE_NOTIFY_REPLY,
    FUSE_UNIQUE_RESEND,
    FUSE_WRITE_IN,
)
from sentry.abi.poll import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM
from sentry.auth.userns import NO_ID
from sentry.errors import (
    EAGAIN,
    ECONNABORTED,
    ECONNREFUSED,
    EINTR,
    EINVAL,
    EIO,
    ENODEV,
    ENOENT,
    ENOSYS,
    ENOTCONN,
    EOVERFLOW,
    Errno,
)
from sentry.fs.fuse.outgoing import INTERRUPT_BIT, Message, Outgoing
from sentry.fs.fuse.request import HEADER, NOBODY, Device, Request, State, Who, errno_of
from sentry.platform.constants import PAGE_SIZE
from sentry.wait.again import NotNow, kept
from sentry.wait.fiber import Interrupted, Mode, park, this_fiber
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.auth.userns import UserNamespace

MAX_OUTSTANDING: Final = 1024
"""Requests without an answer: who asks for more waits."""
MAX_BYTES: Final = 32 << 20
"""What requests of a sandbox cost that have no answer: beyond, a connection has one at a time."""
OVERHEAD: Final = 512
"""Bytes that one costs besides its message."""
MAX_CLOSING_BYTES: Final = 128 << 20
"""The same with what closes files, which is asked behind all else: enough for all that may be open.
Beyond, a connection has a few of them, and no more is told to its server."""
FEW: Final = 16
MAX_PAGES: Final = 32
"""FUSE_DEFAULT_MAX_PAGES_PER_REQ: pages of data in one request."""
MAX_DATA: Final = MAX_PAGES * PAGE_SIZE
BATCH_FORGET_MINOR: Final = 16
"""The protocol from which on a message forgets several nodes."""
DEFAULT_BACKGROUND: Final = 12
_IN: Final = EPOLLIN | EPOLLRDNORM
_OUT: Final = EPOLLOUT | EPOLLWRNORM


ForEach = Callable[[Iterable[Any], Callable[[Any], object]], object]
"""What does something to each of many: Loop.call_for_each."""
_LAST: Final = None


class Totals(Protocol):
    """What the connections of a sandbox have together."""

    bytes: int


class Connection:
    """One mounted file system's."""

    def __init__(
        self, number: int, user_ns: UserNamespace | None, pids: Any, totals: Totals,
        for_each: ForEach,
    ) -> None:  # fmt: skip
        self._totals = totals
        self._for_each = for_each
        self.number = number
        """Minor number of the file system, its name below /sys/fs/fuse/connections."""
        self.user_ns = user_ns
        self._pids = pids
        self.alive = True
        self.aborted = False
        """By fusectl or umount -f."""
        self.initialized = False
        self.refused = False
        """The server speaks another protocol."""
        self.minor = 0
        self.flags = 0
        """FUSE_* of INIT that both know."""
        self.lacks: set[Hashable] = set()
        """Operations that were answered with ENOSYS."""
        self.no_interrupt = False
        self.max_write = PAGE_SIZE
        self.max_read = MAX_DATA
        self.max_background = DEFAULT_BACKGROUND
        self.threshold = DEFAULT_BACKGROUND * 3 // 4
        self.queue = WaitQueue()
        """That of all its devices."""
        self.devices = 0
        self.ready = WaitQueue()
        """Who waits for INIT, or for room."""
        self._out = Outgoing(self._read, self._finish)
        self._sent: dict[int, Request] = {}
        self._background: deque[Request] = deque()
        self._active = 0
        self._resends = 0
        """How often the server has asked for what it read, since that has begun."""
        self._key = os.urandom(16)

    @property
    def waiting(self) -> int:
        """Requests that have no answer."""
        return len(self._out.pending) + len(self._sent) + len(self._background)

    @property
    def least_buffer(self) -> int:
        """Bytes that a read of the device must have room for."""
        return max(FUSE_MIN_READ_BUFFER, HEADER + FUSE_WRITE_IN.size + self.max_write)

    # --- asking

    def who(self, task: Any) -> Who:
        """Whose request it is. Raises: EOVERFLOW for a user that the server's namespace lacks."""
        if task is None:
            return NOBODY
        creds, ns = task.creds, self.user_ns
        uid, gid = creds.fsuid, creds.fsgid
        if ns is not None:
            uid, gid = ns.uid_map.from_kernel(uid), ns.gid_map.from_kernel(gid)
            if NO_ID in (uid, gid):
                raise EOVERFLOW("a user that is not mapped there")
        return uid, gid, self._pids.of(task.tid)

    def owner_of(self, holder: object) -> int:
        """A number for who holds locks, which tells nothing else: fuse_lock_owner_id()."""
        return hash(self._key + id(holder).to_bytes(8, "little")) & (1 << 64) - 1

    def shown_pid(self, number: int) -> int:
        """A process as the server knows it."""
        shown: int = self._pids.of(number)
        return shown

    def known_pid(self, shown: int) -> int:
        """A process that the server names."""
        number: int = self._pids.known(shown)
        return number

    def check(self) -> None:
        """A request may be made. Raises: ENOTCONN, ECONNREFUSED; NotNow before INIT."""
        if not self.alive:
            raise ENOTCONN("the server is gone")
        if self._is_busy():
            raise NotNow(self._until_ready)
        if self.refused:
            raise ECONNREFUSED("the server speaks another protocol")

    def _is_busy(self) -> bool:
        if not self.initialized or self.waiting >= MAX_OUTSTANDING:
            return True
        return self.waiting > 0 and self._totals.bytes > MAX_BYTES

    def _check_ready(self) -> None:
        if self.alive and self._is_busy():
            raise EAGAIN("not ready")

    async def _until_ready(self) -> None:
        await until(self._check_ready, [self.ready], mode=Mode.KILLABLE, exclusive=True)

    def wake_all(self) -> None:
        """Who waits to make a request may go on."""
        for _ in range(len(self.ready)):
            self.ready.notify()

    def ask(self, key: Hashable, task: Any, make: Callable[[], Request]) -> Request:
        """The answered request that this call makes once, as its `key`.

        Raises: ENOTCONN, ECONNREFUSED, EOVERFLOW, NotNow.
        """
        request: Request | None = kept(key)
        if request is None:
            self.check()
            who = self.who(task)
            request = make()
            request.who = who
            self.submit(request)
        if request.state is not State.DONE:
            raise self._until_answered(key, request)
        return request

    def _until_answered(self, key: Hashable, request: Request) -> NotNow:
        need = NotNow(partial(self._until_done, request), key, request)
        need.call.hold(request)
        return need

    async def _until_done(self, request: Request) -> None:
        """request_wait_answer(), but that a kill always ends it."""
        fiber = await this_fiber()
        request.wake = fiber.wake
        mode = Mode.KILLABLE if self.no_interrupt else Mode.INTERRUPTIBLE
        try:
            while request.state is not State.DONE:
                try:
                    await park(mode)
                except Interrupted:
                    mode = Mode.KILLABLE
                    self.interrupt(request)
        finally:
            request.wake = None

    def submit(self, request: Request) -> None:
        """Have it read."""
        if not self.alive:
            request.finish(ENOTCONN("the server is gone"))
            return
        self._totals.bytes += request.size + OVERHEAD
        self._line_up(request)

    def _line_up(self, request: Request) -> None:
        request.unique = self._out.take_unique()
        self._out.pending[request] = None
        self.notify(_IN)

    def submit_closing(self, request: Request) -> None:
        """The same for what ends the use of a file, which a process does not wait for when it
        ends: a server that answers nothing does not hear of it, where there is too much."""
        if self._is_flooded:
            request.finish(EIO("too much is not answered"))
        else:
            self.submit(request)

    @property
    def _is_flooded(self) -> bool:
        return self.waiting >= FEW and self._totals.bytes > MAX_CLOSING_BYTES

    def submit_behind(self, request: Request) -> None:
        """The same for one that nobody ever waits for: max_background at a time."""
        if not self.alive or self._is_flooded:
            self.submit_closing(request)
            return
        request.is_background = True
        if self._active >= self.max_background:
            self._totals.bytes += request.size + OVERHEAD
            self._background.append(request)
            return
        self._active += 1
        self.submit(request)

    def submit_notice(self, request: Request, unique: int) -> None:
        """NOTIFY_REPLY: no answer, and the server's number. Raises: EAGAIN for too many."""
        if len(self._out.pending) >= MAX_OUTSTANDING:
            raise EAGAIN("too many are not read")
        if self.alive:
            request.unique = unique
            self._totals.bytes += request.size + OVERHEAD
            self._out.pending[request] = None
            self.notify(_IN)

    def forget(self, nodeid: int, count: int) -> None:
        """Nobody knows so many look-ups of a node any more."""
        if self.alive and count and nodeid:
            self._out.forgets[nodeid] = self._out.forgets.get(nodeid, 0) + count
            self.notify(_IN)

    def interrupt(self, request: Request) -> None:
        """A signal has come for who waits."""
        request.interrupted = True
        if request.state is State.SENT and not self.no_interrupt and self.alive:
            self._out.interrupts[request] = None
            self.notify(_IN)

    def abandon(self, request: Request) -> None:
        """Nobody waits for it any more."""
        if request.state is State.PENDING and request in self._out.pending:
            del self._out.pending[request]
            self._finish(request, EINTR("not read yet"))
        elif request.state is State.SENT:
            self.interrupt(request)

    # --- serving

    def notify(self, events: int) -> None:
        """Tell who reads the devices."""
        self.queue.notify(events)

    def poll(self) -> int:
        """EPOLL* events of a device that serves it."""
        if not self.alive:
            return EPOLLERR
        return _OUT | _IN if self._out else _OUT

    def check_alive(self) -> None:
        """Raises: ENODEV, or ECONNABORTED where the server has asked to be told."""
        if not self.alive:
            raise ECONNABORTED("aborted") if (
                self.aborted and self.flags & FUSE_ABORT_ERROR
            ) else ENODEV("not connected")

    def next_message(self, room: int) -> Message:
        """What is to be read next. Raises: EAGAIN if there is nothing, ENODEV."""
        self.check_alive()
        return self._out.next(room, batches=self.minor >= BATCH_FORGET_MINOR)

    def _read(self, request: Request, device: Device) -> None:
        if request.opcode == FUSE_NOTIFY_REPLY:
            self._finish(request, None)
            return
        request.state = State.SENT
        request.device = device
        device.unanswered += 1
        self._sent[request.unique] = request
        if request.interrupted:
            self.interrupt(request)

    def answer(self, device: Device, unique: int, error: int, data: bytes) -> None:
        """A server has written struct fuse_out_header and what follows: fuse_dev_do_write().

        Raises: EINVAL, ENOENT for an answer to nobody.
        """
        if not -512 < error <= 0:
            raise EINVAL(f"error {error}")
        request = self._sent.get(unique & ~INTERRUPT_BIT)
        if request is None or request.device is not device:
            raise ENOENT(f"no request {unique}")
        if unique & INTERRUPT_BIT:
            self._interrupt_answered(request, error, data)
            return
        del self._sent[unique]
        bad = bool(data) if error else not _fits(request, len(data))
        if bad:
            self._finish(request, EIO("an impossible answer"))
            raise EINVAL(f"{len(data)} bytes")
        self._finish(request, errno_of(-error) if error else None, data)

    def _interrupt_answered(self, request: Request, error: int, data: bytes) -> None:
        if data:
            raise EINVAL("an answer to INTERRUPT has no body")
        if error == -ENOSYS.number:
            self.no_interrupt = True
        elif error == -EAGAIN.number:
            self.interrupt(request)

    def _finish(self, request: Request, error: Errno | None, data: bytes = b"") -> None:
        if request.device is not None:
            request.device.unanswered -= 1
        self._totals.bytes -= request.size + OVERHEAD
        self._out.interrupts.pop(request, None)
        request.finish(error, data)
        self._freed(request)

    def _freed(self, request: Request) -> None:
        if request.is_background:
            self._active -= 1
            if self._background and self.alive:
                self._active += 1
                self._line_up(self._background.popleft())
        if not self.waiting:
            self.wake_all()
        elif len(self.ready):
            self.ready.notify()

    def resend(self) -> None:
        """NOTIFY_RESEND: what was read and not answered is to be read again. Many requests become
        unread in pieces, from the last one on; who asks for it meanwhile has it all done anew."""
        self._resends += 1
        if self._resends == 1:
            self._for_each([*reversed(self._sent.values()), _LAST], self._unread)

    def _unread(self, request: Request | None) -> None:
        if request is None:
            anew, self._resends = self._resends > 1, 0
            if anew:
                self.resend()
            return
        if self._sent.pop(request.unique, None) is None:  # it has its answer
            return
        self._out.interrupts.pop(request, None)
        request.state = State.PENDING
        if request.device is not None:
            request.device.unanswered -= 1
        request.device = None
        request.unique |= FUSE_UNIQUE_RESEND
        self._out.put_back(request)
        self.notify(_IN)

    # --- the end

    def device_closed(self, device: Device) -> None:
        """A device was closed: what was read there is never answered, and the last one ends all."""
        self.devices -= 1
        if not self.devices:
            self.abort()
        elif device.unanswered:
            owed = [request for request in self._sent.values() if request.device is device]
            self._for_each(owed, partial(self._forsake, device))

    def _forsake(self, device: Device, request: Request) -> None:
        if request.device is not device:  # it was resent, and is another one's, or nobody's yet
            return
        if self._sent.pop(request.unique, None) is not None:
            self._finish(request, ECONNABORTED("the server is gone"))

    def abort(self) -> None:
        """fuse_abort_conn(): nobody is answered any more. Many hear of it in pieces."""
        if not self.alive:
            return
        self.alive = False
        lost = [*self._out.pending, *self._sent.values(), *self._background]
        self._out.clear()
        self._sent.clear()
        self._background.clear()
        self._for_each(lost, self._lose)
        self.wake_all()
        self.notify(_IN | EPOLLERR)

    def _lose(self, request: Request) -> None:
        self._totals.bytes -= request.size + OVERHEAD
        request.finish(ECONNABORTED("the connection is aborted"))


def _fits(request: Request, size: int) -> bool:
    if request.is_variable:
        return size <= request.answer_size
    return size == request.answer_size

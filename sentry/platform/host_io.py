"""`HostIO`: host calls that may take long, made by other threads (native/hostio.h).

A disk, a server behind FUSE or NFS, or a terminal that is held may keep a call waiting, and the
kernel thread must not wait. Data passes through a buffer of the request: the program's memory is
touched by the kernel thread alone, so a task that is killed meanwhile leaves nothing behind. A
request has a descriptor of its own, so that the file can be closed meanwhile.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Callable, Hashable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, Final, Protocol

from sentry.errors import EMFILE, ENFILE, ENOMEM, Errno, from_number
from sentry.platform._native import ffi, lib
from sentry.wait.fiber import Mode, park, this_fiber
from sentry.wait.turns import Turn, Turns


class Dest(Protocol):
    """Where bytes go (sentry.mm.buffers)."""

    count: int

    def put(self, data: bytes) -> int: ...


class Source(Protocol):
    """Where bytes come from."""

    count: int

    def get(self, n: int) -> bytes: ...


THREADS: Final = 16
"""So many requests are under way; more wait for their turn, without bytes or a descriptor yet."""
SHARE: Final = 5
"""Of one process, and of what is only closed. Of one device they take half at most (`Turns`): a
server that never answers has only its own files' users wait."""
PIECE: Final = 1 << 20
"""Bytes of a request."""
PATIENCE_NS: Final = 50_000
"""So long the kernel thread waits itself: what the host has in memory comes sooner."""


class Op(IntEnum):
    """enum hostio_op"""

    READ = lib.HOSTIO_READ
    WRITE = lib.HOSTIO_WRITE
    ALLOCATE = lib.HOSTIO_ALLOCATE
    TRUNCATE = lib.HOSTIO_TRUNCATE
    SYNC = lib.HOSTIO_SYNC
    CLOSE = lib.HOSTIO_CLOSE
    IOCTL = lib.HOSTIO_IOCTL


_STAT: Final = struct.Struct("=QQQIIIIQqqqqqqqqq16x8x")


HostStat = tuple[int, int, int, int, int, int, int, int, int, int, int]
"""Of struct stat of the host: mode, nlink, uid, gid, rdev, size, blocks, blksize, and atime, mtime,
ctime in ns."""


class Stat:
    """fstat(2) of one file, again and again: what has not changed costs no objects."""

    __slots__ = ("_known", "_view")

    def __init__(self) -> None:
        self._known = ffi.new("uint8_t[]", _STAT.size)
        self._view = ffi.buffer(self._known)

    def changed(self, fd: int) -> bool:
        """Ask; whether it is not what it was last time. Raises: what the host says."""
        got = lib.hostio_stat(fd, self._known)
        if got < 0:
            raise from_number(-got)
        return bool(got)

    def value(self) -> HostStat:
        """What the last answer was."""
        (
            _, _, nlink, mode, uid, gid, _, rdev, size, blksize, blocks,
            atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns,
        ) = _STAT.unpack(self._view)  # fmt: skip
        return (
            mode, nlink, uid, gid, rdev, size, blocks, blksize,
            atime * 1_000_000_000 + atime_ns,
            mtime * 1_000_000_000 + mtime_ns,
            ctime * 1_000_000_000 + ctime_ns,
        )  # fmt: skip


def pending(fd: int) -> int:
    """Bytes in a queue of the host. Raises: what the host says."""
    got = lib.hostio_pending(fd)
    if got < 0:
        raise from_number(-got)
    return got


def here() -> int:
    """The CPU on which this thread runs."""
    return lib.hostio_cpu()


def has_writer(fd: int) -> bool:
    """Whether a read of a FIFO, opened not to block, would not find its end.

    pipe_read() of Linux looks at data first, then at writers; nothing is taken. Raises: what the
    host says.
    """
    found = lib.hostio_writer(fd)
    if found < 0:
        raise from_number(-found)
    return found != lib.HOSTIO_NOBODY


RECEIVED: Final = 65536
"""Bytes that `receive` gives at most."""
_received: Final = ffi.new("uint8_t[]", RECEIVED)
_received_view: Final = ffi.buffer(_received)
RECEIVED_FDS: Final = int(lib.HOSTIO_FDS)
"""Descriptors, of one message at most."""
_fds: Final = ffi.new("int[]", 1 + RECEIVED_FDS)
INTO: Final = (_received, RECEIVED, _fds)
"""Where it lies, for functions of C."""


def host_error(number: int) -> Errno:
    """What a failed host call that makes a descriptor means for the program.

    EMFILE is about this process, or the Gofer's, and no limit of the program's own: ENFILE.
    """
    return from_number(ENFILE.number if number == EMFILE.number else number)


def send(fd: int, data: bytes | memoryview) -> int:
    """Send to a helper process what it takes now; bytes. Raises: EAGAIN, what the host says."""
    sent = lib.hostio_send(fd, ffi.from_buffer("uint8_t[]", data), len(data))
    if sent < 0:
        raise from_number(-sent)
    return sent


def receive(fd: int, patience_ms: int) -> tuple[bytes, Sequence[int]]:
    """What a stream of a helper process holds, and the descriptors that came with it.

    -1 stands for one or more that did not come because this process has no more room for them
    (MSG_CTRUNC of recvmsg(2)), the last ones of a message. No bytes are its end. Raises: EAGAIN if
    nothing comes in that time, what the host says.
    """
    return received(lib.hostio_receive(fd, patience_ms, _received, RECEIVED, _fds))


def received(got: int) -> tuple[bytes, Sequence[int]]:
    """The same of a call that hostio_receive() answered so."""
    if got < 0:
        raise from_number(-got)
    count = _fds[0]
    return _received_view[:got], list(_fds[1 : 1 + count]) if count else ()


class _Answer:
    """What came of a request, and who wants to hear of it."""

    __slots__ = ("data", "heard", "result", "turn")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.heard: Callable[[], object] | None = None
        self.result: int | None = None
        self.data = b""


class HostThreads:
    """The threads. Made before the filter. `loop` watches for what they have done.

    `owner_of` says, by the name of a fiber, whose share its requests count in.
    """

    def __init__(
        self, loop: Any, owner_of: Callable[[object], Hashable], threads: int = THREADS
    ) -> None:
        self._pool = lib.hostio_open(threads)
        if self._pool == ffi.NULL:
            raise OSError("threads for host I/O cannot be made")
        self._running: dict[int, _Answer] = {}
        self._token = 0
        self._turns = Turns(threads, SHARE)
        self._owner_of = owner_of
        self._loop = loop
        self._fd = lib.hostio_fd(self._pool)
        loop.watch(self._fd, select.EPOLLIN, self._ready)

    def __len__(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests have not begun."""
        return self._turns.waiting

    def again(self, threads: int) -> None:
        """In a forked process, where the threads are not: make these. Preconditions: none had
        anything to do. Raises: OSError."""
        error = lib.hostio_again(self._pool, threads)
        if error:
            raise OSError(-error, "threads for host I/O cannot be made")
        self._turns.resize(threads)

    def close(self) -> None:
        """Nobody waits any more; a thread in a call ends when that does."""
        self._loop.watch(self._fd, 0)
        lib.hostio_close(self._pool)

    def close_fd(self, device: Hashable, fd: int, closed: Callable[[], object]) -> None:
        """Have it closed, with nobody waiting. `closed` hears of its end. Where there is no memory
        to ask for it, it is closed here."""

        def begin() -> None:
            try:
                self._submit(turn, Op.CLOSE, fd).heard = closed
            except ENOMEM:
                self._loop.call_soon(partial(self._turns.end, turn))
                os.close(fd)
                closed()

        turn = self._turns.ask(Op.CLOSE, begin, device)
        if turn.has_come:
            begin()

    def _submit(
        self, turn: Turn, op: Op, fd: int, offset: int = 0, size: int = 0, data: Any = ffi.NULL
    ) -> _Answer:
        self._token += 1
        error = lib.hostio_submit(self._pool, op, fd, offset, size, data, self._token)
        if error:
            raise host_error(-error)
        answer = self._running[self._token] = _Answer(turn)
        return answer

    async def _turn(self, device: Hashable) -> Turn:
        fiber = await this_fiber()
        turn = self._turns.ask(self._owner_of(fiber.name), fiber.wake, device)
        try:
            while not turn.has_come:
                await park(Mode.KILLABLE)
        except BaseException:
            self._turns.end(turn)
            raise
        return turn

    async def call(
        self,
        device: Hashable,
        op: Op,
        fd: int,
        offset: int | None = 0,
        size: int = 0,
        source: Source | None = None,
    ) -> _Answer:
        """Have it done. Raises: what the host says; Killed, and then it goes on by itself."""
        at = -1 if offset is None else offset
        turn = await self._turn(device)
        try:
            if source is None:
                answer = self._submit(turn, op, fd, at, size)
            else:
                data = source.get(size)
                answer = self._submit(turn, op, fd, at, len(data), data)
        except BaseException:
            self._turns.end(turn)
            raise
        lib.hostio_linger(self._pool, PATIENCE_NS)
        self._ready(0)
        while answer.result is None:
            answer.heard = (await this_fiber()).wake
            try:
                await park(Mode.KILLABLE)
            finally:
                answer.heard = None
        if answer.result < 0:
            raise from_number(-answer.result)
        return answer

    def _ready(self, _events: int) -> None:
        """Some have ended."""
        while (done := lib.hostio_take(self._pool)) != ffi.NULL:
            answer = self._running.pop(done.token)
            answer.result = int(done.result)
            if done.op == Op.READ and answer.result > 0:
                answer.data = bytes(ffi.buffer(lib.hostio_buffer(done), answer.result))
            lib.hostio_free(done)
            if answer.heard is not None:
                answer.heard()
            self._turns.end(answer.turn)


class HostIO:
    """Calls on files of one device of the host, whose requests take a part of the threads alone."""

    __slots__ = ("_device", "threads")

    def __init__(self, threads: HostThreads, device: Hashable = None) -> None:
        self.threads = threads
        self._device = device

    def at(self, device: Hashable) -> HostIO:
        """The same on files of another one."""
        return HostIO(self.threads, device)

    async def read(self, fd: int, count: int, offset: int | None) -> bytes:
        """Up to `count` bytes, PIECE at most; none at the end of the file."""
        return (await self.threads.call(self._device, Op.READ, fd, offset, min(count, PIECE))).data

    async def write(self, fd: int, source: Source, limit: int, offset: int | None) -> int:
        """Write up to `limit` bytes, PIECE at most; how many were written.

        They are taken from the source when a thread is free.
        """
        size = min(source.count, limit, PIECE)
        answer = await self.threads.call(self._device, Op.WRITE, fd, offset, size, source)
        return answer.result or 0

    async def fill(self, fd: int, dest: Dest, offset: int) -> int:
        """Read as much as there is room for; how much that was, less at the end of the file."""
        done = 0
        while dest.count:
            asked = min(dest.count, PIECE)
            try:
                data = await self.read(fd, asked, offset + done)
                done += dest.put(data)
            except Errno:
                if not done:
                    raise
                break
            if len(data) < asked:
                break
        return done

    async def drain(self, fd: int, source: Source, offset: int) -> int:
        """Write all there is; how much of it the host took."""
        done = 0
        while source.count:
            left = source.count
            try:
                written = await self.write(fd, source, PIECE, offset + done)
            except Errno:
                if not done:
                    raise
                break
            done += written
            if written < left - source.count:
                break
        return done

    async def allocate(self, fd: int, offset: int, length: int) -> None:
        """fallocate(2), mode 0."""
        await self.threads.call(self._device, Op.ALLOCATE, fd, offset, length)

    async def truncate(self, fd: int, size: int) -> None:
        """ftruncate(2)."""
        await self.threads.call(self._device, Op.TRUNCATE, fd, 0, size)

    async def ioctl(self, fd: int, request: int, source: Source) -> None:
        """ioctl(2) with what it reads of `source`, all that is there."""
        await self.threads.call(self._device, Op.IOCTL, fd, request, source.count, source)

    async def sync(self, fd: int) -> None:
        """fdatasync(2)."""
        await self.threads.call(self._device, Op.SYNC, fd)

    def close_fd(self, fd: int, closed: Callable[[], object]) -> None:
        """close(2), which writes back where a server has the file. `closed` hears of its end."""
        self.threads.close_fd(self._device, fd, closed)

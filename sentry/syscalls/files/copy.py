"""Bytes from one descriptor to another: sendfile, splice, tee, vmsplice, copy_file_range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import (
    FS_IMMUTABLE_FL,
    O_APPEND,
    O_NONBLOCK,
    SPLICE_F_GIFT,
    SPLICE_F_MORE,
    SPLICE_F_MOVE,
    SPLICE_F_NONBLOCK,
)
from sentry.abi.resource import RLIMIT_FSIZE
from sentry.abi.signal import SIGPIPE, SIGXFSZ
from sentry.errors import (
    EAGAIN,
    EBADF,
    EFBIG,
    EINVAL,
    EOVERFLOW,
    EPERM,
    EPIPE,
    ESPIPE,
    EXDEV,
    Errno,
)
from sentry.fs.pipe.buffer import READABLE, WRITABLE, Pipe
from sentry.fs.pipe.file import PipeFile
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.mm.manager import MAX_RW_COUNT
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.args import UserIn, UserOut
from sentry.syscalls.files.io import signed, take_iov
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Size, UInt
from sentry.vfs.file import Dest, FileDescription, Result, Source, check_ends
from sentry.wait.again import again
from sentry.wait.eager import eager
from sentry.wait.fiber import Interrupted, Mode, park
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.kernel.task import Task

SPLICE_ALL = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT
PIECE = 1 << 18
STEP_NS = 500_000
"""How long bytes are copied before others have their turn."""
MAX_OFFSET = (1 << 63) - 1
U64 = (1 << 64) - 1


class End:
    """One side of a copy: a file with an offset of its own, or at its position."""

    def __init__(
        self, task: Task, file: FileDescription, offset_addr: int, raw: bytes = b""
    ) -> None:
        self.task = task
        self.file = file
        self.addr = offset_addr
        self.offset: int | None = None
        self.moved = False
        """The last read moved the file's position; devices have none."""
        if offset_addr:  # `raw`: what stood there, if somebody has read it
            self.offset = signed(int.from_bytes(raw or task.mm.read(offset_addr, 8), "little"))

    @property
    def at(self) -> int:
        """Where it is."""
        return self.file.position if self.offset is None else self.offset

    def check(self, count: int) -> None:
        """rw_verify_area(). Raises: EINVAL for a negative offset or end."""
        start = self.at
        if start < 0 or start + count > MAX_OFFSET:
            raise EINVAL("a negative offset")

    async def read(self, count: int) -> bytes:
        """Up to `count` bytes, b"" at the end."""
        dest = KernelDest(count)
        if self.offset is None:
            before = self.file.position
            await again(self.file.read, self.task, dest)
            self.moved = self.file.position != before
        else:
            self.offset += await again(self.file.read_at, self.task, dest, self.offset)
        return dest.data

    def skip(self, count: int) -> None:
        """Go on past bytes, or back by those that could not be written."""
        if self.offset is None:
            if self.moved:
                self.file.position += count
        else:
            self.offset += count

    def go_on(self, count: int) -> None:
        """So many bytes were copied by somebody else."""
        if self.offset is None:
            self.file.position += count
        else:
            self.offset += count

    async def write(self, data: bytes) -> int:
        """Write bytes; how many."""
        source = KernelSource(data)
        if self.offset is None:
            return await again(self.file.write, self.task, source)
        n = await again(self.file.write_at, self.task, source, self.offset)
        self.offset += n
        return n

    async def finish(self) -> None:
        """Tell the caller where the offset is now: what was copied is not to be copied again."""
        if self.addr and self.offset is not None:
            await again(self.task.mm.write, self.addr, self.offset.to_bytes(8, "little"))


def onto_itself(source: End, target: End, data: bytes, wanted: int) -> bytes:
    """What was read up to the end of a file, and is to be written there, as often as it is wanted.

    The next reads would give the same again, a few bytes at a time.
    """
    if target.file.inode is not source.file.inode or source.at != target.at:
        return data
    more = data * (wanted // len(data) + 1)
    source.skip(wanted - len(data))
    return more[:wanted]


async def pump(source: End, target: End, count: int) -> int:
    """Copy until `count`, the end, or an error; what was copied before an error counts.

    Others run in between, and a kill ends it.
    """
    done = 0
    now_ns = source.task.kernel.loop.now_ns
    until_ns = now_ns() + STEP_NS
    with source.file.held(), target.file.held():
        try:
            while done < count:
                if now_ns() >= until_ns:
                    await park(Mode.KILLABLE, 0)
                    until_ns = now_ns() + STEP_NS
                wanted = min(count - done, PIECE)
                data = await source.read(wanted)
                if not data:
                    break
                if len(data) < wanted:
                    data = onto_itself(source, target, data, wanted)
                wrote = 0
                try:
                    wrote = await target.write(data)
                finally:
                    source.skip(wrote - len(data))
                done += wrote
                if wrote < len(data):
                    break
        except (Errno, Interrupted):
            if not done:
                raise
    return done


# --- sendfile


@syscall(40, counts="rw")
async def sys_sendfile(task: Task, out_fd: UInt, in_fd: UInt, offset: Addr, count: Size) -> int:
    """sendfile(2): the offset is written back, whatever comes of it."""
    raw = task.mm.read(offset, 8) if offset else b""
    try:
        return await sendfile(task, (out_fd, in_fd), (offset, raw), count)
    except Errno:
        if offset:
            task.mm.write(offset, raw)
        raise


async def sendfile(
    task: Task, fds: tuple[int, int], start: tuple[int, bytes], count: int
) -> int:
    """do_sendfile(); `start`: where the offset lies (or 0), and what was read there."""
    out_fd, in_fd = fds
    offset, raw = start
    source = task.files.readable(in_fd)
    if offset and not source.seekable:
        raise ESPIPE("no positions")
    from_end = End(task, source, offset, raw)
    from_end.check(count)
    target = task.files.writable(out_fd)
    if target.flags & O_APPEND and not isinstance(target, PipeFile):
        raise EINVAL("O_APPEND")
    if not source.seekable and not source.seeks_nowhere and not isinstance(target, PipeFile):
        raise EINVAL("not a file that can be sent")
    if not count:
        return 0
    if isinstance(source, PipeFile):
        raise EINVAL("not a file that can be sent")
    if not (source.splice_read and target.splice_write):
        raise EINVAL("cannot be spliced")
    if not source.seekable and not isinstance(target, PipeFile):
        raise EINVAL("not a file that can be sent")
    to_end = End(task, target, 0)
    to_end.check(min(count, MAX_RW_COUNT))
    alone = source is target and not offset and source.seekable
    if alone:  # one position, of which both sides have a copy
        from_end.offset = to_end.offset = source.position
    done = await pump(from_end, to_end, min(count, MAX_RW_COUNT))
    await from_end.finish()
    if alone:
        source.position = from_end.at
    return done


# --- pipes


async def wait_pipe(pipe: Pipe, attempt: Any, events: int, nonblock: bool) -> Any:
    """`attempt`, which raises EAGAIN, until it succeeds; at once if non-blocking."""
    return attempt() if nonblock else await until(attempt, (pipe.queue,), events)


def filled(pipe: Pipe) -> bool:
    """Whether there is something to read; False at the end. Raises: EAGAIN."""
    if pipe.size:
        return True
    if not pipe.writers:
        return False
    raise EAGAIN("empty")


def writable_room(task: Task, pipe: Pipe) -> int:
    """How much fits: only whole pages. Raises: EAGAIN, EPIPE with SIGPIPE."""
    if not pipe.readers:
        task.send_signal(SIGPIPE)
        raise EPIPE("nobody reads")
    room = pipe.room // PAGE_SIZE * PAGE_SIZE
    if room <= 0:
        raise EAGAIN("full")
    return room


async def pipe_to_pipe(
    task: Task, source: PipeFile, target: PipeFile, count: int, nonblock: bool
) -> int:
    """splice between pipes: what is there and fits."""
    done = 0
    while not done:
        if not await wait_pipe(source.pipe, lambda: filled(source.pipe), READABLE, nonblock):
            return 0
        room = await wait_pipe(
            target.pipe, lambda: writable_room(task, target.pipe), WRITABLE, nonblock
        )
        parts = source.pipe.peek(min(count, room))  # none: another reader was faster
        done = target.pipe.push_parts(parts)
    source.pipe.take(done)
    return done


async def pipe_to_file(
    task: Task, source: PipeFile, target: End, count: int, nonblock: bool
) -> int:
    """splice from a pipe: until the pipe is empty after something was moved."""
    if not await wait_pipe(source.pipe, lambda: filled(source.pipe), READABLE, nonblock):
        return 0
    done = 0
    while done < count:
        taken = source.pipe.take(min(count - done, PIECE))
        if not taken:
            break
        data = b"".join(part for part, _ in taken)
        wrote = 0
        with source.pipe.reserved(len(data)):
            try:
                wrote = await target.write(data)
            except (Errno, Interrupted):
                if not done:
                    raise
            finally:
                source.pipe.put_back(taken, len(data) - wrote)
        done += wrote
        if wrote < len(data):
            break
    return done


async def file_to_pipe(
    task: Task, source: End, target: PipeFile, count: int, nonblock: bool
) -> int:
    """splice to a pipe: as much as fits."""
    room = await wait_pipe(
        target.pipe, lambda: writable_room(task, target.pipe), WRITABLE, nonblock
    )
    wanted = min(count, room, PIECE)
    with target.pipe.reserved(wanted):
        data = await source.read(wanted)
        if data:
            target.pipe.push(data)
    return len(data)


@syscall(275)
async def sys_splice(
    task: Task,
    in_fd: UInt,
    in_offset: Addr,
    out_fd: UInt,
    out_offset: Addr,
    count: Size,
    flags: UInt,
) -> int:
    """splice(2): one side must be a pipe."""
    if not count:
        return 0
    if flags & ~SPLICE_ALL:
        raise EINVAL(f"flags {flags:#x}")
    source, target = task.files.get(in_fd), task.files.get(out_fd)
    if isinstance(source, PipeFile) and in_offset:
        raise ESPIPE("a pipe with an offset")
    if isinstance(target, PipeFile) and out_offset:
        raise ESPIPE("a pipe with an offset")
    out_end = End(task, target, out_offset)
    in_end = End(task, source, in_offset)
    if not source.readable or not target.writable:
        raise EBADF("not open that way")
    nonblock = bool(flags & SPLICE_F_NONBLOCK)
    with source.held(), target.held():
        done = await _splice(task, (in_end, out_end), count, nonblock)
    await in_end.finish()
    await out_end.finish()
    return done


async def _splice(task: Task, ends: tuple[End, End], count: int, nonblock: bool) -> int:
    source, target = ends[0].file, ends[1].file
    pipes = [file for file in (source, target) if isinstance(file, PipeFile)]
    nonblock = nonblock or any(file.flags & O_NONBLOCK for file in pipes)
    if isinstance(source, PipeFile) and isinstance(target, PipeFile):
        if source.pipe is target.pipe:
            raise EINVAL("the same pipe")
        return await pipe_to_pipe(task, source, target, count, nonblock)
    if isinstance(source, PipeFile):
        if ends[1].addr and not target.seekable:
            raise EINVAL("no positions")
        if target.flags & O_APPEND:
            raise EINVAL("O_APPEND")
        ends[1].check(count)
        if not target.splice_write:
            raise EINVAL("cannot be spliced")
        return await pipe_to_file(task, source, ends[1], min(count, MAX_RW_COUNT), nonblock)
    if isinstance(target, PipeFile):
        if ends[0].addr and not source.seekable:
            raise EINVAL("no positions")
        ends[0].check(count)
        if not source.splice_read:
            raise EINVAL("cannot be spliced")
        return await file_to_pipe(task, ends[0], target, count, nonblock)
    raise EINVAL("no pipe")


@syscall(276)
async def sys_tee(task: Task, in_fd: UInt, out_fd: UInt, count: Size, flags: UInt) -> int:
    """tee(2)."""
    if flags & ~SPLICE_ALL:
        raise EINVAL(f"flags {flags:#x}")
    if not count:
        return 0
    source, target = task.files.get(in_fd), task.files.get(out_fd)
    if not source.readable or not target.writable:
        raise EBADF("not open that way")
    if not isinstance(source, PipeFile) or not isinstance(target, PipeFile):
        raise EINVAL("not pipes")
    if source.pipe is target.pipe:
        raise EINVAL("the same pipe")
    from_pipe, to_pipe = source.pipe, target.pipe
    nonblock = bool(flags & SPLICE_F_NONBLOCK or (source.flags | target.flags) & O_NONBLOCK)
    with source.held(), target.held():
        if not await wait_pipe(from_pipe, lambda: filled(from_pipe), READABLE, nonblock):
            return 0
        room = await wait_pipe(to_pipe, lambda: writable_room(task, to_pipe), WRITABLE, nonblock)
    return to_pipe.push_parts(from_pipe.peek(min(count, room)))


@syscall(278)
def sys_vmsplice(task: Task, fd: UInt, vector: Addr, count: Size, flags: UInt) -> Result:
    """vmsplice(2): pages are copied, not lent."""
    if flags & ~SPLICE_ALL:
        raise EINVAL(f"flags {flags:#x}")
    file = task.files.get(fd)
    if not file.writable and not file.readable:
        raise EBADF("not open")
    if not any(length for _, length in task.mm.read_iov(vector, count)):
        return 0
    if not isinstance(file, PipeFile):
        raise EBADF("not a pipe")
    nonblock = bool(flags & SPLICE_F_NONBLOCK)
    if file.writable:
        return eager(from_memory(task, file, take_iov(UserIn(task, vector), count), nonblock))
    return eager(to_memory(file, take_iov(UserOut(task, vector), count), nonblock))


async def from_memory(task: Task, file: PipeFile, source: Source, nonblock: bool) -> int:
    """vmsplice_to_pipe(): waits for room, then gives as much as fits. O_NONBLOCK does not count."""
    pipe = file.pipe
    with file.held():
        room = await wait_pipe(pipe, lambda: writable_room(task, pipe), WRITABLE, nonblock)
    data = source.get(min(source.count, room))
    pipe.push(data)
    return len(data)


async def to_memory(file: PipeFile, dest: Dest, nonblock: bool) -> int:
    """vmsplice_to_user(): what is there."""
    with file.held():
        if not await wait_pipe(file.pipe, lambda: filled(file.pipe), READABLE, nonblock):
            return 0
    return file.receive(dest)


# --- copy_file_range


@syscall(326, counts="rw")
async def sys_copy_file_range(
    task: Task,
    in_fd: UInt,
    in_offset: Addr,
    out_fd: UInt,
    out_offset: Addr,
    count: Size,
    flags: UInt,
) -> int:
    """copy_file_range(2): generic_copy_file_checks()."""
    source, target = task.files.get(in_fd), task.files.get(out_fd)
    in_end, out_end = End(task, source, in_offset), End(task, target, out_offset)
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    check_ends(source, target)
    if target.inode.file_flags & FS_IMMUTABLE_FL:
        raise EPERM("immutable")
    if source.inode.fs is not target.inode.fs:
        raise EXDEV("another file system")
    start, goal = in_end.at, out_end.at
    for first in (start, goal):
        if (first & U64) + count > U64:
            raise EOVERFLOW("the range wraps")
    if start < 0 or goal < 0:
        raise EINVAL("a negative offset")
    with source.held(), target.held():
        return await copy_between(task, (in_end, out_end), count)


async def copy_between(task: Task, ends: tuple[End, End], count: int) -> int:
    """What is there, and as much as may be. Preconditions: both are held."""
    in_end, out_end = ends
    source, target, start, goal = in_end.file, out_end.file, in_end.at, out_end.at
    size = (await again(source.stat)).size
    limit = task.rlimit(RLIMIT_FSIZE)
    if goal >= limit:
        task.send_signal(SIGXFSZ)
        raise EFBIG(f"RLIMIT_FSIZE is {limit}")
    count = min(count, max(0, size - start), limit - goal, MAX_OFFSET - goal)
    if source.inode is target.inode and start < goal + count and goal < start + count:
        raise EINVAL("the ranges overlap")
    count = min(count, MAX_RW_COUNT)
    copied = await again(source.copy_range, start, target, goal, count) if count else 0
    if copied is None:
        copied = await pump(in_end, out_end, count)
    else:
        in_end.go_on(copied)
        out_end.go_on(copied)
    await in_end.finish()
    await out_end.finish()
    return copied


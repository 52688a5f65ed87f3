"""Asynchronous I/O: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from sentry.abi.aio import (
    IO_EVENT,
    IOCB,
    IOCB_CMD_FDSYNC,
    IOCB_CMD_FSYNC,
    IOCB_CMD_POLL,
    IOCB_CMD_PREAD,
    IOCB_CMD_PREADV,
    IOCB_CMD_PWRITE,
    IOCB_CMD_PWRITEV,
    IOCB_FLAG_IOPRIO,
    IOCB_FLAG_RESFD,
    Iocb,
)
from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_NICE
from sentry.abi.ioprio import (
    IOPRIO_CLASS_IDLE,
    IOPRIO_CLASS_NONE,
    IOPRIO_CLASS_RT,
    IOPRIO_CLASS_SHIFT,
    IOPRIO_LEVEL_MASK,
)
from sentry.abi.time import TIMESPEC
from sentry.clock import MAX_NS
from sentry.errors import EAGAIN, EBADF, EFAULT, EINPROGRESS, EINTR, EINVAL, EPERM, Errno
from sentry.fs.eventfd import EventFile
from sentry.kernel.aio import Context, Request, aio_of
from sentry.kernel.clocks import NS
from sentry.kernel.task import Task
from sentry.kernel.task_signals import masked
from sentry.mm.errors import NeedsFault
from sentry.mm.layout import TASK_END
from sentry.syscalls.files.io import check_area, check_rwf
from sentry.syscalls.registry import absent, syscall
from sentry.syscalls.signals.signal import read_mask
from sentry.syscalls.types import Addr, Long, UInt
from sentry.vfs.file import FileDescription, Result
from sentry.wait.again import Keeping, again, kept
from sentry.wait.fiber import (
    Interrupted,
    Mode,
    RestartBlock,
    RestartNoHand,
    RestartNoIntr,
    TimedOut,
    park,
    this_fiber,
)
from sentry.wait.sleep import ended, instead, no_hand, until

READS: Final = (IOCB_CMD_PREAD, IOCB_CMD_PREADV)
WRITES: Final = (IOCB_CMD_PWRITE, IOCB_CMD_PWRITEV)
VECTORED: Final = (IOCB_CMD_PREADV, IOCB_CMD_PWRITEV)
AT_ONCE: Final = 16
"""Requests that one io_submit(2) carries out before others have their turn."""
KEY: Final = 8
"""Where aio_key is in struct iocb."""
"""Classes of ioprio_set(2)."""
_u64 = struct.Struct("<Q")
_u32 = struct.Struct("<I")


@syscall(206)
def sys_io_setup(task: Task, count: UInt, result: Addr) -> None:
    """io_setup(2)."""
    table = aio_of(task)
    address: int | None = kept((table, "setup"))
    if address is None:
        (old,) = _u64.unpack(task.mm.read(result, 8))
        if old or not count:
            raise EINVAL("the context is not 0, or no events")
        address = table.setup(task, count)
    with Keeping((table, "setup"), address):
        try:
            task.mm.write(result, _u64.pack(address))
        except EFAULT:
            table.destroy(task, address)
            raise


@syscall(207)
def sys_io_destroy(task: Task, context: Addr) -> None:
    """io_destroy(2)."""
    aio_of(task).destroy(task, context)


# Submitting --------------------------------------------------------------------------------------


@syscall(209)
async def sys_io_submit(task: Task, context: Addr, count: Long, iocbs: Addr) -> int:
    """io_submit(2): how many were submitted; an error only if the first one is bad."""
    if count < 0:
        raise EINVAL("negative")
    found = aio_of(task).find(task, context)
    for done in range(min(count, found.nr)):
        try:
            if not await _submit(task, found, iocbs + 8 * done):
                return done + 1
        except Errno:
            if done:
                return done
            raise
        if done % AT_ONCE == AT_ONCE - 1:
            fiber = await this_fiber()
            task.kernel.loop.call_soon(fiber.wake)
            await park(Mode.KILLABLE)
    return min(count, found.nr)


async def _faulted(attempt: Callable[[], Any]) -> Any:
    """What was submitted before must not be done again for want of a page: fetch it here."""
    while True:
        try:
            return attempt()
        except NeedsFault as need:
            await need.wait()


async def _submit(task: Task, context: Context, place: int) -> bool:
    """io_submit_one(). False: a signal came, so no more of them now."""
    mm = task.mm
    (address,) = _u64.unpack(await _faulted(lambda: mm.read(place, 8)))
    iocb = IOCB.unpack(await _faulted(lambda: mm.read(address, IOCB.size)))
    if iocb.aio_reserved2 or iocb.aio_nbytes >> 63:
        raise EINVAL("iocb")
    if context.dead:
        raise EINVAL("the context is gone")
    with ExitStack() as held:  # others may close them, and submit, before it is done
        held.enter_context(context.place())
        file = task.files.get(iocb.aio_fildes)
        held.enter_context(file.held())
        eventfd = None
        if iocb.aio_flags & IOCB_FLAG_RESFD:
            told = task.files.get(iocb.aio_resfd)
            if not isinstance(told, EventFile):
                raise EINVAL("no eventfd")
            eventfd = told
            held.enter_context(eventfd.held())
        return await _begin(task, Request(context, address, iocb.aio_data, eventfd), iocb, file)


async def _begin(task: Task, request: Request, iocb: Iocb, file: FileDescription) -> bool:
    """The same, with what it needs held."""
    mm, address = task.mm, request.address
    await _faulted(lambda: mm.write(address + KEY, bytes(4)))
    if iocb.aio_lio_opcode == IOCB_CMD_POLL:
        if iocb.aio_buf >> 16 or iocb.aio_offset or iocb.aio_nbytes or iocb.aio_rw_flags:
            raise EINVAL("IOCB_CMD_POLL")
        request.poll(file, iocb.aio_buf)
        return True
    operation = await _faulted(lambda: _prepare(task, iocb, file))
    return await _carry_out(request, operation)


async def _carry_out(request: Request, operation: Callable[[], Any]) -> bool:
    """Do it, and put what came of it into the ring."""
    going_on = True
    while True:
        try:
            result = await again(operation) or 0
        except NeedsFault as need:
            await need.wait()
            continue
        except Errno as error:
            result = -error.number
        except (Interrupted, RestartNoHand, RestartNoIntr, RestartBlock):
            result, going_on = -EINTR.number, False
        request.context.complete(request, result)
        return going_on


def _prepare(task: Task, iocb: Iocb, file: FileDescription) -> Callable[[], Any]:
    """The checks of aio_read(), aio_write() and aio_fsync(), and what is to be done then."""
    code = iocb.aio_lio_opcode
    if code in (IOCB_CMD_FSYNC, IOCB_CMD_FDSYNC):
        if iocb.aio_buf or iocb.aio_offset or iocb.aio_nbytes or iocb.aio_rw_flags:
            raise EINVAL("IOCB_CMD_FSYNC")
        if type(file).sync is FileDescription.sync:
            raise EINVAL("cannot be synced")
        return lambda: file.sync(code == IOCB_CMD_FDSYNC)
    if code not in READS + WRITES:
        raise EINVAL(f"operation {code}")
    if iocb.aio_flags & IOCB_FLAG_IOPRIO:
        _check_priority(task, iocb.aio_reqprio & 0xFFFF)
    writes = code in WRITES
    rwf = check_rwf(iocb.aio_rw_flags & 0xFFFFFFFF, file, True)
    if not (file.writable if writes else file.readable):
        raise EBADF("access mode")
    if not (file.write_flags if writes else file.read_flags):
        raise EINVAL("no write_iter or read_iter")
    if not _has(file, "write" if writes else "read"):
        raise EINVAL("cannot be read or written so")
    pieces = _pieces(task, iocb, code in VECTORED)
    check_area(iocb.aio_offset, min(sum(n for _, n in pieces), 0x7FFFF000))
    return lambda: _transfer(task, iocb, file, rwf)


def _has(file: FileDescription, what: str) -> bool:
    """Whether its kind has a read or write of its own (read_iter, write_iter)."""
    kind, base = type(file), FileDescription
    return not file.inode.is_dir and (
        getattr(kind, what) is not getattr(base, what)
        or getattr(kind, f"{what}_at") is not getattr(base, f"{what}_at")
    )


def _pieces(task: Task, iocb: Iocb, vectored: bool) -> list[tuple[int, int]]:
    """aio_setup_rw(). Raises: EFAULT, EINVAL."""
    if vectored:
        segments: list[tuple[int, int]] = task.mm.read_iov(iocb.aio_buf, iocb.aio_nbytes)
        return segments
    if iocb.aio_buf > TASK_END or iocb.aio_nbytes > TASK_END - iocb.aio_buf:
        raise EFAULT(f"{iocb.aio_buf:#x}")
    return [(iocb.aio_buf, iocb.aio_nbytes)]


def _transfer(task: Task, iocb: Iocb, file: FileDescription, rwf: int) -> Any:
    """The read or write itself. Raises: EFAULT and what the file raises."""
    mm, addr, count = task.mm, iocb.aio_buf, iocb.aio_nbytes
    if iocb.aio_lio_opcode in READS:
        vectored = iocb.aio_lio_opcode == IOCB_CMD_PREADV
        dest = mm.buffer_out_iov(addr, count) if vectored else mm.buffer_out(addr, count)
        if not file.seekable:
            return file.read(task, dest, rwf)
        return file.read_at(task, dest, iocb.aio_offset, rwf)
    vectored = iocb.aio_lio_opcode == IOCB_CMD_PWRITEV
    source = mm.buffer_in_iov(addr, count) if vectored else mm.buffer_in(addr, count)
    if not file.seekable:
        return file.write(task, source, rwf)
    return file.write_at(task, source, iocb.aio_offset, rwf)


def _check_priority(task: Task, value: int) -> None:
    """ioprio_check_cap(). Raises: EINVAL, EPERM."""
    kind, level = value >> IOPRIO_CLASS_SHIFT, value & IOPRIO_LEVEL_MASK
    privileged = task.creds.has(CAP_SYS_ADMIN) or task.creds.has(CAP_SYS_NICE)
    if kind == IOPRIO_CLASS_RT and not privileged:
        raise EPERM("IOPRIO_CLASS_RT")
    if kind > IOPRIO_CLASS_IDLE or (kind == IOPRIO_CLASS_NONE and level):
        raise EINVAL(f"priority {value:#x}")


@syscall(210)
def sys_io_cancel(task: Task, context: Addr, iocb: Addr, result: Addr) -> None:
    """io_cancel(2): what is cancelled makes an event; the call says EINPROGRESS."""
    (key,) = _u32.unpack(task.mm.read(iocb + KEY, 4))
    if key:
        raise EINVAL("key")
    if not aio_of(task).find(task, context).cancel(iocb):
        raise EINVAL("nothing to cancel")
    raise EINPROGRESS("the event comes")


# Events ------------------------------------------------------------------------------------------


@syscall(208)
def sys_io_getevents(
    task: Task, context: Addr, least: Long, most: Long, events: Addr, timeout: Addr
) -> Result:
    """io_getevents(2)."""
    deadline_ns = _deadline(task, timeout)
    call = partial(_get_events, task, context, (least, most), events, deadline_ns)
    result: Result = ended(call, instead(Interrupted, EINTR))
    return result


@syscall(333)
def sys_io_pgetevents(
    task: Task, context: Addr, least: Long, most: Long, events: Addr, timeout: Addr, mask: Addr
) -> Result:
    """io_pgetevents(2): `mask` points to struct __aio_sigset."""
    deadline_ns = _deadline(task, timeout)
    signals = size = 0
    if mask:
        signals, size = struct.unpack("<QQ", task.mm.read(mask, 16))
    blocked = read_mask(task, signals, size) if signals else None
    call = partial(_get_events, task, context, (least, most), events, deadline_ns)
    result: Result = masked(task, blocked, lambda: ended(call, no_hand))
    return result


def _deadline(task: Task, timeout: int) -> int | None:
    """On the loop's clock; None: for ever. Raises: EFAULT."""
    if not timeout:
        return None
    sec, nsec = TIMESPEC.unpack(task.mm.read(timeout, TIMESPEC.size))
    return min(task.kernel.clock.now_ns() + max(sec * NS + nsec, 0), MAX_NS)


def _get_events(
    task: Task, address: int, counts: tuple[int, int], events: int, deadline_ns: int | None
) -> Result:
    """do_io_getevents(), read_events(). Raises: EINVAL, EFAULT, Interrupted."""
    context = aio_of(task).find(task, address)
    least, most = counts
    if not 0 <= least <= most:
        raise EINVAL("counts")
    # Pages that have to be fetched first must not cost events.
    task.mm.accessible(events, min(most, context.nr) * IO_EVENT.size, True)
    done: int = kept((context, "told")) or 0

    def attempt() -> int:
        nonlocal done
        if context.dead and not done:
            raise EINVAL("the context is gone")
        while done < most and (data := context.take(most - done)):
            try:
                with Keeping((context, "told"), done):
                    task.mm.write(events + done * IO_EVENT.size, data)
            except EFAULT:
                if not done:
                    raise
                return done
            count = len(data) // IO_EVENT.size
            context.taken(count)
            done += count
        if done < least and not context.dead:
            raise EAGAIN("not enough events")
        return done

    try:
        return attempt()
    except EAGAIN:
        sleep = until(attempt, (context.queue,), deadline_ns=deadline_ns).tried()
        sleep.timed_by_programs()
    return sleep.ended(instead(TimedOut, lambda: done)).ended(
        instead(Interrupted, lambda: done or Interrupted())
    )


absent(425, "no I/O rings: ENOSYS makes programs fall back")  # io_uring_setup
absent(426, "no I/O rings: ENOSYS makes programs fall back")  # io_uring_enter
absent(427, "no I/O rings: ENOSYS makes programs fall back")  # io_uring_register

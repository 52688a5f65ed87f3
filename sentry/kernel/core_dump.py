"""Core dumps: a process that dies of certain signals leaves its memory in a file, core(5).

The other threads die first and leave their registers in `CoreDump`; then the thread that took the
signal writes the file and ends, too. Only files, no pipes or sockets: those would need a process.
fs/coredump.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from sentry.abi.fcntl import AT_FDCWD, O_CREAT, O_NOFOLLOW, O_RDWR
from sentry.abi.resource import RLIMIT_CORE
from sentry.errors import EACCES, EAGAIN, EFAULT, Errno
from sentry.kernel import core_file, task_exit
from sentry.kernel.thread_group import condemn
from sentry.mm.buffers import KernelSource
from sentry.mm.errors import NeedsFault
from sentry.mm.forced import peek
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.attributes import truncate_inode
from sentry.vfs.open import OpenHow, open_used
from sentry.vfs.paths import short_path
from sentry.wait.again import again
from sentry.wait.fiber import Interrupted, Killed, Mode
from sentry.wait.sleep import until
from sentry.wait.steps import Pace, driven

if TYPE_CHECKING:
    from sentry.kernel.signals import SigInfo
    from sentry.kernel.task import Task

CHUNK: Final = 1 << 20
CORE_FLAG: Final = 0x80
"""In wait(2)'s status."""
MAX_THREADS: Final = 4096
"""Threads whose registers are kept."""
BY_ROOT: Final = 2
"""SUID_DUMP_ROOT: only root gets the file, and an absolute path says where."""
MAX_PATH: Final = 128
"""CORENAME_MAX_SIZE of the pattern."""


class CoreDump:
    """A dump in the making: `ThreadGroup.core_dump`."""

    __slots__ = ("info", "notes", "task")

    def __init__(self, task: Task, info: SigInfo) -> None:
        self.task = task
        self.info = info
        self.notes: list[bytes] = []

    def thread_ends(self, task: Task) -> None:
        """Keep the registers of another thread that dies now."""
        if task is self.task or len(self.notes) >= MAX_THREADS:
            return
        self.notes.append(core_file.thread_status(task, self.info) + core_file.thread_fpu(task))

    def end(self) -> None:
        """SIGKILL: no more is written, nor is a file system waited for. dump_interrupted()."""
        if self.task.fiber is not None and not self.task.dead:
            self.task.fiber.interrupt(Killed(), Mode.KILLABLE)


def start(task: Task, info: SigInfo) -> bool:
    """`task` dies of a signal that dumps core. False: there is to be none; do_coredump()."""
    group = task.group
    pattern = _setting(task, "kernel/core_pattern", "core").encode("utf-8", "surrogateescape")
    if (
        group.exiting
        or not group.dumpable
        or group.limits.soft(RLIMIT_CORE) < PAGE_SIZE
        or not pattern
        or pattern[:1] in (b"|", b"@")
        or group.execing is not None
    ):
        return False
    name = file_name(task, info, pattern)
    if group.dumpable == BY_ROOT and name[:1] != b"/":
        return False
    group.exiting = True
    group.exit_status = info.signo
    group.stopping = 0
    group.execing = task
    dump = group.core_dump = CoreDump(task, info)
    others = [other for other in group.tasks if other is not task]
    task.kernel.loop.call_for_each(others, condemn)

    def done(_: Any, error: BaseException | None) -> None:
        task.fiber = None
        group.execing = None
        if error is None:
            group.exit_status |= CORE_FLAG
        elif not isinstance(error, (Errno, Killed, Interrupted)):
            task.kernel.log.bug(f"core dump of {task!r}", error)
        task_exit.exit_task(task)

    task.fiber = task.kernel.loop.spawn(_dump(task, dump, name), "core dump", done)
    return True


def _setting(task: Task, name: str, default: str) -> str:
    return str(task.kernel.services.sysctls.get(name, default))


def file_name(task: Task, info: SigInfo, pattern: bytes) -> bytes:
    """format_corename(): the template of /proc/sys/kernel/core_pattern filled in."""
    group, creds = task.group, task.creds
    exe = short_path(group.exe, task.fs.root) if group.exe is not None else b""
    values: dict[int, bytes] = {
        ord("%"): b"%",
        ord("p"): b"%d" % task.own_pid, ord("P"): b"%d" % group.tgid,
        ord("i"): b"%d" % task.own_tid, ord("I"): b"%d" % task.tid,
        ord("u"): b"%d" % creds.uid, ord("g"): b"%d" % creds.gid,
        ord("d"): b"%d" % group.dumpable, ord("s"): b"%d" % info.signo,
        ord("t"): b"%d" % (task.kernel.clock.wall_ns() // 10**9),
        ord("h"): one_name(task.ns.uts.nodename), ord("e"): one_name(task.comm),
        ord("f"): one_name(exe.rpartition(b"/")[2]), ord("E"): one_name(exe),
        ord("c"): b"%d" % group.limits.soft(RLIMIT_CORE),
    }  # fmt: skip
    result, at, has_pid = b"", 0, False
    pattern = pattern[: MAX_PATH - 1]
    while at < len(pattern):
        if pattern[at] != ord("%"):
            result += pattern[at : at + 1]
            at += 1
            continue
        letter = pattern[at + 1] if at + 1 < len(pattern) else 0
        has_pid = has_pid or letter in b"pP"
        result += values.get(letter, b"")
        at += 2
    if not has_pid and _setting(task, "kernel/core_uses_pid", "0") != "0":
        result += b".%d" % group.tgid
    return result


def one_name(text: bytes) -> bytes:
    """What a program says leads to no other directory: cn_esc_printf()."""
    if text in (b".", b".."):
        text = b"!" + text[1:]
    return text.replace(b"/", b"!") or b"!"


async def _dump(task: Task, dump: CoreDump, name: bytes) -> None:
    group = task.group

    def alone() -> None:
        if len(group.tasks) > 1:
            raise EAGAIN

    await until(alone, [group.child_queue], mode=Mode.UNINTERRUPTIBLE)
    if group.dumpable == BY_ROOT:
        _become_root(task)
    how = OpenHow.old(O_CREAT | O_RDWR | O_NOFOLLOW, 0o600)
    file = await again(open_used, task, AT_FDCWD, name, how)
    try:
        inode = file.inode
        stat = await again(inode.stat)
        if not inode.is_regular or stat.nlink != 1 or inode.uid != task.creds.fsuid:
            raise EACCES("no file to dump core into")
        if inode.mode & 0o677 != 0o600:
            raise EACCES("others could read it")
        await again(truncate_inode, task, file.location, 0)
        await _write(task, dump, file)
    finally:
        file.decref()


def _become_root(task: Task) -> None:
    """The file is root's, and below the root of the first process. Raises: EACCES."""
    init = task.group.container.init
    if init is None or not init.tasks:
        raise EACCES("the container is ending")
    task.creds = replace(task.creds, fsuid=0)
    task.fs = task.fs.copy()
    task.fs.chroot(init.tasks[0].fs.root)


async def _write(task: Task, dump: CoreDump, file: Any) -> None:
    """Headers, then what of the memory was ever touched; the rest are holes."""
    while True:
        try:
            about = await driven(core_file.process_notes(task, dump.info))
            notes = (
                core_file.thread_status(task, dump.info)
                + about
                + core_file.thread_fpu(task)
                + b"".join(dump.notes)
            )
            chosen = task.group.coredump_filter
            head, pieces = await driven(core_file.headers(task, notes, chosen))
        except NeedsFault as need:
            await need.wait()
        else:
            break
    limit = task.group.limits.soft(RLIMIT_CORE)
    end = await _store(task, file, 0, head, limit)
    pace = Pace()
    for offset, addr, size in pieces:
        at, end_at = addr, addr + size
        while (at := task.mm.space.next(at, end_at)) < end_at:
            stop = min(at + CHUNK, end_at)
            present = task.mm.space.resident(at, (stop - at) // PAGE_SIZE)
            for first, count in core_file.runs(present):
                start = at + first * PAGE_SIZE
                data = await _read(task, start, count * PAGE_SIZE)
                await _store(task, file, offset + start - addr, data, limit)
                await pace.rest()
            at = stop
            await pace.rest()
        end = offset + size
    await again(truncate_inode, task, file.location, min(end, limit))


async def _read(task: Task, addr: int, size: int) -> bytes:
    while True:
        try:
            return peek(task.mm, addr, size)
        except NeedsFault as need:
            await need.wait()
        except EFAULT:
            return bytes(size)


async def _store(task: Task, file: Any, offset: int, data: bytes, limit: int) -> int:
    """Write as much as RLIMIT_CORE leaves; gives the end."""
    data = data[: max(0, limit - offset)]
    while data:
        done = await again(file.write_at, task, KernelSource(data), offset)
        if not done:
            break
        offset += done
        data = data[done:]
    return offset

"""The machine and its names: uname(2), sysinfo(2), sethostname(2), syslog(2), getrandom(2)."""

from __future__ import annotations

import os
import time
from typing import Annotated

from sentry.abi import random
from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYSLOG
from sentry.abi.limits import HOST_NAME_MAX
from sentry.abi.personality import PER_LINUX32, PER_MASK, UNAME26
from sentry.abi.random import GRND_INSECURE, GRND_NONBLOCK, GRND_RANDOM
from sentry.abi.resource import SYSINFO, UTSNAME
from sentry.abi.time import CLOCK_BOOTTIME
from sentry.errors import EAGAIN, EFAULT, EINVAL, EPERM
from sentry.fs.pseudo.memory import memory_of
from sentry.kernel.kernel import Kernel
from sentry.kernel.system_log import SystemLog
from sentry.kernel.task import Task
from sentry.kernel.time_namespace import offset_ns
from sentry.mm.manager import MAX_RW_COUNT
from sentry.syscalls.args import StructOut, flags, show_flags, struct_out
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Int, Size, UserIn, UserOut
from sentry.vfs.file import Result
from sentry.wait.fiber import park, this_fiber
from sentry.wait.sleep import Sleep, until

UtsnameOut = Annotated[StructOut, struct_out(UTSNAME)]
SysinfoOut = Annotated[StructOut, struct_out(SYSINFO)]
RandomFlags = Annotated[
    int,
    flags(
        GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE,
        show_flags({n: v for n, v in vars(random).items() if n.startswith("GRND_")}),
    ),
]

CHUNK = 1 << 20
"""Random bytes made in one go."""


@syscall(63)
def sys_uname(task: Task, name: UtsnameOut) -> None:
    """uname(2): with personality(2)'s PER_LINUX32 (the machine) and UNAME26 (the release)."""
    uts, personality = task.ns.uts, task.group.personality
    release, machine = uts.release, uts.machine
    if personality & UNAME26:
        release = b"2.6.%d" % (int(release.split(b".")[1]) + 60)
    if personality & PER_MASK == PER_LINUX32:
        machine = b"i686"
    name.put(uts.sysname, uts.nodename, release, uts.version, machine, uts.domainname)


def read_name(task: Task, name: UserIn, length: int) -> bytes:
    """What sethostname and setdomainname check and copy."""
    if not task.creds.has_in(task.ns.uts.owner, CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    if not 0 <= length <= HOST_NAME_MAX:
        raise EINVAL(f"{length} bytes")
    return name.get(length).split(b"\0", 1)[0]


@syscall(170)
def sys_sethostname(task: Task, name: UserIn, length: Int) -> None:
    """sethostname(2)."""
    task.ns.uts.set_name("nodename", read_name(task, name, length))


@syscall(171)
def sys_setdomainname(task: Task, name: UserIn, length: Int) -> None:
    """setdomainname(2)."""
    task.ns.uts.set_name("domainname", read_name(task, name, length))


@syscall(99)
def sys_sysinfo(task: Task, info: SysinfoOut) -> None:
    """sysinfo(2): loads are 0, as /proc/loadavg says; sizes in bytes; a second begun counts."""
    kernel = task.kernel
    memory = memory_of(kernel, task.group.container)
    uptime = task.kernel.clock.shown_ns(time.CLOCK_BOOTTIME) + offset_ns(task, CLOCK_BOOTTIME)
    info.put(
        -(-uptime // 10**9), bytes(24), memory.total, memory.free, memory.shared, 0, 0, 0,
        min(len(kernel.pids.tasks), 0xFFFF), 0, 0, 0, 1, b"",
    )  # fmt: skip


@syscall(318)
def sys_getrandom(task: Task, buf: UserOut, count: Size, flags: RandomFlags) -> Result:
    """getrandom(2): the pool is the host's, and ready from the start."""
    if flags & GRND_RANDOM and flags & GRND_INSECURE:
        raise EINVAL("GRND_RANDOM with GRND_INSECURE")
    count = min(count, MAX_RW_COUNT)
    if count <= CHUNK:
        return put(buf, count)
    return fill(task, buf, count)


def put(buf: UserOut, count: int) -> int:
    """One chunk. EFAULT."""
    buf.put(os.urandom(count))
    return count


async def fill(task: Task, buf: UserOut, count: int) -> int:
    """A large request, with others in between; a signal ends it early."""
    fiber = await this_fiber()
    done = 0
    while done < count:
        part = min(CHUNK, count - done)
        try:
            done += task.mm.buffer_out(buf.addr + done, part).put(os.urandom(part))
        except EFAULT:
            if not done:
                raise
            break
        if done % CHUNK or task.work:
            break
        task.kernel.loop.call_soon(fiber.wake)
        await park()
    return done


def kernel_log(kernel: Kernel) -> SystemLog:
    """The log of this sandbox, made when first read."""
    uts, services = kernel.uts, kernel.services
    if services.system_log is None:
        services.system_log = SystemLog(
            b"<5>[    0.000000] %s version %s (%s)\n" % (uts.sysname, uts.release, uts.version)
        )
    return services.system_log


@syscall(103, partial="the log holds one line; console levels are accepted and ignored")
def sys_syslog(task: Task, action: Int, buf: UserOut, length: Int) -> Result:
    """syslog(2), SYSLOG_ACTION_*: everything but READ_ALL and SIZE_BUFFER needs CAP_SYSLOG."""
    if action not in (3, 10) and not (
        task.creds.has(CAP_SYSLOG) or task.creds.has(CAP_SYS_ADMIN)
    ):
        raise EPERM("CAP_SYSLOG")
    if not 0 <= action <= 10:
        raise EINVAL(f"action {action}")
    log = kernel_log(task.kernel)
    if action in (2, 3, 4):
        if not buf or length < 0:
            raise EINVAL("buffer")
        if length == 0:
            return 0
    if action == 2:
        return read_log(log, buf, length)
    if action in (3, 4):
        part = log.text[-length:]
        buf.put(part)
        if action == 4:
            log.text = b""
        return len(part)
    if action == 5:
        log.text = b""
    if action == 8 and not 1 <= length <= 8:
        raise EINVAL(f"level {length}")
    if action == 9:
        return len(log.unread)
    return log.SIZE if action == 10 else 0


def read_log(log: SystemLog, buf: UserOut, length: int) -> Sleep:
    """SYSLOG_ACTION_READ: sleep until there is something that nobody has read."""

    def attempt() -> int:
        if not log.unread:
            raise EAGAIN("no messages")
        part = log.unread[:length]
        buf.put(part)
        log.unread = log.unread[len(part) :]
        return len(part)

    return until(attempt, (log.queue,))

"""Processes: creation, execution, end, waiting."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated, Any, Final

from sentry.abi import sched as sched_abi
from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_NONBLOCK
from sentry.abi.limits import INT_MAX
from sentry.abi.resource import RUSAGE
from sentry.abi.sched import (
    CLONE_ARGS,
    CLONE_ARGS_SIZE_VER0,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_INTO_CGROUP,
    CLONE_NEWTIME,
    CLONE_PARENT,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    CSIGNAL,
)
from sentry.abi.signal import SIGCHLD
from sentry.abi.wait import P_ALL, P_PGID, P_PID, P_PIDFD, WCONTINUED, WEXITED, WNOHANG, WSTOPPED
from sentry.errors import E2BIG, EAGAIN, EINVAL, ENOENT, ESRCH, Errno
from sentry.kernel import task_exit, waiting
from sentry.kernel.signals import NSIG, SigInfo
from sentry.kernel.task import GONE, Task
from sentry.kernel.task_clone import CloneArgs, check_user, clone
from sentry.kernel.thread_group import Usage
from sentry.loader.execve import execve
from sentry.loader.stack import MAX_ARG_STRLEN
from sentry.platform.constants import PAGE_SIZE, TASK_SIZE
from sentry.syscalls.args import StructOut, show_flags, struct_out, unsigned
from sentry.syscalls.memory.stores import sent_at_the_end
from sentry.syscalls.processes.pidfd import target_of
from sentry.syscalls.registry import absent, syscall
from sentry.syscalls.types import Addr, DirFd, Int, Path, Pid, Size
from sentry.syscalls.types import UserIn as UserInArg
from sentry.syscalls.types import UserOut as UserOutArg
from sentry.vfs.exec import close_exec, open_exec
from sentry.vfs.file import Result
from sentry.wait.again import Keeping, again, kept
from sentry.wait.fiber import Mode
from sentry.wait.sleep import continued, ended
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.abi.sched import CloneArgs as ClonedArgs
    from sentry.kernel.thread_group import ThreadGroup

CloneFlags = Annotated[
    int,
    unsigned(64, show_flags({n: v for n, v in vars(sched_abi).items() if n.startswith("CLONE_")})),
]
RusageOut = Annotated[StructOut, struct_out(RUSAGE)]
WaitOptions = Annotated[int, unsigned(32)]

MAX_PID_NS_LEVEL = 32
REPORT: Final = "report"
"""Key of a child's change of state that could not be written yet."""
SIGINFO_PART = 28
"""Bytes of siginfo_t that waitid(2) fills."""


@syscall(57)
async def sys_fork(task: Task) -> int:
    """fork(2)."""
    return await clone(task, CloneArgs(0, SIGCHLD))


@syscall(58)
async def sys_vfork(task: Task) -> int:
    """vfork(2)."""
    return await clone(task, CloneArgs(CLONE_VFORK | CLONE_VM, SIGCHLD))


@syscall(56)
async def sys_clone(
    task: Task, flags: CloneFlags, stack: Addr, parent_tid: Addr, child_tid: Addr, tls: Addr
) -> int:
    """clone(2): the low byte of `flags` is the exit signal; a pidfd goes to `parent_tid`."""
    rest = flags & ~CSIGNAL & 0xFFFFFFFF
    args = CloneArgs(rest, flags & CSIGNAL, stack, tls, parent_tid, child_tid, pidfd=parent_tid)
    return await clone(task, args)


@syscall(435)
async def sys_clone3(task: Task, args: UserInArg, size: Size) -> int:
    """clone3(2)."""
    if size > PAGE_SIZE:
        raise E2BIG("struct clone_args")
    if size < CLONE_ARGS_SIZE_VER0:
        raise EINVAL("struct clone_args")
    data = args.get(size)
    if any(data[CLONE_ARGS.size :]):
        raise E2BIG("unknown fields are set")
    a = CLONE_ARGS.unpack(data.ljust(CLONE_ARGS.size, b"\0"))
    wanted = check_clone3(task, a, size)
    top = a.stack + a.stack_size
    return await clone(
        task,
        CloneArgs(
            a.flags, a.exit_signal, top, a.tls, a.parent_tid, a.child_tid, a.pidfd, wanted, a.cgroup
        ),
    )


def check_clone3(task: Task, a: ClonedArgs, size: int) -> tuple[int, ...]:
    """copy_clone_args_from_user(), clone3_args_valid(): gives set_tid. EINVAL, EFAULT."""
    if a.set_tid_size > MAX_PID_NS_LEVEL or bool(a.set_tid) != bool(a.set_tid_size):
        raise EINVAL("set_tid")
    if a.exit_signal > NSIG:
        raise EINVAL("exit_signal")
    if a.flags & CLONE_INTO_CGROUP and (a.cgroup > INT_MAX or size < CLONE_ARGS.size):
        raise EINVAL("cgroup")
    wanted: tuple[int, ...] = ()
    if a.set_tid_size:
        count = a.set_tid_size
        wanted = struct.unpack(f"<{count}i", task.mm.read(a.set_tid, count * 4))
    known = 0xFFFFFFFF | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP
    if a.flags & ~known or a.flags & (CLONE_DETACHED | CSIGNAL & ~CLONE_NEWTIME):
        raise EINVAL("flags")
    if a.flags & (CLONE_THREAD | CLONE_PARENT) and a.exit_signal:
        raise EINVAL("exit_signal of a thread")
    if bool(a.stack) != bool(a.stack_size) or a.stack + a.stack_size > TASK_SIZE:
        raise EINVAL("stack")
    return wanted


def read_strings(task: Task, addr: int) -> Steps[list[bytes]]:
    """A null-terminated array of strings (argv, envp). E2BIG, EFAULT; a null array is empty."""
    result: list[bytes] = []
    if not addr:
        return result
    total = 0
    while True:
        # whole words up to the end of the page: the array may end anywhere
        words = (PAGE_SIZE - (addr & (PAGE_SIZE - 1))) // 8 or 1
        for (pointer,) in struct.iter_unpack("<Q", task.mm.read(addr, words * 8)):
            if not pointer:
                return result
            text = task.mm.read_cstr(pointer, MAX_ARG_STRLEN, E2BIG)
            total += len(text) + 9
            if total > 6 << 20:
                raise E2BIG("arguments")
            result.append(text)
        addr += words * 8
        yield


@syscall(59)
async def sys_execve(task: Task, path: Path, argv: Addr, envp: Addr) -> object:
    """execve(2)."""
    return await execveat(task, AT_FDCWD, path, argv, envp, 0)


@syscall(322)
async def sys_execveat(
    task: Task, dirfd: DirFd, path: Path, argv: Addr, envp: Addr, flags: Int
) -> object:
    """execveat(2): an empty name is found out before bad flags are."""
    if not path and not flags & AT_EMPTY_PATH:
        raise ENOENT("no name")
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise EINVAL("flags")
    return await execveat(task, dirfd, path, argv, envp, flags)


async def execveat(task: Task, dirfd: int, path: bytes, argv: int, envp: int, flags: int) -> object:
    """Open the program, read its arguments, become it."""
    check_user(task)
    file = await again(open_exec, task, dirfd, path, flags)
    try:
        shown, unreachable = path, False
        if dirfd != AT_FDCWD and not path.startswith(b"/"):
            shown = b"/dev/fd/%d" % dirfd + (b"/" + path if path else b"")
            unreachable = task.files.close_on_exec_of(dirfd)
        args = await driven(read_strings(task, argv), Mode.KILLABLE)
        env = await driven(read_strings(task, envp), Mode.KILLABLE)
        if task.judge is not None:
            await task.judge.runs(file, args or [b""])
        return await execve(task, file, shown, args or [b""], env, unreachable=unreachable)
    finally:
        close_exec(file)


@syscall(60)
def sys_exit(task: Task, status: Int) -> object:
    """_exit(2) of one thread."""
    group = task.group
    if task.mm.users == 1:
        sent_at_the_end(task)
    if not group.exiting and (task is group.leader or len(group.tasks) == 1):
        group.exit_status = (status & 0xFF) << 8
    task.exit_code = (status & 0xFF) << 8
    task_exit.exit_task(task)
    return GONE


@syscall(231)
def sys_exit_group(task: Task, status: Int) -> object:
    """exit_group(2)."""
    if task.mm.users <= len(task.group.tasks):
        sent_at_the_end(task)
    task.group.exit((status & 0xFF) << 8)
    task_exit.exit_task(task)
    return GONE


@syscall(61)
def sys_wait4(
    task: Task, pid: Pid, status: UserOutArg, options: WaitOptions, usage: RusageOut
) -> Result:
    """wait4(2)."""
    if options & ~waiting.WAIT4_OPTIONS:
        raise EINVAL("options")
    if pid == -(1 << 31):
        raise ESRCH("pid")

    def tell(report: waiting.Report | None) -> int:
        if report is None:
            return 0
        with Keeping(REPORT, report):
            if status:
                task.mm.write(status.addr, struct.pack("<I", report.status))
            if usage:
                task.mm.write(usage.addr, pack_usage(report.usage))
        return report.pid

    report = kept(REPORT) or waiting.wait(
        task, matcher(task, pid), options | WEXITED, finder(task, pid)
    )
    result: Result = continued(report, tell)
    return result


def matcher(task: Task, pid: int) -> Callable[[Any], bool]:
    """Which children a wait4 pid means."""
    if pid > 0:
        known = task.pids.known(pid)
        return lambda child: child.tgid == known
    if pid == -1:
        return lambda child: True
    return in_group(task, -pid)


def in_group(task: Task, pgid: int) -> Callable[[Any], bool]:
    """Which children are in a process group; 0: the caller's."""
    own = task.group.process_group.pgid
    wanted = own if pgid == 0 else task.pids.known(pgid) or -1
    return lambda child: child.process_group.pgid == wanted


def finder(task: Task, pid: int) -> Callable[[], ThreadGroup | None] | None:
    """Who a wait4 pid means, if it is one process."""
    if pid <= 0:
        return None
    known, groups = task.pids.known(pid), task.kernel.pids.groups
    return lambda: groups.get(known)


def pack_usage(usage: Usage) -> bytes:
    """struct rusage; what Linux does not keep is 0."""
    return RUSAGE.pack(
        usage.user_ns // 10**9, usage.user_ns % 10**9 // 1000,
        usage.sys_ns // 10**9, usage.sys_ns % 10**9 // 1000,
        usage.maxrss, 0, 0, 0, usage.minflt, usage.majflt, 0,
        usage.inblock, usage.oublock, 0, 0, 0, usage.nvcsw, usage.nivcsw,
    )  # fmt: skip


@syscall(247)
def sys_waitid(
    task: Task, kind: Int, pid: Pid, info: UserOutArg, options: WaitOptions, usage: RusageOut
) -> Result:
    """waitid(2): the raw call also fills struct rusage. A failure too fills the siginfo."""

    def end(finish: Callable[[], waiting.Report | None]) -> int:
        report = None
        data = bytes(SIGINFO_PART)
        try:
            report = finish()
            if report is not None:
                if usage:
                    with Keeping(REPORT, report):
                        task.mm.write(usage.addr, pack_usage(report.usage))
                uid = task.creds.shown_uid(report.uid)
                found = SigInfo.waitid(report.code, report.pid, uid, report.value)
                data = found.pack()[:SIGINFO_PART]
        except Errno:
            if info:
                with Keeping(REPORT, report):
                    task.mm.write(info.addr, data)
            raise
        if info:
            with Keeping(REPORT, report):
                task.mm.write(info.addr, data)
        return 0

    result: Result = ended(lambda: kept(REPORT) or wait_id(task, kind, pid, options), end)
    return result


def wait_id(task: Task, kind: int, pid: int, options: int) -> Any:
    """kernel_waitid(): as `waiting.wait`. Raises: EINVAL, EBADF, ECHILD, EAGAIN."""
    if options & ~waiting.WAITID_OPTIONS or not options & (WEXITED | WSTOPPED | WCONTINUED):
        raise EINVAL("options")
    impatient, find = False, None
    if kind == P_ALL:
        matches = matcher(task, -1)
    elif kind == P_PID:
        if pid <= 0:
            raise EINVAL("pid")
        matches, find = matcher(task, pid), finder(task, pid)
    elif kind == P_PGID:
        if pid < 0:
            raise EINVAL("pgid")
        matches = in_group(task, pid)
    elif kind == P_PIDFD:
        if pid < 0:
            raise EINVAL("pidfd")
        group, thread, file = target_of(task, pid)
        wanted = group if thread is None or thread is group.leader else None
        matches, find = lambda child: child is wanted, lambda: wanted
        impatient = bool(file.flags & O_NONBLOCK) and not options & WNOHANG
    else:
        raise EINVAL("idtype")
    report = waiting.wait(task, matches, options | (WNOHANG if impatient else 0), find)
    if report is None and impatient:
        raise EAGAIN("no change of state yet")
    return report


@syscall(39)
def sys_getpid(task: Task) -> int:
    """getpid(2): when the entry code does not answer it itself."""
    return task.own_pid


@syscall(186)
def sys_gettid(task: Task) -> int:
    """gettid(2)."""
    return task.own_tid


@syscall(110)
def sys_getppid(task: Task) -> int:
    """getppid(2): 0 for the sandbox's first process."""
    parent = task.group.parent
    return task.pids.of(parent.tgid) if parent is not None else 0


@syscall(218)
def sys_set_tid_address(task: Task, addr: Addr) -> int:
    """set_tid_address(2)."""
    task.clear_child_tid = addr
    return task.own_tid


absent(334, "the mailbox hides a thread's migration: the C library does without")  # rseq

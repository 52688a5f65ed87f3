"""clone(2), fork(2), vfork(2): a new task out of an old one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sentry.abi.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from sentry.abi.ptrace import PTRACE_EVENT_VFORK_DONE
from sentry.abi.resource import RLIMIT_NOFILE, RLIMIT_NPROC
from sentry.abi.sched import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_INTO_CGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_UNTRACED,
    CLONE_VFORK,
    CLONE_VM,
    SCHED_DEADLINE,
)
from sentry.errors import (
    EAGAIN,
    EBADF,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    EOPNOTSUPP,
    EPERM,
    Errno,
)
from sentry.fs.pidfd import PidFile
from sentry.kernel import altstack, namespaces, sched, signal_send, sysv_ipc, timers
from sentry.kernel.dispatch import Thread
from sentry.kernel.identity import child_identity
from sentry.kernel.inherit import inherit
from sentry.kernel.signals import SignalActions
from sentry.kernel.task import Task
from sentry.kernel.thread_group import ThreadGroup
from sentry.kernel.time_namespace import join_for_children
from sentry.kernel.work import WORK_EXIT, WORK_PAUSE, WORK_STOP
from sentry.mm.errors import NeedsFault
from sentry.platform.constants import TASK_SIZE
from sentry.platform.interface import Reg
from sentry.platform.memory import Exhausted
from sentry.suppress import suppress
from sentry.wait.fiber import Killed, Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.kernel.cgroup import Cgroup
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.limits import Limits
    from sentry.kernel.namespaces import CopiedMounts, NewNamespaces
    from sentry.kernel.pids import PidNamespace
    from sentry.mm.manager import MemoryManager
    from sentry.vfs.fd_table import FdTable

    Separated = tuple[NewNamespaces, CopiedMounts | None]


PF_NPROC_EXCEEDED: Final = 16
"""In Task.process_flags, beside those of prctl(2)."""


class CloneArgs(Struct, frozen=True):
    """What clone3(2) takes; clone, fork and vfork fill it in."""

    flags: int
    exit_signal: int = 0
    stack: int = 0
    """The new stack pointer (the top, also for clone3), 0: the same as the parent's."""
    tls: int = 0
    parent_tid: int = 0
    child_tid: int = 0
    pidfd: int = 0
    set_tid: tuple[int, ...] = ()
    cgroup: int = -1
    """CLONE_INTO_CGROUP: a descriptor of a cgroup directory."""


def check(task: Task, args: CloneArgs) -> None:
    """The combinations that Linux refuses (kernel/fork.c: copy_process)."""
    flags = args.flags
    bad = (
        (flags & CLONE_NEWNS and flags & CLONE_FS)
        or (flags & CLONE_NEWUSER and flags & CLONE_FS)
        or (flags & CLONE_THREAD and not flags & CLONE_SIGHAND)
        or (flags & CLONE_SIGHAND and not flags & CLONE_VM)
        or (
            flags & CLONE_THREAD
            and (
                flags & (CLONE_NEWUSER | CLONE_NEWPID)
                or task.ns.pids_for_children is not task.pids
            )
        )
        or (flags & CLONE_CLEAR_SIGHAND and flags & CLONE_SIGHAND)
        or (flags & CLONE_PARENT and task.group is task.pids.init)
        or (flags & CLONE_PIDFD and flags & CLONE_DETACHED)
        or (
            flags & CLONE_PIDFD
            and flags & CLONE_PARENT_SETTID
            and args.pidfd == args.parent_tid
        )
    )
    if bad:
        raise EINVAL(f"clone flags {flags:#x}")
    if sched.of(task).policy == SCHED_DEADLINE and not sched.of(task).reset_on_fork:
        raise EAGAIN("SCHED_DEADLINE is not inherited")
    if flags & CLONE_NEWIPC and flags & CLONE_SYSVSEM:
        raise EINVAL("semaphores are shared in one namespace only")
    if args.tls >= TASK_SIZE and flags & CLONE_SETTLS:
        raise EPERM("tls")


def check_limit(task: Task) -> None:
    """RLIMIT_NPROC counts the tasks of a real user; root and the capable are exempt."""
    limit = task.rlimit(RLIMIT_NPROC)
    creds = task.creds
    if creds.uid == 0 or limit >= 1 << 32:
        return
    if creds.has(CAP_SYS_ADMIN) or creds.has(CAP_SYS_RESOURCE):
        return
    if has_tasks(task, creds.uid, limit):
        raise EAGAIN("RLIMIT_NPROC")


def has_tasks(task: Task, uid: int, count: int) -> bool:
    """A real user has so many, or more."""
    tasks = task.kernel.pids.tasks
    if len(tasks) < count:  # all of them are not so many: they need not be looked at
        return False
    return sum(1 for t in tasks.values() if t.creds.uid == uid) >= count


def exceeds_limit(task: Task, uid: int) -> bool:
    """A real user other than root has more than RLIMIT_NPROC: is_rlimit_overlimit()."""
    return bool(uid) and has_tasks(task, uid, task.rlimit(RLIMIT_NPROC) + 1)


def note_user(task: Task, uid: int) -> None:
    """set*uid(2) does not fail for RLIMIT_NPROC, but execve(2) will: flag_nproc_exceeded()."""
    flag = PF_NPROC_EXCEEDED if exceeds_limit(task, uid) else 0
    task.process_flags = task.process_flags & ~PF_NPROC_EXCEEDED | flag


def check_user(task: Task) -> None:
    """Of execve(2): the limit may hold again. Raises: EAGAIN."""
    if task.process_flags & PF_NPROC_EXCEEDED:
        if exceeds_limit(task, task.creds.uid):
            raise EAGAIN("RLIMIT_NPROC")
        task.process_flags &= ~PF_NPROC_EXCEEDED


def check_numbers(
    creds: Credentials, pids: PidNamespace, wanted: tuple[int, ...], pid_max: int
) -> None:
    """clone3(2) set_tid: the child's ids, innermost first: alloc_pid(). EINVAL, EPERM, EEXIST."""
    if len(wanted) > pids.level + 1:
        raise EINVAL(f"set_tid {wanted}")
    at: PidNamespace | None = pids
    for number in wanted:
        assert at is not None
        if not 1 <= number < pid_max or (number != 1 and at.init is None):
            raise EINVAL(f"set_tid {wanted}")
        caps = (CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE)
        if not any(creds.has_in(at.owner, cap) for cap in caps):
            raise EPERM("CAP_CHECKPOINT_RESTORE")
        if at.is_taken(number):
            raise EEXIST(f"pid {number}")
        at = at.parent


def check_descriptor(task: Task, args: CloneArgs) -> None:
    """There is a number for a pidfd, and room for its file: others take some while this one sleeps.

    Raises: EMFILE, ENFILE.
    """
    if args.flags & CLONE_PIDFD:
        task.files.free_from(0, task.rlimit(RLIMIT_NOFILE))
        task.kernel.vfs.budget.check_files()


def touch(task: Task, args: CloneArgs) -> None:
    """Have the words in memory that clone stores to: nothing may fail half-way for want of a page.

    Raises: EFAULT, EMFILE and ENFILE where a pidfd has no place; NeedsFault.
    """
    check_descriptor(task, args)
    if args.flags & CLONE_PIDFD:
        task.mm.check_out(args.pidfd, 4)
    for flag, addr in (
        (CLONE_PARENT_SETTID, args.parent_tid),
        (CLONE_CHILD_SETTID, args.child_tid),
    ):
        if args.flags & flag:
            with suppress(EFAULT):  # as Linux: these two stores are not checked
                task.mm.check_out(addr, 4)


async def tell_numbers(task: Task, args: CloneArgs, child: Task, number: int) -> None:
    """Store the child's number where it is asked for. Raises: Killed."""
    if args.flags & CLONE_PIDFD:
        pidfd = PidFile(task.kernel.vfs, child.group, False, thread_of(args, child))
        descriptor = task.files.install(pidfd, task.rlimit(RLIMIT_NOFILE), cloexec=True)
        await store(child, task.mm, args.pidfd, descriptor)
    if args.flags & CLONE_PARENT_SETTID:
        await store(child, task.mm, args.parent_tid, number)
    if args.flags & CLONE_CHILD_SETTID:
        await store(child, child.mm, args.child_tid, child.own_tid)


async def store(child: Task, mm: MemoryManager, addr: int, number: int) -> None:
    """put_user() whose failure nobody hears of. Memory may be used up, and the child the victim."""
    with suppress(Errno):
        while not child.group.exiting:
            try:
                mm.write(addr, struct.pack("<i", number))
            except NeedsFault as need:
                await need.wait()
            else:
                return


async def clone(task: Task, args: CloneArgs) -> int:
    """Make the child, start it, and give its id. Raises: EINVAL, EAGAIN, EPERM, ENOMEM, EFAULT."""
    check(task, args)
    check_limit(task)
    touch(task, args)
    memory = await copied(task, args)
    files: FdTable | None = None
    try:
        new = await separated(task, args)
        files = await files_of_child(task, args.flags)
        if task.group.exiting or task.work & WORK_EXIT:  # a child of who was killed would live on
            raise Killed
        check_limit(task)
        task.process_flags &= ~PF_NPROC_EXCEEDED
        check_descriptor(task, args)
        child = make(task, args, memory, files, new)
    except BaseException:
        await driven(memory.releasing())
        if files is not None:
            await driven(files.left(task))
        raise
    number = task.pids.of(child.tid)
    try:
        await tell_numbers(task, args, child, number)
    except Killed:
        child.finish()
        raise
    done = WaitQueue()
    if args.flags & CLONE_VFORK:
        child.vfork_done = done.notify
    event = 0
    if task.trace is not None:
        event = task.trace.inherited_by(child, args.flags, args.exit_signal)
    if (watch := task.kernel.watch) is not None:
        watch.cloned(task, child, args.flags)
    child.finish()
    seen = task.trace.tracer.pids.of(child.tid) if task.trace is not None else number
    if event and task.trace is not None:
        await task.trace.event(event, seen)
    if args.flags & CLONE_VFORK:

        def finished() -> None:
            if child.vfork_done is not None:
                raise EAGAIN

        await until(finished, [done], mode=Mode.KILLABLE)
        if task.trace is not None and not args.flags & CLONE_UNTRACED:
            await task.trace.event(PTRACE_EVENT_VFORK_DONE, seen)
    return number


def thread_of(args: CloneArgs, child: Task) -> Task | None:
    """Whom a pidfd of CLONE_PIDFD means: with CLONE_THREAD the thread, else the process."""
    return child if args.flags & CLONE_THREAD else None


async def copied(task: Task, args: CloneArgs) -> MemoryManager:
    """copy_mm(): the child's memory. Raises: ENOMEM; NeedsFault where RAM is full."""
    if args.flags & CLONE_VM:
        return task.mm.share()
    sysv_ipc.memory_moves(task)
    try:
        async with task.mm.map.lock:
            return await driven(task.mm.forking())
    except Exhausted:
        raise NeedsFault(task.kernel.make_frames) from None


async def separated(task: Task, args: CloneArgs) -> Separated:
    """copy_namespaces(): where the child will be. Raises: EPERM, ENOSPC, EINVAL."""
    flags = args.flags
    creds = namespaces.new_user_namespace(task) if flags & CLONE_NEWUSER else task.creds
    new = namespaces.make(task, flags, creds)
    if not flags & CLONE_NEWNS:
        return new, None
    async with task.mounts.lock:
        return new, await driven(namespaces.copied_mounts(task, new))


def make(
    task: Task, args: CloneArgs, mm: MemoryManager, files: FdTable, separated: Separated
) -> Task:
    """The child, known to everybody but not yet running. Raises: NeedsFault where RAM is full."""
    kernel = task.kernel
    new, _ = separated
    pids = new.pids or task.ns.pids_for_children
    check_numbers(task.creds, pids, args.set_tid, kernel.pids.pid_max)
    cgroup = birthplace(task, args)
    cgroup.container.check_task()
    cgroup.check_birth()
    job = task.group.job
    if job is not None:
        job.check_birth()
    tid = kernel.pids.allocate(pids, args.set_tid)
    try:
        child = build(task, args, tid, separated, mm, files)
    except BaseException as error:
        kernel.pids.release(tid)
        if isinstance(error, Exhausted):
            raise NeedsFault(kernel.make_frames) from None
        raise
    child.group.cgroup = cgroup
    cgroup.born(child.group)
    if job is not None:
        job.born(child.group)
    if cgroup.container.stands or cgroup.freezing:
        child.work |= WORK_PAUSE
    return child


def birthplace(task: Task, args: CloneArgs) -> Cgroup:
    """The cgroup of the child: the caller's, or with CLONE_INTO_CGROUP the one of a directory.

    cgroup_css_set_fork(). Raises: EBADF, ENOENT, EACCES, EBUSY, EOPNOTSUPP.
    """
    own = task.group.cgroup
    if not args.flags & CLONE_INTO_CGROUP:
        return own
    inode = task.files.get_raw(args.cgroup).inode
    if not inode.is_dir or inode.fs.name != "cgroup2":
        raise EBADF("no directory of a cgroup")
    found: Cgroup = inode.cgroup  # type: ignore[attr-defined]
    if found.dead:
        raise ENOENT("the cgroup is gone")
    inode.check_attach(task.creds, task.ns.cgroup.root, own)  # type: ignore[attr-defined]
    if args.flags & CLONE_THREAD and found is not own:
        raise EOPNOTSUPP("threads of a process are in one cgroup")
    return found


def build(
    task: Task, args: CloneArgs, tid: int, separated: Separated, mm: MemoryManager, files: FdTable
) -> Task:
    """copy_process(), with all that was asked for checked."""
    kernel, flags = task.kernel, args.flags
    new, copied = separated
    pids = new.pids or task.ns.pids_for_children
    limits = task.group.limits if flags & CLONE_THREAD else task.group.limits.copy()
    if not flags & CLONE_VM:
        mm.map.limits = limits
    ctx = kernel.platform.new_context(mm.space)
    ctx.copy_from(task.ctx)
    group = task.group if flags & CLONE_THREAD else new_group(task, tid, args, limits, pids)
    child = Thread(
        kernel,
        group,
        tid,
        ctx,
        mm,
        files,
        task.fs if flags & CLONE_FS else task.fs.copy(),
        new.creds,
        task.ns,
    )
    namespaces.enter(child, new, child.fs, copied)
    inherit(child, task, Task)
    if not flags & CLONE_VM:
        join_for_children(child)
    if flags & CLONE_SYSVSEM:
        child.sem_undo = sysv_ipc.shared_undo(task)
    child.default_slack_ns = task.timer_slack_ns
    shares_stack = flags & CLONE_VM and not flags & CLONE_VFORK
    child.altstack = altstack.NONE if shares_stack else task.altstack
    child.observers = [o for o in task.observers if o.inherited]
    if flags & CLONE_CHILD_CLEARTID:
        child.clear_child_tid = args.child_tid
    regs = ctx.regs
    regs[Reg.RAX] = 0
    if args.stack:
        regs[Reg.RSP] = args.stack & (1 << 64) - 1
    if flags & CLONE_SETTLS:
        regs[Reg.FS_BASE] = args.tls
    group.tasks.append(child)
    if group.leader is None:
        group.leader = child
        child.exit_signal = group.exit_signal
    kernel.pids.tasks[tid] = child
    if group.exiting or group.execing is not None:
        child.condemn()  # made while its group dies
    if group.stopping:
        child.work |= WORK_STOP
    signal_send.recalculate(child)
    child_identity(child)
    return child


async def files_of_child(task: Task, flags: int) -> FdTable:
    """copy_files(): a copy, or with CLONE_FILES one more user. Raises: EMFILE."""
    if flags & CLONE_FILES:
        task.files.users += 1
        return task.files
    task.files.check_copy()
    return await driven(task.files.copying())


def new_group(
    task: Task, tgid: int, args: CloneArgs, limits: Limits, pids: PidNamespace
) -> ThreadGroup:
    """The child's process."""
    old = task.group
    parent = old.parent if args.flags & CLONE_PARENT else old
    if args.flags & CLONE_SIGHAND:
        actions = old.actions.share()
    else:
        actions = old.actions.copy()
        if args.flags & CLONE_CLEAR_SIGHAND:
            actions = cleared(actions)
    group = ThreadGroup(task.kernel, tgid, parent, old.process_group, actions, limits, pids)
    if pids.init is None:
        pids.init = group
    inherit(group, old, ThreadGroup)
    group.parent_thread = old.parent_thread if args.flags & CLONE_PARENT else task
    group.exit_signal = old.exit_signal if args.flags & CLONE_PARENT else args.exit_signal
    task.kernel.pids.groups[tgid] = group
    timers.watch_cpu_limit(group)
    return group


def cleared(actions: SignalActions) -> SignalActions:
    """CLONE_CLEAR_SIGHAND: handlers become default, ignored signals stay so."""
    return actions.reset_for_exec()


def first_task(kernel: Kernel, task: Task) -> None:
    """Register a task that nobody made."""
    kernel.pids.tasks[task.tid] = task
    kernel.pids.groups[task.group.tgid] = task.group
    task.group.tasks.append(task)
    task.group.leader = task
    task.group.cgroup.born(task.group)
    if task.group.job is not None:
        task.group.job.born(task.group)
    child_identity(task)

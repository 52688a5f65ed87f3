"""Processes, their groups and sessions.

A `ThreadGroup` is what the manual pages call a process. Parents and children are thread groups;
`ProcessGroup` and `Session` are job control's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from sentry.abi.signal import SIGCHLD
from sentry.ahead import mypyc_attr
from sentry.kernel.inherit import CLONE, FRESH, SHARED
from sentry.kernel.limits import Limits
from sentry.kernel.signals import PendingSignals, SigInfo, SignalActions
from sentry.wait.lock import Lock
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.auth.userns import UserNamespace
    from sentry.fs.devpts.terminal import Terminal
    from sentry.kernel.cgroup import Cgroup
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.keys import Key
    from sentry.kernel.pids import PidNamespace
    from sentry.kernel.task import Task
    from sentry.platform.interface import Account
    from sentry.vfs.interface import Inode
    from sentry.vfs.location import Location


class Dump(Protocol):
    """A core dump in the making: sentry.kernel.core_dump."""

    def thread_ends(self, task: Task) -> None:
        """Keep the registers of another thread that dies now."""

    def end(self) -> None:
        """SIGKILL: no more is written."""


class IntervalTimers(Protocol):
    """Timers of alarm(2) and setitimer(2), deadlines in CPU time: sentry.kernel.timers."""

    def cancel(self) -> None:
        """The process has ended."""

    def alarm_taken(self) -> None:
        """A SIGALRM of the process was taken: the next period of ITIMER_REAL begins."""


class ProcessTimer(Protocol):
    """A timer of timer_create(2): sentry.kernel.posix_timers."""

    @property
    def signo(self) -> int:
        """What it sends; 0: nothing."""

    def ignored(self) -> None:
        """Nobody wants its signal, also if it is queued."""

    def wanted(self) -> None:
        """Somebody does."""

    def delete(self) -> None:
        """It is gone."""


class Job(Protocol):
    """A process of `exec` and all that comes of it: sentry.kernel.job."""

    sent: int
    """Bytes that have left the sandbox."""

    def check_birth(self) -> None:
        """There may be one more task. Raises: EAGAIN."""

    def born(self, group: ThreadGroup) -> None:
        """A thread of this process was made."""

    def thread_ends(self, group: ThreadGroup) -> None:
        """One is gone."""

    def reaped(self) -> None:
        """A zombie is gone."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Session:
    """A session: its id is its leader's pid; perhaps a controlling terminal."""

    __slots__ = ("foreground", "groups", "leader", "old_foreground", "sid", "terminal")

    def __init__(self, sid: int, leader: ThreadGroup | None) -> None:
        self.sid = sid
        self.leader = leader
        self.terminal: Terminal | None = None
        """Whose session it is: what its processes have may be nothing (ThreadGroup.terminal)."""
        self.foreground: ProcessGroup | None = None
        """Of its terminal, also once nobody is in it any more."""
        self.old_foreground: ProcessGroup | None = None
        """The foreground group when the terminal hung up: it hears of the leader's end."""
        self.groups: set[ProcessGroup] = set()

    def group_of(self, pgid: int) -> ProcessGroup:
        """One in which nobody is yet: perhaps it is in the foreground already."""
        group = self.foreground
        return group if group is not None and group.pgid == pgid else ProcessGroup(pgid, self)


class ProcessGroup:
    """A process group: its id is the pid of the process that made it."""

    __slots__ = ("members", "pgid", "session")

    def __init__(self, pgid: int, session: Session) -> None:
        self.pgid = pgid
        self.session = session
        self.members: set[ThreadGroup] = set()

    def is_orphaned(self) -> bool:
        """No member has a parent in another group of the session: credentials(7)."""
        return not any(m.ties_group for m in self.members)

SUMS: Final = (
    "inblock", "majflt", "minflt", "nivcsw", "nvcsw", "oublock", "rchar", "sys_ns", "syscr",
    "syscw", "user_ns", "wchar",
)  # fmt: skip



class Usage:
    """What getrusage(2) and /proc/PID/io count."""

    __slots__ = (
        "inblock", "majflt", "maxrss", "minflt", "nivcsw", "nvcsw", "oublock", "rchar", "sys_ns",
        "syscr", "syscw", "user_ns", "wchar",
    )  # fmt: skip

    def __init__(self) -> None:
        self.user_ns = self.sys_ns = self.maxrss = self.minflt = self.majflt = 0
        self.inblock = self.oublock = self.nvcsw = self.nivcsw = 0
        self.rchar = self.wchar = self.syscr = self.syscw = 0

    def count(self, task: Task) -> None:
        """Add what a thread has used so far. `maxrss` (KiB) is not a thread's."""
        self.user_ns += task.ctx.cpu_time_ns()
        self.sys_ns += task.sys_time_ns
        self.minflt += task.faults
        self.nvcsw += task.sleeps
        self.count_bytes(task)

    def count_bytes(self, task: Task) -> None:
        """Add what a thread has read and written."""
        self.rchar += task.rchar
        self.wchar += task.wchar
        self.syscr += task.syscr
        self.syscw += task.syscw

    def add(self, other: Usage) -> None:
        """Sum everything but the resident set's maximum, which is a maximum."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.maxrss = max(self.maxrss, other.maxrss)


class ThreadGroup:
    """A process."""

    fields: ClassVar[dict[str, str]] = {
        "account": FRESH,
        "actions": CLONE,
        "allowed_tracer": FRESH,
        "argv": SHARED,
        "cgroup": CLONE,
        "child_queue": FRESH,
        "child_subreaper": FRESH,
        "children": FRESH,
        "continue_reported": FRESH,
        "core_dump": FRESH,
        "coredump_filter": SHARED,
        "dumpable": SHARED,
        "ending": FRESH,
        "exe": SHARED,
        "exec_user_ns": SHARED,
        "exec_lock": FRESH,
        "execing": FRESH,
        "exit_signal": CLONE,
        "exit_status": FRESH,
        "exiting": FRESH,
        "has_execed": FRESH,
        "job": SHARED,
        "kernel": FRESH,
        "last_uid": FRESH,
        "leader": FRESH,
        "limits": CLONE,
        "next_timer": FRESH,
        "oom_score_adj": SHARED,
        "oom_score_adj_min": SHARED,
        "own_bytes": FRESH,
        "parent": CLONE,
        "parent_thread": CLONE,
        "personality": SHARED,
        "pid_inode": FRESH,
        "pid_queue": FRESH,
        "pids": CLONE,
        "posix_timers": FRESH,
        "process_group": CLONE,
        "process_keyring": FRESH,
        "reaped_usage": FRESH,
        "runs": FRESH,
        "shared_pending": FRESH,
        "signal_queue": FRESH,
        "start_ns": FRESH,
        "stop_reported": FRESH,
        "stop_signal": FRESH,
        "stopping": FRESH,
        "tasks": FRESH,
        "terminal": SHARED,
        "tgid": FRESH,
        "timers": FRESH,
        "used": FRESH,
    }
    """The fields, and what a child gets of them: sentry.kernel.inherit."""
    __slots__ = tuple(fields)

    def __init__(
        self,
        kernel: Kernel,
        tgid: int,
        parent: ThreadGroup | None,
        process_group: ProcessGroup,
        actions: SignalActions,
        limits: Limits,
        pids: PidNamespace | None = None,
    ) -> None:
        self.kernel = kernel
        self.pids: PidNamespace = pids if pids is not None else kernel.pids
        """The PID namespace that it is in."""
        self.exec_user_ns: UserNamespace | None = None
        """The user namespace in which its program was started, or one above that knows the owner
        of a program that cannot be read: mm_struct.user_ns.
        """
        self.tgid = tgid
        self.parent = parent
        self.parent_thread: Task | None = None
        """real_parent: the thread of the parent process that made this one, or inherited it."""
        self.cgroup: Cgroup = kernel.cgroups
        """Where it is in the tree of control groups; a zombie, where it was at its end."""
        self.job: Job | None = None
        """What it is counted and bounded with, if it comes of a process of `exec` that has one."""
        self.children: dict[ThreadGroup, None] = {}
        self.process_group = process_group
        self.terminal: Terminal | None = None
        """Its controlling terminal: the leader takes it, and whoever is forked then has it too."""
        self.actions: SignalActions = actions
        self.limits = limits
        self.tasks: list[Task] = []
        self.leader: Task | None = None
        self.shared_pending = PendingSignals()
        self.signal_queue = WaitQueue()
        """Told when a signal becomes pending (signalfd, sigtimedwait)."""
        self.child_queue = WaitQueue()
        """Told when a child changes state (wait4, waitid)."""
        self.pid_queue = WaitQueue()
        """Told when this process has ended (pidfd)."""
        self.pid_inode: Inode | None = None
        """That of its pidfds, once there was one."""
        self.exit_signal = SIGCHLD
        self.exiting = False
        self.ending = False
        """Its last thread is gone, and its children are being handed on."""
        self.exit_status = 0
        """wait(2) status once `exiting`."""
        self.allowed_tracer: tuple[Task | None, Task | None] = (None, None)
        """PR_SET_PTRACER: the leader at that time, and whom it allowed; None for anybody."""
        self.process_keyring: Key | None = None
        """KEY_SPEC_PROCESS_KEYRING, once it has one."""
        self.core_dump: Dump | None = None
        """The core dump in the making."""
        self.coredump_filter = 0x33
        self.stopping = 0
        """The signal of a group stop in force, else 0."""
        self.runs: Task | None = None
        """One that did not stand yet when a group stop was looked at last."""
        self.stop_signal = 0
        self.stop_reported = True
        self.continue_reported = True
        self.child_subreaper = False
        self.dumpable = 1
        self.exe: Location | None = None
        self.argv: tuple[bytes, ...] = ()
        self.has_execed = False
        self.exec_lock = Lock()
        """cred_guard_mutex: from the look at who has a hold on a thread that executes a program
        until it has the credentials of that."""
        self.execing: Task | None = None
        self.oom_score_adj = 0
        self.oom_score_adj_min = 0
        """How low it may become by who has no CAP_SYS_RESOURCE."""
        self.own_bytes = 0
        """What the Sentry has allocated for it, about (own_memory.py)."""
        self.personality = 0
        self.timers: IntervalTimers | None = None
        self.posix_timers: dict[int, ProcessTimer] = {}
        self.next_timer = 0
        self.account: Account = kernel.platform.new_account()
        """What its threads have run of its program."""
        self.used = Usage()
        """What they have used besides, the dead included; of those alone what they have read and
        written. Without `user_ns`.
        """
        self.reaped_usage = Usage()
        self.last_uid = 0
        """The real user of the last thread, once all are gone."""
        self.start_ns = kernel.clock.now_ns()
        process_group.members.add(self)
        process_group.session.groups.add(process_group)
        if parent is not None:
            parent.children[self] = None

    def __repr__(self) -> str:
        return f"<process {self.tgid}>"

    @property
    def container(self) -> Container:
        """The one that it belongs to."""
        found: Container = self.cgroup.container
        return found

    @property
    def session(self) -> Session:
        """The session of the process group."""
        return self.process_group.session

    @property
    def ties_group(self) -> bool:
        """Its parent is in another group of the session: so its group is no orphan."""
        return self.is_tied_by(self.parent)

    def is_tied_by(self, parent: ThreadGroup | None) -> bool:
        """The same, with this parent."""
        if parent is None:
            return False
        theirs, mine = parent.process_group, self.process_group
        return theirs is not mine and theirs.session is mine.session

    @property
    def is_zombie(self) -> bool:
        """Every thread is gone, but nobody waited for it yet."""
        return not self.tasks and not self.ending

    def all_tasks(self) -> list[Task]:
        """Its threads as others count them: with a leader that has ended and cannot go yet."""
        leader = self.leader
        if leader is not None and leader.dead and leader not in self.tasks:
            return [leader, *self.tasks]
        return self.tasks

    @property
    def uid(self) -> int:
        """Its real user, also of a zombie."""
        return self.tasks[0].creds.uid if self.tasks else self.last_uid

    def told(self, signo: int, code: int, value: int) -> SigInfo:
        """The siginfo with which its parent hears of it: CLD_*, and an exit code or signal."""
        return SigInfo.child(signo, code, (self.tgid, self.uid), value, self.cpu_ns())

    def cpu_ns(self) -> tuple[int, int]:
        """CPU time of its program and of the kernel for it, dead threads included."""
        return self.account.cpu_time_ns(), self.used.sys_ns

    def usage(self) -> Usage:
        """What it has used so far, its dead threads included."""
        usage = Usage()
        usage.add(self.used)
        usage.user_ns = self.account.cpu_time_ns()
        return usage

    def drop_keyring(self) -> None:
        """It has ended, or runs another program."""
        ring, self.process_keyring = self.process_keyring, None
        if ring is not None:
            ring.drop()

    def exit(self, status: int) -> None:
        """Every thread dies; `status` is what wait(2) will say. The first call counts.

        Of thousands some run on for a moment, as on other CPUs of Linux: zap_other_threads().
        """
        if self.exiting:
            return
        self.exiting = True
        self.exit_status = status
        self.stopping = 0
        self.kernel.loop.call_for_each(self.tasks, condemn)

    def hurry(self) -> None:
        """SIGKILL for one that ends already: neither a core dump nor a tracer holds that up."""
        if self.core_dump is not None:
            self.core_dump.end()
        for task in self.tasks:
            if task.trace is not None:
                task.trace.release_exit_stop()

    def join(self, process_group: ProcessGroup) -> None:
        """Move to another process group; an empty one is forgotten."""
        old = self.process_group
        old.members.discard(self)
        self.process_group = process_group
        process_group.members.add(self)
        process_group.session.groups.add(process_group)
        self.kernel.pids.forget_if_empty(old)


def condemn(task: Task) -> None:
    """It must die, if it has not gone meanwhile."""
    if not task.dead:
        task.condemn()

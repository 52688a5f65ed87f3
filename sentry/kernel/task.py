"""`Task`: the state of one thread of a program, and what others ask of it.

What it does with what its vCPU reports is in dispatch.py, and all else in the modules of its
aspects. This module is below all of them, so that they need it alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from sentry.ahead import mypyc_attr
from sentry.kernel.inherit import CLONE, COPIED, FRESH, SHARED
from sentry.kernel.signals import PendingSignals
from sentry.kernel.work import WORK_EXIT
from sentry.loop import Charged
from sentry.platform.interface import Context
from sentry.wait.fiber import Fiber, Interrupted, Killed, Mode

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials, Login
    from sentry.bpf.filter import CallFilter
    from sentry.kernel.kernel import Kernel, Namespaces
    from sentry.kernel.key_table import TaskKeys
    from sentry.kernel.sched_attributes import Sched
    from sentry.kernel.signals import SigInfo
    from sentry.kernel.sysv_undo import UndoList
    from sentry.kernel.thread_group import ThreadGroup, Usage
    from sentry.kernel.watching import Judging
    from sentry.mm.manager import MemoryManager
    from sentry.vfs.fd_table import FdTable
    from sentry.vfs.fs_context import FsContext
    from sentry.vfs.interface import Inode
    from sentry.vfs.mounts import MountNamespace
    from sentry.wait.steps import Steps

RESUME: Final = object()
"""A handler's result: it has set all registers itself (sigreturn, execve)."""
GONE: Final = object()
"""A handler's result: this task does not go back to ring 3 (exit)."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Observer:
    """Hears of every call of the tasks it is attached to (`Task.observers`, in order).

    What a kind does not look at it leaves as it is here.
    """

    __slots__ = ()
    inherited: ClassVar = True
    """Children have it too."""

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> Any:
        """Before the handler. None: go on; an int: the result instead; GONE: it took over."""

    def left(self, task: Task, result: Any) -> None:
        """After the handler; `result` is an int, RESUME or GONE."""

    def execed(self, task: Task) -> None:
        """A new program has been loaded."""

    def loaded(self, task: Task, path: bytes, args: Sequence[bytes], variables: int) -> None:
        """A process that no program made (the container's first, one of `exec`) is to run this."""

    def signalled(self, task: Task, info: SigInfo) -> None:
        """A signal is being delivered."""

    def exited(self, task: Task, status: int) -> None:
        """A thread ends; `status` as wait(2) has it."""

    def flush(self) -> None:
        """The sandbox is over: write what is kept."""


class Filtering(Observer, ABC):
    """`Task.seccomp`: sentry.kernel.seccomp."""

    mode: int
    """SECCOMP_MODE_*."""
    newest: CallFilter | None
    """Of its filters."""
    depth: int
    """How many they are, or of a zombie were."""

    @abstractmethod
    def result(self, number: int, ip: int, values: tuple[int, ...]) -> int:
        """What all filters say of a call: the strictest action."""


class DebugState(Protocol):
    """The debug registers that a tracer sees."""

    status: int

    @property
    def armed(self) -> bool: ...
    def get(self, number: int) -> int: ...
    def put(self, task: Task, number: int, value: int) -> None: ...
    def look(self, task: Task) -> int: ...
    def clear(self) -> None: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Tie(Observer, ABC):
    """`Task.trace`, how a tracer holds a task: sentry.kernel.ptrace.tracee."""

    __slots__ = ("dead", "debug", "status", "task", "tracer", "usage")
    task: Task
    tracer: Task
    debug: DebugState
    dead: bool
    status: int
    """As wait(2) tells it of a thread that is dead."""
    usage: Usage | None

    @abstractmethod
    def untold(self) -> int:
        """The code of a stop that a wait may tell now, else 0."""

    @abstractmethod
    def told(self) -> None:
        """A wait has told the stop."""

    @abstractmethod
    def waited_for(self) -> None:
        """A wait has told the end."""

    @abstractmethod
    def intercepts(self, task: Task, info: SigInfo) -> bool:
        """signal-delivery-stop: the tracer decides what becomes of a signal."""

    @abstractmethod
    def seccomp(self, task: Task, data: int) -> Any:
        """SECCOMP_RET_TRACE: a verdict as `entered` gives it."""

    @abstractmethod
    def suspends_seccomp(self) -> bool:
        """PTRACE_O_SUSPEND_SECCOMP."""

    @abstractmethod
    def call_left(self, task: Task) -> bool:
        """syscall-exit-stop. False: the task goes on."""

    @abstractmethod
    def stepped(self, task: Task) -> int:
        """A debug exception: the si_code of its SIGTRAP, or 0 if it was only for the tracer."""

    @abstractmethod
    def hide_step(self) -> None:
        """The trap flag that the tracer set is not the program's."""

    @abstractmethod
    def handler_entered(self) -> bool:
        """A frame was pushed. True: the task stops at the handler's first instruction."""

    @abstractmethod
    def group_stop(self, signo: int, running: bool) -> None:
        """The process is to stop; `running`: it is this task that took the signal."""

    @abstractmethod
    def continued(self) -> None:
        """SIGCONT."""

    @abstractmethod
    def jobctl(self, task: Task) -> bool:
        """A group stop, or the trap that was asked for. False: go on."""

    @abstractmethod
    def stands(self) -> bool:
        """The group stop does not have to wait for this task."""

    @abstractmethod
    def reports_to(self, group: object) -> bool:
        """The tracer is a thread of this process."""

    @abstractmethod
    async def event(self, event: int, message: int) -> None:
        """An event in the middle of a call, if the tracer wants it."""

    @abstractmethod
    async def exec_stop(self, old_tid: int) -> None:
        """A new program is about to begin."""

    @abstractmethod
    def inherited_by(self, child: Task, flags: int, exit_signal: int) -> int:
        """A child was made: it may be traced likewise. Gives the event that the tracer wants."""

    @abstractmethod
    def killed(self) -> None:
        """The task is to die: it leaves its stop without the tracer."""

    @abstractmethod
    def exit_stop(self, status: int) -> bool:
        """PTRACE_EVENT_EXIT, before anything of the task is taken apart."""

    @abstractmethod
    def release_exit_stop(self) -> None:
        """A further SIGKILL ends the stop of a dying task."""

    @abstractmethod
    def task_exits(self, task: Task) -> None:
        """The thread is gone."""

    @abstractmethod
    def tracer_exits(self) -> None:
        """The thread that traces is gone."""

    @abstractmethod
    def holds_group(self) -> bool:
        """The tracer must wait for the process before its parent may."""

    @abstractmethod
    def group_ends(self) -> bool:
        """The process is gone."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the tie: the process was waited for, or the leader was replaced by execve(2)."""


class Task(Charged, ABC):
    """A thread. Its class is `dispatch.Thread`; behaviour lives in task_*.py."""

    fields: ClassVar[dict[str, str]] = {
        "altstack": CLONE,
        "blocked": SHARED,
        "clear_child_tid": CLONE,
        "comm": SHARED,
        "creds": CLONE,
        "ctx": CLONE,
        "dead": FRESH,
        "default_slack_ns": CLONE,
        "exit_code": FRESH,
        "exit_signal": CLONE,
        "faults": FRESH,
        "fiber": FRESH,
        "files": CLONE,
        "fs": CLONE,
        "group": CLONE,
        "kernel": FRESH,
        "judge": FRESH,
        "keys": COPIED,
        "login": SHARED,
        "mm": CLONE,
        "no_new_privs": SHARED,
        "ns": CLONE,
        "observers": CLONE,
        "parent_death_signal": FRESH,
        "pending": FRESH,
        "pid_inode": FRESH,
        "pids": CLONE,
        "policy": SHARED,
        "process_flags": SHARED,
        "rchar": FRESH,
        "restart": FRESH,
        "restart_block": FRESH,
        "robust_list": FRESH,
        "saved_mask": FRESH,
        "sched": COPIED,
        "seccomp": SHARED,
        "sem_undo": CLONE,
        "sleeps": FRESH,
        "start_ns": FRESH,
        "stopped": FRESH,
        "syscr": FRESH,
        "syscw": FRESH,
        "tid": FRESH,
        "timer_slack_ns": SHARED,
        "trace": FRESH,
        "tracees": FRESH,
        "trap": FRESH,
        "vfork_done": FRESH,
        "wchar": FRESH,
        "work": FRESH,
    }
    """The fields, and what a child gets of them: sentry.kernel.inherit."""
    __slots__ = tuple(fields)

    def __init__(
        self,
        kernel: Kernel,
        group: ThreadGroup,
        tid: int,
        ctx: Context,
        mm: MemoryManager,
        files: FdTable,
        fs: FsContext,
        creds: Credentials,
        ns: Namespaces,
    ) -> None:
        self.kernel = kernel
        self.group = group
        self.tid = tid
        self.ctx = ctx
        self.mm: MemoryManager = mm
        self.files: FdTable = files
        self.fs: FsContext = fs
        self.creds: Credentials = creds
        self.ns = ns
        """Where it is: shared with others, so never changed but replaced."""
        self.comm = b""
        self.fiber: Fiber | None = None
        self.work = 0
        self.dead = False
        self.stopped = False
        self.blocked = 0
        self.saved_mask: int | None = None
        self.pending = PendingSignals()
        self.altstack: tuple[int, int, int] = (0, 0, 0)
        self.restart: BaseException | None = None
        self.restart_block: Callable[[], Any] | None = None
        self.clear_child_tid = 0
        self.robust_list = 0
        self.exit_code = 0
        """wait(2) status of this thread alone, once it has made _exit(2)."""
        self.exit_signal = 0
        self.judge: Judging | None = None
        """Who decides on what a call comes to, while it is made."""
        self.pid_inode: Inode | None = None
        """That of pidfds of this thread alone, once there was one."""
        self.login: Login | None = None
        """Whose session it belongs to."""
        self.parent_death_signal = 0
        self.vfork_done: Callable[[], object] | None = None
        self.observers: list[Observer] = []
        self.trace: Tie | None = None
        """How a tracer holds this task."""
        self.tracees: list[Tie] = []
        """The ties to the tasks that this one traces."""
        self.seccomp: Filtering | None = None
        self.sched: Sched | None = None
        """Its attributes, once it has asked for some."""
        self.sem_undo: UndoList | None = None
        """SEM_UNDO of System V semaphores, once there is any."""
        self.policy: tuple[int, int] | None = None
        """What set_mempolicy(2) said: (mode with its flags, mask of nodes)."""
        self.trap = (0, 0, 0)
        """(vector, error code, CR2) of the last exception, for signal frames."""
        self.no_new_privs = False
        self.keys: TaskKeys | None = None
        """Its keyrings, once it has used some."""
        self.process_flags = 0
        """What prctl(2) keeps for its own answers (PF_* of Linux), inherited."""
        self.pids = group.pids
        """Its PID namespace, for good."""
        self.timer_slack_ns = self.default_slack_ns = 50_000
        self.rchar = self.wchar = self.syscr = self.syscw = 0
        """/proc/PID/io: bytes read and written, calls that did."""
        self.faults = 0
        """Page faults that cost an exit (ru_minflt)."""
        self.sleeps = 0
        """Calls that had to wait (ru_nvcsw)."""
        self.start_ns = self.kernel.clock.now_ns()
        self.sys_time_ns = 0
        self.used = group.used
        ctx.charge(group.account)
        ctx.owner = self

    def __repr__(self) -> str:
        return f"<task {self.tid} of {self.group.tgid} {self.comm!r}>"

    # The Protocol that lower rooms see -----------------------------------------------------------

    def rlimit(self, resource: int) -> int:
        """The soft limit of a resource (RLIMIT_*)."""
        return self.group.limits.soft(resource)

    @property
    def mounts(self) -> MountNamespace:
        """Its mounts."""
        return self.ns.mounts.mounts

    @property
    def own_pid(self) -> int:
        """Its process's number in its PID namespace."""
        return self.pids.of(self.group.tgid)

    @property
    def own_tid(self) -> int:
        """Its number in its PID namespace."""
        return self.pids.of(self.tid)

    def unshare_files(self) -> Steps[None]:
        """unshare_files(): a table of descriptors of its own."""
        shared = self.files
        own = yield from shared.copying()
        self.files = own
        yield from shared.left(self)  # the others may have ended meanwhile

    @abstractmethod
    def ids_changed(self) -> None:
        """Its ids read differently now, because its user namespace got a map."""

    @abstractmethod
    def send_signal(self, signo: int) -> None:
        """A signal from the kernel for this thread (SIGPIPE, SIGXFSZ)."""

    # What dispatch.py does of it -----------------------------------------------------------------

    @abstractmethod
    def condemn(self) -> None:
        """It must die before it sees ring 3 again."""

    @abstractmethod
    def on_exit(self, ctx: Context) -> None:
        """The context came back: find out why and go on."""

    @abstractmethod
    def start(self, coro: Any) -> None:
        """Go on with a call that may sleep."""

    @abstractmethod
    def end_call(self, result: Any) -> None:
        """A system call is over: its observers hear of it, then the way back."""

    @abstractmethod
    def finish(self) -> None:
        """Go on in ring 3 with all registers, after what has to be done first."""

    @abstractmethod
    def go_on_with_call(self, after: Observer) -> None:
        """A tracer held a call back at its beginning: what the registers say now is done.

        `after` is the observer that took over; those behind it come next. Number -1 is no call.
        """

    @abstractmethod
    def guarded(self, step: Callable[[], object]) -> None:
        """Go on from outside of `on_exit`: a bug of ours costs this program there, too."""

    def interrupt(self, mode: Mode = Mode.INTERRUPTIBLE) -> None:
        """Make the task look at its work soon: throw into its sleep, or kick it out of ring 3."""
        if self.fiber is not None:
            kill = self.work & WORK_EXIT
            self.fiber.interrupt(
                Killed() if kill else Interrupted(), Mode.KILLABLE if kill else mode
            )
        elif not self.stopped:
            self.ctx.kick()

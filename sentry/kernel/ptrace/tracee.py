"""A traced task: its stops, and how it goes on from each of them. See README.md.

Sources: ptrace(2); kernel/ptrace.c, kernel/signal.c (ptrace_stop, do_jobctl_trap, ptrace_signal),
kernel/entry/common.c, kernel/seccomp.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi.processor import X86_EFLAGS_TF
from sentry.abi.ptrace import (
    PTRACE_EVENT_CLONE,
    PTRACE_EVENT_EXEC,
    PTRACE_EVENT_EXIT,
    PTRACE_EVENT_FORK,
    PTRACE_EVENT_SECCOMP,
    PTRACE_EVENT_STOP,
    PTRACE_EVENT_VFORK,
    PTRACE_EVENTMSG_SYSCALL_ENTRY,
    PTRACE_EVENTMSG_SYSCALL_EXIT,
    PTRACE_O_SUSPEND_SECCOMP,
    PTRACE_O_TRACESYSGOOD,
)
from sentry.abi.sched import CLONE_PTRACE, CLONE_UNTRACED, CLONE_VFORK
from sentry.abi.seccomp import SECCOMP_RET_ACTION_FULL, SECCOMP_RET_TRACE
from sentry.abi.signal import (
    CLD_STOPPED,
    CLD_TRAPPED,
    SA_NOCLDSTOP,
    SIGCHLD,
    SIGSTOP,
    SIGTRAP,
    TRAP_BRKPT,
    TRAP_HWBKPT,
    TRAP_TRACE,
)
from sentry.errors import EAGAIN, ENOSYS
from sentry.kernel import signal_faults, signal_send, task_exit, task_signals, task_stops
from sentry.kernel.ptrace import links, restart
from sentry.kernel.ptrace.debug_registers import DR6_STEP, DebugRegisters
from sentry.kernel.signals import SIG_IGN, Queued, SigInfo
from sentry.kernel.task import GONE, DebugState, Tie
from sentry.kernel.work import WORK_EXIT, WORK_SIGNAL, WORK_STOP
from sentry.platform.interface import ExitKind, Reg
from sentry.wait.fiber import Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import Usage

CONT, SYSCALL, SYSEMU = 0, 1, 2
"""What calls do until the next stop: nothing, stop, or stop and not be executed."""
SYSGOOD: Final = 0x80


def event_code(event: int, signo: int = SIGTRAP) -> int:
    """What wait(2) reports of an event, before its own shift."""
    return event << 8 | signo


class Stop:
    """One ptrace-stop."""

    __slots__ = ("code", "go_on", "in_call", "info")

    def __init__(
        self,
        code: int,
        info: SigInfo | None,
        go_on: Callable[[int], None] | None,
        in_call: bool = False,
    ) -> None:
        self.code = code
        """Signal and event as wait(2) reports them."""
        self.info = info
        """None: a group stop of a task that was not seized."""
        self.go_on = go_on
        """Called with the tracer's signal; None: the task sleeps in its fiber."""
        self.in_call = in_call
        """A call is not over: RAX says nothing about starting it again."""


class Tracee(Tie):
    """`Task.trace`."""

    inherited: ClassVar = False
    __slots__ = (
        "exit_reported", "forced_tf", "listening", "message", "mode", "options", "queue", "seized",
        "stepping", "stop", "stop_pending", "stop_signo", "trap_notify", "trap_stop", "unreported",
    )  # fmt: skip

    def __init__(self, task: Task, tracer: Task, seized: bool, options: int) -> None:
        self.task = task
        self.tracer = tracer
        self.seized = seized
        self.options = options
        self.mode = CONT
        self.stepping = False
        self.stop: Stop | None = None
        self.unreported = 0
        """The stop's code until a wait has told it."""
        self.listening = False
        self.message = 0
        """PTRACE_GETEVENTMSG."""
        self.stop_pending = False
        """The group is stopping and this task has not taken its part yet."""
        self.stop_signo = 0
        self.trap_stop = False
        self.trap_notify = False
        self.forced_tf = False
        """The trap flag is ours, not the program's."""
        self.exit_reported = False
        self.dead = False
        self.status = 0
        self.usage: Usage | None = None
        self.queue = WaitQueue()
        self.debug: DebugState = DebugRegisters()

    def __repr__(self) -> str:
        return f"<{self.task!r} traced by {self.tracer.tid}>"

    # Stopping and going on -----------------------------------------------------------------------

    def begin(self, stop: Stop, why: int = CLD_TRAPPED) -> bool:
        """The task stands still and the tracer hears of it. False: it is dying, and must go on."""
        task = self.task
        if task.work & WORK_EXIT and stop.code >> 8 != PTRACE_EVENT_EXIT:
            return False
        self.stop = stop
        self.unreported = stop.code
        self.listening = False
        self.hide_step()
        restart.show(task)
        task.stopped = stop.go_on is not None
        self.tell_tracer(why, stop.code & 0x7F)
        return True

    def hide_step(self) -> None:
        """The trap flag that we set is not the program's."""
        if self.forced_tf:
            self.task.ctx.regs[Reg.RFLAGS] &= ~X86_EFLAGS_TF
            self.forced_tf = False

    def _set_step(self) -> None:
        regs = self.task.ctx.regs
        if not regs[Reg.RFLAGS] & X86_EFLAGS_TF:
            regs[Reg.RFLAGS] |= X86_EFLAGS_TF
            self.forced_tf = True

    def arm(self) -> None:
        """With breakpoints in debug registers the task is always stepped, if it is traced still."""
        if self.debug.armed and self.task.trace is self:
            self._set_step()

    def stepped(self, task: Task) -> int:
        """A debug exception: the si_code of its SIGTRAP, or 0 if it was only for us."""
        hit = self.debug.look(task)
        ours = self.forced_tf and not self.stepping
        self.debug.status = hit | (0 if ours else DR6_STEP)
        if ours:
            return TRAP_HWBKPT if hit else 0
        return TRAP_TRACE

    def tell_tracer(self, why: int, status: int) -> None:
        """do_notify_parent_cldstop(): SIGCHLD unless it is not wanted; wake the tracer's wait."""
        group, task = self.tracer.group, self.task
        action = group.actions[SIGCHLD]
        if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
            info = SigInfo.waitid(why, task.tid, task.creds.uid, status)
            signal_send.send_to_group(group, info)
        group.child_queue.notify()

    def resume(self, mode: int, stepping: bool, signo: int) -> None:
        """PTRACE_CONT and its kin. Preconditions: in a stop."""
        self.mode = mode
        self.stepping = stepping
        self.leave(signo)

    def leave(self, signo: int) -> None:
        """End the stop; the task goes on when the loop comes to it."""
        stop, task = self.stop, self.task
        if stop is None:
            return
        self.stop = None
        self.unreported = 0
        self.listening = False
        if not stop.in_call:
            restart.take(task)
        if self.stepping:
            self._set_step()
        self.debug.look(task)  # what the tracer stored does not trap
        self.arm()
        go_on = stop.go_on
        if go_on is None:
            self.queue.notify()
            return

        def go() -> None:
            if task.work & WORK_EXIT:
                task_exit.exit_task(task)
            else:
                task.guarded(lambda: go_on(signo))

        task.stopped = False
        if (task.pending.mask | task.group.shared_pending.mask) & ~task.blocked:
            task.work |= WORK_SIGNAL
        task.kernel.loop.call_soon(go)

    def killed(self) -> None:
        """The task is to die: it leaves its stop without the tracer."""
        self.stop = None
        self.unreported = 0
        self.listening = False

    # Signals -------------------------------------------------------------------------------------

    def intercepts(self, task: Task, info: SigInfo) -> bool:
        """signal-delivery-stop: the tracer decides what becomes of a signal."""
        stop = Stop(info.signo, info, None)
        stop.go_on = lambda signo: self._deliver(stop, signo)
        return self.begin(stop)

    def _deliver(self, stop: Stop, signo: int) -> None:
        """ptrace_signal(): the signal, another, or none; one that is blocked waits again."""
        task, info = self.task, stop.info
        if not signo:
            info = None
        elif info is None or signo != info.signo:
            info = SigInfo.user(signo, self.tracer.group.tgid, self.tracer.creds.uid)
            info = signal_send.seen_by(info, task)
        if info is not None and task.blocked >> (signo - 1) & 1:
            task.pending.add(Queued(info))
            info = None
        task_signals.resume_from_delivery(task, info)

    def handler_entered(self) -> bool:
        """A frame was pushed: a task that is stepped stops at the handler's first instruction."""
        if not self.stepping:
            self.arm()
            return False
        info = SigInfo(SIGTRAP, SIGTRAP, _pid_uid(self.task))
        return self.begin(Stop(SIGTRAP, info, self._go_on_with_signal))

    def _go_on_with_signal(self, signo: int) -> None:
        """After a stop whose signal is sent, not injected (ptrace_report_syscall)."""
        self._send(signo)
        task_signals.return_to_user(self.task)

    def _send(self, signo: int) -> None:
        if signo:
            signal_send.send_to_task(self.task, SigInfo.kernel(signo), by=self.task)

    # Group stops and PTRACE_INTERRUPT ------------------------------------------------------------

    def group_stop(self, signo: int, running: bool) -> None:
        """The process is to stop; `running`: it is this task that took the signal."""
        self.stop_pending = True
        self.stop_signo = signo
        self.task.work |= WORK_STOP
        if self.seized:
            self.trap_notify = True
        if not running:
            self._wake()

    def continued(self) -> None:
        """SIGCONT: a task that was seized says so; another stays in its stop."""
        self.stop_pending = False
        if self.seized:
            self.trap_notify = True
            self.task.work |= WORK_STOP
            self._wake()
        elif not self.trap_stop:
            self.task.work &= ~WORK_STOP

    def interrupt(self) -> None:
        """PTRACE_INTERRUPT."""
        self.trap_stop = True
        self.task.work |= WORK_STOP
        self._wake()

    def listen(self) -> bool:
        """PTRACE_LISTEN: stay, but show what happens. False: this is no PTRACE_EVENT_STOP."""
        stop = self.stop
        if stop is None or stop.info is None or stop.info.code >> 8 != PTRACE_EVENT_STOP:
            return False
        self.listening = True
        if self.trap_notify:
            self._wake()
        return True

    def _wake(self) -> None:
        """ptrace_signal_wake_up(): a task in a stop stays there unless it listens."""
        if self.stop is None:
            self.task.interrupt()
        elif self.listening:
            self.leave(0)

    def jobctl(self, task: Task) -> bool:
        """do_jobctl_trap(): a group stop, or the trap that was asked for. False: go on."""
        task.work &= ~WORK_STOP
        participates = self.stop_pending
        stopping = task.group.stopping
        wanted = participates or self.trap_stop or (self.seized and self.trap_notify)
        self.stop_pending = self.trap_stop = False
        if not wanted or (not self.seized and not stopping):
            return False
        signo = (self.stop_signo or stopping) if stopping else SIGTRAP
        if self.seized:
            self.trap_notify = False
            code = event_code(PTRACE_EVENT_STOP, signo)
            stop = Stop(code, SigInfo(signo, code, _pid_uid(task)), self._go_on)
        else:
            stop = Stop(signo, None, self._go_on)
        if not self.begin(stop, CLD_STOPPED):
            return False
        task_stops.complete_if_all_stand(task.group, task)
        return True

    def _go_on(self, _: int) -> None:
        task_signals.return_to_user(self.task)

    def untold(self) -> int:
        """The code of a stop that a wait may tell now, else 0."""
        return 0 if self.stop is None or self.listening else self.unreported

    def told(self) -> None:
        """A wait has told the stop."""
        self.unreported = 0

    def stands(self) -> bool:
        """The group stop does not have to wait for this task."""
        return not self.stop_pending

    def reports_to(self, group: object) -> bool:
        """The tracer is a thread of this process."""
        return self.tracer.group is group

    # Calls ---------------------------------------------------------------------------------------

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> Any:
        """syscall-enter-stop."""
        if self.mode == CONT:
            return None
        self.message = PTRACE_EVENTMSG_SYSCALL_ENTRY
        emulated = self.mode == SYSEMU

        def go_on(signo: int) -> None:
            self._send(signo)
            if emulated:
                task_signals.return_to_user(task)
            else:
                task.go_on_with_call(self)

        return GONE if self.begin(self._call_stop(go_on, True)) else None

    def left(self, task: Task, result: Any) -> None:
        """Nothing: `call_left` is later, when the result is in its register."""

    def call_left(self, task: Task) -> bool:
        """syscall-exit-stop. False: the task goes on. syscall_exit_work()."""
        if self.debug.armed:
            self.debug.look(task)  # what the kernel itself stores does not trap
            self.arm()
        if self.mode == SYSCALL:
            self.message = PTRACE_EVENTMSG_SYSCALL_EXIT
            return self.begin(self._call_stop(self._go_on_with_signal, False))
        if self.stepping and self.mode == CONT:
            info = SigInfo.fault(SIGTRAP, TRAP_BRKPT, task.ctx.regs[Reg.RIP])
            signal_faults.force(task, info)
        return False

    def _call_stop(self, go_on: Callable[[int], None], in_call: bool) -> Stop:
        code = SIGTRAP | SYSGOOD if self.options & PTRACE_O_TRACESYSGOOD else SIGTRAP
        return Stop(code, SigInfo(SIGTRAP, code, _pid_uid(self.task)), go_on, in_call)

    def seccomp(self, task: Task, data: int) -> Any:
        """SECCOMP_RET_TRACE: ask the tracer, then look at the filters again."""
        if not self.wants(PTRACE_EVENT_SECCOMP) or task.ctx.exit != ExitKind.SYSCALL:
            return -ENOSYS.number
        self.message = data

        def go_on(_: int) -> None:
            state, regs = task.seccomp, task.ctx.regs
            assert state is not None
            number = regs[Reg.ORIG_RAX] & 0xFFFFFFFF
            if not number >> 31:
                values = tuple(
                    regs[r] for r in (Reg.RDI, Reg.RSI, Reg.RDX, Reg.R10, Reg.R8, Reg.R9)
                )
                found = state.result(number, regs[Reg.RIP], values)
                if found & SECCOMP_RET_ACTION_FULL != SECCOMP_RET_TRACE:
                    verdict = state.entered(task, number, values)
                    if verdict is not None:
                        if verdict is not GONE:
                            task.end_call(verdict)
                        return
            task.go_on_with_call(state)

        return GONE if self.begin(self._event_stop(PTRACE_EVENT_SECCOMP, go_on)) else None

    def suspends_seccomp(self) -> bool:
        """PTRACE_O_SUSPEND_SECCOMP."""
        return bool(self.options & PTRACE_O_SUSPEND_SECCOMP)

    # Events --------------------------------------------------------------------------------------

    def wants(self, event: int) -> bool:
        """The option of an event is set: its bit is the event's number."""
        return bool(self.options >> event & 1)

    def _event_stop(self, event: int, go_on: Callable[[int], None] | None) -> Stop:
        code = event_code(event)
        return Stop(code, SigInfo(SIGTRAP, code, _pid_uid(self.task)), go_on, True)

    async def event(self, event: int, message: int) -> None:
        """An event in the middle of a call, if the tracer wants it."""
        if not self.wants(event):
            return
        self.message = message
        stop = self._event_stop(event, None)
        if not self.begin(stop):
            return

        def resumed() -> None:
            if self.stop is stop:
                raise EAGAIN

        try:
            await until(resumed, [self.queue], mode=Mode.KILLABLE)
        finally:
            if self.stop is stop:
                self.killed()

    async def exec_stop(self, old_tid: int) -> None:
        """PTRACE_EVENT_EXEC, or the SIGTRAP of old for a task that was not seized."""
        self.debug.clear()
        if self.wants(PTRACE_EVENT_EXEC):
            await self.event(PTRACE_EVENT_EXEC, old_tid)
        elif not self.seized:
            task = self.task
            info = SigInfo.user(SIGTRAP, task.group.tgid, task.creds.uid)
            signal_send.send_to_task(task, info, by=task)

    def clone_event(self, flags: int, exit_signal: int) -> int:
        """Which event a clone(2) is, 0 if the tracer does not want it: kernel_clone()."""
        if flags & CLONE_UNTRACED:
            return 0
        if flags & CLONE_VFORK:
            event = PTRACE_EVENT_VFORK
        elif exit_signal != SIGCHLD:
            event = PTRACE_EVENT_CLONE
        else:
            event = PTRACE_EVENT_FORK
        return event if self.wants(event) else 0

    def inherited_by(self, child: Task, flags: int, exit_signal: int) -> int:
        """A child was made: it is traced likewise if the tracer wants the event, or by flag.

        Gives the event. ptrace_init_task(): the child stops before its first instruction.
        """
        event = self.clone_event(flags, exit_signal)
        if self.forced_tf:
            child.ctx.regs[Reg.RFLAGS] &= ~X86_EFLAGS_TF
        if event or flags & CLONE_PTRACE:
            tracee = Tracee(child, self.tracer, self.seized, self.options)
            links.link(tracee)
            if self.seized:
                tracee.trap_stop = True
                child.work |= WORK_STOP
            else:
                child.pending.add_bare(SIGSTOP)
                child.work |= WORK_SIGNAL
        return event

    def exit_stop(self, status: int) -> bool:
        """PTRACE_EVENT_EXIT, before anything of the task is taken apart."""
        task = self.task
        if self.exit_reported or not self.wants(PTRACE_EVENT_EXIT):
            return False
        init = task.kernel.init
        if init is None or init.is_zombie:
            return False
        self.exit_reported = True
        self.message = status
        return self.begin(self._event_stop(PTRACE_EVENT_EXIT, lambda _: task_exit.exit_task(task)))

    def release_exit_stop(self) -> None:
        """A further SIGKILL ends the stop of a dying task."""
        if self.stop is not None and self.stop.code >> 8 == PTRACE_EVENT_EXIT:
            self.leave(0)

    # The end -------------------------------------------------------------------------------------

    def task_exits(self, task: Task) -> None:
        """The thread is gone."""
        links.task_ended(self)

    def holds_group(self) -> bool:
        """The tracer must wait for the process before its parent may."""
        return self.tracer.group is not self.task.group.parent

    def group_ends(self) -> bool:
        """The process is gone; this was its leader. True: its parent does not hear of it yet."""
        return links.group_ended(self)

    def waited_for(self) -> None:
        """The tracer has taken the zombie."""
        links.waited_for(self)

    def drop(self) -> None:
        """Forget the tie: the process was waited for, or the leader was replaced by execve(2)."""
        links.unlink(self)

    def tracer_exits(self) -> None:
        """Set the task free, or kill it: PTRACE_O_EXITKILL."""
        links.tracer_ended(self)


def _pid_uid(task: Task) -> bytes:
    """ptrace_do_notify(): the siginfo names the task itself."""
    return SigInfo.user(SIGTRAP, task.own_tid, task.creds.shown_uid(task.creds.uid)).body

"""`Thread`: the dispatch of what the vCPU of a task reports.

A task is in ring 3, or inside a system call (perhaps asleep in its fiber), or stopped, or dead.
`on_exit` is where the loop hands it every exit of its context. A call that can finish at once does
so here; one that has to wait goes on in a fiber, and `_call_done` ends it. Everything on the way
back to ring 3 that is not the common case (signals, stops, death, restarts) is `return_to_user` in
task_signals.py, entered when `work` is set.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sentry.errors import ENOSYS, Errno
from sentry.kernel import task_exit, task_signals
from sentry.kernel.identity import child_identity
from sentry.kernel.task import GONE, RESUME, Observer, Task
from sentry.kernel.work import WORK_EXIT, WORK_TELL
from sentry.mm.errors import NeedsFault
from sentry.mm.faults import check_lock, fault
from sentry.platform.interface import Context, ExitKind, Reg
from sentry.wait.again import NotNow, finished
from sentry.wait.fiber import (
    Fiber,
    Interrupted,
    Killed,
    RestartBlock,
    RestartNoHand,
    RestartNoIntr,
)
from sentry.wait.sleep import Sleep

# r10 r9 r8 (rax rcx) rdx rsi rdi orig_rax out of struct user_regs_struct
_arguments = struct.Struct("<56x3Q16x4Q").unpack_from

RESTARTS = (Interrupted, RestartNoHand, RestartNoIntr, RestartBlock)


class Thread(Task):
    """A task that runs."""

    __slots__ = ()

    def ids_changed(self) -> None:
        """Its ids read differently now, because its user namespace got a map."""
        child_identity(self)

    def send_signal(self, signo: int) -> None:
        """A signal from the kernel for this thread (SIGPIPE, SIGXFSZ)."""
        task_signals.send_kernel(self, signo)

    def condemn(self) -> None:
        """It must die before it sees ring 3 again."""
        self.work |= WORK_EXIT
        if self.trace is not None:
            self.trace.killed()
        if self.stopped:
            self.stopped = False
            self.kernel.loop.call_soon(lambda: task_exit.exit_task(self))
        else:
            self.interrupt()

    # Exits ---------------------------------------------------------------------------------------

    def on_exit(self, ctx: Context) -> None:
        """The context came back: find out why and go on."""
        try:
            kind = ctx.exit
            if kind == 1:  # ExitKind.SYSCALL
                r10, r9, r8, rdx, rsi, rdi, number = _arguments(ctx.regs)
                if self.observers or self.work & WORK_EXIT:
                    self._observed_call(number & 0xFFFFFFFF, (rdi, rsi, rdx, r10, r8, r9))
                else:
                    self._call(number & 0xFFFFFFFF, rdi, rsi, rdx, r10, r8, r9)
            elif kind == ExitKind.FAULT:
                self.kernel.counters.faults += 1
                self.faults += 1
                self.used.minflt += 1
                if (meter := self.kernel.fault_meter) is None:
                    self._fault(ctx)
                else:
                    began_ns = time.monotonic_ns()
                    self._fault(ctx)
                    meter.count += 1
                    meter.add(time.monotonic_ns() - began_ns)
            elif kind == ExitKind.INTERRUPTED:
                self.finish()
            else:
                task_signals.exception(self, kind, ctx.vector, ctx.error_code)
        except NeedsFault as need:
            self._fault_waits(need)
        except Exception as error:  # a bug of ours costs this program, not the sandbox
            self._bug(error)

    def _call(self, number: int, a0: int, a1: int, a2: int, a3: int, a4: int, a5: int) -> None:
        calls = self.kernel.calls
        call = calls[number] if number < len(calls) else None
        if call is None:
            self.kernel.counters.unknown(number)
            self.end_call(-ENOSYS.number)
            return
        try:
            result = call(self, a0, a1, a2, a3, a4, a5)
        except Errno as error:
            result = -error.number
        except BaseException as error:
            self._raised(error)
            return
        if result is None:
            result = 0
        if type(result) is int:
            if self.work or self.observers:
                self.end_call(result)
            else:
                self.ctx.answer(result)
        elif result is RESUME or result is GONE:
            self.end_call(result)
        else:
            self.start(result)

    def start(self, coro: Any) -> None:
        """Go on with a call that may sleep."""
        self.sleeps += 1
        self.used.nvcsw += 1
        loop = self.kernel.loop
        fiber: Fiber
        if isinstance(coro, Sleep):
            fiber = self.fiber = coro
            coro.begin(loop, self, self._call_done)
        else:
            fiber = self.fiber = loop.fiber(coro, self, self._call_done)
            fiber.run()  # to its sleep, which needs no turn of the loop
        if self.work & ~WORK_TELL and self.fiber is fiber:
            task_signals.wake_for_work(self)

    def _call_done(self, result: Any, error: BaseException | None) -> None:
        self.fiber = None
        try:
            if error is None:
                if result is None:
                    result = 0
                if self.work or self.observers or type(result) is not int:
                    self.end_call(result)
                else:
                    self.ctx.answer(result)
            elif isinstance(error, Errno):
                self.end_call(-error.number)
            else:
                self._raised(error)
        except Exception as bug:  # nobody but the loop of the sandbox would hold it
            self._bug(bug)

    def _raised(self, error: BaseException) -> None:
        """A handler ended with something that is no errno."""
        if isinstance(error, NotNow):
            self.start(finished(error, self._again))
        elif isinstance(error, RESTARTS):
            self.restart = error
            self.end_call(-4)
        elif isinstance(error, Killed):
            task_exit.exit_task(self)
        else:
            self._bug(error)

    def _again(self) -> Any:
        """The call from its start, with what the registers say."""
        r10, r9, r8, rdx, rsi, rdi, number = _arguments(self.ctx.regs)
        call = self.kernel.calls[number & 0xFFFFFFFF]
        assert call is not None
        return call(self, rdi, rsi, rdx, r10, r8, r9)

    def _bug(self, error: BaseException) -> None:
        """An exception of ours: log it, the program dies of SIGSYS, the sandbox lives."""
        self.kernel.log.bug(f"{self!r}", error)
        self.group.exit(31)
        self.finish()

    def end_call(self, result: Any) -> None:
        """A system call is over: its observers hear of it, then the way back."""
        if self.observers:
            for observer in self.observers:
                observer.left(self, result)
        if result is GONE:
            return
        if result is not RESUME:
            self.ctx.regs[Reg.RAX] = result & 0xFFFFFFFFFFFFFFFF
        if self.trace is not None:
            if not self.trace.call_left(self):
                task_signals.return_to_user(self)  # with all registers: a tracer may change any
            return
        if result is RESUME and not self.work:
            self.ctx.resume()
            return
        if self.work or self.restart is not None:
            task_signals.return_to_user(self)
        else:
            self.ctx.answer(result)

    def finish(self) -> None:
        """Go on in ring 3 with all registers, after what has to be done first."""
        if self.work or self.restart is not None:
            task_signals.return_to_user(self)
        else:
            self.ctx.resume()

    def _observed_call(self, number: int, values: tuple[int, ...]) -> None:
        """A call that somebody looks at: strace, seccomp, ptrace; or a dying task's last one."""
        if self.work & WORK_EXIT:
            task_exit.exit_task(self)
            return
        for observer in self.observers:
            verdict = observer.entered(self, number, values)
            if verdict is not None:
                if verdict is not GONE:
                    self.end_call(verdict)
                return
        self._call(number, *values)

    def go_on_with_call(self, after: Observer) -> None:
        """A tracer held a call back at its beginning: what the registers say now is done.

        `after` is the observer that took over; those behind it come next. Number -1 is no call.
        """
        r10, r9, r8, rdx, rsi, rdi, number = _arguments(self.ctx.regs)
        number &= 0xFFFFFFFF
        if number == 0xFFFFFFFF:
            result = self.ctx.regs[Reg.RAX]
            self.end_call(result - (1 << 64) if result >> 63 else result)
            return
        values = (rdi, rsi, rdx, r10, r8, r9)
        observers = self.observers
        if after in observers:
            rest = observers[observers.index(after) + 1 :]
        else:  # it let go of the task meanwhile
            rest = [self.seccomp] if self.seccomp is not None else []
        for observer in rest:
            verdict = observer.entered(self, number, values)
            if verdict is not None:
                if verdict is not GONE:
                    self.end_call(verdict)
                return
        self._call(number, *values)

    def guarded(self, step: Callable[[], object]) -> None:
        """Go on from outside of `on_exit`: a bug of ours costs this program there, too."""
        try:
            step()
        except Exception as error:
            self._bug(error)

    # Faults --------------------------------------------------------------------------------------

    def _fault(self, ctx: Context) -> None:
        try:
            check_lock(self.mm.map)
            fault(self.mm.map, ctx.fault_addr, ctx.error_code)
        except NeedsFault as need:
            self._fault_waits(need)
            return
        except Exception as error:
            self._fault_failed(error)
            return
        if self.work:
            task_signals.return_to_user(self)
        else:
            ctx.resume()

    def _fault_waits(self, need: NeedsFault) -> None:
        self.fiber = self.kernel.loop.spawn(need.wait(), "fault", self._fault_done)
        if self.work & ~WORK_TELL:  # it came while the fault was on its way here
            task_signals.wake_for_work(self)

    def _fault_done(self, _: Any, error: BaseException | None) -> None:
        self.fiber = None
        self.guarded(partial(self._go_on_after_fault, error))

    def _go_on_after_fault(self, error: BaseException | None) -> None:
        if isinstance(error, Killed):
            task_exit.exit_task(self)
        elif error is not None and not isinstance(error, Interrupted):
            self._fault_failed(error)
        else:
            self.finish()

    def _fault_failed(self, error: BaseException) -> None:
        try:
            known = task_signals.fault(self, error, self.ctx.fault_addr, self.ctx.error_code)
        except NeedsFault as need:
            self._fault_waits(need)
            return
        if not known:
            self._bug(error)

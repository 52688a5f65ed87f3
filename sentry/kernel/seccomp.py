"""The filters that a program puts on itself: an observer that runs them before every call.

One `Seccomp` is the whole state of a task (mode and filters) and never changes: a further filter
makes a new one, so tasks share it over clone. Filters know the older ones, as in kernel/seccomp.c:
whoever has filters in common shares them.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.seccomp import (
    AUDIT_ARCH_X86_64,
    SECCOMP_MODE_DISABLED,
    SECCOMP_MODE_FILTER,
    SECCOMP_MODE_STRICT,
    SECCOMP_RET_ACTION_FULL,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_DATA,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
)
from sentry.abi.signal import SIGKILL, SIGSYS, SYS_SECCOMP
from sentry.abi.unistd import exit as nr_exit
from sentry.abi.unistd import read, rt_sigreturn, write
from sentry.bpf.filter import LOOKED, PLACE_SHIFT, CallFilter
from sentry.errors import EBUSY, EINVAL, ENOMEM, ENOSYS
from sentry.kernel import signal_faults, task_exit
from sentry.kernel.identity import child_identity
from sentry.kernel.signals import SigInfo
from sentry.kernel.task import GONE, Filtering
from sentry.kernel.work import WORK_EXIT
from sentry.platform.interface import ExitKind, Reg
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.kernel.seccomp_listener import Listener
    from sentry.kernel.task import Task

STRICT_CALLS: Final = frozenset({read, write, nr_exit, rt_sigreturn})
MAX_ERRNO: Final = 4095
MAX_PATH: Final = 32768
"""MAX_INSNS_PER_PATH: instructions of all filters of a task, as Linux translates them. All run for
each call, so it bounds that, too."""
FILTER_COST: Final = 4
"""What each older filter counts beside."""
RESULT: Final = SECCOMP_RET_ACTION_FULL | SECCOMP_RET_DATA
CACHED_NUMBERS: Final = 512
"""What is always allowed is known of numbers below this one."""

AVAILABLE: Final = frozenset({
    SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
    SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF,
})  # fmt: skip
"""Actions that there are."""


class Seccomp(Filtering):
    """A mode and the filters, the newest first. Immutable but for its cache."""

    def __init__(
        self, mode: int, newest: CallFilter | None = None, listener: Listener | None = None
    ) -> None:
        self.mode = mode
        self.newest = newest
        self.depth = 0 if newest is None else newest.depth
        self.listener = listener
        """Who answers for SECCOMP_RET_USER_NOTIF: one of the filters at most has such."""
        self._allowed = bytearray(CACHED_NUMBERS)
        """By number: whatever the arguments, the call is allowed. seccomp_cache_prepare()."""

    def with_filter(self, new: CallFilter, listener: Listener | None = None) -> Seccomp:
        """One more filter, perhaps with a listener. Raises: ENOMEM."""
        size = new.converted
        if self.newest is not None:
            size += self.newest.path + FILTER_COST
        if size > MAX_PATH:
            raise ENOMEM(f"filters of {size} instructions")
        if self.newest is not None:
            new.put_before(self.newest, FILTER_COST)
        return Seccomp(SECCOMP_MODE_FILTER, new, listener or self.listener)

    def result(self, number: int, ip: int, values: tuple[int, ...]) -> int:
        """Run all filters; the strictest action counts, of equal ones the newest filter's."""
        if self.newest is None or (number < CACHED_NUMBERS and self._allowed[number]):
            return SECCOMP_RET_ALLOW
        found = self.newest.run(_signed(number), AUDIT_ARCH_X86_64, ip, values)
        result = found & RESULT
        if result == SECCOMP_RET_ALLOW and not found & LOOKED and number < CACHED_NUMBERS:
            self._allowed[number] = 1
        return result

    # The observer --------------------------------------------------------------------------------

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> Any:
        """__secure_computing: None lets the call go on."""
        if task.trace is not None and task.trace.suspends_seccomp():
            return None
        if self.mode == SECCOMP_MODE_STRICT:
            return None if number in STRICT_CALLS else end_thread(task, SIGKILL)
        result = self.result(number, task.ctx.regs[Reg.RIP], values)
        action, data = result & SECCOMP_RET_ACTION_FULL, result & SECCOMP_RET_DATA
        if action in (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG):
            return None
        if action == SECCOMP_RET_ERRNO:
            return -min(data, MAX_ERRNO)
        if action == SECCOMP_RET_TRAP:
            regs = task.ctx.regs
            info = SigInfo.sigsys(
                SYS_SECCOMP, regs[Reg.RIP], _signed(number), AUDIT_ARCH_X86_64, data
            )
            signal_faults.force(task, info)
            return regs[Reg.ORIG_RAX]  # syscall_rollback: the handler finds the number in rax
        if action == SECCOMP_RET_TRACE:
            return self._trace(task, data)
        if action == SECCOMP_RET_USER_NOTIF:
            return self._notify(task, number, values)
        if action == SECCOMP_RET_KILL_THREAD:
            return end_thread(task, SIGSYS)
        return end_process(task)

    def exited(self, task: Task, status: int) -> None:
        """A thread has ended: a listener may have nobody left to listen to.

        A zombie has no filters, only their number (since Linux 6.11).
        """
        if self.listener is not None:
            self.listener.user_left()
        task.observers.remove(self)
        task.seccomp = Seccomp(self.mode)
        task.seccomp.depth = self.depth

    def _notify(self, task: Task, number: int, values: tuple[int, ...]) -> Any:
        """Let the listener of the filter that decided answer, which may be to go on.

        Not to a call into the vsyscall page, which is emulated in a step: ENOSYS.
        """
        listener = self.listener
        data = (_signed(number), AUDIT_ARCH_X86_64, task.ctx.regs[Reg.RIP], *values)
        if (
            listener is None
            or not listener.has_room()
            or task.ctx.exit != ExitKind.SYSCALL
            or self._decider(data) is not listener.program
        ):
            return -ENOSYS.number

        async def ask() -> Any:
            note = await listener.ask(task, data)
            if not note.go_on:
                return note.answer
            here = [each is task.seccomp for each in task.observers].index(True)  # by now
            later = task.observers[here + 1 :]
            for observer in later:
                verdict = observer.entered(task, number, values)
                if verdict is not None:
                    return verdict
            call = task.kernel.calls[number] if number < len(task.kernel.calls) else None
            if call is None:
                raise ENOSYS(f"call {number}")
            return await again(call, task, *values)

        task.start(ask())
        return GONE

    def _decider(self, data: tuple[int, ...]) -> CallFilter | None:
        """The filter whose answer counts."""
        if self.newest is None:
            return None
        place = self.newest.run(data[0], data[1], data[2], data[3:]) >> PLACE_SHIFT
        return next(islice(self.newest, place, None), None)

    def _trace(self, task: Task, data: int) -> Any:
        """Ask the tracer: `Task.trace.seccomp(task, data)` gives a verdict as `entered` does."""
        return -ENOSYS.number if task.trace is None else task.trace.seccomp(task, data)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def end_process(task: Task) -> object:
    """All threads die of SIGSYS; no handler and no tracer holds it off."""
    task.group.exit(SIGSYS)
    task.work |= WORK_EXIT
    task_exit.exit_task(task)
    return GONE


def end_thread(task: Task, signo: int) -> object:
    """do_exit(signo): this thread goes; the last one takes the process along."""
    if all(other.dead for other in task.group.tasks if other is not task):
        task.group.exit(signo)
    elif task is task.group.leader and not task.group.exiting:
        task.group.exit_status = signo
    task.exit_code = signo
    task.work |= WORK_EXIT
    task_exit.exit_task(task)
    return GONE


def current(task: Task) -> Seccomp:
    """The task's state; without seccomp: one that allows everything."""
    state = task.seccomp
    return state if isinstance(state, Seccomp) else Seccomp(SECCOMP_MODE_DISABLED)


def put(task: Task, state: Seccomp) -> None:
    """Replace the task's state; from now on the entry code answers nothing by itself."""
    old = task.seccomp
    if old is None:
        task.observers.append(state)
    else:
        task.observers[task.observers.index(old)] = state
    task.seccomp = state
    child_identity(task)


def set_strict(task: Task) -> None:
    """SECCOMP_MODE_STRICT. Raises: EINVAL with filters."""
    if current(task).mode == SECCOMP_MODE_FILTER:
        raise EINVAL("filters are in place")
    put(task, Seccomp(SECCOMP_MODE_STRICT))


def add_filter(
    task: Task, program: CallFilter, *, every_thread: bool = False, listener: Listener | None = None
) -> int:
    """Put a filter on; with `every_thread` (TSYNC) on the whole process, or on nobody.

    Gives 0, or the id of a thread with filters of its own. Raises: EBUSY, EINVAL, ENOMEM.
    """
    state = current(task)
    if listener is not None and state.listener is not None:
        raise EBUSY("there is a listener")
    if state.mode == SECCOMP_MODE_STRICT:
        raise EINVAL("strict mode")
    new = state.with_filter(program, listener)
    others = [t for t in task.group.tasks if t is not task and not t.dead] if every_thread else []
    mine = {None, *(state.newest or ())} if others else set()
    for other in others:
        theirs = current(other)
        if theirs.mode == SECCOMP_MODE_STRICT or theirs.newest not in mine:  # is_ancestor()
            return task.pids.of(other.tid)
    put(task, new)
    for other in others:
        put(other, new)
        other.no_new_privs = other.no_new_privs or task.no_new_privs
    return 0

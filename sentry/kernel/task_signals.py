"""Signals as a task meets them on its way back to ring 3: stops, deliveries, restarts.

`return_to_user` is the slow way back; the order of its steps is that of exit_to_user_mode_loop and
arch_do_signal_or_restart. Sending is in signal_send.py, exceptions in signal_faults.py, the frame
in signal_frame.py; what other rooms need of them is named here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sentry.abi.signal import (
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIGALRM,
    SIGKILL,
    SIGSEGV,
    SIGSTOP,
)
from sentry.errors import EFAULT, EINTR
from sentry.kernel import pause, signal_frame, task_exit, task_stops
from sentry.kernel.signal_faults import exception, fault, force, is_shortage, raise_fault
from sentry.kernel.signal_send import (
    may_signal,
    recalculate,
    send_kernel,
    send_to_group,
    send_to_task,
    set_blocked,
)
from sentry.kernel.signals import (
    DUMPING,
    EVERY,
    IGNORED_BY_DEFAULT,
    SIG_DFL,
    SIG_IGN,
    STOPPING,
    Action,
    Queued,
    SigInfo,
)
from sentry.kernel.work import WORK_EXIT, WORK_PAUSE, WORK_SIGNAL, WORK_STOP, WORK_TELL
from sentry.mm.errors import NeedsFault
from sentry.platform.interface import Reg
from sentry.wait.again import NotNow
from sentry.wait.fiber import (
    Interrupted,
    Killed,
    RestartBlock,
    RestartNoHand,
    RestartNoIntr,
)
from sentry.wait.sleep import ended

if TYPE_CHECKING:
    from sentry.kernel.task import Task

__all__ = [
    "exception", "fault", "force", "force_segv", "masked", "may_signal", "recalculate",
    "resume_from_delivery", "return_to_user", "send_kernel", "send_to_group", "send_to_task",
    "set_blocked", "take", "take_for", "wake_for_work",
]  # fmt: skip

SYS_RESTART_SYSCALL = 219
SYSCALL_SIZE = 2
"""Bytes of the `syscall` instruction."""
UINT64 = (1 << 64) - 1
EINTR_RESULT = -EINTR.number & UINT64
PF_WRITE = 2


def return_to_user(task: Task) -> None:
    """Do what `task.work` and `task.restart` ask for, then go on in ring 3.

    Entered with canonical registers, RAX the result of the call if one has ended. May end with the
    task stopped, dying, or asleep in a fault of its stack; each of them comes back here.
    """
    while True:
        work = task.work
        if work & WORK_EXIT:
            task_exit.exit_task(task)
            return
        if work & WORK_PAUSE:
            if pause.hold(task):
                return
            continue
        if work & WORK_TELL:
            if task.kernel.crowds.hold(task, _return_later):
                return
            continue
        if work & WORK_STOP:
            if task_stops.stop(task):
                return
            continue
        if work & WORK_SIGNAL:
            entry = take(task, ~task.blocked & EVERY)
            if entry is not None:
                if not _deliver(task, entry):
                    return
                continue
            task.work &= ~WORK_SIGNAL
        if task.restart is not None:
            _restart(task)
        if task.saved_mask is None:
            break
        mask, task.saved_mask = task.saved_mask, None
        set_blocked(task, mask)
    task.ctx.resume()


def _return_later(task: Task) -> None:
    """The same, after something else than an exit."""
    task.guarded(lambda: return_to_user(task))


def wake_for_work(task: Task) -> None:
    """A call was put to sleep although there is work: its next sleep that may end, ends."""
    task.interrupt()


def take(task: Task, wanted: int) -> Queued | None:
    """Dequeue the next signal out of the set: exceptions, then the thread's, then the process's."""
    pending, shared = task.pending, task.group.shared_pending
    if pending.mask & wanted:
        entry = pending.take(wanted)
    elif shared.mask & wanted:
        entry = shared.take(wanted)
        if entry is not None and entry.info.signo == SIGALRM and task.group.timers is not None:
            task.group.timers.alarm_taken()
    else:
        return None
    if entry is not None and entry.on_taken is not None:
        return entry._replace(info=entry.on_taken(entry.info))
    return entry


def take_for(task: Task, wanted: int, tell: Callable[[SigInfo], int]) -> int:
    """What `tell` makes of the next signal of the set, which is taken; 0: there is none.

    One that cannot be told yet (NotNow) is not lost: the call is made again.
    """
    entry = take(task, wanted)
    if entry is None:
        return 0
    try:
        told = tell(entry.info)
    except NotNow:
        task.pending.put_back(entry)
        raise
    finally:
        recalculate(task)
    return told


def _deliver(task: Task, entry: Queued) -> bool:
    """Act on one signal. False: the task does not go on now."""
    trace = task.trace
    if trace is not None and entry.info.signo != SIGKILL and trace.intercepts(task, entry.info):
        return False
    return _act(task, entry)


def resume_from_delivery(task: Task, info: SigInfo | None) -> None:
    """The tracer has decided what becomes of the signal that it intercepted: ptrace(2)."""
    if info is None or _act(task, Queued(info)):
        return_to_user(task)


def _act(task: Task, entry: Queued) -> bool:
    for observer in task.observers:
        observer.signalled(task, entry.info)
    if (watch := task.kernel.watch) is not None:
        watch.signalled(task, entry.info)
    action = task.group.actions[entry.info.signo]
    if action.handler == SIG_IGN:
        return True
    if action.handler == SIG_DFL:
        return _default(task, entry)
    return _handle(task, entry, action)


def _default(task: Task, entry: Queued) -> bool:
    """The default action of a signal, signal(7). False: the task dumps core and then ends."""
    group, signo = task.group, entry.info.signo
    bit = 1 << (signo - 1)
    if bit & IGNORED_BY_DEFAULT:
        return True
    if group.pids.protects(group) and not entry.forced and signo not in (SIGKILL, SIGSTOP):
        return True
    if bit & STOPPING:
        if signo == SIGSTOP or not group.process_group.is_orphaned():
            task_stops.start_group_stop(task, signo)
        return True
    if bit & DUMPING:
        from sentry.kernel import core_dump  # noqa: PLC0415  few programs crash

        if core_dump.start(task, entry.info):
            return False
    group.exit(signo)
    return True


def _handle(task: Task, entry: Queued, action: Action) -> bool:
    """Call the program's handler: decide about the interrupted call, push the frame."""
    restart = task.restart
    if restart is not None:
        task.restart = None
        if isinstance(restart, RestartNoIntr) or (
            isinstance(restart, Interrupted) and action.flags & SA_RESTART
        ):
            _again(task, None)
        else:
            task.ctx.regs[Reg.RAX] = EINTR_RESULT
    mask = task.blocked if task.saved_mask is None else task.saved_mask
    if task.trace is not None:
        task.trace.hide_step()
    try:
        signal_frame.push(task, entry.info, action, mask)
    except NeedsFault as need:
        task.pending.put_back(entry)
        _fetch_stack(task, need)
        return False
    except EFAULT:
        force_segv(task, entry.info.signo)
        return True
    task.saved_mask = None
    signo = entry.info.signo
    if action.flags & SA_RESETHAND:
        task.group.actions[signo] = action._replace(handler=SIG_DFL)
    blocked = task.blocked | action.mask
    if not action.flags & SA_NODEFER:
        blocked |= 1 << (signo - 1)
    if blocked != task.blocked:
        set_blocked(task, blocked)
    return task.trace is None or not task.trace.handler_entered()


def _fetch_stack(task: Task, need: NeedsFault) -> None:
    """The page under the frame has to be read first; then deliver again."""

    def done(_: Any, error: BaseException | None) -> None:
        task.fiber = None
        if error is not None and not isinstance(error, (Interrupted, Killed)):
            _no_stack(task, error)
        recalculate(task)
        _return_later(task)

    task.fiber = task.kernel.loop.spawn(need.wait(), "signal stack", done)


def _no_stack(task: Task, error: BaseException) -> None:
    if is_shortage(error):
        task.kernel.out_of_memory(task)
    elif not raise_fault(task, error, task.ctx.regs[Reg.RSP], PF_WRITE):
        task.kernel.log.bug(f"signal stack of {task!r}", error)
        task.group.exit(SIGKILL)


def force_segv(task: Task, signo: int) -> None:
    """The frame of `signo` cannot be written or is bad (force_sigsegv)."""
    force(task, SigInfo.kernel(SIGSEGV), fatal=signo == SIGSEGV)


def _restart(task: Task) -> None:
    """No handler ran: the interrupted call starts again, or restart_syscall(2) goes on with it."""
    restart, task.restart = task.restart, None
    if isinstance(restart, RestartBlock):
        task.restart_block = restart.again
        _again(task, SYS_RESTART_SYSCALL)
    elif isinstance(restart, (Interrupted, RestartNoHand, RestartNoIntr)):
        _again(task, None)


def _again(task: Task, number: int | None) -> None:
    regs = task.ctx.regs
    regs[Reg.RAX] = regs[Reg.ORIG_RAX] if number is None else number
    regs[Reg.RIP] = (regs[Reg.RIP] - SYSCALL_SIZE) & UINT64  # a tracer may have put anything there


def masked(task: Task, mask: int | None, call: Callable[[], Any]) -> Any:
    """ppoll(2), pselect(2), epoll_pwait(2): sleep with another signal mask.

    At a normal end the old mask is back. When a signal ends the call it comes back only after the
    delivery (`return_to_user`), so that the handler of a signal which `mask` lets in does run.
    """
    if mask is None:
        return call()
    task.saved_mask = task.blocked
    set_blocked(task, mask)
    if task.work & ~WORK_TELL and task.fiber is not None:
        wake_for_work(task)

    def end(finish: Callable[[], Any]) -> Any:
        try:
            result = finish()
        except (Interrupted, RestartNoHand, RestartBlock, EINTR, Killed):
            task.work |= WORK_SIGNAL
            raise
        except BaseException:
            _restore_mask(task)
            raise
        _restore_mask(task)
        return result

    return ended(call, end)


def _restore_mask(task: Task) -> None:
    mask, task.saved_mask = task.saved_mask, None
    if mask is not None:
        set_blocked(task, mask)

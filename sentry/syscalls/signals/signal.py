"""What a task does about signals: rt_sigaction(2), masks, waiting for signals, sigreturn."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from sentry.abi.signal import (
    SA_EXPOSE_TAGBITS,
    SA_NOCLDSTOP,
    SA_NOCLDWAIT,
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTART,
    SA_RESTORER,
    SA_SIGINFO,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
)
from sentry.abi.time import TIMESPEC
from sentry.clock import MAX_NS
from sentry.errors import EAGAIN, EFAULT, EINTR, EINVAL
from sentry.kernel import altstack, signal_frame, task_signals
from sentry.kernel.clocks import NS
from sentry.kernel.signals import NSIG, UNBLOCKABLE, Action
from sentry.kernel.task import RESUME, Task
from sentry.platform.interface import Reg
from sentry.syscalls.args import show_choice, signed
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Signal, Size
from sentry.vfs.file import Result
from sentry.wait.fiber import Interrupted, TimedOut
from sentry.wait.sleep import Sleep, instead, never, no_hand, until
from sentry.wait.steps import Steps, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.signals import SigInfo
    from sentry.kernel.thread_group import ProcessTimer

How = Annotated[
    int,
    signed(32, show_choice({"SIG_BLOCK": 0, "SIG_UNBLOCK": 1, "SIG_SETMASK": 2})),
]

SIGSET_SIZE = 8
KNOWN_FLAGS = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND
    | SA_RESTORER | SA_EXPOSE_TAGBITS
)  # fmt: skip
"""UAPI_SA_FLAGS: others are dropped, so that a program can see what is supported."""

_sigset = struct.Struct("<Q")
_action = struct.Struct("<QQQQ")
_altstack = struct.Struct("<QI4xQ")


@syscall(13)
def sys_rt_sigaction(task: Task, signo: Signal, new: Addr, old: Addr, size: Size) -> Result:
    """sigaction(2)."""
    if size != SIGSET_SIZE:
        raise EINVAL(f"sigset_t of {size} bytes")
    fields = _action.unpack(task.mm.read(new, 32)) if new else None
    if not 1 <= signo <= NSIG or (new and UNBLOCKABLE >> (signo - 1) & 1):
        raise EINVAL(f"signal {signo}")
    group = task.group
    if old:
        task.mm.write(old, _action.pack(*group.actions[signo]))
    if fields is None:
        return 0
    handler, flags, restorer, mask = fields
    group.actions[signo] = Action(handler, flags & KNOWN_FLAGS, restorer, mask & ~UNBLOCKABLE)
    timers = [timer for timer in group.posix_timers.values() if timer.signo == signo]
    if not (handler <= 1 and group.actions.ignores(signo)):
        return in_steps(_wanted(timers)) if timers else 0
    for timer in timers:
        timer.ignored()
    bit = 1 << (signo - 1)
    group.shared_pending.discard(bit)
    for member in group.tasks:
        member.pending.discard(bit)
    return 0


def _wanted(timers: list[ProcessTimer]) -> Steps[None]:
    for timer in timers:
        timer.wanted()
        yield


@syscall(14)
def sys_rt_sigprocmask(task: Task, how: How, new: Addr, old: Addr, size: Size) -> None:
    """sigprocmask(2)."""
    if size != SIGSET_SIZE:
        raise EINVAL(f"sigset_t of {size} bytes")
    blocked = task.blocked
    if new:
        mask = int.from_bytes(task.mm.read(new, 8), "little")
        if how == SIG_BLOCK:
            mask |= blocked
        elif how == SIG_UNBLOCK:
            mask = blocked & ~mask
        elif how != SIG_SETMASK:
            raise EINVAL(f"how {how}")
        if old:
            task.mm.write(old, blocked.to_bytes(8, "little"))
        if mask != blocked:
            task_signals.set_blocked(task, mask)
    elif old:
        task.mm.write(old, blocked.to_bytes(8, "little"))


@syscall(15)
def sys_rt_sigreturn(task: Task) -> object:
    """sigreturn(2): a bad frame is SIGSEGV."""
    try:
        mask, intact = signal_frame.pop(task)
    except EFAULT:
        task_signals.force_segv(task, 0)
        return RESUME
    task.restart_block = None
    if mask != task.blocked:
        task_signals.set_blocked(task, mask)
    if not intact:
        task_signals.force_segv(task, 0)
    return RESUME


@syscall(127)
def sys_rt_sigpending(task: Task, result: Addr, size: Size) -> None:
    """sigpending(2)."""
    if size > SIGSET_SIZE:
        raise EINVAL(f"sigset_t of {size} bytes")
    pending = (task.pending.mask | task.group.shared_pending.mask) & task.blocked
    task.mm.write(result, _sigset.pack(pending)[:size])


def read_mask(task: Task, addr: int, size: int) -> int:
    """A sigset_t argument without what cannot be blocked. EINVAL, EFAULT."""
    if size != SIGSET_SIZE:
        raise EINVAL(f"sigset_t of {size} bytes")
    (mask,) = _sigset.unpack(task.mm.read(addr, SIGSET_SIZE))
    return int(mask) & ~UNBLOCKABLE


@syscall(130)
def sys_rt_sigsuspend(task: Task, mask: Addr, size: Size) -> Sleep:
    """sigsuspend(2)."""
    result: Sleep = task_signals.masked(task, read_mask(task, mask, size), until_signal)
    return result


@syscall(34)
def sys_pause(task: Task) -> Sleep:
    """pause(2)."""
    return until_signal()


def until_signal() -> Sleep:
    """Sleep until a signal comes."""
    return until(never, ()).tried().ended(no_hand)


@syscall(128)
def sys_rt_sigtimedwait(task: Task, wanted: Addr, info: Addr, timeout: Addr, size: Size) -> Any:
    """sigtimedwait(2): a signal of the set that is pending is taken at once."""
    mask = read_mask(task, wanted, size)
    deadline_ns = None
    if timeout:
        sec, nsec = TIMESPEC.unpack(task.mm.read(timeout, TIMESPEC.size))
        if sec < 0 or not 0 <= nsec < NS:
            raise EINVAL("timeout")
        wait_ns = sec * NS + nsec
        deadline_ns = min(task.kernel.clock.now_ns() + wait_ns, MAX_NS)
    tell = partial(_tell, task, info)
    if signo := task_signals.take_for(task, mask, tell):
        return signo
    if deadline_ns is not None and not wait_ns:
        raise EAGAIN("no signal")
    return _wait_for(task, mask, tell, deadline_ns)


def _wait_for(
    task: Task, mask: int, tell: Callable[[SigInfo], int], deadline_ns: int | None
) -> Sleep:
    def attempt() -> int:
        if not (signo := task_signals.take_for(task, mask, tell)):
            raise EAGAIN
        return signo

    def interrupted() -> int | EINTR:
        # a signal of the set that is not blocked both wakes and is the answer
        try:
            return attempt()
        except EAGAIN:
            return EINTR()

    sleep = until(attempt, (task.group.signal_queue,), deadline_ns=deadline_ns).tried()
    sleep.timed_by_programs()
    return sleep.ended(instead(TimedOut, EAGAIN)).ended(instead(Interrupted, interrupted))


def _tell(task: Task, addr: int, info: SigInfo) -> int:
    if addr:
        task.mm.write(addr, info.pack())
    return info.signo


@syscall(131)
def sys_sigaltstack(task: Task, new: Addr, old: Addr) -> None:
    """sigaltstack(2)."""
    fields = _altstack.unpack(task.mm.read(new, _altstack.size)) if new else None
    sp = task.ctx.regs[Reg.RSP]
    shown = altstack.show(task, sp)
    before = task.altstack
    if fields is not None:
        base, flags, size = fields
        altstack.change(task, base, flags, size, sp)
    if old:
        try:
            task.mm.write(old, _altstack.pack(*shown))
        except BaseException:
            task.altstack = before
            raise


@syscall(219)
def sys_restart_syscall(task: Task) -> Any:
    """restart_syscall(2): go on with a call that a stop or a traced signal interrupted."""
    again, task.restart_block = task.restart_block, None
    if again is None:
        raise EINTR("nothing to restart")
    return again()

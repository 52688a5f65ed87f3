"""ptrace(2): who traces whom, and how a stopped task goes on. Looking into it: ptrace_data.py."""

from __future__ import annotations

from typing import Annotated, Final

from sentry.abi import ptrace as abi
from sentry.abi.ptrace import (
    PTRACE_ATTACH,
    PTRACE_CONT,
    PTRACE_DETACH,
    PTRACE_INTERRUPT,
    PTRACE_KILL,
    PTRACE_LISTEN,
    PTRACE_O_MASK,
    PTRACE_SEIZE,
    PTRACE_SINGLEBLOCK,
    PTRACE_SINGLESTEP,
    PTRACE_SYSCALL,
    PTRACE_SYSEMU,
    PTRACE_SYSEMU_SINGLESTEP,
    PTRACE_TRACEME,
)
from sentry.abi.signal import SIGKILL
from sentry.errors import EIO
from sentry.kernel.ptrace import attach
from sentry.kernel.ptrace.links import detach
from sentry.kernel.ptrace.tracee import CONT, SYSCALL, SYSEMU, Tracee
from sentry.kernel.signals import NSIG, SigInfo
from sentry.kernel.task import Task
from sentry.kernel.task_signals import send_to_task
from sentry.syscalls.args import show_choice, signed
from sentry.syscalls.processes.ptrace_data import REQUESTS
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Pid

_NAMES = {
    name: value
    for name, value in vars(abi).items()
    if name.startswith("PTRACE_")
    and not name.startswith(("PTRACE_O_", "PTRACE_EVENT", "PTRACE_PEEKSIGINFO_"))
    and not name.startswith("PTRACE_SYSCALL_INFO_")
}
Request = Annotated[int, signed(64, show_choice(_NAMES))]

GO_ON: Final = {
    PTRACE_CONT: (CONT, False), PTRACE_SYSCALL: (SYSCALL, False), PTRACE_SYSEMU: (SYSEMU, False),
    PTRACE_SINGLESTEP: (CONT, True), PTRACE_SYSEMU_SINGLESTEP: (SYSEMU, True),
}  # fmt: skip
"""What calls do, and whether each instruction traps."""


@syscall(101, partial="no PTRACE_SINGLEBLOCK; debug registers cannot watch reads")
def sys_ptrace(task: Task, request: Request, pid: Pid, addr: Addr, data: Addr) -> int | None:
    """ptrace(2). What the C library returns of PTRACE_PEEK* the call itself stores at `data`."""
    if request == PTRACE_TRACEME:
        attach.traceme(task)
        return 0
    if request == PTRACE_ATTACH:
        attach.attach(task, pid, seized=False)
        return 0
    if request == PTRACE_SEIZE:
        if task.pids.is_taken(pid):
            if addr or data & ~PTRACE_O_MASK:
                raise EIO(f"PTRACE_SEIZE {addr:#x} {data:#x}")
            attach.check_options(task, data)
        attach.attach(task, pid, seized=True, options=data)
        return 0
    running = request in (PTRACE_KILL, PTRACE_INTERRUPT)
    tracee = attach.find_tracee(task, pid, stopped=not running)
    if request in GO_ON:
        go_on(tracee, request, data)
        return 0
    if request == PTRACE_DETACH:
        detach(tracee, signal(data))
        return 0
    if request == PTRACE_KILL:
        send_to_task(tracee.task, SigInfo.user(SIGKILL, task.group.tgid, task.creds.uid))
        return 0
    if request in (PTRACE_INTERRUPT, PTRACE_LISTEN):
        if not tracee.seized:
            raise EIO("not seized")
        if request == PTRACE_INTERRUPT:
            tracee.interrupt()
        elif not tracee.listen():
            raise EIO("no PTRACE_EVENT_STOP")
        return 0
    handler = REQUESTS.get(request)
    if handler is None or request == PTRACE_SINGLEBLOCK:
        raise EIO(f"request {request:#x}")
    return handler(task, tracee, addr, data)


def signal(number: int) -> int:
    """A signal to inject, 0 for none. Raises: EIO."""
    if number > NSIG:
        raise EIO(f"signal {number}")
    return number


def go_on(tracee: Tracee, request: int, data: int) -> None:
    """ptrace_resume(). Raises: EIO."""
    signo = signal(data)
    mode, stepping = GO_ON[request]
    tracee.resume(mode, stepping, signo)

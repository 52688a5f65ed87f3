"""seccomp(2): kernel/seccomp.c, do_seccomp. What filters do is in sentry.kernel.seccomp."""

from __future__ import annotations

import struct
from typing import Annotated, Final

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.seccomp import (
    SECCOMP_FILTER_FLAG_LOG,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    SECCOMP_GET_ACTION_AVAIL,
    SECCOMP_GET_NOTIF_SIZES,
    SECCOMP_MODE_FILTER,
    SECCOMP_MODE_STRICT,
    SECCOMP_SET_MODE_FILTER,
    SECCOMP_SET_MODE_STRICT,
)
from sentry.bpf import isa
from sentry.bpf.filter import CallFilter
from sentry.errors import EACCES, EINVAL, EOPNOTSUPP, ESRCH
from sentry.kernel import seccomp
from sentry.kernel.seccomp_listener import Listener
from sentry.kernel.task import Task
from sentry.syscalls.args import show_choice, unsigned
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr

_OPERATIONS = {
    "SECCOMP_SET_MODE_STRICT": SECCOMP_SET_MODE_STRICT,
    "SECCOMP_SET_MODE_FILTER": SECCOMP_SET_MODE_FILTER,
    "SECCOMP_GET_ACTION_AVAIL": SECCOMP_GET_ACTION_AVAIL,
    "SECCOMP_GET_NOTIF_SIZES": SECCOMP_GET_NOTIF_SIZES,
}
Operation = Annotated[int, unsigned(32, show_choice(_OPERATIONS))]
Flags = Annotated[int, unsigned(32)]

FLAGS: Final = (
    SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH
    | SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW
    | SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
)  # fmt: skip
TSYNC_FLAGS: Final = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH
FPROG: Final = struct.Struct("<H6xQ")
"""struct sock_fprog."""
NOTIF_SIZES: Final = struct.pack("<3H", 80, 24, 64)
"""struct seccomp_notif, seccomp_notif_resp, seccomp_data."""


@syscall(317, partial="SECCOMP_RET_LOG writes no log")
def sys_seccomp(task: Task, operation: Operation, flags: Flags, args: Addr) -> int | None:
    """seccomp(2)."""
    if operation == SECCOMP_SET_MODE_STRICT:
        if flags or args:
            raise EINVAL("flags or args")
        seccomp.set_strict(task)
    elif operation == SECCOMP_SET_MODE_FILTER:
        return set_filter(task, flags, args)
    elif operation == SECCOMP_GET_ACTION_AVAIL:
        if flags:
            raise EINVAL("flags")
        if int.from_bytes(task.mm.read(args, 4), "little") not in seccomp.AVAILABLE:
            raise EOPNOTSUPP("action")
    elif operation == SECCOMP_GET_NOTIF_SIZES:
        if flags:
            raise EINVAL("flags")
        task.mm.write(args, NOTIF_SIZES)
    else:
        raise EINVAL(f"operation {operation}")
    return 0


def set_mode(task: Task, mode: int, addr: int) -> int:
    """prctl(PR_SET_SECCOMP)."""
    if mode == SECCOMP_MODE_STRICT:
        seccomp.set_strict(task)
        return 0
    if mode == SECCOMP_MODE_FILTER:
        return set_filter(task, 0, addr)
    raise EINVAL(f"mode {mode}")


def set_filter(task: Task, flags: int, addr: int) -> int:
    """seccomp_set_mode_filter."""
    listens = flags & SECCOMP_FILTER_FLAG_NEW_LISTENER
    if (
        flags & ~FLAGS
        or (listens and flags & TSYNC_FLAGS == SECCOMP_FILTER_FLAG_TSYNC)
        or (flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV and not listens)
    ):
        raise EINVAL(f"flags {flags:#x}")
    length, instructions = FPROG.unpack(task.mm.read(addr, FPROG.size))
    if not 0 < length <= isa.MAX_INSTRUCTIONS:
        raise EINVAL(f"{length} instructions")
    if not task.no_new_privs and not task.creds.own(CAP_SYS_ADMIN):
        raise EACCES("neither no_new_privs nor CAP_SYS_ADMIN")
    everybody = bool(flags & SECCOMP_FILTER_FLAG_TSYNC)
    if everybody:  # no_new_privs and filters come too late for another thread's execve(2)
        task.group.exec_lock.check()
    program = CallFilter(task.mm.read(instructions, length * isa.INSTRUCTION_SIZE))
    listener = None
    if listens:
        task.files.free_from(0, task.rlimit(RLIMIT_NOFILE))
        killable = bool(flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        listener = Listener(task.kernel, program, killable)
    other = seccomp.add_filter(task, program, every_thread=everybody, listener=listener)
    if other and flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH:
        raise ESRCH(f"thread {other} has filters of its own")
    if listener is not None:
        return task.files.install(listener, task.rlimit(RLIMIT_NOFILE), cloexec=True)
    return other

"""The requests of ptrace(2) that look into a stopped task and change it.

`REQUESTS` maps a number to a function of (tracer, tracee, addr, data). Memory of the tracer is
written last, so that a page of it that must be fetched first only repeats the request.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from sentry.abi import ptrace as abi
from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.limits import INT_MAX
from sentry.abi.prctl import ARCH_GET_FS, ARCH_GET_GS, ARCH_SET_FS, ARCH_SET_GS
from sentry.abi.ptrace import PTRACE_EVENT_SECCOMP, PTRACE_PEEKSIGINFO_SHARED
from sentry.abi.seccomp import AUDIT_ARCH_X86_64, SECCOMP_MODE_FILTER
from sentry.abi.signal import SIGTRAP
from sentry.auth.ptrace import may_see_memory
from sentry.bpf.filter import CallFilter
from sentry.errors import EACCES, EFAULT, EINVAL, EIO, ENOENT, EPERM
from sentry.kernel.ptrace import attach, registers
from sentry.kernel.ptrace.tracee import SYSGOOD, Tracee
from sentry.kernel.signals import UNBLOCKABLE, SigInfo
from sentry.kernel.task import Task
from sentry.kernel.task_signals import set_blocked
from sentry.mm import forced
from sentry.platform.constants import TASK_SIZE
from sentry.platform.interface import Reg

Handler = Callable[[Task, Tracee, int, int], "int | None"]

REQUESTS: Final[dict[int, Handler]] = {}
WORD: Final = 8
SIGINFO_SIZE: Final = 128
PEEKED_AT_ONCE: Final = 512
"""Signals that PTRACE_PEEKSIGINFO gives in a call."""
SIGSET_SIZE: Final = 8
MAX_ERRNO: Final = 4095
GDT_TLS_MIN, GDT_TLS_ENTRIES = 12, 3
USER_DESC_EMPTY: Final = 0b101000
"""read_exec_only and seg_not_present: flags of an unused TLS descriptor."""
RSEQ_SIZE: Final = 24
"""sizeof(struct ptrace_rseq_configuration)."""
ARGUMENTS: Final = (Reg.RDI, Reg.RSI, Reg.RDX, Reg.R10, Reg.R8, Reg.R9)

_u64 = struct.Struct("<Q")
_iovec = struct.Struct("<QQ")
_peek_args = struct.Struct("<QIi")
_info_head = struct.Struct("<B3xIQQ")
_info_entry = struct.Struct("<Q6Q")
_info_exit = struct.Struct("<QB")
_info_seccomp = struct.Struct("<Q6QI")
_metadata = struct.Struct("<QQ")
_user_desc = struct.Struct("<IIII")


def request(*numbers: int) -> Callable[[Handler], Handler]:
    """Declare the handler of requests."""

    def declare(handler: Handler) -> Handler:
        for number in numbers:
            REQUESTS[number] = handler
        return handler

    return declare


# Memory ------------------------------------------------------------------------------------------


def check_memory(task: Task, tracee: Tracee, addr: int) -> None:
    """ptrace_access_vm(): what it has become by execve(2) counts. Raises: EIO."""
    if not may_see_memory(task.creds, tracee.task):
        raise EIO(f"{addr:#x}")


@request(abi.PTRACE_PEEKTEXT, abi.PTRACE_PEEKDATA)
def peek(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """A word, also of a mapping that forbids reading. Raises: EIO, EFAULT."""
    check_memory(task, tracee, addr)
    try:
        word = forced.peek(tracee.task.mm, addr, WORD)
    except EFAULT:
        raise EIO(f"{addr:#x}") from None
    task.mm.write(data, word)


@request(abi.PTRACE_POKETEXT, abi.PTRACE_POKEDATA)
def poke(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """A word, also into code: a private mapping gets a page of its own. Raises: EIO."""
    check_memory(task, tracee, addr)
    try:
        forced.poke(tracee.task.mm, addr, _u64.pack(data))
    except EFAULT:
        raise EIO(f"{addr:#x}") from None


# Registers ---------------------------------------------------------------------------------------


@request(abi.PTRACE_PEEKUSR)
def peek_user(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """A word of struct user."""
    task.mm.write(data, _u64.pack(registers.peek_user(tracee.task, addr)))


@request(abi.PTRACE_POKEUSR)
def poke_user(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """A word of struct user."""
    registers.poke_user(tracee.task, addr, data)


@request(abi.PTRACE_GETREGS)
def get_regs(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """struct user_regs_struct."""
    task.mm.write(data, registers.get_regs(tracee.task))


@request(abi.PTRACE_SETREGS)
def set_regs(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """struct user_regs_struct."""
    registers.put_regs(tracee.task, task.mm.read(data, registers.REGS_SIZE))


@request(abi.PTRACE_GETFPREGS)
def get_fpregs(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """struct user_fpregs_struct."""
    task.mm.write(data, registers.get_fpregs(tracee.task))


@request(abi.PTRACE_SETFPREGS)
def set_fpregs(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """struct user_fpregs_struct."""
    registers.put_fpregs(tracee.task, task.mm.read(data, registers.FPREGS_SIZE))


@request(abi.PTRACE_GETREGSET)
def get_regset(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """A set of NT_* into an iovec, whose length becomes what was written."""
    base, length = _iovec.unpack(task.mm.read(data, _iovec.size))
    size = registers.regset_size(tracee.task, addr & 0xFFFFFFFF, length)
    task.mm.write(base, registers.get_regset(tracee.task, addr & 0xFFFFFFFF, size))
    task.mm.write(data, _iovec.pack(base, size))


@request(abi.PTRACE_SETREGSET)
def set_regset(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """A set of NT_* from an iovec."""
    base, length = _iovec.unpack(task.mm.read(data, _iovec.size))
    size = registers.regset_size(tracee.task, addr & 0xFFFFFFFF, length)
    registers.put_regset(tracee.task, addr & 0xFFFFFFFF, task.mm.read(base, size))
    task.mm.write(data, _iovec.pack(base, size))


@request(abi.PTRACE_ARCH_PRCTL)
def arch_prctl(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """arch_prctl(2) of the tracee: what is got goes to the tracer. Raises: EPERM, EINVAL."""
    regs = tracee.task.ctx.regs
    index = Reg.FS_BASE if data in (ARCH_SET_FS, ARCH_GET_FS) else Reg.GS_BASE
    if data in (ARCH_SET_FS, ARCH_SET_GS):
        if addr >= TASK_SIZE:
            raise EPERM(f"{addr:#x}")
        regs[index] = addr
    elif data in (ARCH_GET_FS, ARCH_GET_GS):
        task.mm.write(addr, _u64.pack(regs[index]))
    else:
        raise EINVAL(f"option {data:#x}")


@request(abi.PTRACE_GET_THREAD_AREA, abi.PTRACE_SET_THREAD_AREA)
def thread_area(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """Segments for 32-bit threads: none is in use, and none can be. Raises: EIO, EINVAL."""
    index = addr & 0xFFFFFFFF
    if index > INT_MAX:
        raise EIO(f"segment {index:#x}")
    if not 0 <= index - GDT_TLS_MIN < GDT_TLS_ENTRIES:
        raise EINVAL(f"segment {index}")
    task.mm.write(data, _user_desc.pack(index, 0, 0, USER_DESC_EMPTY))


# Signals -----------------------------------------------------------------------------------------


def stop_info(tracee: Tracee) -> SigInfo:
    """The siginfo of the stop. Raises: EINVAL in a group stop."""
    if tracee.stop is None or tracee.stop.info is None:
        raise EINVAL("a group stop")
    return tracee.stop.info


@request(abi.PTRACE_GETSIGINFO)
def get_siginfo(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """The signal of the stop."""
    task.mm.write(data, stop_info(tracee).pack())


@request(abi.PTRACE_SETSIGINFO)
def set_siginfo(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """Another one for it, number and all."""
    raw = task.mm.read(data, SIGINFO_SIZE)
    stop_info(tracee)
    assert tracee.stop is not None
    tracee.stop.info = SigInfo.raw(struct.unpack_from("<i", raw)[0], raw)


@request(abi.PTRACE_PEEKSIGINFO)
def peek_siginfo(task: Task, tracee: Tracee, addr: int, data: int) -> int:
    """Signals that wait, from an index on: fewer than asked for where they are many, as Linux gives
    them to a tracer that is interrupted. Raises: EINVAL, EFAULT."""
    offset, flags, count = _peek_args.unpack(task.mm.read(addr, _peek_args.size))
    if flags & ~PTRACE_PEEKSIGINFO_SHARED or count < 0:
        raise EINVAL("struct ptrace_peeksiginfo_args")
    traced = tracee.task
    shared = flags & PTRACE_PEEKSIGINFO_SHARED
    infos = (traced.group.shared_pending if shared else traced.pending).infos()
    done = 0
    for info in infos[offset : offset + min(count, PEEKED_AT_ONCE)]:
        try:
            task.mm.write(data + done * SIGINFO_SIZE, info.pack())
        except EFAULT:
            if not done:
                raise
            break
        done += 1
    return done


@request(abi.PTRACE_GETSIGMASK)
def get_sigmask(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """The blocked signals; those that come back after the delivery if there are such."""
    if addr != SIGSET_SIZE:
        raise EINVAL(f"size {addr}")
    traced = tracee.task
    mask = traced.blocked if traced.saved_mask is None else traced.saved_mask
    task.mm.write(data, _u64.pack(mask))


@request(abi.PTRACE_SETSIGMASK)
def set_sigmask(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """Other blocked signals."""
    if addr != SIGSET_SIZE:
        raise EINVAL(f"size {addr}")
    (mask,) = _u64.unpack(task.mm.read(data, SIGSET_SIZE))
    tracee.task.saved_mask = None
    set_blocked(tracee.task, mask & ~UNBLOCKABLE)


# Options and events ------------------------------------------------------------------------------


@request(abi.PTRACE_SETOPTIONS, abi.PTRACE_OLDSETOPTIONS)
def set_options(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """PTRACE_O_*."""
    attach.check_options(task, data)
    tracee.options = data


@request(abi.PTRACE_GETEVENTMSG)
def get_event_message(task: Task, tracee: Tracee, addr: int, data: int) -> None:
    """What the last event was about."""
    task.mm.write(data, _u64.pack(tracee.message))


@request(abi.PTRACE_GET_SYSCALL_INFO)
def get_syscall_info(task: Task, tracee: Tracee, addr: int, data: int) -> int:
    """struct ptrace_syscall_info, as much as fits; the result is its whole size."""
    regs = tracee.task.ctx.regs
    code = tracee.stop.code if tracee.stop is not None and tracee.stop.info is not None else 0
    op, body = abi.PTRACE_SYSCALL_INFO_NONE, b""
    arguments = [regs[index] for index in ARGUMENTS]
    if code == SIGTRAP | SYSGOOD and tracee.message == abi.PTRACE_EVENTMSG_SYSCALL_ENTRY:
        op = abi.PTRACE_SYSCALL_INFO_ENTRY
        body = _info_entry.pack(regs[Reg.ORIG_RAX], *arguments)
    elif code == SIGTRAP | SYSGOOD and tracee.message == abi.PTRACE_EVENTMSG_SYSCALL_EXIT:
        op = abi.PTRACE_SYSCALL_INFO_EXIT
        result = regs[Reg.RAX]
        body = _info_exit.pack(result, result >= (1 << 64) - MAX_ERRNO)
    elif code == PTRACE_EVENT_SECCOMP << 8 | SIGTRAP:
        op = abi.PTRACE_SYSCALL_INFO_SECCOMP
        body = _info_seccomp.pack(regs[Reg.ORIG_RAX], *arguments, tracee.message)
    head = _info_head.pack(op, AUDIT_ARCH_X86_64, regs[Reg.RIP], regs[Reg.RSP])
    info = head + body
    task.mm.write(data, info[:addr])
    return len(info)


# seccomp, rseq -----------------------------------------------------------------------------------


def nth_filter(task: Task, tracee: Tracee, number: int) -> CallFilter:
    """get_nth_filter(): 0 is the oldest. Raises: EACCES, EINVAL, ENOENT."""
    if not task.creds.has(CAP_SYS_ADMIN) or task.seccomp is not None:
        raise EACCES("CAP_SYS_ADMIN, and no seccomp of one's own")
    state = tracee.task.seccomp
    if state is None or state.mode != SECCOMP_MODE_FILTER:
        raise EINVAL("no filters")
    for found in state.newest or ():
        if found.depth == number + 1:
            return found
    raise ENOENT(f"filter {number}")


@request(abi.PTRACE_SECCOMP_GET_FILTER)
def get_filter(task: Task, tracee: Tracee, addr: int, data: int) -> int:
    """The instructions of a filter, and how many; a null `data` only asks for the number."""
    program = nth_filter(task, tracee, addr)
    if data:
        task.mm.write(data, program.code)
    return program.count


@request(abi.PTRACE_SECCOMP_GET_METADATA)
def get_metadata(task: Task, tracee: Tracee, addr: int, data: int) -> int:
    """struct seccomp_metadata: the flags of a filter (none is kept)."""
    size = min(addr, _metadata.size)
    if size < WORD:
        raise EINVAL(f"size {addr}")
    (number,) = _u64.unpack(task.mm.read(data, WORD))
    nth_filter(task, tracee, number)
    task.mm.write(data, _metadata.pack(number, 0)[:size])
    return size


@request(abi.PTRACE_GET_RSEQ_CONFIGURATION)
def get_rseq(task: Task, tracee: Tracee, addr: int, data: int) -> int:
    """struct ptrace_rseq_configuration: rseq(2) is never registered."""
    task.mm.write(data, bytes(RSEQ_SIZE)[:addr])
    return RSEQ_SIZE

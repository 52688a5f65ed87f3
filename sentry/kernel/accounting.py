"""Process accounting: a record for each process that ends, acct(2), acct(5). kernel/acct.c.

Each PID namespace may have a file; a process is recorded in that of its own namespace and in those
above. A file system that gets full stops it until there is room again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.acct import ACORE, AFORK, AXSIG
from sentry.errors import Errno
from sentry.kernel.accounting_file import Accounting
from sentry.suppress import suppress
from sentry.wait.eager import eager
from sentry.wait.fiber import Interrupted

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.pids import PidNamespace
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.vfs.file import FileDescription

VERSION: Final = 3
TICK_NS: Final = 10_000_000
"""AHZ is 100."""
MANTISSA_BITS, EXPONENT_BITS = 13, 3
RECORD: Final = struct.Struct("<BBHIIIIIIf8H16s")
"""struct acct_v3."""


async def turn_on(task: Task, file: FileDescription) -> None:
    """The processes of the caller's namespace are recorded in `file` from now on."""
    turn_off(task)
    pids = task.group.pids
    if pids.ended:  # while the file was opened: nobody is left who would turn it off
        return
    started = pids.accounting = Accounting(file)
    with suppress(Errno):
        await started.look()


def turn_off(task: Task) -> None:
    """No more records, but one of who says so: acct_pin_kill()."""
    pids = task.group.pids
    old, pids.accounting = pids.accounting, None
    if old is not None:
        _append(task.kernel, old, make_record(task, pids, old.creds, End()))
        old.file.decref()


class End(Struct, frozen=True):
    """What is known of a process only when it ends: struct pacct_struct."""

    flags: int = 0
    status: int = 0
    """As wait(2) has it."""
    numbers: tuple[int, ...] = (0,) * 8
    """User and system time in ticks, kB, I/O (2), faults (2), swaps."""


def process_ends(task: Task, status: int, size_kib: int) -> None:
    """The last thread of a process has ended: acct_process()."""
    kernel, group, usage = task.kernel, task.group, task.group.usage()
    flags = 0 if group.has_execed else AFORK
    flags |= (ACORE if status & 0x80 else 0) | (AXSIG if status & 0x7F else 0)
    end = End(flags, status, (
        usage.user_ns // TICK_NS, usage.sys_ns // TICK_NS, size_kib, 0, 0, usage.minflt,
        usage.majflt, 0,
    ))  # fmt: skip
    for pids in group.pids.recorded():
        accounting = pids.accounting
        if accounting is not None:
            _append(kernel, accounting, make_record(task, pids, accounting.creds, end))


def _append(kernel: Kernel, accounting: Accounting, record: bytes) -> None:
    rest = eager(_write(accounting, record))
    if rest is not None:
        kernel.loop.spawn(rest, "acct")


async def _write(accounting: Accounting, record: bytes) -> None:
    with accounting.file.held(), suppress(Errno, Interrupted):  # nobody could be told
        await accounting.write(record)


def make_record(task: Task, pids: PidNamespace, creds: Any, end: End) -> bytes:
    """struct acct_v3, with ids as the file's opener sees them: fill_ac()."""
    group = task.group
    elapsed_ns = group.kernel.clock.now_ns() - group.start_ns
    return RECORD.pack(
        end.flags, VERSION, terminal_of(group), end.status & 0xFFFFFFFF,
        creds.shown_uid(task.creds.uid), creds.shown_gid(task.creds.gid), pids.of(group.tgid),
        pids.of(group.parent.tgid) if group.parent is not None else 0,
        (group.kernel.clock.wall_ns() - elapsed_ns) // 10**9 & 0xFFFFFFFF, elapsed_ns // TICK_NS,
        *(compressed(number) for number in end.numbers), task.comm[:15],
    )  # fmt: skip


def terminal_of(group: ThreadGroup) -> int:
    """ac_tty: the old form of a device number."""
    terminal = group.session.terminal
    rdev = terminal.rdev if terminal is not None else 0
    return (rdev >> 8 & 0xFF) << 8 | rdev & 0xFF


def compressed(number: int) -> int:
    """comp_t: 13 bits, and how often they are to be multiplied by 8: encode_comp_t()."""
    exponent, half = 0, 0
    while number >> MANTISSA_BITS:
        half = number >> EXPONENT_BITS - 1 & 1
        number >>= EXPONENT_BITS
        exponent += 1
    number += half
    if number >> MANTISSA_BITS:
        number >>= EXPONENT_BITS
        exponent += 1
    return min(exponent << MANTISSA_BITS | number, 0xFFFF)

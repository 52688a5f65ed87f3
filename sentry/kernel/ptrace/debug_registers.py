"""Debug registers: breakpoints and watchpoints of a tracer, in software.

No platform has DR0-7 for a program (PVM takes KVM_SET_GUEST_DEBUG and KVM_SET_DEBUGREGS and never
traps; unicorn has none). So a task with breakpoints is stepped by the Sentry: after each
instruction it is seen whether a watched location changed, or the next instruction has a breakpoint.
That costs some 50 µs an instruction, but what a debugger does by itself costs ten times that.
Watching reads is not possible so: ENOSPC, as if all slots were in use. A write that changes nothing
is not seen. arch/x86/kernel/ptrace.c, SDM volume 3, section 18.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.errors import EFAULT, EINVAL, EIO, ENOSPC
from sentry.mm.errors import NeedsFault
from sentry.mm.forced import peek
from sentry.mm.layout import LINUX_TASK_END
from sentry.platform.constants import TASK_SIZE
from sentry.platform.interface import Reg

if TYPE_CHECKING:
    from sentry.kernel.task import Task

EXECUTE, WRITE, PORTS, ACCESS = range(4)
LENGTHS: Final = (1, 2, 8, 4)
DR6_RESERVED: Final = 0xFFFF0FF0
DR6_STEP: Final = 0x4000
MAX_SEEN: Final = 4096
"""Locations of one address space that are remembered, whoever watched them."""


class DebugRegisters:
    """Those of one tracee."""

    __slots__ = ("_places", "_values", "status")

    def __init__(self) -> None:
        self._values = [0] * 8
        self._places: list[tuple[int, int, int, int]] = []
        """(number, kind, address, length) of what is enabled."""
        self.status = 0
        """DR6 without its fixed bits."""

    @property
    def armed(self) -> bool:
        """The task has to be stepped."""
        return bool(self._places)

    def get(self, number: int) -> int:
        """ptrace_get_debugreg()."""
        return self.status ^ DR6_RESERVED if number == 6 else self._values[number]

    def put(self, task: Task, number: int, value: int) -> None:
        """ptrace_set_debugreg(). Raises: EIO, EINVAL, ENOSPC."""
        if number in (4, 5):
            raise EIO(f"DR{number}")
        if number == 6:
            self.status = value ^ DR6_RESERVED
            return
        if number < 4 and value >= LINUX_TASK_END:
            raise EINVAL(f"address {value:#x}")
        values = [*self._values[:number], value, *self._values[number + 1 :]]
        self._places = enabled(values)
        self._values = values
        self.look(task)

    def clear(self) -> None:
        """flush_ptrace_hw_breakpoint(): execve(2)."""
        self._values = [0] * 8
        self._places = []

    def look(self, task: Task) -> int:
        """The bits of DR6 for what has changed since the last look, which is forgotten with it."""
        if not self._places:
            return 0
        seen = task.mm.watched  # of all threads, as all are stepped
        if len(seen) > MAX_SEEN:
            seen.clear()
        bits = 0
        for number, kind, addr, length in self._places:
            if kind == EXECUTE:
                bits |= (task.ctx.regs[Reg.RIP] == addr) << number
                continue
            try:
                now = peek(task.mm, addr, length)
            except (EFAULT, NeedsFault):
                continue
            before = seen.get((addr, length))
            seen[addr, length] = now
            if before is not None and before != now:
                bits |= 1 << number
        return bits


def enabled(values: list[int]) -> list[tuple[int, int, int, int]]:
    """What DR7 turns on. Raises: EINVAL, ENOSPC."""
    control = values[7]
    places = []
    for number in range(4):
        if not control >> 2 * number & 3:
            continue
        kind = control >> 16 + 4 * number & 3
        length = LENGTHS[control >> 18 + 4 * number & 3]
        addr = values[number]
        if kind == PORTS or (kind == EXECUTE and length != 1) or addr & (length - 1):
            raise EINVAL(f"DR7 {control:#x}")
        if kind == ACCESS or addr >= TASK_SIZE:
            raise ENOSPC("reads cannot be watched")
        places.append((number, kind, addr, length))
    return places

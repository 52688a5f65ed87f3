"""A platform without a machine: real memory, and contexts that never reach ring 3.

`tests.world` makes system calls through it. A context keeps what a processor keeps: registers, the
FPU image, whether a kick has to bring it back, and the `syscall` instruction that a restart goes
back to. No /dev/kvm is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sentry.loop import HostOnly
from sentry.platform import sigframe
from sentry.platform.constants import NUM_REGS
from sentry.platform.interface import ExitKind, Reg
from sentry.platform.memory import AddressSpace, Ram

SYSCALL_AT = 0x401000
"""Where the instruction of every system call is said to lie."""
SYSCALL_SIZE = 2
XSAVE_SIZE, XFEATURES = 832, 7
ARGUMENTS = (Reg.RDI, Reg.RSI, Reg.RDX, Reg.R10, Reg.R8, Reg.R9)
_SIGN, _WORD = 1 << 63, (1 << 64) - 1


class Asleep(AssertionError):
    """The kernel would wait for ever: no timer, no descriptor, nobody in ring 3."""


class NowhereContext:
    """The registers of a task that is in ring 3 between its calls, and does nothing there."""

    def __init__(self, platform: NowherePlatform) -> None:
        self._platform = platform
        self.regs = memoryview(bytearray(NUM_REGS * 8)).cast("Q")
        self.regs[Reg.CS], self.regs[Reg.SS], self.regs[Reg.RFLAGS] = 0x33, 0x2B, 0x202
        self.regs[Reg.RIP] = SYSCALL_AT + SYSCALL_SIZE
        self.fpu = _initial_fpu()
        self.exit = ExitKind.SYSCALL
        self.fault_addr = self.error_code = self.vector = 0
        self.owner: Any = None
        self.result: int | None = 0
        """What the call gave; None while it goes on."""
        self.resumed = 0
        """How often the task went on in ring 3."""
        self.kicked = False
        self.cpu_ns = 0
        self.xsave_size = XSAVE_SIZE

    # --- the program's side

    def load(self, number: int, arguments: Sequence[int]) -> None:
        """The registers of a system call, which `owner.on_exit` then makes."""
        self.exit, self.result = ExitKind.SYSCALL, None
        regs = self.regs
        regs[Reg.RIP] = SYSCALL_AT + SYSCALL_SIZE
        regs[Reg.ORIG_RAX] = number
        for reg, value in zip(ARGUMENTS, arguments, strict=False):
            regs[reg] = value & _WORD

    def _ends(self) -> None:
        """The call ends here, whatever becomes of the program now: RAX has its result."""
        if self.result is None:
            value = self.regs[Reg.RAX]
            self.result = value - (1 << 64) if value & _SIGN else value

    # --- the kernel's side

    def answer(self, value: int) -> None:
        self.result = value
        self.resumed += 1

    def resume(self) -> None:
        self.resumed += 1
        if self.result is None and self.regs[Reg.RIP] == SYSCALL_AT:  # a restart
            self._platform.again[self] = None
        else:
            self._ends()
            if self.kicked:
                self.kick()

    def kick(self) -> None:
        self.kicked = True
        if self.result is not None:
            self._platform.again[self] = None

    def come_back(self) -> None:
        """The exit that a kick or a restarted `syscall` brings."""
        self.kicked = False
        if self.result is None:
            self.exit = ExitKind.SYSCALL
            self.regs[Reg.ORIG_RAX] = self.regs[Reg.RAX]
            self.regs[Reg.RIP] += SYSCALL_SIZE
        else:
            self.exit = ExitKind.INTERRUPTED

    def stop(self, callback: Callable[[], None]) -> None:
        callback()

    def bind(self, space: AddressSpace) -> None: ...
    def set_fast(self, *_: object) -> None: ...

    def destroy(self) -> None:
        self._platform.again.pop(self, None)

    def get_fpu(self) -> bytes:
        return self.fpu

    def set_fpu(self, image: bytes) -> None:
        self.fpu = image or _initial_fpu()

    def push_frame(self, space: AddressSpace, *frame: Any) -> bool:
        self._ends()
        return sigframe.push(self, space, *frame)

    def pop_frame(self, space: AddressSpace, at: int, taken_flags: int) -> list[int] | None:
        return sigframe.pop(self, space, at, taken_flags, XSAVE_SIZE, XFEATURES)

    def copy_from(self, other: NowhereContext) -> None:
        self.regs[:] = other.regs
        self.fpu = other.fpu

    def charge(self, account: NowhereAccount) -> None:
        account.contexts.append(self)

    def cpu_time_ns(self) -> int:
        return self.cpu_ns


class NowhereAccount:
    """What some contexts have been given of time."""

    def __init__(self) -> None:
        self.contexts: list[NowhereContext] = []

    def cpu_time_ns(self) -> int:
        return sum(context.cpu_ns for context in self.contexts)


def _initial_fpu() -> bytes:
    image = bytearray(XSAVE_SIZE)
    image[0:2] = (0x37F).to_bytes(2, "little")
    image[24:28] = (0x1F80).to_bytes(4, "little")
    return bytes(image)


class NowherePlatform(HostOnly):
    """Memory, descriptors and time, but no machine."""

    name = "nowhere"
    xsave_size, xfeatures = XSAVE_SIZE, XFEATURES
    cpuid = ()
    vdso = None
    exit_ns = 0

    def __init__(self, ram_bytes: int = 1 << 30) -> None:
        super().__init__()
        self.ram = Ram.from_memfd(ram_bytes)
        self.again: dict[NowhereContext, None] = {}
        """Contexts that come back from ring 3 by themselves."""
        self._spaces: list[AddressSpace] = []

    def new_address_space(self) -> AddressSpace:
        self._spaces.append(AddressSpace(self.ram))
        return self._spaces[-1]

    def new_context(self, space: AddressSpace) -> NowhereContext:
        return NowhereContext(self)

    def new_account(self) -> NowhereAccount:
        return NowhereAccount()

    def wait(self, deadline_ns: int | None) -> Sequence[NowhereContext]:
        if self.again:
            super().wait(0)
            came, self.again = list(self.again), {}
            for context in came:
                context.come_back()
            return came
        if deadline_ns is None and not self._watched:
            raise Asleep
        return super().wait(deadline_ns)  # type: ignore[return-value]

    def events_so_far(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Preconditions: no file holds memory."""
        for space in self._spaces:
            space.destroy()
        self.ram.close()
        self._epoll.close()

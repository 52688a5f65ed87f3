"""What the Sentry knows of the machine that runs its programs.

`Platform` makes `AddressSpace`s (guest-physical frames behind virtual addresses) and `Context`s
(the registers of one task, and the means to run it). kvm.py and unicorn.py implement it and pass
the same tests in tests/contract. Nothing above this room imports either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from sentry.abi.layout import Record

if TYPE_CHECKING:
    from kvm.cpuid import CpuidEntry
    from sentry.platform.memory import AddressSpace, Ram
    from sentry.platform.vdso import Vdso


class ExitKind(IntEnum):
    """Why a context came back."""

    NONE = 0
    SYSCALL = 1
    FAULT = 2
    """Page fault: `fault_addr` (CR2) and `error_code` as the CPU pushed it."""
    EXCEPTION = 3
    """Any other exception: `vector`, `error_code`."""
    INTERRUPTED = 4
    """A kick, the end of a time slice, or nothing that still matters: the context may go on."""
    FILE_GONE = 5
    """A page of a FILES window had nothing behind it (the host file was truncated)."""
    NO_MEMORY = 6
    """The host refused memory for a RAM frame: the sandbox's limit is reached."""
    BROKEN = 7
    """The vCPU cannot go on (triple fault, instruction that cannot be emulated)."""


class Reg(IntEnum):
    """Index into `Context.regs`: the order of struct user_regs_struct, <asm/user_64.h>."""

    R15 = 0
    R14 = 1
    R13 = 2
    R12 = 3
    RBP = 4
    RBX = 5
    R11 = 6
    R10 = 7
    R9 = 8
    R8 = 9
    RAX = 10
    RCX = 11
    RDX = 12
    RSI = 13
    RDI = 14
    ORIG_RAX = 15
    RIP = 16
    CS = 17
    RFLAGS = 18
    RSP = 19
    SS = 20
    FS_BASE = 21
    GS_BASE = 22
    DS = 23
    ES = 24
    FS = 25
    GS = 26


class Account(Protocol):
    """CPU time of several contexts together, those too that have been destroyed."""

    def add_ns(self, time_ns: int) -> None:
        """What others had used, of which this goes on: in a snapshot."""

    def cpu_time_ns(self) -> int:
        """So far, in their programs."""
        ...


class SignalFrame(Record):
    """The frame of a handler that begins, besides registers and FPU image: struct sigframe."""

    at: int
    """Where it shall lie, and its FPU image."""
    fp_at: int
    features: int
    restorer: int
    uc_flags: int
    alt_sp: int
    alt_flags: int
    alt_size: int
    trapno: int
    error: int
    cr2: int
    mask: int
    """What sigreturn restores."""
    signo: int
    handler: int
    cleared_flags: int
    """Of RFLAGS, in the handler."""
    info: bytes
    """struct siginfo"""


class FrameRest(Record):
    """What a frame holds besides registers and FPU image: struct sigframe_rest."""

    alt_sp: int
    alt_flags: int
    alt_size: int
    mask: int


class Context(Protocol):
    """One task's registers. See docs/design.md, section 12, for what holds when.

    After an exit the kernel has the context until it calls `answer` or `resume`; in between it may
    change `regs`. After that, `regs` belong to the platform until the next exit.
    """

    regs: memoryview
    exit: ExitKind
    fault_addr: int
    error_code: int
    vector: int
    owner: object
    """The task: the platform hands contexts back by `wait`, the kernel finds the task here."""

    def answer(self, value: int) -> None:
        """RAX = value and go on: for a system call that changed no other register."""

    def resume(self) -> None:
        """Go on with all of `regs`, and the FPU image if one was set."""

    def kick(self) -> None:
        """An exit of some kind follows soon; after an exit: as soon as it is resumed."""

    def stop(self, callback: Callable[[], None]) -> None:
        """Call back once the vCPU is outside the guest: at once, or from `wait`.

        A running program is interrupted, so an exit is reported too. It holds nothing: the program
        goes on when it is resumed.
        """

    def bind(self, space: Any) -> None:
        """Go on in another address space. Preconditions: after an exit."""

    def get_fpu(self) -> bytes:
        """The FPU image. Preconditions: after an exit."""
        ...

    def set_fpu(self, image: bytes) -> None:
        """Go on with this image; an empty one is the initial state of a new program."""

    def push_frame(self, space: Any, frame: SignalFrame) -> bool:
        """Write a signal frame and go on in the handler with the initial FPU state.

        False: a fault stopped that (`space.fault_addr`), nothing else changed.
        Preconditions: after an exit.
        """
        ...

    def pop_frame(self, space: Any, at: int, taken_flags: int) -> FrameRest | None:
        """Take registers and FPU image from an ordinary signal frame, of RFLAGS `taken_flags`.

        None: no such frame, nothing has changed. Preconditions: after an exit.
        """
        ...

    def copy_from(self, other: Any) -> None:
        """Registers and FPU state of another. Preconditions: both after an exit, or new."""

    def charge(self, account: Any) -> None:
        """What it runs from now on counts in this account of the platform's, too."""

    def add_ns(self, time_ns: int) -> None:
        """What another one had run that it goes on for; in no account."""

    def cpu_time_ns(self) -> int:
        """CPU time in the program; what it spun for answers does not count."""
        ...

    def set_fast(self, pid: int, tid: int, ids: tuple[int, int, int, int]) -> None:
        """What getpid, gettid and get[e]uid, get[e]gid (uid euid gid egid) answer without the
        kernel; pid 0: they come to the kernel like all others."""

    def destroy(self) -> None:
        """Give it up, whatever it does now."""


class Platform(Protocol):
    """A machine: makes address spaces and contexts, and waits for what they do."""

    name: str
    description: str
    """What kind of machine it is, and how system calls come out of it: for who looks for faults."""
    ram: Ram
    xsave_size: int
    """Bytes of an FPU image (XSAVE standard format)."""
    xfeatures: int
    """XCR0 as the program sees it."""
    exit_ns: int
    """What it costs that a program comes to the kernel and goes back; 0: not known."""
    ready: list[tuple[int, int]]
    """(descriptor, EPOLL* events) that the last `wait` found ready."""

    @property
    def cpuid(self) -> Sequence[CpuidEntry]:
        """What CPUID answers the program."""
        ...

    @property
    def vdso(self) -> Vdso | None:
        """Code and clocks that every program maps, where there is one."""
        ...

    def new_address_space(self) -> AddressSpace: ...
    def new_context(self, space: Any) -> Context: ...
    def new_account(self) -> Account: ...

    def wait(self, deadline_ns: int | None) -> Sequence[Context]:
        """Contexts that have an exit, as soon as there is one, a descriptor is ready (then `ready`
        is not empty) or the deadline (CLOCK_MONOTONIC; None: never) has come."""
        ...

    def events_so_far(self) -> dict[str, int]:
        """What happened between programs and kernel thread, by name: for the profile."""
        ...

    def watch(self, fd: int, events: int) -> None:
        """Let `wait` report these EPOLL* events of a host descriptor, level-triggered; 0: none."""

    def close(self) -> None: ...

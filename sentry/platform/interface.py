"""What the Sentry knows of the machine that runs its programs.

`Platform` makes `AddressSpace`s (guest-physical frames behind virtual addresses) and `Context`s
(the registers of one task, and the means to run it). kvm.py and unicorn.py implement it and pass
the same tests in tests/contract. Nothing above this room imports either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

TASK_SIZE = 0x7FFFFFE00000
"""First address that is not the program's: above it lie the entry pages."""


class ExitKind(IntEnum):
    """Why a context came back."""

    NONE = 0
    SYSCALL = 1
    FAULT = 2
    """Page fault: `fault_addr` (CR2) and `error_code` as the CPU pushed it."""
    EXCEPTION = 3
    """Any other exception: `vector`, `error_code`."""
    INTERRUPTED = 4
    """A kick, or the end of a time slice."""
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


NUM_REGS = 27


class AddressSpace(Protocol):
    """One tree of page tables. All addresses and lengths are multiples of 4096; `prot` is PROT_*.

    The operations are mechanism: what is mapped where is decided in sentry.mm.
    """

    def map_anonymous(self, addr: int, pages: int, prot: int) -> None:
        """Map fresh zeroed frames, 2 MiB entries where they fit."""

    def map_frames(self, addr: int, gpa: int, pages: int, prot: int) -> None:
        """Map consecutive guest-physical pages: RAM frames (a reference each) or a window."""

    def protect(self, addr: int, pages: int, prot: int) -> None:
        """Change the rights of what is mapped; flushed before it returns."""

    def unmap(self, addr: int, pages: int) -> None:
        """Drop entries and the references they own; flushed before a frame can be reused."""

    def move(self, old: int, new: int, pages: int) -> None:
        """Move entries (mremap)."""

    def destroy(self) -> None:
        """Give everything back, when no vCPU is inside any more. Asynchronous."""


class Context(Protocol):
    """One task's registers. See docs/interfaces.md for what holds when."""

    regs: memoryview
    exit: ExitKind
    fault_addr: int
    error_code: int
    vector: int
    owner: object
    """The task: the platform hands contexts back by `wait`, the kernel finds the task here."""

    def answer(self, value: int) -> None: ...
    def resume(self) -> None: ...
    def kick(self) -> None: ...
    def stop(self, callback: Callable[[], None]) -> None: ...
    def bind(self, space: AddressSpace) -> None: ...
    def get_fpu(self) -> bytes: ...
    def set_fpu(self, image: bytes) -> None:
        """Go on with this image; an empty one is the initial state of a new program."""
    def copy_from(self, other: Context) -> None: ...
    def cpu_time_ns(self) -> int: ...
    def set_fast(self, pid: int, tid: int, ids: tuple[int, int, int, int]) -> None: ...
    def destroy(self) -> None: ...


class Platform(Protocol):
    """A machine: makes address spaces and contexts, and waits for what they do."""

    name: str
    xsave_size: int
    """Bytes of an FPU image (XSAVE standard format)."""
    xfeatures: int
    """XCR0 as the program sees it."""

    def new_address_space(self) -> AddressSpace: ...
    def new_context(self, space: AddressSpace) -> Context: ...
    def wait(self, deadline_ns: int | None) -> Sequence[Context]: ...
    def watch(self, fd: int, events: int) -> None: ...
    def close(self) -> None: ...

"""How an access to user memory fails, apart from errnos."""

from __future__ import annotations

from sentry.wait.again import NotNow


class MemoryFault(Exception):
    """A signal for the program: `si_code` and the address as in siginfo_t."""

    def __init__(self, addr: int, si_code: int) -> None:
        super().__init__(f"{addr:#x}")
        self.addr = addr
        self.si_code = si_code


class SegFault(MemoryFault):
    """SIGSEGV: SEGV_MAPERR (nothing mapped) or SEGV_ACCERR (rights)."""


class BusError(MemoryFault):
    """SIGBUS: BUS_ADRERR, mapped past the end of the file."""


class OutOfMemory(Exception):
    """No frame for a page that the program may use: the OOM killer's business."""


class NeedsFault(NotNow):
    """A page of the program's memory has to be read, or memory to be made free, first."""


class NeedsPage(NeedsFault):
    """A page of a file, which whoever serves that may never bring (FUSE)."""

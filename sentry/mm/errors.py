"""How an access to user memory fails, apart from errnos."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any


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


class NeedsFault(Exception):
    """A page has to be read first: await `coroutine`, then start again."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        super().__init__()
        self.coroutine = coroutine

"""`Image`: a program that is ready to start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sentry.abi.personality import ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.auth.userns import UserNamespace
    from sentry.mm.manager import MemoryManager

CLEARED_ON_SETID = READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | 0x0200000 | 0x0100000
"""PER_CLEAR_ON_SETID: with ADDR_COMPAT_LAYOUT and MMAP_PAGE_ZERO. personality(2)."""
COMM_LEN = 15
"""TASK_COMM_LEN less its NUL."""


class Image(Struct):
    """What execve(2) switches to. The holder owns `mm` until the switch."""

    mm: MemoryManager
    entry: int
    """Where the first instruction is: the interpreter's entry if there is one."""
    stack_pointer: int
    creds: Credentials
    secure: bool
    """AT_SECURE: the program runs with rights that its caller does not have."""
    dumpable: bool
    """False where others may not look at its memory: `privileges.would_dump`, `unchanged`."""
    memory_ns: UserNamespace | None
    """Where who looks nevertheless must be capable: mm_struct.user_ns."""
    comm: bytes
    exe: Any
    """Location of the program (/proc/self/exe): of a script's interpreter, not of the script."""
    argv: list[bytes]
    """As the program sees it, so with what a script's first line added."""

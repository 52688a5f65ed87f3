"""`Image`: a program that is ready to start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.mm.manager import MemoryManager

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
    """False for a secure program and for one that its user may not read."""
    comm: bytes
    exe: Any
    """Location of the program (/proc/self/exe): of a script's interpreter, not of the script."""
    argv: list[bytes]
    """As the program sees it, so with what a script's first line added."""

"""`#!` lines: execve(2), "Interpreter scripts"; fs/binfmt_script.c."""

from __future__ import annotations

from sentry.abi.layout import Record
from sentry.errors import ENOEXEC

HEAD_SIZE = 256
"""BINPRM_BUF_SIZE: the first line counts as far as it lies in these bytes."""
MAX_DEPTH = 5
"""Interpreters that are scripts themselves: more give ELOOP."""

_BLANK = b" \t"
_TERMINATORS = b" \t\0"


class Shebang(Record):
    """The interpreter's path, and the rest of the line as one argument."""

    interpreter: bytes
    argument: bytes | None


def is_script(head: bytes) -> bool:
    """The file begins like a script."""
    return head[:2] == b"#!"


def parse_shebang(head: bytes) -> Shebang:
    """The first line of a script; `head` is its first 256 bytes (fewer of a shorter file).

    A line that goes on beyond them is accepted only if the interpreter's name surely does not.
    Raises: ENOEXEC.
    """
    buffer = head[:HEAD_SIZE].ljust(HEAD_SIZE, b"\0")
    end = buffer.find(b"\n")
    if end < 0:
        rest = buffer[2:].lstrip(_BLANK)
        if not any(c in rest for c in _TERMINATORS):
            raise ENOEXEC("the interpreter's name may go on")
        end = HEAD_SIZE - 1
    line = buffer[2:end].strip(_BLANK)
    if not line:
        raise ENOEXEC("no interpreter")
    cut = next((i for i, c in enumerate(line) if c in _TERMINATORS), len(line))
    name = line[:cut]
    argument = None
    if line[cut : cut + 1] not in (b"", b"\0"):
        argument = line[cut:].lstrip(_BLANK).split(b"\0", 1)[0]
    return Shebang(name, argument)

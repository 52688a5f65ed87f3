"""Users of a sandbox: numbers, or names by /etc/passwd and /etc/group as they are inside.

Both are the sandbox's, so what they say is believed of names inside alone.
"""

from __future__ import annotations

from typing import Final

from runsc.accounts import MAX_FILE, MAX_ID, Ids, ids_of
from runsc.api.errors import SandboxError
from runsc.errors import RuntimeFailure

PASSWD: Final = "/etc/passwd"
GROUP: Final = "/etc/group"
MAX_BYTES: Final = MAX_FILE
"""So much of each is read."""


def by_number(user: str | int) -> Ids | None:
    """1000, "1000" and "1000:100" need no file; None: it is a name. Raises: SandboxError."""
    if isinstance(user, int):
        return Ids(_id(user), _id(user))
    name, colon, group = user.partition(":")
    if not _is_number(name) or (colon and not _is_number(group)):
        return None
    return Ids(_id(int(name)), _id(int(group if colon else name)))


def by_name(user: str, passwd: bytes, group: bytes) -> Ids:
    """NAME, with all its groups; NAME:GROUP, or with numbers: with that one.

    Raises: SandboxError.
    """
    if not user.partition(":")[0]:
        raise SandboxError(f"{user!r} names no user")
    try:
        return ids_of(user, passwd, group)
    except RuntimeFailure as error:
        raise SandboxError(f"in the sandbox {error}") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _id(number: int) -> int:
    """Raises: SandboxError."""
    if not 0 <= number <= MAX_ID:
        raise SandboxError(f"{number} is no user or group")
    return number

"""Seals of manifests: that a snapshot was made by this user on this machine, and says what it said.

A manifest may say of what on the host a sandbox was made (its root, its mounts, its network). Of a
snapshot from elsewhere that is a wish of whoever wrote it. The seal is an HMAC by a key that only
this user can read; what programs in a sandbox wrote into its memory and files is not sealed, and
need not be: it stays inside.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress

from runsc.containers.names import cache_folder

KEY_BYTES = 32


def seal(data: bytes) -> str:
    """Of a manifest without one; empty: there is no place for a key."""
    key = _key() or _made()
    return hmac.new(key, data, hashlib.sha256).hexdigest() if key else ""


def is_ours(data: bytes, given: str) -> bool:
    """`given` is the seal of this."""
    key = _key()
    if not key or not given.isascii():
        return False
    return hmac.compare_digest(hmac.new(key, data, hashlib.sha256).hexdigest(), given)


def _path() -> str:
    return os.path.join(cache_folder(), "snapshots.key")


def _key() -> bytes:
    """Empty: there is none that nobody else can know or replace."""
    try:
        fd = os.open(_path(), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o177077 != 0o100000:
            return b""
        key = file.read(KEY_BYTES + 1)
    return key if len(key) == KEY_BYTES else b""


def _made() -> bytes:
    """A new one, or who was faster; whole before it has its name."""
    path = _path()
    new = f"{path}.{secrets.token_hex(8)}"
    with suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(fd)  # its name may be there first, and an empty key is never replaced
            os.link(new, path)
        finally:
            os.unlink(new)
    return _key()

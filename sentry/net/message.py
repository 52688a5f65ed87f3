"""What a message has beside its bytes, and what a receive tells of it: recvmsg(2), sendmsg(2)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Ancillary(Struct):
    """What a message carries beside its bytes."""

    files: list[Any] = []
    """SCM_RIGHTS: file descriptions, each with a use of its own."""
    creds: tuple[int, int, int] | None = None
    """SCM_CREDENTIALS: pid, uid, gid of the sender."""
    records: list[tuple[int, int, bytes]] = []
    """Others: (level, type, data)."""
    pid: int | None = None
    """SCM_PIDFD: of which process."""
    sent: bool = False
    """The message went off with it."""


class Received(Struct):
    """What one receive gives."""

    count: int
    """Bytes put into the destination, or the whole length of a cut datagram with MSG_TRUNC."""
    address: bytes = b""
    flags: int = 0
    """MSG_TRUNC, MSG_EOR, MSG_OOB."""
    ancillary: Ancillary | None = None

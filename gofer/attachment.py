"""What a Gofer may serve: directories that were opened before it was confined."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class CacheMode(Enum):
    """How far a client may trust what it has read before."""

    EXCLUSIVE = "exclusive"
    """The client's alone: root file systems, bind mounts that are said to be. What others do is
    heard of (gofer.hearing)."""
    SHARED = "shared"
    """The host may change them at any time: bind mounts, volumes."""


class Attachment(Struct, frozen=True):
    """One directory tree (or one file). `fd` is a descriptor of its root, O_PATH is enough.

    `name` is what Tattach asks for. An attachment of a single regular file must have been opened
    O_RDONLY or O_RDWR: there is no directory below which it could be opened again.
    """

    name: bytes
    fd: int
    readonly: bool = False
    cache: CacheMode = CacheMode.EXCLUSIVE
    connects: bytes = b""
    """Of a socket that clients may connect to: what it is called in the root of this process."""
    reaches: bool = False
    """Clients may connect to sockets that lie in it."""
    binds: bool = False
    """Clients may make sockets in it that the host can connect to."""
    opens: bytes = b""
    """Of a FIFO that clients may open: likewise."""

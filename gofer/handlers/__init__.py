"""The handlers of each kind of request; importing this package registers them all."""

from __future__ import annotations

from gofer.handlers import (
    attributes,
    bind,
    connect,
    fifo,
    hear,
    io,
    journal,
    lock,
    names,
    open,
    session,
    walk,
    watch,
    xattr,
)

__all__ = [
    "attributes", "bind", "connect", "fifo", "hear", "io", "journal", "lock", "names", "open", 
    "session", "walk", "watch", "xattr",
]  # fmt: skip

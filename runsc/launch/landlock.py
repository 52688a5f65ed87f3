"""Landlock: a wall of the host's own behind the empty root, for Gofer, network process, dialer.

Set when nothing is left to be mounted. Where the kernel has none, or one that would keep files from
being moved between directories (before Linux 5.19), the other walls have to do. Never for the
command line, whose hooks would inherit it, and not for the Sentry, which can open nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from runsc import host
from sentry.abi import landlock as abi

OLDEST: Final = 2
"""The first version that can allow a move from one directory to another."""
READ: Final = abi.LANDLOCK_ACCESS_FS_READ_FILE
LIST: Final = abi.LANDLOCK_ACCESS_FS_READ_DIR
WRITE: Final = abi.LANDLOCK_ACCESS_FS_WRITE_FILE | abi.LANDLOCK_ACCESS_FS_TRUNCATE
CHANGE: Final = (
    abi.LANDLOCK_ACCESS_FS_REMOVE_DIR
    | abi.LANDLOCK_ACCESS_FS_REMOVE_FILE
    | abi.LANDLOCK_ACCESS_FS_MAKE_DIR
    | abi.LANDLOCK_ACCESS_FS_MAKE_REG
    | abi.LANDLOCK_ACCESS_FS_MAKE_SOCK
    | abi.LANDLOCK_ACCESS_FS_MAKE_FIFO
    | abi.LANDLOCK_ACCESS_FS_MAKE_SYM
    | abi.LANDLOCK_ACCESS_FS_REFER
)
NEVER: Final = (
    abi.LANDLOCK_ACCESS_FS_EXECUTE
    | abi.LANDLOCK_ACCESS_FS_MAKE_CHAR
    | abi.LANDLOCK_ACCESS_FS_MAKE_BLOCK
    | abi.LANDLOCK_ACCESS_FS_IOCTL_DEV
)
SINCE: Final = {
    abi.LANDLOCK_ACCESS_FS_TRUNCATE: 3,
    abi.LANDLOCK_ACCESS_FS_IOCTL_DEV: 5,
}
"""Versions after the oldest in which accesses came."""
TCP: Final = abi.LANDLOCK_ACCESS_NET_BIND_TCP | abi.LANDLOCK_ACCESS_NET_CONNECT_TCP
TCP_SINCE: Final = 4
SCOPES: Final = abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | abi.LANDLOCK_SCOPE_SIGNAL
SCOPES_SINCE: Final = 6


class Tree(Struct, frozen=True):
    """What the Gofer serves."""

    fd: int
    writable: bool
    is_directory: bool


def restrict_gofer(trees: Iterable[Tree]) -> None:
    """Files of these trees, as far as they are served; no TCP, nobody's abstract sockets."""
    _restrict(trees, TCP)


def restrict_network(port: int = 0) -> None:
    """No file, and no connection, but to this port: sockets are bound here and connected by the
    Sentry."""
    _restrict((), abi.LANDLOCK_ACCESS_NET_CONNECT_TCP, (port,) if port else ())


def restrict_dialer() -> None:
    """No file that can be opened, no TCP, nobody's abstract sockets. Names of sockets are not
    asked for here: its root has those that it may reach."""
    _restrict((), TCP)


def _restrict(trees: Iterable[Tree], net: int, ports: Iterable[int] = ()) -> None:
    version = host.landlock_version()
    if version < OLDEST:
        return
    known = READ | LIST | WRITE | CHANGE | NEVER
    for access, since in SINCE.items():
        if version < since:
            known &= ~access
    host.landlock(
        known,
        net if version >= TCP_SINCE else 0,
        SCOPES if version >= SCOPES_SINCE else 0,
        [(tree.fd, _accesses(tree) & known) for tree in trees],
        ports if version >= TCP_SINCE else (),
    )


def _accesses(tree: Tree) -> int:
    if tree.is_directory:
        return READ | LIST | (WRITE | CHANGE if tree.writable else 0)
    return READ | (WRITE if tree.writable else 0)

"""Sockets as inodes: sockfs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import (
    AF_INET,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_UDPLITE,
    SOCK_DGRAM,
    SOCK_STREAM,
)
from sentry.abi.stat import S_IFSOCK, SOCKFS_MAGIC
from sentry.errors import EOPNOTSUPP
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Attributes, Changes, Inode, Owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location

SOCKET_PROTOCOL: Final = b"system.sockprotoname"
PROTOCOL_NAMES: Final = {
    IPPROTO_ICMP: (b"PING", b"PINGv6"),
    IPPROTO_ICMPV6: (b"PING", b"PINGv6"),
    IPPROTO_UDPLITE: (b"UDP-Lite", b"UDPLITEv6"),
}
"""Datagram sockets that are not UDP: for IPv4, for IPv6."""


def protocol_name(family: int, kind: int, protocol: int) -> bytes:
    """The name in struct proto, as system.sockprotoname tells it."""
    if family == AF_NETLINK:
        return b"NETLINK"
    if family == AF_PACKET:
        return b"PACKET"
    if family == AF_UNIX:
        return b"UNIX-STREAM" if kind == SOCK_STREAM else b"UNIX"
    names = PROTOCOL_NAMES.get(protocol, (b"UDP", b"UDPv6"))
    if kind != SOCK_DGRAM:
        names = (b"TCP", b"TCPv6") if kind == SOCK_STREAM else (b"RAW", b"RAWv6")
    return names[family != AF_INET]


class SocketInode(Inode):
    """The inode of a socket: its only extended attribute is the name of the protocol."""

    __slots__ = ("_times", "protocol_name")
    protocol_name: bytes

    def __init__(self, fs: FileSystem, ino: int, mode: int, owner: Owner) -> None:
        super().__init__(fs, ino, mode, owner)
        self._times = (0, 0, 0)
        """Of access, modification, change: nobody sets them but setattr."""

    def stat(self) -> Attributes:
        """What every file without content has, and the times."""
        access, modification, change = self._times
        return super().stat()._replace(atime_ns=access, mtime_ns=modification, ctime_ns=change)

    def setattr(self, changes: Changes) -> None:
        """sockfs_setattr()."""
        super().setattr(changes)
        access, modification, _ = self._times
        self._times = (
            access if changes.atime_ns is None else changes.atime_ns,
            modification if changes.mtime_ns is None else changes.mtime_ns,
            self.fs.now_ns(),
        )

    def getxattr(self, name: bytes) -> bytes:
        """system.sockprotoname. Raises: EOPNOTSUPP."""
        if name != SOCKET_PROTOCOL:
            raise EOPNOTSUPP(f"{name!r}")
        return self.protocol_name + b"\0"

    def listxattr(self) -> Sequence[bytes]:
        """The one."""
        return (SOCKET_PROTOCOL,)


def socket_location(caller: Caller) -> Location:
    """A place in sockfs for a new socket."""
    return new_location(caller.kernel.vfs, Owner(caller.creds.fsuid, caller.creds.fsgid))


def new_location(vfs: Any, owner: Owner) -> Location:
    """The same for one that nobody asks for: a connection that comes."""
    fs = vfs.anon_fs("sockfs", SOCKFS_MAGIC)
    ino = vfs.new_ino()
    inode = SocketInode(fs, ino, S_IFSOCK | 0o777, owner)
    location: Location = vfs.anon_location(inode, b"socket:[%d]" % ino)
    return location

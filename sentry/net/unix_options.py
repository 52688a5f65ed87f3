"""What AF_UNIX answers in its own way: options about the other end, ioctl(2) requests. unix(7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from sentry.errors import EINVAL, ENODATA, EOPNOTSUPP, ERANGE
from sentry.net.ioctls import NAMES, SOCKETS
from sentry.net.options import INT, Option, Options
from sentry.net.socket_options import NOBODY, SOCKET
from sentry.vfs.requests import Requests, put_int

if TYPE_CHECKING:
    from sentry.net.unix import UnixSocket
    from sentry.net.unix_segment import Ucred
    from sentry.vfs.file import Caller


def shown_ucred(caller: Caller, creds: Ucred) -> bytes:
    """struct ucred as the caller's namespaces have it: 0 and the overflow ids for others."""
    pid, uid, gid = creds
    mine, pids = caller.creds, caller.group.pids
    return struct.pack("<iII", pids.of(pid), mine.shown_uid(uid), mine.shown_gid(gid))


def _peer_creds(row: Option, sock: UnixSocket, caller: Caller, size: int) -> bytes:
    return NOBODY if sock.peer_creds is None else shown_ucred(caller, sock.peer_creds)


def _peer_groups(row: Option, sock: UnixSocket, caller: Caller, size: int) -> bytes:
    if sock.peer_creds is None:
        raise ENODATA("no peer")
    if size < 4 * len(sock.peer_groups):
        raise ERANGE("groups")
    groups = [caller.creds.shown_gid(gid) for gid in sock.peer_groups]
    return struct.pack(f"<{len(groups)}I", *groups)


UNIX: Final = Options(SOL_SOCKET, abi, SOCKET)
UNIX.row("SO_PEERCRED", _peer_creds)
UNIX.row("SO_PEERGROUPS", _peer_groups)


REQUESTS: Final = Requests(SOCKETS, names=NAMES)


@REQUESTS.handles("FIONREAD")
def _unread(sock: UnixSocket, caller: Caller, argument: int) -> None:
    """SIOCINQ: of a datagram socket, the size of the next one."""
    if sock.listening:
        raise EINVAL("listening")
    size = sock.queued
    if sock.kind == SOCK_DGRAM:
        size = len(sock.segments[0].data) if sock.segments else 0
    caller.mm.write(argument, INT.pack(size))


REQUESTS.row("TIOCOUTQ", put_int(lambda sock: sock.sent_charge))


@REQUESTS.handles("SIOCATMARK")
def _at_mark(sock: UnixSocket, caller: Caller, argument: int) -> None:
    if sock.kind != SOCK_STREAM:
        raise EOPNOTSUPP("SIOCATMARK")
    marked = bool(sock.segments) and sock.segments[0].urgent
    caller.mm.write(argument, INT.pack(bool(marked)))

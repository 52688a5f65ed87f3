"""NETLINK_SOCK_DIAG: the open sockets, as `ss` asks for them. sock_diag(7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_SOCK_DIAG
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    BPF_TCP_CLOSE,
    BPF_TCP_ESTABLISHED,
    BPF_TCP_LISTEN,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_STREAM,
)
from sentry.auth.userns import shown_uid
from sentry.errors import EINVAL, ENOENT
from sentry.net.inet.inetsocket import InetSocket
from sentry.net.netlink.message import Reply, Request, attribute, u8, u32
from sentry.net.netlink.registry import handles

if TYPE_CHECKING:
    from sentry.auth.userns import UserNamespace
    from sentry.net.stack import Stack

REQUEST_SIZE: Final = 56
UNIX_REQUEST_SIZE: Final = 24
SHOW_NAME: Final = 1
SHOW_PEER: Final = 4
SHOW_RQLEN: Final = 16
SHOW_MEMINFO: Final = 32
SHOW_UID: Final = 64


@handles(NETLINK_SOCK_DIAG, abi.SOCK_DIAG_BY_FAMILY)
def by_family(request: Request) -> Iterable[Reply]:
    """SOCK_DIAG_BY_FAMILY. Raises: ENOENT for families without diagnostics."""
    family = request.fixed(2)[0]
    if family in (AF_INET, AF_INET6):
        return _inet(request, family)
    if family == AF_UNIX:
        return _unix(request)
    raise ENOENT(f"family {family}")


def _open(stack: Stack, family: int) -> Iterator[Any]:
    """The open sockets of a family, without those that are closed meanwhile."""
    for sock in list(stack.sockets):
        if sock.family == family and sock in stack.sockets:
            yield sock


def _cookie(sock: Any) -> bytes:
    sock.cookie = sock.cookie or sock.stack.next_cookie()
    return struct.pack("<II", sock.cookie & 0xFFFFFFFF, sock.cookie >> 32)


# --- TCP and UDP


def _state(sock: Any) -> int:
    if sock.protocol == IPPROTO_TCP:
        return int(sock.state)
    return int(BPF_TCP_ESTABLISHED if sock.remote is not None else BPF_TCP_CLOSE)


def _inet_sockets(stack: Stack, family: int, protocol: int) -> Iterator[Any]:
    """Those of TCP or UDP, also those that wait for accept; none that are raw, or the host's."""
    kind = SOCK_DGRAM
    holders: Iterator[Any] = iter(())
    if protocol == IPPROTO_TCP:
        kind, holders = SOCK_STREAM, stack.ports_of(protocol).everybody()
    waiting = (sock for sock in holders if sock not in stack.sockets)
    for sock in chain(_open(stack, family), waiting):
        is_one = isinstance(sock, InetSocket) and sock.kind == kind and sock.protocol == protocol
        if is_one and sock.family == family and (sock.local.port or sock.remote is not None):
            yield sock


def _inet(request: Request, family: int) -> Iterable[Reply]:
    raw = request.fixed(REQUEST_SIZE)
    protocol, wanted, states = raw[1], raw[2], struct.unpack_from("<I", raw, 4)[0]
    sport, dport = struct.unpack_from(">HH", raw, 8)
    if protocol not in (IPPROTO_TCP, IPPROTO_UDP):
        raise ENOENT(f"protocol {protocol}")
    socks, users = _inet_sockets(request.stack, family, protocol), request.caller.creds.user_ns
    if not request.flags & abi.NLM_F_DUMP:
        size = 4 if family == AF_INET else 16
        for sock in socks:
            same = sock.local.port == sport and sock.local.ip[-size:] == raw[12 : 12 + size]
            if same and (sock.remote.port if sock.remote is not None else 0) == dport:
                return [_inet_answer(sock, family, wanted, users)]
        raise ENOENT("no such socket")
    return (
        _inet_answer(sock, family, wanted, users)
        for sock in socks
        if states >> _state(sock) & 1
        and sport in (0, sock.local.port)
        and (not dport or (sock.remote is not None and sock.remote.port == dport))
    )


def _inet_answer(sock: Any, family: int, wanted: int, users: UserNamespace | None) -> Reply:
    size = 4 if family == AF_INET else 16
    state = _state(sock)
    remote = sock.remote
    waiting, unsent = sock.queues()
    body = bytes([family, state, 0, 0])
    body += struct.pack(">HH", sock.local.port, remote.port if remote is not None else 0)
    body += sock.local.ip[-size:].ljust(16, b"\0")
    body += (remote.ip[-size:] if remote is not None else b"").ljust(16, b"\0")
    body += struct.pack("<I", 0) + _cookie(sock)
    body += struct.pack(
        "<IIIII", 0, waiting, unsent, shown_uid(users, sock.inode.uid),
        sock.inode.ino if sock.refs else 0,
    )  # fmt: skip
    shut = int(sock.read_shut) | int(sock.write_shut) << 1
    body += u8(abi.INET_DIAG_SHUTDOWN, shut)

    def asked(kind: int) -> bool:
        return bool(wanted >> (kind - 1) & 1)

    if asked(abi.INET_DIAG_SKMEMINFO):
        drops = sock.drops & 0xFFFFFFFF if sock.protocol == IPPROTO_UDP else 0
        body += attribute(
            abi.INET_DIAG_SKMEMINFO,
            struct.pack("<9I", waiting, sock.rcvbuf, unsent, sock.sndbuf, 0, unsent, 0, 0, drops),
        )
    if sock.protocol == IPPROTO_TCP:
        if asked(abi.INET_DIAG_INFO) and state != BPF_TCP_LISTEN:
            body += attribute(abi.INET_DIAG_INFO, sock.info())
        if asked(abi.INET_DIAG_CONG):
            body += attribute(abi.INET_DIAG_CONG, sock.congestion + b"\0")
    if family == AF_INET6 and state in (BPF_TCP_LISTEN, BPF_TCP_CLOSE):
        body += u8(abi.INET_DIAG_SKV6ONLY, int(sock.v6only))
    return abi.SOCK_DIAG_BY_FAMILY, body


# --- AF_UNIX


def _unix_state(sock: Any) -> int:
    if sock.listening:
        return int(BPF_TCP_LISTEN)
    return int(BPF_TCP_ESTABLISHED if sock.peer is not None else BPF_TCP_CLOSE)


def _unix_sockets(stack: Stack) -> Iterator[Any]:
    """Also those that wait for accept."""
    for sock in _open(stack, AF_UNIX):
        yield sock
        yield from list(sock.pending)


def _unix(request: Request) -> Iterator[Reply] | list[Reply]:
    raw = request.fixed(UNIX_REQUEST_SIZE)
    states, number, show = struct.unpack_from("<III", raw, 4)
    socks, users = _unix_sockets(request.stack), request.caller.creds.user_ns
    if not request.flags & abi.NLM_F_DUMP:
        if not number:
            raise EINVAL("no inode number")
        found = next((s for s in socks if s.inode.ino & 0xFFFFFFFF == number), None)
        if found is None:
            raise ENOENT("no such socket")
        return [_unix_answer(found, show, users)]
    return (_unix_answer(s, show, users) for s in socks if states >> _unix_state(s) & 1)


def _unix_answer(sock: Any, show: int, users: UserNamespace | None) -> Reply:
    body = struct.pack("<BBBBI", AF_UNIX, sock.kind, _unix_state(sock), 0, sock.inode.ino)
    body += _cookie(sock)
    if show & SHOW_NAME and sock.name:
        body += attribute(abi.UNIX_DIAG_NAME, sock.name)
    if show & SHOW_PEER and sock.peer is not None:
        body += u32(abi.UNIX_DIAG_PEER, sock.peer.inode.ino)
    if show & SHOW_RQLEN:
        waiting, unsent = sock.queues()
        body += attribute(abi.UNIX_DIAG_RQLEN, struct.pack("<II", waiting, unsent))
    if show & SHOW_MEMINFO:
        body += attribute(
            abi.UNIX_DIAG_MEMINFO,
            struct.pack("<9I", 0, sock.rcvbuf, sock.sent_charge, sock.sndbuf, 0, 0, 0, 0, 0),
        )
    if show & SHOW_UID:
        body += u32(abi.UNIX_DIAG_UID, shown_uid(users, sock.inode.uid))
    body += u8(abi.UNIX_DIAG_SHUTDOWN, int(sock.read_shut) | int(sock.write_shut) << 1)
    return abi.SOCK_DIAG_BY_FAMILY, body

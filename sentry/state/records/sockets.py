"""Records of sockets."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.state.records.base import Amount, Data, Id, Int32, Int64, Many, Name, Record, Ref
from sentry.state.records.files import OpenFile

Numbers = Annotated[list[tuple[Int32, Int64]], msgspec.Meta(max_length=1024)]
Ucred = tuple[Int32, Id, Id]
Address = tuple[Annotated[bytes, msgspec.Meta(max_length=16)], Annotated[int, msgspec.Meta(ge=0)]]
"""Of 16 bytes, and a port."""


class AnySocket(OpenFile, frozen=True):
    """What all sockets have."""

    family: Int32 = 1
    protocol: Int32 = 0
    options: Annotated[list[Int32], msgspec.Meta(max_length=1024)] = []
    numbers: Numbers = []
    linger: tuple[Int32, Int32] = (0, 0)
    rcvbuf: Int32 = 0
    sndbuf: Int32 = 0
    chose_rcvbuf: bool = False
    chose_sndbuf: bool = False
    rcvtimeo_ns: Amount | None = None
    sndtimeo_ns: Amount | None = None
    so_error: Annotated[int, msgspec.Meta(ge=0, le=4095)] = 0
    read_shut: bool = False
    write_shut: bool = False
    uid: Id = 0
    gid: Id = 0
    is_open: bool = True
    """A descriptor, or one that is on its way, leads to it."""
    net: Ref | None = None
    """Its network namespace; None: the first."""


class Sent(Record, frozen=True):
    """What is on its way between Unix sockets."""

    data: Data
    sender: Ref
    creds: Ucred | None = None
    files: Annotated[list[Ref], msgspec.Meta(max_length=253)] = []
    charge: Annotated[int, msgspec.Meta(ge=0, le=1 << 26)] = 0
    stamp_ns: Amount = 0
    urgent: bool = False


class UnixEnd(AnySocket, frozen=True, tag="unix"):
    """A socket of AF_UNIX."""

    type: Int32 = 1
    name: Annotated[bytes, msgspec.Meta(max_length=109)] | None = None
    tree: Ref | None = None
    """Its name is file `inode` of this tree."""
    inode: Ref | None = None
    peer: Ref | None = None
    connected: bool = False
    peer_creds: Ucred | None = None
    peer_groups: Annotated[list[Id], msgspec.Meta(max_length=65536)] = []
    segments: Annotated[list[Sent], Many] = []
    accepts: bool = False
    backlog: Int32 = 0
    pending: Annotated[list[Ref], Many] = []
    gone: bool = False
    """It is closed, and only remembered by what it has sent."""

    owns_name: bool = False
    """It has this abstract name itself, and not of its listener."""


class TcpEnd(AnySocket, frozen=True, tag="tcp"):
    """A listener, or an end of a connection inside; `outside`: of one that is reset."""

    state: Int32 = 7
    local: Address = (b"", 0)
    remote: Address | None = None
    has_port: bool = False
    shares_port: bool = False
    adopted: bool = False
    bound: tuple[bool, bool] = (False, False)
    v6only: bool = False
    values: Numbers = []
    congestion: Name = b""
    ip_options: Numbers = []
    ipv6_options: Numbers = []
    chunks: Annotated[list[Data], Many] = []
    peer: Ref | None = None
    backlog: Int32 = 0
    accepted: Annotated[list[Ref], Many] = []
    outside: bool = False
    started: bool = False
    established: bool = False
    eof: bool = False
    reset: bool = False
    refused_writes: bool = False
    sent: Amount = 0
    got: Amount = 0
    mark: Amount | None = None
    urgent: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    urgent_unread: bool = False
    left: Ref | None = None
    """What is left of the other end, which waits for our FIN."""


class Datagram(Record, frozen=True):
    """One that nobody has read."""

    data: Data
    source: Address
    target: Address
    ttl: Annotated[int, msgspec.Meta(ge=0, le=255)] = 64
    tos: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    index: Int32 = 1
    stamp_ns: Amount = 0


class UdpEnd(AnySocket, frozen=True, tag="udp"):
    """A datagram socket."""

    local: Address = (b"", 0)
    remote: Address | None = None
    has_port: bool = False
    bound: tuple[bool, bool] = (False, False)
    v6only: bool = False
    ip_options: Numbers = []
    ipv6_options: Numbers = []
    udp_options: Numbers = []
    datagrams: Annotated[list[Datagram], Many] = []


class Remains(Record, frozen=True):
    """A TCP connection that no socket has any more, and that keeps its port: TIME_WAIT."""

    local: Address
    remote: Address
    family: Int32
    options: list[Int32]
    v6only: bool
    uid: Id
    state: Int32
    expires_ns: Amount
    shares_port: bool
    net: Ref | None = None
    """As that of a socket."""

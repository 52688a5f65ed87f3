"""What a Sentry asks a dialer for, and what a broker hears before the bytes of a connection.

A request is one packet over a socket pair (SOCK_SEQPACKET): `HEAD`, then a program's path and the
names, each behind its size. The answer is that of the network process (`protocol.REPLY`), with a
stream as SCM_RIGHTS. The line for the broker is made by the dialer, so that it is a line of JSON
whatever the Sentry says.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

MAX_REQUEST: Final = 1 << 15
MAX_NAMES: Final = 16
MAX_TEXT: Final = 4096
"""Bytes of a path."""
HEAD: Final = struct.Struct("<IHHIi16s")
"""Which broker, port, number of names, user, process, address."""
_SIZE: Final = struct.Struct("<H")
_MAPPED: Final = bytes(10) + b"\xff\xff"


class Wanted(Struct, frozen=True):
    """A connection that a program wants."""

    broker: int
    """Its place in the list of the dialer's sockets."""
    address: bytes
    """16 bytes, an IPv4 one mapped."""
    port: int
    names: tuple[str, ...] = ()
    """Those that the address was given for and the rule fits, the latest first."""
    program: str = ""
    pid: int = 0
    uid: int = 0


class Line(Struct, frozen=True):
    """What a broker hears: `docs/egress.md`."""

    container: str
    name: str | None
    names: tuple[str, ...]
    address: str
    port: int
    program: str
    pid: int
    uid: int


def pack(wanted: Wanted) -> bytes:
    """A request; what is too long of it is cut."""
    names = wanted.names[:MAX_NAMES]
    texts = [text.encode()[:MAX_TEXT] for text in (wanted.program, *names)]
    head = HEAD.pack(wanted.broker, wanted.port, len(names), wanted.uid, wanted.pid, wanted.address)
    return head + b"".join(_SIZE.pack(len(text)) + text for text in texts)


def unpack(data: bytes) -> Wanted:
    """The same, from a Sentry that nobody trusts. Raises: ValueError."""
    if len(data) < HEAD.size:
        raise ValueError("a short request")
    broker, port, count, uid, pid, address = HEAD.unpack_from(data)
    if count > MAX_NAMES:
        raise ValueError("many names")
    program, *names = _texts(data, count + 1)
    return Wanted(broker, address, port, tuple(names), program, pid, uid)


def _texts(data: bytes, count: int) -> Iterator[str]:
    at = HEAD.size
    for _ in range(count):
        if len(data) < at + _SIZE.size:
            raise ValueError("a short request")
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if size > MAX_TEXT or len(data) < at + size:
            raise ValueError("a short request")
        yield data[at : at + size].decode(errors="replace")
        at += size
    if at != len(data):
        raise ValueError("a long request")


def line(wanted: Wanted, container_id: str) -> bytes:
    """For the broker."""
    return msgspec.json.encode(Line(
        container_id,
        wanted.names[0] if wanted.names else None,
        wanted.names,
        _shown(wanted.address),
        wanted.port,
        wanted.program,
        wanted.pid,
        wanted.uid,
    )) + b"\n"  # fmt: skip


def _shown(address: bytes) -> str:
    if address[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)

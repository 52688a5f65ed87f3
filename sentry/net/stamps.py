"""When a packet came: for SIOCGSTAMP, for SO_TIMESTAMP and SO_TIMESTAMPNS. socket(7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi import socket as abi
from sentry.abi.socket import SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD, SOL_SOCKET
from sentry.net.socket_options import STAMPING, STAMPS

if TYPE_CHECKING:
    from sentry.net.socket import Socket

Record = tuple[int, int, bytes]


def note(sock: Socket, stamp_ns: int) -> None:
    """For SIOCGSTAMP, unless stamps go into control messages: sock_recv_cmsgs()."""
    if sock.options & STAMPS or any(sock.numbers.get(name) for name in STAMPING):
        return
    if sock.keeps_stamp:
        sock.last_stamp_ns = stamp_ns
    elif sock.last_stamp_ns < 0:
        sock.last_stamp_ns = 0


def stamps(sock: Socket, stamp_ns: int) -> list[Record]:
    """The control messages that the socket asks for."""
    if STAMPS.isdisjoint(sock.options):
        return []
    seconds, rest = divmod(stamp_ns, 10**9)
    records: list[Record] = []
    for option in (SO_TIMESTAMPNS_OLD, abi.SO_TIMESTAMPNS_NEW):
        if option in sock.options:
            records.append((SOL_SOCKET, option, struct.pack("<qq", seconds, rest)))
    for option in (SO_TIMESTAMP_OLD, abi.SO_TIMESTAMP_NEW):
        if option in sock.options:
            records.append((SOL_SOCKET, option, struct.pack("<qq", seconds, rest // 1000)))
    return records

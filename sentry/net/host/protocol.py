"""What Sentry and network process say to each other: packets over a socket pair, SOCK_SEQPACKET.

A request is `HEADER` and, for a bind, the address; its descriptor comes as SCM_RIGHTS. A reply is
`REPLY`, of a list as many as it takes, with netlink messages behind it; a new socket, or that of an
uplink, comes as SCM_RIGHTS. Replies come in the order of the requests. Between them may be
`CHANGED`, which answers no request: once after each list, when something of it is no longer so; and
`CAME`.
"""

from __future__ import annotations

import struct
from typing import Final

from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_STREAM,
)

SOCKET: Final = 1
"""a, b, c: family, type, protocol."""
BIND: Final = 2
"""A privileged port: the address, and the socket."""
LIST: Final = 3
"""Interfaces, addresses and routes. a: the count of changes that came with the last list, else -1.
If it is still the same only the interfaces come, for their counters."""

UPLINK: Final = 4
"""A packet socket for an interface. a: its index."""
GIVE_BACK: Final = 8
"""Of an interface it is not needed any more, and closed. a: its index."""

NAMESERVER: Final = 5
"""A socket that is connected to a nameserver, or connects: with a stack of its own. a, b: family,
type; its address is behind that."""
NAMESERVER_PORT: Final = 53

LISTEN: Final = 6
"""A socket that listens, for processes of the host in the namespace: with a stack of its own. a: a
number for it; b: 1 if it is for IPv6 alone; its address is behind that. For each connection to it
comes `CAME`."""
CLOSE: Final = 7
"""It listens no more. a: its number."""
MAX_LISTENING: Final = 256
"""Of these at a time."""

HEADER: Final = struct.Struct("<iiii")
"""Operation, a, b, c."""
REPLY: Final = struct.Struct("<iii")
"""An errno, 0, CHANGED or CAME; 1 if more of a list is to come, of CAME the number of the socket;
how many changes there have been."""
CHANGED: Final = -1
CAME: Final = -2
"""It answers no request: a connection, as SCM_RIGHTS."""
CHANGES_MASK: Final = 0x7FFFFFFF
MAX_ADDRESS: Final = 128
MAX_PACKET: Final = 1 << 17

FIRST_OF_HOST: Final = 65024
"""Ports from here on are the host's in a network namespace whose other ports are the sandbox's."""

SOCKETS: Final = frozenset(
    (family, kind, protocol)
    for family, icmp in ((AF_INET, IPPROTO_ICMP), (AF_INET6, IPPROTO_ICMPV6))
    for kind, protocols in (
        (SOCK_STREAM, (0, IPPROTO_TCP)),
        (SOCK_DGRAM, (0, IPPROTO_UDP, icmp)),
    )
    for protocol in protocols
)
"""What is made: (family, type, protocol)."""

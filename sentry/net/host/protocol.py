"""What Sentry and network process say to each other: packets over a socket pair, SOCK_SEQPACKET.

A request is `HEADER` and, for a bind, the address; its descriptor comes as SCM_RIGHTS. A reply is
`REPLY` and, for a dump, netlink messages; a new socket comes as SCM_RIGHTS. Replies come in the
order of the requests.
"""

from __future__ import annotations

import struct
from typing import Final

SOCKET: Final = 1
"""a, b, c: family, type, protocol."""
BIND: Final = 2
"""A privileged port: the address, and the socket."""
DUMP: Final = 3
"""a: RTM_GETLINK, RTM_GETADDR or RTM_GETROUTE."""

HEADER: Final = struct.Struct("<iiii")
"""Operation, a, b, c."""
REPLY: Final = struct.Struct("<i")
"""An errno, or 0."""
MAX_ADDRESS: Final = 128
MAX_PACKET: Final = 1 << 17

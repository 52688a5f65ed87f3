"""struct sockaddr_un: paths and abstract names. unix(7)."""

from __future__ import annotations

import struct

from sentry.abi.socket import AF_UNIX, UNIX_PATH_MAX
from sentry.errors import EINVAL


def parse_address(address: bytes, *, empty_ok: bool = False) -> bytes:
    """sun_path: a path without its NUL, or an abstract name with its leading NUL. EINVAL."""
    if len(address) < 2 or len(address) > 2 + UNIX_PATH_MAX:
        raise EINVAL("sockaddr_un")
    if struct.unpack_from("<H", address)[0] != AF_UNIX:
        raise EINVAL("family")
    name = address[2:]
    if not name:
        if empty_ok:
            return b""
        raise EINVAL("no name")
    return name if name[0] == 0 else name.split(b"\0", 1)[0]


def format_address(name: bytes | None) -> bytes:
    """struct sockaddr_un of a name, or of an unnamed socket."""
    return struct.pack("<H", AF_UNIX) + (name or b"")

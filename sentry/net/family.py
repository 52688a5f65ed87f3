"""The address families: socket(2) finds here who makes a socket."""

from __future__ import annotations

from collections.abc import Callable

from sentry.abi.socket import AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM
from sentry.errors import EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT
from sentry.net.socket import Socket, socket_location
from sentry.net.unix import UnixSocket, ucred
from sentry.vfs.file import Caller

Make = Callable[[Caller, int, int], Socket]
"""(caller, type, protocol) → a socket."""

FAMILIES: dict[int, Make] = {}
"""By AF_*; each family registers itself."""


def family(number: int) -> Callable[[Make], Make]:
    """Register who makes the sockets of a family."""

    def register(make: Make) -> Make:
        FAMILIES[number] = make
        return make

    return register


@family(AF_UNIX)
def make_unix(caller: Caller, kind: int, protocol: int) -> UnixSocket:
    """socket(AF_UNIX): SOCK_RAW means datagram, as in Linux."""
    if protocol not in (0, AF_UNIX):
        raise EPROTONOSUPPORT(f"protocol {protocol}")
    if kind == SOCK_RAW:
        kind = SOCK_DGRAM
    if kind not in (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET):
        raise ESOCKTNOSUPPORT(f"type {kind}")
    space: dict[bytes, UnixSocket] = caller.kernel.services.setdefault("unix abstract names", {})
    return UnixSocket(socket_location(caller), kind, space)


def make_socket(caller: Caller, number: int, kind: int, protocol: int) -> Socket:
    """socket(2). Raises: EAFNOSUPPORT and what the family raises."""
    make = FAMILIES.get(number)
    if make is None:
        raise EAFNOSUPPORT(f"family {number}")
    return make(caller, kind, protocol)


__all__ = ["FAMILIES", "UnixSocket", "family", "make_socket", "ucred"]

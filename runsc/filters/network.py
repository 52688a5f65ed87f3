"""What the network process may do on the host: make sockets, bind them, list interfaces."""

from __future__ import annotations

from collections.abc import Sequence

from runsc.filters.common import common
from runsc.filters.rule import Rule, low
from sentry.abi import socket as abi
from sentry.abi import unistd
from sentry.net.host.protocol import SOCKETS

_FLAGS = abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC

OWN = (
    Rule(
        unistd.socket,
        "network",
        "its purpose: TCP, UDP and ping sockets, which never block",
        tuple(
            (low(0, family), low(1, kind | _FLAGS), low(2, protocol))
            for family, kind, protocol in sorted(SOCKETS)
        ),
    ),
    Rule(unistd.bind, "network", "privileged ports"),
    Rule(unistd.getsockopt, "network", "CPython, making a socket object for a bind"),
    Rule(unistd.sendmsg, "network", "a socket for the Sentry"),
    Rule(unistd.sendto, "network", "netlink: a request for a list"),
    Rule(unistd.recvfrom, "network", "netlink: the list, and notices of changes"),
    Rule(unistd.poll, "network", "whether there is a request, or a notice"),
)


UPLINKS = (Rule(unistd.connect, "uplink", "sockets to nameservers, at their port alone"),)
"""With a stack of the Sentry's own."""

LISTENS = (
    Rule(unistd.futex, "forced", "the interpreter's lock, between threads that close sockets"),
    Rule(unistd.listen, "uplink", "ports where programs listen, for the host's own processes"),
    Rule(unistd.accept4, "uplink", "connections of these, for the Sentry"),
    Rule(
        unistd.setsockopt,
        "uplink",
        "addresses of such ports: used before, of IPv6 alone",
        (
            (low(1, abi.SOL_SOCKET), low(2, abi.SO_REUSEADDR)),
            (low(1, abi.IPPROTO_IPV6), low(2, abi.IPV6_V6ONLY)),
        ),
    ),
)
"""Where its links are interfaces of the host."""


def rules(uplinks: bool = False, listens: bool = False) -> Sequence[Rule]:
    """The allow-list."""
    return (
        *common("network"), *OWN, *(UPLINKS if uplinks else ()), *(LISTENS if listens else ())
    )  # fmt: skip

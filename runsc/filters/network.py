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


def rules(uplinks: bool = False) -> Sequence[Rule]:
    """The allow-list."""
    return (*common("network"), *OWN, *(UPLINKS if uplinks else ()))

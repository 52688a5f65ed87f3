"""What the network process may do on the host: make sockets of two families, and bind them."""

from __future__ import annotations

from collections.abc import Sequence

from runsc.filters.common import COMMON
from runsc.filters.rule import Rule, low
from sentry.abi import socket as abi
from sentry.abi import unistd

_FLAGS = abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC

OWN = (
    Rule(
        unistd.socket,
        "its purpose: TCP, UDP and ping sockets, which never block",
        tuple(
            (low(0, family), low(1, kind | _FLAGS))
            for family in (abi.AF_INET, abi.AF_INET6)
            for kind in (abi.SOCK_STREAM, abi.SOCK_DGRAM)
        ),
    ),
    Rule(unistd.bind, "privileged ports"),
    Rule(unistd.dup, "a socket object of its own for a bind"),
)


def rules() -> Sequence[Rule]:
    """The allow-list."""
    return (*COMMON, *OWN)

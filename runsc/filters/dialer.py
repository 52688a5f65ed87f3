"""What a dialer may do on the host: be connected to sockets that a policy names, and give streams.

Its root has nothing but these sockets, its network namespace nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from runsc.filters.common import common
from runsc.filters.rule import Rule, Test, low
from sentry.abi import socket as abi
from sentry.abi import unistd

_STREAM = abi.SOCK_STREAM | abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC

OWN = (
    Rule(
        unistd.socket,
        "brokers",
        "a stream, which never blocks",
        ((low(0, abi.AF_UNIX), low(1, _STREAM), low(2, 0)),),
    ),
    Rule(unistd.connect, "brokers", "sockets of the host: names in its root, which has no others"),
    Rule(unistd.sendto, "brokers", "a line for a broker; never to an address", ((Test(4, 0),),)),
    Rule(unistd.sendmsg, "brokers", "a stream for the Sentry"),
)


def rules() -> Sequence[Rule]:
    """The allow-list."""
    return (*(each for each in common("brokers") if each.number != unistd.getsockname), *OWN)

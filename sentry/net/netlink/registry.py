"""Which netlink protocols there are, who answers their messages, and notices to groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.net.netlink.message import Handler

if TYPE_CHECKING:
    from sentry.net.packets import NetlinkPort
    from sentry.net.stack import Stack

GROUPS: Final = {
    abi.NETLINK_ROUTE: abi.RTNLGRP_MAX, abi.NETLINK_USERSOCK: 32, abi.NETLINK_SOCK_DIAG: 32,
    abi.NETLINK_KOBJECT_UEVENT: 32, abi.NETLINK_NETFILTER: 32,
}  # fmt: skip
"""How many multicast groups a protocol has; these are the protocols that there are."""
OPEN_TO_ALL: Final = frozenset({abi.NETLINK_ROUTE, abi.NETLINK_KOBJECT_UEVENT})
"""NL_CFG_F_NONROOT_RECV: groups need no rights."""

PROTOCOLS: Final[dict[int, dict[int, Handler]]] = {protocol: {} for protocol in GROUPS}
"""Handlers by protocol and message type."""


def handles(protocol: int, *kinds: int) -> Callable[[Handler], Handler]:
    """Register who answers messages of these types."""

    def register(handler: Handler) -> Handler:
        for kind in kinds:
            PROTOCOLS[protocol][kind] = handler
        return handler

    return register


def multicast(
    stack: Stack,
    protocol: int,
    group: int,
    data: bytes,
    sender: NetlinkPort | None = None,
    creds: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """To every member of a group but the sender."""
    for (number, _), sock in list(stack.netlink.items()):
        if number == protocol and group in sock.groups and sock is not sender:
            sock.deliver(data, sender.port if sender is not None else 0, group, creds)

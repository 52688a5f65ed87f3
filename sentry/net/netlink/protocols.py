"""Everything that registers handlers, imported once; and who makes the sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.netlink import NETLINK_NETFILTER
from sentry.abi.socket import SOCK_DGRAM, SOCK_RAW
from sentry.errors import EPROTONOSUPPORT, ESOCKTNOSUPPORT
from sentry.net.netlink import addresses, diag, links, namespaces, neighbours, route, rules
from sentry.net.netlink.registry import PROTOCOLS
from sentry.net.netlink.socket import NetlinkSocket

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.location import Location

HANDLER_MODULES: Final = (links, addresses, route, rules, neighbours, namespaces, diag)


def make_netlink(location: Location, kind: int, protocol: int, stack: Stack) -> NetlinkSocket:
    """socket(AF_NETLINK). Raises: ESOCKTNOSUPPORT, EPROTONOSUPPORT."""
    if kind not in (SOCK_RAW, SOCK_DGRAM):
        raise ESOCKTNOSUPPORT(f"type {kind}")
    if protocol not in PROTOCOLS:
        raise EPROTONOSUPPORT(f"netlink protocol {protocol}")
    if protocol == NETLINK_NETFILTER:
        from sentry.net.netlink import nfnetlink  # noqa: PLC0415  few programs ask

        return nfnetlink.make(location, kind, stack)
    return NetlinkSocket(location, kind, protocol, stack)

"""How large a datagram may be: ip(7), ipv6(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.net.inet.error_queue import too_large
from sentry.net.interfaces import LENGTH_MAX

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.datagram import DatagramSocket
    from sentry.net.inet.packet import SendOptions

IP_HEADER: Final = 20
IP6_HEADER: Final = 40
MAY_FRAGMENT: Final = (abi.IP_PMTUDISC_DONT, abi.IP_PMTUDISC_WANT, abi.IP_PMTUDISC_OMIT)
"""IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: a datagram may be larger than the MTU."""
KEEPS_WHOLE: Final = (abi.IPPROTO_UDP, abi.IPPROTO_ICMPV6, abi.IPPROTO_RAW)
"""IPV6_DONTFRAG counts for packets of these protocols."""


def check_size(sock: DatagramSocket, size: int, target: Endpoint, options: SendOptions) -> None:
    """Whether so many bytes behind an IP header can be sent: ip_append_data(), ip6_append_data().

    Raises: EMSGSIZE, which the queue of errors tells of, and IPV6_RECVPATHMTU.
    """
    if target.is_v4:
        _check_size4(sock, size, target)
    else:
        _check_size6(sock, size, target, options)


def _check_size4(sock: DatagramSocket, size: int, target: Endpoint) -> None:
    mtu = sock.mtu_towards(target)
    fragments = sock.ip_options[abi.IP_MTU_DISCOVER] in MAY_FRAGMENT
    if size > (LENGTH_MAX if fragments else mtu) - IP_HEADER:
        too_large(sock, target, mtu)


def _check_size6(sock: DatagramSocket, size: int, target: Endpoint, options: SendOptions) -> None:
    own = sock.ipv6_options
    mtu = sock.mtu_towards(target)
    mtu = min(mtu, own.get(abi.IPV6_MTU) or mtu)
    whole = own[abi.IPV6_DONTFRAG] if options.dont_fragment is None else options.dont_fragment
    if size > mtu - IP6_HEADER and whole and sock.protocol in KEEPS_WHOLE:
        sock.path_mtu = (target, mtu)
        too_large(sock, target, mtu)
    fragments = own[abi.IPV6_MTU_DISCOVER] in MAY_FRAGMENT
    if size > (LENGTH_MAX if fragments else mtu - IP6_HEADER):
        too_large(sock, target, mtu)

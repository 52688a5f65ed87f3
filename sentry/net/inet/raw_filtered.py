"""ICMP and what raw sockets send, within the sandbox, where netfilter has rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.errors import EPERM, from_number
from sentry.net.inet.wire import with_header
from sentry.net.netfilter.local import Judged, judge_packet

if TYPE_CHECKING:
    from sentry.net.inet.packet import SendOptions
    from sentry.net.inet.raw import RawSocket
    from sentry.net.packets import Packet
    from sentry.net.stack import Stack


def passed_of(
    sock: RawSocket, packet: Packet, protocol: int, options: SendOptions
) -> Packet | None:
    """A packet of a socket, as it comes in. None: it is lost, or goes by a link.

    Raises: EPERM, ENETUNREACH, and what `IpLayer.send` raises.
    """
    found = _judged(sock.stack, packet, sock.family, protocol, options.sender)
    if not isinstance(found, Judged):
        return found
    if found.leaves:
        if not sock.includes_header:
            from sentry.net.inet import leaving  # noqa: PLC0415  few have links

            discover = leaving.discover_of(sock, packet.target, options.dont_fragment)
            leaving.send_raw(sock, packet, discover, 0, options.sender)
        return None
    if found.failure is not None:
        sock.complained(found.failure, packet.target, packet.data, is_fatal=True)
    if found.at_output:
        raise from_number(found.errno) if found.has_no_way else EPERM("a rule drops it")
    return None


def answer_of(stack: Stack, packet: Packet, family: int, protocol: int) -> Packet | None:
    """What the kernel answers, as it comes in; nobody hears that it does not."""
    found = _judged(stack, packet, family, protocol, None)
    return None if isinstance(found, Judged) else found


def _judged(
    stack: Stack, packet: Packet, family: int, protocol: int, sender: object
) -> Judged | Packet:
    whole = with_header(packet, family, protocol)
    return judge_packet(stack, stack.kernel.loop.now_ns(), packet, whole, sender)

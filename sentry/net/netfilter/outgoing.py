"""What a socket sends by a link, as rules see it, and what its sender hears when it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import EPERM
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.seam import Owner
from sentry.net.netfilter.packet import Packet

if TYPE_CHECKING:
    from sentry.net.ip.seam import Outgoing, Path


def packet_of(out: Outgoing, source: bytes) -> Packet | None:
    """As it would go; None: it is too large to go at all."""
    size = sum(map(len, out.pieces))
    is_v4 = len(out.target) == 4
    if size > (ipv4.MAX_SIZE - ipv4.HEADER_SIZE if is_v4 else ipv6.MAX_PAYLOAD):
        return None
    if is_v4:
        head = ipv4.build(ipv4.Header(
            ipv4.HEADER_SIZE, ipv4.HEADER_SIZE + size, out.tos, 0, ipv4.DONT_FRAGMENT, out.ttl,
            out.protocol, source, out.target,
        ))  # fmt: skip
    else:
        head = ipv6.build(
            ipv6.Header(out.tos, 0, size, out.protocol, out.ttl, source, out.target)
        )
    packet = Packet(b"".join((head, *out.pieces)), is_v4=is_v4)
    packet.is_partial = out.offload.checksum_at >= 0
    packet.owner, packet.mark = owner_of(out.sender), out.mark
    return packet


def lost(out: Outgoing) -> tuple[Outgoing, bytes, Path] | None:
    """nf_hook_slow(): EPERM, of which TCP makes nothing, for it sends again."""
    if out.protocol != IPPROTO_TCP:
        raise EPERM("a rule drops it")
    return None


def owner_of(sender: Any) -> tuple[int, int] | None:
    """User and group of the task that sends, as far as that is known."""
    if isinstance(sender, Owner):
        return sender
    creds = getattr(sender, "creds", None)
    return None if creds is None else (creds.euid, creds.egid)

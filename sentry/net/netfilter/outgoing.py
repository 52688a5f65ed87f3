"""What a socket sends by a link, as rules see it, and what its sender hears when it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import EPERM
from sentry.net.ip.inward import header_of
from sentry.net.ip.seam import Owner
from sentry.net.netfilter.packet import Packet

if TYPE_CHECKING:
    from sentry.net.ip.seam import Outgoing, Path


def packet_of(out: Outgoing, source: bytes) -> Packet:
    """As it would go. Raises: EMSGSIZE."""
    packet = Packet(b"".join((header_of(out, source), *out.pieces)), is_v4=len(out.target) == 4)
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

"""A packet for a neighbour who does not answer: ipv4_link_failure(), ip6_link_failure()."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.socket import (
    ICMP_DEST_UNREACH,
    ICMP_HOST_UNREACH,
    ICMPV6_ADDR_UNREACH,
    ICMPV6_DEST_UNREACH,
)
from sentry.errors import EHOSTUNREACH
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.seam import Arrived, Failure

if TYPE_CHECKING:
    from sentry.net.ip.ground import Ground
    from sentry.net.link.link import LinkPacket


def tell(layer: Ground, now_ns: int, packet: LinkPacket) -> None:
    """Its sender gets what a router would say: by a message, if that is somebody else."""
    sent = (_parsed4 if packet.is_v4 else _parsed6)(b"".join(packet.pieces))
    if sent is None:
        return
    kind, code = (
        (ICMP_DEST_UNREACH, ICMP_HOST_UNREACH)
        if packet.is_v4
        else (ICMPV6_DEST_UNREACH, ICMPV6_ADDR_UNREACH)
    )
    if layer.is_local(sent.source):
        layer.fail(now_ns, Failure(
            sent.protocol, sent.source, sent.target, bytes(sent.payload), kind, code,
            EHOSTUNREACH.number, False, sent.source,
        ))  # fmt: skip
    else:
        (layer.icmp if packet.is_v4 else layer.icmp6).complain(now_ns, sent, kind, code)


def _parsed4(data: bytes) -> Arrived | None:
    """None: it is none, or a later fragment."""
    header = ipv4.parse_quoted(data)
    if header is None or header.fragment & ipv4.OFFSET:
        return None
    rest = memoryview(data)[header.size :]
    return Arrived(
        header.protocol, header.source, header.target, rest, header.tos, header.ttl, 0,
        data[: header.size],
    )  # fmt: skip


def _parsed6(data: bytes) -> Arrived | None:
    header = ipv6.parse_quoted(data)
    if header is None:
        return None
    rest = memoryview(data)[ipv6.HEADER_SIZE :]
    return Arrived(
        header.following, header.source, header.target, rest, header.tos, header.hops, 0,
        data[: ipv6.HEADER_SIZE],
    )  # fmt: skip

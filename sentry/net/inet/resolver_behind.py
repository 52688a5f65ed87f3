"""Questions of those behind a router in the sandbox: namespaces and machines of its programs.

They come as packets that would go on, by a link that leads outside, to a nameserver
(`IpLayer.answers`), and are answered as if that had.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi.socket import IPPROTO_UDP
from sentry.errors import Errno
from sentry.net.inet.address import Endpoint, mapped, plain
from sentry.net.ip import output
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Outgoing
from sentry.suppress import suppress

if TYPE_CHECKING:
    from sentry.net.ip.checksum import Bytes
    from sentry.net.ip.layer import IpLayer
    from sentry.net.ip.seam import Arrived

HEADER: Final = struct.Struct(">HHHH")
"""Of UDP: source, target, length, checksum. RFC 768."""
SUM_AT: Final = 6


class Asker(NamedTuple):
    """Whom an answer goes to, and as whose."""

    client: Endpoint
    server: Endpoint


def question_in(packet: Arrived, datagram: Bytes) -> tuple[Asker, bytes] | None:
    """Who asks whom in a datagram of UDP, and what; None: it is cut."""
    if len(datagram) < HEADER.size:
        return None
    source, target, size, _ = HEADER.unpack_from(datagram)
    if not HEADER.size <= size <= len(datagram):
        return None
    asker = Asker(
        Endpoint(mapped(packet.source), source), Endpoint(mapped(packet.target), target)
    )  # fmt: skip
    return asker, bytes(datagram[HEADER.size : size])


def answer(layer: IpLayer, now_ns: int, asker: Asker, data: bytes) -> None:
    """It is said to the client; lost, if nobody inside has that address any more."""
    client, server = plain(asker.client.ip), plain(asker.server.ip)
    size = HEADER.size + len(data)
    head = HEADER.pack(asker.server.port, asker.client.port, size, 0)
    total = checksum(head + data, pseudo_sum(server, client, IPPROTO_UDP, size)) or 0xFFFF
    datagram = head[:SUM_AT] + total.to_bytes(2) + data
    with suppress(Errno):
        output.send_back(layer, now_ns, Outgoing(client, IPPROTO_UDP, (datagram,), server))

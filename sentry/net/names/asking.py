"""What is sent to a nameserver, and over what."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from sentry.net.inet.address import Endpoint


class Transport(Enum):
    """What carries a message."""

    UDP = "udp"
    TCP = "tcp"


class Ask(Struct, frozen=True):
    """To be sent to a nameserver: from a new UDP socket of this port, or over a new connection.

    Over TCP `port` is the connection's name in answers; it may be the port, too.
    """

    server: Endpoint
    port: int
    transport: Transport
    data: bytes

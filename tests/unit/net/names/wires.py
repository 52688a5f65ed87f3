"""Messages for tests, made by dnspython's own `dns.message`, and who is asked."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rrset

from sentry.net.inet.address import Endpoint
from sentry.net.names.asking import Ask

SERVER = Endpoint(bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 53]), 53)
SECOND_SERVER = Endpoint(bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 54]), 53)
SOA = "{zone} {ttl} IN SOA ns.{zone} root.{zone} 1 2 3 4 {minimum}"


def query(name: str = "www.a.org.", kind: str = "A", **other: object) -> bytes:
    """A query; keywords are those of dns.message.make_query."""
    return dns.message.make_query(name, kind, **{"id": 77, **other}).to_wire()  # type: ignore[arg-type]


def answer(
    asked: bytes, *records: str, authority: tuple[str, ...] = (), rcode: int = 0, flags: int = 0
) -> bytes:
    """What a nameserver says to `asked`: records as in a zone file."""
    message = dns.message.make_response(dns.message.from_wire(asked), recursion_available=True)
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.flags |= flags
    for section, lines in ((message.answer, records), (message.authority, authority)):
        for line in lines:
            name, ttl, rclass, kind, *rest = line.split(" ")
            section.append(dns.rrset.from_text(name, int(ttl), rclass, kind, " ".join(rest)))
    return message.to_wire(max_size=65535)


def soa(zone: str, ttl: int = 300, minimum: int = 60) -> str:
    """A line."""
    return SOA.format(zone=zone, ttl=ttl, minimum=minimum)


def lines(reply: bytes) -> list[str]:
    """The answer section of a message, as in a zone file."""
    return [
        line for rrset in dns.message.from_wire(reply).answer for line in str(rrset).splitlines()
    ]


class Asked:
    """In place of sockets to nameservers."""

    def __init__(self) -> None:
        self.asks: dict[int, Ask] = {}

    def ask(self, ask: Ask) -> None:
        self.asks[ask.port] = ask

    def release(self, port: int) -> None:
        self.asks.pop(port, None)

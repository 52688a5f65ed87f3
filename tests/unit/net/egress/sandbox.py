"""A sandbox as its programs and its nameservers see it: the resolver and the flows together."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

import dns.message
from dns.rcode import NOERROR

from sentry.net.egress.flows import TCP, Flow, Flows, Key
from sentry.net.egress.fragments import Fragments
from sentry.net.egress.policy import Policy, Program
from sentry.net.egress.rules import parse
from sentry.net.names.asking import Transport
from sentry.net.names.messages import Question
from tests.unit.net.names.harness import Outside
from tests.unit.net.names.wires import answer, query

POLICY = """
[[rule]]
action = "deny"
names = ["secret.good.org"]

[[rule]]
action = "allow"
names = ["good.org", "*.good.org"]
ports = [443]
protocols = ["tcp"]
limits = { open = 50, bytes_out = 1_000_000 }

[[rule]]
action = "allow"
names = ["time.net"]
ports = [123]
protocols = ["udp"]

[[rule]]
action = "allow"
cidrs = ["0.0.0.0/0", "203.0.113.0/24"]
ports = [9418]
programs = ["/usr/bin/git"]
"""
OWN = "203.0.113.9"
GOOD = "198.51.100.1"
EVIL = "198.51.100.66"
TIME = "198.51.100.123"
METADATA = "169.254.169.254"
INSIDE: Final = "10.88.0.2"
CURL = Program(7, 1000, "/usr/bin/curl")
GIT = Program(8, 1000, "/usr/bin/git")


def ip(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


class Sandbox(Outside):
    """Programs send and ask; what they resolve is answered by whoever has the name."""

    def __init__(self, policy: str = POLICY) -> None:
        super().__init__(self.may_ask)
        self.flows = Flows(Policy(parse(policy, "f"), [OWN]), self.forwarder.given)
        self.fragments = Fragments()
        self.sources = iter(range(40000, 60000))

    def may_ask(self, question: Question, program: object) -> bool:
        assert program is None or isinstance(program, Program)
        if question.name is None:
            self.flows.refuse_name(question.shown, program, self.now_ns)
            return False
        return self.flows.may_ask(question.name, program, self.now_ns)

    def resolve(
        self, name: str, *addresses: str, ttl: int = 60, alias: str = "", more: Iterable[str] = ()
    ) -> bool:
        """A program asks for a name, and the name's own server says what it likes.

        Whether the question went out.
        """
        asked = len(self.asks)
        kind = "AAAA" if ":" in "".join(addresses) else "A"
        self.program_asks(query(name + ".", kind), program=CURL)
        if len(self.asks) == asked:
            return False
        lines = [f"{name}. {ttl} IN CNAME {alias}."] if alias else []
        lines += [f"{alias or name}. {ttl} IN {kind} {address}" for address in addresses]
        self.server_answers(lambda wire: answer(wire, *lines, *more))
        return True

    def asks_for(self, wire: bytes, transport: Transport = Transport.UDP) -> bool:
        """Whether a message makes anything go out, or is answered as if all were well."""
        reply = self.program_asks(wire, program=CURL, transport=transport)
        return bool(self.asks) or (
            reply is not None and dns.message.from_wire(reply).rcode() == NOERROR
        )

    def key(self, address: str, port: int, protocol: int, source: int | None) -> Key:
        port_inside = next(self.sources) if source is None else source
        return Key(protocol, ip(INSIDE), port_inside, ip(address), port)

    def send(
        self,
        address: str,
        port: int = 443,
        protocol: int = TCP,
        by: Program | None = CURL,
        source: int | None = None,
    ) -> Flow:
        """A packet comes to the uplink."""
        return self.flows.leaving(self.key(address, port, protocol, source), by, self.now_ns)

    def sends(
        self,
        address: str,
        port: int = 443,
        protocol: int = TCP,
        by: Program | None = CURL,
        source: int | None = None,
    ) -> bool:
        """Whether it gets out."""
        return self.send(address, port, protocol, by, source).verdict.allowed

    def error(self, address: str, port: int, source: int) -> bool:
        """Whether an ICMP error that quotes this packet gets out."""
        return self.flows.of_error(self.key(address, port, TCP, source), self.now_ns) is not None

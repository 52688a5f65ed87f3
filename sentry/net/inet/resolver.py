"""`Resolver`: the nameservers of resolv.conf as programs see them, answered by sentry.net.names.

There is one where there is a policy; questions of those behind a router come here, too. What is
asked outside is asked by sockets of the host.
"""

from __future__ import annotations

import ipaddress
import time
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from dns.rcode import NXDOMAIN, REFUSED

from sentry.net.egress.gate import program_of
from sentry.net.host.nameservers import Nameservers
from sentry.net.inet.address import Endpoint, mapped
from sentry.net.inet.answering import PORT, Answering, Sender, Token
from sentry.net.inet.resolver_behind import Asker, answer, question_in
from sentry.net.inet.resolver_door import Stream
from sentry.net.names.asking import Ask, Transport
from sentry.net.names.forwarder import Forwarder, Settings
from sentry.net.names.messages import Question
from sentry.net.names.pending import Client, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.net.egress.rules import Dns
    from sentry.net.host.process import NetworkProcess
    from sentry.net.ip.checksum import Bytes
    from sentry.net.ip.seam import Arrived
    from sentry.net.names.pending import Effect
    from sentry.net.stack import Stack

MAX_SERVERS: Final = 3
"""MAXNS of resolv.conf(5)."""
REFUSALS: Final = {"NXDOMAIN": NXDOMAIN, "REFUSED": REFUSED}


class Resolver(Answering):
    """Of one stack."""

    def __init__(
        self, stack: Stack, process: NetworkProcess, loop: Any, listed: Iterable[str]
    ) -> None:
        """`listed`: nameservers of resolv.conf, as text."""
        super().__init__(stack, loop)
        self._listed = _endpoints(listed)
        self._timer: Any = None
        self._nameservers = Nameservers(process, loop, self)
        numbers = count(1)
        self.forwarder = Forwarder(
            Settings(self._listed), self._judge, lambda: next(numbers)
        )

    def follow(self, dns: Dns) -> None:
        """What the policy says of names."""
        servers = self._listed if dns.servers is None else _endpoints(dns.servers)
        hosts = {
            name: tuple(each.ip for each in _endpoints(addresses))
            for name, addresses in dns.hosts.items()
        }
        self.forwarder.configure(Settings(servers, REFUSALS[dns.refusal], hosts))

    def _judge(self, question: Question, program: object) -> bool:
        egress, now_ns = self._stack.egress, time.monotonic_ns()
        if egress is None:
            return True
        if question.name is None:
            egress.flows.refuse_name(question.shown, program_of(program), now_ns)
            return False
        return egress.flows.may_ask(question.name, program_of(program), now_ns)

    # --- what programs send

    def serves(self, endpoint: Endpoint) -> bool:
        """It is one of resolv.conf."""
        return endpoint in self._listed

    def answers(self, packet: Arrived, datagram: Bytes) -> bool:
        """A datagram of somebody behind a router would leave: whether it is a question to a
        nameserver, which nobody knows the program of, and is answered here."""
        found = question_in(packet, datagram)
        if found is None or found[0].server not in self._listed:
            return False
        asker, message = found
        self.asked(message, asker, None)
        return True

    def asked(self, message: bytes, token: Token | Asker, program: object) -> None:
        """By a program."""
        transport = Transport.TCP if isinstance(token, Stream) else Transport.UDP
        client = Client(token, program_of(program), transport)
        self._do(self.forwarder.asked(message, client, time.monotonic_ns()))

    def left(self, stream: Stream) -> None:
        """Its answers are not wanted any more."""
        self.forwarder.left(stream)

    # --- what nameservers say

    def heard(self, ask: Ask, data: bytes) -> None:
        """A message of the server has come."""
        self._do(self.forwarder.answered(data, ask.server, ask.port, time.monotonic_ns()))

    def unheard(self, ask: Ask) -> None:
        """None comes."""
        self._do(self.forwarder.failed(ask.port, time.monotonic_ns()))

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._nameservers.ask(effect)
            elif not isinstance(effect, Reply):
                self._nameservers.release(effect.port)
            elif isinstance(effect.token, (Sender, Stream)):
                self.reply(effect.data, effect.token)
            elif isinstance(effect.token, Asker) and self._stack.ip is not None:
                answer(self._stack.ip, time.monotonic_ns(), effect.token, effect.data)
        self._set_timer()

    # --- time

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ns = self.forwarder.deadline_ns
        if due_ns is not None:
            self._timer = self._loop.call_at(due_ns, self._due)

    def _due(self) -> None:
        self._timer = None
        self._do(self.forwarder.tick(time.monotonic_ns()))


def _endpoints(addresses: Iterable[str]) -> tuple[Endpoint, ...]:
    made = (Endpoint(mapped(ipaddress.ip_address(each).packed), PORT) for each in addresses)
    return tuple(dict.fromkeys(made))


def nameservers(text: str) -> tuple[str, ...]:
    """Those of a resolv.conf(5): addresses without a zone, as many as are asked."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(str(ipaddress.ip_address(words[1])))
            except ValueError:
                continue
    return tuple(each for each in found if "%" not in each)[:MAX_SERVERS]

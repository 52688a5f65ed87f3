"""`Resolver`: nameservers as the programs of a stack see them, answered by sentry.net.names.

A datagram to a nameserver of resolv.conf, and a connection to it, come here, unless a program of
the sandbox is that nameserver; where there is a policy, datagrams of those behind a router, too.
What is asked outside is asked by sockets of the host.
"""

from __future__ import annotations

import ipaddress
import time
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dns.rcode import NXDOMAIN, REFUSED

from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_UDP
from sentry.net.egress.gate import program_of
from sentry.net.host.nameservers import Nameservers
from sentry.net.inet.address import Endpoint
from sentry.net.inet.leaving import mapped, plain
from sentry.net.inet.resolver_behind import Asker, answer, question_in
from sentry.net.inet.resolver_door import MAX_STREAMS, Door, Stream
from sentry.net.inet.tcp_listener import listening_at
from sentry.net.inet.udp import receiver_of
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.names.forwarder import Forwarder, Settings
from sentry.net.names.messages import Question
from sentry.net.names.pending import Ask, Client, Reply, Transport
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.net.egress.rules import Dns
    from sentry.net.host.process import NetworkProcess
    from sentry.net.ip.checksum import Bytes
    from sentry.net.ip.seam import Arrived
    from sentry.net.names.pending import Effect
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

PORT: Final = 53
MAX_SERVERS: Final = 3
"""MAXNS of resolv.conf(5)."""
REFUSALS: Final = {"NXDOMAIN": NXDOMAIN, "REFUSED": REFUSED}


class _Sender(NamedTuple):
    """Whom an answer goes to as a datagram, and from where."""

    client: Endpoint
    server: Endpoint
    interface: int


class Resolver:
    """Of one stack."""

    def __init__(
        self, stack: Stack, process: NetworkProcess, loop: Any, listed: Iterable[str]
    ) -> None:
        """`listed`: nameservers of resolv.conf, as text."""
        self._stack = stack
        self._loop = loop
        self._listed = _endpoints(listed)
        self._timer: Any = None
        self._streams: dict[Stream, None] = {}
        self._nameservers = Nameservers(process, loop, self)
        self._doors = {
            family: Door.open(stack, family, self._came) for family in (AF_INET, AF_INET6)
        }
        numbers = count(1)
        self.forwarder = Forwarder(
            Settings(self._listed), self._judge, lambda: next(numbers)
        )
        stack.resolver = self

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

    def is_for(self, packet: Packet) -> bool:
        """A datagram of UDP to a nameserver that no program is."""
        if packet.target not in self._listed:
            return False
        return not self._is_local(packet.target) or (
            receiver_of(self._stack.ports_of(IPPROTO_UDP), packet) is None
        )

    def _is_local(self, endpoint: Endpoint) -> bool:
        return self._stack.interfaces.is_local(plain(endpoint.ip))

    def take(self, packet: Packet, sender: Caller | None) -> None:
        """It is a question, or nothing."""
        token = _Sender(packet.source, packet.target, packet.index)
        self._ask(packet.data, Client(token, program_of(sender), Transport.UDP))

    def answers(self, packet: Arrived, datagram: Bytes) -> bool:
        """A datagram of somebody behind a router would leave: whether it is a question to a
        nameserver, which nobody knows the program of, and is answered here."""
        found = question_in(packet, datagram)
        if found is None or found[0].server not in self._listed:
            return False
        asker, message = found
        self._ask(message, Client(asker, None, Transport.UDP))
        return True

    def door(self, target: Endpoint, source: Endpoint) -> Door | None:
        """Who accepts a connection to a nameserver that no program is; None: it is none."""
        if target not in self._listed:
            return None
        if self._is_local(target) and listening_at(self._stack, target, source, LOOPBACK_INDEX):
            return None
        return self._doors[AF_INET if target.is_v4 else AF_INET6]

    def _came(self, server: Door) -> None:
        if len(self._streams) >= MAX_STREAMS:
            next(iter(self._streams)).close()
        self._streams[Stream(self._loop, server, self._asked, self._gone)] = None

    def _asked(self, stream: Stream, message: bytes) -> None:
        self._ask(message, Client(stream, stream.program, Transport.TCP))

    def _gone(self, stream: Stream) -> None:
        self._streams.pop(stream, None)
        self.forwarder.left(stream)

    def _ask(self, message: bytes, client: Client) -> None:
        self._do(self.forwarder.asked(message, client, time.monotonic_ns()))

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
            elif isinstance(effect.token, Stream):
                effect.token.reply(effect.data)
            elif isinstance(effect.token, _Sender):
                self._deliver(effect.data, effect.token)
            elif isinstance(effect.token, Asker) and self._stack.ip is not None:
                answer(self._stack.ip, time.monotonic_ns(), effect.token, effect.data)
        self._set_timer()

    def _deliver(self, data: bytes, to: _Sender) -> None:
        packet = Packet(data, to.server, to.client, index=to.interface)
        receiver = receiver_of(self._stack.ports_of(IPPROTO_UDP), packet)
        if receiver is not None:
            receiver.deliver(packet)

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

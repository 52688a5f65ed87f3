"""`Relay`: nameservers at the sandbox's own addresses, asked where they live.

An engine has its own at 127.0.0.11, a machine at 127.0.0.53, and no link leads there. What a
program sends to port 53 of such an address, unless a program of the sandbox has that port, is
passed on as it is, if it is a question, by a socket of the host that the network process connects
to just that address, and so is the answer. Other nameservers are addresses as all others. Where
what leaves is judged there is a `Resolver` instead, and nothing passes that a program has written.

Connections are accepted where a datagram has been answered before, so that who tries whether a
nameserver is there is told the truth: resolvers begin with datagrams.
"""

from __future__ import annotations

import struct
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.socket import IPPROTO_UDP
from sentry.net.host.nameservers import MAX_OPEN, Nameservers
from sentry.net.inet.answering import PORT, Answering, Sender, Token
from sentry.net.inet.resolver_door import Stream
from sentry.net.inet.udp import receiver_of
from sentry.net.names.asking import Ask, Transport
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from sentry.net.host.process import NetworkProcess
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.resolver_door import Door
    from sentry.net.stack import Stack

PATIENCE_NS: Final = 10_000_000_000
"""When nobody waits for an answer any more: resolv.conf(5), two attempts of 5 s."""
MAX_WAITING: Final = 320
"""Questions without an answer; those that the nameservers have no room for wait for it."""
MAX_ANSWERED: Final = 16
"""Servers that are known to be there."""
HEADER: Final = 12
MAX_QUESTION: Final = 1024
"""Bytes: a header, a name, EDNS with its options."""
NOT_A_QUERY: Final = 0xF800
"""QR, and any opcode but QUERY: RFC 1035, 4.1.1."""
MAX_LABEL: Final = 63
RECURSION: Final = 0x0100
FAILURE: Final = 0x8082
"""QR, RA, SERVFAIL."""
TRANSFERS: Final = frozenset({251, 252})
"""IXFR, AXFR."""


def is_question(message: bytes) -> bool:
    """A query for one name, with at most EDNS behind it: no update, no notice, no transfer.

    RFC 1035, 4.1; RFC 6891.
    """
    if not HEADER < len(message) <= MAX_QUESTION:
        return False
    flags, questions, answers, authorities, additional = struct.unpack_from(">5H", message, 2)
    if flags & NOT_A_QUERY or (questions, answers, authorities) != (1, 0, 0) or additional > 1:
        return False
    end = _end_of_name(message) + 5
    return end <= len(message) and int.from_bytes(message[end - 4 : end - 2]) not in TRANSFERS


def _end_of_name(message: bytes) -> int:
    """Where its last label, which is empty, stands; beyond the message if it is none."""
    at = HEADER
    while at < len(message) and message[at]:
        if message[at] > MAX_LABEL:
            return len(message)
        at += 1 + message[at]
    return at


def failure(question: bytes) -> bytes:
    """The answer to one that cannot be asked: RFC 1035, 4.1.1."""
    flags = int.from_bytes(question[2:4]) & RECURSION | FAILURE
    head = struct.pack(">2s5H", question[:2], flags, 1, 0, 0, 0)
    return head + question[HEADER : _end_of_name(question) + 5]


class _Waiting(Struct, frozen=True):
    token: Token
    until_ns: int


class Relay(Answering):
    """Of one stack."""

    def __init__(self, stack: Stack, process: NetworkProcess, loop: Any) -> None:
        super().__init__(stack, loop)
        self._process = process
        self._nameservers = Nameservers(process, loop, self)
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        """By `Ask.port`; who has waited longest comes first."""
        self._later: dict[int, Ask] = {}
        """Those that were not asked yet."""
        self._open: set[int] = set()
        """Those that were."""
        self._timer: Any = None
        self._answered: dict[Endpoint, None] = {}

    def close(self) -> None:
        """The network process, too, is asked no more."""
        super().close()
        self._later.clear()
        self._forget(*self._waiting)
        self._process.close()

    def serves(self, endpoint: Endpoint) -> bool:
        """An address of the sandbox."""
        return endpoint.port == PORT and self._is_local(endpoint)

    def door(self, target: Endpoint, source: Endpoint) -> Door | None:
        """Who accepts a connection to one that is known."""
        return super().door(target, source) if target in self._answered else None

    def asked(self, message: bytes, token: Token, program: object) -> None:
        """It goes on."""
        if not is_question(message):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.reply(failure(message), token)
            return
        transport = Transport.TCP if isinstance(token, Stream) else Transport.UDP
        ask = Ask(token.server, next(self._numbers), transport, message)
        self._waiting[ask.port] = _Waiting(token, self._loop.now_ns() + PATIENCE_NS)
        self._later[ask.port] = ask
        self._go_on()
        self._set_timer()

    def _go_on(self) -> None:
        """Ask those that there is room for by now."""
        while self._later and len(self._open) < MAX_OPEN:
            ask = self._later.pop(next(iter(self._later)))
            self._open.add(ask.port)
            self._nameservers.ask(ask)

    def left(self, stream: Stream) -> None:
        """Its answers are not wanted any more."""
        self._forget(*(port for port, each in self._waiting.items() if each.token is stream))

    def heard(self, ask: Ask, data: bytes) -> None:
        """A message of the server has come."""
        waiting = self._waiting.get(ask.port)
        if waiting is not None and data[:2] == ask.data[:2]:
            self._forget(ask.port)
            self._note(ask.server)
            self.reply(data, waiting.token)

    def _note(self, server: Endpoint) -> None:
        """It is there."""
        self._answered[server] = None
        if len(self._answered) > MAX_ANSWERED:
            del self._answered[next(iter(self._answered))]

    def unheard(self, ask: Ask) -> None:
        """None comes: nobody is there."""
        waiting = self._waiting.get(ask.port)
        if waiting is None:
            return
        self._forget(ask.port)
        token = waiting.token
        if isinstance(token, Stream):
            token.close()
        else:
            self._refuse(token, ask.data)

    def _refuse(self, sender: Sender, data: bytes) -> None:
        back = Packet(b"", sender.server, sender.client, index=sender.interface)
        asker = receiver_of(self._stack.ports_of(IPPROTO_UDP), back)
        if asker is not None:
            asker.refused(Packet(data, sender.client, sender.server, index=sender.interface))

    def _forget(self, *ports: int) -> None:
        for port in ports:
            del self._waiting[port]
            self._later.pop(port, None)
            if port in self._open:
                self._open.remove(port)
                self._nameservers.release(port)
        self._go_on()

    # --- time

    def _set_timer(self) -> None:
        if self._timer is None and self._waiting:
            first = next(iter(self._waiting.values()))
            self._timer = self._loop.call_at(first.until_ns, self._due)

    def _due(self) -> None:
        self._timer = None
        now_ns = self._loop.now_ns()
        self._forget(*(port for port, each in self._waiting.items() if each.until_ns <= now_ns))
        self._set_timer()

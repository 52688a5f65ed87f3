"""`Answering`: where what programs send to nameservers comes in, and is answered.

A datagram to one, and a connection, come here, unless a program of the sandbox is that nameserver.
Whom they are asked, and what is said, is a subclass's: `Resolver`, `Relay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_UDP
from sentry.net.inet.address import plain
from sentry.net.inet.resolver_door import MAX_STREAMS, Door, Stream
from sentry.net.inet.tcp_listener import listening_at
from sentry.net.inet.udp import receiver_of
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from sentry.net.inet.address import Endpoint
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

PORT = 53


class Sender(NamedTuple):
    """Whom an answer goes to as a datagram, and from where."""

    client: Endpoint
    server: Endpoint
    interface: int


Token = Sender | Stream
"""Who has asked."""


class Answering:
    """Of one stack."""

    def __init__(self, stack: Stack, loop: Any) -> None:
        self._stack = stack
        self._loop = loop
        self._streams: dict[Stream, None] = {}
        self._doors = {
            family: Door.open(stack, family, self._came) for family in (AF_INET, AF_INET6)
        }
        stack.resolver = self

    def close(self) -> None:
        """Nobody is answered any more."""
        self._stack.resolver = None
        for stream in list(self._streams):
            stream.close()

    def serves(self, endpoint: Endpoint) -> bool:
        """It is a nameserver."""
        raise NotImplementedError

    def asked(self, message: bytes, token: Token, program: object) -> None:
        """By a datagram (`program` is its sender), or over a stream (as its door knew it)."""
        raise NotImplementedError

    def left(self, stream: Stream) -> None:
        """Its answers are not wanted any more."""
        raise NotImplementedError

    def is_for(self, packet: Packet) -> bool:
        """A datagram of UDP to a nameserver that no program is."""
        if not self.serves(packet.target):
            return False
        return not self._is_local(packet.target) or (
            receiver_of(self._stack.ports_of(IPPROTO_UDP), packet) is None
        )

    def _is_local(self, endpoint: Endpoint) -> bool:
        return self._stack.interfaces.is_local(plain(endpoint.ip))

    def take(self, packet: Packet, sender: Caller | None) -> None:
        """It is a question, or nothing."""
        token = Sender(packet.source, packet.target, packet.index)
        self.asked(packet.data, token, sender)

    def door(self, target: Endpoint, source: Endpoint) -> Door | None:
        """Who accepts a connection to a nameserver that no program is; None: it is none."""
        if not self.serves(target):
            return None
        if self._is_local(target) and listening_at(self._stack, target, source, LOOPBACK_INDEX):
            return None
        return self._doors[AF_INET if target.is_v4 else AF_INET6]

    def _came(self, server: Door) -> None:
        if len(self._streams) >= MAX_STREAMS:
            next(iter(self._streams)).close()
        self._streams[Stream(self._loop, server, self._heard_over, self._gone)] = None

    def _heard_over(self, stream: Stream, message: bytes) -> None:
        self.asked(message, stream, stream.program)

    def _gone(self, stream: Stream) -> None:
        self._streams.pop(stream, None)
        self.left(stream)

    def reply(self, message: bytes, token: Token) -> None:
        """An answer, to who has asked."""
        if isinstance(token, Stream):
            token.reply(message)
            return
        packet = Packet(message, token.server, token.client, index=token.interface)
        receiver = receiver_of(self._stack.ports_of(IPPROTO_UDP), packet)
        if receiver is not None:
            receiver.deliver(packet)

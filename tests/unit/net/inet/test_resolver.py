"""Nameservers as programs see them: datagrams and streams to the resolver of a stack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_UDP
from sentry.errors import Errno
from sentry.net.egress.rules import Dns
from sentry.net.inet.resolver import Resolver, nameservers
from sentry.net.inet.resolver_door import MAX_STREAMS, MOST_UNSENT
from sentry.net.inet.udp import UdpSocket
from sentry.net.names.asking import Transport
from sentry.net.names.stream import framed
from sentry.net.sockfs import socket_location
from tests.unit.net.names.wires import Asked, answer, query
from tests.unit.net.streams import Streams, done, place, receive

V4, V6 = bytes((10, 0, 0, 9)), b"\xfd" + bytes(14) + b"\x09"
LOCAL = bytes((127, 0, 0, 11))


class Asking(Streams):
    """A host whose programs ask."""

    def __init__(self) -> None:
        super().__init__(1)
        self.sysctls["net/ipv4/ip_unprivileged_port_start"] = "0"
        loop = self.caller.kernel.loop
        loop.call_at = lambda due_ns, callback: SimpleNamespace(cancel=lambda: None)
        self.caller.group.exe, self.caller.pids = None, SimpleNamespace(of=lambda tgid: tgid)
        listed = "10.0.0.9", "fd00::9", "127.0.0.11"
        self.resolver = Resolver(self.stack, cast(Any, None), loop, listed)
        self.asked = self.resolver._nameservers = cast(Any, Asked())

    def turn(self) -> None:
        """What was to be done soon, and what that brings."""
        while self.soon:
            some, self.soon[:] = list(self.soon), []
            for each in some:
                each()

    def datagrams(self, family: int = AF_INET) -> Any:
        location = socket_location(self.caller)
        return UdpSocket(location, family, IPPROTO_UDP, self.stack).incref()

    def asks(self, sock: Any, to: bytes, message: bytes) -> None:
        self.send(sock, message, target=sock.target(self.caller, place(to, 53)))

    def serve(self, *lines: str) -> None:
        """The nameservers answer all that was asked."""
        for ask in list(self.asked.asks.values()):
            self.resolver.heard(ask, answer(ask.data, *lines))
        self.turn()

    def stream(self, to: bytes = V4) -> Any:
        sock = self.socket(AF_INET if len(to) == 4 else AF_INET6)
        self.begin(sock, place(to, 53))
        self.turn()
        return sock


@pytest.fixture
def host() -> Asking:
    return Asking()


@pytest.mark.parametrize("to", [V4, V6, LOCAL])
def test_datagram_is_answered_from_where_it_went(host: Asking, to: bytes) -> None:
    sock = host.datagrams(AF_INET if len(to) == 4 else AF_INET6)
    host.asks(sock, to, query("a.org."))
    assert not sock.packets and len(host.asked.asks) == 1
    host.serve("a.org. 60 IN A 192.0.2.1")
    (packet,) = sock.packets
    assert packet.source == sock.parsed(place(to, 53))
    assert bytes((192, 0, 2, 1)) in packet.data
    host.asks(sock, to, query("a.org."))
    assert len(sock.packets) == 2 and not host.asked.asks
    host.asks(sock, to, b"junk")
    assert len(sock.packets) == 2
    assert host.resolver.forwarder.given.names_of(bytes(10) + b"\xff\xff\xc0\0\2\1", 0)


def test_program_that_is_the_nameserver_is_asked_itself(host: Asking) -> None:
    server, client = host.datagrams(), host.datagrams()
    done(server.bind(host.caller, place(LOCAL, 53)))
    host.asks(client, LOCAL, query("a.org."))
    assert len(server.packets) == 1 and not host.asked.asks
    listener = host.listen(53, ip=LOCAL)
    host.stream(LOCAL)
    assert listener.waiting() == 1


@pytest.mark.parametrize("to", [V4, V6, LOCAL])
def test_stream_takes_questions_however_they_are_cut(host: Asking, to: bytes) -> None:
    sock = host.stream(to)
    both = framed(query("a.org.")) + framed(b"junk") + framed(query("b.org."))
    for at in range(0, len(both), 7):
        host.send(sock, both[at : at + 7])
        host.turn()
    assert len(host.asked.asks) == 2
    assert {ask.transport for ask in host.asked.asks.values()} == {Transport.UDP}
    host.serve("a.org. 60 IN A 192.0.2.1")
    replies, messages = receive(sock), []
    while replies:
        size = 2 + int.from_bytes(replies[:2])
        messages.append(replies[2:size])
        replies = replies[size:]
    assert [bytes((192, 0, 2, 1)) in each for each in messages] == [True, False]
    sock.decref()
    host.turn()
    assert not host.resolver._streams


def test_oldest_stream_goes_where_there_are_many(host: Asking) -> None:
    first = host.stream()
    more = [host.stream() for _ in range(MAX_STREAMS)]
    assert len(host.resolver._streams) == MAX_STREAMS
    with pytest.raises(Errno):
        for _ in range(2):
            host.send(first, framed(query("a.org.")))
            host.turn()
    host.send(more[-1], framed(query("a.org.")))
    host.turn()
    assert len(host.asked.asks) == 1


def test_who_takes_no_answers_loses_the_connection(host: Asking) -> None:
    sock = host.stream()
    (stream,) = host.resolver._streams
    for _ in range(MOST_UNSENT // 60000 + 20):
        stream.reply(bytes(60000))
        host.turn()
    assert not host.resolver._streams
    assert len(receive(sock)) < MOST_UNSENT


def test_policy_says_who_is_asked_and_what_a_refusal_is(host: Asking) -> None:
    hosts = {"h.org": ("192.0.2.7", "2001:db8::7")}
    host.resolver.follow(Dns("REFUSED", ("192.0.2.53", "2001:db8::53"), hosts))
    sock = host.datagrams()
    host.asks(sock, V4, query("h.org."))
    assert bytes((192, 0, 2, 7)) in sock.packets[-1].data and not host.asked.asks
    host.asks(sock, V4, query("a.org."))
    (ask,) = host.asked.asks.values()
    assert ask.server.ip[12:] == bytes((192, 0, 2, 53)) and ask.server.port == 53
    cast(Any, host.stack).egress = SimpleNamespace(
        flows=SimpleNamespace(may_ask=lambda name, program, now_ns: name == "a.org")
    )
    host.asks(sock, V4, query("b.org."))
    assert sock.packets[-1].data[3] & 15 == 5
    host.resolver.follow(Dns())
    host.asks(sock, V4, query("b.org."))
    assert sock.packets[-1].data[3] & 15 == 3


def test_resolv_conf_names_servers_as_its_manual_says() -> None:
    text = "# x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n nameserver\tfd00::1 # one\n"
    text += "nameserver\nnameserver x\nsearch a b\nnameserver 1.2.3.4\nnameserver 5.6.7.8\n"
    assert nameservers(text) == ("10.0.0.1", "fd00::1", "1.2.3.4")
    assert nameservers("") == ()

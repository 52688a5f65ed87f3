"""Nameservers at the sandbox's own addresses: what is asked goes there as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from weakref import ref

import pytest

from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_UDP
from sentry.errors import ECONNREFUSED
from sentry.net.host.nameservers import MAX_OPEN
from sentry.net.inet.relay import (
    MAX_ANSWERED,
    MAX_QUESTION,
    MAX_WAITING,
    PATIENCE_NS,
    Relay,
    failure,
    is_question,
)
from sentry.net.inet.udp import UdpSocket
from sentry.net.names.asking import Transport
from sentry.net.names.stream import framed
from sentry.net.sockfs import socket_location
from tests.unit.net.names.wires import Asked
from tests.unit.net.streams import Streams, done, place, receive

LOCAL, LOCAL6, OUTSIDE = bytes((127, 0, 0, 11)), bytes(15) + b"\1", bytes((10, 0, 0, 9))
QUESTION = b"\0\7\1\0\0\1" + bytes(6) + b"\1a\3org\0" + b"\0\1\0\1"


class Asking(Streams):
    """A host whose programs ask."""

    def __init__(self) -> None:
        super().__init__(1)
        self.sysctls["net/ipv4/ip_unprivileged_port_start"] = "0"
        self.now_ns = 0
        self.timers: list[tuple[int, Any]] = []
        loop = self.caller.kernel.loop
        loop.call_at = self.call_at
        loop.now_ns = lambda: self.now_ns
        self.relay = Relay(self.stack, cast(Any, SimpleNamespace(close=lambda: None)), loop)
        self.asked = self.relay._nameservers = cast(Any, Asked())

    def call_at(self, due_ns: int, callback: Any) -> Any:
        self.timers.append((due_ns, callback))
        return self.timers[-1]

    def turn(self) -> None:
        """What was to be done soon, and what that brings."""
        while self.soon:
            some, self.soon[:] = list(self.soon), []
            for each in some:
                each()

    def datagrams(self, to: bytes = LOCAL, port: int = 53) -> Any:
        """A socket that is connected."""
        location = socket_location(self.caller)
        family = AF_INET if len(to) == 4 else AF_INET6
        made = UdpSocket(location, family, IPPROTO_UDP, self.stack).incref()
        done(made.connect(self.caller, place(to, port), False))
        return made

    def answer(self, ident: bytes = QUESTION[:2]) -> None:
        """What was asked is answered."""
        for ask in list(self.asked.asks.values()):
            self.relay.heard(ask, ident + ask.data[2:] + b" and answer")
        self.turn()


@pytest.fixture
def host() -> Asking:
    return Asking()


@pytest.mark.parametrize("to", [LOCAL, LOCAL6])
def test_datagram_goes_where_it_was_sent_and_so_does_the_answer(host: Asking, to: bytes) -> None:
    sock = host.datagrams(to)
    host.send(sock, QUESTION)
    (ask,) = host.asked.asks.values()
    assert (ask.data, ask.transport, ask.server.port) == (QUESTION, Transport.UDP, 53)
    assert ask.server.ip[-len(to) :] == to
    host.answer(b"\0\x08")  # of another question
    assert not sock.packets and host.asked.asks
    host.answer()
    (packet,) = sock.packets
    assert packet.data == QUESTION + b" and answer"
    assert not host.asked.asks


@pytest.mark.parametrize(("changes", "passes"), [
    ({}, True),
    ({2: 0x81}, False),  # an answer
    ({2: 0x28}, False),  # UPDATE
    ({2: 0x20}, False),  # NOTIFY
    ({5: 2}, False),
    ({7: 1}, False),
    ({9: 1}, False),
    ({11: 1}, True),  # EDNS
    ({11: 2}, False),
    ({12: 64}, False),
    ({12: 0xC0}, False),
    ({12: 60}, False),
    ({-3: 252}, False),  # AXFR
    ({-3: 251}, False),
    ({-3: 255}, True),
])  # fmt: skip
def test_what_is_no_question_does_not_pass(
    host: Asking, changes: dict[int, int], passes: bool
) -> None:
    made = bytearray(QUESTION)
    for at, byte in changes.items():
        made[at] = byte
    assert is_question(bytes(made)) == passes
    host.send(host.datagrams(), bytes(made))
    assert bool(host.asked.asks) == passes


def test_question_of_any_length_is_looked_at() -> None:
    for size in range(len(QUESTION)):
        assert not is_question(QUESTION[:size])
    assert is_question(QUESTION + bytes(MAX_QUESTION - len(QUESTION)))
    assert not is_question(QUESTION + bytes(MAX_QUESTION - len(QUESTION) + 1))
    assert not is_question(QUESTION[:12] + b"\1a" * 400)


def test_other_addresses_and_ports_are_nobodys_business(host: Asking) -> None:
    host.send(host.datagrams(port=54), QUESTION)
    host.send(host.datagrams(OUTSIDE), QUESTION)
    assert not host.asked.asks


def test_program_that_is_the_nameserver_is_asked_itself(host: Asking) -> None:
    location = socket_location(host.caller)
    server = UdpSocket(location, AF_INET, IPPROTO_UDP, host.stack).incref()
    done(server.bind(host.caller, place(LOCAL, 53)))
    host.send(host.datagrams(), QUESTION)
    assert len(server.packets) == 1 and not host.asked.asks


def test_server_that_is_not_there_refuses(host: Asking) -> None:
    sock = host.datagrams()
    host.send(sock, QUESTION)
    (ask,) = host.asked.asks.values()
    host.relay.unheard(ask)
    assert sock.so_error == ECONNREFUSED.number and not host.asked.asks
    host.relay.unheard(ask)
    host.relay.heard(ask, QUESTION)


def test_streams_are_accepted_where_a_datagram_was_answered(host: Asking) -> None:
    refused = host.socket()
    host.begin(refused, place(LOCAL, 53))
    host.turn()
    assert refused.so_error == ECONNREFUSED.number
    host.send(host.datagrams(), QUESTION)
    host.answer()
    sock = host.socket()
    host.begin(sock, place(LOCAL, 53))
    host.turn()
    host.send(sock, framed(QUESTION))
    host.turn()
    (ask,) = host.asked.asks.values()
    assert (ask.data, ask.transport) == (QUESTION, Transport.TCP)
    host.answer()
    assert receive(sock) == framed(QUESTION + b" and answer")
    host.send(sock, framed(QUESTION))
    host.turn()
    assert host.asked.asks
    sock.decref()
    host.turn()
    assert not host.asked.asks and not host.relay._waiting


def test_stream_whose_server_goes_ends(host: Asking) -> None:
    host.send(host.datagrams(), QUESTION)
    host.answer()
    sock = host.socket()
    host.begin(sock, place(LOCAL, 53))
    host.turn()
    host.send(sock, framed(QUESTION))
    host.turn()
    (ask,) = host.asked.asks.values()
    host.relay.unheard(ask)
    host.turn()
    assert receive(sock) == b"" and not host.relay._streams


def test_what_waits_is_bounded_in_number_and_in_time(host: Asking) -> None:
    sock = host.datagrams()
    host.send(sock, QUESTION[:11])
    assert not host.asked.asks
    for _ in range(MAX_WAITING):
        host.send(sock, QUESTION)
    assert len(host.asked.asks) == MAX_OPEN and len(host.timers) == 1
    assert not sock.packets
    host.send(sock, QUESTION)
    assert [packet.data for packet in sock.packets] == [QUESTION[:2] + b"\x81\x82" + QUESTION[4:]]
    host.now_ns = PATIENCE_NS
    ((due_ns, due),) = host.timers
    assert due_ns == PATIENCE_NS
    due()
    assert not host.asked.asks and len(host.timers) == 1


def test_question_that_there_is_no_room_for_waits_for_an_answer_to_another(host: Asking) -> None:
    sock = host.datagrams()
    for number in range(MAX_OPEN + 2):
        host.send(sock, bytes((1, number)) + QUESTION[2:])
    assert len(host.asked.asks) == MAX_OPEN
    first = next(iter(host.asked.asks.values()))
    host.relay.heard(first, first.data)
    assert [ask.data[:2] for ask in host.asked.asks.values()][-1] == bytes((1, MAX_OPEN))
    host.relay.close()
    assert not host.asked.asks


def test_failure_is_of_the_question_alone() -> None:
    with_edns = QUESTION[:11] + b"\1" + QUESTION[12:] + b"\0\0\x29\4\xd0" + bytes(6)
    for asked in (QUESTION, with_edns):
        assert failure(asked) == QUESTION[:2] + b"\x81\x82" + QUESTION[4:]
    without = QUESTION[:2] + b"\0" + QUESTION[3:]
    assert failure(without) == QUESTION[:2] + b"\x80\x82" + QUESTION[4:]


def test_servers_that_are_remembered_are_bounded(host: Asking) -> None:
    for last in range(MAX_ANSWERED + 5):
        host.send(host.datagrams(bytes((127, 0, 1, last))), QUESTION)
        host.answer()
    assert len(host.relay._answered) == MAX_ANSWERED


def test_what_is_not_late_yet_waits_on(host: Asking) -> None:
    sock = host.datagrams()
    host.send(sock, QUESTION)
    host.now_ns = PATIENCE_NS // 2
    host.send(sock, QUESTION)
    host.now_ns = PATIENCE_NS
    host.timers[0][1]()
    assert len(host.asked.asks) == 1
    assert host.timers[1][0] == PATIENCE_NS + PATIENCE_NS // 2


def test_sockets_of_its_own_hold_no_namespace(host: Asking) -> None:
    life = host.stack.begin()
    Relay(host.stack, cast(Any, None), host.caller.kernel.loop)
    held = ref(life)
    del life
    assert held() is None

"""Segments that mean harm, into connections of every state, hurt nobody and leave nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.abi.socket import SHUT_WR
from sentry.errors import Errno
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.endpoints import Endpoints
from sentry.net.tcp.info import info
from sentry.net.tcp.keyed import Flow, Keyed
from sentry.net.tcp.listener import Listener
from sentry.net.tcp.output import MOST_OUTGOING
from sentry.net.tcp.receive_buffer import MAX_EARLY
from sentry.net.tcp.scoreboard import MAX_RECORDS
from sentry.net.tcp.segment import ACK, FIN, PSH, RST, SYN, URG, Arrived, parse
from sentry.net.tcp.settings import Settings, Shared, Tuning
from tests.fuzz.inside import many
from tests.fuzz.running import bounded, explore, for_a_while, kept

Step = tuple[Any, ...]
SECOND = 1_000_000_000
HERE = Endpoint(MAPPED + b"\x0a\0\0\x01", 80)
THERE = MAPPED + b"\x0a\0\0\x02"
MTU = 1500
MOST_TIME_WAIT = 64
BACKLOG = 16
HEADER = struct.Struct(">HHIIBBHHH")
SYN_OPTIONS = bytes.fromhex("020405b40402080a00000064000000000103 0307".replace(" ", ""))


class Network:
    """A host with a connection in each state: by the port of its other end."""

    def __init__(self) -> None:
        self.now = 5000 * SECOND
        settings = Settings(tcp_max_tw_buckets=MOST_TIME_WAIT, tcp_ecn=1)
        self.shared = Shared(settings, Keyed(b"fuzz" * 4))
        self.endpoints = Endpoints(self.shared)
        self.listener = Listener(self.shared, BACKLOG, Tuning(keepalive=True))
        self.endpoints.listeners[HERE] = self.listener
        self.ends: list[Connection] = []
        for prepare in STATES:
            one = self.connected(1000 + len(self.ends))
            prepare(self, one)
            self.ends.append(one)
        self.settle()

    def flow(self, port: int) -> Flow:
        return Flow(HERE, Endpoint(THERE, port))

    def hear(self, port: int, seg: Arrived) -> None:
        self.endpoints.segment(self.now, self.flow(port), seg, MTU)

    def tell(self, port: int, flags: int, seq: int, ack: int, data: bytes = b"") -> None:
        """A segment as a peer sends it, with the numbers of the wire."""
        self.now += 1_000_000
        stamps = struct.pack(">BBBBII", 1, 1, 8, 10, self.now // 1_000_000 & 0xFFFFFFFF, 0)
        options = SYN_OPTIONS if flags & SYN else stamps
        raw = HEADER.pack(port, HERE.port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF,
                          (20 + len(options)) << 2, flags, 60000, 0, 0)  # fmt: skip
        seg = parse(raw + options + data)
        assert seg is not None
        self.hear(port, seg)

    def connected(self, port: int) -> Connection:
        """One that somebody has made with us."""
        self.tell(port, SYN, 0xFFFFFF00, 0)
        request = self.listener.requests[self.flow(port)]
        self.tell(port, ACK, 0xFFFFFF01, request.iss + 1)
        made = self.listener.accept()
        assert made is not None
        return made

    def peer(self, one: Connection, flags: int, data: bytes = b"", ahead: int = 0) -> None:
        """The peer of one of them says something that fits."""
        port = one.flow.remote.port
        self.tell(port, flags | ACK, one.rcv.next + ahead, one.snd_nxt, data)

    def settle(self) -> None:
        for one in (*self.ends, *self.endpoints.connections.values()):
            self.endpoints.settle(self.now, one)
        self.listener.take()

    # --- steps

    def run(self, steps: list[Step]) -> None:
        for kind, *what in steps:
            with bounded((kind, what)):
                getattr(self, f"do_{kind}")(*what)
            self.check()

    def do_raw(self, at: int, data: bytes, checksum_ok: bool, ecn: int) -> None:
        seg = parse(data, checksum_ok, ecn)
        if seg is not None:
            self.hear(1000 + at, seg)

    def do_near(
        self, at: int, flags: int, places: tuple[int, int], rest: tuple[int, int, bytes, int]
    ) -> None:
        """Near where one of them is."""
        one = self.ends[at % len(self.ends)]
        window, urgent, options, size = rest
        seq, ack = one.rcv.next + places[0], one.snd_una + places[1]
        options = options[:40] + bytes(-len(options[:40]) % 4)
        raw = HEADER.pack(one.flow.remote.port, HERE.port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF,
                          (20 + len(options)) << 2, flags, window, 0, urgent)  # fmt: skip
        seg = parse(raw + options + bytes(size))
        assert seg is not None
        self.hear(one.flow.remote.port, seg)

    def do_sacks(self, at: int, blocks: list[tuple[int, int]], value: int, echo: int) -> None:
        """SACK of what is under way, or nearly."""
        one = self.ends[at % len(self.ends)]
        seg = Arrived(
            one.flow.remote.port, HERE.port, one.rcv.next & 0xFFFFFFFF,
            one.snd_una & 0xFFFFFFFF, ACK, 60000, 0, memoryview(b""),
            stamps=(
                (one.ts_recent + value) & 0xFFFFFFFF,
                (one.stamp(self.now) - echo) & 0xFFFFFFFF,
            ),
            sacks=tuple(
                ((one.snd_una + a) & 0xFFFFFFFF, (one.snd_una + a + b) & 0xFFFFFFFF)
                for a, b in blocks
            ),
        )  # fmt: skip
        self.hear(one.flow.remote.port, seg)

    def do_syns(self, first: int, count: int, flags: int) -> None:
        for port in range(first, first + count):
            self.hear(port & 0xFFFF, Arrived(port & 0xFFFF, HERE.port, 5, 6, flags, 7, 0,
                                             memoryview(b"")))  # fmt: skip

    def do_time(self, ms: int) -> None:
        self.now += ms * 1_000_000
        for one in list(self.endpoints.connections.values()):
            if (at := one.timer()) is not None and at <= self.now:
                one.timeout(self.now)
        self.listener.timeout(self.now)
        self.endpoints.time_wait.timeout(self.now)
        self.settle()

    def do_icmp(self, at: int, place: int, number: int, mtu: int) -> None:
        one = self.ends[at % len(self.ends)]
        seq = (one.snd_una + place) & 0xFFFFFFFF
        if mtu:
            one.path_mtu(self.now, seq, mtu)
        else:
            one.icmp_error(self.now, seq, number)

    def do_program(self, at: int, call: str, size: int) -> None:
        one = self.ends[at % len(self.ends)]
        calls: dict[str, Callable[[], object]] = {
            "send": lambda: one.send(self.now, bytes(size)),
            "send_more": lambda: one.send_more(self.now, bytes(size)),
            "send_urgent": lambda: one.send_urgent(self.now, bytes(size)),
            "receive": lambda: one.receive(self.now, size),
            "peek": lambda: one.peek(size, size // 2),
            "receive_urgent": one.receive_urgent,
            "shutdown": lambda: one.shutdown(self.now, size % 3),
            "close": lambda: one.close(self.now),
            "abort": lambda: one.abort(self.now),
            "accept": self.listener.accept,
            "tuned": lambda: one.tuned(self.now),
            "keepalive": lambda: one.set_keepalive(self.now),
        }
        with suppress(Errno):
            calls[call]()

    # --- what is always so

    def check(self) -> None:
        for one in self.ends:
            assert len(one.outgoing) <= MOST_OUTGOING
            assert len(one.board.records) <= MAX_RECORDS + 1000
            assert len(one.rcv.early) <= len(one.rcv._early) <= MAX_EARLY
            assert one.rcv.queued + one.rcv.early.total <= 2 * one.full_window() + 65535
            assert len(one.stream) <= one.settings.tcp_wmem[2]
            assert one.snd_una <= one.snd_nxt and one.rcv.read <= one.rcv.next
            assert one.board.in_flight >= 0 and one.cc.window > 0
            found = info(one, self.now)
            assert all(value >= 0 for value in found.values()), found
            assert one.state != TCP_CLOSE or one.timer() is None
        self.settle()
        assert len(self.listener.requests) <= BACKLOG
        assert len(self.listener.accepted) <= BACKLOG + 1
        assert len(self.endpoints.time_wait) <= MOST_TIME_WAIT


def established(network: Network, one: Connection) -> None:
    one.send(network.now, bytes(1000))


def sending(network: Network, one: Connection) -> None:
    one.send(network.now, bytes(60_000))


def repairing(network: Network, one: Connection) -> None:
    one.send(network.now, bytes(60_000))
    seq = one.snd_una + 5000
    network.hear(one.flow.remote.port, Arrived(
        one.flow.remote.port, 80, one.rcv.next & 0xFFFFFFFF, one.snd_una & 0xFFFFFFFF, ACK, 60000,
        0, memoryview(b""), stamps=(network.now // 1_000_000 & 0xFFFFFFFF, 0),
        sacks=((seq & 0xFFFFFFFF, (seq + 9000) & 0xFFFFFFFF),),
    ))  # fmt: skip


def timed_out(network: Network, one: Connection) -> None:
    one.send(network.now, bytes(30_000))
    one.timeout(network.now + 3 * SECOND)
    one.timeout(network.now + 6 * SECOND)


def with_holes(network: Network, one: Connection) -> None:
    for ahead in (10, 30, 50):
        network.peer(one, 0, b"12345", ahead)


def fin_wait_1(network: Network, one: Connection) -> None:
    one.send(network.now, bytes(100))
    one.shutdown(network.now, SHUT_WR)


def fin_wait_2(network: Network, one: Connection) -> None:
    one.shutdown(network.now, SHUT_WR)
    network.peer(one, 0)


def close_wait(network: Network, one: Connection) -> None:
    network.peer(one, FIN)


def last_ack(network: Network, one: Connection) -> None:
    close_wait(network, one)
    one.shutdown(network.now, SHUT_WR)


def closing(network: Network, one: Connection) -> None:
    una = one.snd_nxt
    one.shutdown(network.now, SHUT_WR)
    network.tell(one.flow.remote.port, FIN | ACK, one.rcv.next, una)


def orphan(network: Network, one: Connection) -> None:
    one.send(network.now, bytes(100))
    one.close(network.now)


def time_wait(network: Network, one: Connection) -> None:
    one.close(network.now)
    network.endpoints.settle(network.now, one)
    network.peer(one, FIN)
    left = network.endpoints.time_wait.get(one.flow)
    assert left is not None and left.state == TCP_TIME_WAIT


def over(network: Network, one: Connection) -> None:
    network.peer(one, RST)


STATES = (established, sending, repairing, timed_out, with_holes, fin_wait_1, fin_wait_2,
          close_wait, last_ack, closing, orphan, time_wait, over)  # fmt: skip
AT = st.integers(0, len(STATES) - 1)
FLAGS = st.sampled_from([
    ACK, ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, SYN, SYN | ACK, SYN | FIN, URG | ACK, 0,
    0xFF,
]) | st.integers(0, 255)  # fmt: skip
NEAR = st.sampled_from([0, 0, 0, 1, -1, 5, 1000, 5000, -5000, 70_000, -70_000, 1 << 31]) | (
    st.integers(-100_000, 100_000)
)
STAMP = st.builds(lambda a, b: struct.pack(">BBBBII", 1, 1, 8, 10, a, b),
                  st.integers(0, 0xFFFFFFFF) | st.integers(5_000_000, 5_100_000),
                  st.integers(0, 0xFFFFFFFF))  # fmt: skip
OPTIONS = st.one_of(
    st.just(b""), STAMP, st.binary(max_size=40),
    st.lists(st.sampled_from([
        b"\x01", b"\x00", b"\x02\x04\x00\x30", b"\x03\x03\x0e", b"\x04\x02", b"\x05\x0a" + bytes(8),
        b"\x05\x02", b"\x05\x12" + b"\xff" * 16, b"\x08\x0a" + bytes(8), b"\x08\x09", b"\xfe\x01",
    ]), max_size=6).map(b"".join),
)  # fmt: skip
REST = st.tuples(
    st.sampled_from([0, 1, 100, 65535]) | st.integers(0, 65535),
    st.sampled_from([0, 1, 5, 65535]),
    OPTIONS,
    st.sampled_from([0, 0, 0, 1, 100, 1460, 60_000]),
)
CALLS = st.sampled_from([
    "send", "send", "send_more", "send_urgent", "receive", "receive", "peek", "receive_urgent",
    "shutdown", "close", "abort", "accept", "tuned", "keepalive",
])  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("raw"), AT, st.binary(max_size=80), st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("near"), AT, FLAGS, st.tuples(NEAR, NEAR), REST),
    st.tuples(st.just("near"), AT, FLAGS, st.tuples(NEAR, NEAR), REST),
    st.tuples(
        st.just("sacks"), AT,
        st.lists(st.tuples(st.integers(-2000, 70_000), st.integers(-10, 20_000)), max_size=4),
        st.integers(-2, 5), st.integers(-5, 100),
    ),
    st.tuples(st.just("syns"), st.integers(0, 65535), st.integers(1, 40), FLAGS),
    st.tuples(st.just("time"), st.sampled_from([0, 1, 40, 200, 1000, 10_000, 100_000])),
    st.tuples(
        st.just("icmp"), AT, NEAR, st.sampled_from([111, 113, 101]),
        st.sampled_from([0, 0, 68, 552, 1400, 9000]),
    ),
    st.tuples(st.just("program"), AT, CALLS, st.sampled_from([0, 1, 2, 100, 5000, 200_000])),
)  # fmt: skip


def check(steps: list[Step]) -> None:
    Network().run(steps)


@for_a_while()
def test_segments_hurt_nobody(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))


@kept("tcp")
def test_kept_case_hurts_nobody(case: list[Step]) -> None:
    check(case)

"""Programs and whoever is on the link, together: sockets of every kind over a stack of its own."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from functools import partial
from typing import Any, Self

from hypothesis import strategies as st

from sentry.abi.netlink import ARPHRD_ETHER, IFF_LOWER_UP, IFF_RUNNING, IFF_UP
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_PACKET,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    MSG_MORE,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOCK_STREAM,
)
from sentry.errors import Errno
from sentry.net.frame import show_link_frame
from sentry.net.inet import leaving, tcp_link
from sentry.net.interfaces import Address, Interface
from sentry.net.ip.layer import IpLayer
from sentry.net.link.link import EthernetLink
from sentry.net.routes import Route
from sentry.wait.steps import at_once
from tests.fuzz.inside import Step, many
from tests.fuzz.running import bounded, explore, for_a_while
from tests.fuzz.sockets import DATA, EVERY, PORT, Sockets
from tests.fuzz.test_sockets import CONTROL
from tests.fuzz.test_sockets import STEPS as SOCKET_STEPS
from tests.fuzz.test_stack import ANY, FRAMES, as_icmp4, as_ip4
from tests.unit.net.streams import Streams, place, receive
from tests.unit.net.wired import INDEX, SECOND_NS, hardware, ip4, ip6, local6

IPS4 = st.sampled_from([
    ip4(2), ip4(2), ip4(9), ip4(1), ip4(255), b"\xff" * 4, b"\xe0\0\0\x05", b"\x08" * 4,
])  # fmt: skip
IPS6 = st.sampled_from([
    ip6(2), ip6(9), ip6(1), local6(2), b"\xff\x02" + bytes(13) + b"\x05", b"\x20\x01" + bytes(14),
    bytes(10) + b"\xff\xff" + ip4(2),
])  # fmt: skip
PORTS = st.sampled_from([0, 9, PORT])
NAMES = st.one_of(
    st.just(b""),
    st.builds(lambda port, ip: struct.pack("<H", AF_INET) + struct.pack(">H4s8x", port, ip),
              PORTS, IPS4),
    st.builds(lambda port, ip, scope: struct.pack("<H", AF_INET6)
              + struct.pack(">HI16s", port, 0, ip) + struct.pack("<I", scope),
              PORTS, IPS6, st.sampled_from([0, INDEX])),
    st.just(struct.pack("<HHiHBB8s", 17, 8, INDEX, 0, 0, 6, hardware(2) + bytes(2))),
)  # fmt: skip
UNBOUND = (
    (AF_INET, SOCK_DGRAM, 0), (AF_INET6, SOCK_DGRAM, 0), (AF_INET, SOCK_DGRAM, 0),
    (AF_INET, SOCK_DGRAM, IPPROTO_ICMP), (AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6),
    (AF_INET, SOCK_RAW, IPPROTO_ICMP), (AF_INET6, SOCK_RAW, IPPROTO_ICMPV6),
    (AF_INET, SOCK_RAW, 17), (AF_INET6, SOCK_RAW, 17), (AF_INET, SOCK_RAW, 253),
    (AF_PACKET, SOCK_RAW, EVERY), (AF_PACKET, SOCK_DGRAM, EVERY),
    (AF_INET, SOCK_STREAM, 0), (AF_INET, SOCK_STREAM, 0), (AF_INET6, SOCK_STREAM, 0),
)  # fmt: skip
"""Sockets whose packets may leave: those of `Sockets` are bound to the loopback."""
FRESH = st.integers(0, len(UNBOUND) - 1)
STREAM = st.integers(len(UNBOUND) - 3, len(UNBOUND) - 1)
PINGS = st.sampled_from([b"\x08\0\0\0\0\1\0\1data", b"\x80\0\0\0\0\1\0\1data"])
SWITCHES = st.sampled_from([
    (0, 11), (41, 25), (0, 10), (41, 23), (1, 6), (0, 34), (0, 33), (41, 62), (1, 62), (17, 103),
    (6, 1), (6, 2), (6, 3), (6, 4), (6, 8), (6, 9), (6, 10), (6, 12), (6, 18), (1, 7), (1, 8),
    (1, 9), (1, 10), (1, 18),
])  # fmt: skip
"""(level, option) that change how something leaves, or what is told of it."""
JOINS = st.sampled_from([
    (0, 35, b"\xe0\0\0\x05" + bytes(4) + struct.pack("<i", INDEX)),
    (41, 20, b"\xff\x02" + bytes(13) + b"\x05" + struct.pack("<i", INDEX)),
    (0, 32, bytes(8) + struct.pack("<i", INDEX)),
])  # fmt: skip
OURS = st.one_of(
    st.tuples(st.just("send"), FRESH, NAMES, DATA, st.just(b"") | CONTROL, st.just(0)),
    st.tuples(st.just("send"), FRESH, NAMES, DATA | PINGS, st.just(b""), st.just(0)),
    st.tuples(st.just("connect"), FRESH, NAMES),
    st.tuples(st.just("bind"), FRESH, NAMES),
    st.builds(lambda at, row, n: ("set", at, *row, struct.pack("<i", n), 4),
              FRESH, SWITCHES, st.sampled_from([0, 1, 2, 3, 5, INDEX, 1000, 1280])),
    st.builds(lambda at, row: ("set", at, *row, len(row[2])), FRESH, JOINS),
    st.tuples(st.just("hear"), FRESH, FRAMES | ANY),
    st.tuples(st.just("answer"), FRESH),
    st.tuples(st.just("wait"), FRESH, st.sampled_from([1, 1100, 40_000])),
)  # fmt: skip
SPOILED = st.none() | st.tuples(st.integers(22, 100), st.integers(1, 255))
"""Which byte of a frame is changed, and how."""
STREAMS = st.one_of(
    st.tuples(st.just("connect"), STREAM, NAMES),
    st.tuples(st.just("bind"), STREAM, NAMES),
    st.tuples(st.just("send"), STREAM, st.just(b""), DATA, st.just(b""),
              st.sampled_from([0, MSG_OOB, MSG_MORE])),
    st.tuples(st.just("receive"), STREAM, st.sampled_from([0, 7, 4096]), st.just(0),
              st.sampled_from([0, MSG_OOB, MSG_PEEK, MSG_TRUNC])),
    st.tuples(st.just("other"), STREAM, st.sampled_from(["listen", "shutdown"]),
              st.sampled_from([0, 1, 2])),
    st.tuples(st.just("accept"), STREAM),
    st.tuples(st.just("renew"), STREAM),
    st.tuples(st.just("call_us"), STREAM, st.sampled_from([ip4(1), ip6(1)])),
    *[st.tuples(st.just("relay"), STREAM, SPOILED)] * 3,
)  # fmt: skip
STEPS = st.one_of(*[OURS] * 4, *[STREAMS] * 4, SOCKET_STEPS)


class Linked(Sockets):
    """The same with a link, at whose other end is who echoes and complains."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.now_ns = SECOND_NS
        stack = self.stack = self.first.task.ns.net.stack
        flags = IFF_UP | IFF_RUNNING | IFF_LOWER_UP
        interface = Interface(INDEX, "eth0", ARPHRD_ETHER, flags, 1500, hardware(1))
        interface.addresses = [
            Address(AF_INET, ip4(1), 24, 0), Address(AF_INET6, ip6(1), 64, 0),
            Address(AF_INET6, local6(1), 64, 253),
        ]  # fmt: skip
        stack.interfaces.insert(interface)
        stack.routes.added.append(Route(AF_INET, bytes(4), 0, INDEX, gateway=ip4(2)))
        layer = stack.ip = IpLayer(stack.interfaces, stack.sysctls, os.urandom)
        leaving.plug(stack)
        tcp_link.plug(stack)
        stack.tcp.clock = lambda: self.now_ns
        self.peer = Streams(2)
        self.peer.tcp.clock = stack.tcp.clock
        self.listeners = [self.peer.listen(PORT, AF_INET6)]
        self.theirs: list[Any] = []
        self.link = layer.links[INDEX] = EthernetLink(INDEX, hardware(1), layer, 7)
        self.link.seen = partial(show_link_frame, stack, self.link)
        at_once(layer.refresh(stack.routes))
        fresh = [self.first.ok("socket", at, kind | SOCK_NONBLOCK, n) for at, kind, n in UNBOUND]
        for fd in fresh[:2]:
            self.first.ok("setsockopt", fd, 1, 6, struct.pack("<i", 1), 4)  # SO_BROADCAST
        self.fds[:0] = fresh
        self.program = self.first.fork()
        for ip in (ip4(2), ip6(2), local6(2)):
            self.link.neighbours(ip).set_static(ip, hardware(2))
        return self

    def _hear(self, fd: int, frame: bytes) -> None:
        with bounded(frame):
            self.link.received(self.now_ns, frame)
        self.world.settle()

    def _answer(self, fd: int) -> None:
        """What has left comes back, from where it went, and again as an error about it."""
        for sent in self.link.take_outgoing(4, 1 << 20):
            frame = sent[:10] + sent[16:22] + sent[10:16] + sent[22:]
            if frame[22:24] == b"\x08\0" and len(frame) >= 44:
                swapped = frame[:36] + frame[40:44] + frame[36:40]
                ports = frame[44:48]
                self._hear(fd, swapped + ports[2:] + ports[:2] + frame[48:])
                self._hear(fd, complaint(frame))

    def _relay(self, fd: int, spoiled: tuple[int, int] | None) -> None:
        """What has left comes to a host, which takes it and echoes; one byte may be another."""
        for sent in self.link.take_outgoing(8, 1 << 20):
            self.peer.link.received(self.now_ns, sent)
        with suppress(Errno):
            self.theirs.append(self.peer.accept(self.listeners[0]))
        for each in self.theirs[-4:]:
            with suppress(Errno):
                self.peer.send(each, receive(each))
        for at, sent in enumerate(self.peer.link.take_outgoing(8, 1 << 20)):
            frame = bytearray(sent)
            if spoiled is not None and not at and spoiled[0] < len(frame):
                frame[spoiled[0]] ^= spoiled[1]
            self._hear(fd, bytes(frame))

    def _call_us(self, fd: int, ip: bytes) -> None:
        """The other host connects."""
        made = self.peer.socket(AF_INET if len(ip) == 4 else AF_INET6)
        with suppress(Errno):
            self.peer.begin(made, place(ip, PORT))
        self.theirs.append(made)

    def _accept(self, fd: int) -> None:
        """It is read, and closed as it is."""
        made = self.call("accept4", fd, 0, 0, SOCK_NONBLOCK)
        if made >= 0:
            self._receive(made, 100, 0, 0)
            self.call("close", made)

    def _renew(self, fd: int) -> None:
        """Closed, and another in its place."""
        at = self.fds.index(fd)
        domain, kind, number = UNBOUND[at]
        self.call("close", fd)
        self.fds[at] = self.program.ok("socket", domain, kind | SOCK_NONBLOCK, number)

    def _wait(self, fd: int, ms: int) -> None:
        until_ns = self.now_ns + ms * 1_000_000
        while (due_ns := self.stack.ip.timer()) is not None and due_ns <= until_ns:
            self.now_ns = max(self.now_ns, due_ns)
            with bounded("a timer"):
                self.stack.ip.timeout(self.now_ns)
        self.now_ns = until_ns
        self.world.settle()


def complaint(frame: bytes) -> bytes:
    """Port unreachable, from who got it."""
    quoted = as_icmp4(3, 3, bytes(4), frame[24:84])
    return frame[:24] + as_ip4((frame[40:44], ip4(1)), 1, 0, b"", quoted)


def check(steps: list[Step]) -> None:
    with Linked() as sockets:
        sockets.run(steps)


@for_a_while()
def test_programs_and_frames_hurt_nobody(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))

"""Frames of anybody on the link hurt no stack: no exception, no growth, no long step."""

from __future__ import annotations

import struct
from contextlib import suppress

from hypothesis import strategies as st

from sentry.abi.socket import IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE
from sentry.errors import Errno
from sentry.net.inet.leaving import Arrivals
from sentry.net.ip import autoconf, fragments, ipv4, ipv6, limits, path_mtu
from sentry.net.ip.autoconf import Autoconf
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Outgoing
from sentry.net.link import link, neighbours
from sentry.net.stack import Stack
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.fuzz.test_packets import MAYBE, extension, icmp, udp
from tests.unit.net.wired import INDEX, SECOND_NS, Host, hardware, ip4, ip6, local6

Step = tuple[str, int, bytes]
SHORT = st.binary(max_size=40) | st.sampled_from([bytes(8), bytes(1400)])
IPS4 = st.sampled_from([
    ip4(1), ip4(2), ip4(255), b"\xff" * 4, bytes(4), b"\x7f\0\0\1", b"\xe0\0\0\1", b"\x08" * 4,
])  # fmt: skip
IPS6 = st.sampled_from([
    ip6(1), ip6(2), local6(1), local6(2), ipv6.ALL_NODES, ipv6.solicited_node(ip6(1)), bytes(16),
    ipv6.LOOPBACK, b"\x20\x01" + bytes(14),
])  # fmt: skip
WORDS = st.integers(0, 0xFFFF)
PROTOCOLS = st.sampled_from([0, 1, 6, 17, 43, 44, 58, 59, 60, 136, 253]) | st.integers(0, 255)
PLACES = st.sampled_from([0, 0x4000, 0x2000, 1, 0x2001, 0x1FFF]) | WORDS
"""Flags and offset of a fragment."""


def as_ip4(
    ends: tuple[bytes, bytes], protocol: int, place: int, options: bytes, data: bytes
) -> bytes:
    """With a right sum: else nothing behind it is looked at."""
    size = 20 + len(options) // 4 * 4
    header = ipv4.Header(size, size + len(data), 0, 7, place, 64, protocol, *ends)
    return ipv4.build(header, options[: size - 20]) + data


def as_ip6(ends: tuple[bytes, bytes], following: int, data: bytes, hops: int) -> bytes:
    return ipv6.build(ipv6.Header(0, 0, len(data), following, hops, *ends)) + data


def as_icmp4(kind: int, code: int, rest: bytes, data: bytes) -> bytes:
    body = bytes([kind, code, 0, 0]) + rest + data
    return body[:2] + checksum(body).to_bytes(2) + body[4:]


def as_icmp6(
    ends: tuple[bytes, bytes], kind: int, code: int, rest: bytes, data: bytes, hops: int
) -> bytes:
    body = bytes([kind, code, 0, 0]) + rest + data
    total = checksum(body, pseudo_sum(*ends, 58, len(body)))
    return as_ip6(ends, 58, body[:2] + total.to_bytes(2) + body[4:], hops)


FOUR = st.binary(min_size=4, max_size=4)
HOPS = st.sampled_from([255, 64, 0])
ENDS4, ENDS6 = st.tuples(IPS4, IPS4), st.tuples(IPS6, IPS6)
ND_OPTIONS = st.lists(
    st.builds(lambda kind, size, body: bytes([kind, size]) + body,
              st.integers(0, 6), st.integers(0, 4), st.binary(min_size=6, max_size=6)),
    max_size=4,
).map(b"".join)  # fmt: skip
ND_BODIES = st.builds(
    lambda ips, rest: b"".join(ips) + rest, st.lists(IPS6, max_size=2), ND_OPTIONS
)
LIFETIMES = st.sampled_from([0, 1, 40, 7200, 0xFFFFFFFF])
PREFIXES = st.lists(
    st.builds(
        lambda length, flags, times, ip: (
            bytes([3, 4, length, flags]) + struct.pack(">II4x", *times) + ip
        ),
        st.sampled_from([64, 64, 0, 128]) | st.integers(0, 255), st.integers(0, 255),
        st.tuples(LIFETIMES, LIFETIMES), IPS6 | st.binary(min_size=16, max_size=16),
    ),
    max_size=5,
).map(b"".join)  # fmt: skip
ROUTERS = st.builds(
    lambda seconds, prefixes, more: b"\x40\0" + seconds.to_bytes(2) + bytes(8) + prefixes + more,
    st.sampled_from([0, 1, 1800, 65535]), PREFIXES, ND_OPTIONS,
)  # fmt: skip
"""Behind type, code and checksum of an advertisement."""
NEAR6 = st.integers(0, 255).map(local6)
TRANSPORTS = st.one_of(
    SHORT,
    st.builds(udp, st.tuples(WORDS, WORDS), SHORT, MAYBE, WORDS),
    st.builds(icmp, st.integers(0, 255), st.integers(0, 255), WORDS, st.just(0), SHORT),
)
INNER = st.one_of(
    st.builds(as_ip4, ENDS4, PROTOCOLS, PLACES, st.just(b""), SHORT),
    st.builds(as_ip6, ENDS6, PROTOCOLS, SHORT, HOPS),
    SHORT,
)
EXTENSIONS = st.recursive(
    TRANSPORTS,
    lambda rest: st.builds(
        lambda following, size, body, more: extension(following, size, body) + more,
        PROTOCOLS, st.integers(0, 3), st.binary(min_size=6, max_size=6), rest,
    ),
    max_leaves=5,
)  # fmt: skip
OPTIONS = st.one_of(st.just(b""), st.binary(max_size=40), st.sampled_from([
    b"\x94\x04\0\0", b"\x83\x07\x04\x0a\0\0\x05\0", b"\x07\x27\x04" + bytes(37),
]))  # fmt: skip
PACKETS = st.one_of(
    st.tuples(st.just(0x800), st.builds(as_ip4, ENDS4, PROTOCOLS, PLACES, OPTIONS, TRANSPORTS)),
    st.tuples(st.just(0x800), st.builds(
        lambda ends, message: as_ip4(ends, 1, 0, b"", message),
        ENDS4, st.builds(as_icmp4, st.integers(0, 18), st.integers(0, 16), FOUR, INNER),
    )),
    st.tuples(st.just(0x86DD), st.builds(as_ip6, ENDS6, PROTOCOLS, EXTENSIONS, HOPS)),
    st.tuples(st.just(0x86DD), st.builds(
        as_icmp6, ENDS6, st.integers(1, 4) | st.integers(128, 140), st.integers(0, 8), FOUR,
        INNER | ND_BODIES, HOPS,
    )),
    st.tuples(st.just(0x86DD), st.builds(
        lambda source, body: as_icmp6((source, ipv6.ALL_NODES), 134, 0, body[:4], body[4:], 255),
        NEAR6, ROUTERS,
    )),
    st.tuples(st.just(0x806), st.builds(
        lambda op, a, b, c, d: struct.pack(">HHBBH", 1, 0x800, 6, 4, op) + a + b + c + d,
        st.integers(0, 3), st.sampled_from([hardware(2), hardware(9), bytes(6), b"\xff" * 6]), IPS4,
        st.just(bytes(6)), IPS4,
    )),
    st.tuples(WORDS, SHORT),
)  # fmt: skip
TO = st.sampled_from([hardware(1), hardware(1), b"\xff" * 6, b"\x33\x33\0\0\0\1", hardware(7)])
VIRTIO = st.sampled_from([bytes(10), b"\x01" + bytes(9), b"\x02" + bytes(9)]) | st.binary(
    min_size=10, max_size=10
)
FRAMES = st.builds(
    lambda virtio, to, packet: (
        virtio + to + hardware(2) + packet[0].to_bytes(2) + packet[1]
    ),
    VIRTIO, TO, PACKETS,
)  # fmt: skip


def spoiled(frame: bytes, at: int, byte: int, cut: int) -> bytes:
    """One byte is another, and the end is missing."""
    if not frame:
        return frame
    at %= len(frame)
    whole = frame[:at] + bytes([byte]) + frame[at + 1 :]
    return whole[: len(whole) - cut % 9]


ANY = st.one_of(
    FRAMES, FRAMES,
    st.builds(spoiled, FRAMES, st.integers(0, 200), st.integers(0, 255), st.integers(0, 8)),
    st.binary(max_size=120),
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), st.integers(1, 40), ANY),
        st.tuples(st.just("hear"), st.integers(1, 3), ANY),
        st.tuples(st.just("wait"), st.sampled_from([1, 1000, 40_000]), st.just(b"")),
        st.tuples(st.just("send"), st.sampled_from([0, 8, 1480, 9000]), IPS4 | IPS6),
    ),
    max_size=30,
)


class Bounds:
    """A host whose every step is short and whose tables have ceilings."""

    def __init__(self) -> None:
        self.host = Host(1)
        for is_v4 in (True, False):
            arrivals = Arrivals(Stack(None, {}))
            for protocol in (IPPROTO_UDP, IPPROTO_UDPLITE):
                self.host.layer.handlers[is_v4, protocol] = arrivals
        self.host.keep(IPPROTO_TCP)
        self.host.route_all(ip4(2))
        self.host.route_all(ip6(2))
        self.now_ns = SECOND_NS
        self.routes = list(self.host.routes.added)
        self.addresses = list(self.host.interface.addresses)
        self.autoconf = Autoconf(self.host.layer, self.host.link, self.learned)
        self.host.layer.autoconf[INDEX] = self.autoconf
        self.host.layer.timed.append(self.autoconf)
        self.autoconf.begin(self.now_ns)

    def learned(self) -> None:
        """Routers have said something else."""
        self.host.interface.addresses = [*self.addresses, *self.autoconf.addresses()]
        self.host.routes.added = [*self.routes, *self.autoconf.routes()]
        self.host.layer.outdate(self.host.routes)

    def run(self, steps: list[Step]) -> None:
        for kind, number, data in steps:
            with bounded((kind, number, data)):
                getattr(self, kind)(number, data)
            self.check()
            self.host.frames()

    def hear(self, times: int, frame: bytes) -> None:
        for _ in range(times):
            self.host.link.received(self.now_ns, frame)

    def wait(self, ms: int, _: bytes) -> None:
        until_ns = self.now_ns + ms * 1_000_000
        while (first_ns := self.host.layer.timer()) is not None and first_ns <= until_ns:
            self.now_ns = max(self.now_ns, first_ns)
            self.host.layer.timeout(self.now_ns)
        self.now_ns = until_ns

    def send(self, size: int, target: bytes) -> None:
        with suppress(Errno):
            protocol = IPPROTO_UDP if size < 9 else 253
            self.host.layer.send(self.now_ns, Outgoing(target, protocol, (bytes(size),)))

    def check(self) -> None:
        layer, own = self.host.layer, self.host.link
        for table in (own.neighbours4, own.neighbours6):
            assert len(table) <= neighbours.MAX_NEIGHBOURS
            assert table._waiting_bytes == sum(each.waiting_bytes for each in table)
        for reassembly in (layer.fragments4, layer.fragments6):
            assert reassembly.charged == sum(q.charged for q in reassembly._queues.values())
            assert reassembly.charged <= 3 * fragments.HIGH_THRESHOLD
        assert len(layer.exceptions) <= path_mtu.MAX_EXCEPTIONS
        assert len(layer.limit4._targets) <= limits.MAX_TARGETS
        assert len(self.autoconf.addresses()) <= autoconf.MAX_OWN
        assert len(self.autoconf.routes()) <= autoconf.MAX_ROUTERS + autoconf.MAX_PREFIXES
        assert len(own.outgoing) <= link.MAX_OUTGOING
        assert own.outgoing_bytes == sum(map(len, own.outgoing))


def check(steps: list[Step]) -> None:
    Bounds().run(steps)


@for_a_while()
def test_frames_hurt_no_stack(seconds: float) -> None:
    explore(seconds, check, steps=STEPS)


@kept("stack")
def test_kept_case_hurts_no_stack(case: list[Step]) -> None:
    check(case)

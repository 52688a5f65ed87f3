"""Packets that nobody means, by raw and packet sockets, hurt nobody who hears them."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from tests.fuzz.inside import Step, many
from tests.fuzz.running import explore, for_a_while, kept
from tests.fuzz.sockets import DATA, FLAGS, IPS4, IPS6, NAMES, PLACE, PORT, PORTS, Sockets, words

SENDERS = st.integers(10, 23) | st.sampled_from([14, 15, 21, 22])
"""Places of ping, raw and packet sockets."""
PROTOCOLS = st.sampled_from([0, 1, 2, 4, 6, 17, 41, 43, 44, 58, 59, 60, 136, 253, 255]) | words(1)
MAYBE = st.none() | st.none() | st.none() | words(2)
"""In place of a length."""


def ip4(
    head: tuple[int, int, int, int],
    protocol: int,
    ends: bytes,
    rest: tuple[bytes, bytes],
    length: int | None,
) -> bytes:
    first, fragment, ttl, check = head
    options, data = rest
    size = 20 + len(options) + len(data) if length is None else length
    return (
        struct.pack(">BBHHHBBH", first, 0, size & 0xFFFF, 7, fragment, ttl, protocol, check)
        + ends
        + options
        + data
    )


def ip6(first: int, following: int, ends: bytes, data: bytes, length: int | None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">IHBB", first, size & 0xFFFF, following, 64) + ends + data


def udp(ports: tuple[int, int], data: bytes, length: int | None, check: int) -> bytes:
    size = 8 + len(data) if length is None else length
    return struct.pack(">HHHH", *ports, size & 0xFFFF, check) + data


def tcp(ports: tuple[int, int], numbers: tuple[int, int], flags: int, data: bytes) -> bytes:
    return struct.pack(">HHIIHHHH", *ports, *numbers, flags, 1000, 0, 0) + data


def icmp(kind: int, code: int, check: int, rest: int, data: bytes) -> bytes:
    return struct.pack(">BBHI", kind, code, check, rest) + data


def extension(following: int, size: int, data: bytes) -> bytes:
    return bytes([following, size]) + data


BOTH = st.tuples(PORTS, PORTS)
SIMPLE = st.one_of(
    DATA,
    st.builds(udp, BOTH, DATA, MAYBE, words(2)),
    st.builds(udp, st.just((PORT, PORT)), DATA, st.none(), st.just(0)),
    st.builds(tcp, BOTH, st.tuples(words(4), words(4)), words(2), DATA),
    st.builds(icmp, st.integers(0, 18) | st.integers(128, 255), words(1), words(2), words(4), DATA),
)


def headers(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """With headers before it, of packets in packets too: errors of ICMP carry one."""
    first = st.sampled_from([0x45, 0x45, 0x45, 0x46, 0x4F, 0x44, 0x40, 0x65]) | words(1)
    head = st.tuples(
        first, st.sampled_from([0, 0, 0x2000, 0x4000, 1]) | words(2), words(1), words(2)
    )
    options = st.sampled_from(
        [b"", b"", bytes(4), b"\x83\x03\x04\0", b"\x07\x27\x04" + bytes(37), b"\x44\x00\x00\x00"]
    )
    return st.one_of(
        st.builds(
            ip4,
            head,
            PROTOCOLS,
            st.builds(lambda a, b: a + b, IPS4, IPS4),
            st.tuples(options, inner),
            MAYBE,
        ),
        st.builds(
            ip6,
            st.just(0x60000000) | words(4),
            PROTOCOLS,
            st.builds(lambda a, b: a + b, IPS6, IPS6),
            inner,
            MAYBE,
        ),
        st.builds(extension, PROTOCOLS, words(1), inner),
        st.builds(
            icmp,
            st.sampled_from([1, 2, 3, 4, 5, 11, 12]),
            st.integers(0, 16),
            words(2),
            words(4),
            inner,
        ),
    )


PACKETS = st.recursive(SIMPLE, headers, max_leaves=4)
FRAMES = st.one_of(
    PACKETS,
    st.builds(
        lambda macs, kind, packet: macs + struct.pack(">H", kind) + packet,
        st.just(bytes(12)) | st.binary(min_size=12, max_size=12),
        st.sampled_from([0x800, 0x800, 0x86DD, 0x806, 0x8100, 3]) | words(2),
        PACKETS,
    ),
)
SWITCHES = st.sampled_from([
    (0, 3), (0, 11), (41, 25), (41, 7), (255, 1), (0, 8), (0, 12), (0, 13), (41, 49), (41, 51),
    (263, 8), (263, 7), (1, 29), (1, 37), (17, 103), (17, 104), (136, 10), (136, 11),
])  # fmt: skip
"""(level, option) by which more of a packet is looked at, or told."""
STEPS = st.one_of(
    st.tuples(st.just("send"), SENDERS, st.just(b""), FRAMES, st.just(b""), st.just(0)),
    st.tuples(st.just("send"), SENDERS, NAMES, FRAMES, st.just(b""), FLAGS),
    st.builds(
        lambda at, switch, n: ("set", at, *switch, struct.pack("<i", n), 4),
        PLACE,
        SWITCHES,
        st.sampled_from([0, 1, 2, 8, -1, 127]),
    ),
    st.tuples(st.just("connect"), PLACE, NAMES),
    st.tuples(
        st.just("receive"), PLACE, st.sampled_from([0, 1, 64]), st.sampled_from([0, 64]), FLAGS
    ),
)


def check(steps: list[Step]) -> None:
    with Sockets() as sockets:
        sockets.run(steps)


@for_a_while()
def test_packets_hurt_nobody(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))


@kept("packets")
def test_kept_case_hurts_nobody(case: list[Step]) -> None:
    check(case)

"""Batches of nftables that nobody means are done or refused, and packets meet what came of them."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.abi.socket import AF_INET, SOL_NETLINK
from sentry.net.netfilter.hooks import EXPRESSIONS
from sentry.net.netfilter.ip_sets import KINDS
from sentry.net.netfilter.machine import Expression
from sentry.net.netfilter.xt_matches import MATCHES
from sentry.net.netfilter.xtables import TARGETS_KNOWN
from tests.fuzz.inside import Step, many
from tests.fuzz.running import explore, for_a_while, kept
from tests.fuzz.sockets import LOCAL, Sockets, words
from tests.fuzz.test_stack import PACKETS, VIRTIO
from tests.unit.net.netfilter.router import (
    ACCEPT,
    COUNTER,
    DROP,
    LEFT,
    MASQUERADE,
    RIGHT,
    SECOND_NS,
    Router,
    ip,
    made,
    state,
    to_port,
    translate,
)

assert EXPRESSIONS
NESTED, ORDERED = abi.NLA_F_NESTED, abi.NLA_F_NET_BYTEORDER
NETFILTER, UDP, TCP = 31, 6, 2
"""Places of sockets."""
TABLES = nft.NFNL_SUBSYS_NFTABLES
NAMES = st.sampled_from([b"t\0", b"in\0", b"out\0", b"c\0", b"s\0", b"m\0", b"o\0", b"__set%d\0"])
SMALL = st.integers(0, 20) | st.sampled_from([0xFFFFFF00, 0xFFFFFFFF, 0xFFFFFFFD, 0x80000000, 64])
NUMBER = (SMALL | words(4)).map(lambda n: struct.pack(">I", n & 0xFFFFFFFF))


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(most: int, inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.builds(attribute, st.integers(1, most), inner), max_size=most).map(b"".join)


LEAF = NUMBER | NAMES | st.binary(max_size=20) | words(8).map(lambda n: n.to_bytes(8))
VALUE = st.binary(min_size=1, max_size=16).map(lambda data: attribute(1, data))
VERDICT = st.builds(
    lambda code, name: attribute(2, attribute(1, struct.pack(">i", code)) + attribute(2, name)),
    st.integers(-5, 1), NAMES,
)  # fmt: skip
EXTENSION = st.one_of(
    st.builds(
        lambda kind, info: attribute(1, kind[0].encode() + b"\0")
        + attribute(2, struct.pack(">I", kind[1])) + attribute(3, info[: kind[2]]),
        st.sampled_from([(name, number, kind.size) for (name, number), kind in MATCHES.items()]
            + [(name, number, next(iter(kinds.values())).size)
               for (name, number), kinds in TARGETS_KNOWN.items()]),
        st.binary(min_size=256, max_size=256) | st.just(bytes(256)),
    ),
)  # fmt: skip
EXPRESSION = st.builds(
    lambda name, data: attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, data)),
    st.sampled_from(sorted(Expression.kinds)),
    attributes(8, LEAF | VALUE | VERDICT) | EXTENSION,
)
LIST = st.lists(EXPRESSION, max_size=4).map(b"".join)
ELEMENTS = st.lists(
    attributes(12, VALUE | VERDICT | LEAF | EXPRESSION).map(lambda data: attribute(1, data)),
    max_size=4,
).map(b"".join)
PLACE = st.builds(
    lambda hook, priority: attribute(1, struct.pack(">I", hook))
    + attribute(2, struct.pack(">i", priority)),
    st.integers(0, 5), st.integers(-400, 400),
)  # fmt: skip
ANY = attributes(19, LEAF | VALUE | LIST | ELEMENTS | PLACE | VERDICT)
LIKELY = st.one_of(
    st.builds(lambda rest: attribute(1, b"t\0") + rest, ANY),
    st.builds(
        lambda chain, rest: attribute(1, b"t\0") + attribute(2, chain) + attribute(4, rest),
        NAMES, LIST,
    ),
    st.builds(
        lambda name, place, kind: attribute(1, b"t\0") + attribute(3, name) + attribute(4, place)
        + attribute(7, kind),
        NAMES, PLACE, st.sampled_from([b"filter\0", b"nat\0", b"route\0"]),
    ),
    st.builds(
        lambda name, flags, size: attribute(1, b"t\0") + attribute(2, name)
        + attribute(3, struct.pack(">I", flags)) + attribute(5, struct.pack(">I", size))
        + attribute(7, struct.pack(">I", size)) + attribute(10, b"\0\0\0\1"),
        NAMES, st.integers(0, 0x1FF), st.sampled_from([1, 2, 4, 16, 64]),
    ),
    st.builds(
        lambda name, listed: attribute(1, b"t\0") + attribute(2, name) + attribute(3, listed),
        NAMES, ELEMENTS,
    ),
    ANY,
)  # fmt: skip
FLAGS = st.sampled_from([
    abi.NLM_F_REQUEST | abi.NLM_F_CREATE, abi.NLM_F_REQUEST | abi.NLM_F_CREATE | abi.NLM_F_APPEND,
    abi.NLM_F_REQUEST | abi.NLM_F_DUMP, abi.NLM_F_REQUEST | abi.NLM_F_REPLACE,
    abi.NLM_F_REQUEST | abi.NLM_F_CREATE | abi.NLM_F_ACK,
])  # fmt: skip
FAMILY = st.sampled_from([0, 1, 2, 2, 2, 10, 3, 255])


def message(kind: int, flags: int, family: int, body: bytes, resource: int = 0) -> bytes:
    inside = struct.pack(">BBH", family, 0, resource) + body
    head = struct.pack("<IHHII", 16 + len(inside), kind, flags, 1, 0)
    return head + inside + bytes(-len(inside) % 4)


def batch(messages: list[bytes], ends: bool) -> bytes:
    begin = message(nft.NFNL_MSG_BATCH_BEGIN, abi.NLM_F_REQUEST, 0, b"", TABLES)
    end = message(nft.NFNL_MSG_BATCH_END, abi.NLM_F_REQUEST, 0, b"", TABLES)
    return begin + b"".join(messages) + (end if ends else b"")


ONE = st.builds(
    message, st.integers(0, 33).map(lambda kind: TABLES << 8 | kind), FLAGS, FAMILY, LIKELY
)
TABLE = message(
    TABLES << 8 | nft.NFT_MSG_NEWTABLE, abi.NLM_F_REQUEST | abi.NLM_F_CREATE, AF_INET,
    attribute(nft.NFTA_TABLE_NAME, b"t\0"),
)  # fmt: skip
BATCH = st.builds(
    lambda rest, ends: batch([TABLE, *rest], ends), st.lists(ONE, max_size=4), st.booleans()
)
ENDS = st.builds(
    lambda source, target, protocol, ports: attribute(
        1, attribute(1, source) + attribute(2, target)
    ) + attribute(2, attribute(1, bytes([protocol])) + ports),
    st.sampled_from([b"\x7f\0\0\1", b"\n\0\0\1", bytes(16)]), st.just(b"\x7f\0\0\1"),
    st.sampled_from([1, 6, 17, 58, 253]), attributes(9, st.just(b"\0\5")),
)  # fmt: skip
CONNECTION = st.builds(
    lambda original, reply, rest: attribute(1, original) + attribute(2, reply) + rest,
    ENDS, ENDS, attributes(24, NUMBER | st.just(attribute(1, attribute(1, b"\3")))),
)  # fmt: skip
CONNECTIONS = st.builds(
    message, st.integers(0, 8).map(lambda kind: nft.NFNL_SUBSYS_CTNETLINK << 8 | kind),
    FLAGS | st.just(abi.NLM_F_REQUEST | abi.NLM_F_CREATE | abi.NLM_F_EXCL), FAMILY,
    CONNECTION | ANY,
)  # fmt: skip
PLACES = st.builds(
    lambda kind, ip: attribute(NESTED | kind, attribute(ORDERED | 1, ip)),
    st.sampled_from([1, 2]), st.sampled_from([b"\n\0\0\1", b"\n\0\0\x10", bytes(4), b"\xff" * 4]),
)  # fmt: skip
MEMBER = st.lists(
    PLACES | st.builds(
        lambda kind, value: attribute(ORDERED | kind, value), st.integers(1, 26),
        NUMBER | st.just(b"\0\x50") | words(8).map(lambda n: n.to_bytes(8)),
    ) | st.builds(attribute, st.integers(1, 26), st.sampled_from([b"\6", b"\x18", b"s\0", b"l\0"])),
    max_size=6,
).map(b"".join)
GROUP = st.builds(
    lambda name, kind, family, rest: attribute(1, b"\7") + attribute(2, name)
    + attribute(3, kind.encode() + b"\0") + attribute(4, b"\0") + attribute(5, bytes([family]))
    + rest,
    st.sampled_from([b"s\0", b"l\0", b"x\0"]), st.sampled_from(sorted(KINDS)),
    st.sampled_from([2, 2, 10, 0]),
    st.one_of(
        MEMBER.map(lambda one: attribute(NESTED | 7, one)), st.just(b""),
        st.just(attribute(3, b"x\0")),
        st.lists(MEMBER.map(lambda one: attribute(NESTED | 7, one)), max_size=3).map(
            lambda some: attribute(9, b"\1\0\0\0") + attribute(NESTED | 8, b"".join(some))
        ),
    ),
)  # fmt: skip
SETS = st.builds(
    message, st.integers(0, 16).map(lambda kind: nft.NFNL_SUBSYS_IPSET << 8 | kind),
    FLAGS | st.just(abi.NLM_F_REQUEST | abi.NLM_F_EXCL), FAMILY, GROUP | GROUP | ANY,
)  # fmt: skip
DATA = BATCH | BATCH | BATCH | ONE | CONNECTIONS | SETS | SETS | st.binary(max_size=60)
STEPS = st.one_of(
    st.tuples(st.just("send"), st.just(NETFILTER), st.just(b""), DATA, st.just(b""), st.just(0)),
    st.tuples(st.just("send"), st.just(NETFILTER), st.just(b""), DATA, st.just(b""), st.just(0)),
    st.tuples(
        st.just("send"), st.just(UDP), st.just(LOCAL[AF_INET]), st.binary(max_size=40),
        st.just(b""), st.just(0),
    ),
    st.tuples(st.just("receive"), st.just(NETFILTER), st.just(40000), st.just(64), st.just(0)),
    st.builds(
        lambda name, group: ("set", NETFILTER, SOL_NETLINK, name, struct.pack("<I", group), 4),
        st.sampled_from([abi.NETLINK_ADD_MEMBERSHIP, abi.NETLINK_DROP_MEMBERSHIP]),
        st.sampled_from([1, 2, 3, 7]),
    ),
)  # fmt: skip


HEARD = st.lists(
    st.tuples(st.sampled_from([LEFT, RIGHT]), VIRTIO, PACKETS.map(lambda packet: packet[1])),
    max_size=20,
)


def hear(steps: list[tuple[int, bytes, bytes]]) -> None:
    router = Router()
    router.rule(router.chain("pre", 0, -100, "nat"), *translate(nft.NFT_NAT_DNAT, ip(1, 2), 80))
    router.rule(router.chain("post", 4, 100, "nat"), MASQUERADE)
    forward = router.chain("forward", 2)
    router.rule(forward, *state(2, 4), ACCEPT)
    router.rule(forward, *to_port(7), DROP)
    router.rule(forward, made("reject", attribute(1, b"\0\0\0\2"), attribute(2, b"\1\0\0\0")))
    router.rule(router.chain("in", 1), made("log"), COUNTER)
    for index, virtio, packet in steps:
        router.now_ns += SECOND_NS
        if packet:
            router.hear(index, packet, virtio)
        router.take(LEFT)
        router.take(RIGHT)
    assert len(router.netfilter.conntrack.connections) <= len(steps)


@for_a_while()
def test_packets_hurt_no_rules(seconds: float) -> None:
    explore(seconds, hear, steps=HEARD)


@kept("rules")
def test_kept_packets_hurt_no_rules(case: list[tuple[int, bytes, bytes]]) -> None:
    hear(case)


def check(steps: list[Step]) -> None:
    with Sockets() as sockets:
        sockets.run(steps)


@for_a_while()
def test_batches_are_done_or_refused(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))


@kept("nftables")
def test_kept_case_is_done_or_refused(case: list[Step]) -> None:
    check(case)

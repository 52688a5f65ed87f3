"""Netlink messages that nobody means are answered, or refused."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

import sentry.net.netlink.protocols  # noqa: F401  registers who answers
from sentry.abi import netlink as abi
from sentry.net.netlink.registry import PROTOCOLS
from tests.fuzz.inside import Step, many
from tests.fuzz.running import explore, for_a_while, kept
from tests.fuzz.sockets import FLAGS, IPS4, IPS6, NAMES, Sockets, numbers, words

NETLINK = st.sampled_from([24, 24, 24, 25, 25, 26, 27])
"""Places of sockets: of routes, of diagnostics, of users, of events."""
ANSWERED = sorted({kind for handlers in PROTOCOLS.values() for kind in handlers})
KINDS = st.one_of(
    st.sampled_from(ANSWERED),
    st.sampled_from(ANSWERED),
    st.sampled_from(numbers(abi, "RTM_NEW", "RTM_DEL", "RTM_GET", "RTM_SET", "NLMSG_", "SOCK_D")),
)
ASKED = st.sampled_from([
    abi.NLM_F_REQUEST, abi.NLM_F_REQUEST | abi.NLM_F_DUMP, abi.NLM_F_REQUEST | abi.NLM_F_ACK,
    abi.NLM_F_REQUEST | abi.NLM_F_CREATE, abi.NLM_F_REQUEST | abi.NLM_F_CREATE | abi.NLM_F_EXCL,
    abi.NLM_F_REQUEST | abi.NLM_F_REPLACE,
])  # fmt: skip
FAMILY = st.sampled_from([0, 1, 2, 7, 10, 16, 17, 128, 255])
SMALL = st.sampled_from([0, 1, 2, 8, 24, 32, 33, 64, 128, 129, 253, 254, 255])


def attribute(kind: int, value: bytes, length: int | None) -> bytes:
    size = 4 + len(value) if length is None else length
    return struct.pack("<HH", size & 0xFFFF, kind & 0xFFFF) + value + bytes(-len(value) % 4)


LENGTH = st.none() | st.none() | st.none() | st.integers(0, 80) | words(2)
LEAF = st.one_of(
    IPS4, IPS6, words(4).map(lambda n: struct.pack("<I", n)), st.binary(max_size=20),
    st.sampled_from([b"lo\0", b"eth0\0", b"\xff\xfe\0", b"lo", b"dummy\0", b"x" * 200]),
)  # fmt: skip
ATTRIBUTES = st.recursive(
    LEAF,
    lambda inner: st.lists(
        st.builds(attribute, st.integers(1, 8) | st.integers(0, 65) | words(2), inner, LENGTH),
        max_size=5,
    ).map(b"".join),
    max_leaves=10,
)
"""A value, or attributes in attributes."""
BODY = st.one_of(
    st.binary(max_size=80),
    st.builds(  # struct rtmsg, ifaddrmsg, ifinfomsg, inet_diag_req_v2
        lambda family, head, rest, more: bytes([family, *head]) + rest + more,
        FAMILY,
        st.lists(SMALL, min_size=3, max_size=3),
        st.sampled_from(
            [
                bytes(4),
                b"\1\0\0\0",
                bytes(8),
                b"\1\0\0\0" + bytes(8),
                bytes(2),
                bytes(52),
                b"\xff" * 52,
            ]
        ),
        ATTRIBUTES,
    ),
)


def message(kind: int, flags: int, body: bytes, length: int | None) -> bytes:
    size = 16 + len(body) if length is None else length
    head = struct.pack("<IHHII", size & 0xFFFFFFFF, kind, flags & 0xFFFF, 1, 0)
    return head + body + bytes(-len(body) % 4)


# what comes further: interfaces of a kind, rules, next hops, who is behind a port of a bridge
INDEX = st.integers(0, 6)
FOUR = words(4).map(lambda number: struct.pack("<I", number))


def nested(kinds: range, values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Some attributes of such kinds."""
    one = st.builds(attribute, st.sampled_from(kinds), values, st.none())
    return st.lists(one, max_size=4).map(b"".join)


OF_KINDS = st.one_of(
    nested(range(1, 6), st.sampled_from(
        [b"\5\0", b"\6\0", b"\x88\xa8", bytes(8), b"\4\0\0\0" * 2]
    )),
    nested(range(1, 12), FOUR),
)  # fmt: skip
LINKS = st.builds(
    lambda kind, own, index, below, data, more: b"".join((
        abi.IFINFOMSG.pack(0, 0, 0, index, own & 1, own & 1),
        attribute(abi.IFLA_LINK, struct.pack("<I", below), None),
        attribute(abi.IFLA_LINKINFO, attribute(1, kind, None) + attribute(2, data, None), None),
        more,
    )),
    st.sampled_from([b"vlan\0", b"vlan\0", b"bridge\0", b"veth\0", b"dummy\0"]),
    st.integers(0, 1), st.sampled_from([0, 0, 0, 3]), INDEX, OF_KINDS,
    nested(range(10, 11), INDEX.map(lambda number: struct.pack("<I", number))),
)  # fmt: skip
RULES = st.builds(
    lambda family, lengths, table, action, flags, more: (
        abi.FIB_RULE_HDR.pack(family, *lengths, 0, table, 0, 0, action, flags) + more
    ),
    st.sampled_from([2, 10]), st.tuples(SMALL, SMALL), st.sampled_from([0, 100, 254]),
    st.integers(0, 9), st.sampled_from([0, 2]),
    nested(range(1, 25), IPS4 | IPS6 | FOUR | st.sampled_from([b"lo\0", b"\6", bytes(8)])),
)  # fmt: skip
HOPS = st.lists(st.builds(
    lambda length, flags, weight, index, more: (
        abi.RTNEXTHOP.pack((8 if length is None else length) + len(more), flags, weight, index)
        + more
    ),
    st.none() | st.integers(0, 40), st.sampled_from([0, 0, 1, 4]), st.integers(0, 255), INDEX,
    nested(range(5, 6), IPS4 | IPS6),
), max_size=3).map(b"".join)  # fmt: skip
ROUTES = st.builds(
    lambda family, kind, length, more: (
        abi.RTMSG.pack(family, length, 0, 0, 0, 3, 0, kind, 0) + b"".join(more)
    ),
    st.sampled_from([2, 10]), st.integers(0, 11), st.sampled_from([0, 32, 128]),
    st.lists(st.one_of(
        st.builds(attribute, st.just(abi.RTA_MULTIPATH), HOPS, st.none()),
        st.builds(attribute, st.just(abi.RTA_DST), IPS4 | IPS6, st.none()),
        st.builds(attribute, st.just(abi.RTA_VIA), IPS6.map(lambda ip: b"\x0a\0" + ip), st.none()),
        st.builds(attribute, st.sampled_from([2, 4, 15, 16]), FOUR | IPS4 | IPS6, st.none()),
    ), max_size=4),
)  # fmt: skip
BEHIND = st.builds(
    lambda index, state, flags, more: abi.NDMSG.pack(7, 0, 0, index, state, flags, 0) + more,
    INDEX, st.sampled_from([0, 2, 64, 128]), st.integers(0, 255),
    nested(range(2, 18), st.sampled_from([b"\2\0\0\0\0\7", b"\2\0\0\0\0\x08", b"\3\0\0\0"])),
)  # fmt: skip
PLANNED = st.one_of(*(
    st.builds(message, st.sampled_from(kinds), ASKED, body, st.none())
    for kinds, body in (
        ([abi.RTM_NEWLINK, abi.RTM_NEWLINK, abi.RTM_DELLINK], LINKS),
        ([abi.RTM_NEWRULE, abi.RTM_NEWRULE, abi.RTM_DELRULE, abi.RTM_GETRULE], RULES),
        ([abi.RTM_NEWROUTE, abi.RTM_NEWROUTE, abi.RTM_DELROUTE, abi.RTM_GETROUTE], ROUTES),
        ([abi.RTM_NEWNEIGH, abi.RTM_NEWNEIGH, abi.RTM_DELNEIGH, abi.RTM_GETNEIGH], BEHIND),
    )
))  # fmt: skip
MESSAGES = st.lists(
    st.builds(
        message,
        KINDS,
        ASKED | ASKED | words(2),
        BODY,
        st.none() | st.none() | st.integers(0, 100) | words(4),
    ) | PLANNED,
    min_size=1,
    max_size=3,
).map(b"".join)
STEPS = st.one_of(
    st.tuples(st.just("send"), NETLINK, st.just(b""), MESSAGES, st.just(b""), st.just(0)),
    st.tuples(st.just("send"), NETLINK, NAMES, MESSAGES, st.just(b""), FLAGS),
    st.tuples(
        st.just("receive"), NETLINK, st.sampled_from([0, 1, 16, 100, 40000]), st.just(64), FLAGS
    ),
    st.tuples(st.just("bind"), NETLINK, NAMES),
    st.tuples(
        st.just("set"), NETLINK, st.just(270), st.integers(0, 13), st.just(b"\1\0\0\0"), st.just(4)
    ),
)


def check(steps: list[Step]) -> None:
    with Sockets() as sockets:
        sockets.run(steps)


@for_a_while()
def test_messages_are_answered_or_refused(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))


@kept("netlink")
def test_kept_case_is_answered_or_refused(case: list[Step]) -> None:
    check(case)

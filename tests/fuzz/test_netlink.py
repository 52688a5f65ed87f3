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
FAMILY = st.sampled_from([0, 1, 2, 10, 16, 17, 128, 255])
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


MESSAGES = st.lists(
    st.builds(
        message,
        KINDS,
        ASKED | ASKED | words(2),
        BODY,
        st.none() | st.none() | st.integers(0, 100) | words(4),
    ),
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

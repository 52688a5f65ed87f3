"""Tables of iptables that nobody means are taken or refused, and packets meet what came of them."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from sentry.abi.ip_tables import IPT_SO_GET_ENTRIES, IPT_SO_GET_INFO
from sentry.abi.socket import AF_INET, IPPROTO_IP, IPPROTO_IPV6
from sentry.errors import Errno
from sentry.net.netfilter.ip_tables import KINDS
from sentry.net.netfilter.xt_matches import MATCHES
from sentry.net.netfilter.xtables import TARGETS_KNOWN
from tests.fuzz.inside import Step, many
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.fuzz.sockets import LOCAL, PLACE, Sockets, words
from tests.fuzz.test_stack import PACKETS, VIRTIO
from tests.unit.net.netfilter.blobs import (
    entry,
    error,
    header,
    header6,
    part,
    put,
    standard,
    with_rules,
)
from tests.unit.net.netfilter.router import LEFT, RIGHT, SECOND_NS, Router, ip

UDP = 6
"""The place of a socket."""
INFO = st.just(bytes(256)) | st.binary(min_size=256, max_size=256)
SIZES = {
    False: [(name, number, kind.size) for (name, number), kind in MATCHES.items()],
    True: [
        (name, number, next(iter(kinds.values())).size)
        for (name, number), kinds in TARGETS_KNOWN.items()
    ],
}


def parts(which: bool) -> st.SearchStrategy[bytes]:
    """Extensions with whatever stands in their structs."""
    return st.builds(
        lambda kind, info: part(*kind[:2], info[: kind[2]]), st.sampled_from(SIZES[which]), INFO
    )


MATCH, TARGET = parts(False), parts(True)
VERDICT = st.sampled_from([-1, -2, -4, -5]) | st.sampled_from([152, 208]).flatmap(
    lambda size: st.integers(1, 12).map(lambda number: number * size)
)
TARGETS = st.one_of(VERDICT.map(standard), VERDICT.map(standard), TARGET, st.just(error()))
HEADS = {
    True: st.builds(
        header, st.sampled_from([b"", ip(0, 2), ip(1, 2)]), st.just(b""),
        st.sampled_from([0, 1, 6, 17]), st.integers(0, 3), st.sampled_from([0, 0, 1, 8, 64, 127]),
        st.sampled_from([b"", b"left", b"lo"]),
    ),
    False: st.builds(header6, st.just(b""), st.sampled_from([0, 6, 17, 58])),
}  # fmt: skip


def rules(is_v4: bool) -> st.SearchStrategy[list[bytes]]:
    made = st.builds(
        lambda target, matches, head: entry(target, *matches, head=head, is_v4=is_v4),
        TARGETS, st.lists(MATCH, max_size=2), HEADS[is_v4],
    )  # fmt: skip
    return st.lists(made, max_size=4)


def spoil(value: bytes, changes: list[tuple[int, bytes]], end: int | None) -> bytes:
    """Other bytes in some places; cut if `end` is not None."""
    made = bytearray(value)
    for at, data in changes:
        begin = at % len(made)
        made[begin : begin + len(data)] = data
    return bytes(made[: len(value)][:end])


CHANGES = st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=4)), max_size=3)
ENDS = st.none() | st.none() | st.none() | st.integers(0, 1000)


def tables(is_v4: bool) -> st.SearchStrategy[tuple[bytes, bool]]:
    made = st.builds(
        lambda name, hook, own, chains, counters: with_rules(
            name, hook, own, -2, chains, (counters, 0), is_v4=is_v4
        ),
        st.sampled_from(sorted(KINDS)), st.integers(0, 4), rules(is_v4), rules(is_v4),
        st.integers(0, 12),
    )  # fmt: skip
    whole = st.builds(spoil, made, st.just([]) | CHANGES, ENDS)
    return st.tuples(whole, st.just(is_v4))


TABLE = tables(True) | tables(True) | tables(False)
HEARD = st.lists(
    st.tuples(st.sampled_from([LEFT, RIGHT]), VIRTIO, PACKETS.map(lambda packet: packet[1])),
    max_size=6,
)


def meet(given: list[tuple[bytes, bool]], heard: list[tuple[int, bytes, bytes]]) -> None:
    router = Router()
    for value, is_v4 in given:
        try:
            with bounded("a table"):
                made = put(router, value.ljust(96, b"\0"), is_v4=is_v4)
        except Errno:
            continue
        assert len(made.dump()) == made.content.size
        assert len(made.info()) == 84
    for index, virtio, packet in heard:
        router.now_ns += SECOND_NS
        if packet:
            with bounded("a packet"):
                router.hear(index, packet, virtio)
        router.take(LEFT)
        router.take(RIGHT)


@for_a_while()
def test_packets_meet_what_came_of_tables(seconds: float) -> None:
    explore(seconds, meet, given=st.lists(TABLE, max_size=4), heard=HEARD)


LEVELS = {True: IPPROTO_IP, False: IPPROTO_IPV6}
NAMES = st.sampled_from([b"filter", b"nat", b"nosuch", b"x" * 40])
STEPS = st.one_of(
    st.builds(
        lambda at, table: ("set", at, LEVELS[table[1]], 64, table[0], len(table[0])), PLACE, TABLE
    ),
    st.builds(
        lambda at, table: ("set", at, LEVELS[table[1]], 64, table[0], len(table[0])), PLACE, TABLE
    ),
    st.builds(
        lambda at, name, count, value: (
            "set", at, IPPROTO_IP, 65, struct.pack("<32sI4x", name, count) + value,
            40 + len(value),
        ),
        PLACE, NAMES, st.integers(0, 8), st.binary(max_size=128),
    ),
    st.builds(
        lambda at, name: ("get", at, IPPROTO_IP, IPT_SO_GET_INFO, name.ljust(84, b"\0"), 84),
        PLACE, NAMES,
    ),
    st.builds(
        lambda at, name, size: (
            "get", at, IPPROTO_IP, IPT_SO_GET_ENTRIES,
            struct.pack("<32sI4x", name, size) + bytes(4096), 40 + size,
        ),
        PLACE, NAMES, st.sampled_from([632, 784, 936]) | st.integers(0, 4000),
    ),
    st.builds(
        lambda at, level, number, about, size: ("get", at, level, number, about, size),
        PLACE, st.sampled_from([0, 41]), st.integers(64, 80), st.binary(max_size=40), words(1),
    ),
    st.tuples(
        st.just("send"), st.just(UDP), st.just(LOCAL[AF_INET]), st.binary(max_size=40),
        st.just(b""), st.just(0),
    ),
)  # fmt: skip


def check(steps: list[Step]) -> None:
    with Sockets() as sockets:
        sockets.run(steps)


@for_a_while()
def test_tables_are_taken_or_refused(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))


@kept("ip_tables")
def test_kept_case_is_taken_or_refused(case: list[Step]) -> None:
    check(case)

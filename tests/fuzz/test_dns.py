"""DNS messages that nobody means, of programs and of nameservers, are answered or dropped."""

from __future__ import annotations

import struct
from typing import Any

import dns.message
import dns.rdata
from hypothesis import strategies as st

from sentry.net.names.asking import Transport
from sentry.net.names.cache import MAX_BYTES
from sentry.net.names.forwarder import MAX_PENDING
from sentry.net.names.given import MAX_GIVEN
from sentry.net.names.pending import MAX_WAITING
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.unit.net.names.harness import Outside

Step = tuple[Any, ...]
NAMES = st.sampled_from(
    [b"\1a\3org\0", b"\3www\1a\3org\0", b"\1A\3org\0", b"\3WWW\1b\3org\0", b"\0", b"\3a.b\0"]
)
"""Allowed is what ends in a.org."""
LABEL = st.binary(min_size=1, max_size=63).map(lambda label: bytes([len(label)]) + label)
POINTER = st.integers(0, 40).map(lambda to: struct.pack("!H", 0xC000 | to)) | st.integers(
    0, 0x3FFF
).map(lambda to: struct.pack("!H", 0xC000 | to))
NAME = st.one_of(
    NAMES,
    st.just(b"\xc0\x0c"),
    st.just(b"\xc0\x0c"),
    POINTER,
    st.builds(lambda labels, end: b"".join(labels) + end, st.lists(LABEL, max_size=5), POINTER),
    st.integers(0, 130).map(lambda n: b"\1x" * n + b"\0"),
    st.binary(max_size=8),
)
KIND = st.sampled_from([1, 1, 28, 5, 6, 39, 2, 12, 15, 16, 33, 35, 41, 46, 47, 64, 65, 255, 250])
NUMBER = st.sampled_from([0, 1, 2, 60, 300, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
SIZE = st.none() | st.none() | st.none() | st.integers(0, 65535)
DATA = st.one_of(
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=40),
    NAME,
    st.builds(lambda a, b, c: a + b + c, NAME, NAME, st.binary(min_size=20, max_size=20)),
    st.builds(lambda a, b: a + b, st.binary(min_size=2, max_size=7), NAME),
)


def record(
    name: bytes, kind: int, rclass: int, ttl: int, data: bytes, size: int | None
) -> bytes:  # fmt: skip
    length = len(data) if size is None else size
    return name + struct.pack("!HHIH", kind, rclass, ttl, length) + data


RECORD = st.builds(record, NAME, KIND, st.sampled_from([1, 1, 1, 3, 255, 4096]), NUMBER, DATA, SIZE)
WWW = b"\3www\1a\3org\0"
LIKELY = st.one_of(
    st.builds(record, st.sampled_from([b"\xc0\x0c", WWW]), st.just(1), st.just(1), NUMBER,
              st.binary(min_size=4, max_size=4), st.none()),
    st.builds(record, st.just(b"\xc0\x0c"), st.just(28), st.just(1), NUMBER,
              st.binary(min_size=16, max_size=16), st.none()),
    st.builds(record, st.sampled_from([b"\xc0\x0c", WWW]), st.just(5), st.just(1), NUMBER,
              st.sampled_from([WWW, b"\1a\3org\0"]), st.none()),
    st.builds(record, st.sampled_from([b"\xc0\x0c", b"\3org\0", b"\0"]), st.just(6), st.just(1),
              NUMBER, st.just(bytes(18) + b"\0\0\0\5"), st.none()),
)  # fmt: skip
"""What fits a question for an address."""
WHOLE = st.tuples(
    st.lists(LIKELY | LIKELY | RECORD, max_size=6), st.lists(LIKELY | RECORD, max_size=3)
)
"""An answer and an authority section."""
RECORDS = st.builds(
    lambda some, times: b"".join(some) * times,
    st.lists(RECORD, max_size=6),
    st.sampled_from([1, 1, 1, 1, 20, 400]),
)
COUNTS = st.sampled_from([(1, 1, 0, 0), (1, 6, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1), (0, 1, 0, 0),
                          (1, 400, 0, 0), (2, 0, 0, 0), (1, 65535, 65535, 65535)])  # fmt: skip
LIKELY_FLAGS = st.sampled_from([0x8180, 0x8180, 0x81A0, 0x8183, 0x8380])
FLAGS = st.sampled_from([0x0100, 0x8180, 0x8183, 0x8182, 0x8380, 0x0110, 0x2000]) | st.integers(
    0, 65535
)


def message(flags: int, counts: tuple[int, ...], name: bytes, kind: int, records: bytes) -> bytes:
    head = struct.pack("!HHHHHH", 7, flags, *counts)
    return (head + name + struct.pack("!HH", kind, 1) + records)[:65535]


MESSAGES = st.builds(message, FLAGS, COUNTS, NAMES | NAME, KIND, RECORDS)
QUERIES = st.builds(
    message,
    st.sampled_from([0x0100, 0x0120, 0x0110]),
    st.sampled_from([(1, 0, 0, 0), (1, 0, 0, 1)]),
    NAMES | st.just(WWW),
    st.sampled_from([1, 1, 28, 5, 16, 12]),
    st.sampled_from([b"", record(b"\0", 41, 4096, 0x8000, b"", None)]),
)
TOKEN = st.integers(0, 3)
TCP = st.sampled_from([0, 0, 1])
STEPS = st.one_of(
    st.tuples(st.just("ask"), TOKEN, TCP, QUERIES),
    st.tuples(st.just("ask"), TOKEN, TCP, QUERIES),
    st.tuples(st.just("ask"), TOKEN, TCP, MESSAGES | st.binary(max_size=60)),
    # the same id, name and type: what a nameserver or a lucky guess can say
    st.tuples(st.just("answer"), TOKEN, FLAGS, COUNTS, RECORDS),
    st.tuples(st.just("answer"), TOKEN, LIKELY_FLAGS, COUNTS, RECORDS),
    st.tuples(st.just("whole"), TOKEN, LIKELY_FLAGS, WHOLE),
    st.tuples(st.just("whole"), TOKEN, LIKELY_FLAGS, WHOLE),
    st.tuples(st.just("whole"), TOKEN, LIKELY_FLAGS, WHOLE),
    st.tuples(st.just("garbage"), TOKEN, MESSAGES | st.binary(max_size=60)),
    st.tuples(st.just("unreachable"), TOKEN),
    st.tuples(st.just("left"), TOKEN),
    st.tuples(st.just("later"), st.sampled_from([0.1, 1, 2, 5, 60, 300, 100_000])),
)


def is_allowed(name: str) -> bool:
    return name == "a.org" or name.endswith(".a.org")


def answer(asked: bytes, what: str, values: list[Any]) -> bytes:
    """To a message that was asked: its id and its question are right."""
    flags, *rest = values
    if what == "whole":
        counts = (1, len(rest[0][0]), len(rest[0][1]), 0)
        records = b"".join(rest[0][0] + rest[0][1])
    else:
        counts, records = rest
    end = asked.index(b"\0", 12) + 5
    return (asked[:2] + struct.pack("!HHHHH", flags, *counts) + asked[12:end] + records)[:65535]


def run(outside: Outside, step: Step) -> None:
    what, *values = step
    if what == "ask":
        token, tcp, data = values
        outside.program_asks(data, token, Transport.TCP if tcp else Transport.UDP)
    elif what == "later":
        outside.later(values[0])
    elif what == "left":
        outside.forwarder.left(values[0])
    elif outside.asks:
        ask = outside.asks[values[0] % len(outside.asks)]
        now_ns = outside.now_ns
        if what in ("answer", "whole"):
            wire = answer(ask.data, what, values[1:])
            made = outside.forwarder.answered(wire, ask.server, ask.port, now_ns)
        elif what == "garbage":
            made = outside.forwarder.answered(values[1], ask.server, ask.port, now_ns)
        else:
            made = outside.forwarder.failed(ask.port, now_ns)
        outside.note(made)


def check(steps: list[Step]) -> None:
    outside = Outside(lambda question, _: is_allowed(question.name or ""))
    forwarder = outside.forwarder
    before = len(dns.rdata._rdata_classes)
    for step in steps:
        with bounded(step):
            run(outside, step)
        assert len(forwarder._pending) <= MAX_PENDING
        assert len(outside.asks) == len(forwarder._by_port)
    for reply in outside.replies:
        assert reply.data[2] & 0x80, "a question"
        dns.message.from_wire(reply.data, question_only=True)
    for names in forwarder.given._until_ns.values():
        assert all(is_allowed(name) for name in names)
    assert forwarder.cache.bytes <= MAX_BYTES and len(forwarder.given) <= MAX_GIVEN
    for _ in range(20):  # whatever was asked ends
        outside.later(5)
    assert (outside.asks, forwarder._pending, forwarder.deadline_ns) == ([], {}, None)
    asked = sum(step[0] == "ask" for step in steps)
    assert len(outside.replies) <= asked <= len(steps) * MAX_WAITING
    assert len(dns.rdata._rdata_classes) == before, "a type is remembered for ever"


@for_a_while()
def test_messages_are_answered_or_dropped(seconds: float) -> None:
    explore(seconds, check, steps=st.lists(STEPS, min_size=1, max_size=30))


@kept("dns")
def test_kept_case_is_answered_or_dropped(case: list[Step]) -> None:
    check(case)

"""Socket options, control messages and requests that nobody means are an errno or a number."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from sentry.abi import socket
from sentry.net.inet.ipv6_options import IPV6
from sentry.net.inet.raw_options import RAW4, RAW6
from sentry.net.inet.tcp_options import TCP
from sentry.net.inet.udp_options import UDP, UDPLITE
from sentry.net.netlink.options import NETLINK
from sentry.net.packet_options import PACKET
from sentry.net.unix_options import UNIX
from tests.fuzz.inside import Step, many
from tests.fuzz.running import explore, for_a_while, kept
from tests.fuzz.sockets import DATA, FLAGS, IPS4, IPS6, NAMES, PLACE, Sockets, numbers, words

TABLES = (IPV6, RAW4, RAW6, TCP, UDP, UDPLITE, NETLINK, PACKET, UNIX)
ROWS = sorted({key for table in TABLES for key in table.everything()})
LEVELS = st.sampled_from(sorted({level for level, _ in ROWS})) | words(4)
OPTION = st.sampled_from(ROWS) | st.tuples(LEVELS, st.integers(0, 90))
FILTER = st.builds(
    lambda count, at: struct.pack("<H6xQ", count, at), st.sampled_from([0, 1, 4097]), words(8)
)
VALUE = st.one_of(
    words(4).map(lambda n: struct.pack("<I", n)),
    st.binary(max_size=40),
    st.builds(lambda *parts: b"".join(parts), IPS4, IPS4, IPS4),
    st.builds(lambda ip, index: ip + struct.pack("<I", index), IPS6, st.integers(0, 3)),
    st.builds(lambda a, b: struct.pack("<qq", a - (1 << 63), b - (1 << 63)), words(8), words(8)),
    FILTER,
)
SIZE = st.sampled_from(
    [0, 1, 2, 3, 4, 8, 12, 16, 20, 40, 64, 4096, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF]
)
BODY = st.one_of(
    VALUE,
    st.lists(st.integers(-1, 60), max_size=8).map(lambda fds: struct.pack(f"<{len(fds)}i", *fds)),
    st.sampled_from([253, 254, 300]).map(lambda n: struct.pack("<i", 3) * n),
    st.builds(lambda a, b, c: struct.pack("<3I", a, b, c), words(4), words(4), words(4)),
)
LIKELY = st.sampled_from([
    (1, 1), (1, 2), (1, 36), (1, 37), (0, 1), (0, 2), (0, 4), (0, 7), (0, 8), (17, 103), (41, 2),
    (41, 50), (41, 52), (41, 54), (41, 57), (41, 59), (41, 62), (41, 66), (41, 67),
])  # fmt: skip
"""(level, kind) of control messages that somebody takes."""
SCM = (
    LIKELY
    | LIKELY
    | st.tuples(st.sampled_from([0, 1, 6, 17, 41, 58, 136, 255, 263]), st.integers(0, 80))
)


def record(kind: tuple[int, int], body: bytes, length: int | None) -> bytes:
    """struct cmsghdr and what follows, with another length than it has."""
    size = 16 + len(body) if length is None else length
    head = struct.pack("<QII", size & (1 << 64) - 1, kind[0] & 0xFFFFFFFF, kind[1] & 0xFFFFFFFF)
    return head + body + bytes(-len(body) % 8)


LENGTH = st.sampled_from([None] * 6 + [0, 15, 16, 17, 20, 64, 1 << 63, (1 << 64) - 1])
CONTROL = st.lists(st.builds(record, SCM, BODY, LENGTH), max_size=4).map(b"".join) | st.binary(
    max_size=40
)
SHORT = st.binary(max_size=20)
UNIX_PLACE = st.integers(30, 36)
REQUESTS = numbers(socket, "SIOC", "FIO", "TIOC")
STEPS = st.one_of(
    st.builds(
        lambda at, row, value, size: ("set", at, *row, value, size), PLACE, OPTION, VALUE, SIZE
    ),
    st.builds(lambda at, row, value: ("set", at, *row, value, len(value)), PLACE, OPTION, VALUE),
    st.builds(
        lambda at, row, value, size: ("get", at, *row, value, size), PLACE, OPTION, VALUE, SIZE
    ),
    st.tuples(st.just("send"), PLACE, NAMES, DATA, CONTROL, FLAGS),
    st.tuples(st.just("send"), PLACE, st.just(b""), DATA, CONTROL, st.just(0)),
    st.tuples(
        st.just("receive"),
        PLACE,
        st.sampled_from([0, 1, 64]),
        st.sampled_from([0, 1, 16, 20, 24, 64, 256]),
        FLAGS,
    ),
    st.tuples(st.just("connect"), PLACE, NAMES),
    st.tuples(st.just("bind"), PLACE, NAMES),
    st.tuples(
        st.just("ioctl"),
        PLACE,
        st.sampled_from(REQUESTS),
        st.one_of(
            st.builds(
                lambda name, rest: name.ljust(16, b"\0") + rest,
                st.sampled_from([b"lo", b"lo:1", b"", b"\xff"]),
                VALUE,
            ),
            VALUE,
        ),
    ),
    st.tuples(
        st.just("other"),
        PLACE,
        st.sampled_from(["listen", "shutdown"]),
        st.sampled_from([0, 1, 2, 3, -1]),
    ),
)


MESSAGES = st.one_of(
    st.tuples(st.just("send"), PLACE, st.just(b""), SHORT, CONTROL, st.just(0)),
    st.tuples(st.just("send"), UNIX_PLACE, st.just(b""), SHORT, CONTROL, st.just(0)),
    st.tuples(st.just("send"), PLACE, NAMES, SHORT, CONTROL, FLAGS),
    st.tuples(st.just("receive"), PLACE, st.just(64), st.integers(0, 100), FLAGS),
)


def check(steps: list[Step]) -> None:
    with Sockets() as sockets:
        sockets.run(steps)


@for_a_while()
def test_control_messages_are_taken_or_refused(seconds: float) -> None:
    explore(seconds, check, steps=many(MESSAGES))


@for_a_while()
def test_options_and_requests_are_taken_or_refused(seconds: float) -> None:
    explore(seconds, check, steps=many(STEPS))


@kept("sockets")
def test_kept_case_is_taken_or_refused(case: list[Step]) -> None:
    check(case)

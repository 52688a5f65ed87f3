"""A session read: hostile bytes, filters, lines, recordings."""

from __future__ import annotations

import io
import socket

import pytest

from runsc.containers import watching
from runsc.containers.watching import Filter, framed, line, parse, recorded
from sentry.syscalls.registry import NUMBERS
from sentry.watch import messages as m
from sentry.watch.encoder import encoder
from sentry.watch.messages import MessageType as Type
from sentry.watch.sinks import HEADER

WHO = m.ContextData(1796009742134055694, 8, 0, 7, process_name="sh\x1b[2J")


def _names(number: int) -> str:
    return NUMBERS.get(number, "")


def _message(kind: int, record: m.Record, dropped: int = 0) -> bytes:
    return HEADER.pack(HEADER.size, kind, dropped) + encoder(type(record))(record)


OPEN = _message(
    Type.SYSCALL_OPEN, m.Open(WHO, m.Exit(0, 2), 257, -100, "", "/etc/\nx", 0x80000, 0)
)


def test_every_message_type_is_known() -> None:
    assert set(watching.KINDS) == set(Type)


def test_a_record_is_a_harmless_line() -> None:
    told = parse(OPEN, _names)
    assert told is not None
    assert told.point == "syscall/openat/exit"
    assert line(told) == (
        '03:35:42.134055 sh?[2J[7] syscall/openat/exit fd=-100 pathname="/etc/\\nx" flags=524288'
        " errno=2"
    )


def test_points_are_named_by_what_the_message_says() -> None:
    raw = parse(_message(Type.SYSCALL_RAW, m.Syscall(None, None, 39)), _names)
    start = parse(_message(Type.CONTAINER_START, m.Start(None, "web")), _names)
    assert raw is not None
    assert start is not None
    assert (raw.point, start.point) == ("syscall/sysno/39/enter", "container/start")


@pytest.mark.parametrize(
    "data", [b"", b"\x08\0\0", HEADER.pack(99, 7, 0), HEADER.pack(4, 7, 0),
             HEADER.pack(8, 7, 0) + b"\xff"],
)  # fmt: skip
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse(data, _names)


def test_a_type_that_is_not_known_is_left_out() -> None:
    assert parse(HEADER.pack(8, 999, 0), _names) is None


@pytest.mark.parametrize(
    ("chosen", "lets"),
    [
        (Filter(), True),
        (Filter(("syscall/open*/exit",)), True),
        (Filter(("syscall/*/enter", "sentry/*")), False),
        (Filter(pid=7), True),
        (Filter(pid=8), True),
        (Filter(pid=9), False),
        (Filter(name="sh*"), True),
        (Filter(name="bash"), False),
        (Filter(failed=True), True),
    ],
)
def test_a_filter_chooses(chosen: Filter, lets: bool) -> None:
    told = parse(OPEN, _names)
    assert told is not None
    assert chosen.lets(told) is lets


def test_a_call_that_went_well_is_no_failure() -> None:
    told = parse(_message(Type.SYSCALL_CLOSE, m.Close(None, m.Exit(), 3)), _names)
    assert told is not None
    assert not Filter(failed=True).lets(told)


def test_a_recording_gives_the_messages_again() -> None:
    file = io.BytesIO(watching.MAGIC + framed(OPEN) + framed(b"\x08\0"))
    assert list(recorded(file)) == [OPEN, b"\x08\0"]


@pytest.mark.parametrize(
    "data",
    [b"", b"runsc trace 2\n", watching.MAGIC + b"\1", watching.MAGIC + framed(OPEN)[:-1],
     watching.MAGIC + b"\xff\xff\xff\xff"],
)  # fmt: skip
def test_a_damaged_recording_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        list(recorded(io.BytesIO(data)))


def test_messages_come_until_the_other_end_closes() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(OPEN)
        theirs.send(b"x")
        theirs.shutdown(socket.SHUT_WR)
        assert list(watching.received(ours)) == [OPEN, b"x"]

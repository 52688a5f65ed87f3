"""Records are written and read as they were; what no sandbox says is an error that names it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sentry.state import records

QUEUE = (
    b'{"id":0,"key":0,"uid":0,"gid":0,"cuid":0,"cgid":0,"mode":0,"ctime":0,"max_bytes":1,'
    b'"messages":[[%d,""]]}'
)


def test_records_of_all_kinds_are_read_as_they_were_written() -> None:
    place = records.Place(1, b"etc/passwd")
    files: list[records.AnyFile] = [
        records.NamedFile(flags=2, place=place, position=7),
        records.DonatedFile(flags=0, number=1),
        records.PipeEnd(flags=1, pipe=3, place=place),
        records.EventCounter(flags=2, value=records.U64),
        records.EpollSet(flags=2, watches=[records.Watch(3, 0, 1, 1 << 63, True)]),
        records.ClockTimer(flags=2, clock=1, at_ns=5),
        records.SignalSet(flags=2, mask=1 << 63),
        records.ProcessHandle(flags=2, pid=4),
        records.MemoryFile(flags=2, label=b"\xff"),
    ]
    data = msgspec.json.encode(files)
    assert records.decoded(data, list[records.AnyFile]) == files


@pytest.mark.parametrize(
    ("data", "kind", "what"),
    [
        (b'{"soft":1}', records.Limit, "array"),
        (b"[1]", records.Limit, "length"),
        (b"[1,18446744073709551616]", records.Limit, "64 bits"),
        (b"[-1,0]", records.Limit, ">= 0"),
        (b'{"mount":0,"path":"","more":1}', records.Place, "`more`"),
        (b'{"mount":1048577}', records.Place, "<= 1048576"),
        (b"[0,0,0]", records.Run, ">= 1"),
        (b'{"kind":"door","flags":0}', records.AnyFile, "door"),
        (b'{"kind":"eventfd","flags":0,"position":-1}', records.AnyFile, ">= 0"),
        (b'{"kind":"pidfd","flags":0,"pid":0}', records.AnyFile, ">= 1"),
        (b'{"tid":1,"creds":0,"altstack":[0,0,18446744073709551616]}', records.Thread, "64 bits"),
        (QUEUE % (1 << 63), records.IpcQueue, "<= 9223372036854775807"),
        (QUEUE % 0, records.IpcQueue, ">= 1"),
        (b'{"mask":0,"infos":[{"signo":65}]}', records.Pending, "<= 64"),
        (b"[" * 100_000, records.Pending, "object"),
        (b"", records.Place, "truncated"),
    ],
)
def test_decoded_what_no_sandbox_says_is_an_error_that_names_it(
    data: bytes, kind: type, what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        records.decoded(data, kind)


def test_the_most_that_a_program_can_have_is_read_again() -> None:
    process = records.Process(
        1, 1, 1, [records.Thread(1, 0, timer_slack_ns=records.U64)], 1, 0, 0,
        argv=[b"x" * ((1 << 17) - 1)],
    )  # fmt: skip
    file = records.EventCounter(flags=2, position=(1 << 63) - 1)
    for record in (process, file, records.Bytes((1 << 63) - 1)):
        assert records.decoded(msgspec.json.encode(record), type(record)) == record


@given(some.binary(max_size=200))
def test_decoded_any_bytes_are_an_error_or_a_snapshot(data: bytes) -> None:
    try:
        found = records.decoded(data, records.Snapshot)
    except ValueError:
        return
    assert isinstance(found, records.Snapshot)

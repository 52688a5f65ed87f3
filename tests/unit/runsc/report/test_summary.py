"""What a recording comes to, and that it stays small."""

from __future__ import annotations

import pytest

from runsc.report import summary as s
from runsc.report.summary import Decision
from sentry.watch import messages as m
from sentry.watch.messages import MessageType as Type
from tests.unit.runsc.report.recordings import opened, run, summed, told, who


def test_processes_have_parents_programs_and_ends() -> None:
    made = summed(run())
    shell, cat, nc = made.processes
    assert (shell.pid, shell.programs, shell.ended_ns) == (1, ["/bin/sh -c work"], 20_000_000)
    assert (cat.parent, cat.programs, cat.began_ns) == (1, ["cat /etc/none"], 1_000_000)
    assert (cat.status, nc.status) == (1 << 8, 9)


def test_calls_files_and_connections_are_counted_with_their_errors() -> None:
    made = summed(run())
    assert made.calls["openat"].count == 2
    assert made.calls["openat"].errnos == {2: 1}
    assert (made.files["/etc/none"].failed, made.files["/tmp/out"].written) == (1, 1)
    [(key, tally)] = made.connections.items()
    assert key == ("to", "127.0.0.1:80", "nc")
    assert tally.errnos == {111: 1}


def test_decisions_and_figures_are_kept() -> None:
    made = summed(run())
    what = "tcp 10.0.0.1:80 x.org rule 1"
    assert made.decisions == [Decision(8_000_000, "sentry/egress_denied", "nc", what)]
    assert made.costs["read"].total_ns == 50_000
    assert made.levels['memory_bytes{container="c"}'].values == [(10_000_000, 1 << 20)]


def test_a_number_that_is_used_again_is_another_process() -> None:
    again = [told(Type.SENTRY_CLONE, m.CloneInfo(who(30), 2, 2)), opened(31, "/x", 2)]
    made = summed([*run(), *again])
    assert [each.pid for each in made.processes] == [1, 2, 3, 1, 2]
    assert made.processes[-1].ended_ns == -1


def test_of_each_kind_only_so_many_are_kept_and_the_rest_is_counted() -> None:
    files = (opened(n, f"/tmp/{n}", pid=n + 1) for n in range(s.MAX_FILES + 7))
    made = summed(files)
    assert (len(made.files), made.more["files"]) == (s.MAX_FILES, 7)
    assert len(made.processes) == s.MAX_PROCESSES
    assert made.more["processes"] == s.MAX_FILES + 7 - s.MAX_PROCESSES
    assert made.records == s.MAX_FILES + 7


def test_huge_texts_and_times_are_cut() -> None:
    at = m.ContextData((1 << 63) - 1, 1, 0, 1, process_name="n" * 5000)
    long = told(Type.SENTRY_EXEC, m.ExecveInfo(at, "/x", ["a" * 5000] * 100))
    made = summed([opened(0, "/" + "x" * 5000), opened(-1e9, "/early"), long])
    assert max(map(len, made.files)) == s.MAX_TEXT
    [process] = made.processes
    assert len(process.name) == len(process.programs[0]) == s.MAX_TEXT
    assert sum(made.rate.counts.values()) == 3


def test_losses_and_unknown_kinds_are_counted() -> None:
    made = summed([told(0x7000, m.Record()), told(Type.SYSCALL_RAW, m.Syscall(who(1)), 9)])
    assert (made.unknown, made.lost) == (1, 9)


@pytest.mark.parametrize(
    "data", [b"", b"\x08\0\x00\xff\0\0\0\0no json", b"\x08\0\x01\0\0\0\0\0\xff"]
)
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        summed([data])

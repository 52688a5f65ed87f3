"""Figures as Prometheus reads them."""

from __future__ import annotations

from runsc.commands.metrics import lines
from sentry.control.metrics import labels


def test_each_figure_has_its_type_and_the_sandbox_as_a_label() -> None:
    counts = {"oom_kills": 1, 'tasks{container="b"}': 2, 'tasks{container="c"}': 3, "strange": 4}
    assert lines(counts, "web") == [
        "# HELP runsc_oom_kills Processes that were killed because memory had run out, by"
        " container.",
        "# TYPE runsc_oom_kills counter",
        'runsc_oom_kills{sandbox="web"} 1',
        "# HELP runsc_tasks Threads of programs, by container.",
        "# TYPE runsc_tasks gauge",
        'runsc_tasks{sandbox="web",container="b"} 2',
        'runsc_tasks{sandbox="web",container="c"} 3',
    ]


def test_what_a_sandbox_says_moves_no_terminal() -> None:
    assert "\x1b" not in "".join(lines({'tasks{container="\x1b[2J"}': 1}, "web"))


def test_what_a_sandbox_says_is_no_figure_of_another_one() -> None:
    forged = (
        'tasks{container="a"} 1\nrunsc_tasks{sandbox="other"}',
        'tasks{container="a\nrunsc_tasks 5"}',
        'tasks{sandbox="other"}',
        'tasks{container="a",sandbox="other"}',
        "tasks{",
    )
    assert not lines(dict.fromkeys(forged, 1), "web")


def test_names_are_those_that_a_sandbox_has() -> None:
    figures = {
        "trace_records" + labels(session='a"\\\n', sink="null", number="0"): 1,
        "unimplemented_syscalls" + labels(sysno="other", name=""): 2,
    }
    shown = [line for line in lines(figures, "web") if line[0] != "#"]
    assert shown == [
        'runsc_unimplemented_syscalls{sandbox="web",sysno="other",name=""} 2',
        'runsc_trace_records{sandbox="web",session="a\\"\\\\\\n",sink="null",number="0"} 1',
    ]

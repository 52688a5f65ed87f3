"""Figures as Prometheus reads them."""

from __future__ import annotations

from runsc.commands.metrics import lines


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

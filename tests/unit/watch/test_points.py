"""The list of points."""

from __future__ import annotations

from sentry.syscalls import table  # noqa: F401  all declarations
from sentry.watch.points import KERNEL, every, find
from sentry.watch.schemas import SCHEMAS


def test_each_name_is_found_again_and_there_are_as_many_as_declarations_say() -> None:
    points = list(every())
    names = [point.name for point in points]
    assert names == sorted(set(names))
    assert all(find(point.name) == point for point in points)
    assert len(names) > len(KERNEL) + 2 * (442 + 340)


def test_gvisors_points_are_among_them() -> None:
    names = {point.name for point in every()}
    own = {"container/start", "sentry/clone", "sentry/execve", "sentry/exit_notify_parent",
           "sentry/task_exit"}  # fmt: skip
    calls = [f"syscall/{call}/{phase}" for call in SCHEMAS for phase in ("enter", "exit")]
    raw = [f"syscall/sysno/{number}/exit" for number in range(442)]
    assert names >= {*own, *calls, *raw}


def test_what_is_no_point_is_not_found() -> None:
    for name in ("", "sentry/none", "syscall/openat", "syscall/openat/middle", "syscall/none/enter",
                 "syscall/sysno/9999/enter", "syscall/sysno/-1/enter", "syscall/sysno/007/exit",
                 "syscall/sysno/²/exit", "openat/enter", "syscall//enter"):  # fmt: skip
        assert find(name) is None, name

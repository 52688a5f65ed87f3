from __future__ import annotations

from typing import Any

import pytest

from runsc.errors import SpecError
from runsc.oci.scheduling import io_priority, personality, scheduler
from sentry.abi.sched import SCHED_BATCH, SCHED_DEADLINE, SCHED_RR
from sentry.config import SchedulerConfig


def test_scheduler_becomes_numbers() -> None:
    assert scheduler({"policy": "SCHED_BATCH", "nice": 5}, "$") == SchedulerConfig(SCHED_BATCH, 5)
    made = scheduler(
        {"policy": "SCHED_RR", "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, "$"
    )
    assert made == SchedulerConfig(SCHED_RR, 0, 7, True)
    document = {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3}
    assert scheduler(document, "$") == SchedulerConfig(SCHED_DEADLINE, deadline=(1, 2, 3))


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({}, "policy"),
        ({"policy": "SCHED_ISO"}, "policy"),
        ({"policy": "SCHED_OTHER", "nice": 20}, "nice"),
        ({"policy": "SCHED_OTHER", "nice": "x"}, "nice"),
        ({"policy": "SCHED_OTHER", "priority": 1}, "priority"),
        ({"policy": "SCHED_FIFO"}, "priority"),
        ({"policy": "SCHED_FIFO", "priority": 1, "flags": ["X"]}, "flags[0]"),
    ],
)
def test_scheduler_refuses_with_its_path(document: dict[str, Any], where: str) -> None:
    with pytest.raises(SpecError) as info:
        scheduler(document, "$.process.scheduler")
    assert info.value.path == f"$.process.scheduler.{where}"


@pytest.mark.parametrize("times", [(), (0, 2, 3), (2, 1, 3), (1, 3, 2), (1, 1 << 64, 0)])
def test_deadline_that_there_cannot_be_is_refused(times: tuple[int, ...]) -> None:
    names = ("runtime", "deadline", "period")
    document = {"policy": "SCHED_DEADLINE"} | dict(zip(names, times, strict=False))
    with pytest.raises(SpecError, match="runtime <= deadline <= period"):
        scheduler(document, "$.process.scheduler")


def test_io_priority_and_personality() -> None:
    assert io_priority({"class": "IOPRIO_CLASS_BE", "priority": 4}, "$") == 2 << 13 | 4
    assert (personality({"domain": "LINUX"}), personality({"domain": "LINUX32"})) == (0, 8)
    for broken in ({"class": "IOPRIO_CLASS_NONE"}, {"class": "IOPRIO_CLASS_RT", "priority": 8}):
        with pytest.raises(SpecError):
            io_priority(broken, "$")
    for bad in ({"domain": "BSD"}, {"domain": "LINUX", "flags": ["x"]}):
        with pytest.raises(SpecError):
            personality(bad)

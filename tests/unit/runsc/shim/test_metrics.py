"""What a container uses, in the messages of both versions of cgroups."""

from __future__ import annotations

from typing import Any

from runsc.shim import metrics
from sentry.protobuf import decode, encode

USED: dict[str, Any] = {
    "cpu": {
        "usage": {"total": 5000, "kernel": 2000, "user": 3000, "percpu": [1, 2]},
        "throttling": {"periods": 1, "throttledPeriods": 2, "throttledTime": 3000},
    },
    "memory": {
        "cache": 7,
        "usage": {"limit": 100, "usage": 50, "max": 60, "failcnt": 1},
        "swap": {"limit": 200, "usage": 9, "max": 0, "failcnt": 0},
        "raw": {"cache": 7, "rss": 43, "anon": 43, "file": 7, "pgfault": 4, "unheard_of": 1},
    },
    "pids": {"current": 3, "limit": 10},
    "blkio": {
        "ioServiceBytesRecursive": [{"major": 8, "minor": 0, "op": "Read", "value": 4096}],
        "ioServicedRecursive": [{"major": 8, "minor": 0, "op": "Read", "value": 2}],
    },
}
OF_THE_SENTRY: dict[str, Any] = {
    "cpu": {"usage": {"total": 5, "kernel": 2, "user": 3}, "throttling": {}},
    "memory": {"cache": 7, "usage": {"limit": 1, "usage": 1, "failcnt": 0}, "raw": {"rss": 1}},
    "pids": {"current": 1},
    "blkio": {},
}


def test_version_1() -> None:
    made = metrics.version1(USED, 2)

    assert made.pids == metrics.PidsStat(3, 10)
    assert made.cpu is not None and made.cpu.usage == metrics.CPUUsage(5000, 2000, 3000, [1, 2])
    assert made.memory is not None
    assert (made.memory.rss, made.memory.total_rss, made.memory.pgfault) == (43, 43, 4)
    assert made.memory.usage == metrics.MemoryEntry(100, 50, 60, 1)
    assert made.blkio is not None
    assert made.blkio.io_serviced_recursive == [metrics.BlkIOEntry("Read", "", 8, 0, 2)]
    assert made.memory_oom_control == metrics.MemoryOomControl(oom_kill=2)
    assert decode(metrics.Metrics1, encode(made)) == made


def test_version_2() -> None:
    made = metrics.version2(USED, 2)

    assert made.cpu == metrics.CPUStat2(5, 3, 2, 1, 2, 3)
    assert made.memory is not None
    assert (made.memory.anon, made.memory.file, made.memory.usage) == (43, 7, 50)
    assert (made.memory.usage_limit, made.memory.max_usage, made.memory.swap_usage) == (100, 60, 9)
    assert made.io == metrics.IOStat([metrics.IOEntry(8, 0, 4096, 0, 2, 0)])
    assert made.memory_events == metrics.MemoryEvents(oom=2, oom_kill=2)
    assert decode(metrics.Metrics2, encode(made)) == made


def test_a_container_without_a_cgroup_has_what_the_sentry_counts() -> None:
    one, two = metrics.version1(OF_THE_SENTRY, 0), metrics.version2(OF_THE_SENTRY, 0)

    assert one.memory is not None and one.memory.rss == 1
    assert two.memory is not None and (two.memory.anon, two.memory.file) == (1, 7)


def test_the_name_is_that_of_the_version_of_this_machine() -> None:
    name, message = metrics.made(USED, 0)

    version = 1 if isinstance(message, metrics.Metrics1) else 2
    assert name == f"io.containerd.cgroups.v{version}.Metrics"

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import EPERM
from sentry.fs.cgroup.filesystem import FILES, CgroupFs
from sentry.kernel.services import Services
from sentry.platform.commitment import Commitment


def _usage(user: int, system: int) -> Any:
    return SimpleNamespace(user_ns=user, sys_ns=system)


@pytest.fixture
def kernel() -> Any:
    task = SimpleNamespace(ctx=SimpleNamespace(cpu_time_ns=lambda: 5_000), sys_time_ns=1_000)
    group = SimpleNamespace(
        tasks=[task], dead_usage=_usage(2_000, 0), reaped_usage=_usage(1_000, 1_000)
    )
    zombie = SimpleNamespace(tasks=[], dead_usage=_usage(0, 0), reaped_usage=_usage(0, 0))
    services = Services()
    services.cpu_quota = (50_000, 100_000)
    counters = SimpleNamespace(frames=2, kernel_frames=1, tables=1)
    ram = SimpleNamespace(
        limit=1 << 28, file_pages=1, populated=lambda: 1 << 20, counters=lambda: counters,
        commitment=Commitment(),
    )  # fmt: skip
    return SimpleNamespace(
        vfs=SimpleNamespace(new_dev=lambda: 9, now_ns=lambda: 0),
        cpus=2,
        gone_usage=_usage(3_000, 0),
        services=services,
        platform=SimpleNamespace(ram=ram),
        counters=SimpleNamespace(oom_kills=3),
        pids=SimpleNamespace(
            tasks={1: task, 7: task}, groups={1: group, 5: zombie}, limit=0, count=lambda: 3
        ),
    )


def test_files_say_what_counts_inside(kernel: Any) -> None:
    shown = {name: show(kernel) for name, show in FILES.items()}

    assert shown["memory.current"] == "12288\n" and "\nshmem 4096\n" in shown["memory.stat"]
    assert shown["memory.max"] == f"{1 << 28}\n"
    assert shown["cpu.max"] == "50000 100000\n"
    assert shown["cpu.stat"].splitlines()[0] == "usage_usec 19"
    assert (shown["pids.max"], shown["pids.current"]) == ("max\n", "3\n")
    assert (shown["cgroup.procs"], shown["cgroup.threads"]) == ("1\n", "1\n7\n")
    assert "oom_kill 3\n" in shown["memory.events"]
    assert shown["cpuset.cpus.effective"] == "0-1\n"
    kernel.pids.limit = 4
    kernel.services.cpu_quota = (0, 100_000)
    assert FILES["pids.max"](kernel) == "4\n"
    assert FILES["cpu.max"](kernel) == "max 100000\n"


async def _mkdir(fs: CgroupFs) -> None:
    await fs.root.mkdir(b"x", 0o755, None)  # type: ignore[arg-type]


def test_no_cgroup_can_be_made(kernel: Any) -> None:
    with pytest.raises(EPERM):
        _mkdir(CgroupFs(kernel)).send(None)

"""What a container uses, as messages of containerd's cgroups library.

Of version 1 or 2 as the host's hierarchy of cgroups is: where processes are counted by a controller
of version 1, containerd expects the messages of that. Sources: github.com/containerd/cgroups/v3,
cgroup1/stats/metrics.proto and cgroup2/stats/metrics.proto; what is left out there is left out of
the kernel's files here.
"""

from __future__ import annotations

from typing import Annotated, Any

from runsc.cgroups import hierarchies
from sentry.protobuf import Message

NO_LIMIT = (1 << 64) - 1


class PidsStat(Message):
    current: Annotated[int, 1] = 0
    limit: Annotated[int, 2] = 0


class CPUUsage(Message):
    total: Annotated[int, 1] = 0
    kernel: Annotated[int, 2] = 0
    user: Annotated[int, 3] = 0
    per_cpu: Annotated[list[int], 4] = []


class Throttle(Message):
    periods: Annotated[int, 1] = 0
    throttled_periods: Annotated[int, 2] = 0
    throttled_time: Annotated[int, 3] = 0


class CPUStat(Message):
    usage: Annotated[CPUUsage | None, 1] = None
    throttling: Annotated[Throttle | None, 2] = None


class MemoryEntry(Message):
    limit: Annotated[int, 1] = 0
    usage: Annotated[int, 2] = 0
    max: Annotated[int, 3] = 0
    failcnt: Annotated[int, 4] = 0


class MemoryStat(Message):
    """Version 1; the fields up to `total_unevictable` are lines of memory.stat."""

    cache: Annotated[int, 1] = 0
    rss: Annotated[int, 2] = 0
    rss_huge: Annotated[int, 3] = 0
    mapped_file: Annotated[int, 4] = 0
    dirty: Annotated[int, 5] = 0
    writeback: Annotated[int, 6] = 0
    pgpgin: Annotated[int, 7] = 0
    pgpgout: Annotated[int, 8] = 0
    pgfault: Annotated[int, 9] = 0
    pgmajfault: Annotated[int, 10] = 0
    inactive_anon: Annotated[int, 11] = 0
    active_anon: Annotated[int, 12] = 0
    inactive_file: Annotated[int, 13] = 0
    active_file: Annotated[int, 14] = 0
    unevictable: Annotated[int, 15] = 0
    hierarchical_memory_limit: Annotated[int, 16] = 0
    hierarchical_memsw_limit: Annotated[int, 17] = 0
    total_cache: Annotated[int, 18] = 0
    total_rss: Annotated[int, 19] = 0
    total_rss_huge: Annotated[int, 20] = 0
    total_mapped_file: Annotated[int, 21] = 0
    total_dirty: Annotated[int, 22] = 0
    total_writeback: Annotated[int, 23] = 0
    total_pgpgin: Annotated[int, 24] = 0
    total_pgpgout: Annotated[int, 25] = 0
    total_pgfault: Annotated[int, 26] = 0
    total_pgmajfault: Annotated[int, 27] = 0
    total_inactive_anon: Annotated[int, 28] = 0
    total_active_anon: Annotated[int, 29] = 0
    total_inactive_file: Annotated[int, 30] = 0
    total_active_file: Annotated[int, 31] = 0
    total_unevictable: Annotated[int, 32] = 0
    usage: Annotated[MemoryEntry | None, 33] = None
    swap: Annotated[MemoryEntry | None, 34] = None
    kernel: Annotated[MemoryEntry | None, 35] = None
    kernel_tcp: Annotated[MemoryEntry | None, 36] = None


class BlkIOEntry(Message):
    op: Annotated[str, 1] = ""
    device: Annotated[str, 2] = ""
    major: Annotated[int, 3] = 0
    minor: Annotated[int, 4] = 0
    value: Annotated[int, 5] = 0


class BlkIOStat(Message):
    io_service_bytes_recursive: Annotated[list[BlkIOEntry], 1] = []
    io_serviced_recursive: Annotated[list[BlkIOEntry], 2] = []


class MemoryOomControl(Message):
    oom_kill_disable: Annotated[int, 1] = 0
    under_oom: Annotated[int, 2] = 0
    oom_kill: Annotated[int, 3] = 0


class Metrics1(Message):
    """io.containerd.cgroups.v1.Metrics."""

    pids: Annotated[PidsStat | None, 2] = None
    cpu: Annotated[CPUStat | None, 3] = None
    memory: Annotated[MemoryStat | None, 4] = None
    blkio: Annotated[BlkIOStat | None, 5] = None
    memory_oom_control: Annotated[MemoryOomControl | None, 9] = None


class CPUStat2(Message):
    usage_usec: Annotated[int, 1] = 0
    user_usec: Annotated[int, 2] = 0
    system_usec: Annotated[int, 3] = 0
    nr_periods: Annotated[int, 4] = 0
    nr_throttled: Annotated[int, 5] = 0
    throttled_usec: Annotated[int, 6] = 0


class MemoryStat2(Message):
    """Version 2; the fields up to `thp_collapse_alloc` are lines of memory.stat."""

    anon: Annotated[int, 1] = 0
    file: Annotated[int, 2] = 0
    kernel_stack: Annotated[int, 3] = 0
    slab: Annotated[int, 4] = 0
    sock: Annotated[int, 5] = 0
    shmem: Annotated[int, 6] = 0
    file_mapped: Annotated[int, 7] = 0
    file_dirty: Annotated[int, 8] = 0
    file_writeback: Annotated[int, 9] = 0
    anon_thp: Annotated[int, 10] = 0
    inactive_anon: Annotated[int, 11] = 0
    active_anon: Annotated[int, 12] = 0
    inactive_file: Annotated[int, 13] = 0
    active_file: Annotated[int, 14] = 0
    unevictable: Annotated[int, 15] = 0
    slab_reclaimable: Annotated[int, 16] = 0
    slab_unreclaimable: Annotated[int, 17] = 0
    pgfault: Annotated[int, 18] = 0
    pgmajfault: Annotated[int, 19] = 0
    workingset_refault: Annotated[int, 20] = 0
    workingset_activate: Annotated[int, 21] = 0
    workingset_nodereclaim: Annotated[int, 22] = 0
    pgrefill: Annotated[int, 23] = 0
    pgscan: Annotated[int, 24] = 0
    pgsteal: Annotated[int, 25] = 0
    pgactivate: Annotated[int, 26] = 0
    pgdeactivate: Annotated[int, 27] = 0
    pglazyfree: Annotated[int, 28] = 0
    pglazyfreed: Annotated[int, 29] = 0
    thp_fault_alloc: Annotated[int, 30] = 0
    thp_collapse_alloc: Annotated[int, 31] = 0
    usage: Annotated[int, 32] = 0
    usage_limit: Annotated[int, 33] = 0
    swap_usage: Annotated[int, 34] = 0
    swap_limit: Annotated[int, 35] = 0
    max_usage: Annotated[int, 36] = 0
    swap_max_usage: Annotated[int, 37] = 0


class IOEntry(Message):
    major: Annotated[int, 1] = 0
    minor: Annotated[int, 2] = 0
    rbytes: Annotated[int, 3] = 0
    wbytes: Annotated[int, 4] = 0
    rios: Annotated[int, 5] = 0
    wios: Annotated[int, 6] = 0


class IOStat(Message):
    usage: Annotated[list[IOEntry], 1] = []


class MemoryEvents(Message):
    low: Annotated[int, 1] = 0
    high: Annotated[int, 2] = 0
    max: Annotated[int, 3] = 0
    oom: Annotated[int, 4] = 0
    oom_kill: Annotated[int, 5] = 0


class Metrics2(Message):
    """io.containerd.cgroups.v2.Metrics."""

    pids: Annotated[PidsStat | None, 1] = None
    cpu: Annotated[CPUStat2 | None, 2] = None
    memory: Annotated[MemoryStat2 | None, 4] = None
    io: Annotated[IOStat | None, 6] = None
    memory_events: Annotated[MemoryEvents | None, 8] = None


_IO2 = {
    ("ioServiceBytesRecursive", "Read"): "rbytes",
    ("ioServiceBytesRecursive", "Write"): "wbytes",
    ("ioServicedRecursive", "Read"): "rios",
    ("ioServicedRecursive", "Write"): "wios",
}


def made(used: dict[str, Any], oom_kills: int) -> tuple[str, Message]:
    """Name and message, of what `runsc events` tells."""
    found = hierarchies.read()
    if found and all(each.name == hierarchies.V2 for each in found):
        return "io.containerd.cgroups.v2.Metrics", version2(used, oom_kills)
    return "io.containerd.cgroups.v1.Metrics", version1(used, oom_kills)


def _fields(kind: type[Message], raw: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in raw.items() if name in kind.__struct_fields__}


def _entry(values: dict[str, int] | None) -> MemoryEntry | None:
    return None if not values else MemoryEntry(**_fields(MemoryEntry, values))


def _pids(used: dict[str, Any]) -> PidsStat:
    return PidsStat(used["pids"].get("current", 0), used["pids"].get("limit", 0))


def version1(used: dict[str, Any], oom_kills: int) -> Metrics1:
    """As controllers of version 1 count."""
    cpu, memory, blkio = used["cpu"], used["memory"], used["blkio"]
    usage, throttling = cpu["usage"], cpu["throttling"]
    raw = dict(memory["raw"])
    for name in ("cache", "rss"):
        raw.setdefault(f"total_{name}", raw.get(name, 0))
    raw.setdefault("total_inactive_file", 0)
    entries = [
        [BlkIOEntry(each["op"], "", each["major"], each["minor"], each["value"])
         for each in blkio.get(key, ())]
        for key in ("ioServiceBytesRecursive", "ioServicedRecursive")
    ]  # fmt: skip
    return Metrics1(
        _pids(used),
        CPUStat(
            CPUUsage(usage["total"], usage["kernel"], usage["user"], usage.get("percpu", [])),
            Throttle(
                throttling.get("periods", 0),
                throttling.get("throttledPeriods", 0),
                throttling.get("throttledTime", 0),
            ),
        ),
        MemoryStat(
            **_fields(MemoryStat, {k: v for k, v in raw.items() if k not in _ENTRIES}),
            usage=_entry(memory["usage"]),
            swap=_entry(memory.get("swap")),
            kernel=_entry(memory.get("kernel")),
            kernel_tcp=_entry(memory.get("kernelTCP")),
        ),
        BlkIOStat(*entries) if any(entries) else None,
        MemoryOomControl(oom_kill=oom_kills),
    )


_ENTRIES = frozenset({"usage", "swap", "kernel", "kernel_tcp"})


def version2(used: dict[str, Any], oom_kills: int) -> Metrics2:
    """As the unified hierarchy counts."""
    cpu, memory = used["cpu"], used["memory"]
    usage, throttling, swap = cpu["usage"], cpu["throttling"], memory.get("swap", {})
    raw = dict(memory["raw"])
    raw.setdefault("file", memory.get("cache", 0))
    raw.setdefault("anon", raw.get("rss", 0))
    return Metrics2(
        _pids(used),
        CPUStat2(
            usage["total"] // 1000,
            usage["user"] // 1000,
            usage["kernel"] // 1000,
            throttling.get("periods", 0),
            throttling.get("throttledPeriods", 0),
            throttling.get("throttledTime", 0) // 1000,
        ),
        MemoryStat2(
            **_fields(MemoryStat2, {k: v for k, v in raw.items() if k != "usage"}),
            usage=memory["usage"]["usage"],
            usage_limit=memory["usage"]["limit"],
            max_usage=memory["usage"].get("max", 0),
            swap_usage=swap.get("usage", 0),
            swap_limit=swap.get("limit", 0),
            swap_max_usage=swap.get("max", 0),
        ),
        IOStat(_io(used["blkio"])),
        MemoryEvents(oom=oom_kills, oom_kill=oom_kills),
    )


def _io(blkio: dict[str, Any]) -> list[IOEntry]:
    devices: dict[tuple[int, int], IOEntry] = {}
    for (key, op), name in _IO2.items():
        for each in blkio.get(key, ()):
            place = (each["major"], each["minor"])
            if each["op"] == op:
                setattr(devices.setdefault(place, IOEntry(*place)), name, each["value"])
    return list(devices.values())

"""What the sandbox uses, as the kernel counts it: the data of `events`, in runc's form.

The number of tasks is not in it: the kernel would count the sandbox's threads, and who asks means
the container's, which the Sentry knows.
"""

from __future__ import annotations

from typing import Any

from runsc.cgroups import files
from runsc.cgroups.cgroup import Cgroup
from runsc.cgroups.hierarchies import V2

USER_HZ = 100
"""Ticks of cpuacct.stat in a second: the same on every x86-64 kernel."""


def stats(cgroup: Cgroup) -> dict[str, Any]:
    """`cpu`, `memory`, `blkio`, `hugetlb` of runc's `events --stats`; what is unknown is left out.

    Times are nanoseconds, sizes bytes; a limit that is none is 2**64-1 in version 2 (as runc).
    """
    made = {
        "cpu": _cpu(cgroup),
        "memory": _memory(cgroup),
        "blkio": _blkio(cgroup),
        "hugetlb": {},
    }
    return {name: value for name, value in made.items() if value or name == "hugetlb"}


def oom_kills(cgroup: Cgroup) -> int:
    """How many processes of it the host's kernel has killed because memory ran out."""
    directory = cgroup.directory("memory")
    if directory is None:
        return 0
    name = "memory.events" if _is_v2(cgroup, directory) else "memory.oom_control"
    return files.read_table(directory, name).get("oom_kill", 0)


def _is_v2(cgroup: Cgroup, directory: str) -> bool:
    return cgroup.record.directories.get(V2) == directory


def _cpu(cgroup: Cgroup) -> dict[str, Any]:
    directory = cgroup.directory("cpu")
    unified = cgroup.record.directories.get(V2)
    accounts = cgroup.directory("cpuacct")
    usage: dict[str, Any] = {}
    if accounts is not None:
        ticks = files.read_table(accounts, "cpuacct.stat")
        per_cpu = files.read(accounts, "cpuacct.usage_percpu").split()
        usage = {
            "total": files.read_number(accounts, "cpuacct.usage") or 0,
            "percpu": [int(word) for word in per_cpu],
            "kernel": ticks.get("system", 0) * 10**9 // USER_HZ,
            "user": ticks.get("user", 0) * 10**9 // USER_HZ,
        }
    elif unified is not None:  # version 2 counts time without a controller
        times = files.read_table(unified, "cpu.stat")
        usage = {
            "total": times.get("usage_usec", 0) * 1000,
            "kernel": times.get("system_usec", 0) * 1000,
            "user": times.get("user_usec", 0) * 1000,
        }
    throttled = files.read_table(directory, "cpu.stat") if directory is not None else {}
    in_ns = throttled.get("throttled_time", throttled.get("throttled_usec", 0) * 1000)
    throttling = {
        "periods": throttled.get("nr_periods", 0),
        "throttledPeriods": throttled.get("nr_throttled", 0),
        "throttledTime": in_ns,
    }
    return {"usage": usage, "throttling": throttling} if usage else {}


def _memory(cgroup: Cgroup) -> dict[str, Any]:
    directory = cgroup.directory("memory")
    if directory is None:
        return {}
    raw = files.read_table(directory, "memory.stat")
    if _is_v2(cgroup, directory):
        usage = _counter(directory, "memory.current", "memory.max", "memory.peak")
        swap = _counter(directory, "memory.swap.current", "memory.swap.max", "memory.swap.peak")
        return {"cache": raw.get("file", 0), "usage": usage, "swap": swap, "raw": raw}
    return {
        "cache": raw.get("cache", 0),
        "usage": _counter_v1(directory, "memory"),
        "swap": _counter_v1(directory, "memory.memsw"),
        "kernel": _counter_v1(directory, "memory.kmem"),
        "kernelTCP": _counter_v1(directory, "memory.kmem.tcp"),
        "raw": raw,
    }


def _counter(directory: str, usage: str, limit: str, peak: str) -> dict[str, int]:
    none = 2**64 - 1
    ceiling = files.read_number(directory, limit)
    return {
        "limit": none if ceiling is None else ceiling,
        "usage": files.read_number(directory, usage) or 0,
        "max": files.read_number(directory, peak) or 0,
        "failcnt": 0,
    }


def _counter_v1(directory: str, prefix: str) -> dict[str, int]:
    names = {
        "limit": "limit_in_bytes",
        "usage": "usage_in_bytes",
        "max": "max_usage_in_bytes",
        "failcnt": "failcnt",
    }
    return {
        key: files.read_number(directory, f"{prefix}.{name}") or 0 for key, name in names.items()
    }


def _blkio(cgroup: Cgroup) -> dict[str, Any]:
    directory = cgroup.directory("blkio")
    if directory is None:
        return {}
    if _is_v2(cgroup, directory):
        return _io(files.read(directory, "io.stat"))
    found = {}
    for key, name in (
        ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
        ("ioServicedRecursive", "io_serviced_recursive"),
    ):
        for prefix in ("blkio.throttle", "blkio.bfq"):
            entries = _entries(files.read(directory, f"{prefix}.{name}"))
            if entries:
                found[key] = entries
                break
    return found


def _entries(text: str) -> list[dict[str, Any]]:
    """Lines "8:0 Read 4096"; the one of all devices together is left out."""
    made = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and ":" in words[0]:
            major, _, minor = words[0].partition(":")
            made.append(
                {"major": int(major), "minor": int(minor), "op": words[1], "value": int(words[2])}
            )
    return made


def _io(text: str) -> dict[str, Any]:
    """Lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …" under the names of version 1."""
    names = {
        "rbytes": ("ioServiceBytesRecursive", "Read"),
        "wbytes": ("ioServiceBytesRecursive", "Write"),
        "rios": ("ioServicedRecursive", "Read"),
        "wios": ("ioServicedRecursive", "Write"),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        for word in words:
            name, _, value = word.partition("=")
            if name in names and value.isdigit():
                key, op = names[name]
                entry = {"major": int(major), "minor": int(minor), "op": op, "value": int(value)}
                found.setdefault(key, []).append(entry)
    return found

"""Containers as a user of the runtime meets them: run, exec, state; what an idle one takes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ways import Stage, Way

MARK = "BENCH_MARK"
SLEEP = ["/bin/sleep", "1000"]
SETTLE_S = 2
"""After the start, before an idle sandbox is watched."""


@contextmanager
def container(way: Way, stage: Stage) -> Iterator[str]:
    """A container that sleeps."""
    name = way.start(stage, SLEEP)
    try:
        yield name
    finally:
        way.manage("delete", "--force", name)


def elapsed(call: Callable[[], object], times: int) -> dict[str, float]:
    """Median and best in ns."""
    costs = []
    for _ in range(times):
        start = time.perf_counter_ns()
        call()
        costs.append(time.perf_counter_ns() - start)
    costs.sort()
    return {"median": float(costs[len(costs) // 2]), "best": float(costs[0])}


def commands(way: Way, stage: Stage, times: int) -> dict[str, dict[str, float]]:
    """`run`, `exec` and `state`, in ns."""
    found = {"run /bin/true": elapsed(lambda: way.run(stage, ["/bin/true"]), times)}
    if way.is_runtime:
        with container(way, stage) as name:
            found["exec /bin/true"] = elapsed(lambda: way.manage("exec", name, "/bin/true"), times)
            found["state"] = elapsed(lambda: way.manage("state", name), times)
    return found


def idle(way: Way, stage: Stage, seconds: float) -> dict[str, dict[str, float]]:
    """Memory (bytes, proportional set size) of one and of ten, CPU and wake-ups when idle."""
    found: dict[str, dict[str, float]] = {}
    with marked(way) as processes, container(way, stage):
        time.sleep(SETTLE_S)
        pids = processes()
        found["memory of an idle container"] = one(memory(pids))
        cpu, switches = cpu_ns(pids), wakeups(pids)
        time.sleep(seconds)
        found["CPU of an idle container"] = one((cpu_ns(pids) - cpu) / seconds)
        found["wake-ups of an idle container"] = one((wakeups(pids) - switches) / seconds)
        names = [way.start(stage, SLEEP) for _ in range(9)]
        time.sleep(SETTLE_S)
        found["memory of ten"] = one(memory(processes()))
        for name in names:
            way.manage("delete", "--force", name)
    return found


def one(value: float) -> dict[str, float]:
    """A value measured once."""
    return {"median": value, "best": value}


@contextmanager
def marked(way: Way) -> Iterator[Callable[[], list[int]]]:
    """Finds all processes that were started meanwhile, by their environment, and descendants."""
    mark = uuid.uuid4().hex
    way.environment[MARK] = mark

    def processes() -> list[int]:
        parents, found = {}, set()
        for path in Path("/proc").iterdir():
            if not path.name.isdigit() or int(path.name) == os.getpid():
                continue
            try:
                stat = path.joinpath("stat").read_text().rpartition(")")[2].split()
                parents[int(path.name)] = int(stat[1])
                if f"{MARK}={mark}".encode() in path.joinpath("environ").read_bytes():
                    found.add(int(path.name))
            except OSError:
                continue
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    try:
        yield processes
    finally:
        del way.environment[MARK]


def memory(pids: list[int]) -> float:
    """Proportional set size, bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return float(total)


def cpu_ns(pids: list[int]) -> float:
    """CPU time of all threads."""
    return float(sum(int(path.read_text().split()[0]) for path in threads(pids, "schedstat")))


def wakeups(pids: list[int]) -> float:
    """Voluntary context switches of all threads."""
    total = 0
    for path in threads(pids, "status"):
        for line in path.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return float(total)


def threads(pids: list[int], name: str) -> list[Path]:
    """This file of each thread."""
    return [task / name for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]

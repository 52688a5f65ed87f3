"""Containers as a user of the runtime meets them: run, exec, state; what an idle one takes.

    python -m benchmarks.lifecycle [--times N] [--gvisor FILE] [--tree NAME=FOLDER]... [--json FILE]

measures each command of a container's life (`PHASES`), the runtimes in turns: how long it takes,
and the CPU time of the command and of everything that it causes, which is right on a busy machine,
too. `--tree`: other worktrees of ours, built, say the one before a change. As root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ways
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


PHASES = (
    "create", "start", "state", "exec /bin/true", "ps", "pause", "resume", "kill WINCH",
    "kill KILL", "delete", "kill of none", "delete --force",
)  # fmt: skip
TOGETHER = ("create", "start", "state", "exec /bin/true", "kill KILL", "delete")
"""What an engine makes of one container, once each."""
AFTER_S = 0.1
"""For what goes on when a command has ended."""


class Account:
    """A cgroup that counts the CPU time of all that is started in it."""

    def __init__(self) -> None:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        tops = [Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")]
        self._top = next(top for top in tops if (top / "cgroup.procs").exists())
        self._path = self._top / name
        self._path.mkdir()

    def ns(self) -> int:
        """So far."""
        file = self._path / "cpuacct.usage"
        if file.exists():
            return int(file.read_text())
        return int((self._path / "cpu.stat").read_text().split()[1]) * 1000

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This process is in it, so what it starts is, too."""
        (self._path / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self._top / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        """Take it away."""
        self._path.rmdir()


class Life:
    """One runtime: its containers begin and end, and each command is measured."""

    def __init__(self, way: Way, stage: Stage) -> None:
        self.way = way
        self._bundle = f"--bundle={stage.bundle(SLEEP)}"
        self._account = Account()
        self.found: dict[str, list[dict[str, float]]] = {}

    def command(self, phase: str, *args: str) -> None:
        """One, to its end; that of a container that is not there fails."""
        command = [*self.way.runtime, *args]
        spent = self._account.ns()
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        environment = os.environ | self.way.environment
        with self._account.inside():
            start = time.perf_counter_ns()
            pid = os.posix_spawn(command[0], command, environment, file_actions=null)
        _, status, usage = os.wait4(pid, 0)
        elapsed_ns = time.perf_counter_ns() - start
        if status != 0 and phase != "kill of none":
            raise RuntimeError(f"{self.way.name}: {phase}: {os.waitstatus_to_exitcode(status)}")
        time.sleep(AFTER_S)
        self.found.setdefault(phase, []).append(
            {
                "elapsed": elapsed_ns / 1e6,
                "CPU of the command": (usage.ru_utime + usage.ru_stime) * 1e3,
                "CPU of all": (self._account.ns() - spent) / 1e6,
            }
        )

    def once(self) -> None:
        """All phases, with two containers."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self.command("create", "create", self._bundle, name)
        self.command("start", "start", name)
        self.command("state", "state", name)
        self.command("exec /bin/true", "exec", name, "/bin/true")
        self.command("ps", "ps", name)
        self.command("pause", "pause", name)
        self.command("resume", "resume", name)
        self.command("kill WINCH", "kill", name, "WINCH")
        self.command("kill KILL", "kill", name, "KILL")
        while json.loads(self.way.manage("state", name))["status"] != "stopped":
            time.sleep(0.01)
        self.command("delete", "delete", name)
        self.command("kill of none", "kill", name, "KILL")
        self.command("create", "create", self._bundle, name)
        self.command("start", "start", name)
        self.command("delete --force", "delete", "--force", name)

    def close(self) -> None:
        """Nothing of it is left."""
        self._account.close()


def best(values: list[float]) -> float:
    """The one that others disturbed least."""
    return min(values)


def median(values: list[float]) -> float:
    """The usual one."""
    return sorted(values)[len(values) // 2]


def page(lives: list[Life]) -> str:
    """A Markdown table: ms, the best and the median of each."""
    names = [life.way.name for life in lives]
    lines = [f"| ms (best, median) | | {' | '.join(names)} |", "|---|---|" + "--:|" * len(names)]
    for what in ("elapsed", "CPU of all", "CPU of the command"):
        sums = {life.way.name: [0.0, 0.0] for life in lives}
        for phase in PHASES:
            cells = []
            for life in lives:
                values = [each[what] for each in life.found[phase]]
                cells.append(f"{best(values):.1f}, {median(values):.1f}")
                if phase in TOGETHER:
                    sums[life.way.name][0] += best(values)
                    sums[life.way.name][1] += median(values)
            lines.append(f"| {phase} | {what} | {' | '.join(cells)} |")
        cells = [f"{least:.1f}, {usual:.1f}" for least, usual in sums.values()]
        lines.append(f"| together: {', '.join(TOGETHER)} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def of_tree(name: str, tree: Path, folder: Path) -> Way:
    """Ours, from this worktree, which is built."""
    environment = ways.compiled(folder / f"compiled-{name}", tree)
    command = [sys.executable, "-m", "runsc", "--root", str(folder / name), "--network=none"]
    return Way(name, command, environment)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--gvisor", default=ways.GVISOR, metavar="FILE")
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    root = ways.run(str(ways.TREE / "ci" / "rootfs"), "busybox").splitlines()[-1]
    ways.enter_mount_namespace()
    folder = Path(tempfile.mkdtemp(prefix="bench-state-"))
    trees = dict(each.split("=", 1) for each in options.tree) | {"ours": str(ways.TREE)}
    chosen = [of_tree(name, Path(tree), folder) for name, tree in trees.items()]
    if os.access(options.gvisor, os.X_OK):
        chosen.append(ways.gvisor(options.gvisor, folder))
    stage = Stage(Path(root))
    os.chdir(folder)  # python -m looks for modules here first
    lives = [Life(way, stage) for way in chosen]
    try:
        for number in range(options.times + 1):
            for life in lives if number % 2 else lives[::-1]:
                life.once()
                if number == 0:  # the first one fills caches
                    life.found.clear()
        print(page(lives))
        if options.json is not None:
            found = {life.way.name: life.found for life in lives}
            options.json.write_text(json.dumps(found, indent=1))
    finally:
        for life in lives:
            life.close()
        os.chdir("/")
        stage.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])

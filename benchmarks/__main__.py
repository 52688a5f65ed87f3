"""The benchmarks: the same work natively and under each runtime, in turns.

    python -m benchmarks [--quick] [--rounds N] [--case WORD …] [--way NAME …] [--loaded]
                         [--out DIR]

As root, with gcc. Writes results.json, results.md and SVG charts to the folder `--out`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import lifecycle, plot, programs, report
from benchmarks.machine import about
from benchmarks.ways import DEFAULT, TREE, Stage, Way, available, enter_mount_namespace, run

ROOTS = ("debian", "programs", "languages", "services")
Measured = dict[str, dict[str, float]]


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--case", action="append", help="only cases whose name contains this")
    parser.add_argument("--way", action="append", help="ways of running, by name")
    parser.add_argument("--loaded", action="store_true", help="keep every CPU busy meanwhile")
    parser.add_argument("--out", type=Path, default=TREE / "docs" / "benchmarks")
    return parser.parse_args(arguments)


def rootfs(name: str) -> Path | None:
    """A cached root file system, made where that is possible."""
    command = [TREE / "ci" / "rootfs", name]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return Path(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None


class Suite:
    """What is measured, and what came of it."""

    def __init__(self, options: argparse.Namespace, ways: list[Way]) -> None:
        self.options = options
        self.ways = ways
        self.sections: dict[str, report.Results] = {}
        self.failed: set[tuple[str, str]] = set()

    def wanted(self, name: str) -> bool:
        """Whether --case asks for it."""
        return not self.options.case or any(word in name for word in self.options.case)

    def measure(self, section: str, way: Way, call: Callable[[], Measured]) -> None:
        """One round of one part; a way that fails is said so once and left out."""
        try:
            found = call()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            if (section, way.name) not in self.failed:
                print(f"  left out: {section}: {error}", file=sys.stderr)
            self.failed.add((section, way.name))
            return
        for case, values in found.items():
            if self.wanted(case):
                cases = self.sections.setdefault(section, {})
                cases.setdefault(case, {}).setdefault(way.name, []).append(values)

    def micro(self, stage: Stage) -> None:
        """Single operations (cases.c)."""
        names = micro_names()
        chosen = [name for name in names if self.wanted(name)]
        if not chosen:
            return
        which = "all" if chosen == names else ",".join(chosen)
        milliseconds = "20" if self.options.quick else "60"
        for way in self.ways:
            command = ["/mnt/cases", which, milliseconds]
            self.measure("Single operations", way, lambda: parse(way.run(stage, command)))  # noqa: B023

    def containers(self, stage: Stage) -> None:
        """run, exec, state."""
        if any(self.wanted(case) for case in ("run /bin/true", "exec /bin/true", "state")):
            times = 3 if self.options.quick else 7
            for way in self.ways:
                call = lambda: lifecycle.commands(way, stage, times)  # noqa: B023, E731
                self.measure("Containers", way, call)

    def idle(self, stage: Stage) -> None:
        """Memory, CPU, wake-ups; once, they hardly vary."""
        if not self.wanted("an idle container") and not self.wanted("memory of ten"):
            return
        for way in self.ways:
            if way.is_runtime:
                seconds = 2.0 if self.options.quick else 10.0
                self.measure("Idle", way, lambda: lifecycle.idle(way, stage, seconds))  # noqa: B023

    def whole(self, stages: dict[str, Stage], roots: dict[str, Path]) -> None:
        """Programs."""
        for program in programs.PROGRAMS:
            home = programs.home_of(program, roots)
            if not self.wanted(program.name):
                continue
            if home is None:
                if ("Programs", program.name) not in self.failed:
                    print(f"  left out: no root file system has {program.name}", file=sys.stderr)
                self.failed.add(("Programs", program.name))
                continue
            for way in self.ways:
                stage = stages[home]
                call = lambda: {program.name: programs.measure(program, way, stage)}  # noqa: B023, E731
                self.measure("Programs", way, call)

    def write(self, machine: dict[str, str]) -> None:
        """results.json, results.md, one chart a section."""
        out: Path = self.options.out
        out.mkdir(parents=True, exist_ok=True)
        ending = "-loaded" if self.options.loaded else ""
        names = [way.name for way in self.ways]
        charts = {s: f"{s.lower().replace(' ', '-')}{ending}.svg" for s in self.sections}
        data = {"about": machine, "results": self.sections}
        (out / f"results{ending}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False))
        page = report.markdown(machine, self.sections, names, charts)
        (out / f"results{ending}.md").write_text(page)
        for section, results in self.sections.items():
            drawn = plot.chart(f"{section}: ours / gVisor systrap", results)
            (out / charts[section]).write_text(drawn)


def micro_names() -> list[str]:
    """The cases that cases.c knows, in its order."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/cases"
        run("gcc", "-static", "-pthread", "-o", program, str(TREE / "benchmarks" / "cases.c"))
        return run(program, "names").splitlines()


def parse(output: str) -> Measured:
    """What cases.c printed."""
    rows = [line.split("\t") for line in output.splitlines()]
    return {name: {"median": float(median), "best": float(best)} for name, median, best in rows}


def spin() -> None:
    """Keep a CPU busy."""
    while True:
        pass


@contextmanager
def load(wanted: bool) -> Iterator[None]:
    """A busy process for every CPU."""
    busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in busy if wanted else ():
        process.start()
    try:
        yield
    finally:
        for process in busy if wanted else ():
            process.terminate()
            process.join()


def main(arguments: list[str]) -> None:
    """Measure and write."""
    options = options_of(arguments)
    if options.quick:
        options.rounds = 1
    roots = {name: path for name in ROOTS if (path := rootfs(name)) is not None}
    machine = about(sys.executable)
    enter_mount_namespace()
    folder = Path(tempfile.mkdtemp(prefix="bench-state-"))
    wanted = options.way or DEFAULT
    suite = Suite(options, [way for way in available(folder) if way.name in wanted])
    stages: dict[str, Stage] = {}
    try:
        for name, path in roots.items():
            stages[name] = Stage(path)
        first = next(iter(stages.values()))
        with load(options.loaded):
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
                suite.micro(first)
                suite.containers(first)
                suite.whole(stages, roots)
            suite.idle(first)
    finally:
        for stage in stages.values():
            stage.close()
        shutil.rmtree(folder, ignore_errors=True)
    suite.write(machine)
    for section, results in suite.sections.items():
        print(f"\n## {section}\n\n{report.table(results, [way.name for way in suite.ways])}")


if __name__ == "__main__":
    main(sys.argv[1:])

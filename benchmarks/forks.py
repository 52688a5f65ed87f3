"""What forks and going back cost: `python -m benchmarks.forks ROOT [--numpy FOLDER] [--mib 1024]`.

ROOT has CPython, which waits for lines of code, with numpy imported if FOLDER, of the host, has it.
Times are in milliseconds as the caller sees them, medians and the least; the state of the machine
is said with them. With --markdown they are a table.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runsc import Sandbox, Template
from runsc.api import states

LOOP = "import sys\nfor line in sys.stdin: exec(line); sys.stdout.flush()"
WATCH = "import time\nlast = time.monotonic_ns(); end = last + {ns}; most = 0\nwhile last < end:\n"
WATCH += " now = time.monotonic_ns(); most = max(most, now - last); last = now\nprint(most)\n"
DIRTY_MIB = 8
AT_ONCE = 100


class Table:
    """What was measured several times, by its name."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Once more."""
        self._found.setdefault(name, []).append(value)

    def timed(self, name: str, work: Callable[[], object]) -> None:
        """The same, of what `work` takes."""
        began = time.perf_counter()
        work()
        self.add(name, (time.perf_counter() - began) * 1000)

    def lines(self, pattern: str) -> list[str]:
        """One for each name: name, median, least, most."""
        return [
            pattern.format(name, statistics.median(found), min(found), max(found))
            for name, found in self._found.items()
        ]


def said(sandbox: Sandbox, pid: int, code: str) -> str:
    """What the Python that runs in it prints for a line."""
    with sandbox.commands.connect(pid) as command:
        command.send_stdin(code + "\n")
        return next(command.stdout.lines())


def pss_mib(state: str, forks: Sequence[Sandbox]) -> float:
    """Of each, on average."""
    total = 0
    for each in forks:
        text = Path(f"/proc/{states.load(state, each.sandbox_id).pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        assert found is not None
        total += int(found[1])
    return total / 1024 / len(forks)


def of_warm_python(table: Table, made: Sandbox, state: str, imports: str, rounds: int) -> None:
    """Forks of a template with an interpreter that waits."""
    with made.commands.run(["python3", "-c", LOOP], background=True) as python:
        python.send_stdin(f"import json{imports}; print(1)\n")
        if next(python.stdout.lines(), None) != "1":
            raise SystemExit("\n".join(python.stderr.lines()))  # the root lacks what they import
        template = Template.of(made)
        template.fork()[0].kill()  # begins the process that makes them
        for _ in range(rounds):
            began = time.perf_counter()
            (fork,) = template.fork()
            table.add("fork", (time.perf_counter() - began) * 1000)
            assert said(fork, python.pid, "print(2)") == "2"
            table.add("fork to the first line", (time.perf_counter() - began) * 1000)
            fork.kill()
        for _ in range(max(1, rounds // 3)):
            forks: list[Sandbox] = []
            table.timed(f"{AT_ONCE} forks", lambda: forks.extend(template.fork(AT_ONCE)))  # noqa: B023
            table.add("MiB of one of them (PSS), before its program runs", pss_mib(state, forks))
            for each in forks:
                assert said(each, python.pid, "print(2)") == "2"
            table.add("the same after its first line", pss_mib(state, forks))
            for each in forks:
                each.kill()


def of_much_memory(table: Table, made: Sandbox, mib: int, rounds: int) -> None:
    """What a parent that goes on notices, and the way back."""
    made.files.make_dir("/tmp")
    made.commands.run(f"head -c {DIRTY_MIB << 20} /dev/urandom > /tmp/changed")
    there = "only that"
    for much in (0, mib):
        if much:
            made.commands.run(f"head -c {much << 20} /dev/urandom > /tmp/kept")
            there = f"{mib} MiB"
        watch = ["python3", "-c", WATCH.format(ns=300_000_000)]
        name = f"longest pause of a program, nothing forked, {there} there"
        table.add(name, int(made.commands.run(watch).stdout) / 1e6)
        for at in range(rounds):
            with made.commands.run(watch, background=True) as program:
                time.sleep(0.1)
                (fork,) = made.fork()
                which = "the first fork" if not at else "further forks"
                name = f"longest pause of a program at {which}, {there} there"
                table.add(name, int(next(program.stdout.lines())) / 1e6)
                fork.kill()
        changes = f"head -c {DIRTY_MIB << 20} /dev/urandom > /tmp/changed"
        for _ in range(rounds):
            made.commands.run(changes)
            found: list[Template[Sandbox]] = []
            table.timed(f"template, {DIRTY_MIB} MiB changed, {there} there",
                        lambda: found.append(made.create_template()))  # noqa: B023  # fmt: skip
            for _ in range(2):
                made.commands.run(changes)
                table.timed(f"back to it, {DIRTY_MIB} MiB changed, {there} there",
                            lambda: made.rollback(found[0]))  # noqa: B023  # fmt: skip
            found[0].kill()


def measure(root: Path, numpy: Path | None, mib: int, rounds: int) -> Table:
    """All of it."""
    table = Table()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        mounts = {"/numpy": str(numpy)} if numpy else {}
        env = {"PYTHONPATH": "/numpy"}

        def made(memory: int) -> Sandbox:
            return Sandbox.create(
                root=root, state=folder, forkable=True, mounts=mounts, env=env, memory=memory
            )

        with made(1 << 30) as sandbox:
            of_warm_python(table, sandbox, folder, ", numpy" if numpy else "", rounds)
        with made((2 * mib + 512) << 20) as sandbox:
            of_much_memory(table, sandbox, mib, rounds)
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--numpy", type=Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    table = measure(given.root, given.numpy, given.mib, given.rounds)
    pattern = "{:70} {:8.1f}{:8.1f}{:8.1f}"
    print(f"load {load:.1f} to {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    if given.markdown:
        pattern = "| {} | {:.1f} | {:.1f} | {:.1f} |"
        print("| | median | least | most |\n|---|---|---|---|")
    print("\n".join(table.lines(pattern)))


if __name__ == "__main__":
    main()

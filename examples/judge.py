"""An online judge: submissions run on tests, each in a sandbox of its own, many at once.

    python3 examples/judge.py --root ROOT [--cpu SECONDS] TESTS SUBMISSION...

TESTS is a folder with NAME.in and NAME.out. Of each submission (a Python program) a line is
printed: its verdict, time and memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from runsc import (
    CpuLimitExceeded,
    LimitExceeded,
    Limits,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    Sandbox,
    SandboxError,
    Template,
    TimeLimitExceeded,
    Usage,
)

VERDICTS = {
    MemoryLimitExceeded: "memory limit", OutputLimitExceeded: "output limit",
    CpuLimitExceeded: "time limit", TimeLimitExceeded: "time limit",
}  # fmt: skip
LIMITS = Limits(cpu=2.0, memory=128 << 20, processes=16, written=16 << 20, output=1 << 20)
WALL = 60.0
"""Seconds of a test: who sleeps is ended, too. Many run at once on few CPUs, so it is long."""


@dataclass(frozen=True)
class Case:
    """A test."""

    name: str
    given: bytes
    wanted: bytes


@dataclass(frozen=True)
class Verdict:
    """What came of a submission."""

    word: str
    """accepted, wrong answer, runtime error, or the limit that was exceeded."""
    case: str = ""
    """At which test."""
    cpu: float = 0.0
    memory: int = 0


def cases(folder: Path) -> list[Case]:
    """Those of a folder, by name."""
    return [
        Case(each.stem, each.read_bytes(), each.with_suffix(".out").read_bytes())
        for each in sorted(folder.glob("*.in"))
    ]


def same(said: bytes, wanted: bytes) -> bool:
    """But for spaces at the ends of lines, and empty lines at the end."""
    lines = [[line.rstrip() for line in text.rstrip().split(b"\n")] for text in (said, wanted)]
    return lines[0] == lines[1]


def judge(sandbox: Sandbox, source: bytes, tests: Iterable[Case], limits: Limits) -> Verdict:
    """In a sandbox that nobody else has. The tests' answers never get inside."""
    sandbox.files.write("/submission/main.py", source)
    cpu, memory = 0.0, 0
    for case in tests:
        try:
            done = sandbox.commands.run(
                ["python3", "-I", "/submission/main.py"], stdin=case.given, limits=limits,
                timeout=WALL, user="65534:65534",
            )  # fmt: skip
        except LimitExceeded as error:
            return Verdict(VERDICTS.get(type(error), error.what()), case.name, *_most(
                error.result.usage, cpu, memory))  # fmt: skip
        cpu, memory = _most(done.usage, cpu, memory)
        if done.exit_code:
            return Verdict("runtime error", case.name, cpu, memory)
        if not same(done.stdout_bytes, case.wanted):
            return Verdict("wrong answer", case.name, cpu, memory)
    return Verdict("accepted", "", cpu, memory)


def _most(usage: Usage, cpu: float, memory: int) -> tuple[float, int]:
    return max(cpu, usage.cpu), max(memory, usage.memory)


def judge_all(
    sources: Sequence[bytes], tests: Sequence[Case], *, at_once: int = 50,
    limits: Limits = LIMITS, **options: Any,
) -> list[Verdict]:  # fmt: skip
    """All of them, in their order; `options`: of `Sandbox.create`."""
    with Sandbox.create(forkable=True, **options) as prepared:
        prepared.commands.run(["python3", "-c", ""]).check()  # what all read is read once
        with Template.of(prepared) as template, ThreadPoolExecutor(at_once) as pool:

            def one(fork: Sandbox, source: bytes) -> Verdict:
                try:
                    return judge(fork, source, tests, limits)
                except SandboxError as error:
                    return Verdict(f"not judged: {error}")
                finally:
                    fork.kill()

            found: list[Verdict] = []
            for begin in range(0, len(sources), at_once):
                batch = sources[begin : begin + at_once]
                found += pool.map(one, template.fork(len(batch)), batch)
            return found


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with Python in it; the host's own files else")
    parser.add_argument("--cpu", type=float, default=LIMITS.cpu, help="seconds a test may compute")
    parser.add_argument("tests", type=Path)
    parser.add_argument("submissions", nargs="+", type=Path)
    given = parser.parse_args()
    sources = [path.read_bytes() for path in given.submissions]
    limits = msgspec.structs.replace(LIMITS, cpu=given.cpu)
    found = judge_all(sources, cases(given.tests), limits=limits, root=given.root)
    for path, verdict in zip(given.submissions, found, strict=True):
        where = f" at {verdict.case}" if verdict.case else ""
        print(f"{path}: {verdict.word}{where}, {verdict.cpu:.2f} s, {verdict.memory >> 20} MiB")


if __name__ == "__main__":
    main()

"""What a program needs is learnt from a run of it, and then it gets no more.

    python3 examples/policy_learning.py --root ROOT SAMPLE INPUT...

The program adds up the cells of a table, and has a hole: it evaluates them. It is run once with
SAMPLE, which is harmless, while all that it does is written down; then with each INPUT, by a policy
that allows what was seen. So a cell that reads a file, or starts a program, gets nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from runsc import Sandbox

REPORT = """
import csv, sys
try:
    print(sum(eval(cell) for row in csv.reader(sys.stdin) for cell in row[1:]))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
COMMAND = ["env", "-i", "HOME=/", "/usr/bin/python3", "-I", "-B", "-c", REPORT]
"""Nothing of an environment, and no files of compiled code that it might write or not: each run
needs what the others need."""


def learn(sample: bytes, policy: Path, root: str | None) -> None:
    """Write the least policy with which the program does that. Raises: CalledProcessError."""
    of = ["--root", os.path.abspath(root)] if root else []
    words = [sys.executable, "-m", "runsc", "policy", "learn", "--output", str(policy)]
    subprocess.run([*words, "--quiet", *of, *COMMAND], input=sample, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def report(table: bytes, policy: Path, **options: Any) -> tuple[str, int]:
    """What the program says of a table, and how many calls were denied to it."""
    with Sandbox.create(policy=policy, **options) as sandbox:
        done = sandbox.commands.run(COMMAND, stdin=table)
        denied = sum(n for name, n in sandbox.policy.counts().items() if ".deny" in name)
    return (done.stdout or done.stderr).strip(), denied


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with Python in it; the host's own files else")
    parser.add_argument("sample", type=Path)
    parser.add_argument("input", nargs="+", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder, "policy.toml")
        learn(given.sample.read_bytes(), policy, given.root)
        for table in given.input:
            said, denied = report(table.read_bytes(), policy, root=given.root)
            print(f"{table}: {said} ({denied} calls denied)")


if __name__ == "__main__":
    main()

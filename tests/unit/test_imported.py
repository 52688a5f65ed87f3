"""What the Sentry imports before it is locked in does not grow unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.imports import ALL, LIBRARIES

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "benchmarks" / "imports.md"
SLACK = 1.05
"""Of the KiB of all together: libraries look at the environment."""


def rows(text: str) -> dict[str, tuple[int, int]]:
    """Room → modules and KiB, of such a table."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {room: (int(modules), int(kib)) for room, modules, kib in cells[1:]}


@pytest.mark.kvm
def test_the_sentry_imports_no_more_than_the_table_says() -> None:
    command = [sys.executable, "-m", "benchmarks.imports"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    heading, found = done.stdout.splitlines()[0], rows(done.stdout)
    bound = rows(TABLE.read_text())

    more = {name for name in found.keys() - {ALL, LIBRARIES} if found[name][0] > bound[name][0]}
    assert not more, f"if it has to be: {' '.join(command[1:])} > docs/benchmarks/imports.md"
    if heading in TABLE.read_text():  # that Python's sizes
        assert found[ALL][1] <= SLACK * bound[ALL][1]

"""What a call does must not depend on which calls were made, and rooms imported, before it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[3]
FILLED_AT_ONCE = {"ABSENT", "CALLS", "PROCESS", "ROOT", "SYSCTLS", "TABLE", "_MADE"}
"""Filled by `late.py` for a sandbox, by `declared.py` for who looks for a file of /proc, and by
`sysctl_tree.py` for who looks into /proc/sys; who reads declarations imports them all. The last is
of classes of `sentry.errors`, which there are once somebody names them."""
WHO_ASKS_DECLARES = {
    "SOCKET": {"(1, 26)", "(1, 27)", "(1, 48)", "(1, 51)", "(1, 68)"},  # by sentry.net.socket
    "UNIX": {"(1, 77)"},  # by the module of getsockopt(2)
}
"""Rows that come from another module than their registry, which nobody can ask without it."""


@pytest.fixture
def seen() -> dict[str, Any]:
    """What `first_calls.py` tells, in half a minute: for one test."""
    command = [sys.executable, "-m", "tests.unit.syscalls.first_calls"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_first_calls_are_as_later_ones_and_registries_whole_when_imported(
    seen: dict[str, Any],
) -> None:
    late = {name: set(rows) for name, rows in seen["late"].items()}

    assert seen["calls"] > 500
    assert seen["differ"] == []
    assert {n: rows for n, rows in late.items() if n not in FILLED_AT_ONCE} == WHO_ASKS_DECLARES

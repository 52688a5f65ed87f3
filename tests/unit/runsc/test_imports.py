"""What the commands that engines give most import: each module costs every one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runsc.containers.container import Store
from runsc.containers.state import State

DEAR = {"click", "msgspec", "re", "enum", "typing", "contextlib", "socket", "signal", "json",
        "inspect", "collections", "functools", "types"}  # fmt: skip
"""Such as cost more than the command itself."""
PROGRAM = """
import sys
from runsc import quick
order = quick.understood(sys.argv[1:])
assert order is not None
order.carry_out()
print(*sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "line",
    ["state c", "kill c KILL", "start c", "delete c", "delete --force c", "pause c", "resume c",
     "ps -f json c", "wait c", "exec c true", "kill none"],
)  # fmt: skip
def test_nothing_dear_is_imported(line: str, tmp_path: Path) -> None:
    Store(str(tmp_path)).create(State("1.2.0", "c", "/b", phase="running"))

    command = [sys.executable, "-S", "-c", PROGRAM, "--root", str(tmp_path), *line.split()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert not DEAR & set(done.stderr.splitlines()[-1].split())

"""Sandboxes of the Python API for tests, and what is left of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from runsc import Sandbox
from tests.e2e.bundle import STEPS, TIMEOUT_S

FLAGS = (f"--TESTONLY-steps={STEPS}",)
MEMORY = 512 << 20
ANSWERS = 'n=0; while read line; do n=$((n+1)); echo "$n $line"; done'
"""Numbers lines, and tells of them."""


def made(folder: Path, root: Path, platform: str = "kvm", **others: Any) -> Sandbox:
    """One over a root file system, noted below a folder of the test's own."""
    given = {"root": root, "memory": MEMORY, "platform": platform, "flags": FLAGS, **others}
    return Sandbox.create(state=folder / "state", **given)


def processes_of(sandbox_id: str) -> list[str]:
    """Titles of what carries a sandbox on the host."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if sandbox_id in title and "runsc" in title:
                found.append(title)
    return found


def noted(folder: Path) -> list[str]:
    """Sandboxes that are noted there."""
    state = folder / "state"
    return sorted(name for name in os.listdir(state) if name != ".lock") if state.exists() else []


def wait_until_idle(sandbox: Sandbox, tasks: int = 1) -> None:
    """So many tasks are left in it: one waits, of its first process."""
    deadline = time.monotonic() + TIMEOUT_S
    while (found := sandbox.stats().processes) != tasks:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def wait_until_gone(folder: Path, sandbox_id: str) -> None:
    """Nothing is left of it: no process, no note."""
    deadline = time.monotonic() + TIMEOUT_S
    while left := [*processes_of(sandbox_id), *noted(folder)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def said(sandbox: Sandbox, command: str) -> str:
    """What a command that succeeds prints."""
    result = sandbox.commands.run(command)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def wait_until_stopped(sandbox: Sandbox) -> None:
    """And nothing is noted of it."""
    deadline = time.monotonic() + TIMEOUT_S
    while sandbox.is_running():
        assert time.monotonic() < deadline
        time.sleep(0.01)

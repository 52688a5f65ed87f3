"""Commands of the command line that the API has run for it, over programs that are none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runsc.api import programs
from runsc.api.blocking import keeping
from runsc.api.blocking.poll import ready
from runsc.api.blocking.sandbox import Sandbox
from runsc.api.errors import SandboxError
from runsc.api.order import MAX_LINE


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[programs.Child]:
    """A command that takes longer than anybody waits who waits for a time."""
    process = programs.Child(
        ["sh", "-c", "read line; exit 0"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    source = process.stdin

    def waited(wanted: Mapping[int, int], seconds: float | None) -> dict[int, int]:
        if seconds is None:
            source.close()
        return ready(wanted, None) if source.closed else {}

    monkeypatch.setattr(programs, "begun", lambda *_, **__: process)
    monkeypatch.setattr(keeping, "ready", waited)
    with process:
        yield process


def test_a_command_that_does_not_end_is_ended_and_says_so(slow: programs.Child) -> None:
    with pytest.raises(SandboxError, match=r"^the sandbox does not answer$"):
        keeping.command("/state", "pause", "s")
    assert slow.returncode == -9


def test_a_snapshot_is_compressed_however_long_it_takes(
    slow: programs.Child, tmp_path: Path
) -> None:
    sandbox = Sandbox("s", str(tmp_path), None, None)
    sandbox.create_snapshot(tmp_path / "snapshot", compression="zstd")
    assert slow.returncode == 0


def test_an_order_that_no_keeper_reads_is_an_error_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeping, "_begun", lambda *_: programs.Child(["true"]))
    with pytest.raises(ValueError, match=f"of {MAX_LINE} at most"):
        Sandbox.create(env={"A": "x" * MAX_LINE}, state=tmp_path)

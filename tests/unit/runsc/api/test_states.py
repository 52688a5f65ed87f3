"""Sandboxes that are noted on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.api import states
from runsc.api.errors import SandboxError, SandboxNotFound
from runsc.api.order import ANNOTATION
from runsc.containers.container import Store
from runsc.containers.processes import start_time
from runsc.containers.state import State


def note(root: Path, name: str, **others: object) -> None:
    pid = os.getpid()
    state = State("1.2.0", name, "/", pid=pid, pid_start=start_time(pid), phase="running")
    Store(str(root)).create(state.changed(**others))


def test_those_that_were_made_so_and_run_are_found(tmp_path: Path) -> None:
    note(tmp_path, "b", annotations={ANNOTATION: "attached"}, foreground=True)
    note(tmp_path, "a", annotations={ANNOTATION: "detached"})
    note(tmp_path, "other")
    note(tmp_path, "stopped", annotations={ANNOTATION: "attached"}, pid=0)
    (tmp_path / "nothing").mkdir()

    found = states.made_so(str(tmp_path))
    assert [(state.id, states.is_detached(state)) for state in found] == [("a", True), ("b", False)]
    assert states.made_so(str(tmp_path / "none")) == []
    assert states.socket_of("/root", "x") == "/root/x/control.sock"
    assert states.root_of("/a/../b") == "/b"


def test_what_is_not_there_or_broken_says_so(tmp_path: Path) -> None:
    with pytest.raises(SandboxNotFound, match='no sandbox "x"'):
        states.load(str(tmp_path), "x")
    with pytest.raises(SandboxError, match="invalid container ID"):
        states.load(str(tmp_path), "../x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "state.json").write_text("{}")
    with pytest.raises(SandboxError, match="missing required field"):
        states.load(str(tmp_path), "x")


def test_nothing_of_the_process_is_changed(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        states.made_so(str(tmp_path))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)

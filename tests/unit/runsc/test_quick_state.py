"""The quick way of `state` prints what the command line's does, and leaves to it what is odd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc import cli, quick_state
from runsc.containers.container import State, Store
from runsc.containers.processes import start_time


def _store(root: Path, **fields: object) -> None:
    values = {"pid": os.getpid(), "pid_start": start_time(os.getpid()), "phase": "running"}
    state = State("1.2.0", "c", "/bündel", **(values | fields))  # type: ignore[arg-type]
    store = Store(str(root))
    store.create(state)
    store.save(state)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"paused": True, "annotations": {"a": "b", "ü": "\n"}},
        {"pid_start": 1},
        {"phase": "creating"},
        {"phase": "created", "rootfs": "/r", "created": "2026-01-01T00:00:00Z"},
    ],
)
def test_it_prints_what_the_command_line_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, object]
) -> None:
    _store(tmp_path, **fields)
    args = ["--root", str(tmp_path), "state", "c"]
    with pytest.raises(SystemExit):
        cli.main(args)
    expected = capsys.readouterr().out

    assert quick_state.attempt(args) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    "args",
    [
        ["state"], ["state", "c", "d"], ["state", "--help"], ["state", "missing"], ["state", ".."],
        ["--unknown", "state", "c"], ["list"],
    ],
)  # fmt: skip
def test_what_is_odd_is_left_to_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    _store(tmp_path)

    assert quick_state.attempt(["--root", str(tmp_path), *args]) is None
    assert capsys.readouterr().out == ""

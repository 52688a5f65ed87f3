"""What a zygote that begins by itself is given; that it does begin: tests/e2e/test_zygote.py."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from runsc.zygote import beginning, place


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Arguments and environment of what was executed, which nothing is."""
    found: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        os, "posix_spawn", lambda path, words, variables, **_: found.append((words, variables))
    )
    monkeypatch.setattr(place, "program", lambda: os.urandom(16))
    monkeypatch.setattr(beginning, "_is_confined", lambda: False)
    return found


def test_begin_gives_it_what_is_its_own_and_a_claim(
    spawned: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("PYTHONHASHSEED", "7")

    beginning.begin(())

    [(words, variables)] = spawned
    assert words[: len(beginning.COMMAND)] == list(beginning.COMMAND)
    assert words[-1].startswith("--claim=")
    assert variables["PYTHONHASHSEED"] == "7"
    assert place.HOME in variables["PYTHONPATH"].split(":")
    assert "SECRET" not in variables


def test_begin_while_one_begins_does_nothing(
    spawned: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "program", lambda: b"the same")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        claim.bind(f"\0{beginning._claim()}")
        beginning.begin(())
    assert spawned == []
    beginning.begin(())
    assert len(spawned) == 1


def test_confined_is_who_has_a_filter_or_cannot_gain() -> None:
    told = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith(("NoNewPrivs", "Seccomp:")))  # fmt: skip
    assert beginning._is_confined() == any(int(value) for value in told.values())

"""What a zygote that begins by itself is given; that it does begin: tests/e2e/test_zygote.py."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from runsc.zygote import beginning, client, place


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Arguments and environment of what was executed, which nothing is."""
    found: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        os, "posix_spawn", lambda path, words, variables, **_: found.append((words, variables))
    )
    monkeypatch.setattr(place, "program", lambda: os.urandom(16))
    monkeypatch.setattr(beginning, "_is_confined", lambda: False)
    monkeypatch.setattr(beginning, "_is_apart", lambda: False)
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)
    return found


def test_begin_gives_it_what_is_its_own_and_a_claim(
    spawned: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("PYTHONHASHSEED", "7")

    beginning.begin()

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
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as claim:
        claim.bind(beginning.claim_name())
        beginning.begin()
    assert spawned == []
    beginning.begin()
    assert len(spawned) == 1


def test_begin_without_descriptors_does_nothing(
    spawned: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "too many")

    with monkeypatch.context() as patch:
        patch.setattr(_socket, "socket", none)
        beginning.begin()
    with monkeypatch.context() as patch:
        patch.setattr(client, "inherited", none)
        beginning.begin()
    assert spawned == []


@pytest.mark.parametrize(("user", "nice", "count"), [(0, 5, 1), (1000, 0, 1), (1000, 5, 0)])
def test_none_begins_behind_others_but_root_s(
    spawned: list[tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    nice: int,
    count: int,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "getpriority", lambda *_: nice)
    beginning.begin()
    assert len(spawned) == count


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a network namespace")
def test_apart_is_who_has_a_network_that_may_end() -> None:
    script = f"from runsc.zygote import beginning as b; print(b._is_apart({os.getpid()}))"
    env = {**os.environ, "PYTHONPATH": place.HOME}
    for before, wanted in (([], "False"), (["unshare", "--net"], "True")):
        words = [*before, sys.executable, "-c", script]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted


def test_confined_is_who_has_a_filter_or_cannot_gain() -> None:
    told = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith(("NoNewPrivs", "Seccomp:")))  # fmt: skip
    assert beginning._is_confined() == any(int(value) for value in told.values())

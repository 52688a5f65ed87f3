"""A sandbox as an object, over a keeper that is none."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from runsc.api import programs
from runsc.api.blocking import keeping
from runsc.api.blocking.keeping import Keeper
from runsc.api.blocking.sandbox import Sandbox
from runsc.api.blocking.wire import Wire


def test_a_forked_child_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "END_S", 0.01)
    alive, keep = os.pipe()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:  # as a zygote's fork that keeps it
        os.close(keep)
        os.read(alive, 1)
        os._exit(0)
    keeper = Keeper(programs.OfZygote(os.pidfd_open(pid)), Wire(ours))
    sandbox = Sandbox("s", str(tmp_path), None, keeper)
    closed: list[str] = []
    monkeypatch.setattr(sandbox._objects, "close", lambda: closed.append("objects"))
    monkeypatch.setattr(sandbox._connections, "close", lambda: closed.append("connections"))

    child = os.fork()
    if not child:
        os._exit(sandbox.kill() or sandbox.kill() or len(closed))
    assert os.waitpid(child, 0) == (child, 0)
    os.close(keep)
    assert os.waitpid(pid, 0) == (pid, 0)  # and of no signal
    with theirs:
        assert not sandbox.kill()
    os.close(alive)
    assert closed == ["objects", "connections"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"image": ""}, "an empty name"),
        ({"root": ""}, "an empty name"),
        ({"bundle": b""}, "an empty name"),
        ({"root": "/", "image": ""}, "root, bundle or image?"),
        ({"network": "None"}, "not 'None'"),
        ({"network": ""}, "not ''"),
        ({"network": "run/netns/x"}, "path of a namespace"),
    ],
)
def test_what_makes_no_sense_makes_no_sandbox(
    given: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Keeper, "begin", lambda *_: pytest.fail("a sandbox is made"))
    with pytest.raises(ValueError, match=reason):
        Sandbox.create(state=tmp_path, **given)

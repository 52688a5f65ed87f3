"""A sandbox as an object, over a keeper that is none."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runsc.api import programs, states
from runsc.api.blocking import forking, keeping
from runsc.api.blocking.keeping import Keeper
from runsc.api.blocking.sandbox import Sandbox
from runsc.api.blocking.wire import Wire
from runsc.api.errors import SandboxEnded, SandboxError, SandboxNotFound
from runsc.containers.listener import listen
from runsc.containers.state import State
from sentry.control.protocol import Request


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


def test_who_is_gone_is_not_forked_and_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(programs, "begun", lambda module, *_: begun.append(module))
    sandbox = Sandbox("s", str(tmp_path), None, None)
    with pytest.raises(SandboxNotFound):
        sandbox.fork()
    with pytest.raises(SandboxNotFound):
        sandbox.create_template()
    assert not begun


def test_more_forks_than_one_can_ask_for_are_an_error_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "MAX_LINE", 200)
    monkeypatch.setattr(forking, "states", SimpleNamespace(load=lambda *_: None))
    forker = forking.Forker(str(tmp_path))
    with pytest.raises(ValueError, match="200 at most"):
        forker.fork("s", 20)
    assert forker._process is None


def test_forks_of_one_that_another_thread_ends_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = socket.socket(socket.AF_UNIX)
    ended.close()
    forker = forking.Forker(str(tmp_path))
    monkeypatch.setattr(forker, "_start", lambda: ended)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SandboxError, match="has ended"):
        forker.roll_back("s", "t")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_sandbox_that_has_ended_is_no_sigpipe_for_its_caller() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        code = 1
        try:
            Wire(ours).send(Request("state"), [0])
        except SandboxEnded:
            code = 0
        finally:
            os._exit(code)
    ours.close()
    assert os.waitpid(child, 0) == (child, 0)


def test_a_snapshot_is_of_the_sandbox_that_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is read then: between the two another one could get its name."""
    (tmp_path / "s").mkdir()
    with listen(str(tmp_path / "s" / "control.sock")) as listener:

        def load(*_: str) -> State:
            listener.accept()[0].close()
            raise SandboxNotFound

        monkeypatch.setattr(states, "load", load)
        with pytest.raises(SandboxNotFound):
            Sandbox("s", str(tmp_path), None, None).create_snapshot(tmp_path / "snapshot")

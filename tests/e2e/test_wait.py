"""wait: how a container, or a process in it, has ended."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import TIMEOUT_S, Bundle
from tests.e2e.client import Client

WAIT = "object sentry.control.waiting.Wait"
MOST = 200
"""Looks at a sandbox for something that will come."""
AFTER_EXEC = "until read name </proc/1/comm && [ $name != sh ]; do :; done"
"""A shell would wait for a child that ends before."""
ZOMBIE = (
    f"sh -c '{AFTER_EXEC}; exit 3' & sh -c '{AFTER_EXEC}; kill -9 $$' & echo ready; exec sleep 1000"
)


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def _waiting(client: Client, *args: str) -> subprocess.Popen[str]:
    """A `wait` of which the sandbox knows."""
    waiting = client.begin("wait", *args)
    for _ in range(MOST):
        if json.loads(client.ok("debug", "--counts", args[0])).get(WAIT):
            return waiting
    raise AssertionError("it does not wait")


def _answer(waiting: subprocess.Popen[str]) -> dict[str, object]:
    output, _ = waiting.communicate(timeout=TIMEOUT_S)
    assert waiting.returncode == 0
    answer: dict[str, object] = json.loads(output)
    return answer


def _until_ready(client: Client, name: str) -> None:
    for _ in range(MOST):
        if "ready" in client.output(name):
            return
        client.state(name)
    raise AssertionError("it is not ready")


def test_wait_tells_the_exit_code_of_the_container(client: Client) -> None:
    client.bundle.args("sh", "-c", "exit 7")
    client.create("c")
    waiting = _waiting(client, "c")
    client.ok("start", "c")

    assert _answer(waiting) == {"id": "c", "exitStatus": 7}
    assert client.error("wait", "c") == 'container not running: "c"'
    client.ok("delete", "--force", "c")
    assert client.error("wait", "c") == 'container "c" does not exist'


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_wait_tells_the_signal_that_ended_a_container_that_never_ran(
    client: Client, signal: str
) -> None:
    client.create("c")
    waiting = _waiting(client, "c", "--pid=1")
    client.ok("kill", "c", signal)

    assert _answer(waiting)["exitStatus"] == {"TERM": 143, "KILL": 137}[signal]
    client.ok("delete", "--force", "c")


def test_wait_for_a_sandbox_that_is_killed_is_137(client: Client) -> None:
    client.create("c")
    waiting = _waiting(client, "c")
    state = json.loads(Path(client.root, "c", "state.json").read_text())
    os.kill(state["sentryPid"], 9)

    assert _answer(waiting)["exitStatus"] == 137
    client.ok("delete", "--force", "c")


def test_wait_for_a_process_inside(client: Client) -> None:
    client.bundle.args("sh", "-c", ZOMBIE)
    client.create("c", "--detach", command="run")
    _until_ready(client, "c")

    for flag, pid, code in (("--pid", 2, 3), ("--rootpid", 3, 137), ("--pid", 2, 3)):
        answer = json.loads(client.ok("wait", f"{flag}={pid}", "c"))
        assert answer == {"id": "c", "exitStatus": code}
    client.ok("kill", "--pid=1", "c", "0")
    assert "already finished" in client.error("kill", "--pid=99", "c", "0")
    assert "only one of" in client.error("kill", "--pid=1", "--all", "c")
    assert "no such process" in client.error("wait", "--pid=99", "c")
    assert "only one of" in client.error("wait", "--pid=1", "--rootpid=1", "c")
    waiting = _waiting(client, "c", "--pid=1")
    waiting.kill()
    waiting.communicate()
    counts = json.loads(client.ok("debug", "--counts", "c"))
    assert WAIT not in counts
    client.ok("delete", "--force", "c")

"""startContainer hooks: programs of the container, run in it before its first process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.client import Client, wait_for_end


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def _hook(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=of the hook"], **more}


def test_it_sees_the_container_and_comes_before_its_program(client: Client) -> None:
    client.bundle.document["hooks"] = {
        "startContainer": [_hook("cat >/dev/shm/state; echo $A >/dev/shm/env; ps >/dev/shm/ps")]
    }
    client.bundle.args("sh", "-c", "cd /dev/shm; cat env; cat ps; cat state")
    pid = client.create("c")
    pidfd = os.pidfd_open(pid)

    client.ok("start", "c")

    wait_for_end(pidfd)
    lines = client.output("c").splitlines()
    assert lines[0] == "of the hook"
    assert any(line.split()[0] == "1" for line in lines[2:-1])
    state = json.loads(lines[-1])
    assert (state["id"], state["status"], state["pid"]) == ("c", "created", pid)
    client.ok("delete", "c")


def test_without_an_environment_it_has_that_of_the_process_and_its_directory(
    client: Client,
) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo $WHOSE $(pwd) >/dev/shm/told"]}
    client.bundle.document["hooks"] = {"startContainer": [hook]}
    client.bundle.document["process"].update(env=["WHOSE=process", "PATH=/bin"], cwd="/etc")
    client.bundle.args("cat", "/dev/shm/told")
    pidfd = os.pidfd_open(client.create("c"))

    client.ok("start", "c")

    wait_for_end(pidfd)
    assert client.output("c") == "process /etc\n"
    client.ok("delete", "c")


def test_what_config_json_says_at_start_changes_nothing(client: Client) -> None:
    """runc 1.1: all of it is as it was at `create`."""
    document = client.bundle.document
    document["hooks"] = {
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo $WHOSE >/dev/shm/told"]}]
    }
    document["process"]["env"] = ["WHOSE=as created", "PATH=/bin"]
    client.bundle.args("cat", "/dev/shm/told")
    pidfd = os.pidfd_open(client.create("c"))
    document["process"]["env"] = ["WHOSE=as started", "PATH=/bin"]
    client.bundle.write()

    client.ok("start", "c")

    wait_for_end(pidfd)
    assert client.output("c") == "as created\n"
    client.ok("delete", "c")


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (_hook("echo out; exit 3"), "exit status 3, stdout: out"),
        (_hook("sleep 100", timeout=1), "hook ran past specified timeout of 1.0s"),
    ],
)
def test_one_that_fails_ends_the_container(
    client: Client, hook: dict[str, Any], message: str
) -> None:
    client.bundle.document["hooks"] = {"startContainer": [hook]}
    client.bundle.args("echo", "never")
    client.create("c")

    assert message in client.error("start", "c")

    assert client.state("c")["status"] == "stopped"
    assert client.output("c") == ""
    client.ok("delete", "c")
    assert client.remains() == []
    assert message in client.error("run", f"--bundle={client.bundle.path}", "c")
    assert client.remains() == []


def test_run_whose_container_is_deleted_in_a_hook_ends_as_killed(
    client: Client, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    os.mkfifo(began)
    place = {"destination": str(began), "type": "bind", "source": str(began)}
    client.bundle.document["mounts"].append(place)
    script = f"echo >{began}; exec sleep 1000"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}
    client.bundle.document["hooks"] = {"startContainer": [hook]}
    client.bundle.args("true")
    with client.begin("run", f"--bundle={client.bundle.write()}", "c") as run, began.open():
        client.ok("delete", "--force", "c")

        assert run.wait() == 137
    assert client.remains() == []

"""Containers of one sandbox end by themselves, and leave nothing in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e.bundle import Document
from tests.e2e.client import wait_for_end
from tests.e2e.pod import Pod, joins, said


@pytest.mark.parametrize("what", ["first process", "stand-in", "gofer"])
def test_death_of_one_harms_no_other(pod: Pod, what: str) -> None:
    first = pod.run("pause")
    second = pod.run("app")
    third = pod.run("other")
    state = json.loads((first.root / "app" / "state.json").read_text())
    pidfd = os.pidfd_open(pod.pids["app"])

    if what == "first process":
        second.ok("kill", "app", "KILL")
    else:
        os.kill(state["pid" if what == "stand-in" else "goferPid"], 9)
    wait_for_end(pidfd)

    assert second.state("app")["status"] == "stopped"
    for client, name in ((first, "pause"), (third, "other")):
        assert client.ok("exec", name, "echo", "alive") == "alive\n"
        assert client.state(name)["status"] == "running"
    second.ok("delete", "app")
    pod.run("app")
    assert second.ok("exec", "app", "cat", "/etc/passwd").startswith("root:")


def test_sandbox_ends_with_the_container_that_made_it(pod: Pod) -> None:
    first = pod.run("pause")
    second = pod.run("app")
    created = pod.create("other")
    ends = [os.pidfd_open(pod.pids[name]) for name in ("app", "other")]

    first.ok("kill", "pause", "KILL")

    for pidfd in ends:
        wait_for_end(pidfd)
    assert second.state("app")["status"] == created.state("other")["status"] == "stopped"
    error = second.error("create", f"--bundle={second.bundle.write()}", "late")
    assert 'the sandbox "pause" has stopped' in error


def test_end_of_a_container_ends_who_is_in_its_pid_namespace(pod: Pod) -> None:
    pod.run("pause")
    target = pod.run("app", "echo up; exec sleep 1000")
    said(target, "app", "up")
    debugs = pod.run("debugs", change=joins(pid=pod.path("app", "pid")))
    said(debugs, "debugs", "up")
    pidfds = [os.pidfd_open(pod.pids[name]) for name in ("app", "debugs")]

    target.ok("kill", "app", "KILL")
    for pidfd in pidfds:
        wait_for_end(pidfd)

    assert target.state("app")["status"] == "stopped"
    assert debugs.state("debugs")["status"] == "stopped"
    assert pod.client("pause").ok("exec", "pause", "echo", "alive") == "alive\n"


def test_container_that_has_ended_leaves_nothing_in_the_sandbox(pod: Pod, tmp_path: Path) -> None:
    def mounted(document: Document) -> None:
        document["mounts"].append(
            {"destination": "/v", "source": str(tmp_path), "options": ["bind", "rw"]}
        )

    first = pod.run("pause", "exec sleep 1000")

    def counts() -> dict[str, int]:
        found = json.loads(first.ok("debug", "--counts", "pause"))
        objects = ("Container", "Session", "Mount", "MountNamespace", "ControlServer", "PtySlave")
        return {
            name: value
            for name, value in found.items()
            if name.startswith(("descriptors_", "tasks", "processes", "sessions", "fibers"))
            or name in ("watches", "mounts", "ipc_namespaces", "bugs")
            or name.endswith(tuple(f".{each}" for each in objects))
        }

    def settled() -> dict[str, int]:
        """A Gofer's session goes when its process has gone, a moment after the answer."""
        for _ in range(50):
            found = counts()
            left = {name: number for name, number in found.items() if name.startswith("object")}
            if not left:
                break
        assert not left
        return found

    def once() -> None:
        client = pod.run("app", change=mounted)
        client.ok("exec", "app", "sh", "-c", "echo x >/v/x; echo y >/y; cat /v/x /y")
        client.ok("delete", "--force", "app")
        failed = client.call("create", f"--bundle={client.bundle.args('/nope').write()}", "app")
        assert failed.returncode == 1

    once()
    before = settled()
    once()
    once()

    assert settled() == before

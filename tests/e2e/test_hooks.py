"""Hooks of a bundle, as the caller sees them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.client import Client


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def _hook(script: str) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}


def test_hooks_run_in_their_order_with_the_state_of_that_moment(
    client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    phases = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    client.bundle.document["hooks"] = {
        phase: [_hook(f"echo {phase} $(cat) >> {log}")] for phase in phases
    }
    client.bundle.args("sh", "-c", "echo hello")

    pid = client.create("c")
    created = [line.partition(" ") for line in log.read_text().splitlines()]
    client.ok("start", "c")
    client.ok("delete", "--force", "c")

    assert [phase for phase, _, _ in created] == phases[:3]
    states = {
        phase: json.loads(state)
        for phase, _, state in (line.partition(" ") for line in log.read_text().splitlines())
    }
    assert list(states) == phases
    assert {state["id"] for state in states.values()} == {"c"}
    assert {state["bundle"] for state in states.values()} == {str(client.bundle.path)}
    assert states["createRuntime"]["pid"] == pid
    words = [states[phase]["status"] for phase in phases]
    assert words == ["creating", "creating", "creating", "running", "stopped"]
    assert "pid" not in states["poststop"]


@pytest.mark.parametrize("phase", ["prestart", "createRuntime", "createContainer"])
def test_failing_hook_ends_creation(client: Client, phase: str) -> None:
    client.bundle.document["hooks"] = {phase: [_hook("echo out; echo err >&2; exit 3")]}
    client.bundle.args("echo", "never")

    error = client.error("create", f"--bundle={client.bundle.write()}", "c")

    where = f"error running {phase} hook #0: exit status 3, stdout: out\n, stderr: err\n"
    assert error.endswith(where)
    assert client.remains() == []


@pytest.mark.root
def test_mount_of_a_create_container_hook_is_seen_inside_only(
    bundle: Bundle, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path / "root"
    for name in ("bin", "proc", "dev", "sys", "data"):
        (root / name).mkdir(parents=True)
    (root / "bin" / "busybox").write_bytes((bundle.rootfs / "bin" / "busybox").read_bytes())
    (root / "bin" / "busybox").chmod(0o755)
    bundle.document["root"]["path"] = str(root)
    script = f"mount -t tmpfs hook {root}/data && echo from the hook > {root}/data/file"
    bundle.document["hooks"] = {"createContainer": [_hook(script)]}
    bundle.args("/bin/busybox", "cat", "/data/file")

    assert bundle.run().stdout == "from the hook\n"
    assert list((root / "data").iterdir()) == []


def test_poststop_only_warns(client: Client) -> None:
    client.bundle.document["hooks"] = {"poststop": [_hook("exit 5")]}
    client.bundle.args("true")

    client.create("c")
    client.ok("start", "c")
    client.ok("delete", "--force", "c")

    messages = [json.loads(line) for line in client.log.read_text().splitlines()]
    assert [(entry["level"], entry["msg"]) for entry in messages] == [
        ("warning", "error running poststop hook #0: exit status 5, stdout: , stderr: "),
    ]


def test_failing_poststart_ends_the_container(client: Client) -> None:
    client.bundle.document["hooks"] = {"poststart": [_hook("exit 4")]}
    client.bundle.args("sleep", "1000")
    client.create("c")

    error = client.error("start", "c")

    assert error.endswith("error running poststart hook #0: exit status 4, stdout: , stderr: ")
    assert client.state("c")["status"] == "stopped"
    client.ok("delete", "c")


def test_failing_poststart_ends_run(bundle: Bundle) -> None:
    bundle.document["hooks"] = {"poststart": [_hook("exit 4")]}

    result = bundle.args("sleep", "1000").run()

    assert (result.returncode, result.stdout) == (1, "")
    assert "error running poststart hook #0: exit status 4" in result.stderr


@pytest.mark.parametrize(
    "phase", ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
)
def test_hook_without_an_environment_has_that_of_runc(
    client: Client, tmp_path: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """runc 1.1: the caller's, and its directory; before the root is entered the process's, there"""
    monkeypatch.setenv("WHOSE", "caller")
    script = tmp_path / "hook"
    script.write_text(f'#!/bin/sh\necho "$WHOSE $(pwd)" >{tmp_path}/log\n')
    script.chmod(0o755)
    client.bundle.document["hooks"] = {phase: [{"path": str(script)}]}
    client.bundle.document["process"]["env"] = ["WHOSE=process", "PATH=/usr/bin:/bin"]
    client.bundle.args("true")

    client.create("c")
    client.ok("start", "c")
    client.ok("delete", "--force", "c")

    expected = {"createContainer": f"process {client.bundle.rootfs}\n"}
    assert (tmp_path / "log").read_text() == expected.get(phase, f"caller {client.bundle.path}\n")


def test_hook_with_an_environment_has_that_alone(client: Client, tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\n/usr/bin/env >{tmp_path}/log\n")
    script.chmod(0o755)
    hook = {"path": str(script), "env": ["ONE=1", "TWO=", "ONE=2", "=none"]}
    client.bundle.document["hooks"] = {"poststart": [hook]}
    client.bundle.args("true")

    client.create("c")
    client.ok("start", "c")
    client.ok("delete", "--force", "c")

    lines = (tmp_path / "log").read_text().splitlines()
    assert {line for line in lines if not line.startswith(("PWD=", "_=", "SHLVL="))} == {
        "ONE=2", "TWO=",
    }  # fmt: skip


def test_failing_poststart_leaves_the_later_ones_out(client: Client, tmp_path: Path) -> None:
    fails, later = _hook("exit 4"), _hook(f"echo ran >{tmp_path}/later")
    ends = _hook(f"echo ran >{tmp_path}/ends")
    client.bundle.document["hooks"] = {"poststart": [fails, later], "poststop": [ends]}
    client.bundle.args("sleep", "1000")
    client.create("c")

    client.error("start", "c")
    client.ok("delete", "c")

    assert not (tmp_path / "later").exists()
    assert (tmp_path / "ends").read_text() == "ran\n"


@pytest.mark.parametrize(
    "phase", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_hook_that_hangs_holds_no_other_command_up(
    client: Client, tmp_path: Path, phase: str
) -> None:
    """runc 1.1 knows of the container only after its creation; then it is the same."""
    began, held = tmp_path / "began", tmp_path / "held"
    os.mkfifo(began)
    os.mkfifo(held)
    hook = _hook(f"echo >{began}; exec cat {held}")
    client.bundle.document["mounts"] += [
        {"destination": str(path), "type": "bind", "source": str(path)} for path in (began, held)
    ]
    client.bundle.document["hooks"] = {phase: [hook]}
    client.bundle.args("sleep", "1000")
    if phase in ("startContainer", "poststart"):
        client.create("c")
        command = client.begin("start", "c")
    else:
        command = client.begin("create", f"--bundle={client.bundle.write()}", "c")
    with command, began.open():
        words = {"startContainer": "created", "poststart": "running"}
        assert client.state("c")["status"] == words.get(phase, "creating")
        assert client.ok("list", "-q") == "c\n"
        if phase not in words:
            assert client.error("kill", "c") == 'container not running: "c"'
            refused = client.call("exec", "c", "true")
            assert refused.returncode == 255
            assert 'container not running: "c"' in refused.stderr

        client.ok("delete", "--force", "c")

        assert client.ok("list", "-q") == ""
        if phase == "poststart":  # as with runc the hook goes on
            os.close(os.open(held, os.O_WRONLY))
        assert command.wait() == (phase != "poststart")
    assert client.remains() == []


def _hanging(client: Client, tmp_path: Path, phase: str) -> Path:
    """A hook of this phase that says it is there, and has a FIFO open as long as it is."""
    lives = tmp_path / "lives"
    os.mkfifo(lives)
    hook = _hook(f"exec >{lives}; echo; exec sleep 1000")
    client.bundle.document["hooks"] = {phase: [hook]}
    client.bundle.document["mounts"] += [
        {"destination": str(lives), "type": "bind", "source": str(lives)}
    ]
    client.bundle.args("sleep", "1000")
    return lives


@pytest.mark.parametrize("phase", ["prestart", "createRuntime", "createContainer"])
@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_hook_ends_with_the_command_that_a_signal_ends(
    client: Client, tmp_path: Path, phase: str, command: str, number: int
) -> None:
    lives = _hanging(client, tmp_path, phase)
    begun = client.begin(command, f"--bundle={client.bundle.write()}", "c")
    with begun, lives.open() as hook:
        assert hook.readline() == "\n"

        begun.send_signal(number)

        assert hook.read() == ""
        assert begun.wait() == (-number if number == signal.SIGKILL else 128 + number)
    if number == signal.SIGKILL:
        client.ok("delete", "--force", "c")
    assert client.remains() == []


@pytest.mark.parametrize("phase", ["prestart", "createRuntime", "createContainer"])
def test_run_that_is_deleted_before_it_is_created_fails(
    client: Client, tmp_path: Path, phase: str
) -> None:
    lives = _hanging(client, tmp_path, phase)
    with client.begin("run", f"--bundle={client.bundle.write()}", "c") as run, lives.open() as hook:
        assert hook.readline() == "\n"
        assert client.state("c")["status"] == "creating"

        client.ok("delete", "--force", "c")

        assert hook.read() == ""
        assert run.wait() == 1
    assert client.remains() == []


def test_run_whose_hook_fails_late_does_nothing_to_a_later_container_of_its_name(
    client: Client, tmp_path: Path
) -> None:
    began, held = tmp_path / "began", tmp_path / "held"
    os.mkfifo(began)
    os.mkfifo(held)
    hook = _hook(f"echo >{began}; cat {held}; exit 1")
    client.bundle.document["hooks"] = {"poststart": [hook]}
    client.bundle.args("sleep", "1000")
    with client.begin("run", "-d", f"--bundle={client.bundle.write()}", "c") as run, began.open():
        client.ok("delete", "--force", "c")
        client.bundle.document["hooks"] = {}
        client.create("c")

        os.close(os.open(held, os.O_WRONLY))

        assert run.wait() == 1
    assert client.state("c")["status"] == "created"
    client.ok("delete", "c")

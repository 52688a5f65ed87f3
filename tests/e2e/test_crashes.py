"""Killing a process of the runtime at any point: `delete --force` cleans up."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import processes
from tests.e2e.bundle import REPOSITORY, Bundle
from tests.e2e.client import Client, wait_for_end
from tests.e2e.killer import Plan

KILL_PARENT = {
    "path": "/bin/sh",
    "args": ["sh", "-c", "cat >/dev/null; kill -9 $PPID; exec sleep 9"],
}
"""A hook that kills who runs it."""


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    """And nothing may be left of what the test did."""
    mounts = processes.mounts(bundle.path)
    bundle.args("sleep", "1000")
    name = f"{bundle.path.parent.name}-{os.getpid()}"  # other runs of tests have such folders, too
    bundle.document["linux"]["cgroupsPath"] = f"/{name}"
    made = Client(bundle, platform)
    yield made
    assert made.ok("delete", "--force", "c") == ""
    assert made.remains() == []
    assert _processes(bundle.path) == []
    assert processes.cgroups(name) == []
    assert processes.mounts(bundle.path) == mounts
    assert "Traceback" not in made.log.read_text() if made.log.exists() else True


def _processes(bundle: Path) -> list[int]:
    """Those that were started, or forked from one that was, with this bundle on its command line.

    What is dying is waited for: a process that was killed is not gone at once.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            pidfd = os.pidfd_open(int(entry.name))
            words = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if os.fsencode(str(bundle)) in words and not select.select([pidfd], [], [], 5)[0]:
            found.append(int(entry.name))
        os.close(pidfd)
    return found


def _killed(client: Client, *args: str) -> None:
    """A command that is killed by its hook."""
    path = client.bundle.write()
    done = subprocess.run(
        client.command(*args, f"--bundle={path}", "c"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == -9


@pytest.mark.root
@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.parametrize("phase", ["prestart", "createRuntime"])
def test_command_killed_while_it_creates(client: Client, command: str, phase: str) -> None:
    client.bundle.document["hooks"] = {phase: [KILL_PARENT]}

    _killed(client, command)

    if command == "create":
        assert client.state("c")["status"] == "stopped"
        assert client.error("start", "c") == 'cannot start a container that has stopped: "c"'
    else:
        assert client.ok("list", "-q") == ""


@pytest.mark.root
@pytest.mark.parametrize(
    ("pid", "name"), [("pid", "stand-in"), ("sentryPid", "sandbox"), ("goferPid", "gofer")]
)
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("network", ["none", "host", "sandbox"])
def test_process_killed_while_it_is_created(
    client: Client, pid: str, name: str, later: bool, network: str
) -> None:
    client.flags.append(f"--network={network}")
    state = client.root / "c" / "state.json"
    number = f"""sed 's/.*"{pid}":\\([0-9]*\\).*/\\1/' {state}"""
    script = f"kill -9 $({number}); cat >/dev/null"
    client.bundle.document["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}],
        "createContainer": [{"path": "/bin/true"}] * later,
    }

    error = client.error("create", f"--bundle={client.bundle.write()}", "c")

    assert f"the {name} process " in error
    assert client.remains() == []


@pytest.mark.root
@pytest.mark.parametrize("platform", ["kvm"], indirect=True)
@pytest.mark.parametrize(
    ("process", "error"),
    [
        ("2", "the gofer process was killed by signal 9: the sandbox has ended"),
        (
            "4",
            "unable to start container process: the host's network: the network process has ended",
        ),
    ],
    ids=["gofer", "network"],
)
def test_process_killed_while_the_sandbox_begins_is_told_in_a_line(
    client: Client, reaper: None, process: str, error: str
) -> None:
    """Before it has left its root, so before it serves."""
    output = client.bundle.path / "said"
    command = client.command("create", f"--bundle={client.bundle.write()}", "c")
    plan = Plan(command, str(output), str(REPOSITORY), clock=process, at=1, call="pivot_root")
    plan.victim = process

    report = processes.killed(plan)

    assert report.killed
    os.waitpid(report.pid, 0)
    assert json.loads(client.log.read_text())["msg"] == f"runsc create failed: {error}"
    assert output.read_text().count("\n") == 1
    assert client.remains() == []


@pytest.mark.root
@pytest.mark.parametrize("platform", ["kvm"], indirect=True)
def test_end_of_the_janitor_is_no_affair_of_the_program(client: Client, reaper: None) -> None:
    command = client.command("run", f"--bundle={client.bundle.args('sh', '-c', 'exit 7').write()}")
    plan = Plan([*command, "c"], str(client.bundle.path / "said"), str(REPOSITORY))
    plan.clock = plan.victim = "5"
    plan.at, plan.call = 1, "setsid"

    report = processes.killed(plan)

    assert report.killed
    assert os.waitstatus_to_exitcode(os.waitpid(report.pid, 0)[1]) == 7


@pytest.mark.root
def test_command_killed_after_start(client: Client) -> None:
    client.bundle.document["hooks"] = {"poststart": [KILL_PARENT]}
    client.create("c")

    assert client.call("start", "c").returncode == -9

    assert client.state("c")["status"] == "running"


@pytest.mark.root
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("victim", ["pid", "sentryPid", "goferPid"])
def test_sandbox_killed(client: Client, started: bool, victim: str) -> None:
    pid = client.create("c")
    if started:
        client.ok("start", "c")
    pidfd = os.pidfd_open(pid)

    state = json.loads((client.root / "c" / "state.json").read_text())
    os.kill(state[victim], signal.SIGKILL)

    wait_for_end(pidfd)
    assert client.state("c")["status"] == "stopped"
    assert client.error("kill", "c", "TERM") == 'container not running: "c"'


@pytest.mark.root
def test_stopped_sandbox_can_be_killed_and_deleted(client: Client) -> None:
    pid = client.create("c", "--detach", command="run")
    state = json.loads((client.root / "c" / "state.json").read_text())
    os.kill(state["sentryPid"], signal.SIGSTOP)  # it will not answer

    client.ok("kill", "c", "KILL")

    wait_for_end(os.pidfd_open(pid))


@pytest.mark.root
def test_stopped_sandbox_can_be_deleted(client: Client) -> None:
    client.create("c", "--detach", command="run")
    state = json.loads((client.root / "c" / "state.json").read_text())
    os.kill(state["sentryPid"], signal.SIGSTOP)

    client.ok("delete", "--force", "c")

    assert client.remains() == []


@pytest.mark.root
@pytest.mark.parametrize("words", [("kill", "c", "KILL"), ("delete", "--force", "c")])
def test_program_that_never_leaves_a_loop_can_be_ended(
    client: Client, words: tuple[str, ...]
) -> None:
    client.bundle.args("sh", "-c", "while :; do :; done")
    pidfd = os.pidfd_open(client.create("c", "--detach", command="run"))

    client.ok(*words)

    wait_for_end(pidfd)


@pytest.mark.root
@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.parametrize("seed", range(4))
def test_command_killed_at_any_time(client: Client, command: str, seed: int) -> None:
    delay_s = random.Random(f"{command} {seed}").uniform(0.05, 0.8)
    path = client.bundle.write()
    started = subprocess.Popen(
        client.command(command, f"--bundle={path}", "c"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    select.select([os.pidfd_open(started.pid)], [], [], delay_s)
    started.kill()
    started.wait()
    client.root.mkdir(exist_ok=True)


def test_create_ends_what_never_is_ready_and_leaves_nothing(tmp_path: Path) -> None:
    done = processes.run(tmp_path, "silent", "serve", "create", "hurry")

    assert done.returncode == 1
    assert done.stderr == "the sandbox was not ready after 0.5 seconds\n"
    assert not (tmp_path / "c1").exists()
    assert _processes(tmp_path) == []

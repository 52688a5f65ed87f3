"""create, start, state, kill, delete, list: what a client of the OCI command line sees."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.client import Client, wait_for_end
from tests.patience import TIMEOUT_S

TRAP = "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.01; done"


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def test_container_goes_through_its_life(client: Client) -> None:
    client.bundle.args("sh", "-c", "echo hello; exit 7")
    pid = client.create("c")

    state = client.state("c")
    assert state == {
        "ociVersion": client.bundle.document["ociVersion"],
        "id": "c",
        "pid": pid,
        "status": "created",
        "bundle": str(client.bundle.path),
        "rootfs": str(client.bundle.rootfs),
        "created": state["created"],
        "owner": "",
    }
    assert client.output("c") == ""
    assert client.error("start", "nobody") == 'container "nobody" does not exist'
    pidfd = os.pidfd_open(pid)
    assert client.ok("start", "c") == ""
    wait_for_end(pidfd)
    assert client.output("c") == "hello\n"
    stopped = client.state("c")
    assert (stopped["status"], stopped["pid"]) == ("stopped", 0)
    assert client.error("start", "c") == 'cannot start a container that has stopped: "c"'
    assert client.error("kill", "c", "KILL") == 'container not running: "c"'
    assert client.ok("kill", "--all", "c", "KILL") == ""
    assert client.ok("delete", "c") == ""
    assert client.error("delete", "c") == 'container "c" does not exist'
    assert client.ok("delete", "--force", "c") == ""
    assert client.remains() == []


def test_running_container_refuses_what_runc_refuses(client: Client) -> None:
    client.bundle.args("sh", "-c", TRAP)
    pid = client.create("c", "--detach", command="run")
    pidfd = os.pidfd_open(pid)

    assert client.state("c")["status"] == "running"
    assert client.error("start", "c") == 'cannot start an already running container: "c"'
    assert client.error("delete", "c") == 'cannot delete container "c" that is not stopped: running'
    taken = client.error("create", f"--bundle={client.bundle.path}", "c")
    assert taken == 'runsc create failed: container with given ID already exists: "c"'
    assert client.error("kill", "c", "NOPE") == 'unknown signal "NOPE"'
    while "ready" not in client.output("c"):
        time.sleep(0.001)
    assert client.ok("kill", "c", "SIGUSR1") == ""
    wait_for_end(pidfd)
    assert client.output("c") == "ready\ncaught\n"
    client.ok("delete", "c")


@pytest.mark.parametrize("signal", ["KILL", "9", "SIGTERM"])
def test_kill_ends_a_container_that_never_started(client: Client, signal: str) -> None:
    client.bundle.args("true")
    pidfd = os.pidfd_open(client.create("c"))

    client.ok("kill", "c", signal)

    wait_for_end(pidfd)
    assert client.state("c")["status"] == "stopped"
    client.ok("delete", "c")
    assert client.remains() == []


@pytest.mark.parametrize("started", [False, True])
def test_delete_with_force_ends_it(client: Client, started: bool) -> None:
    client.bundle.args("sleep", "1000")
    pidfd = os.pidfd_open(client.create("c"))
    if started:
        client.ok("start", "c")

    client.ok("delete", "--force", "c")

    wait_for_end(pidfd)
    assert client.remains() == []


def test_the_pid_ends_with_the_status_of_the_container(client: Client) -> None:
    client.bundle.args("sh", "-c", "kill -9 $$; exit 3")
    reader, writer = os.pipe()
    subreaper = os.fork()
    if subreaper == 0:  # as conmon: it inherits the container and reaps it
        from runsc import host  # noqa: PLC0415
        from sentry.abi.prctl import PR_SET_CHILD_SUBREAPER  # noqa: PLC0415

        host.prctl(PR_SET_CHILD_SUBREAPER, 1)
        pid = client.create("c")
        client.ok("start", "c")
        status = os.waitpid(pid, 0)[1]
        os.write(writer, f"{os.waitstatus_to_exitcode(status)}".encode())
        os._exit(0)
    os.close(writer)

    assert os.read(reader, 16) == b"3"  # SIGKILL from inside does nothing to process 1
    os.waitpid(subreaper, 0)
    os.close(reader)
    client.ok("delete", "c")


def test_what_is_noted_of_forks_is_not_taken_from_config(client: Client) -> None:
    """It says whose network namespace a process of ours enters."""
    client.bundle.args("true").document["annotations"] = {
        "dev.runsc.fork-of": "d", "dev.runsc.template": "true",
        "dev.runsc.network-namespace": "/proc/1/ns/net", "k": "v",
    }  # fmt: skip
    client.create("c")
    assert json.loads(client.ok("state", "c"))["annotations"] == {"k": "v"}
    client.ok("delete", "--force", "c")


def test_list_shows_them_all(client: Client) -> None:
    client.bundle.args("sleep", "1000")
    client.bundle.document["annotations"] = {"k": "v"}
    assert client.ok("list", "--format=json") == "null\n"
    first, second = client.create("a"), client.create("b")
    client.ok("start", "b")

    rows = [line.split() for line in client.ok("list").splitlines()]
    assert rows[0] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert [row[:4] for row in rows[1:]] == [
        ["a", str(first), "created", str(client.bundle.path)],
        ["b", str(second), "running", str(client.bundle.path)],
    ]
    assert client.ok("list", "-q") == "a\nb\n"
    listed = json.loads(client.ok("list", "--format=json"))
    assert listed[0] == {**client.state("a"), "owner": listed[0]["owner"]}
    assert listed[0]["annotations"] == {"k": "v"}
    assert client.error("list", "--format=x").startswith("invalid format option")
    for name in ("a", "b"):
        client.ok("delete", "-f", name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"args": ["/nope"]}, 'exec: "/nope": stat /nope: no such file or directory'),
        ({"args": ["nope"]}, 'exec: "nope": executable file not found in $PATH'),
        ({"args": ["/bin"]}, 'exec: "/bin": is a directory'),
        ({"args": []}, "args must not be empty"),
        ({"terminal": True}, "cannot allocate tty if runc will detach without setting console"),
    ],
)
def test_errors_of_the_bundle_come_from_create(
    client: Client, change: dict[str, object], message: str
) -> None:
    client.bundle.document["process"].update(change)

    error = client.error("create", f"--bundle={client.bundle.write()}", "c")

    assert error.startswith("runsc create failed: ")
    assert message in error
    assert not client.root.exists() or client.remains() == []


def test_systemd_cgroups_are_refused(client: Client) -> None:
    client.flags.append("--systemd-cgroup")

    error = client.error("create", f"--bundle={client.bundle.args('true').write()}", "c")

    assert "systemd not running on this host, cannot use systemd cgroups manager" in error


def test_run_with_keep_leaves_it_to_delete(client: Client) -> None:
    client.bundle.args("sh", "-c", "exit 4")

    result = client.call("run", "--keep", f"--bundle={client.bundle.write()}", "c")

    assert result.returncode == 4
    assert client.state("c")["status"] == "stopped"
    client.ok("delete", "c")
    assert client.remains() == []


def test_delete_of_a_foreground_container_ends_its_command(client: Client, tmp_path: Path) -> None:
    client.bundle.args("sleep", "1000")
    import subprocess  # noqa: PLC0415

    pid_file = tmp_path / "pid"
    command = client.command("run", f"--bundle={client.bundle.write()}", f"--pid-file={pid_file}")
    with subprocess.Popen([*command, "c"], cwd=Path(__file__).parents[2]) as running:
        while not pid_file.exists():
            time.sleep(0.001)
        client.ok("delete", "--force", "c")
        assert running.wait(TIMEOUT_S) == 137
    assert client.remains() == []


def test_counts_show_what_there_is(bundle: Bundle, platform: str) -> None:
    client = Client(bundle.args("sleep", "1000"), platform)
    client.create("c")

    counts = json.loads(client.ok("debug", "--counts", "c"))

    assert counts["tasks"] == counts["processes"] == 1
    assert "nothing was asked for" in client.call("debug", "c").stderr
    client.ok("delete", "--force", "c")

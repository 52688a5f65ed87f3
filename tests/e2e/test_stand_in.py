"""The process that stands for a container on the host: its pid is what engines are told."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.launch.stand_in import Namespaces
from runsc.launch.view import View
from runsc.oci.exports import Export
from tests.e2e.bundle import OVERFLOW, Bundle
from tests.e2e.client import Client
from tests.e2e.processes import all_end, wait_for_state
from tests.e2e.talker import Talker
from tests.patience import TIMEOUT_S

pytestmark = pytest.mark.root
NAMESPACES = ("net", "ipc", "uts", "mnt", "pid", "cgroup")
SIZE_MAX_KIB = 256
ROLES = ("runsc-gofer", "runsc-janitor", "runsc-network", "runsc-sentry")
TITLES = {"runsc: c": "runsc: c"} | {f"{role}: c": role for role in ROLES}
"""Of the processes of a container in the foreground, with a network; and their names."""
NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
}


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    bundle.args("sleep", "1000")
    made = Client(bundle, platform)
    yield made
    made.ok("delete", "--force", "c")


def namespace(pid: int | str, name: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{name}")


def arguments(pid: int | str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def test_it_is_small_and_its_title_names_the_container(client: Client) -> None:
    pid = client.create("c")

    title = Path(f"/proc/{pid}/cmdline").read_bytes()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )

    assert title == b"runsc: c\0"
    assert int(status["VmRSS"].split()[0]) <= SIZE_MAX_KIB
    assert status["Seccomp"] == "1"
    assert client.state("c")["pid"] == pid


def test_ps_tells_the_processes_of_a_container_apart(client: Client) -> None:
    bundle = client.bundle.args("sh", "-c", "echo ready; sleep 1000").write()
    talker = Talker(client.command("--network=host", "run", f"--bundle={bundle}", "c"))
    assert talker.hear() == "ready"
    (children,) = Path(f"/proc/{talker.process.pid}/task").glob("*/children")
    shown: list[tuple[str, str]] = []
    while not {title for title, _ in shown} >= TITLES.keys():
        shown = [
            (arguments(pid), Path(f"/proc/{pid}/comm").read_text().strip())
            for pid in children.read_text().split()
        ]
    sentry = wait_for_state(client.root, "c")["sentryPid"]
    threads = {path.read_text() for path in Path(f"/proc/{sentry}/task").glob("*/comm")}
    client.ok("kill", "c", "KILL")
    talker.end()

    assert sorted(shown) == sorted(TITLES.items())
    assert {name for name in threads if not name.startswith("kvm-")} == {"runsc-sentry\n"}


def test_it_is_in_the_namespaces_that_the_bundle_asks_for(client: Client) -> None:
    other = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        while namespace(other.pid, "net") == namespace("self", "net"):
            time.sleep(0.001)
        client.bundle.document["hostname"] = "a-name"
        client.bundle.document["linux"]["namespaces"] = [
            {"type": "network", "path": f"/proc/{other.pid}/ns/net"},
            {"type": "uts"},
            {"type": "pid"},
        ]
        pid = client.create("c")

        own = {name for name in NAMESPACES if namespace(pid, name) != namespace("self", name)}
        name = subprocess.check_output(["nsenter", f"--target={pid}", "--uts", "hostname"])

        assert own == {"net", "uts", "pid", "mnt"}
        assert namespace(pid, "net") == namespace(other.pid, "net")
        assert name == b"a-name\n"
    finally:
        other.kill()
        other.wait()


def test_it_is_in_a_pid_namespace_with_a_path_and_a_child_of_the_command(client: Client) -> None:
    other = Talker(["unshare", "--pid", "--fork", "sh", "-c", "echo ready; read end"])
    assert other.hear() == "ready"
    path = f"/proc/{other.process.pid}/ns/pid_for_children"
    client.bundle.document["linux"]["namespaces"] = [{"type": "pid", "path": path}]
    bundle = client.bundle.args("sh", "-c", "echo ready; read code; exit $code").write()
    talker = Talker(client.command("run", f"--bundle={bundle}", "c"))
    assert talker.hear() == "ready"
    (children,) = Path(f"/proc/{talker.process.pid}/task").glob("*/children")
    pid = wait_for_state(client.root, "c")["pid"]

    inside = namespace(pid, "pid")
    within = Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()
    assert inside == os.readlink(path) != namespace("self", "pid")
    assert [str(pid), "1"] != within
    assert len(within) == 2
    assert str(pid) in children.read_text().split()
    talker.say("3")
    talker.end()
    other.end()
    assert talker.process.returncode == 3


def test_pid_namespace_that_is_none_is_refused(client: Client) -> None:
    path = "/proc/self/ns/net"
    client.bundle.document["linux"]["namespaces"] = [{"type": "pid", "path": path}]
    client.bundle.write()

    error = client.error("create", f"--bundle={client.bundle.path}", "c")

    assert error == f"runsc create failed: pid namespace {path}: invalid argument"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 7", 7),
        ("sh -c 'kill -9 $$'; exit $?", 137),
        (OVERFLOW, 128 + signal.SIGSEGV),
        ("exec mkdir /killed", 128 + signal.SIGSYS),
    ],
)
def test_it_ends_with_the_status_of_the_first_process(
    client: Client, reaper: None, script: str, code: int
) -> None:
    client.bundle.args("sh", "-c", script)
    client.bundle.document["linux"]["seccomp"] = NO_MKDIR
    pid = client.create("c")
    client.ok("start", "c")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code


def test_run_gives_128_and_the_signal_that_the_first_process_died_of(client: Client) -> None:
    client.bundle.args("sh", "-c", OVERFLOW)

    assert client.call("run", f"--bundle={client.bundle.write()}", "c").returncode == 139


@pytest.mark.parametrize(("pid", "code"), [("own", 9), ("hosts", 128 + signal.SIGTERM)])
def test_signal_without_a_handler_is_nothing_to_an_init_alone(
    client: Client, reaper: None, pid: str, code: int
) -> None:
    """Without a PID namespace of its own (`--pid=host`) the program is none, as with runc."""
    linux = client.bundle.document["linux"]
    linux["namespaces"] = [{"type": "pid"}] if pid == "own" else []
    client.bundle.args("sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done")
    stands = client.create("c")
    client.ok("start", "c")
    while client.output("c") != "up\n":
        time.sleep(0.001)

    client.ok("kill", "c", "TERM")
    if pid == "own":
        client.ok("kill", "c", "USR1")

    assert os.waitstatus_to_exitcode(os.waitpid(stands, 0)[1]) == code


@pytest.mark.parametrize("namespaces", [["pid"], []])
def test_it_is_killed_when_the_program_is(
    client: Client, reaper: None, namespaces: list[str]
) -> None:
    client.bundle.document["linux"]["namespaces"] = [{"type": name} for name in namespaces]
    pid = client.create("c")
    client.ok("start", "c")
    client.ok("kill", "c", "KILL")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_it_is_killed_when_the_sandbox_is(client: Client, reaper: None) -> None:
    pid = client.create("c")
    client.ok("start", "c")
    sentry = json.loads((client.root / "c" / "state.json").read_text())["sentryPid"]
    os.kill(sentry, signal.SIGKILL)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_who_kills_it_ends_the_container(client: Client) -> None:
    pid = client.create("c")
    client.ok("start", "c")
    state = json.loads((client.root / "c" / "state.json").read_text())
    pidfds = {name: os.pidfd_open(state[name]) for name in ("pid", "sentryPid", "goferPid")}

    os.kill(pid, signal.SIGKILL)

    assert all_end(pidfds)
    assert client.state("c")["status"] == "stopped"


def test_nothing_runs_before_it_is_in_the_namespaces_that_are_named(
    client: Client, tmp_path: Path
) -> None:
    """One of them is long in coming, and then it is none."""
    os.mkfifo(tmp_path / "late")
    client.flags.append("--network=none")
    client.bundle.document["linux"]["namespaces"] = [
        {"type": "ipc", "path": str(tmp_path / "late")},
        {"type": "pid"},
        {"type": "mount"},
    ]
    bundle = client.bundle.args("echo", "ran").write()
    with client.begin("run", f"--bundle={bundle}", "c") as process:
        assert process.stdout is not None
        try:
            assert not select.select([process.stdout], [], [], 3)[0]
        finally:
            os.close(os.open(tmp_path / "late", os.O_WRONLY))
        assert (process.stdout.read(), process.wait(TIMEOUT_S)) == ("", 1)


def test_the_sandbox_begins_after_it_where_it_makes_places_of_mounts(tmp_path: Path) -> None:
    shown = View(Export(str(tmp_path), writable=True), ())

    assert Namespaces(view=shown).come_first
    assert not Namespaces().come_first

"""cgroups, limits, `update`: on this machine's own hierarchies, and what the program sees."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from runsc.cgroups import files, hierarchies
from runsc.cgroups.cgroup import Cgroup, at
from runsc.cgroups.guest import host_limit
from tests.e2e.bundle import REPOSITORY, Bundle, Document
from tests.e2e.client import Client, wait_for_end

pytestmark = pytest.mark.root
MIB = 1 << 20
HOG = "tail /dev/zero 2>/dev/null"
"""It keeps the last lines, and there is no first one."""


@pytest.fixture
def path() -> Iterator[str]:
    """A cgroup of this test, in no tree of anybody else's."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = f"/runsc-test-{uuid.uuid4().hex[:8]}/pod/c"
    cgroup = _host(made)
    if not cgroup.record.made or "memory" not in cgroup.record.controllers:
        pytest.skip("no cgroups with a memory controller here")
    yield made
    assert _host(made).record.made == cgroup.record.made, "something is left"


def _host(path: str) -> Cgroup:
    return at(path, "c", hierarchies.read())


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def _limit(bundle: Bundle, path: str, resources: Mapping[str, object]) -> None:
    bundle.document["linux"]["cgroupsPath"] = path
    bundle.document["linux"]["resources"] = resources


def _titles(cgroup: Cgroup) -> set[str]:
    """What ps shows of the processes there; nothing of one that is just ending."""
    lines: list[bytes] = []
    for pid in cgroup.processes():
        with suppress(FileNotFoundError, ProcessLookupError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return {line.rstrip(b"\0").decode() for line in lines} - {""}


def _value(path: str, controller: str, v1: str, v2: str) -> str:
    """A file of the container's cgroup, under the name of the version that is there."""
    directory = _host(path).directory(controller)
    assert directory is not None
    name = v2 if os.path.exists(os.path.join(directory, v2)) else v1
    return Path(directory, name).read_text().strip()


def test_sandbox_is_in_its_cgroup_under_its_limits(client: Client, path: str) -> None:
    resources = {
        "memory": {"limit": 256 * MIB},
        "cpu": {"quota": 50_000, "period": 100_000},
        "pids": {"limit": 6},
    }
    _limit(client.bundle, path, resources)
    client.bundle.args("sh", "-c", "while :; do sleep 1; done")

    pid = client.create("c", "--detach", command="run")

    state = json.loads((client.root / "c" / "state.json").read_bytes())
    assert {pid, state["sentryPid"], state["goferPid"]} < _host(path).processes()
    assert _titles(_host(path)) == {
        "runsc: c", "runsc: oom", "runsc-sentry: c", "runsc-gofer: c", "runsc-network: c"
    }  # fmt: skip
    memory = _value(path, "memory", "memory.limit_in_bytes", "memory.max")
    assert memory == str(host_limit(256 * MIB))
    assert _value(path, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert _value(path, "pids", "pids.max", "pids.max") == "max"
    client.ok("delete", "--force", "c")


def test_program_sees_the_limits(client: Client, path: str) -> None:
    _limit(
        client.bundle,
        path,
        {"memory": {"limit": 256 * MIB}, "cpu": {"cpus": "0"}, "pids": {"limit": 4}},
    )
    client.bundle.args(
        "sh",
        "-c",
        "grep MemTotal /proc/meminfo; grep -c ^processor /proc/cpuinfo;"
        " sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000 & echo not reached",
    )

    result = client.bundle.run(client.flags[3].partition("=")[2])

    total, processors = result.stdout.splitlines()[:2]
    assert int(total.split()[1]) == 256 * 1024
    assert processors == "1"
    assert "not reached" not in result.stdout
    assert "fork: Resource temporarily unavailable" in result.stderr


def test_shell_runs_in_little_memory(bundle: Bundle, platform: str, path: str) -> None:
    _limit(bundle, path, {"memory": {"limit": 16 * MIB}})
    bundle.args("sh", "-c", "cat /sys/fs/cgroup/memory.max; ls /; sleep 1 & ls / | wc -l; wait")

    result = bundle.run(platform)

    assert result.returncode == 0, result
    assert result.stdout.splitlines()[0] == str(16 * MIB)


@pytest.mark.kvm
def test_limit_that_no_program_fits_in_is_an_error(bundle: Bundle, path: str) -> None:
    _limit(bundle, path, {"memory": {"limit": 4096}})
    bundle.args("true")

    result = bundle.run()

    assert result.returncode == 1
    assert "the memory limit is too low" in result.stderr


@pytest.mark.kvm
def test_program_that_wants_too_much_is_killed_and_the_sandbox_is_not(
    bundle: Bundle, path: str
) -> None:
    _limit(bundle, path, {"memory": {"limit": 160 * MIB}})
    bundle.args("sh", "-c", "dd if=/dev/zero of=/dev/null bs=300M count=1; echo $?; echo alive")

    result = bundle.run()

    assert result.stdout.splitlines()[-1] == "alive"
    assert result.stdout.splitlines()[0] != "0"


def test_update_changes_cgroup_and_sentry(client: Client, path: str) -> None:
    _limit(client.bundle, path, {"memory": {"limit": 256 * MIB}, "pids": {"limit": 2}})
    client.bundle.args("sleep", "1000")
    pidfd = os.pidfd_open(client.create("c"))
    document = json.dumps({"memory": {"limit": 200 * MIB}, "cpu": {"shares": 512}})

    done = subprocess.run(
        client.command("update", "--resources=-", "c"),
        input=document,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0
    limit = _value(path, "memory", "memory.limit_in_bytes", "memory.max")
    assert limit == str(host_limit(200 * MIB))
    assert _value(path, "cpu", "cpu.shares", "cpu.weight") in ("512", "20")
    client.ok("update", "--memory=180m", "--memory-swap=-1", "--pids-limit=20", "c")
    limit = _value(path, "memory", "memory.limit_in_bytes", "memory.max")
    assert limit == str(host_limit(180 * MIB))

    client.ok("update", "--cpu-quota=30000", "c")
    client.ok("start", "c")
    names = [f"/sys/fs/cgroup/{name}" for name in ("memory.max", "cpu.max", "cpu.weight")]
    seen = client.ok("exec", "c", "cat", *names)
    assert seen.split() == [str(180 * MIB), "30000", "100000", "20"]
    client.ok("kill", "c", "KILL")
    wait_for_end(pidfd)
    assert client.error("update", "--pids-limit=3", "c") == 'cannot update a stopped container: "c"'
    client.ok("delete", "c")


def test_pids_limit_rises_for_a_program_that_waits_for_it(client: Client, path: str) -> None:
    _limit(client.bundle, path, {"pids": {"limit": 1}})
    client.bundle.args(
        "sh", "-c", "trap 'sleep 0 && echo more; exit' USR1; echo on; while :; do :; done"
    )
    pidfd = os.pidfd_open(client.create("c", "--detach", command="run"))
    while "on" not in client.output("c"):
        time.sleep(0.001)

    client.ok("update", "--pids-limit=2", "c")
    client.ok("kill", "c", "USR1")

    wait_for_end(pidfd)
    assert "more" in client.output("c")
    client.ok("delete", "c")


def test_update_of_a_container_without_cgroup_makes_one(client: Client) -> None:
    if os.geteuid() != 0 or "memory" not in _host("/x").record.controllers:
        pytest.skip("needs root and a memory controller")
    client.bundle.args("sleep", "1000")
    pid = client.create("c", "--detach", command="run")
    state = json.loads((client.root / "c" / "state.json").read_bytes())
    assert "cgroups" not in state

    try:
        client.ok("update", "--memory=1g", "c")
        state = json.loads((client.root / "c" / "state.json").read_bytes())
        directories = state["cgroups"]["directories"]
        directory = directories.get("memory") or directories[""]
        assert str(pid) in Path(directory, "cgroup.procs").read_text().split()
    finally:
        client.ok("delete", "--force", "c")
    assert not os.path.exists(directory)


@pytest.mark.parametrize("victim", ["pid", "sentryPid", "goferPid"])
def test_killed_processes_leave_no_cgroup_after_delete(
    client: Client, path: str, victim: str
) -> None:
    _limit(client.bundle, path, {"memory": {"limit": 256 * MIB}})
    client.bundle.args("sleep", "1000")
    pidfd = os.pidfd_open(client.create("c", "--detach", command="run"))
    state = json.loads((client.root / "c" / "state.json").read_bytes())

    os.kill(state[victim], signal.SIGKILL)

    wait_for_end(pidfd)
    client.ok("delete", "--force", "c")


def test_killed_command_leaves_no_cgroup(client: Client, path: str) -> None:
    _limit(client.bundle, path, {"memory": {"limit": 256 * MIB}})
    client.bundle.args("sh", "-c", "echo on; sleep 1000")
    bundle = client.bundle.write()
    with subprocess.Popen(
        client.command("run", f"--bundle={bundle}", "c"), stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"on\n"
        sandbox = [os.pidfd_open(pid) for pid in _host(path).processes()]
        command.kill()
    for pidfd in sandbox:
        wait_for_end(pidfd)
    client.ok("delete", "--force", "c")


def test_value_that_the_kernel_refuses_ends_creation(client: Client, path: str) -> None:
    _limit(client.bundle, path, {"cpu": {"cpus": "9000"}})
    client.bundle.args("true")

    error = client.error("create", f"--bundle={client.bundle.write()}", "c")

    assert error.startswith('runsc create failed: failed to write "9000": write /')
    assert client.remains() == []


def test_value_of_a_wrong_type_is_refused_with_its_path(client: Client) -> None:
    _limit(client.bundle, "/c", {"memory": {"limit": "much"}})

    error = client.error("create", f"--bundle={client.bundle.write()}", "c")

    assert "$.linux.resources.memory.limit" in error


def test_program_reads_its_own_cgroup(client: Client, path: str) -> None:
    resources = {
        "memory": {"limit": 256 * MIB},
        "cpu": {"quota": 150_000, "period": 100_000, "shares": 2048},
        "pids": {"limit": 50},
    }
    _limit(client.bundle, path, resources)
    client.bundle.args(
        "sh",
        "-c",
        "cd /sys/fs/cgroup; cat cgroup.procs cpu.max pids.max memory.max; cat /proc/self/cgroup;"
        " grep ' /sys/fs/cgroup ' /proc/self/mountinfo; echo 1 2>/dev/null >pids.max || echo no;"
        " mkdir x 2>/dev/null || echo no; grep MemTotal /proc/meminfo",
    )

    result = client.bundle.run(client.flags[3].partition("=")[2])

    lines = result.stdout.splitlines()
    assert lines[:2] == ["1", "2"], result
    assert lines[2:4] == ["150000 100000", "50"]
    assert int(lines[4]) == int(lines[9].split()[1]) << 10 == 256 * MIB
    assert lines[5] == "0::/"
    assert " ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup " in lines[6]
    assert lines[7:9] == ["no", "no"]


@pytest.mark.kvm
def test_many_small_processes_in_little_memory_end_by_the_sentrys_hand(
    bundle: Bundle, path: str
) -> None:
    _limit(bundle, path, {"memory": {"limit": 16 * MIB}})
    script = "for i in $(seq 300); do sleep 1000 & done; echo all; kill -9 -1 || :"
    bundle.args("sh", "-c", script)

    result = bundle.run()

    assert result.returncode in (0, 137)
    assert "all" in result.stdout or "Out of memory: killed process" in result.stderr


class Watch:
    """What engines hear of a cgroup's out-of-memory killer."""

    def __init__(self, path: str) -> None:
        directory = _host(path).directory("memory")
        assert directory is not None
        self.directory = directory
        self.is_v1 = os.path.exists(f"{directory}/memory.oom_control")
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        if self.is_v1:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY)
            files.write(directory, "cgroup.event_control", f"{self.event} {control}")
            os.close(control)

    def kills(self) -> int:
        """As the kernel counts them."""
        name = "memory.oom_control" if self.is_v1 else "memory.events"
        return files.read_table(self.directory, name)["oom_kill"]

    def is_told(self) -> bool:
        """In version 2 the counter is all."""
        return not self.is_v1 or bool(select.select([self.event], [], [], 0)[0])


@pytest.mark.parametrize(
    ("script", "code", "kills"),
    [(f"{HOG}; exit 5", 5, 1), (f"exec {HOG}", -9, 1), ("kill -9 $$", 137, 0), ("exit 3", 3, 0)],
)
def test_engines_hear_of_a_program_that_memory_ran_out_for(
    client: Client, path: str, reaper: None, script: str, code: int, kills: int
) -> None:
    _limit(client.bundle, path, {"memory": {"limit": 16 * MIB}})
    client.bundle.args("sh", "-c", f"sh -c '{script}'; exit $?" if "$$" in script else script)
    pid = client.create("c")
    watch = Watch(path)
    client.ok("start", "c")

    status = os.waitpid(pid, 0)[1]

    assert os.waitstatus_to_exitcode(status) == code
    assert (watch.kills(), watch.is_told()) == (kills, bool(kills) or not watch.is_v1)
    if kills:  # nobody takes the cgroup away before an engine has looked
        while (left := _titles(_host(path))) != {"runsc: oom"}:
            # One closes its sockets, the other has done what was recorded, and ends.
            assert left <= {"runsc: oom", "runsc-network: c", "runsc-gofer: c"}
    client.ok("delete", "c")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["process"].update(oomScoreAdj=-1000),
        lambda d: d["linux"]["resources"].update(memory={"reservation": MIB}),
        lambda d: d["linux"]["resources"]["memory"].update(disableOOMKiller=True),
    ],
)
def test_nobody_waits_to_be_killed_who_could_not_be(
    client: Client, path: str, change: Callable[[Document], None]
) -> None:
    if _host(path).record.controllers["memory"] == "":
        pytest.skip("version 2 has no disableOOMKiller")
    _limit(client.bundle, path, {"memory": {"limit": 64 * MIB}})
    client.bundle.configure(change)
    client.bundle.args("sleep", "1000")
    client.create("c")

    assert "runsc: oom" not in _titles(_host(path))
    client.ok("delete", "--force", "c")


def test_nobody_is_killed_in_a_cgroup_that_others_use(client: Client, path: str) -> None:
    cgroup = _host(path)
    cgroup.create()
    try:
        _limit(client.bundle, path, {"memory": {"limit": 64 * MIB}})
        client.bundle.args("sleep", "1000")
        client.create("c")

        assert "runsc: oom" not in _titles(cgroup)
        client.ok("delete", "--force", "c")
    finally:
        cgroup.delete()

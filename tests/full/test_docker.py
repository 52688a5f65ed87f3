"""docker, and containerd's ctr, over this runtime: a daemon of our own, an image made here."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import REPOSITORY, Result, kvm_is_usable

NEEDED = ("dockerd", "docker", "containerd", "ctr", "containerd-shim-runc-v2")
pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {' '.join(NEEDED)}"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
LOOP = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
TIMEOUT_S = 60


NO_BRIDGE = {"bridge": "none"}
APART = ("unshare", "--net", "--mount")
"""Where a bridge of dockerd's is nobody else's."""


class Docker:
    """A dockerd with a folder of its own, and an image called bb."""

    def __init__(
        self, folder: Path, rootfs: Path, prefix: Sequence[str], settings: dict[str, Any]
    ) -> None:
        self.runtime = folder / "runsc"
        self.runtime.write_text(
            f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m runsc "$@"\n'
        )
        self.runtime.chmod(0o755)
        self.socket = folder / "sock"
        self.containerd = folder / "exec/containerd/containerd.sock"
        (folder / "daemon.json").write_text(
            json.dumps(
                {
                    "data-root": str(folder / "data"),
                    "exec-root": str(folder / "exec"),
                    "pidfile": str(folder / "pid"),
                    "hosts": [f"unix://{self.socket}"],
                    "iptables": False,
                    "ip6tables": False,
                    "runtimes": {"ours": {"path": str(self.runtime)}},
                    **settings,
                }
            )
        )
        with (folder / "log").open("w") as log:
            self.daemon = subprocess.Popen(
                [*prefix, "dockerd", f"--config-file={folder}/daemon.json"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + TIMEOUT_S
        while self.call("version").returncode:
            if self.daemon.poll() is not None or time.monotonic() > end:
                pytest.skip(f"dockerd does not start: {(folder / 'log').read_text()[-300:]}")
            select.select([], [], [], 0.1)
        archive = folder / "image.tar"
        subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True)
        self.ok("import", str(archive), "bb")

    def call(self, *args: str, stdin: str = "") -> Result:
        return _execute(["docker", f"--host=unix://{self.socket}", *args], stdin)

    def ok(self, *args: str, stdin: str = "") -> str:
        """A command that must succeed; its output without the last line end."""
        result = self.call(*args, stdin=stdin)
        assert result.returncode == 0, (args, result.stdout, result.stderr)
        return result.stdout.removesuffix("\n")

    def run(self, *args: str, stdin: str = "") -> Result:
        """A container without a network that is removed when it has ended."""
        return self.call("run", "--rm", "--runtime=ours", "--network=none", *args, stdin=stdin)

    def ctr(self, *args: str) -> Result:
        return _execute(["ctr", f"--address={self.containerd}", "--namespace=test", *args])

    def stop(self) -> None:
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(TIMEOUT_S)


def _execute(command: list[str], stdin: str = "") -> Result:
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Docker]:
    made = Docker(tmp_path_factory.mktemp("docker"), busybox, (), NO_BRIDGE)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Docker]:
    """One with the bridge that it has by default."""
    settings = {"userland-proxy": False, "ip-forward": False, "ip-masq": False}
    made = Docker(tmp_path_factory.mktemp("bridged"), busybox, APART, settings)
    yield made
    made.stop()


@pytest.fixture
def running(docker: Docker) -> Iterator[str]:
    """A detached container that says "up"."""
    name = "detached"
    flags = ("-d", f"--name={name}", "--runtime=ours", "--network=none", "--memory=300m")
    docker.ok("run", *flags, "bb", "sh", "-c", LOOP)
    end = time.monotonic() + TIMEOUT_S
    while "up" not in docker.ok("logs", name):
        assert time.monotonic() < end
    yield name
    docker.ok("rm", "--force", name)


def _status(docker: Docker, name: str) -> str:
    return docker.ok("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}")


def test_run_passes_streams_and_the_exit_code(docker: Docker) -> None:
    result = docker.run("-i", "bb", "sh", "-c", "cat; echo e >&2; exit 5", stdin="in\n")

    assert (result.returncode, result.stdout, result.stderr) == (5, "in\n", "e\n")


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [("nope", 127, "executable file not found in $PATH"), ("/bin", 126, "is a directory")],
)
def test_programs_that_cannot_run(docker: Docker, program: str, code: int, text: str) -> None:
    result = docker.run("bb", program)

    assert result.returncode == code
    assert text in result.stderr


def test_flags_of_a_container(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from outside\n")
    tmp_path.chmod(0o755)
    flags = ("--read-only", "--user=5:6", "--tmpfs=/t", "-e", "A=b", "-v", f"{tmp_path}:/v:ro")

    result = docker.run(*flags, "bb", "sh", "-c", "id; echo $A; cat /v/f; echo >/x; echo t >/t/t")

    assert result.stdout.splitlines() == ["uid=5 gid=6 groups=6", "b", "from outside"]
    assert result.stderr == "sh: can't create /x: Read-only file system\n"


def test_life_of_a_detached_container(docker: Docker, running: str) -> None:
    assert docker.ok("exec", running, "echo", "in") == "in"
    assert docker.call("exec", running, "sh", "-c", "exit 6").returncode == 6
    assert "runsc" in docker.ok("top", running)
    docker.ok("pause", running)
    assert _status(docker, running).endswith("(Paused)")
    docker.ok("unpause", running)
    docker.ok("update", "--memory=400m", "--memory-swap=400m", running)
    docker.ok("stop", running)
    assert _status(docker, running).startswith("Exited (9)")
    assert docker.ok("logs", running) == "up\nbye"
    docker.ok("start", running)
    docker.ok("kill", running)
    docker.ok("wait", running)
    assert _status(docker, running).startswith("Exited (137)")


def test_terminal(docker: Docker) -> None:
    command = f"docker --host=unix://{docker.socket} run -it --rm --runtime=ours --network=none"

    result = _execute(["script", "-qec", f"{command} bb sh -c 'tty; exit 4'", "/dev/null"])

    assert result.returncode == 4
    assert "/dev/pts/0" in result.stdout


def test_containers_on_the_bridge_talk(bridged: Docker) -> None:
    flags = ("-d", "--name=server", "--runtime=ours")
    bridged.ok("run", *flags, "bb", "sh", "-c", "while :; do echo hello | nc -l -p 9000; done")
    address = bridged.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server")
    client = f"ip -o -4 addr show eth0; until nc {address} 9000 </dev/null; do sleep 0.05; done"

    result = bridged.call("run", "--rm", "--runtime=ours", "bb", "sh", "-c", client)

    shown, said = result.stdout.splitlines()
    assert (said, result.returncode) == ("hello", 0), result.stderr
    prefix = address.rpartition(".")[0]
    assert f"eth0    inet {prefix}." in shown
    assert f"inet {address}/16" in bridged.ok("exec", "server", "ip", "addr", "show", "eth0")
    assert "runsc: " in bridged.ok("top", "server", "-o", "pid,args")
    bridged.ok("kill", "server")
    assert bridged.ok("wait", "server") == "137"
    bridged.ok("rm", "server")


def test_network_that_is_connected_to_later_is_there(bridged: Docker) -> None:
    flags = ("-d", "--name=mobile", "--runtime=ours")
    bridged.ok("network", "create", "other")
    bridged.ok("run", *flags, "bb", "sleep", "1000")

    bridged.ok("network", "connect", "other", "mobile")
    both = bridged.ok("exec", "mobile", "ls", "/sys/class/net")
    bridged.ok("network", "disconnect", "other", "mobile")
    one = bridged.ok("exec", "mobile", "ls", "/sys/class/net")

    bridged.ok("rm", "--force", "mobile")
    bridged.ok("network", "rm", "other")
    assert (both.split(), one.split()) == (["eth0", "eth1", "lo"], ["eth0", "lo"])


def test_exit_code_on_the_bridge(bridged: Docker) -> None:
    result = bridged.call("run", "--rm", "--runtime=ours", "bb", "sh", "-c", "exit 7")

    assert result.returncode == 7, result.stderr


def test_ctr(docker: Docker, tmp_path: Path) -> None:
    archive = tmp_path / "bb.tar"
    docker.ok("save", "-o", str(archive), "bb")
    imported = docker.ctr("image", "import", "--base-name=local/bb", str(archive))
    assert imported.returncode == 0, imported.stderr
    image = docker.ctr("image", "ls", "-q").stdout.split()[0]
    binary = f"--runc-binary={docker.runtime}"

    once = docker.ctr("run", "--rm", binary, image, "once", "echo", "hi")
    assert (once.returncode, once.stdout) == (0, "hi\n"), once.stderr
    assert docker.ctr("run", "-d", binary, image, "c", "sleep", "1000").returncode == 0
    seen = docker.ctr("task", "exec", "--exec-id=x", "c", "ps")
    assert "sleep 1000" in seen.stdout, seen.stderr
    assert docker.ctr("task", "pause", "c").returncode == 0
    assert "PAUSED" in docker.ctr("task", "ls").stdout
    assert docker.ctr("task", "resume", "c").returncode == 0
    pid = int(docker.ctr("task", "ls").stdout.split()[-2])
    pidfd = os.pidfd_open(pid)
    assert docker.ctr("task", "kill", "-s", "KILL", "c").returncode == 0
    assert select.select([pidfd], [], [], TIMEOUT_S)[0]
    os.close(pidfd)
    docker.ctr("task", "rm", "c")
    removed = docker.ctr("container", "rm", "c")
    assert removed.returncode == 0, removed.stderr


@pytest.mark.parametrize(
    ("script", "code", "killed"),
    [
        ("tail /dev/zero; exit 5", 5, "true"),
        ("exec tail /dev/zero", 137, "true"),
        ("exit 5", 5, "false"),
    ],
)
def test_out_of_memory_is_told(docker: Docker, script: str, code: int, killed: str) -> None:
    flags = ("--name=oom", "--runtime=ours", "--network=none", "--memory=16m")
    try:
        result = docker.call("run", *flags, "bb", "sh", "-c", script)

        assert result.returncode == code, result
        assert docker.ok("inspect", "--format", "{{.State.OOMKilled}}", "oom") == killed
    finally:
        docker.ok("rm", "--force", "oom")


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_namespace_of_another_container(docker: Docker, kind: str) -> None:
    flags = ("-d", "--name=base", "--runtime=ours", "--network=none", "--ipc=shareable")
    docker.ok("run", *flags, "bb", "sleep", "1000")
    own = () if kind == "network" else ("--network=none",)
    show = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done"
    try:
        command = ("run", "--rm", "--runtime=ours", f"--{kind}=container:base", *own, "bb")
        shared = docker.ok(*command, "sh", "-c", show).splitlines()
        theirs = docker.ok("exec", "base", "sh", "-c", show).splitlines()
    finally:
        docker.ok("rm", "--force", "base")

    names = ("network", "pid", "ipc", "uts")
    assert {n for n, a, b in zip(names, shared, theirs, strict=True) if a == b} == {kind}


def test_commands_for_a_container_in_anothers_network(docker: Docker) -> None:
    flags = ("-d", "--runtime=ours")
    docker.ok("run", *flags, "--name=base", "--network=none", "bb", "sleep", "1000")
    near = (*flags, "--network=container:base", "bb")
    try:
        docker.ok("run", "--name=near", *near, "sleep", "1000")
        assert "runsc: " in docker.ok("top", "near")
        docker.ok("pause", "near")
        assert "(Paused)" in _status(docker, "near")
        assert "(Paused)" not in _status(docker, "base")
        docker.ok("unpause", "near")
        docker.ok("update", "--pids-limit=20", "near")
        limit = docker.ok("exec", "near", "cat", "/sys/fs/cgroup/pids.max")
        assert limit == "20"
        docker.ok("run", "--name=full", "-m=32m", *near, "sh", "-c", "tail /dev/zero; exit 7")
        assert docker.ok("wait", "full") == "7"
        assert docker.ok("inspect", "--format", "{{.State.OOMKilled}}", "full") == "true"
        assert docker.ok("exec", "near", "echo", "alive") == "alive"
        docker.ok("rm", "--force", "near")
        assert docker.ok("exec", "base", "echo", "alive") == "alive"
    finally:
        docker.call("rm", "--force", "near", "full", "base")


def test_uts_of_the_host(docker: Docker) -> None:
    assert docker.run("--uts=host", "bb", "hostname").stdout.strip() == os.uname().nodename

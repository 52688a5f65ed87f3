"""podman over this runtime: the commands that people use, with an image made here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, Result, kvm_is_usable
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("podman"), reason="needs podman"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
LOOP = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
TIMEOUT_S = 60


class Podman:
    """podman with storage of its own, and an image called bb."""

    def __init__(self, folder: Path, rootfs: Path, prefix: Sequence[str] = ()) -> None:
        runtime = folder / "runsc"
        runtime.write_text(
            f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m runsc'
            f' --root="{folder}/state" "$@"\n'
        )
        runtime.chmod(0o755)
        self.command = [
            *prefix,
            "podman",
            f"--root={folder}/storage",
            f"--runroot={folder}/run",
            f"--runtime={runtime}",
            "--runtime-flag=platform=kvm",
        ]
        self.state = folder / "state"
        archive = folder / "image.tar"
        subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True)
        self.ok("import", str(archive), "localhost/bb")

    def call(self, *args: str, stdin: str = "") -> Result:
        return subprocess.run(
            [*self.command, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
        )

    def ok(self, *args: str, stdin: str = "") -> str:
        """A command that must succeed; its output without the last line end."""
        result = self.call(*args, stdin=stdin)
        assert result.returncode == 0, (args, result.stdout, result.stderr)
        return result.stdout.removesuffix("\n")

    def run(self, *args: str, stdin: str = "") -> Result:
        """A container without a network that is removed when it has ended."""
        return self.call("run", "--rm", "--network=none", *args, stdin=stdin)

    def status(self, name: str) -> str:
        return self.ok("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}")

    def logs(self, name: str, text: str) -> None:
        """Wait until a container has written this."""
        end = time.monotonic() + TIMEOUT_S
        while text not in self.ok("logs", name):
            assert time.monotonic() < end, self.ok("logs", name)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman"), busybox)
    yield made
    made.ok("rm", "--all", "--force", "--time=0")
    assert [name for name in os.listdir(made.state) if name != ".lock"] == []
    made.ok("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Podman]:
    """One whose bridge is nobody else's, without a firewall."""
    if not Path("/usr/lib/podman/netavark").exists():
        pytest.skip("needs netavark")
    folder = tmp_path_factory.mktemp("bridged")
    (folder / "containers.conf").write_text('[network]\nfirewall_driver = "none"\n')
    script = "mount -t tmpfs none /run/netns 2>/dev/null; ip link set lo up; echo; read end"
    apart = Talker(["unshare", "--net", "--mount", "sh", "-c", script])
    apart.hear()
    enter = ("nsenter", f"--target={apart.process.pid}", "--net", "--mount")
    conf = f"CONTAINERS_CONF={folder}/containers.conf"
    made = Podman(folder, busybox, (*enter, "env", conf))
    made.command.append(f"--network-config-dir={folder}/networks")
    yield made
    made.ok("rm", "--all", "--force", "--time=0")
    made.ok("rmi", "--all", "--force")
    apart.end()


@pytest.fixture
def running(podman: Podman) -> Iterator[str]:
    """A detached container that says "up"."""
    name = "detached"
    podman.ok("run", "-d", f"--name={name}", "--network=none", "localhost/bb", "sh", "-c", LOOP)
    podman.logs(name, "up")
    yield name
    podman.ok("rm", "--force", "--time=0", name)


def _at_a_terminal(podman: Podman, *args: str) -> Result:
    """script(1): a terminal, which pytest does not have."""
    command = " ".join(f"'{word}'" for word in [*podman.command, *args])
    return subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_top_with_options_of_ps_lists_what_runs_inside(podman: Podman) -> None:
    """Where podman has ps run inside: of a container with this capability."""
    flags = ("--name=seen", "--network=none", "--cap-add=SYS_PTRACE")
    podman.ok("run", "-d", *flags, "localhost/bb", "sh", "-c", "echo up; sleep 99 & sleep 98; :")
    podman.logs("seen", "up")

    shown = podman.ok("top", "seen", "-o", "pid,args").splitlines()
    podman.ok("rm", "--force", "--time=0", "seen")

    assert {line.split(maxsplit=1)[1].strip() for line in shown} >= {"sleep 99", "sleep 98"}


def test_run_passes_streams_and_the_exit_code(podman: Podman) -> None:
    result = podman.run("-i", "localhost/bb", "sh", "-c", "cat; echo e >&2; exit 5", stdin="in\n")

    assert (result.returncode, result.stdout) == (5, "in\n")
    assert result.stderr.endswith("e\n")


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("nope", 127, "executable file not found in $PATH"),
        ("/etc/passwd", 126, "permission denied"),
        ("/bin", 126, "is a directory"),
    ],
)
def test_programs_that_cannot_run(podman: Podman, program: str, code: int, text: str) -> None:
    result = podman.run("localhost/bb", program)

    assert result.returncode == code
    assert text in result.stderr


def test_environment_user_and_working_directory(podman: Podman) -> None:
    script = "echo $A; id -u; id -g; pwd; hostname"
    flags = ("-e", "A=b c", "--user=1000:1001", "--workdir=/etc", "--hostname=box")

    assert podman.run(*flags, "localhost/bb", "sh", "-c", script).stdout.splitlines() == [
        "b c",
        "1000",
        "1001",
        "/etc",
        "box",
    ]


def test_volumes(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from outside\n")
    script = "cat /v/f; echo inside >/v/g; echo x >/ro/h"

    result = podman.run(
        "-v", f"{tmp_path}:/v", "-v", f"{tmp_path}:/ro:ro", "localhost/bb", "sh", "-c", script
    )

    assert result.stdout == "from outside\n"
    assert "Read-only file system" in result.stderr
    assert (tmp_path / "g").read_text() == "inside\n"
    assert not (tmp_path / "h").exists()


def test_read_only_root_with_its_temporary_directories(podman: Podman) -> None:
    script = "echo x >/x; echo y >/tmp/y && echo z >/run/z && cat /tmp/y /run/z"

    result = podman.run("--read-only", "localhost/bb", "sh", "-c", script)

    assert result.stdout == "y\nz\n"
    assert "can't create /x: Read-only file system" in result.stderr


def test_tmpfs_starts_with_what_was_there(podman: Podman) -> None:
    result = podman.run(
        "--tmpfs=/etc:size=1m", "localhost/bb", "sh", "-c", "cat /etc/passwd; df /etc"
    )

    assert "root:x:0:0" in result.stdout
    assert "1024" in result.stdout


def test_limits(podman: Podman) -> None:
    flags = ("--memory=256m", "--pids-limit=40", "--cpus=1", "--ulimit=nofile=100:200")

    result = podman.run(*flags, "localhost/bb", "sh", "-c", "ulimit -n; free -m | grep Mem")

    lines = result.stdout.split()
    assert lines[0] == "100"
    assert int(lines[2]) == 256


def test_shell_in_little_memory(podman: Podman) -> None:
    command = ("sh", "-c", "cat /sys/fs/cgroup/memory.max")

    assert podman.run("--memory=16m", "localhost/bb", *command).stdout == f"{16 << 20}\n"


@pytest.mark.parametrize(
    ("script", "code", "killed"),
    [
        ("tail /dev/zero; exit 5", 5, "true"),
        ("exec tail /dev/zero", 137, "true"),
        ("exit 5", 5, "false"),
    ],
)
def test_out_of_memory_is_told(podman: Podman, script: str, code: int, killed: str) -> None:
    flags = ("--name=oom", "--network=none", "--memory=16m")
    try:
        result = podman.call("run", *flags, "localhost/bb", "sh", "-c", script)

        assert result.returncode == code, result
        assert podman.ok("inspect", "--format", "{{.State.OOMKilled}}", "oom") == killed
    finally:
        podman.ok("rm", "--force", "oom")


def test_preserved_descriptor(podman: Podman, tmp_path: Path) -> None:
    command = " ".join(podman.command)
    script = f"{command} run --rm --network=none --preserve-fds=1 localhost/bb sh -c 'echo x >&3'"

    subprocess.run(["sh", "-c", f"{script} 3>{tmp_path}/out"], check=True, timeout=TIMEOUT_S)

    assert (tmp_path / "out").read_text() == "x\n"


def test_network_none_is_a_loopback(podman: Podman) -> None:
    result = podman.run("localhost/bb", "ip", "-o", "addr")

    assert result.returncode == 0, result.stderr
    assert "127.0.0.1/8" in result.stdout
    assert "eth0" not in result.stdout


def test_containers_on_the_bridge_talk(bridged: Podman) -> None:
    server = "while :; do echo hello | nc -l -p 9000; done"
    bridged.ok("run", "-d", "--name=server", "localhost/bb", "sh", "-c", server)
    networks = json.loads(bridged.ok("inspect", "server"))[0]["NetworkSettings"]["Networks"]
    address = networks["podman"]["IPAddress"]
    client = f"ip -o -4 addr show eth0; until nc {address} 9000 </dev/null; do sleep 0.05; done"

    result = bridged.call("run", "--rm", "localhost/bb", "sh", "-c", client)

    shown, said = result.stdout.splitlines()
    assert (said, result.returncode) == ("hello", 0), result.stderr
    assert "eth0    inet 10.88." in shown
    bridged.ok("kill", "server")
    assert bridged.ok("wait", "server") == "137"
    bridged.ok("rm", "server")


def test_run_at_a_terminal(podman: Podman) -> None:
    result = _at_a_terminal(
        podman, "run", "-it", "--rm", "--network=none", "localhost/bb", "sh", "-c", "tty; exit 4"
    )

    assert result.returncode == 4
    assert "/dev/pts/0" in result.stdout


def test_detached_container_is_listed_inspected_and_stopped(podman: Podman, running: str) -> None:
    assert podman.status(running).startswith("Up")
    state = json.loads(podman.ok("inspect", running))[0]["State"]
    assert state["Status"] == "running"
    assert Path(f"/proc/{state['Pid']}").exists()

    podman.ok("stop", running)

    assert podman.status(running).startswith("Exited (9)")
    assert podman.ok("logs", running) == "up\nbye"
    podman.ok("start", running)
    assert podman.status(running).startswith("Up")


def test_kill(podman: Podman, running: str) -> None:
    podman.ok("kill", "--signal=KILL", running)

    podman.ok("wait", running)
    assert podman.status(running).startswith("Exited (137)")


def test_exec(podman: Podman, running: str) -> None:
    assert podman.ok("exec", "-i", running, "cat", stdin="through\n") == "through"
    assert podman.call("exec", running, "sh", "-c", "exit 6").returncode == 6
    assert podman.call("exec", running, "nope").returncode == 127
    script = "echo $Q; pwd; id -u"
    assert podman.ok(
        "exec", "-e", "Q=1", "-w", "/tmp", "-u", "5", running, "sh", "-c", script
    ).split() == ["1", "/tmp", "5"]
    podman.ok("exec", "-d", running, "sh", "-c", "echo made >/tmp/x; mv /tmp/x /tmp/y")
    end = time.monotonic() + TIMEOUT_S
    while podman.call("exec", running, "cat", "/tmp/y").stdout != "made\n":
        assert time.monotonic() < end


def test_exec_at_a_terminal(podman: Podman, running: str) -> None:
    result = _at_a_terminal(podman, "exec", "-it", running, "sh", "-c", "tty; exit 3")

    assert result.returncode == 3
    assert "/dev/pts/" in result.stdout


def test_pause_and_unpause(podman: Podman, running: str) -> None:
    podman.ok("pause", running)
    assert podman.status(running) == "Paused"

    podman.ok("unpause", running)
    assert podman.ok("exec", running, "echo", "awake") == "awake"


def test_update_of_a_limit(podman: Podman, running: str) -> None:
    podman.ok("update", "--memory=300m", running)


def test_create_then_start_attached(podman: Podman) -> None:
    podman.ok("create", "--name=later", "--network=none", "localhost/bb", "sh", "-c", "echo now")

    assert podman.ok("start", "--attach", "later") == "now"
    podman.ok("rm", "later")


def test_init_reaps(podman: Podman) -> None:
    if not shutil.which("catatonit"):
        pytest.skip("needs catatonit")

    result = podman.run("--init", "localhost/bb", "sh", "-c", "echo $$")

    assert result.stdout == "2\n"


def test_users_of_a_container_are_others_on_the_host(podman: Podman, tmp_path: Path) -> None:
    os.chown(tmp_path, 100_000, 100_000)
    script = "cat /proc/self/uid_map; id -u; touch /x /v/made; stat -c %u /x /v/made"
    flags = ("--uidmap=0:100000:65536", "-v", f"{tmp_path}:/v")

    result = podman.run(*flags, "localhost/bb", "sh", "-c", script)

    assert result.stdout.split() == ["0", "100000", "65536", "0", "0", "0"], result.stderr
    assert (tmp_path / "made").stat().st_uid == 100_000


def test_namespaces_of_another_container_are_joined(podman: Podman) -> None:
    flags = ("--network=none", "--uidmap=0:100000:65536")
    podman.ok("run", "-d", "--name=first", *flags, "localhost/bb", "sleep", "1000")
    try:
        joined = ("--userns=container:first", "--network=container:first")
        result = podman.call(
            "run", "--rm", *joined, "localhost/bb", "cat", "/proc/self/uid_map"
        )

        assert result.stdout.split() == ["0", "100000", "65536"], result.stderr
        assert podman.ok("exec", "-u", "5", "first", "id", "-u") == "5"
    finally:
        podman.ok("rm", "--force", "--time=0", "first")


def test_socket_of_the_host_as_a_volume(podman: Podman, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        (tmp_path / "log").chmod(0o666)
        log.settimeout(TIMEOUT_S)

        result = podman.run(
            "-v", f"{tmp_path}/log:/dev/log", "localhost/bb", "logger", "from", "inside"
        )

        assert result.returncode == 0, result.stderr
        assert log.recv(1000).endswith(b"from inside")


def test_device_of_the_host_is_refused_by_its_name(podman: Podman) -> None:
    result = podman.run("--device=/dev/kvm", "localhost/bb", "true")

    assert result.returncode == 126
    assert "/dev/kvm (c 10:232) is a device of the host" in result.stderr


def test_privileged_container_runs_without_them(podman: Podman) -> None:
    assert podman.run("--privileged", "localhost/bb", "echo", "up").stdout == "up\n"
@pytest.fixture
def pod(podman: Podman) -> Iterator[str]:
    """A pod that has started; its own container waits."""
    archive = podman.state.parent / "image.tar"
    podman.ok("import", "--change", 'CMD ["sleep", "100000"]', str(archive), "localhost/pause")
    name = "pod"
    podman.ok("pod", "create", f"--name={name}", "--network=none", "--infra-image=localhost/pause")
    podman.ok("pod", "start", name)
    yield name
    podman.ok("pod", "rm", "--force", "--time=0", name)


def _sandboxes(podman: Podman) -> set[str]:
    """The containers that made a sandbox."""
    states = [json.loads(path.read_text()) for path in podman.state.glob("*/state.json")]
    return {state["id"] for state in states if not state.get("sandbox")}


def test_pod_is_one_sandbox(podman: Podman, pod: str) -> None:
    serve = "echo here >/dev/shm/f; nc -l -p 7000 -e echo hello; sleep 1000"
    podman.ok("run", "-d", f"--pod={pod}", "--name=one", "localhost/bb", "sh", "-c", serve)
    ask = "until nc 127.0.0.1 7000 </dev/null; do sleep 0.05; done; hostname; cat /dev/shm/f; ps"

    said = podman.ok("run", "--rm", f"--pod={pod}", "localhost/bb", "sh", "-c", ask).splitlines()

    assert said[:3] == ["hello", pod, "here"]
    assert not any("sleep 1000" in line for line in said)
    assert len(_sandboxes(podman)) == 1
    first = podman.ok("exec", "one", "cat", "/proc/1/cmdline")
    assert "sleep" in first and "100000" not in first  # the pod's own process is another's
    podman.ok("stop", "--time=0", "one")
    assert podman.status("one").startswith("Exited (137)")
    podman.ok("start", "one")
    podman.ok("pod", "stop", "--time=0", pod)
    assert podman.status("one").startswith("Exited (137)")
    podman.ok("pod", "start", pod)
    assert podman.status("one").startswith("Up")


@pytest.mark.parametrize("kind", ["network", "pid", "ipc", "uts"])
def test_namespace_of_another_container(podman: Podman, kind: str) -> None:
    flags = ("-d", "--name=base", "--network=none", "--hostname=base", "--ipc=shareable")
    podman.ok("run", *flags, "localhost/bb", "sleep", "1000")
    own = () if kind == "network" else ("--network=none",)
    show = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done"
    try:
        shared = podman.ok(
            "run", "--rm", f"--{kind}=container:base", *own, "localhost/bb", "sh", "-c", show
        ).splitlines()
        theirs = podman.ok("exec", "base", "sh", "-c", show).splitlines()
    finally:
        podman.ok("rm", "--force", "--time=0", "base")

    names = ("network", "pid", "ipc", "uts")
    assert {n for n, a, b in zip(names, shared, theirs, strict=True) if a == b} == {kind}


def test_uts_of_the_host(podman: Podman) -> None:
    result = podman.run("--uts=host", "localhost/bb", "hostname")

    assert result.stdout.strip() == os.uname().nodename


POD = """
apiVersion: v1
kind: Pod
metadata: {name: played}
spec:
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: one
    image: localhost/bb
    command: [sh, -c, "echo from one >/data/f; sleep 1000"]
    volumeMounts: [{mountPath: /data, name: data}]
  - name: two
    image: localhost/bb
    command: [sh, -c, "until cat /data/f; do sleep 0.05; done; stat -c %d:%i /data/f; sleep 1000"]
    volumeMounts: [{mountPath: /data, name: data}]
    resources: {limits: {memory: 64Mi}}
"""


def test_kube_play(podman: Podman, pod: str, tmp_path: Path) -> None:
    """The pod of the fixture has made the image of a pod's own container."""
    (tmp_path / "pod.yaml").write_text(POD)
    conf = tmp_path / "containers.conf"
    conf.write_text('[engine]\ninfra_image = "localhost/pause"\n')
    played = Podman.__new__(Podman)
    played.state = podman.state
    played.command = ["env", f"CONTAINERS_CONF_OVERRIDE={conf}", *podman.command]

    played.ok("kube", "play", "--network=none", str(tmp_path / "pod.yaml"))
    try:
        played.logs("played-two", ":")
        seen = played.ok("exec", "played-one", "stat", "-c", "%d:%i", "/data/f")
        assert played.ok("logs", "played-two").splitlines() == ["from one", seen]
        limit = played.ok("exec", "played-two", "cat", "/sys/fs/cgroup/memory.max")
        assert int(limit) == 64 << 20
        assert len(_sandboxes(podman)) == 2
    finally:
        played.ok("kube", "down", "--force", str(tmp_path / "pod.yaml"))

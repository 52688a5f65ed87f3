"""containerd over this runtime's shim: `ctr`, and pods as the kubelet makes them.

With the containerd of this machine, and, where there is one, with the next version's (`ci/rootfs
containerd`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runsc.engines.settings import SHIM
from tests.e2e.bundle import REPOSITORY, Result, kvm_is_usable
from tests.e2e.talker import Talker
from tests.full import cri

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("containerd"), reason="needs containerd"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
needs_grpc = pytest.mark.skipif(not importlib.util.find_spec("grpc"), reason="needs grpcio")
LOOP = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
TIMEOUT_S = 60
IMAGE, PAUSE = "localhost/bb:latest", "localhost/pause:latest"
CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/c.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runsc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
      runtime_type = "io.containerd.runsc.v1"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
        root = "{folder}/runsc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.untrusted]
      runtime_type = "io.containerd.runsc.v1"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.untrusted.options]
        root = "{folder}/runsc/untrusted"
"""


PLUGINS = Path("/usr/lib/cni")
NETWORK = """{{"cniVersion": "0.4.0", "name": "runsc-test", "plugins": [{{"type": "ptp", "ipam":
{{"type": "host-local", "subnet": "10.213.7.0/24", "dataDir": "{folder}/addresses"}}}}]}}"""


def _archive(path: Path, name: str, folder: Path, command: str) -> Path:
    """An OCI image of a folder: image-spec 1.0."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(folder, ".")
    made = blob("layer.v1.tar", layer.getvalue())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": [command]},
        "rootfs": {"type": "layers", "diff_ids": [made["digest"]]},
    }
    document = {
        "schemaVersion": 2,
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [made],
    }
    manifest = blob("manifest.v1+json", json.dumps(document).encode())
    manifest["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()},
    }
    with tarfile.open(path, "w") as tar:
        for each, data in files.items():
            info = tarfile.TarInfo(each)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


class Containerd:
    """containerd with state of its own, two images, and our shim on its PATH."""

    def __init__(self, folder: Path, rootfs: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._count = 0
        self.namespace = "default"
        path = folder / "bin"
        path.mkdir()
        shim = path / SHIM
        shim.write_text(
            f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m runsc.shim.program'
            ' "$@"\n'
        )
        shim.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        config = CONFIG.format(folder=folder, pause=PAUSE, plugins=PLUGINS)
        (folder / "config.toml").write_text(config)
        (folder / "cni").mkdir()
        (folder / "cni" / "net.conflist").write_text(NETWORK.format(folder=folder))
        self.start()
        pause = folder / "pause"
        pause.mkdir()
        shutil.copy(REPOSITORY / "runsc" / "launch" / "built" / "pause", pause)
        for name, tree, command in ((IMAGE, rootfs, "sh"), (PAUSE, pause, "/pause")):
            archive = _archive(folder / "image.tar", name, tree, command)
            for self.namespace in ("k8s.io", "default"):
                self.ok("image", "import", "--snapshotter=native", "--local", str(archive))
                self.ok("image", "label", name, "io.cri-containerd.image=managed")

    def start(self) -> None:
        """Until it answers."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self._programs / "containerd", "--config", self.folder / "config.toml"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        until(lambda: self.call("version").returncode == 0)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT_S)

    def command(self, *args: str) -> list[str]:
        flags = [f"--address={self.folder}/c.sock", f"--namespace={self.namespace}"]
        return [str(self._programs / "ctr"), *flags, *args]

    def call(self, *args: str, stdin: str = "") -> Result:
        return subprocess.run(
            self.command(*args),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def ok(self, *args: str, stdin: str = "") -> str:
        """A command that must succeed."""
        result = self.call(*args, stdin=stdin)
        assert result.returncode == 0, (args, result.stdout, result.stderr)
        return result.stdout

    def run_flags(self, *flags: str) -> list[str]:
        runtime = self.folder / "runsc.toml"
        runtime.write_text(f'root = "{self.folder}/runsc"\n')
        return [
            "run", "--runtime=io.containerd.runsc.v1", "--snapshotter=native",
            f"--runtime-config-path={runtime}", *flags, IMAGE,
        ]  # fmt: skip

    def detached(self, *flags: str) -> str:
        """A container that loops; its name."""
        self._count += 1
        name = f"c{self._count}"
        log = self.folder / f"{name}.log"
        self.ok(*self.run_flags("-d", f"--log-uri=file://{log}", *flags), name, "sh", "-c", LOOP)
        until(lambda: "up" in log.read_text())
        return name

    def status(self, name: str) -> str:
        """Of a task; "" if there is none."""
        lines = [line.split() for line in self.ok("task", "ls").splitlines()]
        return next((words[2] for words in lines if words[0] == name), "")

    def remove(self, name: str) -> None:
        self.call("task", "kill", "-s", "KILL", name)
        until(lambda: self.status(name) in ("STOPPED", ""))
        self.call("task", "rm", name)
        self.ok("container", "rm", name)

    def unmount(self) -> None:
        """What pods have left that a failed test did not remove."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        mounts = [line.split(" ")[4] for line in lines]
        for path in reversed(mounts):
            if path.startswith(f"{self.folder}/"):
                subprocess.run(["umount", path], check=True)

    def shims(self) -> list[int]:
        """Pids of the shims of this containerd."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"{self.folder}/c.sock".encode() in words and b"start" in words:
                found.append(int(entry.name))
        return found


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_clean(root: Path) -> bool:
    """No container is noted there."""
    return not list(root.rglob("state.json"))


def _programs(version: str) -> Path:
    if version == "installed":
        return Path(shutil.which("containerd") or "").parent
    known = os.environ.get("RUNSC_ROOTFS_CONTAINERD")
    if not known:
        pytest.skip("no root file system with containerd: RUNSC_ROOTFS_CONTAINERD")
    return Path(known) / "usr" / "bin"


@pytest.fixture(scope="module", params=["installed", "next"])
def containerd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busybox: Path
) -> Iterator[Containerd]:
    made = Containerd(tmp_path_factory.mktemp("containerd"), busybox, _programs(request.param))
    yield made
    for name in made.ok("container", "ls", "-q").split():
        made.remove(name)
    try:
        until(lambda: made.shims() == [])
    finally:
        for pid in made.shims():  # containerd cleans up after them
            os.kill(pid, signal.SIGKILL)
            until(lambda: _is_clean(made.folder / "runsc"))
        made.stop()
        made.unmount()
    assert _is_clean(made.folder / "runsc")


def test_run_passes_streams_and_the_exit_code(containerd: Containerd) -> None:
    run = [*containerd.run_flags("--rm"), "once", "sh", "-c"]

    result = containerd.call(*run, "cat; echo e >&2; exit 5", stdin="in\n")

    assert (result.returncode, result.stdout) == (5, "in\n")
    assert result.stderr.startswith("e\n")


def test_a_program_that_is_not_there_is_an_error(containerd: Containerd) -> None:
    result = containerd.call(*containerd.run_flags("--rm"), "absent", "no-such-program")

    assert result.returncode != 0
    assert "executable file not found" in result.stderr


def test_exec_has_streams_and_an_exit_code(containerd: Containerd) -> None:
    name = containerd.detached()
    flags = ["task", "exec", "--exec-id=e", name]

    result = containerd.call(*flags, "sh", "-c", "cat; exit 4", stdin="in\n")

    assert (result.returncode, result.stdout) == (4, "in\n")
    assert containerd.call(*flags, "true").returncode == 0  # the name is free again
    containerd.remove(name)


def test_exec_at_a_terminal(containerd: Containerd) -> None:
    name = containerd.detached()
    exec_ = containerd.command("task", "exec", "-t", "--exec-id=t", name, "sh", "-c", "tty; exit 6")

    result = subprocess.run(
        ["script", "-qec", " ".join(f"'{word}'" for word in exec_), "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert "/dev/pts/0" in result.stdout
    assert result.returncode == 6
    containerd.remove(name)


def test_pause_resume_metrics_and_kill(containerd: Containerd) -> None:
    name = containerd.detached("--memory-limit=100000000")

    containerd.ok("task", "pause", name)
    assert containerd.status(name) == "PAUSED"
    containerd.ok("task", "resume", name)
    assert containerd.status(name) == "RUNNING"
    metrics = json.loads(containerd.ok("task", "metrics", "--format=json", name))
    assert metrics["pids"]["current"] >= 1
    assert metrics["memory"]["usage"]
    containerd.ok("task", "kill", "-s", "TERM", name)
    until(lambda: containerd.status(name) == "STOPPED")
    assert (containerd.folder / f"{name}.log").read_text().endswith("bye\n")
    removed = containerd.call("task", "rm", name)
    assert "non-zero exit code 9" in removed.stderr
    containerd.ok("container", "rm", name)


def test_events_are_those_of_a_task(containerd: Containerd) -> None:
    heard = Talker(containerd.command("events"))
    try:
        containerd.call(*containerd.run_flags("--rm"), "told", "sh", "-c", "exit 3")
        topics = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
        for topic in topics:
            while topic not in (line := heard.hear()):
                assert not any(later in line for later in topics[topics.index(topic) + 1 :])
            assert "told" in line
    finally:
        heard.process.terminate()
        heard.end()


def test_containers_go_on_while_containerd_is_restarted(containerd: Containerd) -> None:
    stays, ends = containerd.detached(), containerd.detached()
    pid = int(containerd.ok("task", "ls").split(ends)[1].split()[0])

    containerd.stop()
    os.kill(pid, signal.SIGKILL)
    containerd.start()

    assert containerd.status(stays) == "RUNNING"
    until(lambda: containerd.status(ends) == "STOPPED")
    assert "non-zero exit code 137" in containerd.call("task", "rm", ends).stderr
    result = containerd.call("task", "exec", "--exec-id=e", stays, "echo", "there")
    assert result.stdout == "there\n"
    containerd.remove(stays)
    containerd.remove(ends)


def test_a_shim_that_is_killed_leaves_nothing(containerd: Containerd) -> None:
    name = containerd.detached()
    pid = int(containerd.ok("task", "ls").split(name)[1].split()[0])
    [shim] = containerd.shims()

    os.kill(shim, signal.SIGKILL)

    until(lambda: containerd.status(name) == "")
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert str(containerd.folder) + "/state/io.containerd.runtime.v2.task" not in (
        Path("/proc/self/mountinfo").read_text()
    )
    containerd.ok("container", "rm", name)


@needs_grpc
def test_a_pod_of_the_kubelet(containerd: Containerd) -> None:
    logs = containerd.folder / "logs"
    client = cri.Cri(f"{containerd.folder}/c.sock", "runsc")
    pod = client.run_pod("pod", str(logs))
    lives = client.create(pod, "lives", IMAGE, ["sh", "-c", LOOP])
    ends = client.create(pod, "ends", IMAGE, ["sh", "-c", "exit 3"])
    client.start(lives)
    client.start(ends)

    assert len(containerd.shims()) == 1
    execed = client.exec(lives, "sh", "-c", "echo in; echo err >&2; exit 4")
    assert (execed.stdout, execed.stderr, execed.exit_code) == (b"in\n", b"err\n", 4)
    until(lambda: client.status(ends).state == cri.EXITED)
    assert client.status(ends).exit_code == 3
    assert client.status(lives).state == cri.RUNNING
    assert "stdout F up\n" in (logs / "lives.log").read_text()

    client.remove_container(ends)
    client.remove_container(lives)
    client.remove_pod(pod)
    until(lambda: containerd.shims() == [])
    client.close()


@needs_grpc
@pytest.mark.skipif(not (PLUGINS / "ptp").exists(), reason="needs containernetworking-plugins")
def test_a_pod_that_says_it_is_untrusted(containerd: Containerd) -> None:
    client = cri.Cri(f"{containerd.folder}/c.sock", "runsc")
    annotations = {"io.kubernetes.cri.untrusted-workload": "true"}

    pod = client.run_pod("untrusted", str(containerd.folder / "logs"), annotations)
    container = client.create(pod, "one", IMAGE, ["sleep", "1000"])
    client.start(container)

    assert (containerd.folder / "runsc" / "untrusted" / "k8s.io" / pod).is_dir()
    assert b"10.213.7." in client.exec(container, "ip", "addr").stdout
    client.remove_container(container)
    client.remove_pod(pod)
    until(lambda: containerd.shims() == [])
    client.close()

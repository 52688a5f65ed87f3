"""containerd over the runtime of these tests: `ctr`, and a pod that is untrusted.

With the containerd of this machine, and, where there is one, with the next version's (`ci/rootfs
containerd`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import OVERFLOW
from tests.e2e.talker import Talker
from tests.full import cri
from tests.full.containerd import (
    IMAGE,
    PLUGINS,
    TIMEOUT_S,
    Containerd,
    is_clean,
    programs_of,
    until,
)
from tests.full.runtimes import is_there, only_ours

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("containerd"), reason="needs containerd"),
    is_there,
]
needs_grpc = pytest.mark.skipif(not importlib.util.find_spec("grpc"), reason="needs grpcio")


@pytest.fixture(scope="module", params=["installed", "next"])
def containerd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busybox: Path
) -> Iterator[Containerd]:
    made = Containerd(tmp_path_factory.mktemp("containerd"), busybox, programs_of(request.param))
    yield made
    for name in made.ok("container", "ls", "-q").split():
        made.remove(name)
    try:
        until(lambda: made.shims() == [])
    finally:
        for pid in made.shims():  # containerd cleans up after them
            os.kill(pid, signal.SIGKILL)
            until(lambda: is_clean(made.folder / "runsc"))
        made.stop()
        made.unmount()
    assert is_clean(made.folder / "runsc")


@pytest.mark.row(
    "`run`: streams and the exit code",
    runc="hangs: the end of standard input does not arrive",
    gvisor="hangs: the end of standard input does not arrive",
)
def test_run_passes_streams_and_the_exit_code(containerd: Containerd) -> None:
    run = [*containerd.run_flags("--rm"), "once", "sh", "-c"]

    result = containerd.call(*run, "cat; echo e >&2; exit 5", stdin="in\n")

    assert (result.returncode, result.stdout) == (5, "in\n")
    assert result.stderr.startswith("e\n")


@pytest.mark.row("a program that a signal ends: 128 + n")
def test_exit_code_tells_the_signal(containerd: Containerd) -> None:
    result = containerd.call(*containerd.run_flags("--rm"), "fell", "sh", "-c", OVERFLOW)

    assert result.returncode == 128 + signal.SIGSEGV, result


@pytest.mark.row("a program that is not there is an error", gvisor="the message is its own")
def test_a_program_that_is_not_there_is_an_error(containerd: Containerd) -> None:
    result = containerd.call(*containerd.run_flags("--rm"), "absent", "no-such-program")

    assert result.returncode != 0
    assert "executable file not found" in result.stderr


@pytest.mark.row("`task exec`")
def test_exec_has_streams_and_an_exit_code(containerd: Containerd) -> None:
    name = containerd.detached()
    flags = ["task", "exec", "--exec-id=e", name]

    result = containerd.call(*flags, "sh", "-c", "cat; exit 4", stdin="in\n")

    assert (result.returncode, result.stdout) == (4, "in\n")
    assert containerd.call(*flags, "true").returncode == 0  # the name is free again
    containerd.remove(name)


@pytest.mark.row("`task exec -t`", gvisor="tty(1): not a tty")
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


@pytest.mark.row("`task pause`, `resume`, `metrics`, `kill`")
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


@pytest.mark.row("`events`", gvisor="containerd 1.7 tells the exit before the start")
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


@pytest.mark.row(
    "containers go on while containerd is restarted",
    runc="they do; the end of one meanwhile was not told in a minute",
    gvisor="they do; the end of one meanwhile was not told in a minute",
)
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


APART = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" none /etc
mount -t tmpfs none /opt
rm -rf /etc/cni
mkdir /etc/cni /opt/cni
ln -s "$2" /etc/cni/net.d
ln -s "$3" /opt/cni/bin
shift 3
exec "$@"
"""
"""Shell: where ctr looks for CNI's settings and plugins, which no flag says."""


@pytest.mark.row("`run --cni`")
@pytest.mark.skipif(not (PLUGINS / "ptp").exists(), reason="needs containernetworking-plugins")
def test_network_of_cni(containerd: Containerd, tmp_path: Path) -> None:
    places = (str(tmp_path), str(containerd.folder / "cni"), str(PLUGINS))
    command = containerd.command(*containerd.run_flags("--rm", "--cni"), "wired", "ip", "addr")

    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", APART, "sh", *places, *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip

    assert (result.returncode, "inet 10.213.7." in result.stdout) == (0, True), result


@pytest.mark.row("`task checkpoint`; the container goes on")
def test_checkpoint_is_written_and_the_container_goes_on(containerd: Containerd) -> None:
    name = containerd.detached()

    result = containerd.call("task", "checkpoint", name)

    assert result.returncode == 0, result.stderr
    until(lambda: containerd.status(name) == "RUNNING")
    assert containerd.ok("task", "exec", "--exec-id=e", name, "echo", "there") == "there\n"
    containerd.remove(name)


@only_ours
def test_a_shim_that_is_killed_leaves_nothing(containerd: Containerd) -> None:
    name = containerd.detached()
    pid = int(containerd.ok("task", "ls").split(name)[1].split()[0])
    [shim] = containerd.shims()

    os.kill(shim, signal.SIGKILL)

    until(lambda: containerd.status(name) == "")
    until(lambda: not Path(f"/proc/{pid}").exists())
    mounts = f"{containerd.folder}/state/io.containerd.runtime.v2.task"
    until(lambda: mounts not in Path("/proc/self/mountinfo").read_text())
    containerd.ok("container", "rm", name)


@only_ours
@needs_grpc
@pytest.mark.skipif(not (PLUGINS / "ptp").exists(), reason="needs containernetworking-plugins")
def test_a_pod_that_says_it_is_untrusted(containerd: Containerd) -> None:
    client = cri.Cri(f"{containerd.folder}/c.sock", "")
    annotations = {"io.kubernetes.cri.untrusted-workload": "true"}
    who = cri.Metadata("untrusted", "untrusted", "default")

    pod = client.run_pod(cri.Pod(who, "untrusted", annotations=annotations))
    one = cri.Container(cri.Name("one"), cri.Image(IMAGE), ["sleep", "1000"])
    container = client.create(pod, one)
    client.start(container)

    assert (containerd.folder / "runsc" / "untrusted" / "k8s.io" / pod).is_dir()
    assert b"10.213.7." in client.exec(container, "ip", "addr").stdout
    client.remove_container(container)
    client.remove_pod(pod)
    until(lambda: containerd.shims() == [])
    client.close()

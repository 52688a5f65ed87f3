"""podman's pods, and namespaces that containers share."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full.engine import MEMORY
from tests.full.podman import IMAGE, Podman, needs_podman
from tests.full.runtimes import RUNTIME, is_there, only_ours

pytestmark = [pytest.mark.full, pytest.mark.root, needs_podman, is_there]


@pytest.mark.row("`--userns=container:CTR`", gvisor="does not start")
def test_namespaces_of_another_container_are_joined(podman: Podman) -> None:
    flags = ("--network=none", "--uidmap=0:100000:65536")
    podman.ok("run", "-d", "--name=first", *flags, IMAGE, "sleep", "1000")
    try:
        joined = ("--userns=container:first", "--network=container:first")
        result = podman.call(
            "run", "--rm", *joined, IMAGE, "cat", "/proc/self/uid_map"
        )

        assert result.stdout.split() == ["0", "100000", "65536"], result.stderr
        assert podman.ok("exec", "-u", "5", "first", "id", "-u") == "5"
    finally:
        podman.ok("rm", "--force", "--time=0", "first")


@pytest.fixture
def pod(podman: Podman) -> Iterator[str]:
    """A pod that has started; its own container waits."""
    change = 'CMD ["sleep", "100000"]'
    podman.ok("import", "--change", change, str(podman.archive), "localhost/pause")
    name = "pod"
    podman.ok("pod", "create", f"--name={name}", "--network=none", "--infra-image=localhost/pause")
    podman.ok("pod", "start", name)
    yield name
    podman.ok("pod", "rm", "--force", "--time=0", name)


def _sandboxes(podman: Podman) -> set[str]:
    """The containers that made a sandbox."""
    states = [json.loads(path.read_text()) for path in podman.state.glob("*/state.json")]
    return {state["id"] for state in states if not state.get("sandbox")}


@pytest.mark.row(
    "pods: network, hostname, /dev/shm shared; stop and start",
    gvisor="did not end within a minute",
)
def test_pod_shares_network_names_and_memory(podman: Podman, pod: str) -> None:
    serve = "echo here >/dev/shm/f; nc -l -p 7000 -e echo hello; sleep 1000"
    podman.ok("run", "-d", f"--pod={pod}", "--name=one", IMAGE, "sh", "-c", serve)
    ask = "until nc 127.0.0.1 7000 </dev/null; do sleep 0.05; done; hostname; cat /dev/shm/f; ps"

    said = podman.ok("run", "--rm", f"--pod={pod}", IMAGE, "sh", "-c", ask).splitlines()

    assert said[:3] == ["hello", pod, "here"]
    assert not any("sleep 1000" in line for line in said)
    first = podman.ok("exec", "one", "cat", "/proc/1/cmdline")
    assert "sleep" in first and "100000" not in first  # the pod's own process is another's
    podman.ok("stop", "--time=0", "one")
    assert podman.status("one").startswith("Exited (137)")
    podman.ok("start", "one")
    podman.ok("pod", "stop", "--time=0", pod)
    assert podman.status("one").startswith("Exited (137)")
    podman.ok("pod", "start", pod)
    assert podman.status("one").startswith("Up")


@only_ours
def test_pod_is_one_sandbox(podman: Podman, pod: str) -> None:
    podman.ok("run", "-d", f"--pod={pod}", IMAGE, "sleep", "1000")
    podman.ok("run", "-d", f"--pod={pod}", IMAGE, "sleep", "1000")

    assert len(_sandboxes(podman)) == 1


@pytest.mark.row("pods: `--share=pid`", gvisor="a container sees itself only")
def test_pod_with_one_pid_namespace(podman: Podman, pod: str) -> None:
    """The pod of the fixture has made the image of a pod's own container."""
    podman.ok("pod", "create", "--name=seeing", "--share=net,pid",
              "--network=none", "--infra-image=localhost/pause")  # fmt: skip
    try:
        podman.ok("run", "-d", "--pod=seeing", IMAGE, "sleep", "1234")
        shown = podman.ok("run", "--rm", "--pod=seeing", IMAGE, "ps", "-o", "args")
        assert "sleep 1234" in shown
    finally:
        podman.ok("pod", "rm", "--force", "--time=0", "seeing")


@pytest.mark.row(
    "`--network`, `--pid`, `--ipc`, `--uts` of another container",
    gvisor="/proc/self/ns is the same in all sandboxes",
)
@pytest.mark.parametrize("kind", ["network", "pid", "ipc", "uts"])
def test_namespace_of_another_container(podman: Podman, kind: str) -> None:
    flags = ("-d", "--name=base", "--network=none", "--hostname=base", "--ipc=shareable")
    podman.ok("run", *flags, IMAGE, "sleep", "1000")
    own = () if kind == "network" else ("--network=none",)
    show = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done"
    try:
        shared = podman.ok(
            "run", "--rm", f"--{kind}=container:base", *own, IMAGE, "sh", "-c", show
        ).splitlines()
        theirs = podman.ok("exec", "base", "sh", "-c", show).splitlines()
    finally:
        podman.ok("rm", "--force", "--time=0", "base")

    names = ("network", "pid", "ipc", "uts")
    assert {n for n, a, b in zip(names, shared, theirs, strict=True) if a == b} == {kind}


@pytest.mark.row("`--uts=host`", gvisor="the hostname is `?`")
def test_uts_of_the_host(podman: Podman) -> None:
    result = podman.run("--uts=host", IMAGE, "hostname")

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


@pytest.mark.row("`kube play`", gvisor="runs; its limit of memory is not seen inside")
def test_kube_play(podman: Podman, pod: str, tmp_path: Path) -> None:
    """The pod of the fixture has made the image of a pod's own container."""
    (tmp_path / "pod.yaml").write_text(POD)
    conf = tmp_path / "containers.conf"
    conf.write_text('[engine]\ninfra_image = "localhost/pause"\n')
    played = copy.copy(podman)
    played.command = ["env", f"CONTAINERS_CONF_OVERRIDE={conf}", *podman.command]

    played.ok("kube", "play", "--network=none", str(tmp_path / "pod.yaml"))
    try:
        played.logs("played-two", ":")
        seen = played.ok("exec", "played-one", "stat", "-c", "%d:%i", "/data/f")
        assert played.ok("logs", "played-two").splitlines() == ["from one", seen]
        limit = played.ok("exec", "played-two", "sh", "-c", f"{MEMORY}; true")
        assert int(limit) == 64 << 20
        assert not RUNTIME.is_ours or len(_sandboxes(podman)) == 2
    finally:
        played.ok("kube", "down", "--force", str(tmp_path / "pod.yaml"))

"""A snapshot of one container of a pod: what is its own comes back, the pod's stays there."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.e2e.bundle import TIMEOUT_S, Bundle
from tests.e2e.client import Client, wait_for_end
from tests.e2e.pod import Pod, joins

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
"""Shell: each line is one more than the one before."""


def lines(client: Client, name: str, count: int) -> list[str]:
    """So many have come."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(found := client.output(name).split("\n")[:-1]) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.001)
    return found


def with_pod(pod: Pod) -> None:
    """The pod, as CRI has it: its containers have their own processes."""
    pod.run("pause", change=lambda d: d.update(hostname="podname"))


def shares(pod: Pod) -> dict[str, str]:
    return {kind: pod.path("pause", name) for kind, name in
            (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))}  # fmt: skip


def restored(pod: Pod, image: Path, script: str, name: str = "again") -> Client:
    """A container in a sandbox of its own that goes on with it."""
    client = Client(Bundle(pod.folder / name, pod.rootfs), pod.platform)
    client.flags = pod.client("pause").flags
    client.root = pod.client("pause").root
    client.bundle.args("sh", "-c", script)
    pod.clients[name] = client
    client.create(name, "--detach", f"--image-path={image}", command="restore")
    return client


def test_a_container_of_a_pod_goes_on_as_one_of_its_own(pod: Pod) -> None:
    with_pod(pod)
    script = "hostname; echo kept >/dev/shm/file; " + COUNTER
    app = pod.run("app", script, change=joins(**shares(pod)))
    lines(app, "app", 5)
    image = pod.folder / "image"

    app.ok("checkpoint", "--leave-running", f"--image-path={image}", "app")

    written = len(lines(app, "app", 1))
    name, *numbers = lines(app, "app", written + 5)
    assert name == "podname"
    assert list(map(int, numbers)) == list(range(1, len(numbers) + 1))
    assert pod.client("pause").ok("exec", "pause", "echo", "alive") == "alive\n"
    again = restored(pod, image, script)
    first = int(lines(again, "again", 5)[0])
    assert 4 <= first <= written
    told = lines(again, "again", 10)
    assert list(map(int, told)) == list(range(first, first + len(told)))
    look = "cat /dev/shm/file; hostname; cat /proc/1/comm"
    assert again.ok("exec", "again", "sh", "-c", look) == "kept\npodname\nsh\n"


def test_a_connection_with_another_container_is_reset(pod: Pod) -> None:
    with_pod(pod)
    first = pod.client("pause")
    serve = "nc -ll -p 7000 -e sh -c 'echo hello; sleep 1000' >/dev/null 2>&1 &"
    first.ok("exec", "pause", "sh", "-c", serve)
    first.ok("exec", "pause", "sh", "-c", "until netstat -ltn | grep -q :7000; do :; done")
    script = "mkfifo /dev/shm/in; exec 3<>/dev/shm/in; nc 127.0.0.1 7000 <&3; echo gone"
    app = pod.run("app", script, change=joins(**shares(pod)))
    lines(app, "app", 1)
    image = pod.folder / "image"

    app.ok("checkpoint", "--leave-running", f"--image-path={image}", "app")

    again = restored(pod, image, script)
    assert lines(again, "again", 1)[-1] == "gone"
    assert app.output("app") == "hello\n"


def test_what_is_not_the_containers_alone_is_said_and_all_go_on(pod: Pod) -> None:
    with_pod(pod)
    app = pod.run("app", COUNTER, change=joins(pid=pod.path("pause", "pid")))
    image = pod.folder / "image"

    told = app.error("checkpoint", "--leave-running", f"--image-path={image}", "app")

    assert told.endswith("cannot checkpoint: a PID namespace that is another container's, too")
    assert not image.exists()
    lines(app, "app", len(app.output("app").split()) + 5)
    assert pod.client("pause").ok("exec", "pause", "echo", "alive") == "alive\n"


def test_a_snapshot_is_no_start_of_a_container_of_a_pod(pod: Pod) -> None:
    """It was begun anew, and nobody was told."""
    with_pod(pod)
    app = pod.run("app", COUNTER, change=joins(**shares(pod)))
    lines(app, "app", 5)
    image = pod.folder / "image"
    app.ok("checkpoint", "--leave-running", f"--image-path={image}", "app")

    bundle = app.bundle.path
    told = app.error("restore", f"--bundle={bundle}", f"--image-path={image}", "other")

    assert 'cannot begin with a snapshot: it joins the sandbox "pause", which runs' in told


def test_a_container_of_a_pod_ends_alone_once_it_is_written(pod: Pod) -> None:
    with_pod(pod)
    app = pod.run("app", COUNTER, change=joins(**shares(pod)))
    lines(app, "app", 5)
    pidfd = os.pidfd_open(pod.pids["app"])

    app.ok("checkpoint", f"--image-path={pod.folder / 'image'}", "app")

    wait_for_end(pidfd)
    assert pod.client("pause").ok("exec", "pause", "echo", "alive") == "alive\n"

"""A snapshot of one container of a pod: what is its own comes back, the pod's stays there."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle, Document
from tests.e2e.client import Client, wait_for_end
from tests.e2e.pod import Pod, joins
from tests.e2e.test_snapshots import seen, started_at_a_terminal
from tests.full.hostile_images import Image

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


def shares(pod: Pod, sandbox: str = "pause") -> dict[str, str]:
    """Namespaces of a pod, by path."""
    return {kind: pod.path(sandbox, name) for kind, name in
            (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))}  # fmt: skip


def restored(
    pod: Pod, image: Path, script: str, change: Callable[[Document], object] = lambda _: None
) -> Client:
    """A container in a sandbox of its own that goes on with it."""
    name = "again"
    client = Client(Bundle(pod.folder / name, pod.rootfs), pod.platform)
    client.flags = pod.client("pause").flags
    client.root = pod.client("pause").root
    client.bundle.args("sh", "-c", script).configure(change)
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


def runs(program: Path, change: Callable[[Document], object]) -> Callable[[Document], None]:
    """It is the first process, and not a script."""

    def changed(document: Document) -> None:
        change(document)
        document["process"]["args"] = ["/kept"]
        document["mounts"].append(
            {"destination": "/kept", "source": str(program), "options": ["bind", "ro"]}
        )

    return changed


@pytest.mark.parametrize("in_pod", [False, True])
def test_what_a_program_has_comes_back(pod: Pod, in_pod: bool) -> None:
    program = pod.folder / "kept"
    source = Path(__file__).with_name("kept.c")
    compile_it = ["gcc", "-O1", "-w", "-static", "-pthread", "-o", program, source]
    subprocess.run(compile_it, check=True)
    with_pod(pod)
    app = pod.run("app", "", change=runs(program, joins(**shares(pod))))
    lines(app, "app", 2)
    image = pod.folder / "image"

    app.ok("checkpoint", "--leave-running", f"--image-path={image}", "app")

    if in_pod:
        pod.run("pause2", sandbox="pause2")
        change = runs(program, joins(**shares(pod, "pause2")))
        again = begun_again(pod, image, "", "again", sandbox="pause2", change=change)
    else:
        again = restored(pod, image, "", runs(program, lambda _: None))
    for client, name in ((app, "app"), (again, "again")):
        pidfd = os.pidfd_open(client.state(name)["pid"])
        lines(client, name, 2)
        client.ok("exec", "--detach", name, "touch", "/dev/shm/stop")  # ends with it
        wait_for_end(pidfd)
        assert lines(client, name, 2)[-1] == "kept"


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


def begun_again(pod: Pod, image: Path, script: str, name: str, **named: Any) -> Client:
    """A container of the pod that goes on with it."""
    client = pod.prepared(name, script, **named)
    pod.pids[name] = client.create(name, "--detach", f"--image-path={image}", command="restore")
    return client


def test_a_snapshot_goes_on_as_a_container_of_another_pod(pod: Pod) -> None:
    with_pod(pod)
    script = "echo kept >/dev/shm/file; sleep 1000 & " + COUNTER
    app = pod.run("app", script, change=joins(**shares(pod)))
    lines(app, "app", 5)
    image = pod.folder / "image"
    app.ok("checkpoint", f"--image-path={image}", "app")
    last = int(lines(app, "app", 1)[-1])
    pod.run("pause2", sandbox="pause2", change=lambda d: d.update(hostname="other"))
    change = joins(**shares(pod, "pause2"))

    again = begun_again(pod, image, script, "again", sandbox="pause2", change=change)

    first = int(lines(again, "again", 5)[0])
    assert last - 1 <= first <= last + 1
    told = lines(again, "again", 10)
    assert list(map(int, told)) == list(range(first, first + len(told)))
    look = "cat /dev/shm/file; hostname; cat /proc/1/comm; cat /proc/2/comm; kill 2; echo $?"
    seen = again.ok("exec", "again", "sh", "-c", look)
    assert seen == "kept\nother\nsh\nsleep\n0\n"
    shown = pod.client("pause2").ok("exec", "pause2", "ps", "-o", "comm")
    assert "sleep" not in shown.split()[:2]
    pidfd = os.pidfd_open(pod.pids["again"])
    again.ok("kill", "again", "KILL")
    wait_for_end(pidfd)
    assert pod.client("pause2").ok("exec", "pause2", "echo", "alive") == "alive\n"


def test_a_container_of_a_pod_ends_alone_once_it_is_written(pod: Pod) -> None:
    with_pod(pod)
    app = pod.run("app", COUNTER, change=joins(**shares(pod)))
    lines(app, "app", 5)
    pidfd = os.pidfd_open(pod.pids["app"])

    app.ok("checkpoint", f"--image-path={pod.folder / 'image'}", "app")

    wait_for_end(pidfd)
    assert pod.client("pause").ok("exec", "pause", "echo", "alive") == "alive\n"


def test_a_terminal_has_the_line_that_was_typed(pod: Pod) -> None:
    with_pod(pod)

    def change(document: Document) -> None:
        joins(**shares(pod))(document)
        document["process"]["terminal"] = True

    def begun(name: str, *words: str) -> tuple[int, int]:
        client = pod.prepared(name, "cat; echo status $?; exit 3", change=change)
        bundle = client.bundle.write()
        pid, fd = started_at_a_terminal(client.command(*words, f"--bundle={bundle}", name))
        deadline = time.monotonic() + TIMEOUT_S
        while client.call("exec", name, "true").returncode:  # then its terminal is raw
            assert time.monotonic() < deadline
        return pid, fd

    image = pod.folder / "image"
    first, fd = begun("app", "run")
    os.write(fd, b"whole\nhal")
    seen(fd, b"hal")
    pod.client("app").ok("checkpoint", f"--image-path={image}", "app")
    os.waitpid(first, 0)
    os.close(fd)

    second, fd = begun("again", "restore", f"--image-path={image}")
    os.write(fd, b"f\n\x04")

    assert b"half\r\n" in seen(fd, b"status 0")
    assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 3
    os.close(fd)
    for name in ("app", "again"):
        del pod.clients[name]


def test_a_port_that_another_container_has_is_said(pod: Pod) -> None:
    with_pod(pod)
    script = "nc -ll -p 8000 -e cat & until netstat -ltn | grep -q :8000; do :; done; echo up; wait"
    app = pod.run("app", script, change=joins(**shares(pod)))
    lines(app, "app", 1)
    image = pod.folder / "image"
    app.ok("checkpoint", "--leave-running", f"--image-path={image}", "app")

    bundle = pod.prepared("again", script, change=joins(**shares(pod))).bundle.write()
    told = app.error("restore", f"--bundle={bundle}", f"--image-path={image}", "again")

    assert told.endswith("cannot restore: port 8000 is another container's")
    ask = "echo hello | nc 127.0.0.1 8000"
    assert pod.client("pause").ok("exec", "pause", "sh", "-c", ask) == "hello\n"
    del pod.clients["again"]


STAYS = """
import gc
for _ in range(2):
    n = gc.collect()

p = kernel.pids
(len(p.tasks), len(p.groups), len(p.sessions), len(p.process_groups), len(p._nested))
(len(kernel.further), len(kernel.held), len(kernel.vfs.budget.namespaces))
kernel.vfs.budget.ipc_namespaces, kernel.vfs.budget.semaphores, kernel.vfs.budget.message_bytes
sum(kernel.services.namespace_counts._counts.values())
kernel.platform.ram.file_pages
"""
"""What the kernel has, for `debug --repl`."""


def has(client: Client) -> str:
    """What the sandbox of the pod has."""
    found = subprocess.run(
        client.command("debug", "--repl", "pause"), input=STAYS, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    return found.stdout


def _no_first_process(objects: Any) -> None:
    for process in objects["processes"]:
        process["pid"] = process["leader"] = process["pid"] + 1000
        process["threads"][0]["tid"] += 1000
        process.pop("parent", None)


def _lost_parent(objects: Any) -> None:
    objects["processes"][-1]["parent"] = 77


def _nobody_in_a_session(objects: Any) -> None:
    objects["sessions"].append({"sid": 99})


def _process_twice(objects: Any) -> None:
    objects["processes"].append(objects["processes"][-1])


def _last_thread(objects: Any) -> Any:
    threads = [process["threads"][0] for process in objects["processes"]]
    return [each for each in threads if not each.get("dead")][-1]


def _unknown_namespace(objects: Any) -> None:
    _last_thread(objects)["whereabouts"] = 5


def _unknown_file(objects: Any) -> None:
    objects["descriptors"][-1]["files"].append([50, 1000, False])


def _no_such_name(objects: Any) -> None:
    for each in objects["files"]:
        if each.get("place", {}).get("path"):
            each["place"]["path"] = base64.b64encode(b"dev/none").decode()


def _overlapping_mappings(objects: Any) -> None:
    memory = objects["memories"][-1]
    memory["mappings"].append(memory["mappings"][0])


def _pages_that_are_not_there(objects: Any) -> None:
    runs = [run for each in objects["memories"][-1]["mappings"] for run in each.get("runs", ())]
    runs[-1][1] = 1 << 19


def _no_registers(objects: Any) -> None:
    """The last one: all else has been made by then."""
    _last_thread(objects)["registers"] = ""


HOSTILE = {
    _no_first_process: "there is no process 1",
    _lost_parent: "has no parent 77",
    _nobody_in_a_session: "session 99 has nobody",
    _process_twice: "is there twice",
    _unknown_namespace: "there is no namespace 5",
    _unknown_file: "there is no open file 1000",
    _no_such_name: "the container has no /dev/none",
    _overlapping_mappings: "mappings that overlap",
    _pages_that_are_not_there: "there is no page",
    _no_registers: "has no registers",
}


def test_what_cannot_be_restored_leaves_nothing_in_a_pod(pod: Pod) -> None:
    pod.flags = ["--repl"]
    pod.run("pause", "exec sleep 1000")
    script = (
        "echo kept >/dev/shm/file; exec 4</dev/shm/file; mkfifo /dev/shm/pipe;"
        " exec 5<>/dev/shm/pipe; (sleep 1000 | cat) & " + COUNTER
    )
    app = pod.run("app", script, change=joins(**shares(pod)))
    lines(app, "app", 5)
    app.ok("checkpoint", f"--image-path={pod.folder / 'image'}", "app")
    app.ok("delete", "app")
    del pod.clients["app"]
    image = Image(pod.folder / "image")
    before = has(pod.client("pause"))
    client = pod.prepared("again", script, change=joins(**shares(pod)))
    bundle = client.bundle.write()

    for claim, why in HOSTILE.items():
        objects = copy.deepcopy(image.objects)
        claim(objects)
        hostile = image.with_objects(pod.folder / "hostile", objects)
        told = client.error("restore", f"--bundle={bundle}", f"--image-path={hostile}", "again")
        assert why in told, claim
        assert has(pod.client("pause")) == before, claim

    again = begun_again(pod, image.folder, script, "again", change=joins(**shares(pod)))
    lines(again, "again", 5)
    assert "Traceback" not in (pod.folder / "debug.log").read_text()

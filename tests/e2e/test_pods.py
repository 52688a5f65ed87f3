"""Several containers in one sandbox, by annotation or by paths of namespaces: what they share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.abi.test_abi import compile_program, with_everything
from tests.e2e.bundle import Document
from tests.e2e.client import wait_for_end
from tests.e2e.pod import CRI, WAIT, Pod, joins, said


def test_second_container_has_its_own_life(pod: Pod) -> None:
    first = pod.run("pause")
    second = pod.create("app", "echo hello; cat /proc/1/comm; exit 7")

    sentry = json.loads((first.root / "pause" / "state.json").read_text())["sentryPid"]
    own = json.loads((second.root / "app" / "state.json").read_text())
    assert (own["sandbox"], own.get("sentryPid", 0)) == ("pause", 0)
    assert second.state("app")["status"] == "created"
    assert second.output("app") == ""
    pidfd = os.pidfd_open(pod.pids["app"])
    second.ok("start", "app")
    wait_for_end(pidfd)

    assert second.output("app") == "hello\nsh\n"
    assert second.state("app")["status"] == "stopped"
    assert first.state("pause")["status"] == "running"
    second.ok("delete", "app")
    assert Path(f"/proc/{sentry}").exists()
    del pod.clients["app"]


def test_commands_are_about_one_container(pod: Pod) -> None:
    first = pod.run("pause", WAIT + "; : pause")
    catch = "trap 'echo caught; exit 3' TERM; sleep 1000 & "
    second = pod.run("app", catch + WAIT.partition("; ")[2])
    said(second, "app", "up")

    shown = second.ok("exec", "app", "cat", "/proc/1/cmdline")
    assert shown.startswith("sh\0-c\0trap 'echo caught")
    seen = json.loads(second.ok("ps", "--format=json", "app"))
    assert len(seen) == len(json.loads(first.ok("ps", "--format=json", "pause"))) == 1
    inside = second.ok("exec", "app", "ps", "-o", "pid,args").splitlines()
    assert any("sleep 1000" in line for line in inside)
    assert not any(line.endswith("pause") for line in inside)
    assert "sleep 1000" not in first.ok("exec", "pause", "ps", "-o", "args")
    pidfd = os.pidfd_open(pod.pids["app"])
    second.ok("kill", "app", "TERM")
    wait_for_end(pidfd)
    assert "caught" in second.output("app")
    assert first.ok("exec", "pause", "echo", "alive") == "alive\n"


def test_container_shares_what_it_names_and_nothing_else(pod: Pod) -> None:
    first = pod.run("pause", change=lambda d: d.update(hostname="podname"))
    show = "hostname; for n in ipc net pid uts mnt cgroup; do readlink /proc/self/ns/$n; done; "
    of_first = first.ok("exec", "pause", "sh", "-c", show).splitlines()
    shared = joins(**{kind: pod.path("pause", kind) for kind in ("ipc", "pid", "uts")})
    pod.run("near", change=shared).ok("exec", "near", "true")
    pod.run("far", change=lambda d: d.update(hostname="other"))

    near = pod.client("near").ok("exec", "near", "sh", "-c", show).splitlines()
    far = pod.client("far").ok("exec", "far", "sh", "-c", show).splitlines()

    assert near[0] == "podname"
    same = [mine == theirs for mine, theirs in zip(near, of_first, strict=True)]
    assert same == [True, True, False, True, True, False, False]
    assert far[0] == "other"
    assert not set(far) & set(of_first)
    seen = pod.client("near").ok("exec", "near", "cat", "/proc/1/cmdline")
    assert "trap" in seen  # the process 1 of both is that of the pod
    assert len(json.loads(pod.client("near").ok("ps", "--format=json", "near"))) == 1


def test_shared_network_and_system_v_objects(pod: Pod) -> None:
    first = pod.run("pause")
    names = {"network": pod.path("pause", "net"), "ipc": pod.path("pause", "ipc")}
    second = pod.run("app", change=joins(**names))

    first.ok("exec", "pause", "sh", "-c", "nc -l -p 7000 -e echo hello >/dev/null 2>&1 &")
    ask = "until nc 127.0.0.1 7000 </dev/null; do sleep 0.05; done"
    assert second.ok("exec", "app", "sh", "-c", ask) == "hello\n"


def test_namespace_path_alone_joins(pod: Pod) -> None:
    first = pod.run("pause")
    client = pod.client("app")
    client.bundle.args("sh", "-c", WAIT).configure(joins(network=pod.path("pause", "net")))
    pod.pids["app"] = client.create("app")
    client.ok("start", "app")

    state = json.loads((first.root / "app" / "state.json").read_text())
    assert state["sandbox"] == "pause"
    net = "readlink", "/proc/self/ns/net"
    assert client.ok("exec", "app", *net) == first.ok("exec", "pause", *net)
    pid = "readlink", "/proc/self/ns/pid"
    assert client.ok("exec", "app", *pid) != first.ok("exec", "pause", *pid)


def test_parts_of_two_sandboxes_are_refused(pod: Pod) -> None:
    pod.run("pause")
    pod.run("alien", sandbox="alien")
    client = pod.client("app")
    both = joins(network=pod.path("pause", "net"), ipc=pod.path("alien", "ipc"))
    client.bundle.args("true").configure(both)

    error = client.error("create", f"--bundle={client.bundle.write()}", "app")

    assert 'parts of different sandboxes: "alien", "pause"' in error
    assert "app" not in client.remains()


@pytest.mark.parametrize("kind", ["ipc", "uts", "pid"])
def test_namespace_of_a_process_of_the_host_is_refused(pod: Pod, kind: str) -> None:
    pod.run("pause")
    client = pod.client("app")
    foreign = f"/proc/{os.getpid()}/ns/{kind}"
    paths = {kind: foreign, "network": pod.path("pause", "net")}
    client.bundle.args("true").configure(joins(**paths))

    error = client.error("create", f"--bundle={client.bundle.write()}", "app")

    assert f'the {kind} namespace {foreign} is none of the sandbox "pause"' in error


def test_sandbox_that_is_not_there_is_refused(pod: Pod) -> None:
    client = pod.client("app")
    client.bundle.args("true").document["annotations"] = {
        f"{CRI}container-type": "container",
        f"{CRI}sandbox-id": "nobody",
    }

    error = client.error("create", f"--bundle={client.bundle.write()}", "app")

    assert f'{CRI}sandbox-id: there is no sandbox "nobody" in {client.root}' in error


def test_host_uts_shows_the_name_of_the_host(pod: Pod) -> None:
    def without_uts(document: Document) -> None:
        namespaces = document["linux"]["namespaces"]
        document["linux"]["namespaces"] = [n for n in namespaces if n["type"] != "uts"]
        document["hostname"] = ""

    first = pod.run("pause", change=without_uts)
    second = pod.run("app", change=without_uts)

    assert first.ok("exec", "pause", "hostname").strip() == os.uname().nodename
    assert second.ok("exec", "app", "hostname").strip() == os.uname().nodename


def test_ends_of_threads_are_told_to_a_tracer(tmp_path: Path, pod: Pod) -> None:
    """By their numbers, which are others there than in the sandbox's first PID namespace."""
    program = compile_program("ptrace_events", tmp_path)
    mount = {"destination": "/events", "source": str(program), "options": ["bind", "ro"]}

    def mounted(document: Document) -> None:
        with_everything(document)
        document["mounts"].append(mount)

    pod.run("pause")
    second = pod.run("app", change=mounted)

    assert second.call("exec", "app", "/events").stderr == ""


def test_a_policy_is_that_of_the_sandbox(pod: Pod) -> None:
    for name in ("one.py", "other.py"):
        (pod.folder / name).write_text("from runsc.policy import *\n")

    def ruled_by(name: str) -> Callable[[Document], None]:
        path = str(pod.folder / name)
        return lambda document: document["annotations"].update({"dev.runsc.policy": path})

    pod.run("pause", change=ruled_by("one.py"))
    pod.run("app", change=ruled_by("one.py"))
    client = pod.client("alien")
    client.bundle.args("true").document["annotations"] = {
        f"{CRI}container-type": "container", f"{CRI}sandbox-id": "pause",
    }  # fmt: skip
    client.bundle.configure(ruled_by("other.py"))

    error = client.error("create", f"--bundle={client.bundle.write()}", "alien")

    assert '"alien" has another policy than the sandbox "pause", which it joins' in error
    assert "alien" not in client.remains()

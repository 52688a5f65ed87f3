"""Pods as the kubelet makes them: the CRI of containerd, over this runtime's shim.

A pod is one sandbox, and its containers are in that. RUNSC_TEST_RUNTIME=runc runs the same cases
with runc, which shows what is right.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import OVERFLOW
from tests.full import cri
from tests.full.containerd import LOOP, until
from tests.full.pods import NEEDS, SUBNET, Pods, logged
from tests.full.runtimes import RUNTIME, only_ours

pytestmark = NEEDS


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_run_pod_sandbox_is_ready_and_has_an_address(pods: Pods) -> None:
    pod = pods.run(labels={"app": "a"}, annotations={"note": "n"})

    status = pods.client.pod_status(pod)

    assert status.state == cri.READY
    assert status.network is not None
    assert status.network.ip.startswith(SUBNET)
    assert (status.labels, status.annotations) == ({"app": "a"}, {"note": "n"})


@only_ours
def test_containers_of_a_pod_are_in_its_sandbox(pods: Pods) -> None:
    pod = pods.run()
    made = [pods.start(pod) for _ in range(3)]

    until(lambda: len(pods.containerd.shims()) == 1)  # that of a pod before may just be ending
    assert pods.state(pod)["sentryPid"]
    for each in made:
        state = pods.state(each)
        assert (state["sandbox"], state.get("sentryPid", 0)) == (pod, 0)
        assert pods.shell(each, "echo in") == "in\n"


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_create_container_waits_for_start(pods: Pods) -> None:
    pod = pods.run()
    container = pods.create(pod, "echo", "ran")

    assert pods.client.status(container).state == cri.CREATED
    assert logged(pods.log) == ""
    pods.client.start(container)

    assert pods.ended(container).reason == "Completed"
    assert logged(pods.log) == "ran\n"


@pytest.mark.row("command, args, workingDir, env")
def test_command_args_working_dir_and_envs(pods: Pods) -> None:
    pod = pods.run()
    envs = [cri.Variable("WORD", "set")]

    container = pods.start(
        pod, "sh", "-c", args=["pwd; echo $WORD $0", "zero"], working_dir="/proc", envs=envs
    )

    assert pods.ended(container).exit_code == 0
    assert logged(pods.log) == "/proc\nset zero\n"


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_container_exit_codes_come_through(pods: Pods) -> None:
    pod = pods.run()
    fails = pods.start(pod, "sh", "-c", "exit 3")
    killed = pods.start(pod, "sh", "-c", "sh -c 'kill -KILL $$'; exit $?")
    fell = pods.start(pod, "sh", "-c", OVERFLOW)

    assert pods.ended(fell).exit_code == 139
    assert (pods.ended(fails).exit_code, pods.ended(fails).reason) == (3, "Error")
    assert pods.ended(killed).exit_code == 137


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_stop_container_sends_sigterm_and_leaves_the_others(pods: Pods) -> None:
    pod = pods.run()
    other = pods.start(pod)
    catches = pods.start(pod, "sh", "-c", LOOP)
    until(lambda: "up" in logged(pods.log))

    pods.client.stop(catches, 30)

    assert pods.client.status(catches).exit_code == 9
    assert logged(pods.log) == "up\nbye\n"
    assert pods.client.status(other).state == cri.RUNNING
    assert pods.shell(other, "echo there") == "there\n"


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_stop_container_kills_what_does_not_end(pods: Pods) -> None:
    pod = pods.run()
    other = pods.start(pod)
    deaf = pods.start(pod, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    until(lambda: "up" in logged(pods.log))

    pods.client.stop(deaf, 1)

    assert pods.client.status(deaf).exit_code == 137
    assert pods.shell(other, "echo there") == "there\n"


@only_ours
def test_remove_container_leaves_nothing_of_it(pods: Pods) -> None:
    pod = pods.run()
    other, gone = pods.start(pod), pods.start(pod)
    state = pods.state(gone)

    pods.client.remove_container(gone)

    until(lambda: not Path(f"/proc/{state['pid']}").exists())
    until(lambda: not Path(f"/proc/{state['goferPid']}").exists())
    assert not (pods.containerd.folder / "runsc" / "k8s.io" / gone).exists()
    assert gone not in Path("/proc/self/mountinfo").read_text()
    assert pods.shell(other, "echo there") == "there\n"


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_create_container_that_fails_leaves_nothing(pods: Pods) -> None:
    import grpc  # noqa: PLC0415  an environment may be without it

    pod = pods.run()
    other = pods.start(pod)
    bad = pods.create(pod, "no-such-program")

    with pytest.raises(grpc.RpcError, match="executable file not found"):
        pods.client.start(bad)

    status = pods.client.status(bad)
    assert (status.state, status.exit_code, status.reason) == (cri.EXITED, 128, "StartError")
    assert not (pods.containerd.folder / "runsc" / "k8s.io" / bad).exists()
    assert len(pods.containerd.shims()) == 1 or not RUNTIME.is_ours
    assert pods.shell(other, "echo there") == "there\n"
    assert pods.output(pod, "echo new") == "new\n"


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_a_container_is_started_again_in_its_pod(pods: Pods) -> None:
    pod = pods.run()
    pods.start(pod)

    for turn in range(3):
        ended = pods.start(pod, "sh", "-c", f"exit {turn}")
        assert pods.ended(ended).exit_code == turn
        pods.client.remove_container(ended)


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_stop_pod_sandbox_ends_all_containers(pods: Pods) -> None:
    pod = pods.run()
    made = [pods.start(pod), pods.start(pod, "sh", "-c", LOOP)]

    pods.client.call("StopPodSandbox", cri.Id(pod), cri.Empty)

    assert pods.client.pod_status(pod).state == cri.NOT_READY
    for each in made:
        assert pods.ended(each).exit_code == 137
    pods.client.call("StopPodSandbox", cri.Id(pod), cri.Empty)  # once more is no error


@only_ours
def test_the_end_of_the_sandbox_ends_all_containers(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod)

    os.kill(pods.state(pod)["sentryPid"], signal.SIGKILL)

    assert pods.ended(container).exit_code == 137
    until(lambda: pods.client.pod_status(pod).state == cri.NOT_READY)


@pytest.mark.row("pods and their containers: create, start, stop, remove, list")
def test_list_containers_of_a_pod(pods: Pods) -> None:
    pod, other = pods.run(), pods.run()
    made = {pods.start(pod, labels={"k": "v"}), pods.create(pod, "true")}
    pods.start(other, labels={"k": "v"})

    def ids(**filters: Any) -> set[str]:
        request = cri.ListContainers(cri.Filter(**filters))
        answer = pods.client.call("ListContainers", request, cri.Containers)
        return {each.id for each in answer.containers}

    assert ids(pod_id=pod) == made
    assert len(ids(pod_id=pod, labels={"k": "v"})) == 1


@pytest.mark.row("events of containers")
def test_get_container_events_tells_of_a_container(pods: Pods) -> None:
    heard = pods.client.events()
    pod = pods.run()
    container = pods.start(pod, "true")
    pods.ended(container)
    pods.client.remove_container(container)

    kinds: list[int] = []
    for event in heard:
        if event.id == container:
            kinds.append(event.kind)
            if event.kind == 3:
                break

    assert kinds == [0, 1, 2, 3]


@pytest.mark.row("pods go on while containerd is restarted")
def test_containers_go_on_while_containerd_is_restarted(pods: Pods) -> None:
    pod = pods.run()
    stays = pods.start(pod)
    ends = pods.start(pod, "sh", "-c", LOOP)

    pods.containerd.stop()
    pods.containerd.start()
    until(pods.client.is_ready)

    assert pods.client.pod_status(pod).state == cri.READY
    assert pods.shell(stays, "echo there") == "there\n"
    pods.client.stop(ends, 30)
    assert pods.client.status(ends).exit_code == 9


@only_ours
def test_a_container_of_a_pod_is_checkpointed_and_goes_on(pods: Pods) -> None:
    """As CheckpointContainer of containerd 2 asks the shim for it."""
    pod = pods.run()
    container = pods.start(pod, "sh", "-c", LOOP)
    pods.shell(container, "until grep -q trap /proc/1/cmdline; do :; done")

    done = pods.containerd.call("--namespace=k8s.io", "task", "checkpoint", container)

    assert done.returncode == 0, done.stderr
    assert pods.client.status(container).state == cri.RUNNING
    assert pods.shell(container, "echo there") == "there\n"

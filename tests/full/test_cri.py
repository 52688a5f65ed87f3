"""Pods as the kubelet makes them: the CRI of containerd, over this runtime's shim.

A pod is one sandbox, and its containers are in that. RUNSC_TEST_RUNTIME=runc runs the same cases
with runc, which shows what is right.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import OVERFLOW
from tests.full import cri
from tests.full.containerd import (
    IMAGE,
    LOOP,
    PLUGINS,
    Containerd,
    is_clean,
    programs_of,
    until,
)
from tests.full.runtimes import RUNTIME, is_there, only_ours
from tests.full.streaming import STDERR, STDIN, STDOUT, V5, NotServed, Stream

HANDLER = "runsc" if RUNTIME.is_ours else "other"
pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("containerd"), reason="needs containerd"),
    is_there,
    pytest.mark.skipif(not importlib.util.find_spec("grpc"), reason="needs grpcio"),
    pytest.mark.skipif(
        not (PLUGINS / "bridge").exists(), reason="needs containernetworking-plugins"
    ),
]
BRIDGE = f"rt{os.getpid()}"
SUBNET = "10.213.8."
PARENT = f"/{BRIDGE}"
"""A cgroup, as the kubelet has one for each pod."""
NETWORK = (
    {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": f"{SUBNET}0/24"},
    },
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
)
SLEEP = ("sleep", "1000")


class Pods:
    """What one test makes."""

    def __init__(self, containerd: Containerd, logs: Path) -> None:
        self.containerd = containerd
        self.client = cri.Cri(f"{containerd.folder}/c.sock", HANDLER)
        self.logs = logs
        self._count = 0

    def run(
        self,
        security: cri.PodSecurity | None = None,
        sysctls: dict[str, str] | None = None,
        handler: str = HANDLER,
        **fields: Any,
    ) -> str:
        """A pod; its id."""
        self._count += 1
        name = f"pod{self._count}"
        linux = cri.LinuxPod(PARENT, security or cri.PodSecurity(cri.Namespaces()), sysctls or {})
        who = cri.Metadata(name, str(uuid.uuid4()), "default")
        fields.setdefault("hostname", name)
        pod = cri.Pod(who, log_directory=str(self.logs), linux=linux, **fields)
        return self.client.run_pod(pod, handler)

    def create(
        self,
        pod: str,
        *command: str,
        security: cri.Security | None = None,
        resources: cri.Resources | None = None,
        **fields: Any,
    ) -> str:
        """A container; its id."""
        self._count += 1
        name = f"c{self._count}"
        security = security or cri.Security()
        security.namespaces = security.namespaces or cri.Namespaces()
        linux = cri.LinuxContainer(resources, security)
        fields.setdefault("log_path", f"{name}.log")
        config = cri.Container(
            cri.Name(name), cri.Image(IMAGE), list(command), linux=linux, **fields
        )
        made = self.client.create(pod, config)
        self.log = self.logs / fields["log_path"]
        """Of the last one."""
        return made

    def start(self, pod: str, *command: str, **fields: Any) -> str:
        """The same, started."""
        made = self.create(pod, *(command or SLEEP), **fields)
        self.client.start(made)
        return made

    def serving(self, pod: str, script: str, **fields: Any) -> str:
        """A container that runs this for each connection to port 8080, and listens."""
        made = self.start(pod, "nc", "-ll", "-p", "8080", "-e", "sh", "-c", script, **fields)
        until(lambda: self.client.exec(made, "nc", "127.0.0.1", "8080").exit_code == 0)
        return made

    def output(self, pod: str, script: str, **fields: Any) -> str:
        """What a container of its own writes that ends well."""
        made = self.start(pod, "sh", "-c", script, **fields)
        self.ended(made)
        assert self.client.status(made).exit_code == 0, logged(self.log, "stderr")
        return logged(self.log)

    def ended(self, container: str) -> cri.Status:
        """Until it has."""
        until(lambda: self.client.status(container).state == cri.EXITED)
        return self.client.status(container)

    def shell(self, container: str, script: str) -> str:
        """What exec gives, which must end well."""
        execed = self.client.exec(container, "sh", "-c", script)
        assert execed.exit_code == 0, execed
        return execed.stdout.decode()

    def state(self, container: str) -> dict[str, Any]:
        """What this runtime has noted of it."""
        path = self.containerd.folder / "runsc" / "k8s.io" / container / "state.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def exec_stream(self, container: str, *command: str, **which: bool) -> Stream:
        """What runs in it, at our end of its streams."""
        request = cri.Exec(container, list(command), **which)
        return Stream(self.client.call("Exec", request, cri.Url).url)

    def end(self) -> None:
        """Nothing of them is left."""
        for pod in self.client.pods():
            self.client.remove_pod(pod)
        until(lambda: self.containerd.shims() == [])
        assert is_clean(self.containerd.folder / "runsc")
        self.client.close()


def logged(path: Path, stream: str = "stdout") -> str:
    """What a log of the CRI has of a stream: lines of "TIME STREAM F|P TEXT"."""
    text = ""
    for line in path.read_text().splitlines() if path.exists() else ():
        _, which, tag, said = line.split(" ", 3)
        if which == stream:
            text += said + ("\n" if tag == "F" else "")
    return text


@pytest.fixture(scope="module", params=["installed", "next"])
def containerd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busybox: Path
) -> Iterator[Containerd]:
    folder = tmp_path_factory.mktemp("cri")
    made = Containerd(folder, busybox, programs_of(request.param), NETWORK)
    yield made
    for pid in made.shims():
        os.kill(pid, signal.SIGKILL)
    made.stop()
    made.unmount()
    subprocess.run(["ip", "link", "del", BRIDGE], check=False)  # no pod may have needed it
    for path in (*Path("/sys/fs/cgroup").glob(f"*/{BRIDGE}"), Path("/sys/fs/cgroup", BRIDGE)):
        if path.is_dir():
            path.rmdir()


@pytest.fixture
def pods(containerd: Containerd, tmp_path: Path) -> Iterator[Pods]:
    made = Pods(containerd, tmp_path / "logs")
    yield made
    made.end()


def secured(**fields: Any) -> cri.PodSecurity:
    return cri.PodSecurity(cri.Namespaces(), **fields)


def in_namespaces(**modes: Any) -> dict[str, Any]:
    """Of a pod, and of its containers."""
    return {"security": cri.PodSecurity(cri.Namespaces(**modes))}


# pods and their containers


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

    assert len(pods.containerd.shims()) == 1
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


# namespaces


@pytest.mark.row("containers of a pod share network, hostname, IPC")
def test_containers_share_network_hostname_and_ipc(pods: Pods) -> None:
    pod = pods.run(hostname="shared")
    first = pods.serving(pod, "echo from the first")
    second = pods.start(pod)

    assert pods.shell(second, "nc 127.0.0.1 8080 </dev/null") == "from the first\n"
    assert pods.shell(first, "hostname") == pods.shell(second, "hostname") == "shared\n"
    pods.shell(first, "echo x >/dev/shm/file")
    assert pods.shell(second, "cat /dev/shm/file") == "x\n"
    for kind in ("net", "uts", "ipc"):
        link = f"readlink /proc/self/ns/{kind}"
        assert pods.shell(first, link) == pods.shell(second, link)
    assert pods.shell(first, "readlink /proc/self/ns/mnt") != pods.shell(
        second, "readlink /proc/self/ns/mnt"
    )


@pytest.mark.row("shareProcessNamespace, ephemeral containers (target), hostPID")
def test_pid_mode_container_sees_itself_only(pods: Pods) -> None:
    pod = pods.run()
    pods.start(pod, "sleep", "1234")
    second = pods.start(pod, "sleep", "5678")

    shown = pods.shell(second, "ps -o args")

    assert "sleep 5678" in shown
    assert "sleep 1234" not in shown
    assert pods.shell(second, "tr '\\0' ' ' </proc/1/cmdline") == "sleep 5678 "


@pytest.mark.row("shareProcessNamespace, ephemeral containers (target), hostPID")
def test_pid_mode_pod_is_shared_by_all_containers(pods: Pods) -> None:
    modes = in_namespaces(pid=cri.POD)
    pod = pods.run(**modes)
    shared = cri.Security(namespaces=cri.Namespaces(pid=cri.POD))
    first = pods.start(pod, "sleep", "1234", security=shared)
    second = pods.start(pod, "sleep", "5678", security=shared)

    shown = pods.shell(second, "ps -o args")

    assert "sleep 5678" in shown
    assert "sleep 1234" in shown
    assert "pause" in pods.shell(second, "cat /proc/1/cmdline")
    pods.shell(second, "kill -9 $(ps -o pid,args | awk '$3 == 1234 { print $1 }')")
    assert pods.ended(first).exit_code == 137
    assert pods.client.status(second).state == cri.RUNNING


@pytest.mark.row("shareProcessNamespace, ephemeral containers (target), hostPID")
def test_pid_mode_target_is_that_containers(pods: Pods) -> None:
    pod = pods.run()
    target = pods.start(pod, "sleep", "1234")
    joined = cri.Namespaces(pid=cri.TARGET, target_id=target)

    debugs = pods.start(pod, security=cri.Security(namespaces=joined))

    assert pods.shell(debugs, "tr '\\0' ' ' </proc/1/cmdline") == "sleep 1234 "
    assert "sleep 1000" in pods.shell(target, "ps -o args")


@pytest.mark.row("shareProcessNamespace, ephemeral containers (target), hostPID")
def test_pid_mode_node_containers_see_one_another(pods: Pods) -> None:
    pod = pods.run(**in_namespaces(pid=cri.NODE))
    node = cri.Security(namespaces=cri.Namespaces(pid=cri.NODE))
    pods.start(pod, "sleep", "1234", security=node)
    second = pods.start(pod, "sleep", "5678", security=node)

    shown = pods.shell(second, "ps -o args")

    assert "sleep 1234" in shown
    assert "sleep 5678" in shown


@pytest.mark.row("hostNetwork")
def test_host_network_has_the_hosts_addresses(pods: Pods) -> None:
    handler = "runsc-host" if RUNTIME.is_ours else HANDLER  # it has to be allowed
    pod = pods.run(handler=handler, **in_namespaces(network=cri.NODE))
    node = cri.Security(namespaces=cri.Namespaces(network=cri.NODE))
    container = pods.start(pod, security=node)

    names = sorted(name for _, name in socket.if_nameindex())
    assert sorted(pods.shell(container, "ls /sys/class/net").split()) == names
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert pods.shell(container, f"nc 127.0.0.1 {port} -e true && echo there") == "there\n"


@only_ours
def test_host_network_without_the_flag_is_a_loopback_of_the_pod_and_told(pods: Pods) -> None:
    node = cri.Security(namespaces=cri.Namespaces(network=cri.NODE))
    pod = pods.run(**in_namespaces(network=cri.NODE))
    container = pods.serving(pod, "echo from the first", security=node)
    other = pods.start(pod, security=cri.Security(namespaces=cri.Namespaces(network=cri.NODE)))

    assert pods.shell(container, "ls /sys/class/net") == "lo\n"
    assert pods.shell(other, "nc 127.0.0.1 8080 </dev/null") == "from the first\n"
    log = (pods.containerd.folder / "log").read_text()
    assert "a loopback interface alone, unless runsc is told --network=host" in log


@pytest.mark.row("hostIPC")
def test_host_ipc_containers_share_memory(pods: Pods) -> None:
    pod = pods.run(**in_namespaces(ipc=cri.NODE))
    node = cri.Security(namespaces=cri.Namespaces(ipc=cri.NODE))
    made = [pods.start(pod, security=node) for _ in range(2)]

    link = "readlink /proc/self/ns/ipc"
    assert pods.shell(made[0], link) == pods.shell(made[1], link)


@pytest.mark.row("sysctls")
def test_sysctls_of_a_pod_are_all_containers(pods: Pods) -> None:
    pod = pods.run(
        sysctls={
            "kernel.shm_rmid_forced": "1",
            "net.ipv4.ip_unprivileged_port_start": "80",
            "net.ipv4.ip_local_port_range": "20000 20100",
        }
    )
    made = [pods.start(pod) for _ in range(2)]

    for each in made:
        assert pods.shell(each, "cat /proc/sys/kernel/shm_rmid_forced") == "1\n"
        shown = pods.shell(each, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
        assert shown == "80\n"
        ports = pods.shell(each, "cat /proc/sys/net/ipv4/ip_local_port_range")
        assert ports.split() == ["20000", "20100"]


@pytest.mark.row("dnsConfig, hostPort")
def test_dns_config_is_in_resolv_conf(pods: Pods) -> None:
    dns = cri.Dns(["10.10.10.10"], ["one.example", "two.example"], ["ndots:8"])
    pod = pods.run(dns=dns)

    text = pods.output(pod, "cat /etc/resolv.conf")

    assert text == "search one.example two.example\nnameserver 10.10.10.10\noptions ndots:8\n"


@pytest.mark.row("dnsConfig, hostPort")
def test_host_port_is_forwarded_to_the_container(pods: Pods) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    pod = pods.run(ports=[cri.Port(0, 8080, free)])
    pods.serving(pod, "echo pod")
    status = pods.client.pod_status(pod)
    assert status.network is not None

    assert _said(status.network.ip, 8080) == b"pod\n"
    assert _said(f"{SUBNET}1", free) == b"pod\n"


def _said(host: str, port: int) -> bytes:
    """By who listens there."""
    with socket.create_connection((host, port), 30) as sock:
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(4096), b""))


# exec, attach, port-forward, logs


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_sync_has_streams_and_an_exit_code(pods: Pods) -> None:
    container = pods.start(pods.run())

    execed = pods.client.exec(container, "sh", "-c", "echo in; echo err >&2; exit 4")

    assert (execed.stdout, execed.stderr, execed.exit_code) == (b"in\n", b"err\n", 4)


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_sync_timeout_ends_the_process(pods: Pods) -> None:
    import grpc  # noqa: PLC0415  an environment may be without it

    container = pods.start(pods.run())

    with pytest.raises(grpc.RpcError) as told:
        request = cri.ExecSync(container, ["sleep", "4321"], 1)
        pods.client.call("ExecSync", request, cri.Execed)

    assert told.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "sleep 4321" not in pods.shell(container, "ps -o args")


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_sync_is_refused_after_the_end(pods: Pods) -> None:
    import grpc  # noqa: PLC0415  an environment may be without it

    pod = pods.run()
    container = pods.start(pod, "true")
    pods.ended(container)

    with pytest.raises(grpc.RpcError, match="CONTAINER_EXITED"):
        pods.client.exec(container, "true")


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_streams_go_both_ways(pods: Pods) -> None:
    container = pods.start(pods.run())
    which = {"stdin": True, "stdout": True, "stderr": True}

    stream = pods.exec_stream(
        container, "sh", "-c", "read x; echo got $x; echo err >&2; read x; exit 5", **which
    )
    stream.send(STDIN, b"word\n")
    stream.hear(STDOUT, b"got word\n")
    stream.hear(STDERR, b"err\n")
    stream.send(STDIN, b"\n")

    assert stream.finish() == 5


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_whose_input_ends_over_version_5(pods: Pods) -> None:
    container = pods.start(pods.run())
    request = cri.Exec(container, ["sh", "-c", "cat; exit 5"], stdin=True, stdout=True)
    url = pods.client.call("Exec", request, cri.Url).url
    try:
        stream = Stream(url, V5)
    except NotServed as said:
        pytest.skip(f"this containerd has no version 5: {said}")

    stream.send(STDIN, b"all\n")
    stream.end(STDIN)

    assert stream.finish() == 5
    assert stream.heard[STDOUT] == b"all\n"


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_at_a_terminal_that_is_resized(pods: Pods) -> None:
    container = pods.start(pods.run())

    stream = pods.exec_stream(container, "sh", stdin=True, stdout=True, tty=True)
    stream.send(STDIN, b"tty\n")
    stream.hear(STDOUT, b"/dev/pts/0")
    stream.send(STDIN, b"trap 'stty size' WINCH; echo re''ady\n")
    stream.hear(STDOUT, b"ready")
    stream.resize(123, 45)
    stream.send(STDIN, b"while [ \"$(stty size)\" != '45 123' ]; do :; done; exit 6\n")

    assert stream.finish() == 6


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_attach_to_a_container_that_reads(pods: Pods) -> None:
    pod = pods.run()
    script = "while read x; do echo got $x; [ $x = end ] && exit 7; done"
    container = pods.start(pod, "sh", "-c", script, stdin=True)
    request = cri.Attach(container, stdin=True, stdout=True, stderr=True)

    stream = Stream(pods.client.call("Attach", request, cri.Url).url)
    stream.send(STDIN, b"one\n")
    stream.hear(STDOUT, b"got one\n")
    stream.send(STDIN, b"end\n")

    assert pods.ended(container).exit_code == 7
    assert logged(pods.log) == "got one\ngot end\n"
    stream.close()


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_attach_to_a_terminal(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, "sh", stdin=True, tty=True)
    request = cri.Attach(container, stdin=True, stdout=True, tty=True)

    stream = Stream(pods.client.call("Attach", request, cri.Url).url)
    stream.send(STDIN, b"tty; exit 8\n")
    stream.hear(STDOUT, b"/dev/pts/0")

    assert pods.ended(container).exit_code == 8
    stream.close()


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_stdin_once_ends_with_the_first_attach(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, "cat", stdin=True, stdin_once=True)
    request = cri.Attach(container, stdin=True, stdout=True, stderr=True)

    stream = Stream(pods.client.call("Attach", request, cri.Url).url)
    stream.send(STDIN, b"all\n")
    stream.hear(STDOUT, b"all\n")
    stream.close()

    assert pods.ended(container).exit_code == 0


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_port_forward_reaches_a_port_of_the_pod(pods: Pods) -> None:
    pod = pods.run()
    pods.serving(pod, "cat")

    url = pods.client.call("PortForward", cri.PortForward(pod, [8080]), cri.Url).url
    stream = Stream(f"{url}?port=8080")
    stream.send(0, b"to and fro\n")
    stream.hear(0, b"to and fro\n")

    stream.close()


@pytest.mark.row("logs, and their rotation")
def test_log_has_both_streams_and_long_lines(pods: Pods) -> None:
    pod = pods.run()
    script = "echo out; echo err >&2; head -c 50000 /dev/zero | tr '\\0' x; echo; printf last"

    container = pods.start(pod, "sh", "-c", script)

    assert pods.ended(container).exit_code == 0
    until(lambda: logged(pods.log).endswith("last"))
    assert logged(pods.log).split("\n") == ["out", "x" * 50000, "last"]
    assert logged(pods.log, "stderr") == "err\n"


@pytest.mark.row("logs, and their rotation")
def test_reopen_container_log_goes_on_in_a_new_file(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, "sh", "-c", "echo one; exec sleep 1000")
    log = pods.log
    until(lambda: "one" in logged(log))

    log.rename(log.with_suffix(".old"))
    pods.client.call("ReopenContainerLog", cri.Id(container), cri.Empty)

    pods.shell(container, "echo more >/proc/1/fd/1")
    until(lambda: "more" in logged(log))
    assert "one" in logged(log.with_suffix(".old"))


# resources


@pytest.mark.row("metrics of containers and pods")
def test_container_stats_count_cpu_and_memory(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod)

    def stats() -> cri.Stats:
        request = cri.Id(container)
        found = pods.client.call("ContainerStats", request, cri.ContainerStats).stats
        assert found is not None
        return found

    until(lambda: stats().memory is not None)
    made = stats()
    assert made.attributes is not None
    assert made.attributes.id == container
    assert made.memory is not None
    assert made.memory.working_set is not None
    assert made.memory.working_set.value > 0
    assert made.cpu is not None
    assert made.cpu.usage_ns is not None
    before = made.cpu.usage_ns.value
    pods.shell(container, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")

    def used() -> int:
        cpu = stats().cpu
        assert cpu is not None
        assert cpu.usage_ns is not None
        return cpu.usage_ns.value

    until(lambda: used() > before)


@pytest.mark.row("metrics of containers and pods")
def test_pod_sandbox_stats_name_all_containers(pods: Pods) -> None:
    pod = pods.run()
    made = {pods.start(pod), pods.start(pod)}

    found = pods.client.call("PodSandboxStats", cri.Id(pod), cri.PodStats).stats

    assert found is not None
    assert found.linux is not None
    named = {each.attributes.id for each in found.linux.containers if each.attributes}
    assert named == made
    assert found.linux.memory is not None
    assert found.linux.processes is not None
    assert found.linux.processes.count is not None


@pytest.mark.row("limits, their change, OOMKilled")
def test_update_container_resources_changes_the_limit(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, resources=cri.Resources(memory_limit=200 << 20))
    limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
    assert pods.shell(container, f"{limit}; true").split() == [str(200 << 20)]

    update = cri.Update(container, cri.Resources(memory_limit=100 << 20, cpu_shares=512))
    pods.client.call("UpdateContainerResources", update, cri.Empty)

    assert pods.shell(container, f"{limit}; true").split() == [str(100 << 20)]


@pytest.mark.row("limits, their change, OOMKilled")
def test_memory_limit_kills_one_container(pods: Pods) -> None:
    pod = pods.run()
    other = pods.start(pod)

    greedy = pods.start(
        pod,
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=200M",
        resources=cri.Resources(memory_limit=50 << 20),
    )

    status = pods.ended(greedy)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    assert pods.shell(other, "echo there") == "there\n"


# what a container may do


@pytest.mark.row("runAsUser, runAsGroup, supplementalGroups")
def test_run_as_user_group_and_supplemental_groups(pods: Pods) -> None:
    pod = pods.run(security=secured(groups=[3333]))
    security = cri.Security(user=cri.Number(1234), group=cri.Number(2345), groups=[4444, 5555])

    container = pods.start(pod, security=security)

    assert pods.shell(container, "id -u; id -g; id -G").splitlines() == [
        "1234", "2345", "2345 4444 5555",
    ]  # fmt: skip


@pytest.mark.row("runAsUser, runAsGroup, supplementalGroups")
def test_run_as_username_is_found_in_the_image(pods: Pods) -> None:
    pod = pods.run()

    assert pods.output(pod, "id -u", security=cri.Security(username="root")) == "0\n"


@pytest.mark.row("capabilities, privileged, allowPrivilegeEscalation")
def test_capabilities_are_added_and_dropped(pods: Pods) -> None:
    pod = pods.run()
    some = cri.Capabilities(["NET_ADMIN"], ["CHOWN"])
    shown = "grep CapEff /proc/self/status | cut -f2"

    plain = int(pods.output(pod, shown), 16)
    changed = int(pods.output(pod, shown, security=cri.Security(capabilities=some)), 16)

    assert (changed ^ plain) == 1 << 12 | 1 << 0
    assert changed & 1 << 12


@pytest.mark.row("capabilities, privileged, allowPrivilegeEscalation")
def test_privileged_has_all_capabilities(pods: Pods) -> None:
    pod = pods.run(security=secured(privileged=True))
    security = cri.Security(privileged=True)

    text = pods.output(
        pod, "grep CapEff /proc/self/status; mount -t tmpfs x /mnt && echo ok", security=security
    )

    assert int(text.split()[1], 16) & 1 << 21
    assert text.endswith("ok\n")


@pytest.mark.row("capabilities, privileged, allowPrivilegeEscalation")
def test_no_new_privs_is_set(pods: Pods) -> None:
    pod = pods.run()
    shown = "grep NoNewPrivs /proc/self/status | cut -f2"

    assert pods.output(pod, shown, security=cri.Security(no_new_privs=True)) == "1\n"
    assert pods.output(pod, shown) == "0\n"


@pytest.mark.row("readOnlyRootFilesystem, procMount")
def test_readonly_rootfs_cannot_be_written(pods: Pods) -> None:
    pod = pods.run()
    script = "touch /file || echo refused; touch /dev/shm/file && echo made"

    text = pods.output(pod, script, security=cri.Security(read_only_root=True))

    assert text == "refused\nmade\n"


@pytest.mark.row("readOnlyRootFilesystem, procMount")
def test_masked_and_readonly_paths(pods: Pods) -> None:
    pod = pods.run()
    security = cri.Security(masked_paths=["/proc/meminfo", "/etc"], readonly_paths=["/home"])

    text = pods.output(
        pod,
        "wc -c </proc/meminfo; ls /etc | wc -l; touch /home/x || echo refused",
        security=security,
    )

    assert text.split() == ["0", "0", "refused"]


@pytest.mark.row("seccompProfile")
@pytest.mark.parametrize("kind", [cri.UNCONFINED, cri.RUNTIME_DEFAULT])
def test_seccomp_profile(pods: Pods, kind: int) -> None:
    pod = pods.run(security=secured(seccomp=cri.Profile(kind)))
    shown = "grep '^Seccomp:' /proc/self/status | cut -f2"

    text = pods.output(pod, shown, security=cri.Security(seccomp=cri.Profile(kind)))

    assert text == {cri.UNCONFINED: "0\n", cri.RUNTIME_DEFAULT: "2\n"}[kind]


@pytest.mark.row("seccompProfile")
def test_seccomp_profile_of_localhost_refuses_a_call(pods: Pods, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    pod = pods.run()
    seccomp = cri.Profile(cri.LOCALHOST, str(path))

    text = pods.output(pod, "mkdir /new 2>&1 || true", security=cri.Security(seccomp=seccomp))

    assert "Operation not supported" in text or "Not supported" in text


@pytest.mark.row("hostUsers: false")
def test_user_namespace_maps_ids(pods: Pods) -> None:
    users = cri.Users(cri.POD, [cri.Mapping(100000, 0, 65536)], [cri.Mapping(100000, 0, 65536)])
    namespaces = cri.Namespaces(users=users)
    # containerd 2.1 takes the options of any runtime for runc's, where there is a user namespace
    handler = "runsc-plain" if RUNTIME.is_ours else HANDLER
    pod = pods.run(security=cri.PodSecurity(namespaces), handler=handler)

    text = pods.output(
        pod,
        "cat /proc/self/uid_map; id -u; touch /made; stat -c %u /made /bin/sh",
        security=cri.Security(namespaces=namespaces),
    )

    assert text.split() == ["0", "100000", "65536", "0", "0", "0"]


# mounts and devices


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_mounts_are_shared_between_containers(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("before\n")
    pod = pods.run()
    mount = cri.Mount("/data", str(tmp_path))
    first, second = (pods.start(pod, mounts=[mount]) for _ in range(2))

    assert pods.shell(first, "cat /data/there; echo new >/data/made") == "before\n"

    assert pods.shell(second, "cat /data/made") == "new\n"
    assert (tmp_path / "made").read_text() == "new\n"


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_readonly_mount_cannot_be_written(pods: Pods, tmp_path: Path) -> None:
    pod = pods.run()
    mounts = [cri.Mount("/data", str(tmp_path), read_only=True)]

    assert pods.output(pod, "touch /data/x || echo refused", mounts=mounts) == "refused\n"


@pytest.fixture
def shared_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host, a shared mount, with a file system mounted below it."""
    made = tmp_path / "shared"
    made.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", made], check=True)
    subprocess.run(["mount", "--make-shared", made], check=True)
    (made / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", made / "below"], check=True)
    yield made
    subprocess.run(["umount", "--recursive", made], check=True)


WRITES = "touch /data/x || echo refused; touch /data/below/x || echo refused below"


@pytest.mark.row("mountPropagation, recursiveReadOnly")
@pytest.mark.parametrize(
    ("recursive", "text"), [(False, "refused\n"), (True, "refused\nrefused below\n")]
)
def test_recursive_read_only_mount(
    pods: Pods, shared_folder: Path, recursive: bool, text: str
) -> None:
    if recursive and (RUNTIME.is_ours or "1.7." in pods.containerd.ok("version")):
        pytest.skip("containerd knows of them since 2.0, and of runc alone that it can do them")
    pod = pods.run()
    mount = cri.Mount("/data", str(shared_folder), read_only=True, recursive_read_only=recursive)

    assert pods.output(pod, f"{WRITES}; true", mounts=[mount]) == text


@pytest.mark.row("mountPropagation, recursiveReadOnly")
@pytest.mark.parametrize("propagation", [cri.PRIVATE, cri.HOST_TO_CONTAINER, cri.BIDIRECTIONAL])
def test_what_the_host_mounts_later_comes_if_it_is_to(
    pods: Pods, shared_folder: Path, propagation: int
) -> None:
    pod = pods.run(security=secured(privileged=True))  # containerd wants it for the last one
    mount = cri.Mount("/data", str(shared_folder), propagation=propagation)
    container = pods.start(pod, mounts=[mount], security=cri.Security(privileged=True))

    (shared_folder / "later").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", shared_folder / "later"], check=True)
    (shared_folder / "later" / "file").touch()

    come = "file\n" if propagation else ""
    assert pods.shell(container, "ls /data/later") == come
    pods.client.remove_container(container)


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_mount_of_a_file(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 here\n")
    pod = pods.run()
    mounts = [cri.Mount("/etc/hosts", str(tmp_path / "hosts"))]

    assert pods.output(pod, "cat /etc/hosts", mounts=mounts) == "127.0.0.1 here\n"


@pytest.mark.row("volumes: shared, read-only, a file, an image")
def test_image_volume_shows_the_image(pods: Pods) -> None:
    if "1.7." in pods.containerd.ok("version"):
        pytest.skip("containerd 1.7 knows no image volumes")
    pod = pods.run()
    mounts = [cri.Mount("/image", read_only=True, image=cri.Image(IMAGE))]

    text = pods.output(pod, "ls /image/bin/sh; touch /image/x || echo refused", mounts=mounts)

    assert text == "/image/bin/sh\nrefused\n"


def _cdi(pods: Pods, tmp_path: Path, **edits: Any) -> None:
    """Devices of CDI: cncf.io/test=one has these edits."""
    spec = {
        "cdiVersion": "0.5.0",
        "kind": "cncf.io/test",
        "devices": [{"name": "one", "containerEdits": edits}],
    }
    (pods.containerd.folder / "cdi" / "test.json").write_text(json.dumps(spec))


@pytest.mark.row("CDI devices")
def test_cdi_device_brings_what_its_vendor_says(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "library").write_text("of the driver\n")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >{tmp_path}/told\n")
    hook.chmod(0o755)
    mount: dict[str, Any] = {"hostPath": f"{tmp_path}/library", "containerPath": "/lib/driver"}
    mount["options"] = ["ro", "bind"]
    hooks = [{"hookName": "createContainer", "path": str(hook)}]
    nodes = [{"path": "/dev/one", "hostPath": "/dev/null"}]
    _cdi(pods, tmp_path, env=["DRIVER=1"], mounts=[mount], hooks=hooks, deviceNodes=nodes)
    pod = pods.run()

    text = pods.output(
        pod,
        "echo $DRIVER; cat /lib/driver; stat -c '%t %T' /dev/one",
        cdi_devices=[cri.CdiDevice("cncf.io/test=one")],
    )

    assert text == "1\nof the driver\n1 3\n"
    assert json.loads((tmp_path / "told").read_text())["status"] == "creating"


@only_ours
def test_cdi_device_of_the_host_is_refused_by_its_name(pods: Pods, tmp_path: Path) -> None:
    import grpc  # noqa: PLC0415  an environment may be without it

    _cdi(pods, tmp_path, deviceNodes=[{"path": "/dev/kvm"}])
    pod = pods.run()
    bad = pods.create(pod, "true", cdi_devices=[cri.CdiDevice("cncf.io/test=one")])

    with pytest.raises(grpc.RpcError, match=r"/dev/kvm .c 10:232. is a device of the host"):
        pods.client.start(bad)


@pytest.mark.row("a device of the host (/dev/null)")
def test_device_of_the_host(pods: Pods) -> None:
    pod = pods.run()
    devices = [cri.Device("/dev/none", "/dev/null", "rwm")]

    text = pods.output(pod, "echo x >/dev/none; stat -c '%F %t %T' /dev/none", devices=devices)

    assert text == "character special file 1 3\n"

"""What the containers of a pod share: namespaces, sysctls, DNS, ports of the host."""

from __future__ import annotations

import socket

import pytest

from tests.full import cri
from tests.full.pods import HANDLER, NEEDS, SUBNET, Pods, in_namespaces
from tests.full.runtimes import RUNTIME, only_ours

pytestmark = NEEDS


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


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


@pytest.mark.row("hostNetwork")
def test_host_network_has_the_hosts_addresses(pods: Pods) -> None:
    handler = "runsc-host" if RUNTIME.is_ours else HANDLER  # it has to be allowed
    pod = pods.run(handler=handler, hostname="", **in_namespaces(network=cri.NODE))
    node = cri.Security(namespaces=cri.Namespaces(network=cri.NODE))
    container = pods.start(pod, security=node)

    before = interfaces()
    seen = set(pods.shell(container, "ls /sys/class/net").split())
    after = interfaces()
    assert before & after <= seen  # those of other tests come and go
    assert "lo" in seen
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

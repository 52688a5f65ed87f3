"""On a Debian as people have it, with systemd and unified cgroups: what can only be tried there.

The machine boots once for all tests (ci/host/run). Its engines are told of this runtime as
docs/usage.md says, and run with what they have by default, systemd's cgroups among it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY
from tests.full import cri
from tests.full.containerd import archive, until
from tests.full.host import INSTALL, PATIENCE_S, Host, booted

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.svm,
    pytest.mark.timeout(4 * PATIENCE_S),
    pytest.mark.skipif(
        not shutil.which("qemu-system-x86_64"), reason="qemu-system-x86_64 is not installed"
    ),
]

IMAGES = {"bb": "localhost/bb:latest", "pause": "registry.k8s.io/pause:3.8"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    pause = folder / "pause"
    pause.mkdir()
    shutil.copy(REPOSITORY / "runsc/launch/built/pause", pause)
    with booted(folder) as made:
        made.ok(INSTALL)
        for name, tree, command in (("bb", busybox, "sh"), ("pause", pause, "/pause")):
            image = archive(folder / f"{name}.tar", IMAGES[name], tree, command)
            made.ok(f"cat >/tmp/{name}.tar", stdin=image.read_bytes())
        yield made


def test_check_says_that_sandboxes_run(host: Host) -> None:
    said = host.call("runsc check", "guest")

    assert said.returncode == 0, said.stdout


@pytest.fixture(scope="module")
def docker(host: Host) -> Host:
    """Told of the runtime, and to let containers live when it is restarted."""
    host.ok("""
        mkdir -p /etc/docker
        echo '{"live-restore": true}' >/etc/docker/daemon.json
        runsc install
        systemctl restart docker
        docker load -qi /tmp/bb.tar
        docker network create net
    """)
    return host


def test_docker_runs_a_container(docker: Host) -> None:
    inside = "docker run --rm --runtime=runsc localhost/bb sh -c 'echo hello; cat /proc/version'"

    said = docker.ok(f"{inside}; cat /proc/version")

    hello, sentry, linux = said.splitlines()
    assert hello == "hello"
    assert sentry != linux


def test_docker_bridge_joins_containers_and_the_host(docker: Host) -> None:
    said = docker.ok("""
        run="docker run --runtime=runsc --net=net"
        $run -d --name=web -p 8080:80 localhost/bb sh -c 'echo served >/index.html; exec httpd -f'
        trap 'docker rm -f web' EXIT
        until busybox wget -qO- 127.0.0.1:8080; do :; done
        $run --rm localhost/bb wget -qO- http://web
    """)

    assert said.splitlines()[1:3] == ["served", "served"]


LIMITS = "--memory=64m --cpus=0.5 --cpu-shares=512 --pids-limit=50"
SHOWN = (
    "Slice", "Delegate", "DefaultDependencies", "CPUQuotaPerSecUSec", "CPUWeight", "CollectMode",
    "CPUAccounting", "IOAccounting", "MemoryAccounting", "TasksAccounting",
)  # fmt: skip


def test_docker_container_is_a_scope_of_systemd_as_with_runc(docker: Host) -> None:
    looked = {}
    for runtime in ("runc", "runsc"):
        looked[runtime] = docker.ok(f"""
            id=$(docker run -d --runtime={runtime} {LIMITS} localhost/bb sleep 1000)
            systemctl show -p {",".join(SHOWN)} docker-$id.scope
            echo
            docker exec $id cat /sys/fs/cgroup/memory.max
            systemctl show -P MemoryMax docker-$id.scope
            systemctl status docker-$id.scope
            systemd-cgls --unit docker-$id.scope
            docker rm -f $id
            systemctl show -P LoadState docker-$id.scope
            ls -d /sys/fs/cgroup/system.slice/docker-$id.scope || echo gone
        """).split("\n\n", 1)
    said = looked["runsc"][1].splitlines()

    assert looked["runsc"][0] == looked["runc"][0]
    assert int(said[0]) == 64 << 20 <= int(said[1])
    assert sum("runsc-sentry: " in line for line in said) == 2
    assert said[-2:] == ["not-found", "gone"]


def test_docker_is_told_that_memory_ran_out(docker: Host) -> None:
    said = docker.ok("""
        docker run --name=eater --runtime=runsc -m 64m localhost/bb tail /dev/zero || echo $?
        docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' eater
        docker rm eater
    """)

    assert said.splitlines() == ["137", "137 true", "eater"]


def test_docker_that_looks_late_is_told_that_memory_ran_out(docker: Host) -> None:
    """Its shim is stopped over the end of the container: systemd takes an empty scope away."""
    said = docker.ok("""
        id=$(docker run -d --name=late --runtime=runsc -m 64m localhost/bb \\
            sh -c 'until [ -e /go ]; do sleep 1; done; exec tail /dev/zero')
        trap 'docker rm -f late >&2' EXIT
        pid=$(docker inspect -f '{{.State.Pid}}' late)
        shim=$(pgrep -f "containerd-shim.*$id")
        docker exec late touch /go
        kill -STOP $shim
        until grep -q 'State:.Z' /proc/$pid/status; do :; done
        grep populated /sys/fs/cgroup/system.slice/docker-$id.scope/cgroup.events
        kill -CONT $shim
        docker wait late
        docker inspect -f '{{.State.OOMKilled}}' late
    """)

    assert said.splitlines() == ["populated 1", "137", "true"]


def test_docker_puts_its_profile_on_all_that_carries_a_container(docker: Host) -> None:
    said = docker.ok("""
        run="docker run -d --name=confined --runtime=runsc -m 64m -v /root:/mnt"
        $run localhost/bb sh -c 'echo fine >/mnt/written; sleep 1000' >&2
        trap 'docker rm -f confined >&2' EXIT
        until [ -s /root/written ]; do :; done
        docker exec confined cat /mnt/written
        for pid in $(cat /sys/fs/cgroup/system.slice/docker-*.scope/cgroup.procs); do
            echo "$(sed 's/:.*//; s/ *$//' /proc/$pid/comm) $(cat /proc/$pid/attr/current)"
        done | sort
    """).splitlines()

    assert said[0] == "fine"
    names = ("runsc", "runsc", "runsc-gofer", "runsc-network", "runsc-sentry")
    assert said[1:] == [f"{name} docker-default (enforce)" for name in names]


TIGHT = """
profile tight flags=(attach_disconnected,mediate_deleted) {
    file, network, capability, signal,
    deny /etc/passwd r,
    deny /root/tight/secret r,
    deny /root/tight/kept w,
}
"""


def test_profile_decides_about_files_of_the_host(docker: Host) -> None:
    """As under runc, but that a bind mount's files have the host's paths."""
    said = docker.ok(f"""
        echo '{TIGHT}' | apparmor_parser -r
        mkdir /root/tight
        touch /root/tight/secret /root/tight/kept
        docker run --rm --runtime=runsc --security-opt apparmor=tight -v /root/tight:/mnt \
            localhost/bb sh -c \\
            'cat /etc/passwd; cat /mnt/secret; echo >/mnt/kept; echo >/mnt/new' 2>&1
        ls /root/tight
    """).splitlines()

    assert said == [
        "cat: can't open '/etc/passwd': Permission denied",
        "cat: can't open '/mnt/secret': Permission denied",
        "sh: can't create /mnt/kept: Permission denied",
        "kept", "new", "secret",
    ]  # fmt: skip


def test_profile_that_is_not_loaded_is_an_error_as_with_runc(docker: Host) -> None:
    run = "docker run --rm --security-opt apparmor=missing --runtime"
    said = [docker.call(f"{run}={name} localhost/bb true").stderr for name in ("runc", "runsc")]

    assert "unable to apply apparmor profile" in said[0]
    assert said[1] == said[0].replace("runc create", "runsc create")


def test_docker_containers_outlive_the_daemons(docker: Host) -> None:
    said = docker.ok("""
        docker run -d --name=stays --runtime=runsc localhost/bb sh -c 'sleep 1000; exit 9'
        trap 'docker rm -f stays' EXIT
        pid=$(docker inspect -f '{{.State.Pid}}' stays)
        systemctl restart containerd
        systemctl restart docker
        docker exec stays echo there
        [ "$(docker inspect -f '{{.State.Pid}}' stays)" = $pid ]
        docker exec stays killall sleep
        docker wait stays
    """)

    assert said.splitlines()[1:3] == ["there", "9"]


SLICE = "kubepods-pod1.slice"
NETWORK = """
{"cniVersion": "0.4.0", "name": "net", "plugins": [{"type": "bridge", "bridge": "cni0",
  "isGateway": true, "ipam": {"type": "host-local", "subnet": "10.213.9.0/24"}}]}
"""


@pytest.fixture(scope="module")
def kubelet(host: Host) -> Iterator[cri.Cri]:
    """Its end of containerd's socket; containers are systemd's, as it wants them by default."""
    host.ok(f"""
        mkdir -p /etc/cni/net.d
        echo '{NETWORK}' >/etc/cni/net.d/10-net.conflist
        runsc install --engine containerd -- --systemd-cgroup
        systemctl restart containerd
        for image in bb pause; do ctr -n k8s.io images import --local /tmp/$image.tar; done
    """)
    client = cri.Cri(str(host.forward("/run/containerd/containerd.sock")), "runsc", PATIENCE_S)
    until(client.is_ready)
    yield client
    client.close()


def test_pod_is_in_its_slice(kubelet: cri.Cri, host: Host) -> None:
    linux = cri.LinuxPod(SLICE, cri.PodSecurity(cri.Namespaces()))
    who = cri.Metadata("pod", "uid", "default")
    pod = kubelet.run_pod(cri.Pod(who, "pod", "/tmp/logs", linux=linux))
    limits = cri.Resources(memory_limit=64 << 20)

    def container(name: str, *command: str) -> str:
        security = cri.Security(namespaces=cri.Namespaces())
        made = kubelet.create(
            pod,
            cri.Container(
                cri.Name(name), cri.Image(IMAGES["bb"]), list(command),
                linux=cri.LinuxContainer(limits, security), log_path=name,
            ),
        )  # fmt: skip
        kubelet.start(made)
        return made

    container("web", "nc", "-ll", "-p", "80", "-e", "echo", "served")
    asks = container("asks", "sleep", "1000")
    units = "systemctl list-units --plain --no-legend 'cri-containerd-*.scope' | wc -l"

    while not (served := kubelet.exec(asks, "nc", "127.0.0.1", "80")).stdout:
        pass
    assert served.stdout == b"served\n"
    network = kubelet.pod_status(pod).network
    assert network
    assert host.ok(f"busybox nc {network.ip} 80") == "served"
    assert kubelet.exec(asks, "cat", "/sys/fs/cgroup/memory.max").stdout == b"67108864\n"
    assert "runsc-sentry" in host.ok(f"systemctl status {SLICE}")
    assert host.ok(units) != "0"
    kubelet.remove_pod(pod)
    assert host.ok(units) == "0"


@pytest.fixture(scope="module")
def podman(host: Host) -> Host:
    """Of root, and of a user."""
    host.ok("runsc install --engine podman")
    for user in ("root", "guest"):
        host.ok("podman load -qi /tmp/bb.tar", user)
    return host


@pytest.mark.parametrize("user", ["root", "guest"])
def test_podman_containers_are_scopes_of_systemd(podman: Host, user: str) -> None:
    systemctl = "systemctl" if user == "root" else "systemctl --user"
    said = podman.ok(f"""
        id=$(podman --runtime=runsc run -d -m 64m localhost/bb sleep 1000)
        trap 'podman rm -ft0 $id' EXIT
        podman exec $id cat /sys/fs/cgroup/memory.max
        {systemctl} is-active libpod-$id.scope
        {systemctl} show -P ControlGroup libpod-$id.scope
        {systemctl} status libpod-$id.scope
        podman rm -ft0 $id
        trap - EXIT
        {systemctl} show -P LoadState libpod-$id.scope
    """, user).splitlines()  # fmt: skip

    assert said[:2] == ["67108864", "active"]
    assert ("user@1000.service" in said[2]) == (user != "root")
    assert sum("runsc-sentry: " in line for line in said) == 1
    assert said[-1] == "not-found"


def test_podman_puts_its_profile_on_all_that_carries_a_container(podman: Host) -> None:
    said = podman.ok("""
        id=$(podman --runtime=runsc run -d -v /root:/mnt localhost/bb sh -c \
            'echo fine >/mnt/podman; sleep 1000')
        trap 'podman rm -ft0 $id >&2' EXIT
        until [ -s /root/podman ]; do :; done
        podman exec $id cat /mnt/podman
        podman inspect -f '{{.AppArmorProfile}} (enforce)' $id
        for pid in $(pgrep -f "^runsc.*: $id"); do cat /proc/$pid/attr/current; done
    """).splitlines()

    assert said[0] == "fine"
    assert said[1].startswith("containers-default-")
    assert said[2:] == [said[1]] * 4


def test_podman_pod_of_a_user_shares_a_network(podman: Host) -> None:
    said = podman.ok("""
        p="podman --runtime=runsc"
        $p pod create --infra-image=localhost/bb --infra-command='sleep 1000' p
        trap '$p pod rm -ft0 p' EXIT
        $p run --pod=p -d localhost/bb nc -ll -p 80 -e echo served
        $p run --pod=p --rm localhost/bb sh -c 'until nc 127.0.0.1 80; do :; done'
    """, "guest")  # fmt: skip

    assert said.splitlines()[2] == "served"


CONFIGURE = """
import json, sys
document = json.load(open("config.json"))
document["process"] |= {"args": ["/bin/busybox", "sleep", "1000"], "terminal": False}
document["linux"] |= {"resources": {"memory": {"limit": 64 << 20}}, "cgroupsPath": sys.argv[1]}
json.dump(document, open("config.json", "w"))
"""
BUNDLE = f"""
rm -rf ~/bundle
mkdir -p ~/bundle/rootfs/bin
cd ~/bundle
cp /bin/busybox rootfs/bin
runsc spec --rootless
configure() {{ python3 -c '{CONFIGURE}' "$1"; }}
cgroup() {{ cut -d: -f3 /proc/$(pgrep -f "^runsc-sentry: $1$")/cgroup; }}
"""


def test_cgroup_of_a_user_is_in_the_subtree_that_is_delegated(host: Host) -> None:
    said = host.ok(f"""{BUNDLE}
        configure mine
        systemd-run --user --scope --quiet -p Delegate=yes runsc run -d c1 </dev/null >&2
        trap 'runsc delete --force c1' EXIT
        cgroup c1
        cat /sys/fs/cgroup$(cgroup c1)/memory.max
    """, "guest").splitlines()  # fmt: skip

    assert said[0] == "/user.slice/user-1000.slice/user@1000.service/app.slice/mine"
    assert 64 << 20 <= int(said[1]) <= 256 << 20


def test_scope_of_a_user_is_made_by_the_users_systemd(host: Host) -> None:
    said = host.ok(f"""{BUNDLE}
        configure app.slice:test:c2
        runsc="systemd-run --user --scope --quiet runsc --systemd-cgroup"
        $runsc run -d c2 </dev/null >&2
        trap 'runsc delete --force c2' EXIT
        cgroup c2
        systemctl --user is-active test-c2.scope
        runsc delete --force c2
        systemctl --user show -P LoadState test-c2.scope
    """, "guest").splitlines()  # fmt: skip

    assert said == [
        "/user.slice/user-1000.slice/user@1000.service/app.slice/test-c2.scope",
        "active",
        "not-found",
    ]


@pytest.fixture(scope="module")
def rootless_docker(host: Host) -> Host:
    """As its own script sets it up, which asks for that module, and looks for docker beside it."""
    host.ok("modprobe ip_tables; ln -sf /usr/share/docker.io/contrib/*rootless*.sh /usr/bin")
    host.ok("""
        dockerd-rootless-setuptool.sh install
        mkdir -p ~/.config/docker
        runsc install --config-file ~/.config/docker/daemon.json
        systemctl --user restart docker
        docker load -qi /tmp/bb.tar
    """, "guest")  # fmt: skip
    return host


def test_docker_without_root_runs_a_container(rootless_docker: Host) -> None:
    said = rootless_docker.ok("""
        run="docker run -d --runtime=runsc -m 64m -p 8081:80"
        id=$($run localhost/bb nc -ll -p 80 -e echo served)
        trap 'docker rm -f $id' EXIT
        docker exec $id cat /sys/fs/cgroup/memory.max
        until busybox nc 127.0.0.1 8081; do :; done
        systemctl --user status docker-$id.scope
    """, "guest")  # fmt: skip

    assert said.splitlines()[:2] == ["67108864", "served"]
    assert "runsc-sentry" in said

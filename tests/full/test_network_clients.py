"""apt-get, pip, npm, git and curl over each kind of network, against servers of the host.

By a bridge of Docker's, by podman's netavark, by CNI's plugins bridge and portmap, and, as an
ordinary user, by passt.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.launch import passt
from tests.conftest import rootfs_of
from tests.e2e.bundle import Bundle, Document, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.installed import CAPABILITIES, ENVIRONMENT
from tests.e2e.own_stack import outside_of
from tests.e2e.talker import Talker
from tests.e2e.test_passt import OUTSIDE, user_of
from tests.full import package_server
from tests.full.containerd import PLUGINS
from tests.full.docker import Docker, execute, needs_docker
from tests.full.podman import Podman, needs_podman
from tests.full.runtimes import is_there

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
    pytest.mark.timeout(600),
]
PATIENCE_S = 300


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    package_server.made(folder)
    return folder


def _said(command: list[str]) -> list[str]:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout.splitlines()


@needs_docker
@is_there
def test_bridge_of_docker(bridged_docker: Docker, packages: Path) -> None:
    folder, rootfs = bridged_docker.folder, rootfs_of("network")
    archive = folder / "network.tar"
    subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True)
    bridged_docker.ok("import", str(archive), "network")
    archive.unlink()
    host = "172.17.0.1"
    with package_server.served(packages, bridged_docker.daemon.pid):
        run = ["docker", f"--host=unix://{bridged_docker.socket}", "run", "--rm", "network"]
        found = _said([*run, "bash", "-c", package_server.script(packages, host)])

    assert found == package_server.said()


@needs_podman
@is_there
def test_netavark_of_podman(bridged_podman: Podman, packages: Path) -> None:
    command = bridged_podman.command
    pid = int(next(each for each in command if each.startswith("--target="))[9:])
    root = f"{rootfs_of('network')}:O"
    with package_server.served(packages, pid):
        run = [*command, "run", "--rm", "--rootfs", root]
        found = _said([*run, "bash", "-c", package_server.script(packages, "10.88.0.1")])

    assert found == package_server.said()


# --- CNI


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A host, by its process, and a network namespace that CNI has plugged into it: a bridge with
    10.214.9.1, and its port 8080 there is port 80 of the container at 10.214.9.2."""
    if not all((PLUGINS / name).exists() for name in ("bridge", "portmap", "host-local")):
        pytest.skip("needs containernetworking-plugins")
    host = Talker(["unshare", "--net", "--mount", "sh", "-c", "ip link set lo up; echo; read end"])
    host.hear()
    inside = Talker(["unshare", "--net", "sh", "-c", "echo; read end"])
    inside.hear()
    pid, namespace = host.process.pid, Path(f"/proc/{inside.process.pid}/ns/net")
    common = {"cniVersion": "0.4.0", "name": "net"}
    ranges = {"subnet": "10.214.9.0/24", "rangeStart": "10.214.9.2"}
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": {**ipam, **ranges}}
    given = _plugin("bridge", pid, namespace, {**common, "type": "bridge", **bridge})
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    mapped = {"runtimeConfig": {"portMappings": ports}, "prevResult": json.loads(given)}
    _plugin("portmap", pid, namespace, {**common, "type": "portmap", **mapped})
    yield pid, namespace
    inside.end()
    host.end()


def _plugin(name: str, pid: int, namespace: Path, settings: dict[str, object]) -> str:
    """CNI's protocol: a program with its settings on stdin; what it has made."""
    done = subprocess.run(
        ["nsenter", f"--target={pid}", "--net", "--mount", PLUGINS / name],
        input=json.dumps(settings), capture_output=True, text=True, check=False,
        env={
            **os.environ, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(namespace), "CNI_PATH": str(PLUGINS),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def _installed(document: Document) -> None:
    """As an engine runs it: root with the usual rights."""
    process = document["process"]
    process["env"], process["cwd"], process["noNewPrivileges"] = ENVIRONMENT, "/", False
    process["capabilities"] = dict.fromkeys(process["capabilities"], CAPABILITIES)
    process["rlimits"] = []
    document["root"]["readonly"] = False
    document["mounts"].append({
        "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]
    })  # fmt: skip


def _plugged(folder: Path, namespace: Path, script: str) -> Bundle:
    bundle = Bundle(folder / "bundle", rootfs_of("network")).args("bash", "-c", script)
    bundle.configure(_installed)
    listed = bundle.document["linux"]["namespaces"]
    others = [each for each in listed if each["type"] != "network"]
    network = {"type": "network", "path": str(namespace)}
    bundle.document["linux"]["namespaces"] = [*others, network]
    return bundle


def test_bridge_and_portmap_of_cni(
    wired: tuple[int, Path], packages: Path, tmp_path: Path
) -> None:
    pid, namespace = wired
    script = package_server.script(packages, "10.214.9.1")
    bundle = _plugged(tmp_path, namespace, script)

    with package_server.served(packages, pid):
        found = _said(bundle.command("kvm", ["--network=sandbox"]))

    assert found == package_server.said()


def test_published_port_of_cni_is_reached(wired: tuple[int, Path], tmp_path: Path) -> None:
    pid, namespace = wired
    bundle = _plugged(
        tmp_path, namespace, "mkdir /tmp/w; echo mapped >/tmp/w/page; cd /tmp/w; "
        "exec python3 -m http.server -b 0.0.0.0 80",
    )
    client = Client(bundle)
    run = client.command("--network=sandbox", "run", "--detach", f"--bundle={bundle.write()}", "c")
    nothing = subprocess.DEVNULL
    subprocess.run(run, stdin=nothing, stdout=nothing, stderr=nothing, check=True)

    ask = "until wget -q -O - http://10.214.9.1:8080/page; do sleep 0.05; done"
    enter = ["nsenter", f"--target={pid}", "--net", "timeout", "60", "busybox", "sh", "-c", ask]
    found = execute(enter).stdout

    client.ok("delete", "--force", "c")
    assert found == "mapped\n"


# --- an ordinary user


@pytest.mark.skipif(not passt.find(), reason="passt is not installed")
def test_passt_of_an_ordinary_user(packages: Path) -> None:
    rootfs = rootfs_of("network")
    with outside_of(OUTSIDE) as outside, user_of(rootfs, outside) as user:
        script = package_server.script(packages, "10.9.0.1", package_server.DOWNLOAD)
        path = user.bundle / "config.json"
        document = json.loads(path.read_text())
        document["process"]["args"] = ["bash", "-c", script]
        _installed(document)
        path.write_text(json.dumps(document))
        with package_server.served(packages, outside.pid):
            found = _said(user.command("run", f"--bundle={user.bundle}", "c"))

    assert found == package_server.said()

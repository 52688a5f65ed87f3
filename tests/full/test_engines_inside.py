"""Docker and podman inside a sandbox: a published nginx, as those inside and outside see it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.oci.convert import CAPABILITIES
from tests.conftest import rootfs_of
from tests.e2e.bundle import Document, kvm_is_usable
from tests.e2e.installed import ENVIRONMENT
from tests.e2e.own_stack import Inside, Outside, inside_of, outside_of
from tests.e2e.test_tun import TUN

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
    pytest.mark.timeout(300),
]
SCRIPTS = Path(__file__).parent / "engines"
OUTSIDE = """
import errno, socket, sys, urllib.request
def ask(address):
    try:
        return urllib.request.urlopen(f"http://{address}/", timeout=30).read().decode().strip()
    except OSError as error:
        return errno.errorcode[error.reason.errno]
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
ENGINES = {"docker": "172.17.0", "podman": "10.88.0"}
"""And the network of each one's bridge."""


def _as_privileged(document: Document, engine: str) -> None:
    """As docker and podman run a container with --privileged."""
    process = document["process"]
    process["args"] = ["bash", f"/mnt/{engine}.bash"]
    process["env"], process["cwd"] = ENVIRONMENT, "/"
    sets = ("bounding", "effective", "permitted")
    process["capabilities"] = dict.fromkeys(sets, sorted(CAPABILITIES))
    process["rlimits"] = []
    document["root"]["readonly"] = False
    document["linux"]["devices"] = [TUN]
    document["linux"]["readonlyPaths"] = document["linux"]["maskedPaths"] = []
    for mount in document["mounts"]:
        if mount["destination"].startswith("/sys"):
            mount["options"] = [each for each in mount["options"] if each != "ro"]
    for place in ("/run", "/tmp", "/var/lib"):
        document["mounts"].append({"destination": place, "type": "tmpfs", "source": "tmpfs"})
    bind = {"type": "bind", "source": str(SCRIPTS), "options": ["bind", "ro"]}
    document["mounts"].append({"destination": "/mnt", **bind})


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        yield made


@pytest.fixture
def inside(engine: str, tmp_path: Path, outside: Outside) -> Iterator[Inside]:
    with inside_of(
        "", tmp_path, rootfs_of("engines"), outside, "--network=sandbox",
        change=lambda document: _as_privileged(document, engine),
    ) as made:  # fmt: skip
        assert made.do("ask 127.0.0.1:8080") == "served"
        yield made


@pytest.mark.parametrize("engine", ENGINES)
def test_published_nginx_is_reached_from_everywhere(
    engine: str, inside: Inside, outside: Outside
) -> None:
    network = ENGINES[engine]

    assert inside.do("ask 10.9.0.2:8080") == "served"
    assert inside.do(f"ask {network}.2") == "served"
    assert outside.do("ask('10.9.0.2:8080')") == "served"
    other = f"{engine} run --rm web wget -q -O - http://{network}"
    assert inside.do(f"{other}.2/").endswith("served")
    assert inside.do(f"{other}.1:8080/").endswith("served")
    assert "nginx: master process" in inside.do(f"{engine} exec server ps")


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_left_of_a_published_nginx(
    engine: str, inside: Inside, outside: Outside
) -> None:
    assert outside.do("ask('10.9.0.2:8080')") == "served"

    inside.do(f"{engine} rm --force server")

    assert outside.do("ask('10.9.0.2:8080')") == "ECONNREFUSED"
    assert inside.do("iptables -t nat -S | grep -c 8080") == "0"
    assert inside.do("ls /sys/class/net | grep -c veth") == "0"


@pytest.mark.parametrize("engine", ENGINES)
def test_container_has_the_devices_that_it_was_given(engine: str, inside: Inside) -> None:
    """By a program on its cgroup, as there is nothing else in version 2."""
    read = "mknod /made c 1 {}; busybox head -c 5 /made | busybox wc -c"
    run = f"{engine} run --rm --network=none --cap-add=MKNOD web sh -c '{read}'"

    assert inside.do(run.format(5)).endswith("5")  # zero
    assert "/made: Operation not permitted" in inside.do(run.format(11))  # kmsg

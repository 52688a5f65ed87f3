"""podman's networks, in a network and mount namespace of their own, which is their host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full.engine import TIMEOUT_S
from tests.full.podman import IMAGE, Podman, needs_podman
from tests.full.runtimes import is_there, only_ours

pytestmark = [pytest.mark.full, pytest.mark.root, needs_podman, is_there]
SERVE = "while :; do echo hello | nc -l -p 9000; done"
GATEWAY = "10.88.0.1"


def _ask(address: str, port: int = 9000) -> str:
    """Shell: what a server says, once it is there."""
    return f"until nc {address} {port} </dev/null; do sleep 0.05; done"


def _serve(podman: Podman, *flags: str) -> None:
    podman.ok("run", "-d", "--name=server", *flags, IMAGE, "sh", "-c", SERVE)


def _outside(podman: Podman, script: str, patience_s: int = TIMEOUT_S) -> str:
    """A script on the host of this podman; what it writes."""
    enter = podman.command[: podman.command.index("env")]
    return subprocess.run(
        [*enter, "timeout", str(patience_s), "busybox", "sh", "-c", script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.fixture
def network(bridged_podman: Podman, request: pytest.FixtureRequest) -> Iterator[str]:
    """One that is made for a test, with the flags that it names."""
    bridged_podman.ok("network", "create", *request.param, "made")
    yield "--network=made"
    bridged_podman.ok("rm", "--all", "--force", "--time=0")
    bridged_podman.ok("network", "rm", "made")


@pytest.mark.row("the bridge: containers reach one another")
def test_containers_on_the_bridge_talk(bridged_podman: Podman) -> None:
    _serve(bridged_podman)
    networks = json.loads(bridged_podman.ok("inspect", "server"))[0]["NetworkSettings"]["Networks"]
    address = networks["podman"]["IPAddress"]
    script = f"ip -o -4 addr show eth0; {_ask(address)}"

    result = bridged_podman.call("run", "--rm", IMAGE, "sh", "-c", script)

    shown, said = result.stdout.splitlines()
    assert (said, result.returncode) == ("hello", 0), result.stderr
    assert "inet 10.88." in shown
    bridged_podman.ok("kill", "server")
    assert bridged_podman.ok("wait", "server") == "137"
    bridged_podman.ok("rm", "server")


def test_network_that_is_connected_to_later_is_used_at_once(bridged_podman: Podman) -> None:
    bridged_podman.ok("network", "create", "--disable-dns", "other")
    try:
        _serve(bridged_podman, "--network=other")
        shown = json.loads(bridged_podman.ok("inspect", "server"))[0]
        address = shown["NetworkSettings"]["Networks"]["other"]["IPAddress"]
        bridged_podman.ok("run", "-d", "--name=mobile", "--network=podman", IMAGE, "sleep", "1000")
        bridged_podman.ok("network", "connect", "other", "mobile")
        assert bridged_podman.ok("exec", "mobile", "sh", "-c", _ask(address)) == "hello"
        bridged_podman.ok("network", "disconnect", "other", "mobile")
        names = bridged_podman.ok("exec", "mobile", "ls", "/sys/class/net").split()
        assert names == ["eth0", "lo"]
    finally:
        bridged_podman.remove("mobile", "server")
        bridged_podman.ok("network", "rm", "other")


def test_container_in_the_network_of_another_reaches_it_by_the_loopback(
    bridged_podman: Podman,
) -> None:
    _serve(bridged_podman)
    try:
        flags = ("run", "--rm", "--network=container:server", IMAGE, "sh", "-c")
        assert bridged_podman.ok(*flags, _ask("127.0.0.1")) == "hello"
    finally:
        bridged_podman.remove("server")


@pytest.mark.row("`--publish`")
def test_published_port_reaches_the_container(bridged_podman: Podman) -> None:
    _serve(bridged_podman, "--publish=7777:9000")
    try:
        assert _outside(bridged_podman, _ask(GATEWAY, 7777)) == "hello\n"
    finally:
        bridged_podman.remove("server")


@pytest.mark.row("other containers by name (DNS)")
@pytest.mark.skipif(
    not Path("/usr/lib/podman/aardvark-dns").exists(), reason="needs aardvark-dns"
)
@pytest.mark.parametrize("network", [()], indirect=True)
def test_names_of_other_containers_are_known(bridged_podman: Podman, network: str) -> None:
    _serve(bridged_podman, network)
    script = f"{_ask('server')}; nslookup nobody >&2 || echo unknown"

    said = bridged_podman.ok("run", "--rm", network, IMAGE, "timeout", "40", "sh", "-c", script)

    assert said.splitlines() == ["hello", "unknown"]


@pytest.mark.row("IPv6")
@pytest.mark.parametrize(
    "network", [("--ipv6", "--subnet=fd00:17::/64", "--disable-dns")], indirect=True
)
def test_ipv6_between_containers(bridged_podman: Podman, network: str) -> None:
    _serve(bridged_podman, network)
    networks = json.loads(bridged_podman.ok("inspect", "server"))[0]["NetworkSettings"]["Networks"]
    address = networks["made"]["GlobalIPv6Address"]

    said = bridged_podman.ok(
        "run", "--rm", network, IMAGE, "timeout", "40", "sh", "-c", _ask(address)
    )

    assert said == "hello"


def _is_on_the_host(podman: Podman, *flags: str) -> None:
    script = "ip -o link | cut -d: -f2; while :; do echo hello | nc -l -p 9001; done"
    what = ("run", "-d", "--name=server", "--network=host")
    podman.ok(*flags, *what, IMAGE, "sh", "-c", script)
    try:
        assert _outside(podman, _ask("127.0.0.1", 9001), 20) == "hello\n"
        shown = podman.ok("logs", "server").split()
        assert shown == _outside(podman, "ip -o link | cut -d: -f2").split()
    finally:
        podman.remove("server")


@pytest.mark.row("`--network=host`", ours="only if runsc is told `--network=host`, too")
def test_network_of_the_host(bridged_podman: Podman) -> None:
    _is_on_the_host(bridged_podman)


@only_ours
def test_network_of_the_host_that_is_allowed(bridged_podman: Podman) -> None:
    _is_on_the_host(bridged_podman, "--runtime-flag=network=host")


@pytest.mark.row("`--userns=auto`", gvisor="does not start")
def test_users_are_chosen_by_podman(bridged_podman: Podman) -> None:
    """containers-storage.conf(5): from the range of the user `containers` in /etc/subuid."""
    flags = ("--rm", "--network=none", "--userns=auto:size=2000")

    shown = bridged_podman.ok("run", *flags, IMAGE, "cat", "/proc/self/uid_map").split()

    assert (shown[0], int(shown[1]) >= 300000, shown[2]) == ("0", True, "2000")

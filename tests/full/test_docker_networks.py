"""docker's networks, in a network and mount namespace of their own, which is their host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.full.docker import Docker, needs_docker
from tests.full.runtimes import is_there, only_ours

pytestmark = [pytest.mark.full, pytest.mark.root, needs_docker, is_there]
SERVE = "while :; do echo hello | nc -l -p 9000; done"


def _ask(address: str, port: int = 9000) -> str:
    """Shell: what a server says, once it is there."""
    return f"until nc {address} {port} </dev/null; do sleep 0.05; done"


def _serve(docker: Docker, *flags: str) -> None:
    docker.ok("run", "-d", "--name=server", *flags, "bb", "sh", "-c", SERVE)


@pytest.fixture
def network(bridged_docker: Docker, request: pytest.FixtureRequest) -> Iterator[str]:
    """One that is made for a test, with the flags that it names."""
    bridged_docker.ok("network", "create", *request.param, "made")
    yield "--network=made"
    if left := bridged_docker.ok("ps", "-aq").split():
        bridged_docker.ok("rm", "--force", *left)
    bridged_docker.ok("network", "rm", "made")


@pytest.mark.row("the bridge: containers reach one another")
def test_containers_on_the_bridge_talk(bridged_docker: Docker) -> None:
    _serve(bridged_docker)
    address = bridged_docker.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server")
    client = f"ip -o -4 addr show eth0; {_ask(address)}"

    result = bridged_docker.call("run", "--rm", "bb", "sh", "-c", client)

    shown, said = result.stdout.splitlines()
    assert (said, result.returncode) == ("hello", 0), result.stderr
    prefix = address.rpartition(".")[0]
    assert f"inet {prefix}." in shown
    assert f"inet {address}/16" in bridged_docker.ok("exec", "server", "ip", "addr", "show", "eth0")
    bridged_docker.ok("kill", "server")
    assert bridged_docker.ok("wait", "server") == "137"
    bridged_docker.ok("rm", "server")


@pytest.mark.row(
    "`network connect`, `disconnect` while it runs",
    gvisor="nothing in /sys/class/net",
)
def test_network_that_is_connected_to_later_is_there(bridged_docker: Docker) -> None:
    flags = ("-d", "--name=mobile")
    bridged_docker.ok("network", "create", "other")
    bridged_docker.ok("run", *flags, "bb", "sleep", "1000")

    bridged_docker.ok("network", "connect", "other", "mobile")
    both = bridged_docker.ok("exec", "mobile", "ls", "/sys/class/net")
    bridged_docker.ok("network", "disconnect", "other", "mobile")
    one = bridged_docker.ok("exec", "mobile", "ls", "/sys/class/net")

    bridged_docker.ok("rm", "--force", "mobile")
    bridged_docker.ok("network", "rm", "other")
    assert (both.split(), one.split()) == (["eth0", "eth1", "lo"], ["eth0", "lo"])


def test_network_that_is_connected_to_later_is_used_at_once(bridged_docker: Docker) -> None:
    form = "{{.NetworkSettings.Networks.other.IPAddress}}"
    bridged_docker.ok("network", "create", "other")
    try:
        _serve(bridged_docker, "--network=other")
        bridged_docker.ok("run", "-d", "--name=mobile", "bb", "sleep", "1000")
        address = bridged_docker.ok("inspect", "-f", form, "server")
        bridged_docker.ok("network", "connect", "other", "mobile")
        assert bridged_docker.ok("exec", "mobile", "sh", "-c", _ask(address)) == "hello"
    finally:
        bridged_docker.ok("rm", "--force", "mobile", "server")
        bridged_docker.ok("network", "rm", "other")


def test_container_in_the_network_of_another_reaches_it_by_the_loopback(
    bridged_docker: Docker,
) -> None:
    _serve(bridged_docker)
    try:
        flags = ("run", "--rm", "--network=container:server", "bb", "sh", "-c")
        assert bridged_docker.ok(*flags, _ask("127.0.0.1")) == "hello"
        show = "ip -o -4 addr show eth0 | awk '{ print $4 }'"
        assert bridged_docker.ok(*flags, show) == bridged_docker.ok(
            "exec", "server", "sh", "-c", show
        )
    finally:
        bridged_docker.ok("rm", "--force", "server")


@pytest.mark.row("the bridge: containers reach one another")
def test_exit_code_on_the_bridge(bridged_docker: Docker) -> None:
    result = bridged_docker.call("run", "--rm", "bb", "sh", "-c", "exit 7")

    assert result.returncode == 7, result.stderr




@pytest.mark.row("`--publish`")
def test_published_port_reaches_the_container(bridged_docker: Docker) -> None:
    _serve(bridged_docker, "--publish=7777:9000")
    form = "{{.NetworkSettings.Gateway}}"
    try:
        gateway = bridged_docker.ok("inspect", "-f", form, "server")
        assert bridged_docker.outside(_ask(gateway, 7777)) == "hello\n"
    finally:
        bridged_docker.ok("rm", "--force", "server")


@pytest.mark.row("other containers by name (embedded DNS)")
@pytest.mark.parametrize("network", [()], indirect=True)
def test_names_of_other_containers_are_known(bridged_docker: Docker, network: str) -> None:
    """The embedded DNS server, 127.0.0.11, is behind rules in the container's own network."""
    _serve(bridged_docker, network)
    script = f"{_ask('server')}; nslookup nobody. >&2 || echo unknown"

    said = bridged_docker.ok("run", "--rm", network, "bb", "timeout", "40", "sh", "-c", script)

    assert said.splitlines() == ["hello", "unknown"]


@pytest.mark.row("a pair as compose makes it: network, alias, volume, restarts")
@pytest.mark.parametrize("network", [()], indirect=True)
def test_pair_as_compose_makes_it(bridged_docker: Docker, network: str) -> None:
    """A network and a volume by name, an alias, labels, a policy of restarts."""
    common = ("-d", network, "--volume=shared:/data", "--label=com.docker.compose.project=p")
    write = f"echo stored >/data/f; {SERVE}"
    bridged_docker.ok(
        "run", *common, "--name=p-db-1", "--network-alias=db", "bb", "sh", "-c", write
    )
    fails_once = f"[ -e /data/once ] || {{ touch /data/once; exit 1; }}; {_ask('db')}; cat /data/f"
    flags = ("--name=p-web-1", "--network-alias=web", "--restart=on-failure:3")

    bridged_docker.ok("run", *common, *flags, "bb", "sh", "-c", fails_once)
    try:
        bridged_docker.logs("p-web-1", "hello\nstored")
        assert bridged_docker.ok("inspect", "-f", "{{.RestartCount}}", "p-web-1") == "1"
    finally:
        bridged_docker.ok("rm", "--force", "p-web-1", "p-db-1")
        bridged_docker.ok("volume", "rm", "shared")


@pytest.mark.row("IPv6")
@pytest.mark.parametrize("network", [("--ipv6", "--subnet=fd00:18::/64")], indirect=True)
def test_ipv6_between_containers(bridged_docker: Docker, network: str) -> None:
    _serve(bridged_docker, network)
    form = "{{.NetworkSettings.Networks.made.GlobalIPv6Address}}"
    address = bridged_docker.ok("inspect", "-f", form, "server")

    said = bridged_docker.ok(
        "run", "--rm", network, "bb", "timeout", "40", "sh", "-c", _ask(address)
    )

    assert said == "hello"


@pytest.mark.row("`--network=host`", ours="only if runsc is told `--network=host`, too")
def test_network_of_the_host(bridged_docker: Docker) -> None:
    script = "ip -o link | cut -d: -f2; while :; do echo hello | nc -l -p 9001; done"
    bridged_docker.ok("run", "-d", "--name=server", "--network=host", "bb", "sh", "-c", script)
    try:
        assert bridged_docker.outside(_ask("127.0.0.1", 9001), 20) == "hello\n"
        shown = bridged_docker.ok("logs", "server").split()
        assert {*shown} == {*bridged_docker.outside("ip -o link | cut -d: -f2").split()}
    finally:
        bridged_docker.ok("rm", "--force", "server")


@only_ours
def test_network_of_the_host_without_the_flag_is_a_loopback(bridged_docker: Docker) -> None:
    result = bridged_docker.call("run", "--rm", "--network=host", "bb", "ls", "/sys/class/net")

    assert (result.returncode, result.stdout) == (0, "lo\n")

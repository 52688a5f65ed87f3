"""What passt is told, and the Sentry beside it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runsc.launch import passt
from runsc.launch.passt import MTU, Ways
from tests.unit.runsc.launch.test_network import own_network

__all__ = ["own_network"]
FOUR, SIX = b"\x0a\0\0\x07", b"\xfd" + bytes(14) + b"\x07"
HOST = (
    "link set lo up",
    "link add eth0 type veth peer name eth1",
    "link set eth0 up",
    "link set eth1 up",
    "addr add 10.9.0.2/24 dev eth0",
    "addr add 10.9.0.3/24 dev eth0",
    "addr add fd09::2/64 dev eth0 nodad",
    "addr add 10.8.0.2/16 dev eth1",
)


def configured(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


def test_program_is_found_by_path_but_not_in_where_one_happens_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".:{tmp_path}/none")
    program = tmp_path / "passt"
    program.write_text("")
    program.chmod(0o755)
    assert passt.find() == ""
    monkeypatch.setenv("PATH", f".:{tmp_path}")
    assert passt.find() == str(program)
    program.chmod(0o644)
    assert passt.find() == ""


def test_both_are_told_the_same() -> None:
    whole = Ways((FOUR, 24), b"\x0a\0\0\x01", SIX)
    assert whole.options() == [
        "--address", "10.0.0.7", "--netmask", "24", "--gateway", "10.0.0.1", "--address", "fd00::7"
    ]  # fmt: skip
    link = whole.link(5, 1000)
    assert (link.fd, link.mtu, link.room) == (5, MTU, 1000)
    assert link.addresses == ((FOUR, 24), (SIX, 128)) and link.gateways == (b"\x0a\0\0\x01",)


@pytest.mark.parametrize(
    ("ways", "last", "count"),
    [
        (Ways((FOUR, 32)), "--ipv4-only", 1),
        (Ways(None, b"", SIX), "--ipv6-only", 1),
        (Ways(), None, 0),
    ],
)
def test_family_that_leads_nowhere_is_left_out(ways: Ways, last: str | None, count: int) -> None:
    assert ways.options()[-1:] == ([last] if last else [])
    assert len(ways.link(5, 0).addresses) == count


def test_way_without_a_router_is_one_to_neighbours() -> None:
    assert "--gateway" not in Ways((FOUR, 32)).options()
    assert Ways((FOUR, 32)).link(5, 0).gateways == (bytes(4),)


@pytest.mark.root
def test_host_without_a_default_route_leads_nowhere(own_network: None) -> None:
    configured(*HOST)
    assert passt.ways() == Ways()


@pytest.mark.root
def test_addresses_are_those_of_the_interface_with_the_best_default_route(
    own_network: None,
) -> None:
    configured(
        *HOST, "route add default via 10.8.0.1 metric 200", "route add default via 10.9.0.1",
        "-6 route add default via fd09::1",
    )  # fmt: skip
    found = passt.ways()
    assert found == Ways(
        (bytes([10, 9, 0, 2]), 24), bytes([10, 9, 0, 1]), b"\xfd\x09" + bytes(13) + b"\x02"
    )

"""The socket programs of tests/abi with one end on another machine: Linux, the host, a sandbox.

Two machines, joined by a veth, run all of them, a program after the other, with its ends where they
are by default and the other way round (`tests/abi/far.h`). Those that are not parted are in WHOLE.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.abi.test_abi import HERE as PROGRAMS_AT
from tests.abi.test_abi import PROGRAMS, compile_program, with_everything
from tests.conftest import rootfs_of
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.own_stack import plug
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.alike,
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
SOURCES: Final = {
    name: (PROGRAMS_AT / f"{name}.c").read_text() for name in PROGRAMS if name.startswith("net_")
}
PARTED: Final = [name for name, source in SOURCES.items() if '#include "far.h"' in source]
INSIDE: Final = "both ends are in network namespaces inside, joined by links that the program makes"
CHANGES: Final = "asks for and changes what one machine has: there is no other end"
BINDS: Final = "about who may bind what on one machine: nothing is sent"
OF_UNIX: Final = "Unix sockets: both ends are on one machine"
WHOLE: Final = {
    "net_bind": BINDS, "net_reuse": BINDS,
    "net_ports": "ports of a network of its own, which it takes all of",
    "net_bridge": INSIDE, "net_forward": INSIDE, "net_neighbours": INSIDE, "net_veth": INSIDE,
    "net_vlan": INSIDE, "net_ip_tables": INSIDE, "net_nftables": INSIDE, "net_rules": INSIDE,
    "net_tun_device": "frames are the program's own: the other end is a descriptor",
    "net_tun_relay": "frames are the program's own: the other end is a descriptor",
    "net_tun_traffic": "frames are the program's own: the other end is a descriptor",
    "net_link_settings": CHANGES, "net_netlink": CHANGES, "net_notices": CHANGES,
    "net_packet_info": "leaves by interfaces that the program makes: both ends are on one machine",
    "net_proc_groups": CHANGES, "net_users": "whose sockets of one machine are: nothing is sent",
    "net_options": CHANGES, "net_options_ip": CHANGES, "net_sysctls": CHANGES,
    "net_raw_names": "names of raw sockets, at many addresses of one machine",
    "net_inodes": "owners and modes of sockets: both ends belong to one process",
    "net_short_buffers": "memory that cannot be written: of one process",
    "net_error_queue": "errors that come with the call, and an MTU of 64 KiB: the loopback's own; "
                       "those that come by a link are in net_udp",
    "net_packet": "every packet of the loopback, seen twice",
    "net_packet_ring": "every packet of the loopback, seen twice",
    "net_unix_data": OF_UNIX, "net_unix_garbage": OF_UNIX, "net_unix_names": OF_UNIX,
    "net_unix_queues": OF_UNIX, "net_unix_rights": OF_UNIX,
}  # fmt: skip
NEAR, FAR = 2, 1
"""The last number of an address: see `plug`."""
UNLIMITED: Final = (
    "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 0 > /proc/sys/net/ipv6/icmp/ratelimit; "
    "echo 0 0 > /proc/sys/net/ipv4/ping_group_range; "
)
"""A program may cause more errors in a second than one is told of."""
ONE_BY_ONE: Final = """
echo ready
while read -r name setting; do
    rm -rf /tmp/at; mkdir /tmp/at; cd /tmp/at
    env $setting timeout 60 $PLACE/$name 2>&1 || echo failed $?
    echo over
done
"""


class Pair:
    """Two machines: programs are started at the near one."""

    def __init__(self, near: Talker, port: str) -> None:
        assert near.hear() == "ready"
        self.near = near
        ends = f"10.9.0.{NEAR},10.9.0.{FAR},fd09::{NEAR},fd09::{FAR}"
        self.setting = f"FAR={ends},{port}"

    def run(self, name: str, more: str) -> list[str]:
        """What it said; nothing, where all was right."""
        self.near.say(f"{name} {self.setting} {more}")
        return list(iter(self.near.hear, "over"))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them."""
    folder = tmp_path_factory.mktemp("programs")
    for name in PARTED:
        compile_program(name, folder)
    source = Path(__file__).parent / "far.c"
    subprocess.run(["gcc", "-O1", "-w", "-static", "-o", folder / "far", source], check=True)
    return folder


@contextmanager
def linux(pid: int, script: str, programs: Path, _: Path) -> Iterator[Talker]:
    command = ["nsenter", f"--target={pid}", "--net", "sh", "-c", f"PLACE={programs}\n{script}"]
    made = Talker(command)
    yield made
    made.process.terminate()
    made.end()


@contextmanager
def sandbox(pid: int, script: str, programs: Path, place: Path) -> Iterator[Talker]:
    place.mkdir()
    bundle = Bundle(place / "bundle", rootfs_of("busybox")).configure(with_everything)
    bundle.args("sh", "-c", f"PLACE=/abi\n{script}")
    bundle.document["mounts"].append(
        {"destination": "/abi", "source": str(programs), "options": ["bind", "ro"]}
    )
    others = [each for each in bundle.document["linux"]["namespaces"] if each["type"] != "network"]
    network = {"type": "network", "path": f"/proc/{pid}/ns/net"}
    bundle.document["linux"] |= {"namespaces": [*others, network], "readonlyPaths": []}
    client = Client(bundle)
    made = Talker(client.command("--network=sandbox", "run", f"--bundle={bundle.write()}", "c"))
    yield made
    client.call("kill", "c", "KILL")
    made.end()


@pytest.fixture(scope="module", params=[
    pytest.param((linux, linux), id="linux"),
    pytest.param((sandbox, linux), id="sandbox-host"),
    pytest.param((sandbox, sandbox), id="sandboxes"),
])  # fmt: skip
def pair(
    request: pytest.FixtureRequest, programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    near, far = request.param
    place = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        holders = [Talker(["unshare", "--net", "sh", "-c", "echo; read end"]) for _ in range(2)]
        for each in holders:
            each.hear()
            stack.callback(each.end)
            pid = each.process.pid
            subprocess.run(
                ["nsenter", f"--target={pid}", "--net", "ip", "link", "set", "lo", "up"], check=True
            )
        here, there = (each.process.pid for each in holders)
        plug(here, there)
        serve = f"{UNLIMITED} exec $PLACE/far"
        there_runs = stack.enter_context(far(there, serve, programs, place / "far"))
        port = there_runs.hear()
        begin = f"{UNLIMITED} {ONE_BY_ONE}"
        yield Pair(stack.enter_context(near(here, begin, programs, place / "near")), port)


@pytest.mark.parametrize("more", ["", "FAR_SWAPPED=1"], ids=["as_is", "swapped"])
@pytest.mark.parametrize("name", PARTED)
def test_program_passes_with_an_end_on_another_machine(name: str, more: str, pair: Pair) -> None:
    assert pair.run(name, more) == []


def test_each_program_is_parted_or_says_why_not() -> None:
    assert sorted([*PARTED, *WHOLE]) == sorted(SOURCES)

"""The socket programs of tests/abi in containers whose network namespace has links.

Between programs of a sandbox there are no packets then, either; but all that asks for ways, sources
and interfaces finds the Sentry's own stack, and a host at the other end of a veth. With packets:
`test_programs_between.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abi.test_abi import PROGRAMS, compile_program, wants, with_everything
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.own_stack import ip, outside_of, plug
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.alike,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
OUTSIDE = """
import sys
print("ready", flush=True)
sys.stdin.read()
"""
CHANGES_OTHERS = ("net_netlink",)
"""Addresses of the loopback: beside interfaces of the host a program changes its own alone."""
ABOUT_NETWORKS = [
    name for name in PROGRAMS if name.startswith("net_") and name not in CHANGES_OTHERS
]


@pytest.fixture(scope="module")
def namespace() -> Iterator[int]:
    """A process in a network namespace with one end of a veth, and default routes by the other."""
    with outside_of(OUTSIDE) as outside:
        holder = Talker(["unshare", "--net", "sh", "-c", "echo; read end"])
        holder.hear()
        pid = holder.process.pid
        plug(pid, outside.pid)
        for each in (pid, outside.pid):
            ip(each, "link set lo up")
        ip(pid, "route add default via 10.9.0.1", "-6 route add default via fd09:0::1")
        yield pid
        holder.end()


@pytest.mark.parametrize("name", ABOUT_NETWORKS)
def test_program_passes_beside_links(
    name: str, namespace: int, tmp_path: Path, busybox: Path
) -> None:
    wants(name, "kvm")
    program = compile_program(name, tmp_path)
    bundle = Bundle(tmp_path / "bundle", busybox).args(f"/abi/{name}").configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": f"/abi/{name}", "source": str(program), "options": ["bind", "ro"]}
    )
    kinds = [each for each in bundle.document["linux"]["namespaces"] if each["type"] != "network"]
    network = {"type": "network", "path": f"/proc/{namespace}/ns/net"}
    bundle.document["linux"]["namespaces"] = [*kinds, network]
    done = bundle.run("kvm", flags=["--network=sandbox"])
    assert (done.returncode, done.stderr) == (0, ""), done.stderr

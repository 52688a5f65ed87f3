"""A container with a stack of its own, a program of the host in another namespace, and a veth."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.bundle import Bundle, Document
from tests.e2e.client import Client
from tests.e2e.talker import Talker

TOLD = """
import errno, os, socket, struct, sys
def told(call, *args):
    try:
        return call(*args)
    except socket.gaierror as error:
        return error.strerror
    except OSError as error:
        return errno.errorcode[error.errno]
"""
"""What programs inside begin with: a call, or the errno that it fails with."""


class Outside:
    """A program of the host in a namespace of its own, at the other end of the veth."""

    def __init__(self, program: str) -> None:
        self.talker = Talker(["unshare", "--net", sys.executable, "-uc", program])
        self.pid = self.talker.process.pid
        assert self.talker.hear() == "ready"

    def do(self, line: str) -> str:
        self.talker.say(f"print({line}, flush=True)")
        return self.talker.hear()

    def begin(self, line: str) -> None:
        self.talker.say(line)


def ip(pid: int, *commands: str) -> None:
    for command in commands:
        subprocess.run(["nsenter", f"--target={pid}", "--net", "ip", *command.split()], check=True)


@contextmanager
def outside_of(program: str) -> Iterator[Outside]:
    """While it runs: it says that it is ready, and does what it hears."""
    made = Outside(program)
    yield made
    made.talker.end()


class Inside(Talker):
    """A program of a container whose network namespace is `pid`'s."""

    pid = -1
    client: Client

    def do(self, line: str) -> str:
        self.say(line)
        return self.hear()


def plug(pid: int, outside: int, number: int = 0) -> None:
    """A veth between the two: 10.9.N.2 and fd09:N::2 to 10.9.N.1 and fd09:N::1."""
    name = f"eth{number}"
    ip(pid, f"link add {name} type veth peer name {name} netns {outside}")
    for each, last in ((pid, 2), (outside, 1)):
        ip(each, f"addr add 10.9.{number}.{last}/24 dev {name}")
        ip(each, f"addr add fd09:{number}::{last}/64 dev {name} nodad", f"link set {name} up")
    for each in (pid, outside):
        while not reaches_groups(each, name):
            time.sleep(0.001)


def unplug(outside: int, number: int) -> None:
    """Both ends are gone, where they still are: a namespace that ends has them for a while."""
    command = ["nsenter", f"--target={outside}", "--net", "ip", "link", "del", f"eth{number}"]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


def reaches_groups(pid: int, name: str) -> bool:
    """The host's kernel says a while after a link is up that IPv6 goes by it."""
    command = ["nsenter", f"--target={pid}", "--net", "ip", "-6", "route", "show", "table", "all"]
    return f"multicast ff00::/8 dev {name}" in subprocess.check_output(command, text=True)


@contextmanager
def inside_of(
    program: str, place: Path, rootfs: Path, outside: Outside, *flags: str,
    nameservers: Sequence[str] = (), annotations: dict[str, str] | None = None,
    change: Callable[[Document], None] = lambda document: None, number: int = 0,
    before: Sequence[str] = (),
) -> Iterator[Inside]:  # fmt: skip
    """The container's end of a veth is in its namespace before it starts. `nameservers`: as its
    resolv.conf has them; `number`: of the veth outside; `before`: what begins the command."""
    bundle = Bundle(place / "bundle", rootfs).args("python3", "-uc", program)
    bundle.document["annotations"] = annotations or {}
    if nameservers:
        listed = place / "resolv.conf"
        listed.write_text("".join(f"nameserver {each}\n" for each in nameservers))
        bundle.document["mounts"].append({
            "destination": "/etc/resolv.conf", "type": "bind", "source": str(listed),
            "options": ["bind", "ro"],
        })  # fmt: skip
    bundle.document["linux"]["sysctl"] = {"net.ipv4.ping_group_range": "0 0"}
    names = ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"]
    sets = ("bounding", "effective", "permitted")
    bundle.document["process"]["capabilities"] = dict.fromkeys(sets, names)
    holder = Talker(["unshare", "--net", "sh", "-c", "echo; read end"])
    holder.hear()
    pid = holder.process.pid
    plug(pid, outside.pid, number)
    for each in (pid, outside.pid):
        ip(each, "link set lo up")
    ip(pid, f"route add default via 10.9.{number}.1", f"-6 route add default via fd09:{number}::1")
    others = [each for each in bundle.document["linux"]["namespaces"] if each["type"] != "network"]
    network = {"type": "network", "path": f"/proc/{pid}/ns/net"}
    bundle.document["linux"]["namespaces"] = [*others, network]
    change(bundle.document)
    client, path = Client(bundle), bundle.write()
    made = Inside([*before, *client.command(*flags, "run", f"--bundle={path}", "c")])
    made.pid, made.client = pid, client
    try:
        assert made.hear() == "ready"
        yield made
    finally:
        made.end()
        unplug(outside.pid, number)
        holder.end()

"""Forks of a sandbox that is behind the interfaces of a network namespace, in others of these."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from runsc import Sandbox, SandboxError
from runsc.launch import passt
from tests.e2e.bundle import RUNSC, execute, kvm_is_usable
from tests.e2e.own_stack import Outside, ip, outside_of, plug, unplug
from tests.e2e.sandboxes import made, noted, wait_until_gone
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
OUTSIDE = """
import socket, sys, threading
held = []
def take(listener):
    while True:
        sock, peer = listener.accept()
        sock.sendall(b"hello " + peer[0].encode())
        held.append(sock)
def serve(*addresses):
    for each in addresses:
        listener = socket.create_server((each, 80))
        threading.Thread(target=take, args=(listener,), daemon=True).start()
    return "serves"
def more():
    for each in held:
        each.sendall(b"more")
    return "sent"
def asks(address):
    with socket.create_connection((address, 80), 30) as sock:
        return sock.recv(100).decode()
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
SERVES = """
import socket
listener = socket.create_server(("0.0.0.0", 80))
print("serves", flush=True)
while True:
    sock, peer = listener.accept()
    sock.sendall(f"{socket.gethostname()} at {sock.getsockname()[0]}".encode())
    sock.close()
"""
IS_CONNECTED = """
import errno, socket
sock = socket.create_connection(("10.9.0.1", 80))
print(sock.recv(100).decode(), flush=True)
try:
    word = sock.recv(100).decode()
except OSError as error:
    word = errno.errorcode[error.errno]
with open("/tmp/heard", "w") as file:
    file.write(word)
"""
CONNECTS = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 80), 30) as sock:
        print(sock.recv(100).decode())
except OSError as error:
    print(error.strerror)
"""
HEARD = "until test -s /tmp/heard; do sleep 0.05; done; cat /tmp/heard"


class Place(NamedTuple):
    """Where there is a way to somebody outside by two interfaces, each in a namespace."""

    outside: Outside
    namespaces: tuple[str, str]


@contextmanager
def place_of(program: str) -> Iterator[Place]:
    """It has 10.9.0.1 and 10.9.1.1, and the namespaces 10.9.0.2 and 10.9.1.2."""
    with ExitStack() as ending:
        outside = ending.enter_context(outside_of(program))
        paths = []
        for number in (0, 1):
            holder = Talker(["unshare", "--net", "sh", "-c", "echo; read end"])
            ending.callback(holder.end)
            holder.hear()
            plug(holder.process.pid, outside.pid, number)
            ending.callback(unplug, outside.pid, number)
            ip(holder.process.pid, "link set lo up")
            paths.append(f"/proc/{holder.process.pid}/ns/net")
        assert outside.do('serve("10.9.0.1", "10.9.1.1")') == "serves"
        yield Place(outside, (paths[0], paths[1]))


@pytest.fixture
def place() -> Iterator[Place]:
    with place_of(OUTSIDE) as found:
        yield found


@pytest.fixture
def warm(tmp_path: Path, debian: Path, place: Place) -> Iterator[Sandbox]:
    sandbox = made(tmp_path, debian, forkable=True, network=place.namespaces[0])
    with sandbox:
        yield sandbox
    wait_until_gone(tmp_path, sandbox.sandbox_id)


def connects(sandbox: Sandbox, address: str) -> str:
    return sandbox.commands.run(["python3", "-c", CONNECTS, address]).stdout.strip()


def interfaces(sandbox: Sandbox) -> list[str]:
    listed = "import socket; print(*[name for _, name in socket.if_nameindex()])"
    return sandbox.commands.run(["python3", "-c", listed]).stdout.split()


@contextmanager
def running(sandbox: Sandbox, program: str, says: str) -> Iterator[None]:
    with sandbox.commands.run(["python3", "-c", program], background=True) as command:
        assert command.stdout.read().decode() == f"{says}\n"
        yield


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def name_of(sandbox: Sandbox) -> str:
    return sandbox.commands.run("uname -n").stdout.strip()


def heard(sandbox: Sandbox) -> str:
    return sandbox.commands.run(HEARD).stdout.strip()


def test_a_fork_has_what_its_own_namespace_has(
    place: Place, warm: Sandbox, ending: ExitStack
) -> None:
    outside = place.outside
    ending.enter_context(running(warm, SERVES, "serves"))
    ending.enter_context(running(warm, IS_CONNECTED, "hello 10.9.0.2"))
    (fork,) = warm.fork(network=place.namespaces[1:], hostname="fork")
    (alone,) = warm.fork(network="none")
    assert heard(fork) == heard(alone) == "ECONNRESET"
    assert outside.do('asks("10.9.1.2")') == "fork at 10.9.1.2"
    assert outside.do('asks("10.9.0.2")') == f"{name_of(warm)} at 10.9.0.2"
    assert connects(fork, "10.9.1.1") == "hello 10.9.1.2"
    assert connects(warm, "10.9.0.1") == "hello 10.9.0.2"
    for sandbox, address in ((fork, "10.9.0.1"), (alone, "10.9.0.1"), (alone, "10.9.1.1")):
        assert connects(sandbox, address) == "Network is unreachable"
    assert [*map(interfaces, (warm, fork, alone))] == [["lo", "eth0"], ["lo", "eth1"], ["lo"]]
    assert outside.do("more()") == "sent"
    assert heard(warm) == "more"
    fork.kill()
    (other,) = warm.fork(network=place.namespaces[1], hostname="other")
    assert outside.do('asks("10.9.1.2")') == "other at 10.9.1.2"
    assert outside.do('asks("10.9.0.2")') == f"{name_of(warm)} at 10.9.0.2"
    other.kill()


@pytest.mark.skipif(not passt.find(), reason="passt is not installed")
@pytest.mark.skipif(not passt.ways().leads, reason="the host has no default route")
def test_a_fork_may_have_passts_instead(warm: Sandbox) -> None:
    (fork,) = warm.fork(network="sandbox", forkable=True)
    (copy,) = fork.fork()
    assert [*map(interfaces, (fork, copy))] == [["lo", "eth0"]] * 2


def test_who_goes_back_has_its_namespace_again(
    place: Place, warm: Sandbox, ending: ExitStack
) -> None:
    ending.enter_context(running(warm, SERVES, "serves"))
    template = warm.create_template()
    (fork,) = template.fork(network=place.namespaces[1], hostname="fork", forkable=True)
    of_fork = fork.create_template()
    for _ in range(2):
        with running(warm, IS_CONNECTED, "hello 10.9.0.2"):
            warm.rollback(template)
        assert place.outside.do('asks("10.9.0.2")') == f"{name_of(warm)} at 10.9.0.2"
        assert connects(warm, "10.9.0.1") == "hello 10.9.0.2"
        fork.rollback(of_fork)
        assert place.outside.do('asks("10.9.1.2")') == "fork at 10.9.1.2"
        assert connects(fork, "10.9.1.1") == "hello 10.9.1.2"


def test_which_namespace_has_to_be_said(tmp_path: Path, place: Place, warm: Sandbox) -> None:
    first, second = place.namespaces
    refused = {
        (): r"name another one \(--netns\)",
        (first,): f"{first} is that of",
        ("/proc/self/ns/net",): "the caller's own",
        ("/proc/self/ns/mnt",): "is no network namespace",
        (f"{tmp_path}/nothing",): "no such file or directory",
        (second, second): "one for each copy, 1, not 2",
    }
    for network, why in refused.items():
        with pytest.raises(SandboxError, match=why):
            warm.fork(network=network or None)
    with pytest.raises(SandboxError, match="is named twice"):
        warm.fork(2, network=[second, second])
    words = [f"--root={tmp_path}/state", "fork", f"--netns={second}"]
    for flag in ("--network=none", "--template"):
        done = execute([*RUNSC, *words, flag, warm.sandbox_id, "x"])
        assert "has no network namespace" in done.stderr
    done = execute([*RUNSC, *words, warm.sandbox_id, "by-name"])
    assert done.returncode == 0, done.stderr
    with pytest.raises(SandboxError, match='is that of "by-name", and each needs its own'):
        warm.fork(network=second)
    done = execute([*RUNSC, words[0], "exec", "by-name", "python3", "-c", CONNECTS, "10.9.1.1"])
    assert done.stdout == "hello 10.9.1.2\n", done.stderr
    done = execute([*RUNSC, words[0], "delete", "--force", "by-name"])
    assert done.returncode == 0, done.stderr
    assert noted(tmp_path) == [warm.sandbox_id]


def test_without_interfaces_of_its_own_its_copies_have_none(
    tmp_path: Path, busybox: Path, place: Place
) -> None:
    with (
        made(tmp_path, busybox, forkable=True) as sandbox,
        pytest.raises(SandboxError, match="was not started behind the interfaces"),
    ):
        sandbox.fork(network=place.namespaces[1])

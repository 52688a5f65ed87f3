"""port-forward: connections of the host to a port of a container without a network."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle
from tests.e2e.client import Client, held_port

MOST = 200
ECHO = "nc -ll -p 80 -e cat & nc -ll -p 81 -e sh -c 'echo bye' & wait"
"""Ends a connection when its client ends it; ends it first."""


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    made = Client(bundle.args("sh", "-c", ECHO), platform)
    made.create("c", "--detach", command="run")
    for _ in range(MOST):
        if made.ok("debug", "--stacks", "c").count(" in accept") == 2:
            break
    yield made
    made.call("delete", "--force", "c")


def _forward(client: Client, *args: str) -> tuple[subprocess.Popen[str], int]:
    running = client.begin("port-forward", *args)
    assert running.stdout is not None
    match = re.fullmatch(r"Forwarding local port (\d+) to \d+\.\.\.\n", running.stdout.readline())
    assert match is not None
    return running, int(match[1])


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    sock.settimeout(TIMEOUT_S)
    return sock


def _all(sock: socket.socket) -> bytes:
    found = b""
    while data := sock.recv(1 << 16):
        found += data
    return found


def test_bytes_go_both_ways_and_each_way_ends_by_itself(client: Client) -> None:
    running, port = _forward(client, "c", "0:80")
    data = bytes(range(256)) * 2000
    with _connect(port) as sock, _connect(port) as other:
        other.sendall(b"second\n")
        assert other.recv(100) == b"second\n"
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert _all(sock) == data
        other.sendall(b"again\n")
        assert other.recv(100) == b"again\n"

    client.ok("kill", "c", "KILL")
    output, _ = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0
    assert output.endswith('Container "c" stopped. Exiting...\n')
    assert output.count("Forwarding new connection...") == 2


def test_the_program_may_end_first(client: Client) -> None:
    running, port = _forward(client, "c", "0:81")
    with _connect(port) as sock:
        assert _all(sock) == b"bye\n"
    running.terminate()
    running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0


def test_a_port_where_nobody_listens_ends_the_connection(client: Client) -> None:
    running, port = _forward(client, "c", "0:99")
    with _connect(port) as sock:
        assert _all(sock) == b""
    assert running.stdout is not None
    assert running.stdout.readline() == "Forwarding new connection...\n"
    assert running.stdout.readline() == "port forwarding: port 99: connection refused\n"
    running.terminate()
    running.communicate(timeout=TIMEOUT_S)


def test_a_command_line_that_is_killed_leaves_no_connection(client: Client) -> None:
    running, port = _forward(client, "c", "0:80")
    with _connect(port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert " cat: " in client.ok("debug", "--stacks", "c")
        running.kill()
        running.communicate(timeout=TIMEOUT_S)
    for _ in range(MOST):
        if " cat: " not in client.ok("debug", "--stacks", "c"):
            return
    raise AssertionError("cat still has its connection")


def test_one_connection_over_a_unix_socket(client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "stream")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(1)
        with subprocess.Popen(
            client.command("port-forward", "--stream", path, "c", "81"), cwd=REPOSITORY
        ) as running:
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(TIMEOUT_S)
                assert _all(sock) == b"bye\n"
            assert running.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("port", ["80:0", "x", "80:", "70000", "1:2:3", "-1"])
def test_what_is_no_port_is_refused(client: Client, port: str) -> None:
    assert client.call("port-forward", "c", port).returncode == 1


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as held:
        yield held


def _answered(port: int) -> bytes:
    """Somebody listens from before the start on; who serves inside comes a while after it."""
    while True:
        with _connect(port) as sock:
            if found := _all(sock):
                return found


def test_published_port_leads_inside_as_long_as_the_container_runs(
    bundle: Bundle, platform: str, port: int
) -> None:
    client = Client(bundle.args("sh", "-c", ECHO), platform)
    flags = ["--publish", f"{port}:81"]
    client.create("c", "--detach", *flags, command="run")
    assert _answered(port) == b"bye\n"
    with pytest.raises(AssertionError, match=f"port {port} of 127.0.0.1: address already in use"):
        client.ok("run", f"--bundle={bundle.path}", *flags, "d")
    client.ok("delete", "--force", "c")
    while True:
        try:
            _connect(port).close()
        except ConnectionRefusedError:
            break


def test_container_that_ends_at_once_has_no_use_for_its_port(
    bundle: Bundle, platform: str, port: int
) -> None:
    client = Client(bundle.args("true"), platform)
    client.create("c", "--detach", "--publish", f"{port}:81", command="run")
    client.ok("delete", "--force", "c")


def test_published_port_of_a_foreground_container_ends_with_it(
    bundle: Bundle, platform: str, port: int
) -> None:
    client = Client(bundle.args("sh", "-c", ECHO), platform)
    path = bundle.write()
    running = client.begin("run", f"--bundle={path}", "-p", f"127.0.0.1:{port}:81", "c")
    while True:
        try:
            _connect(port).close()
            break
        except ConnectionRefusedError:
            continue
    assert _answered(port) == b"bye\n"
    client.ok("kill", "c", "KILL")
    running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 137
    with pytest.raises(ConnectionRefusedError):
        _connect(port)

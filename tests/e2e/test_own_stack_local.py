"""A stack of its own and processes of the host in the same network namespace, as those that forward
ports; and the end of a container."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.e2e.own_stack import Inside, Outside, inside_of, outside_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
INSIDE = """
import os, socket, sys, threading
def serve(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    dual = address == "::"
    server = socket.create_server((address, port), family=family, dualstack_ipv6=dual, backlog=64)
    def go():
        while True:
            try:
                sock = server.accept()[0]
            except OSError:
                return
            threading.Thread(target=echo, args=(sock,)).start()
    threading.Thread(target=go, daemon=True).start()
    servers[port] = server
def echo(sock):
    with sock:
        data = b"".join(iter(lambda: sock.recv(65536), b""))
        sock.sendall(data)
def leave(address, port, size):
    sock = socket.create_connection((address, port))
    sock.sendall(bytes(size))
    os._exit(0)
servers = {}
def end(port):
    servers.pop(port).shutdown(socket.SHUT_RDWR)
print("ready")
for line in sys.stdin:
    print(eval(line), flush=True)
"""
CALL = """
import socket, sys, time
def call(address, port, size):
    with socket.create_connection((address, port), 60) as sock:
        sock.sendall(bytes(size))
        sock.shutdown(socket.SHUT_WR)
        return len(b"".join(iter(lambda: sock.recv(65536), b"")))
def until(answer, *args):
    while True:
        try:
            found = call(*args)
        except OSError as error:
            found = type(error).__name__
        if found == answer:
            return found
print(eval(sys.argv[1]))
"""
OUTSIDE = CALL.partition("print(eval")[0] + """
def take(server):
    with server.accept()[0] as sock:
        return len(b"".join(iter(lambda: sock.recv(65536), b"")))
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        yield made


@pytest.fixture
def inside(tmp_path: Path, debian: Path, outside: Outside) -> Iterator[Inside]:
    with inside_of(INSIDE, tmp_path, debian, outside, "--network=sandbox") as made:
        yield made


def _beside(inside: Inside, words: str) -> str:
    enter = ["nsenter", f"--target={inside.pid}", "--net", sys.executable, "-c", CALL, words]
    return subprocess.check_output(enter, text=True, timeout=100).strip()


def test_program_is_reached_by_the_loopback_of_the_namespace_as_by_its_link(
    inside: Inside, outside: Outside
) -> None:
    assert inside.do("serve('::', 80)") == "None"
    for address in ("127.0.0.1", "::1", "10.9.0.2", "fd09:0::2"):
        assert _beside(inside, f"until(300000, '{address}', 80, 300000)") == "300000"
    assert outside.do("call('10.9.0.2', 80, 1000)") == "1000"


def test_address_where_a_program_listens_is_the_only_one(inside: Inside) -> None:
    inside.do("serve('127.0.0.1', 8080)")
    assert _beside(inside, "until(5, '127.0.0.1', 8080, 5)") == "5"
    refused = "ConnectionRefusedError"
    assert _beside(inside, f"until('{refused}', '10.9.0.2', 8080, 5)") == refused


def test_port_is_free_again_when_nobody_listens(inside: Inside) -> None:
    inside.do("serve('0.0.0.0', 8080)")
    assert _beside(inside, "until(5, '127.0.0.1', 8080, 5)") == "5"
    inside.do("end(8080)")
    refused = "ConnectionRefusedError"
    assert _beside(inside, f"until('{refused}', '127.0.0.1', 8080, 5)") == refused
    inside.do("serve('0.0.0.0', 8080)")
    assert _beside(inside, "until(5, '127.0.0.1', 8080, 5)") == "5"


def test_what_a_program_has_sent_before_it_ended_arrives(
    inside: Inside, outside: Outside
) -> None:
    outside.begin("kept = socket.create_server(('10.9.0.1', 9))")
    outside.do("1")
    inside.say("leave('10.9.0.1', 9, 200000)")
    assert outside.do("take(kept)") == "200000"

"""Forks of a sandbox with sockets of the host: each has others."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runsc import Sandbox, SandboxError
from tests.e2e.bundle import TIMEOUT_S, kvm_is_usable
from tests.e2e.sandboxes import made, wait_until_gone
from tests.e2e.test_fork_namespaces import Place, heard, place, running  # noqa: F401  a fixture

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
HAS_SOCKETS = """
import errno, socket
def told(call, *args):
    try:
        return repr(call(*args))
    except OSError as error:
        return errno.errorcode[error.errno]
connected = socket.create_connection(("127.0.0.1", {port}))
other = socket.create_connection(("127.0.0.1", {port}))
listener = socket.create_server(("127.0.0.1", 0))
datagrams = socket.socket(type=socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
first = told(connected.recv, 100)
words = [first, told(connected.recv, 100), told(connected.send, b"x"), told(other.send, b"x"),
         told(datagrams.getsockname), told(listener.getsockname)]
if first == "ECONNRESET":
    words.append(told(listener.accept))
with open("/tmp/heard", "w") as file:
    file.write(" ".join(words))
"""
LOST = "ECONNRESET b'' EPIPE ECONNRESET ('0.0.0.0', 0) ('0.0.0.0', 0) EINVAL"
CONNECTS_AGAIN = """
import errno, socket, struct
connected = socket.create_connection(("127.0.0.1", {port}))
late = socket.socket()
late.setblocking(False)
begun = late.connect_ex(("127.0.0.1", {full}))
print(errno.errorcode[begun], flush=True)
try:
    connected.recv(100)
except ConnectionResetError:
    words = [errno.errorcode[late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]]
    late.setblocking(True)
    late.connect(("127.0.0.1", {port}))
    late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 0, 1000))
    try:
        words.append(repr(late.recv(100)))
    except BlockingIOError:
        words.append("EAGAIN")
    late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(16))
    late.send(b"x")
    words.append(repr(late.recv(100)))
    with open("/tmp/heard", "w") as file:
        file.write(" ".join(words))
"""
CONNECTS = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as sock:
        print(sock.recv(100).decode())
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def outside() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener


@pytest.fixture
def warm(tmp_path: Path, debian: Path) -> Iterator[Sandbox]:
    with made(tmp_path, debian, forkable=True, network="host") as sandbox:
        yield sandbox
    wait_until_gone(tmp_path, sandbox.sandbox_id)


class Connected:
    """A program of a sandbox that is connected to here twice, and listens."""

    def __init__(self, sandbox: Sandbox, outside: socket.socket, ending: ExitStack) -> None:
        program = HAS_SOCKETS.format(port=outside.getsockname()[1])
        words = ["python3", "-c", program]
        command = ending.enter_context(sandbox.commands.run(words, background=True))
        self.sock, _ = outside.accept()
        self.other, _ = outside.accept()
        for sock in (self.sock, self.other):
            ending.enter_context(sock).settimeout(TIMEOUT_S)
        self.port = int(command.stdout.read())
        """Where it listens."""


def answer(outside: socket.socket) -> None:
    sock, _ = outside.accept()
    with sock:
        sock.sendall(b"hello")


def connects(sandbox: Sandbox, address: str, port: int) -> str:
    words = ["python3", "-c", CONNECTS, address, str(port)]
    return sandbox.commands.run(words).stdout.strip()


def test_a_copy_has_none_of_its_parents_sockets_and_may_make_others(
    warm: Sandbox, outside: socket.socket
) -> None:
    port = outside.getsockname()[1]
    with ExitStack() as ending:
        there = Connected(warm, outside, ending)
        template = warm.create_template()
        (fork,) = warm.fork(forkable=True)
        (copy,), (alone,) = fork.fork(), template.fork(network="none")
        for each in (fork, copy, alone):
            assert heard(each) == LOST
        socket.create_connection(("127.0.0.1", there.port)).close()
        for each in (fork, copy):
            command = each.commands.run(
                ["python3", "-c", CONNECTS, "127.0.0.1", str(port)], background=True
            )
            with command:
                answer(outside)
                assert command.wait().stdout == "hello\n"
        assert connects(alone, "127.0.0.1", port) == "Connection refused"
        assert connects(alone, "192.0.2.1", port) == "Network is unreachable"
        there.sock.sendall(b"more")
        there.sock.shutdown(socket.SHUT_WR)
        assert heard(warm).startswith("b'more' b'' 1 1 ('127.0.0.1', ")
        assert there.sock.recv(10) == b"x"
        assert there.sock.recv(10) == b""  # closed: no copy holds it
        with pytest.raises(SandboxError, match="a copy has such sockets, too"):
            warm.fork(network="sandbox")


def test_a_copys_socket_that_was_connecting_connects_again_and_waits_for_data(
    warm: Sandbox, outside: socket.socket
) -> None:
    with ExitStack() as ending:
        full = ending.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # nobody accepts: further ones are not answered
            sock = ending.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        ports = {"port": outside.getsockname()[1], "full": full.getsockname()[1]}
        words = ["python3", "-c", CONNECTS_AGAIN.format(**ports)]
        command = ending.enter_context(warm.commands.run(words, background=True))
        ending.enter_context(outside.accept()[0])
        assert command.stdout.read() == b"EINPROGRESS\n"
        (fork,) = warm.fork()
        again, _ = outside.accept()
        ending.enter_context(again).settimeout(TIMEOUT_S)
        assert again.recv(10) == b"x"
        again.sendall(b"hello")
        assert heard(fork) == "ECONNRESET EAGAIN b'hello'"


def test_who_goes_back_has_sockets_of_the_host_again(
    warm: Sandbox, outside: socket.socket
) -> None:
    template = warm.create_template()
    for _ in range(2):
        with ExitStack() as ending:
            there = Connected(warm, outside, ending)
            warm.rollback(template)
            assert there.sock.recv(10) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", there.port))
            again = Connected(warm, outside, ending)
            again.sock.sendall(b"more")
            again.sock.shutdown(socket.SHUT_WR)
            assert heard(warm).startswith("b'more' b'' 1 1 ('127.0.0.1', ")


def test_a_copy_may_have_those_of_another_namespace(
    warm: Sandbox, place: Place  # noqa: F811
) -> None:
    (fork,) = warm.fork(network=place.namespaces[1])
    assert connects(fork, "10.9.1.1", 80) == "hello 10.9.1.2"
    assert connects(fork, "10.9.0.1", 80) == "Network is unreachable"

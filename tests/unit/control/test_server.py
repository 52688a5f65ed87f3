from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runsc.listener import connect, listen
from sentry.control.protocol import Event, ProcessInfo, Reply, Request, decode, encode
from sentry.control.server import ControlServer
from sentry.errors import ESRCH
from sentry.loop import HostOnly, Loop


class Kernel:
    """Records what it is asked for."""

    def __init__(self) -> None:
        self.killed: list[tuple[int, int, bool]] = []
        self.limits: tuple[int | None, int | None] = (None, None)

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        if pid == 99:
            raise ESRCH("no process 99")
        self.killed.append((pid, signal, everyone))

    def control_update(self, pids_limit: int | None, memory_limit: int | None) -> None:
        self.limits = (pids_limit, memory_limit)

    def control_processes(self) -> list[ProcessInfo]:
        return [ProcessInfo(1, 0, 0, "sh", "S")]

    def control_status(self) -> str:
        return "running"


def _fail(name: str, error: BaseException) -> None:
    raise error


@pytest.fixture
def served() -> tuple[Loop, Kernel, socket.socket]:
    ours, theirs = socket.socketpair()
    loop, kernel = Loop(HostOnly(), _fail), Kernel()
    server = ControlServer(loop, kernel, theirs.detach())
    yield loop, kernel, ours
    ours.close()
    server.close()


def _ask(loop: Loop, sock: socket.socket, request: Request) -> Reply:
    sock.send(encode(request))
    loop.turn()
    return decode(sock.recv(1 << 16), Reply)


def test_requests_reach_the_kernel(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served

    assert _ask(loop, sock, Request("kill", signal=15)) == Reply()
    assert _ask(loop, sock, Request("kill", signal=9, pid=4, all=True)) == Reply()
    assert _ask(loop, sock, Request("state")).status == "running"
    assert _ask(loop, sock, Request("update", pids_limit=-1)) == Reply()
    assert kernel.limits == (-1, None)
    assert _ask(loop, sock, Request("ps")).processes == kernel.control_processes()
    assert kernel.killed == [(1, 15, False), (4, 9, True)]


def test_errors_come_back_as_text(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, _, sock = served

    assert _ask(loop, sock, Request("kill", pid=99)).error == "no process 99"
    assert "unknown operation" in _ask(loop, sock, Request("reboot")).error


@pytest.mark.parametrize("line", [b"{}\n", b"\xff\n", b'{"op": 3}\n', b"x" * 70000])
def test_nonsense_ends_the_connection(
    served: tuple[Loop, Kernel, socket.socket], line: bytes
) -> None:
    loop, kernel, sock = served

    sock.setblocking(False)
    assert sock.send(line) == len(line)
    received, closed = b"", False
    while not closed:
        loop.call_soon(int)  # so that the turn does not wait
        loop.turn()
        try:
            chunk = sock.recv(1 << 16)
            received, closed = received + chunk, not chunk
        except BlockingIOError:
            pass
        except ConnectionResetError:
            closed = True

    assert not received or decode(received, Reply).error
    assert kernel.killed == []


def test_listener_serves_other_command_lines_at_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    path = str(folder / "control.sock")
    loop, kernel = Loop(HostOnly(), _fail), Kernel()
    listener = listen(path)
    server = ControlServer(loop, kernel, -1, listener.detach())

    client = connect(path)
    loop.turn()
    reply = _ask(loop, client, Request("state"))
    server.announce(Event("ready"))

    assert reply.status == "running"
    client.close()
    server.close()

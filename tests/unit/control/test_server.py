"""What is asked of a sandbox reaches its kernel, and the answers come back."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from runsc.containers.listener import connect, listen
from sentry.control.answers import Stack, Stacks
from sentry.control.protocol import Event, Reply, Request, decode, encode
from sentry.control.server import ControlServer
from sentry.loop import HostOnly, Loop
from tests.unit.control.controlling import (
    Kernel,
    ask,
    fail,
)


def test_requests_reach_the_kernel(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served

    assert ask(loop, sock, Request("kill", signal=15)) == Reply()
    assert ask(loop, sock, Request("kill", signal=9, pid=4, all=True)) == Reply()
    assert ask(loop, sock, Request("state")).status == "running"
    assert ask(loop, sock, Request("update", pids_limit=-1)) == Reply()
    assert kernel.limits == (-1, None)
    assert ask(loop, sock, Request("ps")).processes == kernel.processes
    assert kernel.killed == [(1, 15, False), (4, 9, True)]


def test_errors_come_back_as_text(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, _, sock = served

    assert ask(loop, sock, Request("kill", pid=99)).error == "no process 99"
    assert "unknown operation" in ask(loop, sock, Request("reboot")).error


def test_pause_answers_when_all_stand(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served
    sock.setblocking(False)
    sock.send(encode(Request("pause")))
    loop.turn()
    with pytest.raises(BlockingIOError):
        sock.recv(1 << 16)
    kernel.paused[0]()

    assert decode(sock.recv(1 << 16), Reply) == Reply()
    assert ask(loop, sock, Request("resume")).error == "container not paused"


@pytest.mark.parametrize("operation", ["sync", "share"])
def test_sync_answers_when_all_is_written(
    served: tuple[Loop, Kernel, socket.socket], operation: str
) -> None:
    loop, kernel, sock = served
    sock.setblocking(False)
    sock.send(encode(Request(operation)))
    loop.turn()
    with pytest.raises(BlockingIOError):
        sock.recv(1 << 16)
    kernel.synced[0]("EIO")

    assert decode(sock.recv(1 << 16), Reply).error == "EIO"


def test_stacks_and_levels_reach_the_kernel(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, _, sock = served

    assert ask(loop, sock, Request("log", debug=True)).error == "no log"
    assert ask(loop, sock, Request("log")) == Reply()
    assert ask(loop, sock, Request("stacks", pid=4)).stacks == Stacks(
        tasks=[Stack("sh", "runs", tid=5)]
    )


def test_an_end_is_set_told_and_taken_back(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, _, sock = served
    assert ask(loop, sock, Request("expire", time_ns=-1)).error == "no time"
    assert ask(loop, sock, Request("expire", time_ns=7)) == Reply()
    assert ask(loop, sock, Request("state")).expires_ns == 7
    assert ask(loop, sock, Request("expire")) == Reply()
    assert ask(loop, sock, Request("state")).expires_ns == 0


def test_listener_serves_other_command_lines_at_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    path = str(folder / "control.sock")
    loop, kernel = Loop(HostOnly(), fail), Kernel()
    listener = listen(path)
    server = ControlServer(loop, kernel, -1, listener.detach(), os.geteuid())

    client = connect(path)
    loop.turn()
    reply = ask(loop, client, Request("state"))
    server.announce(Event("ready"))

    assert reply.status == "running"
    client.close()
    server.close()


def test_listener_refuses_another_user(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    loop, kernel = Loop(HostOnly(), fail), Kernel()
    server = ControlServer(loop, kernel, -1, listen(path).detach(), os.geteuid() + 1)

    with connect(path) as client:
        client.sendall(encode(Request("kill", signal=9)))
        loop.turn()
        assert decode(client.recv(4096), Reply).error == "the sandbox belongs to another user"
        with suppress(ConnectionResetError):
            assert client.recv(4096) == b""

    assert kernel.killed == []
    server.close()

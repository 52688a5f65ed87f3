"""Who asks the network process for a socket while too many others do waits, and is not refused."""

from __future__ import annotations

import array
import socket
from typing import Any

import pytest

from sentry.abi.socket import AF_INET, IPPROTO_TCP, SOCK_DGRAM, SOCK_STREAM
from sentry.errors import ENFILE
from sentry.net.host.process import MAX_OWN, MAX_WAITING, NetworkProcess
from sentry.net.host.protocol import HEADER, REPLY
from sentry.net.host.socket import make_host_socket
from sentry.net.sockfs import socket_location
from tests.world import Program

MORE = 3


def requests(theirs: socket.socket) -> int:
    """How many have come."""
    found = 0
    try:
        while theirs.recv(HEADER.size, socket.MSG_DONTWAIT):
            found += 1
    except BlockingIOError:
        pass
    return found


def test_socket_is_waited_for_where_many_are_asked_for(task: Program) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack = task.task.ns.net.stack
    made: list[Any] = []
    process = NetworkProcess(ours.detach(), task.world.loop)
    stack.host = process

    def ended(sock: Any, error: BaseException | None) -> None:
        made.append(sock.incref() if error is None else error)

    for _ in range(MAX_WAITING + MORE):
        location = socket_location(task.task)
        asking = make_host_socket(location, stack, SOCK_STREAM, IPPROTO_TCP, AF_INET)
        task.world.loop.spawn(asking, "test", ended)
    task.world.settle()
    assert (requests(theirs), made) == (MAX_WAITING, [])
    for count in range(1, MORE + 1):
        with socket.socket(AF_INET, SOCK_STREAM) as given:
            rights = array.array("i", [given.fileno()])
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            theirs.sendmsg([REPLY.pack(0, 0, 0)], control)
        while len(made) < count:
            task.world.loop.turn()
        task.world.settle()
        assert requests(theirs) == 1
    theirs.close()
    while len(made) < MAX_WAITING + MORE:
        task.world.loop.turn()
    for sock in made[:MORE]:
        sock.decref()
    process.close()
    stack.host = None


def test_what_is_asked_for_by_itself_has_room_where_programs_ask_for_much(task: Program) -> None:
    """Interfaces that have come, places where somebody listens: nobody would ask again."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = NetworkProcess(ours.detach(), task.world.loop)
    for _ in range(MAX_WAITING):
        process.nameserver(AF_INET, SOCK_DGRAM, bytes(16))
    with pytest.raises(ENFILE):
        process.nameserver(AF_INET, SOCK_DGRAM, bytes(16))
    process.list_all(-1)
    process.listen(1, bytes(16), v6only=False)
    process.close_port(1)
    for _ in range(MAX_OWN - 3):
        process.give_back(2)
    with pytest.raises(ENFILE):
        process.uplink(2)

    assert requests(theirs) == MAX_WAITING + MAX_OWN
    theirs.close()
    process.close()
